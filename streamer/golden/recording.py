"""A recording: a stretch of the source topics in one file, every record as it is in the log.

The file is MCAP (https://mcap.dev/spec) with the profile ``streamer``, in chunks that are compressed with zstd. It has

* a metadata record ``streamer.recording`` at its beginning: the fields of :class:`About` but the last, each as JSON;
* a channel for each source topic, with its kind's name in the channel's metadata;
* a message for each record: MessagePack of ``{"partition", "offset", "key", "headers", "value"}``, which the schema
  ``streamer.Record`` describes. Key, value and the headers' values are raw bytes or nil. The message's publish time is
  the record's log time. Its log time is the same, but never steps back within a partition, as a broker's clock can, so
  that a partition's records stay in the order of their offsets. Its sequence is the low 32 bits of the offset;
* a metadata record ``streamer.end`` with ``end_us`` if the recording ended properly.

A file that was cut off anywhere is a recording up to its last whole chunk. Messages of different partitions need not be
in the order of their log times in the file; :func:`read` orders them, and keeps in memory only the chunks that overlap
in time.

A recording seldom has everything: what came before its *start* is missing, so the first windows of sessions that were
under way differ from the live ones; what came after its *end* is missing, so the last windows never close. ``About``
has both as log times.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import msgspec

from streamer.errors import UsageError
from streamer.events import KIND_NAMES, Record

try:
    import mcap.exceptions
    import mcap.records
    import mcap.stream_reader
    import mcap.writer
    from mcap.data_stream import ReadDataStream
    from mcap.opcode import Opcode
except ImportError:
    raise UsageError("recordings need the package mcap: pip install 'streamer-multimodal[feeds]'") from None

PROFILE = "streamer"
ABOUT, END = "streamer.recording", "streamer.end"
SCHEMA_NAME = "streamer.Record"
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": SCHEMA_NAME,
    "description": "A Kafka record. The encoding is MessagePack, whose type `bin` JSON Schema has no word for.",
    "type": "object",
    "required": ["partition", "offset", "key", "headers", "value"],
    "properties": {
        "partition": {"type": "integer", "minimum": 0},
        "offset": {"type": "integer", "minimum": 0},
        "key": {"description": "bin or nil"},
        "headers": {
            "type": "array",
            "items": {
                "type": "array",
                "prefixItems": [{"type": "string"}, {"description": "bin or nil"}],
                "minItems": 2,
                "maxItems": 2,
            },
        },
        "value": {"description": "bin or nil: the untouched payload"},
    },
}
CHUNK_BYTES = 1 << 20  # before compression; a reader holds this much of each partition that runs ahead
MAGIC = bytes((0x89, 0x4D, 0x43, 0x41, 0x50, 0x30, 0x0D, 0x0A))
FRAME = struct.Struct("<BQ")  # of every MCAP record: opcode, length of what follows
MAX_METADATA_BYTES = 64 << 20


class Recorded(msgspec.Struct, frozen=True):
    """A record of the source topics as Kafka keeps it.

    Attributes:
        row: Number of its kind.
        log_time_us: The broker's append time (Kafka keeps milliseconds).
        headers: Names need not be unique.
    """

    row: int
    partition: int
    offset: int
    log_time_us: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]

    def as_record(self) -> Record:
        """The record as the worker takes it."""
        return Record(
            row=self.row,
            partition=self.partition,
            offset=self.offset,
            log_time_us=self.log_time_us,
            key=self.key,
            value=self.value if self.value is not None else b"",
            headers=self.headers,  # type: ignore[arg-type]  # decode refuses a header without a value
        )


class About(msgspec.Struct, frozen=True):
    """The metadata of a recording.

    Attributes:
        kinds: Names, one for each source topic; in the file ``modalities``.
        topics: Full names of the source topics.
        partitions: Of each source topic.
        first_offsets: For each topic and partition, the offset at which the stretch begins.
        start_us: For each partition the log time from which on no record of it is missing on any topic; 0 if none is
            missing at all.
        sessions: Only records with these keys were recorded; empty for all.
        end_us: No record with an earlier log time is missing at the end; ``None`` if the file was cut off.
    """

    kinds: tuple[str, ...] = msgspec.field(name="modalities")
    topics: tuple[str, ...]
    partitions: int
    first_offsets: tuple[tuple[int, ...], ...]
    start_us: tuple[int, ...]
    sessions: tuple[str, ...] = ()
    end_us: int | None = None


class _Envelope(msgspec.Struct, frozen=True):
    partition: int
    offset: int
    key: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    value: bytes | None


class Writer:
    """Writes a recording; use it as a context manager.

    Whatever ends the ``with`` block, the file is complete up to the last record; it counts as cut off unless
    :meth:`end` was called.

    Args:
        force: Replace an existing file.

    Raises:
        UsageError: The file is there already, or cannot be made.
    """

    def __init__(self, path: Path, about: About, force: bool = False) -> None:
        try:
            self._file = path.open("wb" if force else "xb")
        except FileExistsError:
            raise UsageError(f"{path} is there already; --force replaces it") from None
        except OSError as error:
            raise UsageError(f"cannot write {path}: {error.strerror}") from None
        self._path = path
        self._newest_us: dict[tuple[int, int], int] = {}
        self._mcap: Any = mcap.writer.Writer(self._file, chunk_size=CHUNK_BYTES)
        self._mcap.start(profile=PROFILE, library="streamer")
        facts = msgspec.to_builtins(about)
        del facts["end_us"]
        self._mcap.add_metadata(ABOUT, {name: msgspec.json.encode(fact).decode() for name, fact in facts.items()})
        schema = self._mcap.register_schema(SCHEMA_NAME, "jsonschema", msgspec.json.encode(SCHEMA))
        self._channels = [
            self._mcap.register_channel(topic, "msgpack", schema, {"modality": kind})
            for topic, kind in zip(about.topics, about.kinds, strict=True)
        ]

    def write(self, record: Recorded) -> None:
        """Add a record; those of one topic and partition in the order of their offsets.

        Raises:
            UsageError: The disk is full, or worse.
        """
        place = record.row, record.partition
        order_us = self._newest_us[place] = max(record.log_time_us, self._newest_us.get(place, 0))
        envelope = _Envelope(record.partition, record.offset, record.key, record.headers, record.value)
        try:
            self._mcap.add_message(
                self._channels[record.row],
                log_time=order_us * 1000,
                data=msgspec.msgpack.encode(envelope),
                publish_time=record.log_time_us * 1000,
                sequence=record.offset & 0xFFFFFFFF,
            )
        except OSError as error:
            raise UsageError(f"cannot write {self._path}: {error.strerror}") from None

    def flush(self) -> None:
        """Finish the chunk: what was written so far survives whatever happens to this process."""
        self._mcap.flush()

    def end(self, end_us: int) -> None:
        """Say how far the recording reaches, see ``About.end_us``."""
        self.flush()  # a metadata record would go before the chunk in progress
        self._mcap.add_metadata(END, {"end_us": str(end_us)})

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._mcap.finish()
            self._file.close()
        except OSError as fault:
            if error is None:
                raise UsageError(f"cannot write {self._path}: {fault.strerror}") from None


def is_recording(path: Path) -> bool:
    """Whether the file is a recording of this package, rather than another MCAP file."""
    try:
        with path.open("rb") as file:
            header = next(_frames(file), None)
            return header is not None and header.opcode == Opcode.HEADER and _profile(file, header) == PROFILE
    except (OSError, UsageError):
        return False


def describe(path: Path) -> About:
    """The metadata of the recording.

    Raises:
        UsageError: There is no such file, it is no recording, or it has other kinds of payload than this program.
    """
    with _opened(path) as file:
        return _index(path, file).about


def span_us(path: Path) -> tuple[int, int] | None:
    """Log times of the first and the last record; ``None`` for a recording without records.

    Raises:
        UsageError: As :func:`describe`.
    """
    with _opened(path) as file:
        chunks = _index(path, file).chunks
    return (min(c.start_us for c in chunks), max(c.end_us for c in chunks)) if chunks else None


def read(path: Path) -> Iterator[Recorded]:
    """The records in merge order: by log time, then topic, then partition, then offset.

    Raises:
        UsageError: As :func:`describe`; or the file is damaged, once the damage is reached.
    """
    with _opened(path) as file:
        index = _index(path, file)
        rows = {topic: row for row, topic in enumerate(index.about.topics)}
        channels = _channels(path, file, index, rows)
        waiting: list[tuple[int, int, int, int, int, Recorded]] = []
        number = count()  # if the file has a record twice, the records themselves must not be compared
        for chunk in sorted(index.chunks, key=lambda chunk: chunk.start_us):
            while waiting and waiting[0][0] < chunk.start_us:
                yield heappop(waiting)[-1]
            for order_us, record in _records(path, file, chunk, channels):
                heappush(waiting, (order_us, record.row, record.partition, record.offset, next(number), record))
        while waiting:
            yield heappop(waiting)[-1]


# MCAP


class _Frame(msgspec.Struct, frozen=True):
    """An MCAP record in the file: ``length`` bytes from ``begin``."""

    opcode: int
    begin: int
    length: int


class _Chunk(msgspec.Struct, frozen=True):
    frame: _Frame
    start_us: int
    end_us: int


class _Index(msgspec.Struct, frozen=True):
    about: About
    chunks: list[_Chunk]


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _frames(file: BinaryIO) -> Iterator[_Frame]:
    """The whole records of the file. Summaries are not used: a file that was cut off has none."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        return
    place = len(MAGIC)
    while place + FRAME.size <= size:
        file.seek(place)
        opcode, length = FRAME.unpack(file.read(FRAME.size))
        place += FRAME.size + length
        if place > size:
            return
        yield _Frame(opcode, place - length, length)


def _content(file: BinaryIO, frame: _Frame, most: int | None = None) -> ReadDataStream:
    file.seek(frame.begin)
    return ReadDataStream(io.BytesIO(file.read(frame.length if most is None else min(most, frame.length))))


def _profile(file: BinaryIO, frame: _Frame) -> str:
    try:
        return str(mcap.records.Header.read(_content(file, frame, MAX_METADATA_BYTES)).profile)
    except (ValueError, struct.error, mcap.exceptions.McapError):
        return ""


def _index(path: Path, file: BinaryIO) -> _Index:
    """Chunks and metadata of the file; reads neither summaries nor messages."""
    facts: dict[str, Any] = {}
    chunks = []
    for number, frame in enumerate(_frames(file)):
        if number == 0 and (frame.opcode != Opcode.HEADER or _profile(file, frame) != PROFILE):
            break
        if frame.opcode == Opcode.DATA_END:
            break
        if frame.opcode == Opcode.CHUNK:
            begin = _content(file, frame, 16)
            start_us, end_us = begin.read8() // 1000, begin.read8() // 1000
            chunks.append(_Chunk(frame, start_us, end_us))
        elif frame.opcode == Opcode.METADATA:
            try:
                found = mcap.records.Metadata.read(_content(file, frame, MAX_METADATA_BYTES))
                if found.name in (ABOUT, END):
                    facts.update({name: msgspec.json.decode(value) for name, value in found.metadata.items()})
            except (ValueError, struct.error, mcap.exceptions.McapError) as error:
                raise UsageError(f"{path} is damaged: {error}") from None
    if not facts:
        raise UsageError(f"{path} is no recording of `streamer record`")
    try:
        about = msgspec.convert(facts, About)
    except msgspec.ValidationError as error:
        raise UsageError(f"{path} is a recording of another version: {error}") from None
    if about.kinds != KIND_NAMES[: len(about.kinds)]:
        known = ", ".join(KIND_NAMES)
        raise UsageError(f"{path} has payloads of the kinds {', '.join(about.kinds)}, known are {known}")
    return _Index(about, chunks)


def _unpacked(path: Path, file: BinaryIO, chunk: _Chunk) -> list[mcap.records.McapRecord]:
    try:
        content = mcap.records.Chunk.read(_content(file, chunk.frame))
        return mcap.stream_reader.breakup_chunk(content, validate_crc=True)
    except (KeyboardInterrupt, MemoryError):
        raise
    except Exception as error:  # noqa: BLE001 - zstd, struct, zlib and mcap each raise their own errors for bad bytes
        raise UsageError(f"{path} is damaged at byte {chunk.frame.begin}: {error}") from None


def _channels(path: Path, file: BinaryIO, index: _Index, rows: dict[str, int]) -> dict[int, int]:
    """Channel -> row. The writer registers all channels before the first message: they are in the first chunk."""
    if not index.chunks:
        return {}
    found = [r for r in _unpacked(path, file, index.chunks[0]) if isinstance(r, mcap.records.Channel)]
    return {channel.id: rows[channel.topic] for channel in found if channel.topic in rows}


def _records(path: Path, file: BinaryIO, chunk: _Chunk, channels: dict[int, int]) -> Iterator[tuple[int, Recorded]]:
    for message in _unpacked(path, file, chunk):
        if not isinstance(message, mcap.records.Message) or message.channel_id not in channels:
            continue  # another tool may have added channels
        try:
            envelope = msgspec.msgpack.decode(message.data, type=_Envelope)
        except msgspec.DecodeError as error:
            raise UsageError(f"{path} is damaged at byte {chunk.frame.begin}: {error}") from None
        yield (
            message.log_time // 1000,
            Recorded(
                row=channels[message.channel_id],
                partition=envelope.partition,
                offset=envelope.offset,
                log_time_us=message.publish_time // 1000,
                key=envelope.key,
                value=envelope.value,
                headers=envelope.headers,
            ),
        )
