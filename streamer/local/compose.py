"""Kafka and Redis as containers: the two services of ``docker-compose.yml``, through Docker Compose v2."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from streamer.errors import UsageError
from streamer.settings import STATE_DIR

FILE = Path("docker-compose.yml")
MARK = STATE_DIR / "compose"
ENGINE_WITHIN_S = 10.0


def is_ours() -> bool:
    """Whether ``up --docker`` was called here and ``down`` was not."""
    return MARK.exists()


def up(services: Sequence[str], progress: Callable[[str], None]) -> dict[str, str]:
    """Start containers and wait until they are healthy; returns their addresses.

    Raises:
        UsageError: No engine or no Compose answers, or a service does not become healthy; nothing new is left running.
    """
    if not FILE.exists():
        raise UsageError(f"no {FILE} in {Path.cwd()}; run this in the project's folder, or leave out --docker")
    _docker("compose", "version", failing="there is no Docker Compose v2; install it, or leave out --docker")
    _docker("version", failing="no Docker engine answers; start it, or leave out --docker", within_s=ENGINE_WITHIN_S)
    progress(f"starting the containers {' and '.join(services)}")
    was_ours = is_ours()
    MARK.parent.mkdir(exist_ok=True)
    MARK.touch()
    try:
        _docker("compose", "up", "--detach", "--wait", *services, failing="the containers did not become healthy")
    except BaseException:
        if not was_ours:
            down(progress)
        raise
    kafka_port, redis_port = os.environ.get("KAFKA_PORT", "9092"), os.environ.get("REDIS_PORT", "6379")
    addresses = {"kafka": f"127.0.0.1:{kafka_port}", "redis": f"redis://127.0.0.1:{redis_port}/0"}
    return {name: addresses[name] for name in services}


def down(progress: Callable[[str], None]) -> list[str]:
    """Remove the containers that :func:`up` started; returns their names. The volumes with their data stay."""
    if not is_ours():
        return []
    running = _docker("compose", "ps", "--services", failing="the containers cannot be listed").split()
    progress("stopping the containers")
    _docker("compose", "down", failing="the containers did not stop")
    MARK.unlink()
    return sorted(running)


def _docker(*arguments: str, failing: str, within_s: float | None = None) -> str:
    try:
        done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False, timeout=within_s)
    except FileNotFoundError:
        raise UsageError("there is no `docker` on PATH; install Docker, or leave out --docker") from None
    except subprocess.TimeoutExpired:
        raise UsageError(f"{failing}: no answer for {within_s:.0f} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        raise UsageError(f"{failing}: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return done.stdout
