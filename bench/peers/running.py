"""Starting an engine's program, and watching what it publishes until nothing more comes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import rig
from bench.peers.common import GRACE_MS, STATE_VARIABLE, WINDOW_MS
from streamer.errors import UsageError
from streamer.events import KIND_NAMES
from streamer.local.program import Program
from streamer.local.worker import environment
from streamer.settings import Settings

PEERS_PYTHON = rig.ROOT / ".venv-peers" / "bin" / "python"
FLINK_PYTHON = rig.ROOT / ".venv-flink" / "bin" / "python"  # its pins are not those of the others
STREAMER = "streamer"
MODULES = {
    "aiokafka": "bench.peers.aiokafka_plain",
    "Quix Streams": "bench.peers.quix",
    "Bytewax": "bench.peers.bytewax_flow",
    "Faust": "bench.peers.faust_plain",
    "Flink": "bench.peers.flink",
}
ENGINES = (STREAMER, *MODULES)

# All wait equally long for a modality that is behind: streamer's default for text is a second less than GRACE_MS.
SETTINGS: dict[str, Any] = {
    "window_ms": WINDOW_MS,
    "sensors": {name: {"max_delay_ms": GRACE_MS} for name in KIND_NAMES},
    "model_poll_ms": 0,
    "port": 0,
}
POLL_S = 0.1
QUIET_S = 6.0  # without a new result, after which it is done
FIRST_WITHIN_S = 60.0


class Look(msgspec.Struct, frozen=True):
    """What was seen of a program at one moment.

    Attributes:
        at_s: On the monotonic clock.
        published: Results in Redis.
        cpu_s: CPU seconds of the process and those that it started.
        resident_bytes: Their memory.
    """

    at_s: float
    published: int
    cpu_s: float
    resident_bytes: int


def engines(names: Sequence[str]) -> tuple[str, ...]:
    """The engines of these names, all where none is given.

    Raises:
        UsageError: There is no such engine, or the peers' environment is not installed.
    """
    unknown = sorted(set(names) - set(ENGINES))
    if unknown:
        raise UsageError(f"there is no engine {unknown[0]!r}; known: {', '.join(ENGINES)}")
    wanted = tuple(name for name in ENGINES if name in (names or ENGINES))
    missing = [python for python in map(_python, wanted) if not python.exists()]
    if missing:
        raise UsageError(f"there is no {missing[0].relative_to(rig.ROOT)}: `make bench-peers` installs the engines")
    return wanted


def _python(engine: str) -> Path:
    """The interpreter whose packages an engine needs."""
    if engine == STREAMER:
        return Path(sys.executable)
    return FLINK_PYTHON if engine == "Flink" else PEERS_PYTHON


def own(settings: Settings, engine: str, number: int) -> Settings:
    """Settings with a group, a member's id and keys that no other run on these topics has."""
    name = f"{settings.topic_prefix}-{list(ENGINES).index(engine)}-{number}"
    return settings.model_copy(update={"group": name, "key_prefix": name, "instance_id": name})


def start(engine: str, settings: Settings, folder: Path, log: str) -> Program:
    """Start an engine's program, which goes on with what it finds of its state."""
    module = ["streamer", "worker"] if engine == STREAMER else [MODULES[engine]]
    state = {STATE_VARIABLE: str(folder / f"{settings.group}-state"), "PYTHONWARNINGS": "ignore"}
    command = [str(_python(engine)), "-m", *module]
    return rig.started(command, environment(settings) | state, folder / f"{settings.group}-{log}.log")


def has_loaded(engine: str) -> Callable[[Program], bool]:
    """Whether a program's log says that the model is loaded, before the engine does anything."""
    if engine == STREAMER:
        return lambda program: "metrics and probes on" in program.text()
    return rig.says_ready


def look(program: Program, count: Callable[[], int]) -> Look:
    """See what a program has published and used."""
    memory = sum(process.memory_info().rss for process in program.family())
    return Look(time.monotonic(), count(), rig.cpu_s(program), memory)


def watch(program: Program, count: Callable[[], int], first_within_s: float = QUIET_S) -> list[Look]:
    """Look at a program until it has published nothing new for ``QUIET_S``, or for ``first_within_s`` at first.

    Returns:
        The first look, and those at which there was more than at the one before.

    Raises:
        Stop: It has ended.
    """
    looks = [look(program, count)]

    def is_over() -> bool:
        time.sleep(POLL_S)
        now = look(program, count)
        if now.published > looks[-1].published:
            looks.append(now)
        return now.at_s - looks[-1].at_s > (QUIET_S if len(looks) > 1 else first_within_s)

    program.wait_for(is_over, rig.DONE_WITHIN_S, "publish its last window")
    return looks


def until(program: Program, condition: Callable[[], bool], within_s: float) -> bool:
    """Wait for something while a program runs; returns whether it came in time.

    Raises:
        Stop: The program has ended.
    """
    deadline_s = time.monotonic() + within_s
    program.wait_for(lambda: condition() or time.monotonic() > deadline_s, within_s + 10, "publish something new")
    return condition()
