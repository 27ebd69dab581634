"""Bags of ROS 1 (``.bag``) and ROS 2 (a folder with ``metadata.yaml``, or a lone ``.db3``), through rosbags.

ROS 2 bags may be in SQLite or MCAP, in several files, compressed by file or by message. What becomes of a message is in
``messages``.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamer.errors import UsageError, extra, one_line
from streamer.feeds.replay.part import Options, Part
from streamer.feeds.replay.robots import messages, rostypes
from streamer.feeds.replay.robots.cutbag import CutBag
from streamer.feeds.replay.robots.topics import Message, Topic, canonical

ROS1 = ".bag"


def part(path: Path, options: Options) -> Part:
    """Open a bag.

    Raises:
        UsageError: rosbags is not installed; the bag is broken, has nothing that can be sent, or not what the options
            name.
    """
    with extra("ros", f"reading {path}"):
        import rosbags.rosbag1
        import rosbags.rosbag2  # noqa: F401 - to see that they are there
    notes: list[str] = []
    return messages.part(_Source(path, notes), options, notes)


def _is_ros1(path: Path) -> bool:
    return path.suffix.lower() == ROS1 and path.is_file()


def _broken() -> tuple[type[Exception], ...]:
    """What rosbags raises on a bag that is broken."""
    import apsw
    from backports import zstd
    from rosbags.rosbag1 import ReaderError as Error1
    from rosbags.rosbag2 import ReaderError as Error2

    of_libraries: tuple[type[Exception], ...] = (Error1, Error2, apsw.Error, zstd.ZstdError, struct.error)
    return (*of_libraries, OSError, EOFError, ValueError, KeyError, IndexError, TypeError, RuntimeError, AssertionError)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from rosbags.rosbag1 import Reader as Reader1
    from rosbags.rosbag2.reader import DirectoryReader
    from rosbags.rosbag2.storage_sqlite3 import Sqlite3Reader

    kind = Reader1 if _is_ros1(path) else DirectoryReader if path.is_dir() else Sqlite3Reader
    reader: Any = None
    try:
        reader = kind(path)
        reader.open()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from None
    except _broken() as error:
        reader = CutBag(path)
        if kind is Reader1:
            reader.open()
        if not reader.connections:
            raise UsageError(f"{path} cannot be opened: {one_line(error)}") from None
    try:
        yield reader
    finally:
        reader.close()


class _Source:
    """The messages of a bag."""

    def __init__(self, path: Path, notes: list[str]) -> None:
        self.path = path
        with _opened(path) as reader:
            self.indexed = not isinstance(reader, CutBag)
            if isinstance(reader, CutBag):
                notes.append(f"{path} has no index and was read as far as it is whole: {reader.why or 'to its end'}")
            facts = reader if _is_ros1(path) else reader.metadata
            groups: dict[tuple[str, str], list[Any]] = {}
            for connection in reader.connections:  # ROS 1 has a connection for each sender of a topic
                groups.setdefault((connection.topic, connection.msgtype), []).append(connection)
            if not any(connection.msgcount for connection in reader.connections):
                raise UsageError(f"{path} has no messages")
            self.start_us, self.end_us = facts.start_time // 1000, (facts.end_time - 1) // 1000
            distro = str(getattr(facts, "ros_distro", None) or "")
        self._numbers = {connection.id: group[0].id for group in groups.values() for connection in group}
        self.topics = {group[0].id: _topic(group, _is_ros1(path), distro) for group in groups.values()}
        log = path.with_name(f"{path.name}-wal")
        if log.is_file() and log.stat().st_size:
            notes.append(f"{path}: what is in {log.name} is left out; `sqlite3 {path.name} vacuum` brings it in")

    def messages(self, wanted: Collection[int], begin_us: int, notes: list[str]) -> Iterator[Message]:
        with _opened(self.path) as reader:
            connections = [one for one in reader.connections if self._numbers.get(one.id) in wanted]
            try:
                for connection, time_ns, message in reader.messages(connections, start=max(0, begin_us) * 1000):
                    yield Message(self._numbers[connection.id], time_ns // 1000, bytes(message))
            except _broken() as error:
                notes.append(f"{self.path} could not be read to its end: {one_line(error)}")


def _topic(connections: list[Any], ros1: bool, distro: str) -> Topic:
    from rosbags.interfaces import MessageDefinitionFormat

    first = connections[0]
    idl = first.msgdef.format == MessageDefinitionFormat.IDL
    try:
        decode, why = rostypes.decoder(first.msgtype, first.msgdef.data, idl, ros1, distro), ""
    except ValueError as error:
        decode, why = None, f"its messages cannot be read: {one_line(error)}"
    count = sum(connection.msgcount for connection in connections)
    return Topic(first.id, first.topic, canonical(first.msgtype), "ros1" if ros1 else "cdr", count, decode, why)
