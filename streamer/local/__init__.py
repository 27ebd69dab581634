"""Kafka and Redis on this machine: ``up``, ``down``, ``status``.

*Embedded* (the default): real servers as background processes, on free ports, data and logs under ``.streamer/``.
*Docker*: the ``kafka`` and ``redis`` services of ``docker-compose.yml``. An address that the environment gives is
somebody else's server: nothing is started for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from streamer.local import compose, kafka, redis
from streamer.local.process import Daemon, free_port, listens
from streamer.settings import ENDPOINTS_FILE, STATE_DIR, Settings

KAFKA_START_S, REDIS_START_S = 60.0, 10.0


class Service(msgspec.Struct, frozen=True):
    """One of the two servers as ``status`` shows it.

    Attributes:
        runs_as: ``embedded (pid N)``, ``docker``, ``given by the environment`` or ``not started``.
    """

    name: str
    address: str
    runs_as: str
    answers: bool


class Stack:
    """An embedded Kafka and Redis in one directory; a second start takes the same ports and data.

    Attributes:
        kafka, redis: The processes, to be stopped and started one by one where a test wants that.
    """

    def __init__(self, directory: Path, max_message_bytes: int) -> None:
        self.directory = directory
        self.kafka = Daemon("kafka", directory)
        self.redis = Daemon("redis", directory)
        self._max_message_bytes = max_message_bytes
        self._ports_file = directory / "ports.json"

    @property
    def kafka_address(self) -> str:
        """Bootstrap servers."""
        return f"127.0.0.1:{self._ports()['kafka']}"

    @property
    def redis_url(self) -> str:
        """URL with database 0."""
        return f"redis://127.0.0.1:{self._ports()['redis']}/0"

    def start_kafka(self, progress: Callable[[str], None] = lambda line: None) -> None:
        """Start the broker unless it runs.

        Raises:
            UsageError: It does not start, with the reason.
        """
        if self.kafka.process is None:
            jars = kafka.classpath(progress)
            ports = self._ports()
            progress("starting Kafka")
            self.kafka.start(
                kafka.command(self.directory, ports["kafka"], ports["controller"], self._max_message_bytes, jars),
                lambda: listens(self.kafka_address),
                KAFKA_START_S,
            )

    def start_redis(self, progress: Callable[[str], None] = lambda line: None) -> None:
        """Start Redis unless it runs.

        Raises:
            UsageError: It does not start, with the reason.
        """
        if self.redis.process is None:
            progress("starting Redis")
            port = self._ports()["redis"]
            self.redis.start(redis.command(self.directory, port), lambda: listens(f"127.0.0.1:{port}"), REDIS_START_S)

    def stop(self) -> list[str]:
        """Stop both; returns the names of those that were running."""
        return [daemon.name for daemon in (self.kafka, self.redis) if daemon.stop()]

    def _ports(self) -> dict[str, int]:
        if not self._ports_file.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            ports = {name: free_port() for name in ("kafka", "controller", "redis")}
            self._ports_file.write_bytes(msgspec.json.encode(ports))
        return msgspec.json.decode(self._ports_file.read_bytes(), type=dict[str, int])


def up(settings: Settings, docker: bool = False, progress: Callable[[str], None] = lambda line: None) -> list[Service]:
    """Start what is missing and write the addresses where every command finds them; a second call changes nothing.

    Raises:
        UsageError: Something does not start, with the reason; what this call started is stopped again.
    """
    ours = compose.up(progress) if docker else _up_embedded(settings, progress)
    if ours:
        STATE_DIR.mkdir(exist_ok=True)
        ENDPOINTS_FILE.write_bytes(msgspec.json.encode(ours))
    return status(Settings.load())


def _up_embedded(settings: Settings, progress: Callable[[str], None]) -> dict[str, str]:
    stack = Stack(STATE_DIR, settings.max_message_bytes)
    started: list[Daemon] = []
    ours: dict[str, str] = {}
    try:
        for name, daemon, start in (
            ("redis", stack.redis, stack.start_redis),
            ("kafka", stack.kafka, stack.start_kafka),
        ):
            if _given(name):
                progress(f"{name} is given by STREAMER_{name.upper()}: nothing to start")
                continue
            if daemon.process is None:
                start(progress)
                started.append(daemon)
            ours[name] = stack.kafka_address if name == "kafka" else stack.redis_url
    except BaseException:
        for daemon in started:
            daemon.stop()
        raise
    return ours


def down(progress: Callable[[str], None] = lambda line: None) -> list[str]:
    """Stop everything that ``up`` started here; returns the names of what was running. Data stay."""
    stopped = Stack(STATE_DIR, 0).stop() if STATE_DIR.exists() else []
    stopped += compose.down(progress)
    ENDPOINTS_FILE.unlink(missing_ok=True)
    return stopped


def status(settings: Settings) -> list[Service]:
    """Where Kafka and Redis are and whether they answer."""
    stack = Stack(STATE_DIR, settings.max_message_bytes)
    services = []
    for name, address, daemon in (("kafka", settings.kafka, stack.kafka), ("redis", settings.redis_shown, stack.redis)):
        process = daemon.process
        if _given(name):
            runs_as = "given by the environment"
        elif process is not None:
            runs_as = f"embedded (pid {process.pid})"
        else:
            runs_as = "docker" if compose.is_ours() else "not started"
        services.append(Service(name, address, runs_as, listens(_host_port(name, settings))))
    return services


def _given(name: str) -> bool:
    return f"STREAMER_{name.upper()}" in os.environ


def _host_port(name: str, settings: Settings) -> str:
    if name == "kafka":
        return settings.kafka.split(",")[0].strip()
    rest = settings.redis.partition("://")[2].rpartition("@")[2]
    host, _, port = rest.partition("/")[0].partition(":")
    return f"{host}:{port or 6379}"


__all__ = ["Service", "Stack", "down", "status", "up"]
