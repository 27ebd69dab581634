"""GPMF, the telemetry that GoPro cameras write beside picture and sound, as published in github.com/gopro/gpmf-parser.

A payload is a sequence of key-length-value items: a key of four characters, a type (one character; NUL: the value is a
sequence of items itself), the size of one structure in bytes, the number of structures (16 bits), then the value,
padded to 32 bits; everything big-endian. A device (``DEVC``) has streams (``STRM``); a stream's last item holds the
measurements, those before it say how to read them: ``SCAL`` divisors, ``SIUN`` or ``UNIT`` units, ``TYPE`` the fields
of a structure of mixed types, ``ORIN`` axes. A payload covers an interval of the film; its samples are evenly spaced.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KEY = b"DEVC"  # what a payload begins with
HEADER = struct.Struct(">4scBH")
# type character -> numpy's; Q15.16 and Q31.32 fixed point numbers (q, Q) are integers with a scale
NUMBERS = {
    "b": "i1", "B": "u1", "s": ">i2", "S": ">u2", "l": ">i4", "L": ">u4", "j": ">i8", "J": ">u8",
    "f": ">f4", "d": ">f8", "q": ">i4", "Q": ">i8",
}  # fmt: skip
FIXED_POINT = {"q": 2.0**16, "Q": 2.0**32}
NO_FIX = 0  # GPSF: 0 no fix, 2 2D, 3 3D
# Names of fields that are documented, but not in the file
FIELDS = {
    "GPS5": ("lat", "lon", "alt", "speed_2d", "speed_3d"),
    "GPS9": ("lat", "lon", "alt", "speed_2d", "speed_3d", "days", "secs", "dop", "fix"),
}
GPS9_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class Item(NamedTuple):
    """A key with its value as bytes."""

    key: str
    kind: str  # type character
    size: int  # of one structure, bytes
    repeat: int  # of structures
    value: bytes


class Stream(NamedTuple):
    """What one sensor measured during a payload.

    Attributes:
        names: Of its channels [C], e.g. ``ACCL.x``.
        values_NC: In ``units``; samples are evenly spaced over the payload's time.
    """

    key: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    values_NC: NDArray[np.float64]


def items(payload: bytes) -> Iterator[Item]:
    """The items of a payload or of a nested value.

    Raises:
        ValueError: It is cut off or is not GPMF.
    """
    at = 0
    while at + HEADER.size <= len(payload):
        key, kind, size, count = HEADER.unpack_from(payload, at)
        if key == b"\0\0\0\0":  # padding up to the end
            return
        at += HEADER.size
        length = size * count
        if at + length > len(payload):
            raise ValueError(f"item {key!r} is cut off")
        yield Item(_text(key), kind.decode("latin-1"), size, count, payload[at : at + length])
        at += length + -length % 4


def streams(payload: bytes) -> list[Stream]:
    """What the sensors measured during a payload; items that are not sampled numbers are left out.

    Raises:
        ValueError: It is not GPMF.
    """
    found = []
    for described, measured in _described(payload):
        stream = _stream(described, measured)
        if stream is not None:
            found.append(stream)
    return found


def utc_us(payload: bytes) -> int | None:
    """When the payload began by GPS, in microseconds since the epoch; ``None`` without a fix.

    Raises:
        ValueError: It is not GPMF.
    """
    for described, measured in _described(payload):
        if measured[-1].key == "GPS5" and "GPSU" in described and _has_fix(described):
            moment = datetime.strptime(_text(described["GPSU"].value), "%y%m%d%H%M%S.%f")
            return round(moment.replace(tzinfo=UTC).timestamp() * 1e6)
        if measured[-1].key == "GPS9":
            stream = _stream(described, measured)
            if stream is not None and len(stream.values_NC):
                row = dict(zip(stream.names, stream.values_NC[0], strict=True))
                moment = GPS9_EPOCH + timedelta(days=row["GPS9.days"], seconds=row["GPS9.secs"])
                return round(moment.timestamp() * 1e6)
    return None


def _described(payload: bytes) -> Iterator[tuple[dict[str, Item], list[Item]]]:
    """For each stream: the items that describe it, by key, and those that hold measurements."""
    for device in items(payload):
        if device.key != "DEVC":
            continue
        for stream in items(device.value):
            if stream.key != "STRM":
                continue
            inside = list(items(stream.value))
            if inside:
                measured = [item for item in inside if item.key == inside[-1].key]
                yield {item.key: item for item in inside if item.key != inside[-1].key}, measured


def _has_fix(described: dict[str, Item]) -> bool:
    return "GPSF" not in described or int.from_bytes(described["GPSF"].value, "big") != NO_FIX


def _stream(described: dict[str, Item], measured: list[Item]) -> Stream | None:
    last = measured[-1]
    if any((item.kind, item.size) != (last.kind, last.size) for item in measured):
        return None
    if len(measured) > 1 and any(item.repeat != 1 for item in measured):
        return None  # a list per sample (faces, hues, scenes): it has no channels
    raw = b"".join(item.value for item in measured)
    values_NC = _numbers(last, raw, described)
    if values_NC is None or values_NC.size == 0:
        return None
    channels = values_NC.shape[1]
    scale = _scale(described, channels)
    if scale is None:
        return None
    values_NC = values_NC / scale
    if last.key == "GPS5" and not _has_fix(described):
        return None
    if last.key == "GPS9":
        values_NC = values_NC[values_NC[:, -1] != NO_FIX]
    axes, signs = _axes(last.key, described, channels)
    names = (last.key,) if axes is None else tuple(f"{last.key}.{axis}" for axis in axes)
    return Stream(last.key, names, _units(described, channels), values_NC * signs)


def _numbers(item: Item, raw: bytes, described: dict[str, Item]) -> NDArray[np.float64] | None:
    """Values [N, C] before scaling; ``None`` if the item does not hold numbers."""
    kinds = _kinds(described) if item.kind == "?" else item.kind * _fields(item)
    if not kinds or any(kind not in NUMBERS for kind in kinds):
        return None
    layout = np.dtype([(str(i), NUMBERS[kind]) for i, kind in enumerate(kinds)])
    if layout.itemsize != item.size:
        return None
    rows = np.frombuffer(raw, layout)
    columns = [rows[str(i)].astype(np.float64) / FIXED_POINT.get(kind, 1.0) for i, kind in enumerate(kinds)]
    return np.stack(columns, axis=1)


def _fields(item: Item) -> int:
    if item.kind not in NUMBERS:
        return 0
    return item.size // np.dtype(NUMBERS[item.kind]).itemsize


def _kinds(described: dict[str, Item]) -> str:
    """``TYPE`` with its repetitions written out: ``f[8]L`` -> ``ffffffffL``."""
    text = _text(described["TYPE"].value) if "TYPE" in described else ""
    return re.sub(r"(.)\[(\d{1,3})\]", lambda found: found[1] * int(found[2]), text)


def _scale(described: dict[str, Item], channels: int) -> NDArray[np.float64] | None:
    if "SCAL" not in described:
        return np.ones(channels)
    item = described["SCAL"]
    found = _numbers(item._replace(size=_width(item)), item.value, {})
    if found is None or found.size not in (1, channels) or not found.all():
        return None
    return np.broadcast_to(found.reshape(-1), (channels,))


def _width(item: Item) -> int:
    return np.dtype(NUMBERS[item.kind]).itemsize if item.kind in NUMBERS else 1


def _units(described: dict[str, Item], channels: int) -> tuple[str, ...]:
    item = described.get("SIUN") or described.get("UNIT")
    if item is None or item.kind != "c" or not item.size:
        return ("",) * channels
    units = [_text(item.value[at : at + item.size]) for at in range(0, len(item.value), item.size)]
    if len(units) == 1:
        units *= channels
    return tuple(units) if len(units) == channels else ("",) * channels


def _axes(key: str, described: dict[str, Item], channels: int) -> tuple[tuple[str, ...] | None, NDArray[np.float64]]:
    """Names of the channels (``None`` for a lone channel), and -1 where an axis is stored reversed, else 1."""
    forward = np.ones(channels)
    if channels == 1:
        return None, forward
    if len(FIELDS.get(key, ())) == channels:
        return FIELDS[key], forward
    orientation = _text(described["ORIN"].value) if "ORIN" in described else ""
    if sorted(orientation.lower()) == ["x", "y", "z"] and channels == 3:
        # letters in storage order, lower case where the axis is reversed
        return tuple(orientation.lower()), np.array([1.0 if axis.isupper() else -1.0 for axis in orientation])
    told = re.search(r"\(([^()]*)\)", _text(described["STNM"].value)) if "STNM" in described else None
    names = [re.sub(r"\W+", "_", name.strip().lower()).strip("_") for name in told[1].split(",")] if told else []
    if len(names) == channels and all(names) and max(Counter(names).values()) == 1:
        return tuple(names), forward
    return tuple(map(str, range(channels))), forward


def _text(raw: bytes) -> str:
    """GoPro's texts are ISO 8859-1, padded with NULs."""
    return raw.rstrip(b"\0").decode("latin-1").strip()
