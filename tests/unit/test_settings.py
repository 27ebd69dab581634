"""Settings: which source wins, one line for what is wrong, and no password in sight."""

from __future__ import annotations

import json
import os
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from rich.console import Console

from streamer.clients import kafka as kafka_clients
from streamer.clients import redis as redis_clients
from streamer.errors import UsageError
from streamer.local import worker
from streamer.operate import reference
from streamer.sensors import DEFAULTS
from streamer.settings import ENDPOINTS_FILE, SECRETS, Settings, host_and_port

Environment = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: Environment) -> Path:
    """A working directory without settings files, and an environment without settings."""
    for name in [name for name in os.environ if name.upper().startswith("STREAMER_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def endpoints(text: str) -> None:
    ENDPOINTS_FILE.parent.mkdir(exist_ok=True)
    ENDPOINTS_FILE.write_text(text)


def refusal() -> str:
    with pytest.raises(UsageError) as refused:
        Settings.load()
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_first_of_argument_environment_file_endpoints_and_default_wins(
    folder: Path, monkeypatch: Environment
) -> None:
    assert Settings.load().kafka == "localhost:9092"
    endpoints('{"kafka": "endpoints:1", "redis": "redis://endpoints:1/0"}')
    assert Settings.load().kafka == "endpoints:1"
    (folder / "streamer.toml").write_text('kafka = "toml:1"\n')
    assert Settings.load().kafka == "toml:1"
    assert Settings.load().redis == "redis://endpoints:1/0"
    monkeypatch.setenv("STREAMER_KAFKA", "environment:1")
    assert Settings.load().kafka == "environment:1"
    assert Settings.load(kafka="argument:1").kafka == "argument:1"


def test_an_argument_that_is_none_was_not_given(monkeypatch: Environment) -> None:
    monkeypatch.setenv("STREAMER_WINDOW_MS", "500")
    assert Settings.load(window_ms=None).window_ms == 500


def test_another_file_can_be_named_and_replaces_the_one_in_the_working_directory(
    folder: Path, monkeypatch: Environment
) -> None:
    (folder / "streamer.toml").write_text("window_ms = 500\nhop_ms = 100\n")
    (folder / "other.toml").write_text("window_ms = 700\n")
    monkeypatch.setenv("STREAMER_CONFIG", "other.toml")
    settings = Settings.load()
    assert (settings.window_ms, settings.hop_ms) == (700, None)


def test_a_file_that_is_named_must_be_there(folder: Path, monkeypatch: Environment) -> None:
    monkeypatch.setenv("STREAMER_CONFIG", "missing.toml")
    assert refusal() == "STREAMER_CONFIG names missing.toml, which is not a file"
    monkeypatch.setenv("STREAMER_CONFIG", str(folder))
    assert "which is not a file" in refusal()
    monkeypatch.setenv("STREAMER_CONFIG", "")  # as compose files hand on what is not set
    Settings.load()


def test_one_rule_of_one_sensor_leaves_all_other_defaults(folder: Path, monkeypatch: Environment) -> None:
    (folder / "streamer.toml").write_text("[sensors.image]\nexpected_hz = 25\n[sensors.text]\ndisorder_ms = 7\n")
    monkeypatch.setenv("STREAMER_SENSORS__TEXT__MAX_DELAY_MS", "4000")
    sensors = Settings.load().sensors
    text, default = DEFAULTS["text"], DEFAULTS
    assert sensors["text"] == text.model_copy(update={"max_delay_ms": 4000, "disorder_ms": 7})
    assert sensors["image"] == default["image"].model_copy(update={"expected_hz": 25.0})
    assert sensors["audio"] == default["audio"]
    assert list(sensors) == ["image", "audio", "text", "telemetry"]


def test_a_declared_sensor_is_beside_the_default_ones_with_the_rules_of_its_kind(monkeypatch: Environment) -> None:
    monkeypatch.setenv("STREAMER_SENSORS__LECTERN__KIND", "text")
    monkeypatch.setenv("STREAMER_SENSORS__LECTERN__DISORDER_MS", "5")
    monkeypatch.setenv("STREAMER_SENSORS__IMAGE__ENABLED", "false")
    settings = Settings.load()
    assert settings.sensor_set.names == ("audio", "text", "lectern", "telemetry")
    assert settings.sensors["lectern"] == DEFAULTS["text"].model_copy(update={"disorder_ms": 5})
    assert Settings.load(**settings.model_dump(exclude_unset=True)) == settings


@pytest.mark.parametrize(
    ("sensors", "name"),
    [
        ({}, "text"),
        ({"words": {"kind": "text"}}, "text"),
        ({"words": {"kind": "text"}, "text": {"enabled": False}}, "words"),
    ],
)
def test_transcripts_that_name_no_sensor_belong_to_text_or_to_the_only_one(sensors: Any, name: str) -> None:
    assert Settings.load(sensors=sensors).transcript_sensor == name


@pytest.mark.parametrize("more", [{}, {"words": {"kind": "text"}, "radio": {"kind": "text"}}])
def test_transcripts_that_no_sensor_would_take_are_refused_in_one_line(more: Any) -> None:
    there = "there are radio, words, and none is called text" if more else "no sensor of kind text is declared"
    with pytest.raises(UsageError, match=f"{there}; set STREAMER_SENSORS__TEXT__ENABLED=true"):
        _ = Settings.load(sensors={"text": {"enabled": False}, **more}).transcript_sensor


def test_modalities_are_called_sensors_now(folder: Path, monkeypatch: Environment) -> None:
    monkeypatch.setenv("STREAMER_MODALITIES__TEXT__MAX_DELAY_MS", "4000")
    wanted = "there is no setting STREAMER_MODALITIES__TEXT__MAX_DELAY_MS any more: it is STREAMER_SENSORS__TEXT"
    assert refusal().startswith(wanted)
    monkeypatch.delenv("STREAMER_MODALITIES__TEXT__MAX_DELAY_MS")
    (folder / "streamer.toml").write_text("[modalities.text]\nmax_delay_ms = 4000\n")
    assert refusal() == "there is no setting STREAMER_MODALITIES any more: it is STREAMER_SENSORS now"


@pytest.mark.parametrize(
    ("sensors", "says"),
    [
        (
            {"Rear": {"kind": "image"}},
            "a sensor's name has 1 to 40 small letters, digits and single underscores, a letter first",
        ),
        ({"a__b": {"kind": "image"}}, "a sensor's name has 1 to 40"),
        ({"rear": {"kind": "lidar"}}, "rear: kind 'lidar' is none of image, audio, text, telemetry"),
        ({"rear": {}}, "rear: give its kind, one of image, audio, text, telemetry"),
        ({"image": {"kind": "audio"}}, "image is a sensor of kind image, not audio: call this one otherwise"),
        ({name: {"enabled": False} for name in DEFAULTS}, "0 sensors are enabled, not 1 to 64"),
        ({f"camera_{n}": {"kind": "image"} for n in range(61)}, "65 sensors are enabled, not 1 to 64"),
    ],
)
def test_sensors_that_cannot_be_are_refused_in_one_line(sensors: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        Settings.load(sensors=sensors)
    assert str(caught.value).startswith(f"setting STREAMER_SENSORS: {says}")


def test_a_rule_can_be_none(monkeypatch: Environment) -> None:
    monkeypatch.setenv("STREAMER_SENSORS__AUDIO__IDLE_AFTER_MS", "null")
    monkeypatch.setenv("STREAMER_INSTANCE_ID", "null")
    settings = Settings.load()
    assert settings.sensors["audio"].idle_after_ms is None
    assert settings.instance_id is None


def test_lists_and_tables_of_the_environment_are_json(monkeypatch: Environment) -> None:
    monkeypatch.setenv("STREAMER_DATAREF_PREFIXES", '["s3://a", "s3://b"]')
    monkeypatch.setenv("STREAMER_SENSORS", json.dumps({"audio": {"idle_after_ms": None}}))
    settings = Settings.load()
    assert settings.dataref_prefixes == ("s3://a", "s3://b")
    assert settings.sensors["audio"].idle_after_ms is None
    assert settings.sensors["audio"].max_delay_ms == DEFAULTS["audio"].max_delay_ms


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("PORT", "many", "setting STREAMER_PORT: Input should be a valid integer"),
        ("PORT", "65536", "setting STREAMER_PORT: Input should be less than or equal to 65535"),
        ("PORT", "", "setting STREAMER_PORT: "),
        ("TOPIC_PREFIX", "a b", "setting STREAMER_TOPIC_PREFIX: String should match pattern"),
        ("DEVICE", "gpu", "setting STREAMER_DEVICE: "),
        ("HOP_MS", "2000", "settings: hop_ms (2000) must not exceed window_ms (1000)"),
        ("DATAREF_PREFIXES", "s3://clips", 'setting STREAMER_DATAREF_PREFIXES: must be JSON, e.g. ["s3://clips"]'),
        ("SENSORS", "text", 'setting STREAMER_SENSORS: must be JSON, e.g. {"text": {"max_delay_ms": 4000}}'),
        ("SENSORS", "[1]", "setting STREAMER_SENSORS: Input should be a valid dictionary"),
        ("SENSORS__TEXT", "5", "setting STREAMER_SENSORS: text is 5, not a table such as {max_delay_ms = 4000}"),
        ("SENSORS__TEXT__MAX_DELAY_MS", "-1", "setting STREAMER_SENSORS__TEXT__MAX_DELAY_MS: Input should be"),
        (
            "SENSORS__SMELL__MAX_DELAY_MS",
            "1",
            "setting STREAMER_SENSORS: smell: give its kind, one of image, audio, text, telemetry",
        ),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_setting(
    name: str, value: str, says: str, monkeypatch: Environment
) -> None:
    monkeypatch.setenv(f"STREAMER_{name}", value)
    assert refusal().startswith(says)


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("STREAMER_WINDOWMS", "STREAMER_WINDOW_MS"),
        ("STREAMER_REDIS_URL", "STREAMER_REDIS"),
        ("STREAMER_KAFKA__", "STREAMER_KAFKA"),
        ("streamer_max_batchs", "STREAMER_MAX_BATCH"),
        ("STREAMER_SENSORS__TEXT__MAX_DELAY", "STREAMER_SENSORS__TEXT__MAX_DELAY_MS"),
        ("STREAMER_TEXT__MAX_DELAY_MS", "STREAMER_SENSORS__TEXT__MAX_DELAY_MS"),
    ],
)
def test_a_misspelt_variable_is_refused_with_what_was_meant(
    variable: str, meant: str, monkeypatch: Environment
) -> None:
    monkeypatch.setenv(variable, "1")
    assert refusal() == f"there is no setting {variable}; did you mean {meant}?"


def test_a_variable_like_no_setting_is_refused_with_where_all_are_listed(monkeypatch: Environment) -> None:
    monkeypatch.setenv("STREAMER_XYZZY", "1")
    assert refusal() == "there is no setting STREAMER_XYZZY; `streamer settings` lists all"


def test_a_misspelt_key_of_a_file_is_refused_likewise(folder: Path) -> None:
    (folder / "streamer.toml").write_text("windowms = 500\n")
    assert refusal() == "there is no setting STREAMER_WINDOWMS; did you mean STREAMER_WINDOW_MS?"


def test_variables_that_others_set_for_us_are_let_be(monkeypatch: Environment) -> None:
    for name, value in {
        "STREAMER_CONFIG": "",
        "STREAMER_TEST_BACKEND": "embedded",
        "STREAMER": "1",
        "STREAMERS_PORT": "1",
        # what Kubernetes sets in the pods beside a service "streamer-redis"
        "STREAMER_REDIS_SERVICE_HOST": "10.0.0.1",
        "STREAMER_REDIS_SERVICE_PORT": "6379",
        "STREAMER_REDIS_SERVICE_PORT_CLIENT": "6379",
        "STREAMER_REDIS_PORT": "tcp://10.0.0.1:6379",
        "STREAMER_REDIS_PORT_6379_TCP": "tcp://10.0.0.1:6379",
        "STREAMER_REDIS_PORT_6379_TCP_PROTO": "tcp",
        "STREAMER_REDIS_PORT_6379_TCP_PORT": "6379",
        "STREAMER_REDIS_PORT_6379_TCP_ADDR": "10.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == Settings()


def test_a_variable_that_only_looks_like_a_service_is_refused(monkeypatch: Environment) -> None:
    monkeypatch.setenv("STREAMER_METRICS_PORT", "9100")
    assert "there is no setting STREAMER_METRICS_PORT" in refusal()


@pytest.mark.parametrize("text", ["window_ms = ", "\0", "[[", 'a = "\n"'])
def test_a_file_that_does_not_parse_is_one_line_that_names_it(folder: Path, text: str) -> None:
    (folder / "streamer.toml").write_text(text)
    assert refusal().startswith("settings file streamer.toml: ")


@pytest.mark.parametrize("text", ["{", "[1]", "3"])
def test_broken_endpoints_are_one_line_that_names_their_file(text: str) -> None:
    endpoints(text)
    assert refusal().startswith("settings file .streamer/endpoints.json: ")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("redis://:secret@host:1/0", "redis://:***@host:1/0"),
        ("redis://me:secret@host/0", "redis://me:***@host/0"),
        ("redis://me:%73ecret@host", "redis://me:***@host"),
        ("redis://me:se/c@r:et@host:1/0", "redis://me:***@host:1/0"),  # should have been percent-encoded
        ("rediss://me:secret@[::1]:7/0", "rediss://me:***@[::1]:7/0"),
        ("redis://host:1/0?password=secret&protocol=3", "redis://host:1/0?password=***&protocol=3"),
        ("unix://me:secret@/run/redis.sock?db=1", "unix://me:***@/run/redis.sock?db=1"),
        ("redis://me@host:1/0", "redis://me@host:1/0"),
    ],
)
def test_no_way_of_showing_the_settings_shows_the_password(url: str, shown: str) -> None:
    settings = Settings.load(redis=url)
    assert settings.redis == url
    assert settings.redis_shown == shown
    pretty = StringIO()
    Console(file=pretty, width=10_000).print(settings)
    for text in (str(settings), repr(settings), f"{settings}", pretty.getvalue()):
        assert "localhost:9092" in text
        assert "secret" not in text
        assert "se/c" not in text
        assert "%73" not in text


def test_settings_are_frozen() -> None:
    settings = Settings.load()
    with pytest.raises(ValidationError, match="frozen"):
        settings.window_ms = 5  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.sensors["text"].max_delay_ms = 5  # type: ignore[misc]


def test_derived_values_follow_a_copy_with_other_settings() -> None:
    settings = Settings.load(window_ms=700)
    assert (settings.window_us, settings.hop_us, settings.source_topics[0]) == (700_000, 700_000, "streamer.frames")
    copy = settings.model_copy(update={"window_ms": 900, "hop_ms": 300, "topic_prefix": "other"})
    assert (copy.window_us, copy.hop_us, copy.source_topics[0]) == (900_000, 300_000, "other.frames")
    assert copy.topic("late") == "other.late"


SASL = {"kafka_security_protocol": "SASL_SSL", "kafka_user": "me", "kafka_password": "secret"}


def test_secrets_are_shown_nowhere() -> None:
    settings = Settings.load(**SASL, redis_password="secret", dashboard_token="secret-secret-secret")
    pretty = StringIO()
    Console(file=pretty, width=10_000).print(settings)
    for text in (
        str(settings),
        repr(settings),
        pretty.getvalue(),
        settings.model_dump_json(),
        reference.toml(settings),
    ):
        assert "secret" not in text
    assert worker.environment(settings)["STREAMER_KAFKA_PASSWORD"] == "secret"  # a worker that we start must know it


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_can_lie_in_a_file(secret: str, folder: Path, monkeypatch: Environment) -> None:
    (folder / "password").write_text("secret word\n")
    monkeypatch.setenv(f"STREAMER_{secret.upper()}_FILE", "password")
    others = {name: value for name, value in SASL.items() if name != secret} if secret == "kafka_password" else {}
    assert getattr(Settings.load(**others), secret).get_secret_value() == "secret word"
    monkeypatch.setenv(f"STREAMER_{secret.upper()}", "another")
    assert refusal() == f"STREAMER_{secret.upper()} and STREAMER_{secret.upper()}_FILE are both set: leave one out"


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "cannot read password: No such file"), (b"\n", "password is empty"), (b"\xff", "password is not UTF-8")],
)
def test_a_secret_file_that_holds_none_is_one_line(
    content: bytes | None, says: str, folder: Path, monkeypatch: Environment
) -> None:
    if content is not None:
        (folder / "password").write_bytes(content)
    monkeypatch.setenv("STREAMER_REDIS_PASSWORD_FILE", "password")
    assert f"STREAMER_REDIS_PASSWORD_FILE: {says}" in refusal()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"kafka_security_protocol": "SASL_SSL"}, "needs kafka_user and kafka_password"),
        ({"kafka_user": "me", "kafka_password": "secret"}, "need kafka_security_protocol SASL_SSL"),
        ({"kafka_ca_file": "ca.pem"}, "kafka_ca_file needs kafka_security_protocol SSL or SASL_SSL"),
        ({"redis_ca_file": "ca.pem"}, "needs a Redis URL that begins with rediss://"),
        ({"redis_user": "me"}, "redis_user needs redis_password"),
        ({"redis": "redis://me:secret@host", "redis_password": "secret"}, "names a password already"),
    ],
)
def test_an_identity_that_would_not_be_used_is_refused(given: dict[str, str], says: str) -> None:
    with pytest.raises(UsageError, match=says) as refused:
        Settings.load(**given)
    assert "secret" not in str(refused.value)


def test_a_redis_url_with_a_raw_password_does_not_leak_into_the_error() -> None:
    settings = Settings.load(redis="redis://me:se/cret@host:6379/0")
    with pytest.raises(UsageError, match="must be percent-encoded") as refused:
        redis_clients.client(settings)
    assert "se/cret" not in str(refused.value)
    assert refused.value.__suppress_context__


@pytest.mark.parametrize(
    ("content", "says"), [(None, "cannot read ca.pem"), ("no certificate", "no certificate in PEM")]
)
def test_an_authority_that_cannot_be_read_is_one_line(content: str | None, says: str, folder: Path) -> None:
    if content is not None:
        (folder / "ca.pem").write_text(content)
    settings = Settings.load(**SASL, kafka_ca_file="ca.pem")
    with pytest.raises(UsageError, match=f"STREAMER_KAFKA_CA_FILE: .*{says}"):
        kafka_clients.tls_context(settings)


@pytest.mark.parametrize(
    ("kafka", "brokers"),
    [
        ("kafka", [("kafka", 9092)]),
        ("a:1, b", [("a", 1), ("b", 9092)]),
        ("[::1],[::1]:5", [("::1", 9092), ("::1", 5)]),
    ],
)
def test_a_broker_without_a_port_is_at_kafkas_usual_one(kafka: str, brokers: list[tuple[str, int]]) -> None:
    assert [host_and_port(address) for address in Settings.load(kafka=kafka).brokers] == brokers
