"""A worker as a child process, for the demo and for tests that need the real thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from streamer.errors import Stop
from streamer.local.process import free_port
from streamer.settings import SECRETS, Settings

READY_WITHIN_S = 120.0  # a first start reads the whole of PyTorch from a cold disk
LOG_TAIL_LINES = 15
KILL_AFTER_S = 15.0


class WorkerProcess:
    """``streamer worker`` in a process of its own, with its log in a file; stopped when the context is left.

    Args:
        settings: Handed on through the environment; the port of the probes is chosen here.
        log: Overwritten.
    """

    def __init__(self, settings: Settings, log: Path) -> None:
        self.log = log
        self.port = free_port()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "streamer", "worker"],
                env=os.environ | environment(settings) | {"STREAMER_PORT": str(self.port)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C goes to us, and we end it when we are done with it
            )

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Wait until /readyz says that it takes work.

        Raises:
            Stop: It ended, or it is still not ready after so many seconds; with the end of its log.
        """
        deadline = time.monotonic() + within_s
        while (reasons := self._not_ready()) is not None:
            self.check()
            if time.monotonic() > deadline:
                raise Stop(f"the worker is not ready after {within_s:.0f} s: {reasons}\n{self._tail()}")
            time.sleep(0.1)

    def check(self) -> None:
        """Raise Stop with the end of its log if it is not running any more."""
        code = self._process.poll()
        if code is not None:
            raise Stop(f"the worker ended with code {code}; the end of {self.log}:\n{self._tail()}")

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that does not help."""
        self._process.terminate()
        try:
            self._process.wait(KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _not_ready(self) -> str | None:
        """Why it cannot take work; None: it can."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2):
                return None
        except urllib.error.HTTPError as error:
            with error:
                return ", ".join(json.load(error)["reasons"])
        except OSError as error:
            return str(error)

    def _tail(self) -> str:
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-LOG_TAIL_LINES:])


def environment(settings: Settings) -> dict[str, str]:
    """The settings that were given, secrets included, as environment variables for a child process."""
    given = settings.model_dump(mode="json", exclude_unset=True)
    given |= {name: getattr(settings, name).get_secret_value() for name in SECRETS if given.get(name) is not None}
    return {
        f"STREAMER_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in given.items()
        if value is not None
    }
