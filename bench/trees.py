"""What changes of the code have brought: the workers of several working trees, side by side.

    git worktree add ../before COMMIT
    python -m bench.trees ../before ../between .

Each tree's worker reads the same full topics, in turns, as in ``bench.pipeline``. Every tree is compared with the one
named first. Not part of ``make bench``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench import rig
from bench.rig import Figure, Report, Rig, Run, Spread
from streamer.errors import UsageError

SESSIONS, SECONDS, QUICK_SECONDS = 16, 50, 15


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    parser = rig.parser(__doc__, rounds=4)
    parser.add_argument("trees", nargs="+", type=Path, help="working trees, the one to compare with first")
    options = rig.parse(parser, arguments)
    trees = [tree.resolve() for tree in options.trees]
    if missing := [tree for tree in trees if not (tree / "streamer" / "worker.py").is_file()]:
        raise UsageError(f"{missing[0]} is no working tree of this project")
    runs: dict[Path, list[Run]] = {tree: [] for tree in trees}
    with Rig() as bench:
        load = bench.preload(SESSIONS, QUICK_SECONDS if options.quick else SECONDS)
        for number in rig.rounds(options):
            for tree in trees:
                runs[tree].append(bench.worker(load, tree=tree))
                rig.console.log(f"round {number}: {tree.name}: {rig.described(runs[tree][-1])}")
    rig.finish(Report("trees", figures(runs), [f"{load.windows:,} windows a round."]), options)


def figures(runs: dict[Path, list[Run]]) -> list[Figure]:
    """CPU and speed of every tree, as ratios to the first."""
    first, *others = runs
    cost = {tree: [run.cpu_ms_per_window for run in found] for tree, found in runs.items()}
    speed = {tree: [run.windows_per_s for run in found] for tree, found in runs.items()}
    found = [Figure(f"{first.name}, CPU a window", Spread.of(cost[first]), "ms")]
    for tree in others:
        found.append(Figure(f"{tree.name} ÷ {first.name}, CPU s a window", rig.ratios(cost[tree], cost[first])))
        name = f"{tree.name} ÷ {first.name}, windows a second"
        found.append(Figure(name, rig.ratios(speed[tree], speed[first]), better="higher"))
    return found


if __name__ == "__main__":
    rig.run(main)
