"""What the doctor finds on three brokers: replicas, brokers that are away, and each leader's clock."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType

from streamer.broker import topics as topic_admin
from streamer.operate import kafka_checks
from streamer.operate.findings import Finding, Status
from streamer.settings import Settings
from tests.faults import rig
from tests.faults.cluster import BROKERS, Cluster
from tests.faults.rig import FULL, MAX_MESSAGE_BYTES
from tests.harness import wait_for

pytestmark = [
    pytest.mark.integration,
    pytest.mark.faults,
    pytest.mark.skipif(not FULL, reason="at length only"),
]

LONGEST_S = 15.0
LAST = BROKERS[-1]

NewSettings = Callable[..., Settings]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("doctor"), MAX_MESSAGE_BYTES) as brokers:
        yield brokers


@pytest.fixture
def settings_of(cluster: Cluster) -> Iterator[NewSettings]:
    """Makes settings whose topics exist; each broker leads a partition of each. All brokers run again afterwards."""

    def make(**given: Any) -> Settings:
        settings = rig.new_settings(**{"kafka": cluster.bootstrap, "replication": 3, **given})
        topic_admin.create(settings)
        if settings.replication == 3:
            cluster.lead(settings.source_topics, lambda _, partition: BROKERS[partition])
        cluster.wait_whole()
        return settings

    yield make
    cluster.start()
    cluster.set_clock(LAST, 0)
    cluster.wait_whole()


def found(check: str, settings: Settings) -> list[Finding]:
    """What a check finds; all of them together may take only this long."""
    begin_s = monotonic()
    findings = list(kafka_checks.examine(settings))
    assert monotonic() - begin_s < LONGEST_S
    return [finding for finding in findings if finding.check == check]


def warnings(check: str, settings: Settings) -> list[str]:
    return [finding.found for finding in found(check, settings) if finding.status is not Status.OK]


@contextmanager
def records(settings: Settings) -> Iterator[None]:
    """Every partition gets a record every 50 ms, and has one already."""
    flows, over = threading.Event(), threading.Event()

    def send() -> None:
        producer = KafkaProducer(bootstrap_servers=settings.kafka, acks="all")
        while not over.wait(0.05):
            for topic in settings.source_topics:
                for partition in range(settings.partitions):
                    producer.send(topic, b"{}", partition=partition)
            if not flows.is_set():
                producer.flush(timeout=30)
                flows.set()
        producer.close()

    thread = threading.Thread(target=send, name="records", daemon=True)
    thread.start()
    try:
        assert flows.wait(30)
        yield
    finally:
        over.set()
        thread.join()


def test_a_cluster_that_is_whole_has_no_warning(settings_of: NewSettings) -> None:
    settings = settings_of()
    assert found("topics", settings)[-1].found == "3 brokers, 3 replicas, all in sync"
    assert found("clock", settings)[0].found.startswith("Kafka holds no record yet")
    with records(settings):
        clocks = found("clock", settings)
    assert [finding.status for finding in clocks] == [Status.OK] * 2, clocks
    assert clocks[0].found.startswith("no clock of brokers 1, 2, 3 differs")
    assert clocks[1].found.endswith("fits these clocks")
    silent = found("clock", settings)
    assert {finding.status for finding in silent} == {Status.OK}
    assert silent[0].found.endswith("to judge the clock of brokers 1, 2, 3")


@pytest.mark.parametrize(("shift_ms", "says"), [(-700, "ms behind this"), (700, "ms ahead of this")])
def test_a_leader_whose_clock_differs_is_named(
    shift_ms: int, says: str, settings_of: NewSettings, cluster: Cluster
) -> None:
    settings = settings_of()
    cluster.set_clock(LAST, shift_ms)
    cluster.wait_whole()
    cluster.lead(settings.source_topics, lambda _, partition: BROKERS[partition])
    with records(settings):
        (differs, *others) = found("clock", settings)
        exact = found("clock", settings.model_copy(update={"merge_proof": "ticks"}))
    assert differs.status is Status.WARN
    assert differs.found.startswith(f"broker {LAST}'s clock is at least ")
    assert says in differs.found
    assert 400 < int(differs.found.split()[6]) <= 700
    assert [finding.status for finding in others] == [Status.OK, Status.WARN]
    assert "STREAMER_MERGE_PROOF=ticks" in others[-1].remedy
    assert {finding.status for finding in exact} == {Status.OK}


def test_a_broker_that_is_away_is_named(settings_of: NewSettings, cluster: Cluster) -> None:
    settings, single = settings_of(), settings_of(replication=1)
    (says,) = warnings("topics", single)
    assert says.startswith("one replica, although there are 3 brokers")
    cluster.brokers[LAST].stop()
    wait_for(lambda: LAST not in cluster.leaders(settings.source_topics).values(), 30.0)
    (says,) = warnings("topics", settings)
    assert says.startswith(f"broker {LAST} is away: ")
    one_replica, leaderless = warnings("topics", single)
    assert one_replica.startswith("one replica, although there are 3 brokers")
    assert "have no leader, and their sessions stand still" in leaderless
    assert warnings("group", single) == []


@pytest.mark.parametrize(
    ("least", "says"),
    [(1, "what one broker alone acknowledged may be lost"), (3, "one broker away stops all producers")],
)
def test_a_count_of_replicas_that_does_not_serve_is_a_warning(
    least: int, says: str, settings_of: NewSettings, cluster: Cluster
) -> None:
    settings = settings_of()
    name = settings.source_topics[0]
    with cluster.admin() as client:
        client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {topic_admin.MIN_IN_SYNC: str(least)})])

    def warned() -> bool:  # brokers hear of a new configuration a moment later
        return any(says in text and text.endswith(f": {name}") for text in warnings("topics", settings))

    wait_for(warned, 10.0)
