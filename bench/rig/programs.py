"""Programs on a separate core, and the CPU time and memory that they use."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from bench.rig.host import PROGRAM_CORE, ROOT, pin
from streamer.local.program import Program

POLL_S = 0.02
READY_WITHIN_S, DONE_WITHIN_S = 120.0, 300.0
IDLE_S = 5.0


def started(command: Sequence[str], env: Mapping[str, str], log: Path, core: int | None = PROGRAM_CORE) -> Program:
    """A program in this working tree.

    Args:
        core: ``PROGRAM_CORE``, which only measured programs use, or ``SERVERS_CORE``; ``None`` for any.
    """
    program = Program(command, log, one_thread() | dict(env), ROOT)
    if core is not None:
        pin(program.pid, core)
    return program


def cpu_s(program: Program) -> float:
    """User and system seconds of a program, its threads and its children."""
    spent = [process.cpu_times() for process in program.family()]
    return float(sum(times.user + times.system for times in spent))


def idle_cores(program: Program) -> float:
    """Share of a core that an idle program uses, measured for ``IDLE_S``."""
    began_s, spent_s = time.monotonic(), cpu_s(program)
    time.sleep(IDLE_S)
    return (cpu_s(program) - spent_s) / (time.monotonic() - began_s)


def peak_bytes(pid: int) -> int:
    """The most memory that a process had resident (``VmHWM``, proc_pid_status(5)); not on Linux: what it has now."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return int(psutil.Process(pid).memory_info().rss)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def one_thread(tree: Path = ROOT) -> dict[str, str]:
    """Variables that keep numeric libraries to one thread, and make a program import from a working tree."""
    threads = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    # Bytecode is kept for the next start, as it is by default.
    return threads | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": ""}


def says_ready(program: Program) -> bool:
    """A line ``ready`` in its log."""
    return "ready" in program.text().splitlines()
