"""A program that runs for as long as a context is open."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Self

import psutil

from streamer.errors import Stop

POLL_S = 0.02
END_WITHIN_S = 15.0
LOG_TAIL_LINES = 20
NO_VARIABLES: Mapping[str, str] = MappingProxyType({})


class Program:
    """A command as a child process with its log in a file; it and all its children are gone after the ``with`` block.

    Args:
        command: Its arguments.
        log: What it prints; overwritten, until it is started again.
        env: Added to the environment of this process, from which ``STREAMER_…`` is left out.
        cwd: Where it runs; ``None`` for here.
        name: For messages.
    """

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        env: Mapping[str, str] = NO_VARIABLES,
        cwd: Path | None = None,
        name: str = "the program",
    ) -> None:
        self.log = log
        self._name = name
        self._run = partial(
            subprocess.Popen[bytes],
            command,
            cwd=cwd,
            env=without_settings() | dict(env),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C goes to us, and we end it when we are done with it
        )
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_bytes(b"")
        self.start()

    def start(self) -> None:
        """Start it again, after it has ended; its log goes on."""
        with self.log.open("ab") as out:
            self._begin = out.tell()
            self._process = self._run(stdout=out)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """Its exit code; ``None`` while it runs."""
        return self._process.poll()

    def text(self) -> str:
        """What it has printed since it was started last."""
        return self.log.read_bytes()[self._begin :].decode("utf-8", "replace")

    def family(self) -> list[psutil.Process]:
        """Its process and all that this has started; empty once it has ended."""
        if self.code is not None:
            return []
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def check(self) -> None:
        """Raise Stop with the end of its log if it does not run any more."""
        if self.code is not None:
            raise Stop(f"{self._name} ended with code {self.code}; {self._tail()}")

    def wait_for(self, condition: Callable[[], bool], within_s: float, what: str | Callable[[], str]) -> None:
        """Poll until a condition holds.

        Args:
            what: What it should do, for the message: ``be ready``.

        Raises:
            Stop: The program has ended, or the time is over; with the end of its log.
        """
        deadline = time.monotonic() + within_s
        while not condition():
            self.check()
            if time.monotonic() > deadline:
                missing = what if isinstance(what, str) else what()
                raise Stop(f"{self._name} took longer than {within_s:.0f} s to {missing}; {self._tail()}")
            time.sleep(POLL_S)

    def wait_end(self, within_s: float) -> str:
        """Wait until it has ended with code 0; returns what it has printed.

        Raises:
            Stop: It failed or took longer.
        """
        self.wait_for(lambda: self.code == 0, within_s, "end")
        return self.text()

    def end(self) -> None:
        """SIGTERM, and SIGKILL if that does not help; its children are killed if they outlive it."""
        children = self.family()[1:]
        self._process.terminate()
        try:
            self._process.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _kill(children)

    def kill(self) -> None:
        """End it and its children at once, as a crash would."""
        _kill(self.family())
        self._process.wait()

    def _tail(self) -> str:
        return f"the end of {self.log}:\n" + "\n".join(self.text().splitlines()[-LOG_TAIL_LINES:])


def without_settings() -> dict[str, str]:
    """The environment of this process without its ``STREAMER_…``."""
    return {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}


def _kill(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # some end when their parent does
            process.kill()
