"""MCAP files (mcap.dev/spec): messages in JSON, Protobuf, CDR (ROS 2) or ROS 1's serialisation.

The schemas are in the file. What becomes of a message is in ``messages``.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from mcap.exceptions import McapError
from mcap.reader import NonSeekingReader, SeekingReader
from mcap.records import Attachment, Channel, Metadata, Schema
from mcap.records import Message as McapMessage
from mcap.stream_reader import StreamReader
from zstandard import ZstdError

from streamer.errors import UsageError, one_line
from streamer.feeds.replay.part import Options, Part
from streamer.feeds.replay.robots import messages, protobuf, rostypes
from streamer.feeds.replay.robots.topics import Decode, Message, Topic, canonical

MAGIC = b"\x89MCAP0\r\n"
STORAGE = "rosbag2"  # metadata in which rosbag2 keeps what its metadata.yaml says: no recording
ROS_MSG, ROS_IDL = ("ros1msg", "ros2msg"), ("ros2idl", "omgidl")  # encodings of schemas
# what mcap raises on a broken file
BROKEN = (McapError, ZstdError, struct.error, EOFError, ValueError, KeyError, RuntimeError)


def part(path: Path, options: Options) -> Part:
    """Open an MCAP file.

    Raises:
        UsageError: It is broken, has nothing that can be sent, or not what the options name.
    """
    notes: list[str] = []
    return messages.part(_Source(path, _look_through(path, notes)), options, notes)


class _Contents(NamedTuple):
    """What a first pass over a file finds.

    Attributes:
        counts: Number of messages by channel.
        indexed: Messages can be read in order of log time without holding all of them in memory.
    """

    start_us: int
    end_us: int
    channels: Mapping[int, Channel]
    schemas: Mapping[int, Schema]
    counts: Mapping[int, int]
    indexed: bool


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


def _look_through(path: Path, notes: list[str]) -> _Contents:
    with _file(path) as file:
        try:
            summary = SeekingReader(file).get_summary()
        except BROKEN:
            summary = None  # a recorder that lost power wrote none
    facts = None if summary is None else summary.statistics
    if summary is None or facts is None or not summary.chunk_indexes or len(summary.channels) != facts.channel_count:
        return _scanned(path, notes)
    _note_extras(path, [a.name for a in summary.attachment_indexes], [m.name for m in summary.metadata_indexes], notes)
    times_us = (facts.message_start_time // 1000, facts.message_end_time // 1000)
    return _Contents(*times_us, summary.channels, summary.schemas, facts.channel_message_counts, indexed=True)


def _scanned(path: Path, notes: list[str]) -> _Contents:
    times_us: list[int] = []  # first and last
    channels: dict[int, Channel] = {}
    schemas: dict[int, Schema] = {}
    counts: Counter[int] = Counter()
    attachments, metadata = [], []
    with _file(path) as file:
        try:
            for record in StreamReader(file).records:
                if isinstance(record, McapMessage):
                    time_us = record.log_time // 1000
                    times_us = [min([time_us, *times_us]), max([time_us, *times_us])]
                    counts[record.channel_id] += 1
                elif isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Schema):
                    schemas[record.id] = record
                elif isinstance(record, Attachment):
                    attachments.append(record.name)
                elif isinstance(record, Metadata):
                    metadata.append(record.name)
        except BROKEN as error:
            _note_end(path, error, notes)
    if not times_us:
        raise UsageError(f"{path} has no messages" + "".join(f"; {note}" for note in notes))
    _note_extras(path, attachments, metadata, notes)
    counted = {number: counts[number] for number in channels}
    return _Contents(times_us[0], times_us[1], channels, schemas, counted, indexed=False)


def _note_end(path: Path, error: Exception, notes: list[str]) -> None:
    notes.append(f"{path} could not be read to its end: {one_line(error)}")


def _note_extras(path: Path, attachments: list[str], metadata: list[str], notes: list[str]) -> None:
    for kind, names in (("attachments", attachments), ("metadata", [name for name in metadata if name != STORAGE])):
        if names:
            notes.append(f"{path}: its {kind} are left out: {', '.join(dict.fromkeys(names))[:200]}")


class _Source:
    """The messages of an MCAP file."""

    def __init__(self, path: Path, contents: _Contents) -> None:
        self.path = path
        self.start_us, self.end_us, self.indexed = contents.start_us, contents.end_us, contents.indexed
        # channels of the same name, schema and encoding are one topic with several senders
        groups: dict[tuple[str, int, str], list[Channel]] = {}
        for channel in sorted(contents.channels.values(), key=lambda channel: channel.id):
            groups.setdefault((channel.topic, channel.schema_id, channel.message_encoding), []).append(channel)
        self._numbers = {channel.id: group[0].id for group in groups.values() for channel in group}
        self.topics = {
            group[0].id: _topic(
                group[0],
                contents.schemas.get(group[0].schema_id),
                sum(contents.counts.get(channel.id, 0) for channel in group),
            )
            for group in groups.values()
        }

    def messages(self, wanted: Collection[int], begin_us: int, notes: list[str]) -> Iterator[Message]:
        names = {self.topics[number].name for number in wanted}
        with _file(self.path) as file:
            reader = SeekingReader(file) if self.indexed else NonSeekingReader(file)
            try:
                for _, channel, message in reader.iter_messages(
                    names, log_time_order=self.indexed, starting_at=max(0, begin_us) * 1000
                ):
                    number = self._numbers.get(channel.id)
                    if number is not None and number in wanted:
                        yield Message(number, message.log_time // 1000, message.data)
            except BROKEN as error:
                _note_end(self.path, error, notes)


def _topic(channel: Channel, schema: Schema | None, count: int) -> Topic:
    kind, encoding = "" if schema is None else schema.name, channel.message_encoding
    try:
        decode, why = _decoder(encoding, schema), f"its messages are {encoding or 'of no known encoding'}"
    except ImportError as error:
        extra = "feeds" if encoding == "protobuf" else "ros"
        decode = None
        why = f"its messages are {encoding} and need {error.name}: pip install 'streamer-multimodal[{extra}]'"
    except ValueError as error:
        decode, why = None, f"its messages cannot be read: {one_line(error)}"
    return Topic(channel.id, channel.topic, canonical(kind), encoding, count, decode, why)


def _decoder(encoding: str, schema: Schema | None) -> Decode | None:
    if encoding == "json":
        return _json
    if schema is None:
        return None
    if encoding == "protobuf":
        return protobuf.decoder(schema.name, schema.data)
    if encoding in ("cdr", "ros1") and schema.encoding in (*ROS_MSG, *ROS_IDL, ""):
        definition = schema.data.decode("utf-8", "replace")
        return rostypes.decoder(schema.name, definition, idl=schema.encoding in ROS_IDL, ros1=encoding == "ros1")
    return None


def _json(message: bytes) -> dict[str, Any]:
    return msgspec.json.decode(message, type=dict[str, Any])
