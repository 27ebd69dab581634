"""Bags and logs of ROS messages made for tests, written by rosbags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rosbags import rosbag1, rosbag2
from rosbags.interfaces import Nodetype
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from tests.recordings import BASE_NS, stamp

STAMPED = "std_msgs/Header header\n"
# types that are not among the standard messages; definitions from the wire's point of view
AUDIO_DATA = "uint8[] data\n"
AUDIO_INFO = "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\nstring coding_format\n"
VIDEO = "builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n"
EXTRA = {
    "audio_common_msgs/msg/AudioData": AUDIO_DATA,
    "audio_common_msgs/msg/AudioInfo": AUDIO_INFO,
    "audio_common_msgs/msg/AudioDataStamped": f"{STAMPED}audio_common_msgs/AudioData audio\n",
    "foxglove_msgs/msg/CompressedVideo": VIDEO,
}

Sent = tuple[str, str, float, Mapping[str, Any]]  # topic, type, second, fields that are not 0


def store(ros1: bool = False) -> Any:
    """The standard messages, with those of ``EXTRA``."""
    made = get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)
    for kind, definition in EXTRA.items():
        made.register(get_types_from_msg(definition, kind))
    return made


def message(types: Any, kind: str, fields: Mapping[str, Any]) -> Any:
    """A message with these fields; all others are 0 or empty. A ``stamp`` is a second of the recording."""
    values = {}
    for name, (node, of) in types.fielddefs[kind][1]:
        given = fields.get(name)
        if node == Nodetype.NAME and of == "builtin_interfaces/msg/Time":
            moment = {"sec": 0, "nsec": 0} if given is None else stamp(given)
            values[name] = types.types[of](moment["sec"], moment["nsec"])
        elif node == Nodetype.NAME:
            values[name] = message(types, of, given or {})
        elif node == Nodetype.BASE:
            values[name] = given if given is not None else "" if of[0] == "string" else 0
        elif of[0][0] == Nodetype.NAME:
            values[name] = [message(types, of[0][1], one) for one in given or ()]
        elif of[0][1][0] == "string":
            values[name] = list(given or ())
        else:
            empty = np.zeros(of[1] if node == Nodetype.ARRAY else 0)
            values[name] = np.asarray(empty if given is None else given).astype(of[0][1][0].replace("byte", "uint8"))
    return types.types[kind](**values)


def bag1(path: Path, sent: Iterable[Sent], compression: Any = None) -> Path:
    """A bag of ROS 1."""
    types = store(ros1=True)
    writer = rosbag1.Writer(path)
    if compression is not None:
        writer.set_compression(compression)
    with writer:
        connections: dict[tuple[str, str], Any] = {}
        for topic, kind, second, fields in sent:
            if (topic, kind) not in connections:
                connections[topic, kind] = writer.add_connection(topic, kind, typestore=types)
            payload = types.serialize_ros1(message(types, kind, fields), kind)
            writer.write(connections[topic, kind], BASE_NS + round(second * 1e9), payload)
    return path


def bag2(
    path: Path,
    sent: Iterable[Sent],
    storage: rosbag2.StoragePlugin = rosbag2.StoragePlugin.SQLITE3,
    compression: rosbag2.CompressionMode = rosbag2.CompressionMode.NONE,
) -> Path:
    """A bag of ROS 2, a folder."""
    types = store()
    writer = rosbag2.Writer(path, version=9, storage_plugin=storage)
    writer.set_compression(compression, rosbag2.CompressionFormat.ZSTD)
    with writer:
        connections: dict[tuple[str, str], Any] = {}
        for topic, kind, second, fields in sent:
            if (topic, kind) not in connections:
                connections[topic, kind] = writer.add_connection(topic, kind, typestore=types)
            payload = types.serialize_cdr(message(types, kind, fields), kind)
            writer.write(connections[topic, kind], BASE_NS + round(second * 1e9), payload)
    return path
