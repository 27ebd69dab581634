"""A background process that is found again by a file with its pid and start time."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from time import monotonic

import msgspec
import psutil

from streamer.errors import UsageError
from streamer.settings import host_and_port

STOP_S = 10.0
POLL_S = 0.05

# Below the range that Linux (32768 and up) and macOS (49152 and up) give to outgoing connections: there a client that
# retries while its server is down can be given the server's own port, and connects to itself.
PORTS = range(20_000, 32_000)

_STACK_TRACE = re.compile(r"\s+at |\s*\.\.\. \d+ more")  # shows a place in library code, not what is wrong


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
        """The running process; ``None`` if it does not run."""
        try:
            identity = msgspec.json.decode(self._file.read_bytes(), type=_Identity)
            process = psutil.Process(identity.pid)
            same = abs(process.create_time() - identity.created) < 1.0
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except (FileNotFoundError, msgspec.DecodeError, psutil.NoSuchProcess):
            return None

    def start(self, command: Sequence[str], answers: Callable[[], bool], within_s: float) -> None:
        """Start it and wait until it answers; a start that fails or is interrupted leaves nothing behind.

        Raises:
            UsageError: It cannot be run, ended, or did not answer in time; with the last lines of its log.
        """
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            process = psutil.Process(_spawn(command, self.log))
        except OSError as error:
            raise UsageError(f"{self.name} cannot be started: {command[0]}: {error.strerror}") from None
        self._file.write_bytes(msgspec.json.encode(_Identity(process.pid, process.create_time())))
        try:
            self._wait_until(answers, process, within_s)
        except BaseException:
            self.kill()
            raise

    def _wait_until(self, answers: Callable[[], bool], process: psutil.Process, within_s: float) -> None:
        deadline = monotonic() + within_s
        while monotonic() < deadline:
            try:
                code = process.wait(POLL_S)
            except psutil.TimeoutExpired:
                if answers():
                    return
            else:
                raise UsageError(f"{self.name} ended with exit code {code}; {self._last_lines()}")
        raise UsageError(f"{self.name} did not answer within {within_s:.0f} s; {self._last_lines()}")

    def stop(self, within_s: float = STOP_S) -> bool:
        """Terminate it, also if it is paused, and wait until it is gone; returns whether it was running."""
        process = self.process
        if process is not None:
            try:
                process.terminate()
                process.resume()
                process.wait(within_s)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(STOP_S)
            except psutil.NoSuchProcess:
                pass  # it ended by itself just now, which is what we want
        self._file.unlink(missing_ok=True)
        return process is not None

    def kill(self) -> None:
        """End it at once, as a crash would, and wait until its port is free again."""
        process = self.process
        if process is not None:
            process.kill()
            process.wait(STOP_S)
        self._file.unlink(missing_ok=True)

    def pause(self) -> None:
        """Stop it from running, with all its connections open, as an overloaded machine would."""
        if self.process is not None:
            self.process.suspend()

    def resume(self) -> None:
        """Undo :meth:`pause`."""
        if self.process is not None:
            self.process.resume()

    def _last_lines(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines()]
        telling = [line for line in lines if line and not _STACK_TRACE.match(f" {line}")]
        return f"its log {self.log} ends: " + " | ".join(telling[-3:]) if telling else f"its log {self.log} is empty"


def _spawn(command: Sequence[str], log: Path) -> int:
    """Run a command in a new session, so that Ctrl-C does not reach it; returns its pid.

    Not ``subprocess``: which warns about a child that outlives its parent.
    """
    return os.posix_spawn(
        command[0],
        list(command),
        os.environ,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigdef=[signal.SIGPIPE],  # Python ignores it, and a child inherits that
    )


def free_port(but: Collection[int] = ()) -> int:
    """A TCP port of the loopback interface that was free a moment ago, and is none of ``but``.

    Raises:
        UsageError: None is found.
    """
    for port in random.sample(PORTS, 100):
        if port not in but and is_free(port):
            return port
    raise UsageError(f"no free port between {PORTS.start} and {PORTS.stop} on 127.0.0.1")


def is_free(port: int) -> bool:
    """Whether a server could listen on a port of the loopback interface."""
    with socket.socket() as probe:
        # As servers do: connections of an earlier server that are still being closed do not hold the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listens(address: str) -> bool:
    """Whether something accepts connections at ``host:port``."""
    try:
        with socket.create_connection(host_and_port(address), timeout=1.0):
            return True
    except (OSError, ValueError, OverflowError):
        return False
