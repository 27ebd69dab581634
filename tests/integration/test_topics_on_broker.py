"""Topics are made so that alignment can rely on them, and misfits are refused with how to fix them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from time import monotonic, sleep

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from streamer.broker import topics
from streamer.clients import kafka as kafka_clients
from streamer.errors import UsageError
from streamer.events import TOPIC_DEADLETTER
from streamer.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def admin(kafka: str) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=kafka)
    yield client
    client.close()


def make(admin: KafkaAdminClient, name: str, partitions: int, **configs: str) -> None:
    dotted = {key.replace("_", "."): value for key, value in configs.items()}
    spec = {"num_partitions": partitions, "replication_factor": 1, "configs": dotted}
    admin.create_topics({name: spec}, wait_for_metadata=True)


def wait_until(topic: str, settings: Settings, **values: int) -> None:
    """A changed topic is seen when the controller's change has reached the broker."""
    deadline = monotonic() + 10
    while True:
        with kafka_clients.admin(settings, kafka_clients.TIMEOUT_MS) as client:
            now = topics._existing(client, settings)[topic]
        if all(getattr(now, name) == value for name, value in values.items()):
            return
        assert monotonic() < deadline, f"{topic} is {now}, not {values}"
        sleep(0.05)


def changed(settings: Settings, **values: object) -> Settings:
    return Settings.load(**{**settings.model_dump(exclude_unset=True), **values})


def test_all_topics_are_made_with_equal_partitions_and_log_append_time(settings: Settings) -> None:
    made = topics.create(settings)

    assert {topic.name for topic in made} == {
        f"{settings.topic_prefix}.{suffix}"
        for suffix in ("frames", "audio", "transcripts", "telemetry", "windows", "late", "deadletter")
    }
    assert all(topic.created for topic in made)
    assert {topic.partitions for topic in made} == {settings.partitions}
    assert {topic.timestamp_type for topic in made if topic.name in settings.source_topics} == {"LogAppendTime"}
    assert {(topic.replicas, topic.min_in_sync) for topic in made} == {(1, 1)}
    assert topics.check(settings) == settings.partitions


def test_making_them_again_changes_nothing(settings: Settings) -> None:
    first = topics.create(settings)
    second = topics.create(settings)

    assert not any(topic.created for topic in second)
    assert {t.name: t.partitions for t in second} == {t.name: t.partitions for t in first}


def test_only_what_is_missing_is_made(settings: Settings, admin: KafkaAdminClient) -> None:
    make(admin, settings.source_topics[0], settings.partitions)

    made = {topic.name for topic in topics.create(settings) if topic.created}

    assert settings.source_topics[0] not in made
    assert len(made) == 6


def test_the_broker_stamps_records_itself_whatever_time_the_producer_gives(topics: Settings) -> None:
    with KafkaProducer(bootstrap_servers=topics.kafka) as producer:
        sent = producer.send(topics.source_topics[0], b"x", key=b"s", timestamp_ms=1_000).get(timeout=10)
    assert sent.timestamp > 1_600_000_000_000


def test_the_largest_record_fits_into_the_dead_letter_topic_with_its_headers(topics: Settings) -> None:
    largest = bytes(topics.max_message_bytes - 1024)  # the limit counts the record's own framing, key and headers
    with KafkaProducer(bootstrap_servers=topics.kafka, max_request_size=2 * topics.max_message_bytes) as producer:
        producer.send(topics.source_topics[0], largest, key=b"s").get(timeout=30)
        headers = [("deadletter_detail", b"d" * 32_000)]
        producer.send(topics.topic(TOPIC_DEADLETTER), largest, key=b"s", headers=headers).get(timeout=30)


def test_unequal_partition_counts_are_refused_with_the_counts(settings: Settings, admin: KafkaAdminClient) -> None:
    topics.create(settings)
    admin.create_partitions({settings.source_topics[1]: settings.partitions + 2})
    wait_until(settings.source_topics[1], settings, partitions=settings.partitions + 2)

    for refuses in (topics.check, topics.create):
        with pytest.raises(UsageError, match=r"same number of partitions.*audio 5.*kafka-topics --alter") as refusal:
            refuses(settings)
        assert "\n" not in str(refusal.value)


def test_another_partition_count_than_the_topics_have_is_refused_by_create_alone(settings: Settings) -> None:
    topics.create(settings)
    other = changed(settings, partitions=settings.partitions + 1)

    with pytest.raises(UsageError, match=r"have 3 partitions, not 4; set STREAMER_PARTITIONS=3"):
        topics.create(other)
    assert topics.check(other) == settings.partitions  # a worker takes the topics as they are


def test_a_source_topic_that_keeps_the_producers_time_is_refused(settings: Settings, admin: KafkaAdminClient) -> None:
    make(admin, settings.source_topics[2], settings.partitions, message_timestamp_type="CreateTime")

    with pytest.raises(UsageError, match=r"transcripts has message\.timestamp\.type=CreateTime.*kafka-configs"):
        topics.create(settings)


def test_the_mend_that_a_refusal_names_mends_it(settings: Settings, admin: KafkaAdminClient) -> None:
    topics.create(settings)
    name = settings.source_topics[0]
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"max.message.bytes": "1000"})])
    wait_until(name, settings, max_message_bytes=1000)

    with pytest.raises(UsageError, match="takes records of 1000 bytes") as refusal:
        topics.check(settings)
    found = re.search(r"--entity-name (\S+) --add-config (\S+)=(\d+)", str(refusal.value))
    assert found is not None
    assert found[1] == name

    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {found[2]: found[3]})])
    wait_until(name, settings, max_message_bytes=int(found[3]))
    assert topics.check(settings) == settings.partitions


def test_missing_topics_are_refused_by_a_worker_with_the_command_that_makes_them(settings: Settings) -> None:
    with pytest.raises(UsageError, match=r"frames does not exist; run `streamer topics create`"):
        topics.check(settings)


def test_checking_does_not_make_topics(settings: Settings, admin: KafkaAdminClient) -> None:
    with pytest.raises(UsageError):
        topics.check(settings)
    assert not [name for name in admin.list_topics() if name.startswith(settings.topic_prefix)]


def test_more_replicas_than_brokers_are_refused_with_the_setting(settings: Settings) -> None:
    with pytest.raises(UsageError, match=r"too few brokers for 3 replicas.*STREAMER_REPLICATION"):
        topics.create(changed(settings, replication=3))
