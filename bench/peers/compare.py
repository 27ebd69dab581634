"""The same topics through each engine: ``python -m bench.peers.compare``.

Fills four topics with simulated drives and lets each engine's program read them from the beginning, one after another
on the same core, in turn, round by round; Kafka, Redis and this script have another core. Measured twice: from the
moment at which a program has loaded the model up to its last window, so an engine's own start-up counts (*whole*), and
from its first results on, which are not counted themselves (*steady*; what was read ahead of them costs nothing there):

    windows/s, CPU ms   of wall time, and of the program's CPU time a window
    peak MiB            resident memory, PyTorch and the model included, seen ten times a second
    lost, doubled, wrong   windows, against those that follow from the topics, see ``reference``; of all rounds
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence

import msgspec

from bench import rig
from bench.peers import reference
from bench.peers.reference import Verdict
from bench.peers.running import (
    ENGINES,
    FIRST_WITHIN_S,
    SETTINGS,
    STREAMER,
    Look,
    engines,
    has_loaded,
    look,
    own,
    start,
    watch,
)
from streamer.errors import Stop
from streamer.settings import MIB

NAME = "peers.compare"


class Stretch(msgspec.Struct, frozen=True):
    """Part of a run.

    Attributes:
        windows: Published in it.
    """

    windows: int
    seconds: float
    cpu_s: float

    @classmethod
    def between(cls, first: Look, last: Look) -> Stretch:
        """From one look to another."""
        return cls(last.published - first.published, last.at_s - first.at_s, last.cpu_s - first.cpu_s)

    @property
    def windows_per_s(self) -> float:
        """Published windows in a second."""
        return self.windows / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU time of a published window, ms."""
        return self.cpu_s / self.windows * 1000


class Measured(msgspec.Struct, frozen=True):
    """One run of one engine.

    Attributes:
        whole: From the loaded model on.
        steady: From the first look that saw results on.
    """

    whole: Stretch
    steady: Stretch
    peak_bytes: int
    verdict: Verdict


STRETCHES: dict[str, Callable[[Measured], Stretch]] = {
    "whole": lambda run: run.whole,
    "steady": lambda run: run.steady,
}


def main() -> None:
    parser = rig.parser(__doc__, rounds=2)
    parser.add_argument("--engines", nargs="+", default=[], help=f"of {', '.join(ENGINES)}; all, unless given")
    options = rig.parse(parser)
    wanted = engines(options.engines)
    sessions, seconds = (8, 30) if options.quick else (16, 120)
    runs: dict[str, list[Measured]] = {engine: [] for engine in wanted}
    with rig.Rig(options.device) as bench:
        load = bench.preload(sessions, seconds, **SETTINGS)
        truth = reference.windows(load.settings)
        for number in range(options.rounds):
            for engine in wanted:
                rig.console.log(f"round {number + 1} of {options.rounds}: {engine}")
                runs[engine].append(measure(bench, load, engine, number, truth))
    rig.finish(report(runs, load), options)


def measure(
    bench: rig.Rig, load: rig.Load, engine: str, number: int, truth: Mapping[reference.Identity, reference.Members]
) -> Measured:
    """Let an engine read a load to its end.

    Raises:
        Stop: It failed, or published nothing, or all at once.
    """
    settings, sessions = own(load.settings, engine, number), list(load.drives)
    with start(engine, settings, bench.folder, "log") as program:
        program.wait_for(lambda: has_loaded(engine)(program), rig.READY_WITHIN_S, "load the model")
        looks = watch(program, lambda: rig.published(bench.redis, settings, sessions), FIRST_WITHIN_S)
        peak_bytes = max(look(program, lambda: 0).resident_bytes, *(seen.resident_bytes for seen in looks))
        if len(looks) < 3:
            how_much = "nothing" if len(looks) == 1 else f"all of its {looks[-1].published} windows at once"
            raise Stop(f"{engine} has published {how_much}; the end of its log:\n{program.text()[-2000:]}")
    found = reference.published(settings, sessions)
    return Measured(
        whole=Stretch.between(looks[0], looks[-1]),
        steady=Stretch.between(looks[1], looks[-1]),
        peak_bytes=peak_bytes,
        verdict=reference.judge(reference.judged(truth), set(truth), found),
    )


def report(runs: Mapping[str, Sequence[Measured]], load: rig.Load) -> rig.Report:
    """The table of all engines, and streamer's ratios to each."""
    figures = []
    ours = runs.get(STREAMER)
    for engine, measured in runs.items():
        if ours and engine != STREAMER:
            for name, stretch in STRETCHES.items():
                own_runs, its_runs = list(map(stretch, ours)), list(map(stretch, measured))
                rate = rig.ratios([run.windows_per_s for run in own_runs], [run.windows_per_s for run in its_runs])
                cpu = rig.ratios([run.cpu_ms for run in own_runs], [run.cpu_ms for run in its_runs])
                which = f"streamer ÷ {engine}, {name}"
                figures.append(rig.Figure(f"{which}, windows/s", rate, better="higher", aim=1.0))
                figures.append(rig.Figure(f"{which}, CPU time a window", cpu, better="lower", aim=1.0))
    rounds = len(next(iter(runs.values())))
    note = (
        f"{len(load.drives)} sessions, {load.windows} windows, {load.records:,} records, "
        f"{load.payload_bytes / MIB:.0f} MiB; {rounds} rounds; median (quartiles)."
    )
    return rig.Report(NAME, figures, [note, "", table(runs)])


def table(runs: Mapping[str, Sequence[Measured]]) -> str:
    """Markdown: an engine a row."""
    rows = [
        "| | windows/s, whole | steady | CPU ms a window, whole | steady "
        "| peak MiB | judged | right | lost | doubled | wrong |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for engine, measured in runs.items():
        verdicts = [run.verdict for run in measured]
        cells = [
            *(rig.Spread.of([stretch(run).windows_per_s for run in measured]) for stretch in STRETCHES.values()),
            *(rig.Spread.of([stretch(run).cpu_ms for run in measured]) for stretch in STRETCHES.values()),
            f"{max(run.peak_bytes for run in measured) / MIB:.0f}",
            *reference.cells(verdicts),
        ]
        rows.append(f"| {engine} | {' | '.join(map(str, cells))} |")
    return "\n".join(rows)


if __name__ == "__main__":
    try:
        main()
    except Stop as error:
        sys.exit(str(error))
