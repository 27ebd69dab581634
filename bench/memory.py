"""What a start costs: memory and CPU of a worker that aligns, and the time of commands that need no model.

    python -m bench.memory                       # role align beside role all, both of this tree
    python -m bench.memory --before ../before    # role align, and the commands, beside those of another working tree

*Resident* is the worker's memory at the moment when it is ready, *CPU* what it has used until then (user and system, of
all threads), on a separate core. Commands are timed from start to end on that core. What is compared runs in turns,
after a first start of each that does not count: it leaves bytecode and the system's cache behind.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from bench import rig
from bench.rig import Figure, Report, Rig, Spread
from streamer.errors import Stop, UsageError
from streamer.local.program import without_settings
from streamer.local.worker import environment
from streamer.settings import MIB, Settings

SECONDS = 10  # of a drive, whose results are printed
COMMANDS = (("--help",), ("status",), ("results", "--session", "car-0"))
RESIDENT, CPU, WALL = 0.2, 0.5, 0.5  # the aims beside the tree in which an aligner loaded PyTorch


class Side(NamedTuple):
    """One of the two that are compared."""

    name: str
    tree: Path
    role: str


class Start(msgspec.Struct, frozen=True):
    """What a worker has taken when it is ready."""

    resident_bytes: int
    cpu_s: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    parser = rig.parser(__doc__, rounds=5)
    parser.add_argument("--before", type=Path, help="working tree to compare with (role all of this one)")
    options = rig.parse(parser, arguments)
    if options.before is None:
        sides = [Side("role all", rig.ROOT, "all"), Side("role align", rig.ROOT, "align")]
    elif (options.before / "streamer" / "__main__.py").is_file():
        sides = [Side("before", options.before.resolve(), "align"), Side("role align", rig.ROOT, "align")]
    else:
        raise UsageError(f"{options.before} is no working tree of this project")
    starts: dict[str, list[Start]] = {side.name: [] for side in sides}
    walls: dict[tuple[str, str], list[float]] = {(c[0], side.name): [] for c in COMMANDS for side in sides}
    with Rig(options.device) as bench:
        settings, load = bench.settings(), bench.preload(1, SECONDS)
        publish(bench, load)
        for number in range(1 + options.rounds):
            for side in sides:
                found = start(bench, settings, side)
                took_s = {command[0]: wall_s(load.settings, side.tree, command) for command in commands(sides)}
                what = f"{found.resident_bytes / MIB:.0f} MiB, {found.cpu_s:.2f} s"
                rig.console.log(f"round {number}: {side.name}: {what}")
                if number:
                    starts[side.name].append(found)
                    for command, seconds in took_s.items():
                        walls[command, side.name].append(seconds)
    rig.finish(Report("memory", figures(sides, starts, walls), notes(sides)), options)


def commands(sides: Sequence[Side]) -> Sequence[tuple[str, ...]]:
    """Those that differ between the sides: none where both are of one tree."""
    return COMMANDS if len({side.tree for side in sides}) > 1 else ()


def publish(bench: Rig, load: rig.Load) -> None:
    """Results for the command that prints them."""
    sessions = list(load.drives)
    with bench.worker_process(load.settings) as worker:
        worker.wait_for(
            lambda: rig.published(bench.redis, load.settings, sessions) == load.windows,
            rig.DONE_WITHIN_S,
            "publish all windows",
        )


def start(bench: Rig, settings: Settings, side: Side) -> Start:
    """A worker from nothing to ready."""
    name = f"b{time.monotonic_ns()}"
    own = settings.model_copy(update={"role": side.role, "group": name, "key_prefix": name})
    with bench.worker_process(own, side.tree) as worker:
        cpu_s = rig.cpu_s(worker)
        return Start(sum(process.memory_info().rss for process in worker.family()), cpu_s)


def wall_s(settings: Settings, tree: Path, command: Sequence[str]) -> float:
    """Seconds from the start of a command of a tree to its end.

    Raises:
        Stop: It failed.
    """
    env: Mapping[str, str] = without_settings() | environment(settings) | rig.one_thread(tree)
    began_s = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "streamer", *command],
        cwd=tree,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        rig.pin(process.pid, rig.PROGRAM_CORE)
        _, said = process.communicate()  # without a time limit, for which it would poll
        took_s = time.perf_counter() - began_s
    if process.returncode:
        raise Stop(f"streamer {' '.join(command)} of {tree} ended with code {process.returncode}: {said.strip()}")
    return took_s


def notes(sides: Sequence[Side]) -> list[str]:
    """Which tree was compared with."""
    before = sides[0]
    if before.tree == rig.ROOT:
        return []
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=before.tree, capture_output=True, text=True, check=False
    )
    return [f"*before* is commit {found.stdout.strip() or before.tree.name}."]


def figures(
    sides: Sequence[Side], starts: Mapping[str, Sequence[Start]], walls: Mapping[tuple[str, str], Sequence[float]]
) -> list[Figure]:
    """Ratios first, then what they are of."""
    before, now = sides
    aims = (RESIDENT, CPU) if before.tree != now.tree else (None, None)
    resident = {name: [start.resident_bytes / MIB for start in found] for name, found in starts.items()}
    cpu = {name: [start.cpu_s for start in found] for name, found in starts.items()}
    ratio = f"{now.name} ÷ {before.name}"
    shown = [command[0] for command in commands(sides)]
    return [
        Figure(f"{ratio}, resident when ready", rig.ratios(resident[now.name], resident[before.name]), aim=aims[0]),
        Figure(f"{ratio}, CPU until ready", rig.ratios(cpu[now.name], cpu[before.name]), aim=aims[1]),
        *(
            Figure(f"`streamer {c}`, now ÷ before", rig.ratios(walls[c, now.name], walls[c, before.name]), aim=WALL)
            for c in shown
        ),
        *(Figure(f"{side.name}, resident when ready", Spread.of(resident[side.name]), "MiB") for side in sides),
        *(Figure(f"{side.name}, CPU until ready", Spread.of(cpu[side.name]), "s") for side in sides),
        *(
            Figure(f"`streamer {c}`, {'before' if side is before else 'now'}", Spread.of(walls[c, side.name]), "s")
            for c in shown
            for side in sides
        ),
    ]


if __name__ == "__main__":
    rig.run(main)
