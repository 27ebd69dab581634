"""A worker as a child process, for the demo, benchmarks and tests."""

from __future__ import annotations

import json
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from streamer.local.process import free_port
from streamer.local.program import NO_VARIABLES, Program
from streamer.settings import SECRETS, Settings

READY_WITHIN_S = 120.0  # a first start reads the whole of PyTorch from a cold disk
ANSWER_WITHIN_S = 5.0


class WorkerProcess(Program):
    """``streamer worker`` or one like it, see :class:`Program` for its other arguments.

    Args:
        settings: Handed on through the environment; the port of the probes is chosen here.
        env: Takes precedence over the settings.
        command: Another command with the probes of a worker, which runs until it is ended; such as ``transcribe``.
        arguments: Of the command.
    """

    def __init__(
        self,
        settings: Settings,
        log: Path,
        env: Mapping[str, str] = NO_VARIABLES,
        cwd: Path | None = None,
        command: str = "worker",
        arguments: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        own = f"{command}_metrics_port", f"{command}_port"  # the gateway has another port beside that of its probes
        port = next((name for name in own if name in Settings.model_fields), "port")
        given = environment(settings) | {f"STREAMER_{port.upper()}": str(self.port)} | dict(env)
        super().__init__([sys.executable, "-m", "streamer", command, *arguments], log, given, cwd, f"the {command}")

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of a probe or of the metrics; status 0 and the reason if there is no answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=ANSWER_WITHIN_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def ready(self) -> bool:
        """Whether it takes work."""
        return self.get("/readyz")[0] == 200

    def wait_ready(self, within_s: float = READY_WITHIN_S) -> None:
        """Wait until it takes work.

        Raises:
            Stop: It ended, or it is not ready in time; with the reasons and the end of its log.
        """
        self.wait_for(self.ready, within_s, lambda: f"be ready: {self.get('/readyz')[1]}")

    def metric(self, name: str, **labels: str) -> float:
        """Sum of a metric's samples that have these labels."""
        found = (line.rpartition(" ") for line in self.get("/metrics")[1].splitlines())
        return sum(
            float(value)
            for sample, _, value in found
            if sample.split("{")[0] == name and all(f'{label}="{of}"' in sample for label, of in labels.items())
        )


def environment(settings: Settings) -> dict[str, str]:
    """The settings that were given, secrets included, as environment variables for a child process."""
    given = settings.model_dump(mode="json", exclude_unset=True)
    given |= {name: getattr(settings, name).get_secret_value() for name in SECRETS if given.get(name) is not None}
    return {
        f"STREAMER_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in given.items()
        if value is not None
    }
