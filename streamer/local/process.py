"""A background process that is known by a file: its pid, when it was started, and where it logs."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from time import monotonic, sleep

import msgspec
import psutil

from streamer.errors import UsageError

STOP_S = 10.0


class _Identity(msgspec.Struct, frozen=True):
    pid: int
    created: float  # seconds since the epoch: a pid alone may have been given to another process since


class Daemon:
    """A server that outlives the command that started it.

    Args:
        name: For messages and file names.
        directory: Holds ``<name>.pid`` and ``<name>.log``.
    """

    def __init__(self, name: str, directory: Path) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self._file = directory / f"{name}.pid"

    @property
    def process(self) -> psutil.Process | None:
        """The running process; None if it does not run (any more)."""
        try:
            identity = msgspec.json.decode(self._file.read_bytes(), type=_Identity)
            process = psutil.Process(identity.pid)
            same = abs(process.create_time() - identity.created) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (FileNotFoundError, msgspec.DecodeError, psutil.NoSuchProcess):
            return None

    def start(self, command: Sequence[str], answers: Callable[[], bool], within_s: float) -> None:
        """Start it and wait until it answers; a start that fails leaves nothing behind.

        Raises:
            UsageError: It ended or did not answer in time, with the last lines of its log.
        """
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        created = psutil.Process(child.pid).create_time()
        self._file.write_bytes(msgspec.json.encode(_Identity(child.pid, created)))
        deadline = monotonic() + within_s
        while not answers():
            if child.poll() is not None:
                self._file.unlink()
                raise UsageError(f"{self.name} ended with exit code {child.returncode}; {self._last_lines()}")
            if monotonic() > deadline:
                self.stop()
                raise UsageError(f"{self.name} did not answer within {within_s:.0f} s; {self._last_lines()}")
            sleep(0.05)

    def stop(self) -> bool:
        """Stop it and wait until it is gone; returns whether it was running."""
        process = self.process
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
        self._file.unlink(missing_ok=True)
        return process is not None

    def _last_lines(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return f"its log {self.log} ends: " + " | ".join(lines[-3:]) if lines else f"its log {self.log} is empty"


def free_port() -> int:
    """A TCP port of the loopback interface that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def listens(address: str) -> bool:
    """Whether something accepts connections at ``host:port``."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1.0):
            return True
    except OSError:
        return False
