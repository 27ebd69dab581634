"""Kafka and Redis as containers: the two services of ``docker-compose.yml``, through Docker Compose v2."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from streamer.errors import UsageError
from streamer.settings import STATE_DIR

FILE = Path("docker-compose.yml")
MARK = STATE_DIR / "compose"
SERVICES = ("kafka", "redis")


def is_ours() -> bool:
    """Whether ``up --docker`` was called here and ``down`` was not."""
    return MARK.exists()


def up(progress: Callable[[str], None]) -> dict[str, str]:
    """Start both containers and wait until they are healthy; returns their addresses.

    Raises:
        UsageError: No engine or no Compose answers, or a service does not become healthy.
    """
    if not FILE.exists():
        raise UsageError(f"no {FILE} in {Path.cwd()}; run this in the project's folder")
    _compose("version", failing="Docker Compose v2 does not answer; install it, or leave out --docker")
    progress("starting the containers kafka and redis")
    _compose("up", "--detach", "--wait", *SERVICES, failing="the containers did not become healthy")
    MARK.parent.mkdir(exist_ok=True)
    MARK.touch()
    kafka_port, redis_port = os.environ.get("KAFKA_PORT", "9092"), os.environ.get("REDIS_PORT", "6379")
    return {"kafka": f"localhost:{kafka_port}", "redis": f"redis://localhost:{redis_port}/0"}


def down(progress: Callable[[str], None]) -> list[str]:
    """Stop what :func:`up` started; volumes stay."""
    if not is_ours():
        return []
    progress("stopping the containers")
    _compose("down", failing="the containers did not stop")
    MARK.unlink()
    return list(SERVICES)


def _compose(*arguments: str, failing: str) -> None:
    try:
        done = subprocess.run(["docker", "compose", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UsageError("there is no `docker` on PATH; install Docker, or leave out --docker") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise UsageError(f"{failing}: {lines[-1] if lines else f'exit code {done.returncode}'}")
