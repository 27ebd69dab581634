"""What an event costs up to its window: transport, decode, merge and align alone, by the size of its payload.

    python -m bench.transport

Records of frames and audio that no model ever opens are preloaded; three programs on one core read all of them, in
turns (``bench/programs/readers.py``): the worker without model and Redis, a Faust agent as its documentation shows it,
which does nothing with its events, and a plain aiokafka consumer's loop, which does neither. CPU (user and system, of
all threads) from the first fetch to the last record, an event; for the first two the rest of Faust's first rebalance
is in that, once a run.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from bench import rig
from bench.rig import Curve, Figure, Plot, Report, Rig, Spread
from streamer.events import AUDIO, IMAGE
from streamer.feeds import pace
from streamer.feeds.producer import Outgoing, Producer
from streamer.local.worker import environment

READERS = ("streamer", "faust", "aiokafka")
COUNTS = {200: 20_000, 1_000: 20_000, 50_000: 2_000, 100_000: 1_000, 200_000: 500}  # events, by bytes
QUICK = (1_000,)
QUICK_SHARE = 8  # of the events, with --quick
SESSIONS = 8
STEP_US = 10_000  # between events of a session and modality
AIM_1_KB_US, AIM_100_KB = 25.0, 1.3
CONTENT_TYPES = {IMAGE: "image/jpeg", AUDIO: "audio/L16;rate=384000"}  # so that 200 KB last 0.26 s only


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    options = rig.parse(rig.parser(__doc__, rounds=2), arguments)
    counts = {size: COUNTS[size] // QUICK_SHARE for size in QUICK} if options.quick else COUNTS
    cost_us: dict[int, dict[str, list[float]]] = {size: {name: [] for name in READERS} for size in counts}
    with Rig(options.device) as bench:
        for size, count in counts.items():
            load = preload(bench, size, count)
            for _ in rig.rounds(options):
                for name in READERS:
                    cost_us[size][name].append(1e6 * read_s(bench, load, name) / load.records)
            rig.console.log(f"{size} B:", {name: f"{min(found):.1f} µs" for name, found in cost_us[size].items()})
    rig.finish(Report("transport", figures(cost_us), [], [plot(cost_us)]), options)


def preload(bench: Rig, size: int, count: int) -> rig.Load:
    """Topics with this many records of one size, frames and audio in turn."""
    settings = bench.settings()
    rig.console.log(f"preloading {count:,} records of {size:,} bytes")
    payload = b"\xff" * size
    start_us = pace.start_us(0, count * STEP_US, 1_000_000)
    with Producer(settings) as producer:
        for number in range(count):
            row, turn = (IMAGE, AUDIO)[number % 2], number // 2
            at_us = start_us + turn // SESSIONS * STEP_US
            session = f"device-{turn % SESSIONS}"
            producer.send(Outgoing(row, session, at_us, payload, CONTENT_TYPES[row], at_us, sequence=turn))
    return rig.Load(settings, {}, 0, count, count * size)


def read_s(bench: Rig, load: rig.Load, name: str) -> float:
    """Let a reader read the load from its beginning to its end; returns its CPU seconds."""
    command = [sys.executable, "-m", "bench.programs.readers", name, str(load.records)]
    with rig.started(command, environment(load.fresh()), bench.folder / f"{name}.log") as program:
        return float(program.wait_end(rig.DONE_WITHIN_S).splitlines()[-1])


def figures(cost_us: dict[int, dict[str, list[float]]]) -> list[Figure]:
    """Per size: the two ratios, then what each took."""
    found = []
    for size, costs in cost_us.items():
        name = f"{size / 1000:g} KB"
        aim = AIM_100_KB if size == 100_000 else None
        found.append(Figure(f"streamer ÷ aiokafka, {name}", rig.ratios(costs["streamer"], costs["aiokafka"]), aim=aim))
        found.append(Figure(f"streamer ÷ Faust, {name}", rig.ratios(costs["streamer"], costs["faust"])))
    for size, costs in cost_us.items():
        for reader in READERS:
            aim = AIM_1_KB_US if (size, reader) == (1_000, "streamer") else None
            found.append(Figure(f"{reader}, {size / 1000:g} KB", Spread.of(costs[reader]), "µs CPU an event", aim=aim))
    return found


def plot(cost_us: dict[int, dict[str, list[float]]]) -> Plot:
    """CPU over the size of the payload."""
    curves = [
        Curve(reader, [(size / 1000, Spread.of(costs[reader]).median) for size, costs in cost_us.items()])
        for reader in READERS
    ]
    return Plot("transport", "payload, KB", "CPU an event, µs", curves)


if __name__ == "__main__":
    rig.run(main)
