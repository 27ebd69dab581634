"""Decoders of ROS messages, through rosbags: CDR (ROS 2) and the serialisation of ROS 1.

A type is defined by the recording, in MSG or IDL; one that is not (bags up to ROS 2 Humble in SQLite) by the standard
messages of its distribution, if it is among them.
"""

from __future__ import annotations

import keyword
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np

from streamer.errors import one_line

PLAIN = frozenset({bool, int, float, str, np.ndarray})  # types of values that are no messages
Decode = Callable[[bytes], dict[str, Any]]

# rosbags makes Python code of definitions: only names may come in
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*", re.ASCII)
EMPTY = "structure_needs_at_least_one_member"  # the field that stands in messages without any
IDL_BREAK = re.compile(r"^=+\n(?:IDL: .*\n)", re.MULTILINE)  # in front of each file of a definition made of several
ZSTD = b"\x28\xb5\x2f\xfd"  # how its frames begin (RFC 8878, section 3.1.1); CDR begins with 0
# where neither bag nor message says which: those whose standard messages differ, newest first
DISTROS = ("humble", "foxy", "jazzy")


def decoder(kind: str, definition: str, idl: bool, ros1: bool, distro: str = "") -> Decode:
    """A decoder from a message to a tree of dictionaries, with arrays as numpy's.

    Args:
        kind: The type's name, such as ``sensor_msgs/msg/Imu`` or ``sensor_msgs/Imu``.
        definition: What the recording says of it; empty: it is one of the standard messages.
        idl: The definition is IDL; else MSG.
        ros1: Messages are serialised as in ROS 1; else as CDR.
        distro: ROS 2 distribution that recorded it, if known, such as ``humble``.

    Raises:
        ValueError: The type is unknown, or its definition broken.
        ImportError: rosbags is not installed.
    """
    stores = [_defined(kind, definition, idl)] if definition.strip() else list(_standard(ros1, distro))
    name = _full_name(kind)
    there = [store for store in stores if name in store.types]
    if not there:
        raise ValueError(f"type {kind} is defined neither in the file nor by the standard messages of ROS")
    return _Decoder(there, name, ros1)


def _full_name(kind: str) -> str:
    from rosbags.typesys.msg import normalize_msgtype

    return str(normalize_msgtype(kind))


@cache
def _defined(kind: str, definition: str, idl: bool) -> Any:
    from rosbags.typesys import Stores, TypesysError, get_types_from_idl, get_types_from_msg, get_typestore

    if not NAME.fullmatch(kind):
        raise ValueError(f"{kind[:60]!r} is no name of a type")
    try:
        if idl:
            types: dict[str, Any] = {}
            for part in filter(str.strip, IDL_BREAK.split(definition)):
                types.update(get_types_from_idl(part))
        else:
            types = get_types_from_msg(definition, _full_name(kind))
        names = [*types, *(field[0] for constants, fields in types.values() for field in (*constants, *fields))]
        strange = next((name for name in names if not NAME.fullmatch(name)), None)
        if strange is not None:
            raise ValueError(f"type {kind}: {strange[:60]!r} is no name")
        store = get_typestore(Stores.EMPTY)
        store.register(types)
    except (TypesysError, SyntaxError, KeyError, RecursionError) as error:
        raise ValueError(f"definition of {kind}: {one_line(error)}") from None
    return store


def _standard(ros1: bool, distro: str) -> Iterator[Any]:
    from rosbags.typesys import Stores, get_typestore

    known = {store.value: store for store in Stores}
    for name in ["ros1_noetic"] if ros1 else [f"ros2_{name}" for name in dict.fromkeys([distro, *DISTROS])]:
        if name in known:
            yield get_typestore(known[name])


class _Decoder:
    """Decodes with the first of several type stores that can."""

    def __init__(self, stores: list[Any], name: str, ros1: bool) -> None:
        self._stores, self._name, self._ros1 = stores, name, ros1
        self._fields: dict[str, list[tuple[str, str]]] = {}  # type -> its fields' names, and their names in Python

    def __call__(self, message: bytes) -> dict[str, Any]:
        from backports import zstd
        from rosbags.serde import SerdeError

        why = ""
        if message.startswith(ZSTD):  # a file out of a bag that is compressed by message, without its folder
            try:
                message = zstd.decompress(message)
            except zstd.ZstdError as error:
                raise ValueError(str(error)) from None
        for store in self._stores:
            decode = store.deserialize_ros1 if self._ros1 else store.deserialize_cdr
            try:
                found = decode(message, self._name)
            # what its generated code raises on bytes that do not fit the type
            except (SerdeError, KeyError, IndexError, AssertionError, OverflowError, MemoryError) as error:
                why = why or one_line(error)
                continue
            self._stores = [store]
            return self._tree(found)
        raise ValueError(why)

    def _tree(self, message: Any) -> dict[str, Any]:
        kind = message.__msgtype__
        fields = self._fields.get(kind)
        if fields is None:
            # the type says which there are: rosbags' objects have its constants too, as if they were measured
            names = [name for name, _ in self._stores[0].fielddefs[kind][1] if name != EMPTY]
            fields = [(name, f"{name}_" if keyword.iskeyword(name) else name) for name in names]
            self._fields[kind] = fields
        tree = {}
        for name, attribute in fields:
            value = getattr(message, attribute)
            tree[name] = value if type(value) in PLAIN else self._nested(value)
        return tree

    def _nested(self, value: Any) -> Any:
        if isinstance(value, list):
            return [one if type(one) in PLAIN else self._nested(one) for one in value]
        return self._tree(value)
