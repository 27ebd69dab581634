"""Record batches of a fetch's answer, read so that no batch can stop a partition.

The clients unpack a batch without a limit, and raise an error again and again at one that they cannot read. Here each
batch is unpacked within a limit (``codecs``), and what cannot be read becomes one record that stands for it, see
:func:`unreadable`: role align makes a dead letter of it, and reading goes on behind it. That is decided by the bytes of
the log and the limit alone, so every reader of a log sees the same records.

Both clients, aiokafka and kafka-python, iterate :class:`Batches` in place of their own class. Their own parser reads
the records, from a batch that is already unpacked. It rejects a record whose header has a name that is not UTF-8, which
Kafka takes: such records are parsed here.

A batch whose checksum is wrong may have been damaged on its way, and is fetched again first.

Formats: https://kafka.apache.org/documentation/#recordbatch; that of Kafka before 0.11 is not read, since it has no
headers and so no events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import Struct
from typing import Any, NamedTuple

from crc32c import crc32c

from streamer.clients import codecs
from streamer.settings import Settings

# Of the record that stands for offsets that cannot be read; its value is the batch as it is in the log.
FAULT, FIRST_OFFSET, LAST_OFFSET = "unreadable_batch", "unreadable_first_offset", "unreadable_last_offset"

# What a batch may unpack to, as a multiple of the largest message. Media hardly shrink, so 1 would do for them. JSON
# shrinks to a tenth or less; but most producers fill batches by their uncompressed size, of 16 KB to 1 MB, and Java's
# by what it expects after compression. By the default, 8 MiB, a batch of that size that shrank to an eighth is read,
# and one of 1 MB that shrank to 1/64. It is also what a worker must have room for besides its limits.
EXPANSION = 8

# Base offset, length of what follows it, leader epoch, magic, CRC32C of what follows it, attributes, last offset delta,
# first and newest timestamp (ms), producer's id, epoch and sequence, number of records.
HEADER = Struct(">qiibIhiqqqhii")
HEAD = Struct(">qiibIhi")  # as far as the last offset
FRAME = Struct(">qi")  # as far as the length
LENGTH_ENDS_AT, MAGIC_AT, CHECKSUM_ENDS_AT = FRAME.size, 16, 21
LEAST_LENGTH = HEADER.size - LENGTH_ENDS_AT
MAGIC = 2
CODEC, TRANSACTIONAL, CONTROL = 0x07, 0x10, 0x20  # bits of the attributes
OLD_HEADER = Struct(">qiIbbq")  # offset, length, CRC-32, magic, attributes, timestamp (ms; from magic 1 on)
LEAST_OLD_LENGTH = OLD_HEADER.size - LENGTH_ENDS_AT
CHECKSUM_TRIES = 3
NO_TIMESTAMP = 0  # so the record counts as being of the time of the one before it, see align.merged
LOG_APPEND_TIME = 1

Place = tuple[str, int]  # topic, partition


class RawRecord(NamedTuple):
    """A record with the attributes that both clients ask for."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    size_in_bytes: int
    timestamp_type: int = LOG_APPEND_TIME
    checksum: None = None


def limit_bytes(settings: Settings) -> int:
    """The most that a batch may unpack to."""
    return EXPANSION * settings.max_message_bytes


def unreadable(headers: Sequence[tuple[str, bytes | None]]) -> str | None:
    """What is wrong with the batch that a record stands for; ``None`` for every other record."""
    for name, value in headers:
        if name == FAULT:
            return (value or b"").decode("utf-8", "replace")
    return None


class Budget:
    """What the batches of one answer may unpack to, all together.

    A batch that begins within it is read to its end. The client drops what remains of the answer, and fetches it again.
    """

    __slots__ = ("left_bytes",)

    def __init__(self, limit_bytes: int) -> None:
        self.left_bytes = limit_bytes


class Reading:
    """How a consumer reads batches.

    Args:
        limit_bytes: Most that a batch may unpack to.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._wrong: dict[Place, tuple[int, int]] = {}  # base offset of a batch with a wrong checksum, times seen

    def budget(self) -> Budget:
        """For a new answer."""
        return Budget(self.limit_bytes)

    def believes(self, place: Place, base_offset: int) -> bool:
        """Whether a wrong checksum has been seen often enough to be the log's, not that of a copy."""
        seen_offset, times = self._wrong.get(place, (base_offset, 0))
        times = times + 1 if seen_offset == base_offset else 1
        self._wrong[place] = base_offset, times
        return times >= CHECKSUM_TRIES


class Batches:
    """The batches of one partition in an answer, in place of a client's ``MemoryRecords``.

    Args:
        records: As they came; the last batch may be cut off.
        place: Where they are from.
        from_offset: Of the first record that is wanted.
        new_batch: The client's class of a batch in the present format.
    """

    def __init__(
        self,
        records: bytes,
        place: Place,
        from_offset: int,
        new_batch: Callable[[Any], Any],
        reading: Reading,
        budget: Budget,
    ) -> None:
        self._view = memoryview(records)
        self._place = place
        self._from_offset = from_offset
        self.new_batch = new_batch
        self._reading = reading
        self._budget = budget
        self._at = 0
        self._next: Any = self._look()

    def has_next(self) -> bool:
        """Whether there is a batch that may be read now."""
        return self._next is not None and self._budget.left_bytes > 0

    def next_batch(self) -> Any:
        """The next batch; ``None`` if there is none that may be read now."""
        if not self.has_next():
            return None
        batch, self._next = self._next, self._look()
        return batch

    def _look(self) -> Any:
        """The batch after the last one looked at; ``None`` if it is not here whole, or is to be fetched again."""
        view, at = self._view, self._at
        if at + HEADER.size > len(view):
            return self._odd() if at + LENGTH_ENDS_AT <= len(view) else None
        base_offset, length, _, magic, checksum, attributes, last_delta = HEAD.unpack_from(view, at)
        if magic != MAGIC or length < LEAST_LENGTH:
            return self._odd()
        end = at + LENGTH_ENDS_AT + length
        if end > len(view):
            return None
        if crc32c(view[at + CHECKSUM_ENDS_AT : end]) != checksum:
            return self._broken(base_offset, "its checksum is wrong", end)
        self._at = end
        raw = view[at:end]
        if attributes & CONTROL:
            return self.new_batch(raw)
        return Batch(raw, base_offset, base_offset + last_delta + 1, attributes, self)

    def _odd(self) -> Any:
        """As :meth:`_look`, where it is none of the present format."""
        base_offset, length = FRAME.unpack_from(self._view, self._at)
        end = self._at + LENGTH_ENDS_AT + length
        if end > len(self._view):
            return None
        if length < LEAST_OLD_LENGTH:
            return self._broken(base_offset, f"a length of {length} bytes", len(self._view))
        magic = self._view[self._at + MAGIC_AT]
        if magic < MAGIC:
            return self._old(end)
        return self._broken(base_offset, f"a length of {length} bytes in Kafka's format {magic}", end)

    def _broken(self, base_offset: int, fault: str, end: int) -> Any:
        """A batch whose header cannot be believed, except for its first offset; ``None`` to fetch it again first."""
        if not self._reading.believes(self._place, base_offset):
            return None
        raw = self._view[self._at : end]
        # Only the next batch shows how far this one reaches; without one, an offset at a time is passed.
        last_offset = max(base_offset, self._from_offset)
        if end + LENGTH_ENDS_AT <= len(self._view):
            last_offset = max(last_offset, FRAME.unpack_from(self._view, end)[0] - 1)
        self._at = end
        return SetAside(raw, base_offset, last_offset, NO_TIMESTAMP, fault)

    def _old(self, end: int) -> SetAside:
        offset, _, _, magic, _, timestamp = OLD_HEADER.unpack_from(self._view, self._at)
        raw = self._view[self._at : end]
        self._at = end
        fault = f"messages in Kafka's format {magic}, from before version 0.11, have no headers"
        return SetAside(raw, offset, offset, timestamp if magic else NO_TIMESTAMP, fault)

    def unpack(self, codec: int, packed: memoryview) -> bytes:
        """What a batch was compressed from.

        Raises:
            ValueError: With one line: it cannot be unpacked, or not within the limit.
        """
        unpacked = codecs.unpack(codec, packed, self._reading.limit_bytes)
        self._budget.left_bytes -= len(unpacked)
        return unpacked


class Header(NamedTuple):
    """The header of a batch."""

    base_offset: int
    length: int
    leader_epoch: int
    magic: int
    checksum: int
    attributes: int
    last_offset_delta: int
    first_timestamp: int
    max_timestamp: int
    producer_id: int
    producer_epoch: int
    base_sequence: int
    records: int


class SetAside:
    """A batch that cannot be read at all, as one record. Attributes: see :class:`Batch`."""

    magic = MAGIC
    leader_epoch = -1
    producer_id = -1
    is_transactional = is_control_batch = False

    def __init__(self, raw: memoryview, first_offset: int, last_offset: int, timestamp: int, fault: str) -> None:
        self.base_offset = first_offset
        self.last_offset = last_offset
        self.next_offset = last_offset + 1
        self._record = _stand_in(raw, first_offset, last_offset, timestamp, fault)

    def has_producer_id(self) -> bool:
        """Whether an idempotent producer wrote it."""
        return False

    def __iter__(self) -> Iterator[Any]:
        yield self._record


class Batch:
    """A batch with a right checksum; iterating it unpacks it.

    Attributes: as the clients' own classes have them, as far as the clients ask for them.
    """

    __slots__ = ("_attributes", "_batches", "_raw", "base_offset", "next_offset")

    magic = MAGIC
    is_control_batch = False

    def __init__(self, raw: memoryview, base_offset: int, next_offset: int, attributes: int, batches: Batches) -> None:
        self.base_offset = base_offset
        self.next_offset = next_offset
        self._raw = raw
        self._attributes = attributes
        self._batches = batches

    @property
    def _header(self) -> Header:
        return Header(*HEADER.unpack_from(self._raw))

    @property
    def last_offset(self) -> int:
        return self.next_offset - 1

    @property
    def leader_epoch(self) -> int:
        return self._header.leader_epoch

    @property
    def producer_id(self) -> int:
        return self._header.producer_id

    @property
    def is_transactional(self) -> bool:
        return bool(self._attributes & TRANSACTIONAL)

    def has_producer_id(self) -> bool:
        """Whether an idempotent producer wrote it."""
        return self.producer_id >= 0

    def __iter__(self) -> Iterator[Any]:
        """The records; one that stands for what cannot be read comes last."""
        following = self.base_offset
        try:
            whole = self._whole()
        except ValueError as error:
            yield self._stand_in(following, str(error))
            return
        try:
            for record in self._batches.new_batch(whole):
                if not following <= record.offset < self.next_offset:
                    raise ValueError("as _in_order says, which costs more")
                following = record.offset + 1
                yield record
        except Exception:  # noqa: BLE001 - whatever its parser raises, ours decides what can be read
            try:
                for record in self._in_order(_records(self._header, whole)):
                    if record.offset >= following:
                        following = record.offset + 1
                        yield record
            except ValueError as error:
                if following < self.next_offset:  # else each of its offsets has been read, whatever comes behind
                    yield self._stand_in(following, str(error))

    def _in_order(self, records: Iterable[Any]) -> Iterator[Any]:
        """The records, as long as their offsets ascend within the batch: others are passed over or taken for old ones.

        Raises:
            ValueError: With one line: an offset is not where it can be.
        """
        least, end = self.base_offset, self.next_offset
        for record in records:
            if not least <= record.offset < end:
                raise ValueError(f"a record has the offset {record.offset}, where {least} to {end - 1} can be")
            least = record.offset + 1
            yield record

    def _whole(self) -> bytes | memoryview:
        """The batch without compression.

        Raises:
            ValueError: With one line: it cannot be unpacked, or not within the limit.
        """
        codec = self._attributes & CODEC
        if codec == codecs.NONE:
            return self._raw
        unpacked = self._batches.unpack(codec, self._raw[HEADER.size :])
        length = LEAST_LENGTH + len(unpacked)
        return HEADER.pack(*self._header._replace(attributes=self._attributes & ~CODEC, length=length)) + unpacked

    def _stand_in(self, first_offset: int, fault: str) -> RawRecord:
        return _stand_in(self._raw, first_offset, self.last_offset, self._header.max_timestamp, fault)


def _stand_in(raw: memoryview, first_offset: int, last_offset: int, timestamp: int, fault: str) -> RawRecord:
    headers = (
        (FAULT, fault.encode("utf-8", "replace")),
        (FIRST_OFFSET, str(first_offset).encode()),
        (LAST_OFFSET, str(last_offset).encode()),
    )
    return RawRecord(last_offset, timestamp, None, bytes(raw), headers, len(raw))


# records, where a client's own parser fails


def _records(header: Header, batch: bytes | memoryview) -> Iterator[RawRecord]:
    """The records of a batch that is not compressed; names of headers that are not UTF-8 are replaced in part.

    Raises:
        ValueError: With one line: what follows is no record.
    """
    fields = _Fields(batch, HEADER.size)
    for number in range(header.records):
        size = fields.number()
        end = fields.at + size
        if size < 0 or end > len(batch):
            raise ValueError(f"record {number} of {header.records} has a length of {size} bytes")
        fields.at += 1  # attributes, which have no meaning yet
        timestamp = header.first_timestamp + fields.number()
        timestamp_type = header.attributes >> 3 & 1
        offset = header.base_offset + fields.number()
        key, value = fields.text(), fields.text()
        headers = [((fields.text() or b"").decode("utf-8", "replace"), fields.text()) for _ in range(fields.number())]
        if fields.at != end:
            raise ValueError(
                f"record {number} of {header.records} ends {fields.at - end:+d} bytes from where it should"
            )
        yield RawRecord(
            offset,
            header.max_timestamp if timestamp_type == LOG_APPEND_TIME else timestamp,
            key,
            value,
            headers,
            size,
            timestamp_type,
        )
    if fields.at != len(batch):
        raise ValueError(f"{len(batch) - fields.at} bytes behind the last of {header.records} records")


class _Fields:
    """Fields of records: numbers are zigzag varints, texts have their length in front, -1 where there is none."""

    def __init__(self, batch: bytes | memoryview, at: int) -> None:
        self._batch = batch
        self.at = at

    def number(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            if self.at >= len(self._batch):
                break
            byte = self._batch[self.at]
            self.at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return (value >> 1) ^ -(value & 1)
        raise ValueError("a number within a record does not end")

    def text(self) -> bytes | None:
        size = self.number()
        if size < 0:
            return None
        if self.at + size > len(self._batch):
            raise ValueError(f"a field of {size} bytes ends after the batch")
        self.at += size
        return bytes(self._batch[self.at - size : self.at])
