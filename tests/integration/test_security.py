"""TLS, users and passwords, on a real Kafka and a real Redis that insist on them and grant what SECURITY.md lists."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import numpy as np
import pytest
import redis as redis_client
from faust.types import TP
from pydantic import SecretStr

from streamer.broker import deadletters, topics
from streamer.broker.replicas import Brokers
from streamer.clients import kafka as kafka_clients
from streamer.dashboard.alarms import Watch
from streamer.describe import process as describe
from streamer.errors import UsageError
from streamer.feeds import Producer
from streamer.local.program import Program
from streamer.local.worker import environment
from streamer.rules import alarms
from streamer.settings import Settings
from streamer.store import descriptions, results
from tests import secure
from tests.gateways import GatewayProcess
from tests.harness import READY_WITHIN_S, ROOT, S_US, WorkerProcess, jpeg, running_worker, wait_for
from tests.secure import PASSWORD, Authority, Broker, Redis
from tests.speech import digits, needs_recogniser, with_pauses

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="makes its certificates with openssl"),
]

SESSION = "car"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.new(tmp_path_factory.mktemp("pki") / "ours")


@pytest.fixture(scope="module")
def other_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.new(tmp_path_factory.mktemp("pki") / "other")


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Broker]:
    with secure.broker(tmp_path_factory.mktemp("kafka"), authority) as addresses:
        yield addresses


@pytest.fixture(scope="module")
def secure_redis(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Redis]:
    with secure.redis(tmp_path_factory.mktemp("redis"), authority) as server:
        yield server


def at_kafka(broker: Broker, authority: Authority, user: str, **others: object) -> Settings:
    given = {
        "kafka": broker.secure,
        "kafka_security_protocol": "SASL_SSL",
        "kafka_user": user,
        "kafka_password": PASSWORD,
        "kafka_ca_file": authority.ca,
        "partitions": 2,
        "max_message_bytes": 1 << 20,
    }
    return Settings.load(**{**given, **others})


@pytest.fixture(scope="module")
def made(broker: Broker, authority: Authority) -> list[topics.Topic]:
    """The topics, made by the operator."""
    return topics.create(at_kafka(broker, authority, "operator"))


@pytest.fixture
def worker_settings(
    broker: Broker, authority: Authority, secure_redis: Redis, made: list[topics.Topic], model_folder: Path
) -> Settings:
    return at_kafka(
        broker,
        authority,
        "worker",
        redis=f"rediss://{secure_redis.address}/0",
        redis_user="worker",
        redis_password=PASSWORD,
        redis_ca_file=authority.ca,
        model=model_folder,
        port=0,
        sensors={name: {"max_delay_ms": 3000} for name in ("image", "audio", "text", "telemetry")},
    )


def test_the_operator_makes_the_topics_over_either_mechanism(
    broker: Broker, authority: Authority, made: list[topics.Topic]
) -> None:
    assert len(made) == 7
    plain = at_kafka(broker, authority, "operator", kafka_sasl_mechanism="PLAIN")
    assert {topic.name for topic in topics.create(plain)} == {topic.name for topic in made}


def test_tls_without_a_user_is_spoken_too(broker: Broker, authority: Authority, made: list[topics.Topic]) -> None:
    settings = Settings.load(
        kafka=broker.tls, kafka_security_protocol="SSL", kafka_ca_file=authority.ca, max_message_bytes=1 << 20
    )
    assert topics.check(settings) == 2


def test_the_whole_path_works_with_the_rights_of_security_md_and_no_more(
    worker_settings: Settings, broker: Broker, authority: Authority, secure_redis: Redis, tmp_path: Path
) -> None:
    viewer, sinker = (  # same password
        worker_settings.model_copy(update={"kafka_user": user, "redis_user": user}) for user in ("viewer", "sinker")
    )
    with running_worker(worker_settings, tmp_path / "worker.log", log_level="debug"):
        start_us = (int(time.time()) - 5) * S_US
        with Producer(at_kafka(broker, authority, "device")) as producer:
            for second in range(3):
                at_us = start_us + second * S_US
                producer.audio(SESSION, b"\0\0" * 16_000, rate_hz=16_000, time_us=at_us)
                producer.telemetry(SESSION, {"speed": [1.0] * 10}, rate_hz=10, time_us=at_us)
                producer.frame(SESSION, b"no image", time_us=at_us)
            producer.end(SESSION)
        with results.connected(viewer) as (client, keys):
            wait_for(lambda: len(list(results.results(client, keys, SESSION))) == 3, 30.0)
            assert results.sessions(client, keys) == [SESSION]
            assert list(descriptions.read(client, keys, SESSION)) == []
            describe.run(viewer.model_copy(update={"redis_user": "describer"}), once=True)
            assert len(list(descriptions.read(client, keys, SESSION))) == 3
            with running(sinker, tmp_path / "sink.log", "sink", "kafka", "--from", "beginning", "--once") as sink:
                sink.wait_end(60.0)
            (tmp_path / "rules.toml").write_text("[rules.any]\nwhen = 'true'\nactions = ['kafka']\n", "utf-8")
            ruler = sinker.model_copy(update={"rules": tmp_path / "rules.toml", "rules_port": 0})
            with running(ruler, tmp_path / "rules.log", "rules", "run", "--all") as rules:
                wait_for(
                    lambda: "kafka" in {one.what for one in alarms.history(client, keys, SESSION)}, 60.0, rules.text
                )
            watch = Watch(viewer, lambda shown: None)  # of the page
            watch.start()
            wait_for(lambda: len(watch.shown.open) == 1, 20.0)
            watch.close()
        assert len(list(deadletters.read(viewer))) == 3
    log = (tmp_path / "worker.log").read_text()
    assert PASSWORD not in log
    with redis_client.Redis(unix_socket_path=str(secure_redis.socket)) as eye:
        # redis-py names itself with CLIENT SETINFO and goes on when that is refused
        assert [entry for entry in eye.acl_log() if not entry["object"].startswith("client")] == []


@contextmanager
def running(settings: Settings, log: Path, *arguments: str) -> Iterator[Program]:
    """A command; its log has no password."""
    command = [sys.executable, "-m", "streamer", *arguments]
    with Program(command, log, environment(settings), ROOT, f"streamer {arguments[0]}") as program:
        yield program
    assert PASSWORD not in log.read_text()


def test_transcribe_needs_the_rights_of_its_own_and_no_more(
    broker: Broker, authority: Authority, made: list[topics.Topic], data: Path, tmp_path: Path
) -> None:
    settings = at_kafka(broker, authority, "transcriber", port=0)
    needs_recogniser(settings)
    sound = with_pauses([digits(data, "jackson", 8)[6]], 0.5)
    pcm = np.round(sound.samples_S * 32767).astype(">i2").tobytes()
    with (
        WorkerProcess(settings, tmp_path / "transcribe.log", command="transcribe") as process,
        Producer(at_kafka(broker, authority, "device")) as producer,
    ):
        process.wait_ready(READY_WITHIN_S)
        producer.audio("talk", pcm, rate_hz=sound.rate_hz)
        producer.flush()  # no end: by silence, for which it asks where the partition ends
        wait_for(lambda: process.metric("streamer_transcribe_delay_seconds_count") == 1, 120.0, process.text)
        assert process.ready(), process.text()


def test_the_gateway_needs_the_rights_of_its_own_and_no_more(
    broker: Broker, authority: Authority, made: list[topics.Topic], tmp_path: Path
) -> None:
    settings = at_kafka(broker, authority, "gateway", port=0)
    with GatewayProcess(settings, tmp_path, "cab-7") as gateway:
        gateway.wait_ready(READY_WITHIN_S)
        headers = {"Authorization": f"Bearer {gateway.token}", "Content-Type": "image/jpeg"}
        request = urllib.request.Request(f"{gateway.url}/v1/sessions/cab-7/image", jpeg(), headers)
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert json.loads(answer.read())["topic"] == settings.source_topics[0]
        gateway.stop()


def test_ticks_need_the_right_to_write_to_the_source_topics(
    broker: Broker, authority: Authority, made: list[topics.Topic]
) -> None:
    assert topics.check_for_worker(at_kafka(broker, authority, "worker")) == 2
    exact = at_kafka(broker, authority, "worker", merge_proof="ticks")
    with kafka_clients.admin(exact, kafka_clients.TIMEOUT_MS) as client:
        assert topics.missing_rights(client, exact) == [f"write topic {name}" for name in exact.source_topics]
    with pytest.raises(UsageError, match=r"does not let user 'worker' write topic .*SECURITY\.md"):
        topics.check_for_worker(exact)


async def log_ends(settings: Settings) -> dict[TP, int | None]:
    """What the leaders hold, asked for as a worker does."""
    brokers = Brokers(settings, settings.source_topics)
    try:
        found: dict[TP, int | None] = {}
        leaders = await brokers.leaders()
        for node in {leadership.leader for leadership in leaders.values()}:
            epochs = {tp: at.epoch for tp, at in leaders.items() if at.leader == node}
            found |= await brokers.log_ends(node, epochs)
        return found
    finally:
        await brokers.close()


async def test_replicas_say_what_they_hold_to_whom_may_read_and_to_no_other(
    broker: Broker, authority: Authority, made: list[topics.Topic]
) -> None:
    reader = at_kafka(broker, authority, "reader")
    secure.grant(
        broker.inner,
        ["reader", "stranger"],
        [secure.right("reader", "Read", "topic", name) for name in reader.source_topics],
    )
    ends = await log_ends(reader)
    assert ends.keys() == {TP(name, partition) for name in reader.source_topics for partition in range(2)}
    assert None not in ends.values()
    over_tls = Settings.load(kafka=broker.tls, kafka_security_protocol="SSL", kafka_ca_file=authority.ca)
    assert await log_ends(over_tls) == ends
    assert await log_ends(at_kafka(broker, authority, "stranger")) == {}


def said(settings: Settings, *command: str, **extra: str) -> str:
    """The one line of a command that must fail, within a minute."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("STREAMER_")} | environment(settings) | extra
    before_s = monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "streamer", *command], env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert monotonic() - before_s < 40
    assert PASSWORD not in done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


WRONG = {"kafka_password": SecretStr("wr0ng"), "redis_password": SecretStr("wr0ng")}


@pytest.mark.parametrize("command", ["topics create", "worker"])
def test_a_wrong_password_at_kafka_is_one_line(
    command: str, broker: Broker, authority: Authority, made: list[topics.Topic]
) -> None:
    settings = at_kafka(broker, authority, "worker", kafka_password="wr0ng")
    line = said(settings, *command.split())
    assert "refuses user 'worker'" in line
    assert "check STREAMER_KAFKA_USER" in line
    assert "wr0ng" not in line


def test_a_certificate_of_another_authority_is_one_line(
    broker: Broker, authority: Authority, other_authority: Authority
) -> None:
    settings = at_kafka(broker, authority, "worker", kafka_ca_file=other_authority.ca)
    assert "cannot be trusted" in said(settings, "topics", "create")


def test_plain_text_to_a_port_with_tls_is_one_line(broker: Broker) -> None:
    assert "speaks TLS; set STREAMER_KAFKA_SECURITY_PROTOCOL" in said(Settings.load(kafka=broker.secure), "deadletters")


def test_tls_to_a_port_without_is_one_line(broker: Broker, authority: Authority) -> None:
    settings = at_kafka(broker, authority, "worker", kafka=broker.inner)
    assert "does not speak TLS" in said(settings, "topics", "create")


def test_a_topic_that_a_user_may_not_see_may_be_there(
    broker: Broker, authority: Authority, made: list[topics.Topic]
) -> None:
    line = said(at_kafka(broker, authority, "device"), "deadletters")
    assert "or user 'device' may not see it" in line


def test_a_worker_without_its_group_ends_with_one_line(worker_settings: Settings) -> None:
    env = environment(worker_settings) | {"STREAMER_GROUP": "somebody-elses"}
    done = subprocess.run(
        [sys.executable, "-m", "streamer", "worker"], env=os.environ | env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "SECURITY.md" in done.stderr.splitlines()[-1]


def test_redis_refusals_are_one_line_each(
    worker_settings: Settings, secure_redis: Redis, other_authority: Authority
) -> None:
    for update, expected in (
        ({"redis_password": SecretStr("wr0ng")}, "refuses us"),
        ({"redis_ca_file": other_authority.ca}, "cannot be trusted"),
        (
            {"redis": f"redis://{secure_redis.address}/0", "redis_ca_file": None},
            "set STREAMER_REDIS to a URL that begins with rediss://",
        ),
    ):
        line = said(worker_settings.model_copy(update=update), "watch", "--json")
        assert expected in line
        assert "wr0ng" not in line


def test_a_viewer_may_not_change_what_redis_holds(worker_settings: Settings) -> None:
    viewer = worker_settings.model_copy(update={"redis_user": "viewer"})
    with pytest.raises(UsageError, match=r"SECURITY\.md"), results.connected(viewer) as (client, keys):
        results.forget(client, keys, SESSION)
