"""Programs on a core of their own, and what a process takes of the machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from bench.rig.host import PROGRAM_CORE, ROOT, pin
from streamer.errors import Stop

POLL_S = 0.02
READY_WITHIN_S, DONE_WITHIN_S = 120.0, 300.0
IDLE_S = 5.0


def family(pid: int) -> list[psutil.Process]:
    """A process and all that it started, which live."""
    first = psutil.Process(pid)
    return [first, *first.children(recursive=True)]


def kill(processes: Iterable[psutil.Process]) -> None:
    """``kill -9`` for all of them."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # some end when their parent does
            process.kill()


def cpu_s(pid: int) -> float:
    """User and system seconds of a process, its threads and its children."""
    spent = [process.cpu_times() for process in family(pid)]
    return float(sum(times.user + times.system for times in spent))


def idle_cores(pid: int) -> float:
    """Share of a core that a process takes while nothing comes, looked at for ``IDLE_S``."""
    began_s, spent_s = time.monotonic(), cpu_s(pid)
    time.sleep(IDLE_S)
    return (cpu_s(pid) - spent_s) / (time.monotonic() - began_s)


def peak_bytes(pid: int) -> int:
    """The most memory that a process had resident (``VmHWM``, proc_pid_status(5)); not on Linux: what it has now."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        return int(psutil.Process(pid).memory_info().rss)
    line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def one_thread(tree: Path = ROOT) -> dict[str, str]:
    """Variables that keep numeric libraries to one thread, and let a program find a working tree."""
    return {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": str(tree)}


class Program:
    """A program on one core, with its log in a file; gone after the ``with`` block.

    Args:
        command: Its arguments.
        env: Added to the environment, without any ``STREAMER_…`` of this process.
        log: Overwritten.
        core: The last one, which nothing else of the rig uses, unless it belongs to the servers' side. None: any.
        cwd: Where it runs.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        log: Path,
        core: int | None = PROGRAM_CORE,
        cwd: Path = ROOT,
    ) -> None:
        self.log = log
        # Bytecode is kept from one start for the next, as everywhere where nobody forbids it.
        left_out = ("STREAMER_", "PYTHONDONTWRITEBYTECODE")
        plain = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                command, cwd=cwd, env=plain | one_thread() | dict(env), stdout=out, stderr=subprocess.STDOUT
            )
        if core is not None:
            pin(self.pid, core)

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *error: object) -> None:
        # What it started is to be gone as well, before the next program is timed.
        started = family(self.pid)[1:] if self._process.poll() is None else []
        self._process.terminate()
        try:
            self._process.wait(15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        kill(started)

    def text(self) -> str:
        """Its log so far."""
        return self.log.read_text("utf-8", "replace")

    def wait_for(self, condition: Callable[[], bool], within_s: float, what: str) -> None:
        """Poll until something is so.

        Raises:
            Stop: The program has ended, or it is still not so after that many seconds; with the end of its log.
        """
        deadline = time.monotonic() + within_s
        while not condition():
            code = self._process.poll()
            if code is not None or time.monotonic() > deadline:
                why = f"ended with code {code}" if code is not None else f"took longer than {within_s:.0f} s"
                tail = "\n".join(self.text().splitlines()[-20:])
                raise Stop(f"waiting for {what}, the program {why}; the end of {self.log}:\n{tail}")
            time.sleep(POLL_S)

    def wait_end(self, within_s: float = DONE_WITHIN_S) -> str:
        """Wait until it has ended well; returns its log.

        Raises:
            Stop: It failed or took longer.
        """
        self.wait_for(lambda: self._process.poll() == 0, within_s, "its end")
        return self.text()


def says_ready(program: Program) -> bool:
    """A line ``ready`` in its log."""
    return "ready" in program.text().splitlines()
