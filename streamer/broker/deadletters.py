"""Dead letters and late records: the original record, untouched, with headers that say why and from where.

    deadletter_reason   class of the fault (errors.Reason)        late_by_us   how late the event was
    deadletter_detail   what is wrong with this record
    deadletter_origin   "topic/partition/offset/log time in µs" of the source record (late records have it too)

A letter for a batch that cannot be read has the batch as its value, the last offset in its origin, and the first and
the last offset in headers, see ``clients.batches``.

A restart may write the same letter again: the origin identifies it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, NoError
from kafka.structs import OffsetAndMetadata

from streamer.clients import kafka as kafka_clients
from streamer.clients.batches import FAULT, FIRST_OFFSET, LAST_OFFSET
from streamer.errors import Reason, UsageError
from streamer.events import TOPIC_DEADLETTER, Record, rfc3339
from streamer.settings import Settings

REASON, DETAIL, ORIGIN, LATE_BY = "deadletter_reason", "deadletter_detail", "deadletter_origin", "late_by_us"
TRUNCATED = "deadletter_truncated_bytes"
OWN_HEADERS = frozenset({REASON, DETAIL, ORIGIN, LATE_BY, TRUNCATED, FAULT, FIRST_OFFSET, LAST_OFFSET})
DETAIL_MAX = 1000  # characters
TIMEOUT_MS = 10_000
REMEMBER_EVERY_S = 1.0

Headers = tuple[tuple[str, bytes], ...]


class Letter(msgspec.Struct, frozen=True):
    """A record for the dead-letter or late topic."""

    key: bytes | None
    value: bytes
    headers: Headers

    def without_value(self) -> Letter:
        """The letter without its payload, for a topic that refuses its size; the origin says where the payload is."""
        return Letter(self.key, b"", (*self.headers, (TRUNCATED, str(len(self.value)).encode())))

    def bare(self) -> Letter:
        """The letter without key and headers of the record, where even these are refused: only reason and origin."""
        return Letter(None, b"", tuple(header for header in self.headers if header[0] in OWN_HEADERS))


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as ``streamer deadletters --json`` shows it.

    Attributes:
        first_offset: Of a batch that cannot be read, whose last one is ``offset``; ``None`` for a record.
    """

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
    first_offset: int | None = None
    ce_sensor: str | None = None


def dead_letter(record: Record, reason: Reason, detail: str, topic: str) -> Letter:
    """The letter for a record that can never be processed.

    Args:
        topic: Full name of the record's topic.
    """
    why = ((REASON, str(reason).encode()), (DETAIL, detail[:DETAIL_MAX].encode("utf-8", "replace")))
    return Letter(record.key, record.value, (*record.headers, *why, _origin(record, topic)))


def late(record: Record, late_by_us: int, topic: str) -> Letter:
    """The letter for an event that arrived after all its windows had closed."""
    return Letter(
        record.key, record.value, (*record.headers, (LATE_BY, str(late_by_us).encode()), _origin(record, topic))
    )


def _origin(record: Record, topic: str) -> tuple[str, bytes]:
    return ORIGIN, f"{topic}/{record.partition}/{record.offset}/{record.log_time_us}".encode()


def read(settings: Settings, reason: str | None = None) -> Iterator[DeadLetter]:
    """Dead letters from the oldest to the newest at the time of the call.

    Raises:
        UsageError: No Kafka answers, there is no such topic, or no such reason.
    """
    wanted = _reasons(reason)
    with _reader(settings) as reader:
        reader.seek_to_beginning()
        for _, message in _messages(reader, _ends(reader), settings):
            letter = _parsed(message)
            if letter is not None and (reason is None or letter.reason in wanted):
                yield letter


def newest(settings: Settings, count: int) -> Iterator[DeadLetter]:
    """The newest dead letters, at most so many of each partition.

    Raises:
        UsageError: As :func:`read`.
    """
    with _reader(settings) as reader:
        ends = _ends(reader)
        begins = reader.beginning_offsets([*ends])
        for tp, end in ends.items():
            reader.seek(tp, max(begins[tp], end - count))
        for _, message in _messages(reader, ends, settings):
            if (letter := _parsed(message)) is not None:
                yield letter


def requeue(settings: Settings, reason: str | None = None) -> int:
    """Send dead letters back to their source topics unchanged, each once; returns the number sent.

    How far each reason was sent back is kept in Kafka, as the offsets of a separate consumer group
    ``<group>-requeue-<reason>``: a second call sends what came since, and letters of other reasons wait for a later
    call. Truncated letters cannot be sent back, nor batches that cannot be read, nor letters of another topic prefix. A
    record without a ``ce_time`` gets its first log time as one, else it would become an event of now. A call that is
    killed may repeat the letters of its last second.

    Raises:
        UsageError: As :func:`read`; or Kafka did not take a record, and nothing after it was sent.
    """
    wanted = _reasons(reason)
    with _reader(settings) as reader, kafka_clients.admin(settings, TIMEOUT_MS) as client, _sender(settings) as sender:
        sent_back = _SentBack(client, settings.group, wanted)
        ends = _ends(reader)
        for tp in ends:
            reader.seek(tp, min(sent_back.until(name, tp) for name in wanted))
        count = 0
        try:
            for tp, message in _messages(reader, ends, settings):
                letter = _parsed(message)
                if letter is not None and letter.reason in wanted:
                    if message.offset >= sent_back.until(letter.reason, tp) and _can_return(letter, settings):
                        _send_back(sender, letter, message)
                        count += 1
                    sent_back.note(letter.reason, tp, message.offset + 1)
            for tp, end in ends.items():
                for name in wanted:
                    sent_back.note(name, tp, end)
        except KafkaError as error:
            raise UsageError(f"Kafka did not take a record back after {count} were sent: {error!r}") from None
        finally:
            sent_back.remember()
    return count


def _can_return(letter: DeadLetter, settings: Settings) -> bool:
    return letter.topic in settings.source_topics and not letter.truncated and letter.first_offset is None


def _send_back(sender: KafkaProducer, letter: DeadLetter, message: KafkaMessage) -> None:
    # this client rejects headers without a value
    headers = [(name, value or b"") for name, value in message.headers if name not in OWN_HEADERS]
    if all(name != "ce_time" for name, _ in headers):
        headers.append(("ce_time", rfc3339(letter.log_time_us).encode()))
    sender.send(letter.topic, key=message.key, value=message.value or b"", headers=headers).get(TIMEOUT_MS / 1000)


class _SentBack:
    """How far the letters of each reason were sent back: the committed offsets of a consumer group for each."""

    def __init__(self, client: KafkaAdminClient, group: str, reasons: Iterable[str]) -> None:
        self._client = client
        self._groups = {reason: f"{group}-requeue-{reason}" for reason in reasons}
        stored = {reason: kafka_clients.patiently(self._stored, name) for reason, name in self._groups.items()}
        self._until = {
            reason: {tp: place.offset for tp, place in places.items() if place.offset >= 0}
            for reason, places in stored.items()
        }
        self._changed: set[str] = set()
        self._remembered_s = monotonic()

    def until(self, reason: str, tp: TopicPartition) -> int:
        """The offset below which everything with this reason was sent back."""
        until: int = self._until[reason].get(tp, 0)
        return until

    def note(self, reason: str, tp: TopicPartition, until: int) -> None:
        """Note that everything below ``until`` was sent back; stored in Kafka about once a second."""
        if until > self.until(reason, tp):
            self._until[reason][tp] = until
            self._changed.add(reason)
        if monotonic() - self._remembered_s > REMEMBER_EVERY_S:
            self.remember()

    def remember(self) -> None:
        """Store it in Kafka.

        Raises:
            KafkaError: Kafka does not take it.
        """
        while self._changed:
            kafka_clients.patiently(self._store, self._changed.pop())
        self._remembered_s = monotonic()

    def _stored(self, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
        places: dict[TopicPartition, OffsetAndMetadata] = self._client.list_group_offsets(group)[group]
        return places

    def _store(self, reason: str) -> None:
        places = {tp: OffsetAndMetadata(offset, "", -1) for tp, offset in self._until[reason].items()}
        for error in self._client.alter_group_offsets(self._groups[reason], places).values():
            if error is not NoError:
                raise error


def _reasons(reason: str | None) -> list[str]:
    known = [str(known) for known in Reason]
    if reason is not None and reason not in known:
        raise UsageError(f"no reason {reason!r}; there are: {', '.join(known)}")
    return known if reason is None else [reason]


@contextmanager
def _reader(settings: Settings) -> Iterator[KafkaConsumer]:
    """A consumer that has all partitions of the dead-letter topic.

    Raises:
        UsageError: No Kafka answers, there is no such topic, or Kafka fails inside the ``with`` block.
    """
    topic = settings.topic(TOPIC_DEADLETTER)
    consumer = kafka_clients.consumer(settings, auto_offset_reset="earliest")
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        if not partitions:
            raise kafka_clients.no_topic(settings, topic)
        consumer.assign(partitions)
        yield consumer
    except KafkaError as error:
        raise kafka_clients.refusal(settings, error) from None
    finally:
        consumer.close()


@contextmanager
def _sender(settings: Settings) -> Iterator[KafkaProducer]:
    producer = kafka_clients.producer(settings, max_request_size=settings.max_message_bytes + (1 << 20))
    try:
        yield producer
    finally:
        producer.close()


def _ends(reader: KafkaConsumer) -> dict[TopicPartition, int]:
    ends: dict[TopicPartition, int] = reader.end_offsets(list(reader.assignment()))
    return ends


def _messages(
    reader: KafkaConsumer, ends: dict[TopicPartition, int], settings: Settings
) -> Iterator[tuple[TopicPartition, KafkaMessage]]:
    """The messages from the reader's positions up to the ends."""
    progress_s = monotonic()
    while any(reader.position(tp) < end for tp, end in ends.items()):
        batches = reader.poll(timeout_ms=500)
        if batches:
            progress_s = monotonic()
        elif monotonic() - progress_s > TIMEOUT_MS / 1000:
            raise UsageError(f"Kafka at {settings.kafka} has stopped answering")
        for tp, batch in batches.items():
            for message in batch:
                if message.offset < ends[tp]:
                    yield tp, message


class KafkaMessage(msgspec.Struct):
    """The part of kafka-python's ConsumerRecord that is used here."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]
    offset: int = 0


def _parsed(message: KafkaMessage) -> DeadLetter | None:
    """The letter; ``None`` for a message that this package did not write."""
    headers = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers}
    # The record's headers come along, and may have any name and value.
    truncated = _number(headers.get(TRUNCATED))
    of_batch = headers.get(REASON) == Reason.UNREADABLE_BATCH
    try:
        topic, partition, offset, log_time_us = headers[ORIGIN].rsplit("/", 3)
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
            size_bytes=truncated if truncated is not None else len(message.value or b""),
            truncated=truncated is not None,
            first_offset=_number(headers.get(FIRST_OFFSET)) if of_batch else None,
            ce_sensor=headers.get("ce_sensor"),
        )
    except (KeyError, ValueError):
        return None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() else None
