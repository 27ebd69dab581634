"""What the doctor says of a real Kafka and a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from streamer.broker import deadletters
from streamer.clients import redis as redis_clients
from streamer.errors import Reason
from streamer.events import IMAGE, TOPIC_DEADLETTER, Drift, Record
from streamer.local.stack import Stack
from streamer.operate import doctor, kafka_checks
from streamer.operate.findings import Finding, Status
from streamer.settings import Settings
from streamer.store import drifts
from streamer.store.results import Keys
from tests.harness import second, send, wait_for
from tests.terminals import result

pytestmark = pytest.mark.integration


def of(check: str, settings: Settings) -> list[Finding]:
    return [finding for finding in doctor.examine(settings) if finding.check == check]


def test_topics_that_are_missing_fail_and_say_how_to_make_them(settings: Settings) -> None:
    (topics,) = of("topics", settings)
    assert topics.status is Status.FAIL
    assert topics.remedy == "run `streamer topics create`"
    assert of("group", settings) == []


def test_records_that_wait_for_a_worker_that_is_not_there_are_counted(topics: Settings) -> None:
    (group,) = of("group", topics)
    assert (group.status, "0 records behind" in group.found) == (Status.OK, True)
    records = second(topics, "car", 1_700_000_000_000_000)
    send(topics, records)
    (group,) = of("group", topics)
    assert group.status is Status.WARN
    assert f"0 workers, {len(records)} records behind" in group.found
    assert [finding for finding in doctor.examine(topics) if finding.status is Status.FAIL] == []


def test_sensors_that_never_come_and_records_of_none_that_is_declared_are_told(topics: Settings) -> None:
    settings = topics.model_copy(update={"sensors": Settings.load(sensors={"rear": {"kind": "image"}}).sensors})
    (none,) = of("sensors", settings)
    assert (none.status, "there are no windows" in none.found) == (Status.OK, True)
    names = settings.sensor_set.names
    window = result(present=("image", "audio", "text"), coverage=dict.fromkeys(names, 1.0))
    keys = Keys(settings.key_prefix)
    with redis.Redis.from_url(settings.redis) as client:
        client.zadd(keys.sessions, {window.session: window.end_us})
        client.xadd(keys.results(window.session), window.to_fields(), id=f"{window.end_us}-0")
    stray = Record(IMAGE, 0, 7, window.end_us, b"car", b"jpeg", (("ce_sensor", b"top"),))
    told = deadletters.dead_letter(stray, Reason.UNKNOWN_SENSOR, "not declared", settings.source_topics[IMAGE])
    with KafkaProducer(bootstrap_servers=settings.kafka) as producer:
        for _ in range(9):
            topic = settings.topic(TOPIC_DEADLETTER)
            producer.send(topic, key=told.key, value=told.value, headers=list(told.headers)).get(10)
    rear, telemetry, there, top = of("sensors", settings)
    assert [one.status for one in (rear, telemetry, there, top)] == [Status.WARN, Status.WARN, Status.OK, Status.WARN]
    assert rear.found.startswith("rear was in none of the newest 1 windows")
    assert top.found.startswith("5 of the newest 5 dead letters are records on ")  # of each partition the newest
    assert "of the sensor 'top'" in top.found


def test_a_short_retention_is_a_warning(topics: Settings) -> None:
    admin = KafkaAdminClient(bootstrap_servers=topics.kafka)
    try:
        admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, topics.source_topics[0], {"retention.ms": "60000"})]
        )
    finally:
        admin.close()
    says = f"{topics.source_topics[0]} keeps its records for 60 s"

    def warned() -> bool:  # brokers hear of a new configuration a moment later
        return any(says in finding.found and finding.status is Status.WARN for finding in of("topics", topics))

    wait_for(warned, 10.0)


def test_the_brokers_clock_is_judged_by_records_that_come_meanwhile(topics: Settings) -> None:
    loose = topics.model_copy(update={"merge_slack_ms": 1000})
    send(loose, second(loose, "car", 1_700_000_000_000_000))
    silent, _ = leader_clocks_of(loose)
    assert silent.found.startswith("too few records came in 2 s to judge the clock of broker ")
    over = threading.Event()

    def keep_sending() -> None:
        while not over.wait(0.05):
            send(loose, second(loose, "car", 1_700_000_000_000_000))

    thread = threading.Thread(target=keep_sending, name="feed", daemon=True)
    thread.start()
    try:
        agrees, mode = leader_clocks_of(loose)
    finally:
        over.set()
        thread.join()
    assert (agrees.status, mode.status) == (Status.OK, Status.OK)
    assert agrees.found.startswith("no clock of broker ")
    assert mode.found == "merge_proof=replicas with merge_slack_ms=1000 fits these clocks"


def leader_clocks_of(settings: Settings) -> list[Finding]:
    return [finding for finding in kafka_checks.examine(settings) if finding.check == "clock"]


@pytest.fixture
def eye(own_redis: Stack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(own_redis.redis_url) as client:
        yield client


@pytest.mark.parametrize(
    ("option", "value", "status", "says"),
    [
        ("maxmemory-policy", "allkeys-lru", Status.WARN, "maxmemory-policy allkeys-lru evicts results"),
        ("appendfsync", "everysec", Status.WARN, "appendfsync everysec: a crash of its machine loses"),
        ("appendfsync", "always", Status.OK, "keeps what it acknowledged"),
        ("appendonly", "no", Status.WARN, "loses everything when it crashes"),
    ],
)
def test_what_redis_does_not_promise_is_a_warning(
    option: str, value: str, status: Status, says: str, eye: redis.Redis, own_redis: Stack, settings: Settings
) -> None:
    eye.config_set(option, value)
    findings = of("redis", settings.model_copy(update={"redis": own_redis.redis_url}))
    assert [finding.status for finding in findings if says in finding.found] == [status]


def test_a_user_who_may_not_look_further_is_told_so(eye: redis.Redis, own_redis: Stack, settings: Settings) -> None:
    eye.execute_command("ACL", "SETUSER", "worker", "on", ">word", "~*", "-@all", "+ping")
    mine = settings.model_copy(update={"redis": own_redis.redis_url.replace("redis://", "redis://worker:word@")})
    findings = of("redis", mine)
    assert [finding.status for finding in findings] == [Status.OK, Status.WARN]
    assert "may not check more" in findings[-1].found


async def test_a_clock_that_drifts_is_named_until_its_worker_reports_it_no_more(
    topics: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys, slow, fast = Keys(topics.key_prefix), Drift("imu", 200.0, 30.0, 700.0), Drift("imu", -80.0, -9.0, 2000.0)
    assert [finding.status for finding in of("drift", topics)] == [Status.OK]
    client = redis_clients.async_client(topics)
    try:
        reports = drifts.Reports(client, keys)
        await reports.write([("car-1", (slow,)), ("car-2", (fast,))])
        await reports.write([("car-1", (slow, fast))])
        assert await drifts.read_async(client, keys) == {"car-1": (slow, fast), "car-2": (fast,)}
        assert [finding.found.partition(" by ")[0] for finding in of("drift", topics)] == [
            "car-1: the clock of imu is slow",
            "car-1: the clock of imu is fast",
            "car-2: the clock of imu is fast",
        ]
        assert 0 < await client.ttl(keys.drifts) <= drifts.FRESH_S
        monkeypatch.setattr(drifts, "FRESH_S", -1.0)  # all that was written is old now
        assert await drifts.read_async(client, keys) == {}
        await reports.write([("car-2", (fast,))])
        assert await client.xlen(keys.drifts) == 0
    finally:
        await client.aclose()
