"""Each engine under ``kill -9``: ``python -m bench.peers.kill``.

Cars drive in real time, again for each engine. Its program is killed several times at random moments and started again
at once; the moments are drawn between its first new window after a start and ``LATEST_S`` later, and are the same
for all engines. Once the drives are over and nothing more comes, the windows in Redis are held to those that follow
from the topics, see ``reference``: lost, doubled (a reader of the stream sees it twice), wrong (other members).
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import msgspec

from bench import rig
from bench.peers import reference
from bench.peers.reference import Verdict
from bench.peers.running import ENGINES, SETTINGS, STREAMER, engines, has_loaded, own, start, until, watch
from streamer.errors import Stop
from streamer.feeds import simulate
from streamer.settings import Settings

NAME = "peers.kill"
SEED = 11
LATEST_S = 5.0  # after its first new window
NEW_WITHIN_S = 60.0  # without a new result, after which a program is killed all the same


class Endured(msgspec.Struct, frozen=True):
    """What came of one engine.

    Attributes:
        back_s: From each kill to the next new window, s.
    """

    kills: int
    back_s: list[float]
    verdict: Verdict


def main() -> None:
    parser = rig.parser(__doc__, rounds=1)
    parser.add_argument("--engines", nargs="+", default=[], help=f"of {', '.join(ENGINES)}; all, unless given")
    options = rig.parse(parser)
    wanted = engines(options.engines)
    sessions, seconds, kills = (2, 30, 1) if options.quick else (4, 60, 4)
    with rig.Rig(options.device) as bench:
        found = {
            engine: [endure(bench, engine, sessions, seconds, kills, number) for number in range(options.rounds)]
            for engine in wanted
        }
    rig.finish(report(found, sessions, seconds), options)


def endure(bench: rig.Rig, engine: str, sessions: int, seconds: int, kills: int, number: int) -> Endured:
    """Run one engine through a feed with kills.

    Raises:
        Stop: The program ended by itself.
    """
    settings = own(bench.settings(**SETTINGS), engine, number)
    names = [f"sim-{settings.group}-{car}" for car in range(sessions)]
    moments, killed, back_s = random.Random(SEED + number), 0, []
    feed: Future[int] | None = None

    def count() -> int:
        return rig.published(bench.redis, settings, names)

    with ThreadPoolExecutor(1) as pool:
        while True:
            before, began_s = count(), time.monotonic()
            with start(engine, settings, bench.folder, str(killed)) as program:
                if feed is None:
                    program.wait_for(lambda: has_loaded(engine)(program), rig.READY_WITHIN_S, "load the model")
                    feed = pool.submit(_drive, settings, sessions, seconds)
                until(program, lambda before=before: count() > before, NEW_WITHIN_S)  # type: ignore[misc]
                if killed:
                    back_s.append(time.monotonic() - began_s)
                if killed < kills and not feed.done():
                    time.sleep(moments.uniform(0, LATEST_S))
                    program.kill()
                    killed += 1
                    rig.console.log(f"{engine}: killed {killed} times")
                    continue
                until(program, feed.done, seconds)
                watch(program, count)
                break
    feed.result()
    truth = reference.windows(settings)
    verdict = reference.judge(reference.judged(truth), set(truth), reference.published(settings, names))
    return Endured(killed, back_s, verdict)


def _drive(settings: Settings, sessions: int, seconds: int) -> int:
    """Send drives in real time; returns the number of records."""
    return simulate.run(settings, sessions=sessions, seconds=seconds, speed=1.0, seed=SEED, name=settings.group)


def report(found: Mapping[str, Sequence[Endured]], sessions: int, seconds: int) -> rig.Report:
    """The table of all engines, and how many of streamer's windows were right."""
    rows = [
        "| | kills | from start to the next window, s | judged | right | lost | doubled | wrong |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for engine, runs in found.items():
        back_s = [value for run in runs for value in run.back_s]
        back = str(rig.Spread.of(back_s)) if back_s else ""
        cells = [str(sum(run.kills for run in runs)), back, *reference.cells([run.verdict for run in runs])]
        rows.append(f"| {engine} | {' | '.join(cells)} |")
    figures = [
        rig.Figure(
            f"{engine}, share of windows that are there once and right",
            rig.Spread.of([run.verdict.right / run.verdict.expected for run in runs]),
            better="higher",
            aim=1.0 if engine == STREAMER else None,
        )
        for engine, runs in found.items()
    ]
    return rig.Report(NAME, figures, [f"{sessions} cars, {seconds} s, in real time.", "", "\n".join(rows)])


if __name__ == "__main__":
    try:
        main()
    except Stop as error:
        sys.exit(str(error))
