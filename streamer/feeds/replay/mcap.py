"""MCAP files (mcap.dev): pictures and sound in Foxglove's schemas, telemetry and texts from any other messages.

    foxglove.CompressedImage    frames, where ``format`` is jpeg, png or webp
    foxglove.RawAudio           sound, where ``format`` is pcm-s16 (little-endian)
    any object with a ``text``  a transcript; ``start``, ``end`` and ``words`` as in a transcript's schema
    any other                   its numbers as telemetry channels, ``imu.acceleration.x`` for topic ``/imu``

Messages are JSON, or Protobuf where its library is installed: the file contains the schemas. Frames and sound have
their ``timestamp`` as event time; all else, and those whose timestamp is of another clock, have MCAP's log time.
A session has one track of frames and one of sound: the first channel of each, unless the user chooses others.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader, SeekingReader
from mcap.records import Channel, Message, Schema
from zstandard import ZstdError

from streamer.align import bodies
from streamer.errors import BadRecord, UsageError
from streamer.events import AUDIO, IMAGE, TEXT, Transcript
from streamer.feeds.producer import JSON, Outgoing
from streamer.feeds.replay.part import (
    NO_SESSION,
    S_US,
    SLICE_US,
    Options,
    Part,
    Reorder,
    check_sound,
    frame,
    raw_sound,
    telemetry,
)

MAGIC = b"\x89MCAP0\r\n"
ROWS = {"foxglove.CompressedImage": IMAGE, "foxglove.RawAudio": AUDIO}
NAMES = {IMAGE: "frames", AUDIO: "sound"}
PICTURES = {"jpeg": "image/jpeg", "jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
PCM = ("pcm-s16", "pcm-s16le")
SAME_CLOCK_US = 60 * S_US  # a timestamp further than this from the message's log time is of another clock
MAX_LIST = 64  # longer lists of numbers are scans and maps, not channels
TIMES = ({"sec", "nsec"}, {"sec", "nanosec"}, {"seconds", "nanos"}, {"secs", "nsecs"})
LONE = ("value", "data")  # a message with only this number becomes a channel named after its topic
# what mcap raises on a broken file
BROKEN = (McapError, ZstdError, struct.error, EOFError, ValueError, KeyError, RuntimeError)


class Stamp(msgspec.Struct):
    """A time as Foxglove's JSON has it."""

    sec: int = 0
    nsec: int = 0


class Picture(msgspec.Struct):
    """``foxglove.CompressedImage``; in JSON the data are base64."""

    data: bytes
    format: str
    timestamp: Stamp | None = None


class Pcm(msgspec.Struct):
    """``foxglove.RawAudio``; the timestamp is that of its first sample."""

    data: bytes
    format: str
    sample_rate: int
    number_of_channels: int = 1
    timestamp: Stamp | None = None


class Opened(NamedTuple):
    """What a first pass over a file finds.

    Attributes:
        skipped: Channels that are not sent.
        ordered: Whether messages can be read in order of log time without holding all of them in memory.
    """

    start_us: int
    end_us: int
    channels: Mapping[int, Channel]
    schemas: Mapping[int, Schema]
    skipped: set[int]
    ordered: bool


def part(path: Path, options: Options) -> Part:
    """Open an MCAP file.

    Raises:
        UsageError: It is broken, has no such channel, or nothing that can be sent.
    """
    notes: list[str] = []
    opened = _look_through(path, notes)
    opened.skipped.update(_unreadable(path, opened, notes))
    opened.skipped.update(_not_chosen(path, opened, options.streams, notes))
    if len(opened.skipped) == len(opened.channels):
        there = ", ".join(f"{c.id} {c.topic} ({c.message_encoding})" for c in opened.channels.values())
        raise UsageError(f"{path} has no channel that can be sent; it has: {there or 'none'}")
    sent = {_row(opened, channel) for id_, channel in opened.channels.items() if id_ not in opened.skipped}
    made = Part(
        path,
        opened.end_us - opened.start_us,
        lambda _: _Reading(made, opened).records(),
        sends=frozenset(row for row in sent if row is not None),
        clock_us=opened.start_us,
        tracks=len(opened.channels),
        topics=frozenset(channel.topic for channel in opened.channels.values()),
        notes=notes,
    )
    made.utc_us = opened.start_us if opened.start_us > S_US * 10**9 else None  # else a clock that counts from boot
    return made


# the first pass


@contextmanager
def _file(path: Path) -> Iterator[Any]:
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise UsageError(f"{path} is no MCAP file: it does not begin like one")
            file.seek(0)
            yield file
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _look_through(path: Path, notes: list[str]) -> Opened:
    with _file(path) as file:
        try:
            summary = SeekingReader(file).get_summary()
        except BROKEN:
            summary = None  # a recorder that lost power wrote none
        if summary is not None and summary.statistics is not None and summary.chunk_indexes and summary.channels:
            times_us = (summary.statistics.message_start_time // 1000, summary.statistics.message_end_time // 1000)
            return Opened(*times_us, summary.channels, summary.schemas, set(), ordered=True)
    first_us = last_us = None
    channels: dict[int, Channel] = {}
    schemas: dict[int, Schema] = {}
    for schema, channel, message in _messages(path, ordered=False, notes=notes):
        time_us = message.log_time // 1000
        first_us = time_us if first_us is None else min(first_us, time_us)
        last_us = time_us if last_us is None else max(last_us, time_us)
        channels[channel.id] = channel
        if schema is not None:
            schemas[schema.id] = schema
    if first_us is None or last_us is None:
        raise UsageError(f"{path} has no messages")
    return Opened(first_us, last_us, channels, schemas, set(), ordered=False)


def _messages(path: Path, ordered: bool, notes: list[str]) -> Iterator[tuple[Schema | None, Channel, Message]]:
    """All messages; a file that is cut off ends early."""
    with _file(path) as file:
        reader = SeekingReader(file) if ordered else NonSeekingReader(file)
        try:
            yield from reader.iter_messages(log_time_order=ordered)
        except BROKEN as error:
            note = f"{path} could not be read to its end: {str(error) or type(error).__name__}"
            if note not in notes:
                notes.append(note)


def _unreadable(path: Path, opened: Opened, notes: list[str]) -> Iterator[int]:
    encodings = {"json", "protobuf"} if _has_protobuf() else {"json"}
    for channel in opened.channels.values():
        if channel.message_encoding not in encodings:
            yield channel.id
            remedy = "; pip install protobuf" if channel.message_encoding == "protobuf" else ""
            notes.append(f"{path}: {channel.topic} is left out, its messages are {channel.message_encoding}{remedy}")


def _has_protobuf() -> bool:
    try:
        import google.protobuf  # noqa: F401
    except ImportError:
        return False
    return True


def _not_chosen(path: Path, opened: Opened, wanted: Sequence[int], notes: list[str]) -> Iterator[int]:
    for number in wanted:
        if number not in opened.channels or _row(opened, opened.channels[number]) is None:
            there = ", ".join(f"{c.id} {c.topic}" for c in opened.channels.values() if _row(opened, c) is not None)
            raise UsageError(f"{path}: channel {number} has no frames or sound; these have: {there or 'none'}")
    for row, name in NAMES.items():
        there_ids = sorted(
            id_ for id_, c in opened.channels.items() if _row(opened, c) == row and id_ not in opened.skipped
        )
        chosen = [id_ for id_ in there_ids if id_ in wanted] or there_ids[:1]
        if len(chosen) > 1:
            raise UsageError(f"{path}: channels {chosen[0]} and {chosen[1]} are both {name}; choose one")
        for id_ in there_ids:
            if id_ not in chosen:
                yield id_
                topic = opened.channels[id_].topic
                notes.append(f"{path}: {topic} is left out, a session has one track of {name}; --stream {id_} sends it")


def _row(opened: Opened, channel: Channel) -> int | None:
    schema = opened.schemas.get(channel.schema_id)
    return None if schema is None else ROWS.get(schema.name)


# reading it


class _Slice:
    """Numbers of a channel within one slice of time."""

    def __init__(self, begin_us: int) -> None:
        self.begin_us = begin_us
        self.rows: dict[int, dict[str, float]] = {}  # time -> name -> value

    def blocks(self) -> list[Outgoing]:
        names = list(dict.fromkeys(name for row in self.rows.values() for name in row))
        values_NC = np.array([[row.get(name, np.nan) for name in names] for row in self.rows.values()], np.float64)
        return telemetry(list(self.rows), values_NC.reshape(len(self.rows), len(names)), names, [""] * len(names))


class _Reading:
    """One pass over a file."""

    def __init__(self, made: Part, opened: Opened) -> None:
        self._made, self._opened = made, opened
        self._waiting = Reorder()
        self._slices: dict[int, _Slice] = {}
        self._left_out: Counter[str] = Counter()
        self._protobuf: dict[int, Callable[[bytes], Any]] = {}

    def records(self) -> Iterator[Outgoing]:
        now_us = 0
        for schema, channel, message in _messages(self._made.path, self._opened.ordered, self._made.notes):
            if channel.id in self._opened.skipped:
                continue
            # an unordered file is sent in its own order
            now_us = max(now_us, message.log_time // 1000 - self._opened.start_us)
            self._close_slices(now_us)
            yield from self._waiting.until(now_us)
            try:
                self._take(schema, channel, message, now_us)
            except (msgspec.DecodeError, BadRecord, ValueError) as error:
                self._left_out[f"{channel.topic} are broken ({str(error)[:100]})"] += 1
        self._close_slices(None)
        yield from self._waiting.rest()
        for what, count in self._left_out.items():
            self._made.notes.append(f"{self._made.path}: {count} messages were left out: those of {what}")
        self._left_out.clear()

    def _take(self, schema: Schema | None, channel: Channel, message: Message, now_us: int) -> None:
        row = None if schema is None else ROWS.get(schema.name)
        if row == IMAGE:
            self._picture(channel, self._decoded(schema, channel, message, Picture), now_us)
        elif row == AUDIO:
            self._sound(channel, self._decoded(schema, channel, message, Pcm), now_us)
        else:
            body = self._decoded(schema, channel, message, dict[str, Any])
            if isinstance(body.get("text"), str):
                self._text(channel, body, now_us)
            else:
                self._numbers(channel, body, message.log_time // 1000 - self._opened.start_us, now_us)

    def _picture(self, channel: Channel, picture: Picture, now_us: int) -> None:
        kind = PICTURES.get(picture.format.lower())
        if kind is None or not picture.data:
            self._left_out[f"{channel.topic} are {picture.format or 'empty'} pictures"] += 1
            return
        record = frame(picture.data, self._own_time_us(picture.timestamp, now_us), kind)
        self._waiting.push(msgspec.structs.replace(record, due_us=now_us))

    def _sound(self, channel: Channel, pcm: Pcm, now_us: int) -> None:
        if pcm.format.lower() not in PCM or len(pcm.data) < 2 * max(1, pcm.number_of_channels):
            self._left_out[f"{channel.topic} are {pcm.format or 'empty'} sound, pcm-s16 is wanted"] += 1
            return
        check_sound(f"{self._made.path}: {channel.topic}", pcm.sample_rate, pcm.number_of_channels)
        begin_us = self._own_time_us(pcm.timestamp, now_us)
        record = raw_sound(pcm.data, begin_us, pcm.sample_rate, pcm.number_of_channels)
        self._waiting.push(msgspec.structs.replace(record, due_us=max(record.due_us, now_us)))

    def _text(self, channel: Channel, body: dict[str, Any], now_us: int) -> None:
        try:
            said = msgspec.convert(body, Transcript, strict=False)
        except msgspec.ValidationError:  # other fields with the same names
            said = Transcript(body["text"])
        if not said.text.strip():
            return
        payload = msgspec.json.encode(said)
        span = bodies.transcript(payload)[1]
        due_us = max(now_us, now_us + span.start_us + span.length_us)
        self._waiting.push(Outgoing(TEXT, NO_SESSION, now_us, payload, JSON, due_us))

    def _numbers(self, channel: Channel, body: dict[str, Any], time_us: int, now_us: int) -> None:
        found = dict(numbers(body))
        if len(found) == 1 and next(iter(found)) in LONE:
            found = {"": next(iter(found.values()))}
        topic = channel.topic.strip("/").replace("/", ".")
        named = {".".join(filter(None, (topic, name))) or "value": value for name, value in found.items()}
        if named:
            held = self._slices.setdefault(channel.id, _Slice(now_us))
            held.rows.setdefault(max(time_us, next(reversed(held.rows), time_us)), {}).update(named)

    def _own_time_us(self, stamp: Stamp | None, now_us: int) -> int:
        if stamp is None:
            return now_us
        own_us = stamp.sec * S_US + stamp.nsec // 1000 - self._opened.start_us
        return max(0, own_us) if abs(own_us - now_us) <= SAME_CLOCK_US else now_us

    def _close_slices(self, now_us: int | None) -> None:
        for id_, held in list(self._slices.items()):
            if now_us is None or now_us >= held.begin_us + SLICE_US:
                del self._slices[id_]
                for block in held.blocks():
                    self._waiting.push(block)

    # encodings

    def _decoded(self, schema: Schema | None, channel: Channel, message: Message, kind: type[Any]) -> Any:
        if channel.message_encoding == "json":
            return msgspec.json.decode(message.data, type=kind)
        if schema is None:
            raise msgspec.ValidationError("no schema")
        if channel.id not in self._protobuf:
            self._protobuf[channel.id] = _protobuf_decoder(schema)
        tree = self._protobuf[channel.id](message.data)
        if "timestamp" in tree and kind is not dict[str, Any]:
            stamp = tree["timestamp"] or {}
            tree["timestamp"] = {"sec": stamp.get("seconds", 0), "nsec": stamp.get("nanos", 0)} if stamp else None
        return msgspec.convert(tree, kind)


def numbers(body: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """The numbers in a message, each with the path to it; times and long lists are left out."""
    for name, value in body.items():
        path = f"{prefix}{name}"
        if isinstance(value, bool | int | float):
            yield path, float(value)
        elif isinstance(value, Mapping):
            if set(value) not in TIMES:
                yield from numbers(value, f"{path}.")
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes) and len(value) <= MAX_LIST:
            yield from numbers({str(place): one for place, one in enumerate(value)}, f"{path}.")


def _protobuf_decoder(schema: Schema) -> Callable[[bytes], dict[str, Any]]:
    """A decoder from a message of this schema, a ``FileDescriptorSet``, to a tree of dictionaries."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.message import DecodeError

    try:
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(schema.data).file:
            pool.Add(file)
        message_class = message_factory.GetMessageClass(pool.FindMessageTypeByName(schema.name))
    except (DecodeError, KeyError, TypeError) as error:
        raise ValueError(f"schema {schema.name}: {error}") from None

    def decode(data: bytes) -> dict[str, Any]:
        try:
            return _tree(message_class.FromString(data))
        except DecodeError as error:
            raise ValueError(str(error)) from None

    return decode


def _tree(message: Any) -> dict[str, Any]:
    """A Protobuf message with all its fields, also those that are zero and therefore not on the wire."""
    tree: dict[str, Any] = {}
    for field in message.DESCRIPTOR.fields:
        value = getattr(message, field.name)
        nested = field.message_type is not None
        if field.is_repeated:
            if not nested:
                tree[field.name] = list(value)
            elif not field.message_type.GetOptions().map_entry:
                tree[field.name] = [_tree(one) for one in value]
        elif not nested:
            tree[field.name] = value
        elif message.HasField(field.name):
            tree[field.name] = _tree(value)
    return tree
