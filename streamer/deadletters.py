"""Dead letters and late records: the original record, untouched, with headers that say why and from where.

    deadletter_reason   class of the fault (errors.Reason)        late_by_us   how late the event was
    deadletter_detail   what is wrong with this record
    deadletter_origin   "topic/partition/offset/log time in µs" of the source record (late records have it too)

A restart may write the same letter again: the origin identifies it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from streamer.errors import Reason, UsageError
from streamer.events import TOPIC_DEADLETTER, Record
from streamer.settings import Settings

REASON, DETAIL, ORIGIN, LATE_BY = "deadletter_reason", "deadletter_detail", "deadletter_origin", "late_by_us"
TRUNCATED = "deadletter_truncated_bytes"
OWN_HEADERS = frozenset({REASON, DETAIL, ORIGIN, LATE_BY, TRUNCATED})
DETAIL_MAX = 1000  # characters
TIMEOUT_MS = 10_000

Headers = tuple[tuple[str, bytes], ...]


class Letter(msgspec.Struct, frozen=True):
    """A record for the dead-letter or late topic."""

    key: bytes | None
    value: bytes
    headers: Headers

    def without_value(self) -> Letter:
        """For a topic that refuses its size: the origin tells where the payload still lies."""
        return Letter(self.key, b"", (*self.headers, (TRUNCATED, str(len(self.value)).encode())))

    def bare(self) -> Letter:
        """Where not even the key and the headers are taken: why, and where the record still lies."""
        return Letter(None, b"", tuple(header for header in self.headers if header[0] in OWN_HEADERS))


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as ``streamer deadletters --json`` shows it."""

    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    log_time_us: int
    key: str | None
    ce_id: str | None
    ce_type: str | None
    size_bytes: int
    truncated: bool = False


def dead_letter(record: Record, reason: Reason, detail: str, topic: str) -> Letter:
    """The letter for a record that can never be processed.

    Args:
        topic: Full name of the topic that the record lies on.
    """
    why = ((REASON, str(reason).encode()), (DETAIL, detail[:DETAIL_MAX].encode("utf-8", "replace")))
    return Letter(record.key, record.value, (*record.headers, *why, _origin(record, topic)))


def late(record: Record, late_by_us: int, topic: str) -> Letter:
    """The letter for an event that came after all its windows had closed."""
    return Letter(
        record.key, record.value, (*record.headers, (LATE_BY, str(late_by_us).encode()), _origin(record, topic))
    )


def _origin(record: Record, topic: str) -> tuple[str, bytes]:
    return ORIGIN, f"{topic}/{record.partition}/{record.offset}/{record.log_time_us}".encode()


def read(settings: Settings, reason: str | None = None) -> Iterator[DeadLetter]:
    """Dead letters from the oldest to the newest that is there now.

    Raises:
        UsageError: No Kafka answers, there is no such topic, or no such reason.
    """
    for message in _messages(settings, reason, group=None):
        yield _parsed(message)


def requeue(settings: Settings, reason: str | None = None) -> int:
    """Send dead letters back to their source topics as they were; returns how many.

    What was sent back is remembered in the consumer group ``<group>-requeue``: a second call sends what came since.
    With ``reason`` the others are passed over and stay unsent for good. Truncated letters cannot be sent back.

    Raises:
        UsageError: As :func:`read`; or Kafka did not take a record, and nothing after it was sent.
    """
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka.split(","), max_request_size=settings.max_message_bytes + (1 << 20)
    )
    sent = 0
    try:
        for message in _messages(settings, reason, group=f"{settings.group}-requeue"):
            letter = _parsed(message)
            if letter.topic not in settings.source_topics or letter.truncated:
                continue
            headers = [(name, value) for name, value in message.headers if name not in OWN_HEADERS]
            producer.send(letter.topic, key=message.key, value=message.value, headers=headers).get(TIMEOUT_MS / 1000)
            sent += 1
    except KafkaError as error:
        raise UsageError(f"Kafka did not take a record back after {sent} were sent: {error}") from None
    finally:
        producer.close()
    return sent


def _messages(settings: Settings, reason: str | None, group: str | None) -> Iterator[KafkaMessage]:
    if reason is not None and reason not in set(Reason):
        raise UsageError(f"no reason {reason!r}; there are: {', '.join(Reason)}")
    topic = settings.topic(TOPIC_DEADLETTER)
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=settings.kafka.split(","),
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            bootstrap_timeout_ms=TIMEOUT_MS,
        )
    except (KafkaError, OSError, ValueError):
        raise UsageError(f"no Kafka answers at {settings.kafka}; run `streamer up` or set STREAMER_KAFKA") from None
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        if not partitions:
            raise UsageError(f"topic {topic} does not exist; run `streamer topics create`")
        consumer.assign(partitions)
        if group is None:
            consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            for tp, batch in consumer.poll(timeout_ms=500).items():
                for message in batch:
                    if message.offset < ends[tp] and _reason(message) is not None:
                        if reason is None or _reason(message) == reason:
                            yield message
                        if group is not None:
                            consumer.commit({tp: OffsetAndMetadata(message.offset + 1, "", -1)})
    finally:
        consumer.close()


class KafkaMessage(msgspec.Struct):
    """The part of kafka-python's ConsumerRecord that is used here."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def _reason(message: KafkaMessage) -> str | None:
    return _own(message.headers).get(REASON)


def _own(headers: Iterable[tuple[str, bytes]]) -> dict[str, str]:
    return {name: (value or b"").decode("utf-8", "replace") for name, value in headers}


def _parsed(message: KafkaMessage) -> DeadLetter:
    headers = _own(message.headers)
    topic, partition, offset, log_time_us = headers[ORIGIN].rsplit("/", 3)
    truncated = headers.get(TRUNCATED)
    return DeadLetter(
        reason=headers[REASON],
        detail=headers[DETAIL],
        topic=topic,
        partition=int(partition),
        offset=int(offset),
        log_time_us=int(log_time_us),
        key=None if message.key is None else message.key.decode("utf-8", "replace"),
        ce_id=headers.get("ce_id"),
        ce_type=headers.get("ce_type"),
        size_bytes=int(truncated) if truncated is not None else len(message.value or b""),
        truncated=truncated is not None,
    )
