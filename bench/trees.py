"""The effect of changes to the code: the workers of several working trees, side by side.

    git worktree add ../before COMMIT
    python -m bench.trees ../before ../between .
    python -m bench.trees ../before . --offered 10
    python -m bench.trees ../before . --frame-kb 200

Each tree's worker reads the same full topics, in turns, as in ``bench.pipeline``, or topics with frames of a camera's
size, as in ``bench.growth``; with ``--offered`` cars send that many windows a second in real time, as in
``bench.batching``. Every tree runs its own models/driving, and is compared with the one named first. Not part of
``make bench``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from bench import batching, rig
from bench.growth.feeds import Feed
from bench.growth.measure import preloaded
from bench.growth.points import Config
from bench.rig import Figure, Report, Rig, Run, Spread
from streamer.errors import UsageError

SESSIONS, SECONDS, QUICK_SECONDS = 16, 50, 15
LARGE_SESSIONS, SIMULATED_KB = 16, 16  # about as many bytes with large frames as with simulated ones
OFFERED_S = 20
MODEL = Path("models/driving")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    parser = rig.parser(__doc__, rounds=4)
    parser.add_argument("trees", nargs="+", type=Path, help="working trees, the one to compare with first")
    feed = parser.add_mutually_exclusive_group()
    feed.add_argument("--offered", type=int, help="windows a second, in real time; left out: full topics")
    feed.add_argument("--frame-kb", type=int, help="size of frames on full topics, 1,000 bytes (as simulated)")
    options = rig.parse(parser, arguments)
    trees = [tree.resolve() for tree in options.trees]
    if missing := [tree for tree in trees if not (tree / "streamer" / "__main__.py").is_file()]:
        raise UsageError(f"{missing[0]} is no working tree of this project")
    with Rig(options.device) as bench:
        if options.offered:
            found, note = in_real_time(bench, trees, options.offered, rig.rounds(options))
        else:
            seconds = QUICK_SECONDS if options.quick else SECONDS
            found, note = on_full_topics(bench, trees, seconds, options.frame_kb, rig.rounds(options))
    rig.finish(Report("trees", found, [note]), options)


def on_full_topics(
    bench: Rig, trees: Sequence[Path], seconds: int, frame_kb: int | None, rounds: range
) -> tuple[list[Figure], str]:
    """Figures of the trees, and how much was run."""
    runs: dict[Path, list[Run]] = {tree: [] for tree in trees}
    if frame_kb is None:
        load = bench.preload(SESSIONS, seconds)
    else:
        feed = Feed(LARGE_SESSIONS, seconds * SIMULATED_KB // frame_kb + 1, frame_kb=frame_kb)
        load, _ = preloaded(bench, Config("frames", frame_kb, feed))
    for number in rounds:
        for tree in trees:
            own = load.fresh().model_copy(update={"model": tree / MODEL})  # older ones do not read newer
            runs[tree].append(bench.worker(load, own, tree=tree))
            rig.console.log(f"round {number}: {tree.name}: {rig.described(runs[tree][-1])}")
    cost = {tree: [run.cpu_ms_per_window for run in found] for tree, found in runs.items()}
    speed = {tree: [run.windows_per_s for run in found] for tree, found in runs.items()}
    note = f"{load.windows:,} windows of {load.payload_bytes / load.windows / 1e6:.2g} MB a round."
    return figures(cost, speed, "windows a second", "higher"), note


def in_real_time(bench: Rig, trees: Sequence[Path], offered: int, rounds: range) -> tuple[list[Figure], str]:
    """Figures of the trees, and how much was run."""
    cost: dict[Path, list[float]] = {tree: [] for tree in trees}
    latency_ms: dict[Path, list[float]] = {tree: [] for tree in trees}
    for number in rounds:
        for tree in trees:
            cpu_ms, median_ms = paced(bench, tree, offered)
            cost[tree].append(cpu_ms)
            latency_ms[tree].append(median_ms)
            rig.console.log(f"round {number}: {tree.name}: {cpu_ms:.2f} ms CPU a window, latency {median_ms:.0f} ms")
    return figures(cost, latency_ms, "median latency", "lower"), f"{offered} windows/s for {OFFERED_S} s a round."


def paced(bench: Rig, tree: Path, offered: int) -> tuple[float, float]:
    """CPU ms a window and median latency, ms, of a tree's worker, as ``batching.offer_to`` counts."""
    settings = bench.settings(sensors=batching.NO_WAIT)
    with bench.worker_process(settings, tree) as worker:
        found, cpu_ms = batching.offer_to(worker, bench, settings, offered, OFFERED_S, rig.idle_cores(worker))
    return cpu_ms, float(np.median(found.latency_ms))


def figures(
    cost: dict[Path, list[float]], other: dict[Path, list[float]], what: str, better: Literal["lower", "higher"]
) -> list[Figure]:
    """CPU of every tree and another quantity, as ratios to the first."""
    first, *others = cost
    found = [Figure(f"{first.name}, CPU a window", Spread.of(cost[first]), "ms")]
    for tree in others:
        name = f"{tree.name} ÷ {first.name}"
        found.append(Figure(f"{name}, CPU s a window", rig.ratios(cost[tree], cost[first])))
        found.append(Figure(f"{name}, {what}", rig.ratios(other[tree], other[first]), better=better))
    return found


if __name__ == "__main__":
    rig.run(main)
