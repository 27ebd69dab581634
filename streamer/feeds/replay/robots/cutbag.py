"""Bags of ROS 1 without an index, since their recorder was stopped: read from the start as far as they are whole.

Format: wiki.ros.org/Bags/Format/2.0. Records are a header and data; a chunk's data are records of connections and
messages, compressed.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from streamer.errors import one_line

MAGIC = b"#ROSBAG V2.0\n"
MESSAGE, CHUNK, CONNECTION = 2, 5, 7  # op codes of records


class CutBag:
    """A bag without an index; it has what our readers use of rosbags' ``Reader``.

    Attributes:
        why: What ended it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.connections: list[Any] = []
        self.start_time = self.end_time = 0
        self.why = ""

    def open(self) -> None:
        """Read it once, for its topics and times.

        Raises:
            OSError: It cannot be read.
        """
        counts: Counter[int] = Counter()
        times: list[int] = []  # first and last, ns
        found: dict[int, tuple[Any, bytes]] = {}
        for id_, time_ns, header, data in self._records():
            if time_ns is None:
                found.setdefault(id_, (header, data))
            else:
                counts[id_] += 1
                times = [min([time_ns, *times]), max([time_ns, *times])]
        self.connections = []
        for id_, (header, data) in sorted(found.items()):
            try:
                self.connections.append(_connection(id_, header, data, counts[id_]))
            except _broken() as error:
                self.why = one_line(error)
        if times:
            self.start_time, self.end_time = times[0], times[1] + 1

    def close(self) -> None:
        """Nothing stays open."""

    def messages(self, connections: Collection[Any], start: int) -> Iterator[tuple[Any, int, bytes]]:
        """Messages of some connections from a time on, ns, in the file's order."""
        wanted = {connection.id: connection for connection in connections}
        for id_, time_ns, _, data in self._records():
            if time_ns is not None and time_ns >= start and id_ in wanted:
                yield wanted[id_], time_ns, data

    def _records(self) -> Iterator[tuple[int, int | None, Any, bytes]]:
        """Connections and messages, up to where the file ends or is broken.

        Yields the connection's number, the time in ns (``None``: it is no message), header and data.
        """
        from rosbags.rosbag1.reader import decompressors

        with self._path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return
            try:
                for header, data in _read(file):
                    if header.get_uint8("op") == CHUNK:
                        unpack = decompressors[header.get_string("compression")]
                        for inside in _read(io.BytesIO(unpack(data))):
                            op = inside[0].get_uint8("op")
                            if op in (CONNECTION, MESSAGE):
                                time_ns = inside[0].get_time("time") if op == MESSAGE else None
                                yield inside[0].get_uint32("conn"), time_ns, *inside
            except _broken() as error:
                self.why = one_line(error)


def _broken() -> tuple[type[Exception], ...]:
    """What rosbags raises, and decompressors on half a chunk."""
    from rosbags.rosbag1 import ReaderError

    return ReaderError, KeyError, ValueError, EOFError, OSError, RuntimeError, AssertionError


def _read(file: BinaryIO) -> Iterator[tuple[Any, bytes]]:
    """Each record's header and data."""
    from rosbags.rosbag1.reader import Header, read_bytes, read_uint32

    while file.read(1):
        file.seek(-1, io.SEEK_CUR)
        yield Header.read(file), read_bytes(file, read_uint32(file))


def _connection(id_: int, header: Any, data: bytes, count: int) -> Any:
    from rosbags.interfaces import Connection, ConnectionExtRosbag1, MessageDefinition, MessageDefinitionFormat
    from rosbags.rosbag1.reader import Header, normalize
    from rosbags.typesys.msg import normalize_msgtype

    # the data are a header too, without its length
    facts = Header.read(io.BytesIO(len(data).to_bytes(4, "little") + data))
    definition = MessageDefinition(MessageDefinitionFormat.MSG, facts.get_string("message_definition"))
    topic, kind = normalize(header.get_string("topic")), normalize_msgtype(facts.get_string("type"))
    return Connection(id_, topic, kind, definition, "", count, ConnectionExtRosbag1(None, None), None)
