"""The time from an empty folder to a ready worker, and its parts.

    python -m bench.start

Files are in the system's cache and Kafka's jars are there (the first start of all downloads them): a warm start.
Processes are not pinned to a core, as in use. *Up*: ``streamer up`` until it returns with Kafka and Redis
answering. *Worker*: ``streamer worker`` until /readyz answers 200. Its parts are measured in a separate process
(``bench/programs/parts.py``): *imports* from the start of the interpreter until ``streamer.worker.worker`` is imported,
*model* its loading and first run; the rest is spent with Kafka and Redis: topics, group, partitions.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import chdir
from pathlib import Path

import msgspec

from bench import rig
from bench.rig import Figure, Report, Spread
from streamer.local.program import Program
from streamer.local.worker import WorkerProcess
from streamer.settings import Settings

AIM_S = 8.0
WITHIN_S = 120.0
MODEL = rig.ROOT / "models" / "driving"
STREAMER = (sys.executable, "-m", "streamer")


class Parts(msgspec.Struct, frozen=True):
    """Seconds of a start."""

    up: float
    topics: float
    worker: float
    imports: float
    model: float

    @property
    def whole(self) -> float:
        """From ``streamer up`` to a ready worker."""
        return self.up + self.topics + self.worker

    @property
    def services(self) -> float:
        """What the worker spends with Kafka and Redis."""
        return self.worker - self.imports - self.model


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    options = rig.parse(rig.parser(__doc__, rounds=3), arguments)
    rounds = []
    for number in rig.rounds(options):
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            rounds.append(start(Path(folder), options.device))
        rig.console.log(f"round {number}: {rounds[-1].whole:.1f} s from `streamer up` to ready")
    figures = [
        Figure("from `streamer up` to a ready worker", Spread.of([r.whole for r in rounds]), "s", aim=AIM_S),
        Figure("`streamer up`", Spread.of([r.up for r in rounds]), "s"),
        Figure("`streamer topics create`", Spread.of([r.topics for r in rounds]), "s"),
        Figure("`streamer worker` until ready", Spread.of([r.worker for r in rounds]), "s"),
        Figure("of that, imports", Spread.of([r.imports for r in rounds]), "s"),
        Figure("of that, the model", Spread.of([r.model for r in rounds]), "s"),
        Figure("of that, Kafka and Redis", Spread.of([r.services for r in rounds]), "s"),
        Figure("imports ÷ whole worker", rig.ratios([r.imports for r in rounds], [r.worker for r in rounds])),
    ]
    rig.finish(Report("start", figures), options)


def start(folder: Path, device: str) -> Parts:
    """One start in an empty folder; everything is stopped again."""
    env = rig.one_thread() | {"STREAMER_MODEL": str(MODEL), "STREAMER_DEVICE": device}
    try:
        up_s = command(folder, env, "up")
        topics_s = command(folder, env, "topics", "create")
        with chdir(folder):  # where `up` has written the addresses
            settings = Settings.load(model=MODEL, device=device)
        began_s = time.monotonic()
        with WorkerProcess(settings, folder / "worker.log", rig.one_thread(), folder) as worker:
            worker.wait_ready(WITHIN_S)
            worker_s = time.monotonic() - began_s
        with Program([sys.executable, "-m", "bench.programs.parts"], folder / "parts.log", env, folder) as it:
            imports_s, model_s = msgspec.json.decode(it.wait_end(WITHIN_S).splitlines()[-1], type=tuple[float, float])
    finally:
        command(folder, env, "down")
    return Parts(up_s, topics_s, worker_s, imports_s, model_s)


def command(folder: Path, env: dict[str, str], *arguments: str) -> float:
    """Run a command of streamer to its end; returns how long it took in seconds."""
    began_s = time.monotonic()
    log = folder / f"{arguments[0]}.log"
    with Program([*STREAMER, *arguments], log, env, folder) as program:
        program.wait_end(WITHIN_S)
    return time.monotonic() - began_s


if __name__ == "__main__":
    rig.run(main)
