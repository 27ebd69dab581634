"""What everything but decoding and inference costs: a worker on full topics against the bare model.

    python -m bench.pipeline

*Bare*: the same windows in memory, decoded and predicted batch after batch in one thread, by the functions that the
worker calls; no Kafka, no Faust, no Redis (``bench/programs/bare.py``). *Worker*: ``streamer worker`` from ready
until Redis has every result. Both on one core with one thread for the model, in turns; Kafka and Redis have the
other core.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial

import msgspec

from bench import rig
from bench.rig import Bare, Figure, Report, Rig, Run, Spread
from streamer.local.worker import environment

SESSIONS, SECONDS = 16, 50
QUICK_SECONDS = 6
SPEED, COST = 0.9, 1.15  # the aims, worker ÷ bare


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    options = rig.parse(rig.parser(__doc__, rounds=4), arguments)
    seconds = QUICK_SECONDS if options.quick else SECONDS
    with Rig(options.device) as bench:
        load = bench.preload(SESSIONS, seconds)
        bare, worker = measure(bench, load, rig.rounds(options))
    note = f"{load.windows:,} windows of {load.records:,} records, {load.payload_bytes / 1e6:.0f} MB, a round."
    rig.finish(Report("pipeline", figures(bare, worker), [note]), options)


def measure(bench: Rig, load: rig.Load, rounds: range) -> tuple[list[Bare], list[Run]]:
    """The bare model and the worker on a load, in turns."""
    bare, worker = [], []
    for number in rounds:
        bare.append(bare_run(bench, load))
        worker.append(bench.worker(load))
        rig.console.log(f"round {number}: bare {rig.described(bare[-1])}; worker {rig.described(worker[-1])}")
    return bare, worker


def bare_run(bench: Rig, load: rig.Load) -> Bare:
    """Decoding and inference alone, of the windows of a load."""
    command = [sys.executable, "-m", "bench.programs.bare"]
    with rig.started(command, environment(load.settings), bench.folder / "bare.log") as program:
        program.wait_for(partial(rig.says_ready, program), rig.READY_WITHIN_S, "be ready")
        with rig.Utilization(bench.device) as busy:
            program.wait_for(lambda: program.text().endswith("}\n"), rig.DONE_WITHIN_S, "print its figures")
        run = msgspec.json.decode(program.wait_end(rig.DONE_WITHIN_S).splitlines()[-1], type=Bare)
    if run.windows != load.windows:
        raise RuntimeError(f"{run.windows} windows were aligned in memory, {load.windows} were sent")
    return msgspec.structs.replace(run, device_busy=busy.mean)


def figures(bare: Sequence[Run], worker: Sequence[Run]) -> list[Figure]:
    """Ratios first, then what they are of."""
    speed = [[run.windows_per_s for run in runs] for runs in (worker, bare)]
    cost = [[run.cpu_ms_per_window for run in runs] for runs in (worker, bare)]
    return [
        Figure("worker ÷ bare, windows a second", rig.ratios(*speed), better="higher", aim=SPEED),
        Figure("worker ÷ bare, CPU s a window", rig.ratios(*cost), aim=COST),
        Figure("worker", Spread.of(speed[0]), "windows/s", better="higher"),
        Figure("bare", Spread.of(speed[1]), "windows/s", better="higher"),
        Figure("worker, CPU a window", Spread.of(cost[0]), "ms"),
        Figure("bare, CPU a window", Spread.of(cost[1]), "ms"),
        *rig.busy({"worker": worker, "bare": bare}),
    ]


if __name__ == "__main__":
    rig.run(main)
