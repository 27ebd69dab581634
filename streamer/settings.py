"""Every setting with its default and unit, read once from environment, TOML and the local stack, then frozen.

Priority, highest first: arguments, environment (``STREAMER_…``), the TOML file named by ``STREAMER_CONFIG`` (default
``streamer.toml`` in the working directory), the addresses that ``streamer up`` wrote to ``.streamer/endpoints.json``,
the models and schemas inside the package where the working directory has none.
Nested settings use two underscores: ``STREAMER_SENSORS__TEXT__MAX_DELAY_MS=4000``; ``null`` means none. A secret can
be in a file instead: ``STREAMER_KAFKA_PASSWORD_FILE=/run/secrets/kafka``. Unknown settings are refused.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, SecretStr, ValidationError, field_validator, model_validator

from streamer.environment import is_service_link, secret
from streamer.errors import UsageError, one_line
from streamer.events import KINDS, TEXT, TOPIC_WINDOWS, Sensors
from streamer.sensors import DEFAULTS, SensorSettings, enabled, over_defaults
from streamer.settings_describe import DescribeSettings
from streamer.settings_gateway import GatewaySettings
from streamer.settings_sinks import SinkSettings

STATE_DIR = Path(".streamer")
PACKAGED = Path(__file__).parent / "_data"  # made by the build of a wheel; a checkout has its folders at its root
ENDPOINTS_FILE = STATE_DIR / "endpoints.json"
MIB = 1 << 20
KAFKA_PORT = 9092  # where an address names none
NAMES_PORT = re.compile(r":[^\]]*$")
ENV_PREFIX, CONFIG_VARIABLE, CONFIG_FILE = "STREAMER_", "STREAMER_CONFIG", Path("streamer.toml")
TABLES = (f"{ENV_PREFIX}SENSORS__", f"{ENV_PREFIX}SENSES__")
JSON_EXAMPLES = {
    "dataref_prefixes": '["s3://clips"]',
    "sensors": '{"text": {"max_delay_ms": 4000}}',
    "senses": '{"speech": "moonshine"}',
}
OLD_PREFIX = "STREAMER_MODALITIES"  # up to 0.1

# What pretrained networks are for, which streamer/senses/table.py explains.
SENSE_ROLES = ("speech", "voice", "synthesis", "objects", "letters", "faces", "sounds", "sentences", "backbone")

# Up to the last @, so that passwords that should have been percent-encoded are hidden too.
PASSWORD = re.compile(r"(?<=://)([^:/?@]*:).*(?=@)")
PASSWORD_IN_QUERY = re.compile(r"([?&]password=)[^&#]*", re.IGNORECASE)

SECRETS = ("kafka_password", "redis_password", "dashboard_token", "describe_key", "webhook_url", "webhook_key")
FILE_SUFFIX = "_FILE"


class Settings(DescribeSettings, GatewaySettings, SinkSettings):
    """All settings of all commands. Frozen; every bare number has its unit in the name."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    # what a worker does
    role: Literal["all", "align", "infer"] = Field(
        "all", description="what a worker does: everything, or windows up to the windows topic, or from there on"
    )

    # where things are
    kafka: str = Field("localhost:9092", description="Kafka bootstrap servers, host:port[,host:port]")
    redis: str = Field("redis://localhost:6379/0", description="Redis URL; rediss:// for TLS")
    topic_prefix: str = Field("streamer", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="prefix of every topic")
    key_prefix: str = Field("streamer", pattern=r"^[A-Za-z0-9._-]{1,100}$", description="prefix of every Redis key")
    group: str = Field("streamer", description="Kafka consumer group; workers of role infer add -infer to it")
    instance_id: str | None = Field(None, description="static group membership: a restart within 6 s keeps partitions")
    model: Path = Field(Path("models/driving"), description="folder of the model to serve")
    model_form: Literal["eager", "compile", "export", "int8", "onnx"] = Field(
        "eager", description="how the model is run; `streamer forms` compares, `streamer export` makes the last three"
    )
    model_poll_ms: int = Field(5000, ge=0, description="how often to look for a new version of the model, ms; 0: never")
    schemas: Path = Field(Path("schemas"), description="folder of the AsyncAPI document and JSON Schemas")

    # who we are to them
    kafka_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="how Kafka is spoken to: SSL: with TLS; SASL: with a user and a password"
    )
    kafka_sasl_mechanism: Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"] = Field(
        "SCRAM-SHA-512", description="how the password is proved to Kafka"
    )
    kafka_user: str | None = Field(None, min_length=1, description="user at Kafka, for SASL")
    kafka_password: SecretStr | None = Field(None, min_length=1, description="its password")
    kafka_ca_file: Path | None = Field(
        None,
        description="PEM file of the authority that signed Kafka's certificate; null: those that the system trusts",
    )
    redis_user: str | None = Field(None, min_length=1, description="user at Redis (ACL), if not in the URL")
    redis_password: SecretStr | None = Field(None, min_length=1, description="password at Redis, if not in the URL")
    redis_ca_file: Path | None = Field(
        None, description="PEM file of the authority that signed Redis' certificate; null: those that the system trusts"
    )

    # topics
    partitions: int = Field(12, ge=1, le=1000, description="partitions of every source topic, equal for all")
    replication: int = Field(1, ge=1, description="replicas of every topic")
    max_message_bytes: int = Field(
        8 * MIB, ge=1024, description="largest record, bytes; a compressed batch may unpack to 8 times that"
    )

    # alignment
    window_ms: int = Field(1000, ge=10, description="window length, ms of event time")
    hop_ms: int | None = Field(None, ge=10, description="distance of window starts, ms; null: window_ms")
    sensors: dict[str, SensorSettings] = Field(DEFAULTS, description="the sensors and how long to wait for each")
    early_ms: int = Field(
        100,
        ge=0,
        description="a window that still waits this long after it was due is run as it stands, ms of log time; its "
        "final result follows; 0: never",
    )
    session_gap_ms: int = Field(10_000, ge=1, description="silence that ends a session, ms of log time")
    max_ahead_ms: int = Field(5_000, ge=0, description="how far an event may lie ahead of its log time, ms")
    max_event_ms: int = Field(60_000, ge=1, description="longest event, ms")
    merge_slack_ms: int = Field(20, ge=0, description="most by which clocks of brokers and workers differ, ms")
    merge_proof: Literal["replicas", "ticks"] = Field(
        "replicas",
        description="what shows that an idle topic brings nothing older: `replicas` asks them; `ticks` writes records "
        "to source topics, and holds for any clocks",
    )
    merge_tick_ms: int = Field(100, ge=10, description="with `ticks`: time between two on an idle partition, ms")

    # memory
    fifo_bytes: int = Field(4 * MIB, ge=1024, description="merge buffer of one partition, bytes")
    max_open_bytes: int = Field(256 * MIB, ge=MIB, description="events in open windows of a worker, bytes")
    max_inflight_bytes: int = Field(
        256 * MIB,
        ge=MIB,
        description="closed and not yet published windows, bytes; as much for windows that wait to be run early, and "
        "for what early runs have found",
    )
    max_image_pixels: int = Field(40_000_000, ge=1, description="larger frames are refused unopened, pixels")

    # batching and inference
    max_batch: int = Field(32, ge=1, description="windows in one model call")
    max_wait_ms: float = Field(20.0, ge=0, description="longest wait of a window for its batch, ms")
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda(:\d+)?|mps)$", description="auto, cpu, cuda, cuda:N or mps")
    decode_threads: int = Field(2, ge=1, le=256, description="threads that decode payloads")

    # results
    results_maxlen: int = Field(10_000, ge=1, description="results kept a session, about")
    publish_wait_replicas: int = Field(0, ge=0, description="Redis replicas that must have a result before its commit")
    publish_wait_ms: int = Field(1000, ge=1, description="longest wait for those replicas, ms")

    # search
    index: Path = Field(STATE_DIR / "index", description="folder of the search index; not used with Redis 8 or later")

    # pretrained networks
    senses: dict[str, str] = Field(
        {},
        description="what takes a role of docs/senses.md: a name of its table, a file or folder, or LOADER:NAME; "
        "else the first of the table that is there",
    )
    senses_dir: Path = Field(STATE_DIR / "senses", description="folder of what `streamer senses --fetch` fetched")

    # transcribing
    transcribe_silence_ms: int = Field(400, ge=100, le=5000, description="silence that ends an utterance, ms of sound")
    transcribe_longest_ms: int = Field(
        12_000, ge=1000, le=30_000, description="longest utterance, ms; a longer one is cut where it is quietest"
    )
    transcribe_gap_ms: int = Field(
        2000, ge=100, description="how much longer than its last chunk a microphone may be silent, ms of log time"
    )
    transcribe_word_times: bool = Field(
        False, description="find the times of words by forced alignment, English, where the recogniser knows none"
    )
    transcribe_language: str | None = Field(
        None,
        pattern=r"^[a-z]{2,3}$",
        description="language that a recogniser of several is told, ISO 639-1; null: it detects it in each utterance",
    )

    # capturing
    capture_buffer_bytes: int = Field(
        64 * MIB, ge=MIB, description="what `streamer capture` holds for Kafka, bytes; beyond, the oldest is dropped"
    )
    capture_silence_ms: int = Field(
        5000, ge=500, description="a source from which nothing comes for so long is connected to again, ms"
    )
    capture_clock_ms: int = Field(
        2000, ge=1, description="times by a source's clock that are further from their arrival are not believed, ms"
    )

    # operation
    host: str = Field("127.0.0.1", description="address of /metrics, /healthz and /readyz")
    port: int = Field(9100, ge=0, le=65535, description="their port; 0: any free one")
    speak_port: int = Field(9102, ge=0, le=65535, description="port of `streamer speak` for the same; 0: any")
    capture_port: int = Field(
        9104, ge=0, le=65535, description="port of `streamer capture` for the same; 0: any free one"
    )
    dashboard_host: str = Field(
        "127.0.0.1", description="address of the live page; beyond loopback it asks for a token"
    )
    dashboard_port: int = Field(8080, ge=0, le=65535, description="port of the live page; 0: any free one")
    dashboard_token: SecretStr | None = Field(
        None,
        description="secret that opens the live page, 16 characters or more; none: beyond loopback one is made",
    )
    stall_after_ms: int = Field(30_000, ge=1000, description="no progress for this long ends the worker, ms")
    stop_after_ms: int = Field(5_000, ge=0, description="longest graceful stop, ms")
    dataref_prefixes: tuple[str, ...] = Field((), description="URL prefixes that ce_dataref may point to; empty: none")
    trace_endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="OTLP/HTTP address that OpenTelemetry traces go to, http://HOST:4318/v1/traces; null: no traces",
    )
    trace_ratio: float = Field(0.01, ge=0, le=1, description="share of sessions that are traced")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="verbosity")

    @field_validator("sensors", mode="before")
    @classmethod
    def _over_defaults(cls, given: object) -> object:
        """Keep the defaults of everything that the user did not set."""
        return over_defaults(given) if isinstance(given, dict) else given

    @field_validator("senses")
    @classmethod
    def _roles(cls, given: dict[str, str]) -> dict[str, str]:
        unknown = sorted(set(given) - set(SENSE_ROLES))
        if unknown:
            raise ValueError(f"unknown role {unknown[0]!r}; known: {', '.join(SENSE_ROLES)}")
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.hop_ms is not None and self.hop_ms > self.window_ms:
            raise ValueError(f"hop_ms ({self.hop_ms}) must not exceed window_ms ({self.window_ms})")
        return self

    @model_validator(mode="after")
    def _identity(self) -> Settings:
        """Refuse a password that would not be used, and a certificate that would not be checked."""
        sasl = self.kafka_security_protocol.startswith("SASL_")
        if sasl and (self.kafka_user is None or self.kafka_password is None):
            raise ValueError(
                f"kafka_security_protocol {self.kafka_security_protocol} needs kafka_user and kafka_password"
            )
        if not sasl and (self.kafka_user is not None or self.kafka_password is not None):
            raise ValueError("kafka_user and kafka_password need kafka_security_protocol SASL_SSL (or SASL_PLAINTEXT)")
        if self.kafka_ca_file is not None and not self.kafka_tls:
            raise ValueError("kafka_ca_file needs kafka_security_protocol SSL or SASL_SSL")
        if self.redis_ca_file is not None and not self.redis.startswith("rediss://"):
            raise ValueError("redis_ca_file needs a Redis URL that begins with rediss://")
        in_url = PASSWORD.search(self.redis) or PASSWORD_IN_QUERY.search(self.redis)
        if in_url and (self.redis_user is not None or self.redis_password is not None):
            raise ValueError("the Redis URL names a password already: leave out redis_user and redis_password")
        if self.redis_user is not None and self.redis_password is None:
            raise ValueError("redis_user needs redis_password")
        return self

    @classmethod
    def load(cls, **overrides: Any) -> Settings:
        """Read and validate the settings.

        Args:
            overrides: Values that override environment and files; ``None`` means "not given".

        Raises:
            UsageError: With one line that names the setting, what is wrong and where it can be set.
        """
        config = os.environ.get(CONFIG_VARIABLE)
        if config and not Path(config).is_file():
            raise UsageError(f"{CONFIG_VARIABLE} names {config}, which is not a file")
        _refuse_unknown_variables()
        environment = {name.upper(): value for name, value in os.environ.items()}
        sources = (  # the later one wins
            _packaged(),
            _from_file(ENDPOINTS_FILE, json.loads),
            _from_file(Path(config or CONFIG_FILE), tomllib.loads),
            _from_secret_files(environment),
            _from_environment(environment),
            {name: value for name, value in overrides.items() if value is not None},
        )
        values: dict[str, Any] = {}
        for source in sources:
            _merge(values, source)
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = "__".join((ENV_PREFIX + str(first["loc"][0]), *map(str, first["loc"][1:]))) if first["loc"] else ""
            if first["type"] == "extra_forbidden":
                raise UsageError(_unknown(name.upper())) from None
            where = f"setting {name.upper()}" if name else "settings"
            raise UsageError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from None

    @property
    def sensor_set(self) -> Sensors:
        """The sensors that are enabled, in their order."""
        return enabled(self.sensors)

    @property
    def transcript_sensor(self) -> str:
        """The sensor of transcripts that name none, as `streamer transcribe` sends them.

        Raises:
            UsageError: There is no such sensor.
        """
        sensors = self.sensor_set
        number = sensors.unnamed(TEXT)
        if number is None:
            several = ", ".join(sensors.names[number] for number in sensors.of_kind(TEXT))
            there = f"there are {several}, and none is called text" if several else "no sensor of kind text is declared"
            raise UsageError(f"whose transcripts are is open: {there}; set STREAMER_SENSORS__TEXT__ENABLED=true")
        return sensors.names[number]

    @property
    def longest_delay_ms(self) -> int:
        """The longest time that a window waits for a sensor."""
        return max(self.sensors[name].max_delay_ms for name in self.sensor_set.names)

    @property
    def window_us(self) -> int:
        return self.window_ms * 1000

    @property
    def hop_us(self) -> int:
        return (self.window_ms if self.hop_ms is None else self.hop_ms) * 1000

    @property
    def consumer_group(self) -> str:
        """The Kafka consumer group of a worker of this role."""
        return f"{self.group}-infer" if self.role == "infer" else self.group

    @property
    def worker_topics(self) -> tuple[str, ...]:
        """The topics that a worker of this role reads, in the order of its rows."""
        return (self.topic(TOPIC_WINDOWS),) if self.role == "infer" else self.source_topics

    def topic(self, suffix: str) -> str:
        """Full name of a topic, e.g. ``streamer.frames``."""
        return f"{self.topic_prefix}.{suffix}"

    @property
    def source_topics(self) -> tuple[str, ...]:
        """Topics of the kinds, in the order of the table."""
        return tuple(self.topic(m.topic) for m in KINDS)

    @property
    def brokers(self) -> list[str]:
        """Kafka's bootstrap servers, ``host:port`` each."""
        given = [address.strip() for address in self.kafka.split(",")]
        return [address if NAMES_PORT.search(address) else f"{address}:{KAFKA_PORT}" for address in given]

    @property
    def kafka_tls(self) -> bool:
        """Whether connections to Kafka are encrypted."""
        return self.kafka_security_protocol.endswith("SSL")

    @property
    def redis_shown(self) -> str:
        """The Redis URL without its password, for messages."""
        return PASSWORD_IN_QUERY.sub(r"\1***", PASSWORD.sub(r"\1***", self.redis))

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Hide passwords from repr, str and pretty printers. Secrets mask themselves, the URL does not."""
        for name, value in super().__repr_args__():
            yield name, self.redis_shown if name == "redis" else value


def host_and_port(address: str) -> tuple[str, int]:
    """``host:port`` or ``[IPv6]:port`` in its two parts.

    Raises:
        ValueError: The port is not a number.
    """
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _packaged() -> dict[str, Any]:
    """Folders inside the package, for the defaults that are not in the working directory."""
    defaults: dict[str, Path] = {name: Settings.model_fields[name].default for name in ("model", "schemas")}
    return {
        name: PACKAGED / path for name, path in defaults.items() if not path.exists() and (PACKAGED / path).exists()
    }


def _merge(into: dict[str, Any], values: dict[str, Any]) -> None:
    """Like ``dict.update``, but a table in both is merged."""
    for name, value in values.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            _merge(into[name], value)
        else:
            into[name] = value


def _from_file(path: Path, parse: Callable[[str], Any]) -> dict[str, Any]:
    """The values of a settings file; none if there is no file."""
    if not path.is_file():
        return {}
    try:
        values = parse(path.read_text("utf-8"))
    except (ValueError, OSError) as error:
        raise UsageError(f"settings file {path}: {one_line(error)}") from None
    if not isinstance(values, dict):
        raise UsageError(f"settings file {path}: is not a table of settings")
    return values


def _from_environment(environment: dict[str, str]) -> dict[str, Any]:
    """``STREAMER_NAME``, with JSON for lists and tables; ``STREAMER_TABLE__NAME`` is in a table; ``null`` is None."""
    found: dict[str, Any] = {}
    for name in Settings.model_fields:
        text = environment.get(f"{ENV_PREFIX}{name.upper()}")
        if text is not None:
            found[name] = _parsed(name, text)
    for variable, text in environment.items():
        if variable.startswith(TABLES):
            value: Any = _loosely_parsed(text)
            for level in reversed(variable.removeprefix(ENV_PREFIX).lower().split("__")):
                value = {level: value}
            _merge(found, value)
    return found


def _parsed(name: str, text: str) -> Any:
    if text == "null":
        return None
    if name not in JSON_EXAMPLES:
        return text  # pydantic makes a number of it where one is wanted
    try:
        return json.loads(text)
    except ValueError:
        raise UsageError(f"setting {ENV_PREFIX}{name.upper()}: must be JSON, e.g. {JSON_EXAMPLES[name]}") from None


def _loosely_parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text  # pydantic reports what is wrong with it


def _from_secret_files(environment: dict[str, str]) -> dict[str, Any]:
    """Secrets in files, as Kubernetes and Docker mount them: ``STREAMER_…_FILE`` names the file."""
    found = {}
    for name in SECRETS:
        variable = f"{ENV_PREFIX}{name.upper()}"
        path = environment.get(variable + FILE_SUFFIX)
        if path is None:
            continue
        if variable in environment:
            raise UsageError(f"{variable} and {variable + FILE_SUFFIX} are both set: leave one out")
        found[name] = secret(variable + FILE_SUFFIX, Path(path))
    return found


def _unknown(name: str) -> str:
    import difflib

    if name.startswith(OLD_PREFIX):
        return f"there is no setting {name} any more: it is {name.replace(OLD_PREFIX, f'{ENV_PREFIX}SENSORS', 1)} now"
    bare = {known.removeprefix(ENV_PREFIX): known for known in _names()}  # the prefix alone would make all look alike
    wanted = name.upper().removeprefix(ENV_PREFIX)
    without_url = wanted.removesuffix("_URL")  # other programs' word; too different from ours for a close match
    close = [without_url] if without_url in bare else difflib.get_close_matches(wanted, bare, n=1)
    return f"there is no setting {name}; " + (
        f"did you mean {bare[close[0]]}?" if close else "`streamer settings` lists all"
    )


def _names() -> list[str]:
    """Every setting as an environment variable."""
    rules = (f"SENSORS__{name}__{rule}" for name in DEFAULTS for rule in SensorSettings.model_fields)
    files = (f"{secret}{FILE_SUFFIX}" for secret in SECRETS)
    return [f"{ENV_PREFIX}{name}".upper() for name in (*Settings.model_fields, *files, *rules)]


def _refuse_unknown_variables() -> None:
    """Refuse misspelt variables: they would be ignored silently."""
    for variable in sorted(os.environ):
        name = variable.upper()
        if (
            name.startswith(ENV_PREFIX)
            and name != CONFIG_VARIABLE
            and name not in _names()
            and not name.startswith((f"{ENV_PREFIX}TEST_", *TABLES))  # tables are validated
            and not is_service_link(name, os.environ[variable])
        ):
            raise UsageError(_unknown(variable))
