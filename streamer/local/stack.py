"""Kafka and Redis on this machine: ``up``, ``down``, ``status``.

*Embedded* (the default): real servers as background processes, on their usual ports where these are free, else on
others; data and logs under ``.streamer/``.
*Docker*: the ``kafka`` and ``redis`` services of ``docker-compose.yml``. For an address that the settings
give no server is started.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import msgspec

from streamer.errors import UsageError
from streamer.local import compose, kafka, probe, redis
from streamer.local.process import Daemon, free_port, is_free, listens
from streamer.settings import ENDPOINTS_FILE, STATE_DIR, Settings

REDIS_START_S = 30.0
USUAL_PORTS = {"kafka": 9092, "redis": 6379}
NAMES = ("redis", "kafka")  # in the order of starting: a Redis that fails does so at once

Progress = Callable[[str], None]


def silent(line: str) -> None:
    """Report no progress."""


class Service(msgspec.Struct, frozen=True):
    """One of the two servers as ``status`` shows it.

    Attributes:
        address: Bootstrap servers, or the URL without its password.
        runs_as: ``embedded (pid N)``, ``docker``, ``given by the settings`` or ``not started``.
        answers: It answered a request just now; an open port alone does not count.
    """

    name: str
    address: str
    runs_as: str
    answers: bool


class Stack:
    """An embedded Kafka and Redis in one directory, on free ports; a second start takes the same again.

    A context manager for tests and benchmarks: both run inside the ``with`` block and neither after it.

    Args:
        directory: Holds data, logs, process ids and the ports.
        max_message_bytes: Largest record that a producer may send.
        usual_ports: Take ``USUAL_PORTS`` where they are free.

    Attributes:
        kafka, redis: The processes, to be stopped, killed, paused and resumed one by one where a test wants that.
    """

    def __init__(self, directory: Path, max_message_bytes: int, usual_ports: bool = False) -> None:
        self.directory = directory
        self.kafka = Daemon("kafka", directory)
        self.redis = Daemon("redis", directory)
        self._max_message_bytes = max_message_bytes
        self._wanted_ports = USUAL_PORTS if usual_ports else {}
        self._ports_file = directory / "ports.json"

    def __enter__(self) -> Stack:
        try:
            self.start_redis()
            self.start_kafka()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def ports(self) -> dict[str, int]:
        """By the names ``kafka``, ``redis`` and ``controller`` (Kafka's own)."""
        return self._ports()

    @property
    def kafka_address(self) -> str:
        """Bootstrap servers."""
        return f"127.0.0.1:{self.ports['kafka']}"

    @property
    def redis_url(self) -> str:
        """URL with database 0."""
        return f"redis://127.0.0.1:{self.ports['redis']}/0"

    @property
    def addresses(self) -> dict[str, str]:
        """Both, by the names of their settings."""
        return {"kafka": self.kafka_address, "redis": self.redis_url}

    def start_kafka(self, progress: Progress = silent) -> None:
        """Start the broker unless it runs.

        Raises:
            UsageError: It does not start, with the reason.
        """
        if self.kafka.process is None:
            jars = kafka.jars(progress)
            ports = self._ports("kafka", "controller")
            progress("starting Kafka")
            # An open port is enough: Kafka opens it last, when the controller has let the broker in.
            self.kafka.start(
                kafka.command(self.directory, ports["kafka"], ports["controller"], self._max_message_bytes, jars),
                lambda: listens(self.kafka_address),
                kafka.START_S,
            )

    def start_redis(self, progress: Progress = silent) -> None:
        """Start Redis unless it runs.

        Raises:
            UsageError: It does not start, with the reason.
        """
        if self.redis.process is None:
            ports = self._ports("redis")
            progress("starting Redis")
            self.redis.start(
                redis.command(self.directory, ports["redis"]), lambda: probe.pings(self.redis_url), REDIS_START_S
            )

    def stop(self) -> list[str]:
        """Stop both; returns the names of those that were running."""
        return [daemon.name for daemon in (self.kafka, self.redis) if daemon.stop()]

    def _ports(self, *to_be_free: str) -> dict[str, int]:
        """The ports: those of the last time, but a free one for each that must be free: the usual one comes first."""
        ports: dict[str, int] = {}
        if self._ports_file.exists():
            ports = msgspec.json.decode(self._ports_file.read_bytes(), type=dict[str, int])
        keep = {name: port for name, port in ports.items() if name not in to_be_free}
        for name in ("kafka", "controller", "redis"):
            if name not in keep:
                candidates = [
                    port for port in (self._wanted_ports.get(name), ports.get(name)) if port and is_free(port)
                ]
                keep[name] = next((p for p in candidates if p not in keep.values()), None) or free_port(keep.values())
        if keep != ports:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._ports_file.write_bytes(msgspec.json.encode(keep))
        return keep


def up(settings: Settings, docker: bool = False, progress: Progress = silent) -> list[Service]:
    """Start what is missing and write the addresses where every command finds them; a second call changes nothing.

    Raises:
        UsageError: Something does not start, with the reason; what this call started is stopped again.
    """
    with _alone():
        for name in _given(settings):
            progress(f"{name} is given by the settings: nothing to start")
        wanted = [name for name in NAMES if name not in _given(settings)]
        ours = _up_docker(wanted, progress) if docker else _up_embedded(settings, wanted, progress)
        if ours:
            ENDPOINTS_FILE.write_bytes(msgspec.json.encode(_written() | ours))
    return status(settings.model_copy(update=ours))


def _up_docker(wanted: list[str], progress: Progress) -> dict[str, str]:
    stack = Stack(STATE_DIR, 0)
    if stack.kafka.process is not None or stack.redis.process is not None:
        raise UsageError("the embedded servers are running; stop them with `streamer down` first")
    return compose.up(wanted, progress) if wanted else {}


def _up_embedded(settings: Settings, wanted: list[str], progress: Progress) -> dict[str, str]:
    if compose.is_ours():
        raise UsageError("the containers of `streamer up --docker` are running; stop them with `streamer down` first")
    stack = Stack(STATE_DIR, settings.max_message_bytes, usual_ports=True)
    steps = {"redis": (stack.redis, stack.start_redis), "kafka": (stack.kafka, stack.start_kafka)}
    started: list[Daemon] = []
    try:
        for daemon, start in (steps[name] for name in wanted):
            if daemon.process is None:
                start(progress)
                started.append(daemon)
    except BaseException:
        for daemon in started:
            daemon.stop()
        raise
    found = {name: stack.addresses[name] for name in wanted}
    if moved := [name for name in wanted if stack.ports[name] != USUAL_PORTS[name]]:
        progress(f"not on the usual port: {', '.join(moved)}; other folders and programs find these servers with")
        progress("export " + " ".join(f"STREAMER_{name.upper()}={found[name]}" for name in moved))
    return found


def down(progress: Progress = silent) -> list[str]:
    """Stop everything that ``up`` started here; returns the names of what was running. Data stay.

    Raises:
        UsageError: The containers cannot be stopped, with the reason.
    """
    if not STATE_DIR.is_dir():
        return []
    with _alone():
        stopped = Stack(STATE_DIR, 0).stop() + compose.down(progress)
        ENDPOINTS_FILE.unlink(missing_ok=True)
    return stopped


def status(settings: Settings) -> list[Service]:
    """Where Kafka and Redis are and whether they answer."""
    stack = Stack(STATE_DIR, settings.max_message_bytes)
    return [
        Service("kafka", settings.kafka, _runs_as("kafka", stack.kafka, settings), probe.kafka_answers(settings)),
        Service("redis", settings.redis_shown, _runs_as("redis", stack.redis, settings), probe.redis_answers(settings)),
    ]


def _runs_as(name: str, daemon: Daemon, settings: Settings) -> str:
    if name in _given(settings):
        return "given by the settings"
    if (process := daemon.process) is not None:
        return f"embedded (pid {process.pid})"
    return "docker" if compose.is_ours() and name in _written() else "not started"


def _given(settings: Settings) -> list[str]:
    """Servers whose address comes from the environment, a TOML file or an argument, not from ``up``."""
    ours = _written()
    return [name for name in NAMES if name in settings.model_fields_set and getattr(settings, name) != ours.get(name)]


def _written() -> dict[str, str]:
    if not ENDPOINTS_FILE.exists():
        return {}
    return msgspec.json.decode(ENDPOINTS_FILE.read_bytes(), type=dict[str, str])


@contextmanager
def _alone() -> Iterator[None]:
    """One ``up`` or ``down`` at a time: two would start two servers on the same data.

    Raises:
        UsageError: Files cannot be written where they must be.
    """
    try:
        STATE_DIR.mkdir(exist_ok=True)
        with (STATE_DIR / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
    except OSError as error:
        raise UsageError(f"cannot write {error.filename or STATE_DIR.absolute()}: {error.strerror or error}") from None


__all__ = ["Service", "Stack", "down", "status", "up"]
