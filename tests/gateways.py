"""``streamer gateway`` as its users run it: a process, with a token in a file and probes by HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from streamer.gateway import tokens
from streamer.local.process import free_port
from streamer.settings import Settings
from tests.harness import WorkerProcess


class GatewayProcess(WorkerProcess):
    """The gateway, and a token for ``sessions``.

    Args:
        extra: Settings that differ from ``settings``.
    """

    def __init__(self, settings: Settings, folder: Path, *sessions: str, **extra: Any) -> None:
        path = folder / "tokens.toml"
        self.token = tokens.make(path, sessions)
        self.gateway_port = free_port()
        scheme = "https" if "gateway_cert_file" in extra else "http"
        self.url = f"{scheme}://127.0.0.1:{self.gateway_port}"
        super().__init__(
            settings,
            folder / "gateway.log",
            "gateway",
            gateway_port=self.gateway_port,
            gateway_tokens=path,
            **extra,
        )
