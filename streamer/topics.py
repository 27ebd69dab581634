"""Kafka topics: making them, and refusing to run on ones that would break alignment.

A session lives in one partition group, partition p of *every* source topic: the topics must have equal partition
counts. Alignment orders records by the broker's append time: source topics must stamp ``LogAppendTime``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from streamer.errors import UsageError
from streamer.events import TOPIC_DEADLETTER, TOPIC_LATE
from streamer.settings import Settings

DEADLETTER_MARGIN_BYTES = 64 << 10  # the headers that say why and from where, beside the untouched record
TIMEOUT_MS = 10_000
KNOWN = ("message.timestamp.type", "max.message.bytes")


class Topic(msgspec.Struct, frozen=True):
    """A topic as it is on the broker."""

    name: str
    partitions: int
    timestamp_type: str
    max_message_bytes: int
    created: bool = False


class _Wanted(msgspec.Struct, frozen=True):
    name: str
    timestamp_type: str
    max_message_bytes: int


def _wanted(settings: Settings) -> list[_Wanted]:
    sources = [_Wanted(name, "LogAppendTime", settings.max_message_bytes) for name in settings.source_topics]
    side = [
        _Wanted(settings.topic(suffix), "LogAppendTime", settings.max_message_bytes + DEADLETTER_MARGIN_BYTES)
        for suffix in (TOPIC_LATE, TOPIC_DEADLETTER)
    ]
    return sources + side


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """A client for topic administration.

    Raises:
        UsageError: No broker answers at the address.
    """
    try:
        client = KafkaAdminClient(
            bootstrap_servers=settings.kafka.split(","),
            bootstrap_timeout_ms=TIMEOUT_MS,
            request_timeout_ms=TIMEOUT_MS,
        )
    except (KafkaError, OSError, ValueError):
        raise UsageError(f"no Kafka answers at {settings.kafka}; run `streamer up` or set STREAMER_KAFKA") from None
    try:
        yield client
    finally:
        client.close()


def create(settings: Settings) -> list[Topic]:
    """Make the topics that are missing; those that exist must fit.

    Raises:
        UsageError: No broker, not enough of them for the replication, or an existing topic does not fit.
    """
    with admin(settings) as client:
        existing = _existing(client, settings)
        _refuse_misfits(existing, settings, settings.partitions)
        missing = [wanted for wanted in _wanted(settings) if wanted.name not in existing]
        if missing:
            try:
                client.create_topics([_new(wanted, settings) for wanted in missing], timeout_ms=TIMEOUT_MS)
            except TopicAlreadyExistsError:
                pass  # somebody else made it since; what counts is what is there now
            except KafkaError as error:
                raise UsageError(f"Kafka does not make the topics: {error}") from None
            client.wait_for_topics([wanted.name for wanted in missing], timeout_ms=TIMEOUT_MS)
        now = _existing(client, settings)
    _refuse_misfits(now, settings, settings.partitions)
    made = {wanted.name for wanted in missing}
    return [msgspec.structs.replace(topic, created=topic.name in made) for topic in now.values()]


def check(settings: Settings) -> int:
    """Refuse topics on which windows would be wrong; returns the partition count of the source topics.

    Raises:
        UsageError: With what is wrong and how to mend it.
    """
    with admin(settings) as client:
        existing = _existing(client, settings)
    missing = [wanted.name for wanted in _wanted(settings) if wanted.name not in existing]
    if missing:
        raise UsageError(f"topic {missing[0]} does not exist; run `streamer topics create`")
    counts = {existing[name].partitions for name in settings.source_topics}
    _refuse_misfits(existing, settings, min(counts))
    return min(counts)


def _new(wanted: _Wanted, settings: Settings) -> NewTopic:
    configs = dict(zip(KNOWN, (wanted.timestamp_type, str(wanted.max_message_bytes)), strict=True))
    return NewTopic(wanted.name, settings.partitions, settings.replication, topic_configs=configs)


def _existing(client: KafkaAdminClient, settings: Settings) -> dict[str, Topic]:
    names = [wanted.name for wanted in _wanted(settings)]
    there = {
        topic["name"]: len(topic["partitions"]) for topic in client.describe_topics(names) if not topic["error_code"]
    }
    if not there:
        return {}
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in there]
    configs = client.describe_configs(resources, config_filter="all")["topic"]
    return {
        name: Topic(
            name,
            partitions,
            configs[name]["message.timestamp.type"]["value"],
            int(configs[name]["max.message.bytes"]["value"]),
        )
        for name, partitions in there.items()
    }


def _refuse_misfits(existing: dict[str, Topic], settings: Settings, partitions: int) -> None:
    sources = set(settings.source_topics)
    for wanted in _wanted(settings):
        topic = existing.get(wanted.name)
        if topic is None:
            continue
        if topic.name in sources and topic.partitions != partitions:
            counts = ", ".join(f"{t.name} {t.partitions}" for t in existing.values() if t.name in sources)
            raise UsageError(
                f"all source topics need the same number of partitions, here {partitions}, but there are: {counts}; "
                f"delete the odd ones and run `streamer topics create`, or set STREAMER_PARTITIONS"
            )
        if topic.name in sources and topic.timestamp_type != wanted.timestamp_type:
            raise UsageError(
                f"topic {topic.name} has message.timestamp.type={topic.timestamp_type}, which breaks the order of "
                f"alignment; mend it with kafka-configs --alter --add-config message.timestamp.type=LogAppendTime"
            )
        if topic.max_message_bytes < wanted.max_message_bytes:
            raise UsageError(
                f"topic {topic.name} takes {topic.max_message_bytes} bytes a record, {wanted.max_message_bytes} are "
                f"needed; mend it with kafka-configs --alter --add-config max.message.bytes={wanted.max_message_bytes},"
                f" or lower STREAMER_MAX_MESSAGE_BYTES"
            )
