"""GPMF, the telemetry that GoPro cameras write beside picture and sound, as published in github.com/gopro/gpmf-parser.

A payload is a sequence of key-length-value items: a key of four characters, a type (one character; NUL: the value is a
sequence of items itself), the size of one structure in bytes, the number of structures (16 bits), then the value,
padded to 32 bits; everything big-endian. A device (``DEVC``) has streams (``STRM``); a stream's last item holds the
measurements, those before it say how to read them: ``SCAL`` divisors, ``SIUN`` or ``UNIT`` units, ``TYPE`` the fields
of a structure of mixed types, ``ORIN`` axes, ``STMP`` the time of the first sample, ``TIMO`` how much too late it is.
A payload covers an interval of the film; its samples are evenly spaced.

A position is a measurement if the receiver had a fix and the dilution of precision (``GPSP`` / 100, or ``DOP``) is at
most ``WORST_DOP``; https://en.wikipedia.org/wiki/Dilution_of_precision_(navigation) has what the figures mean.
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
OPAQUE = {"F": "S4", "G": "V16", "U": "V16", "c": "S1"}  # fields of a structure that are no numbers
NO_FIX = 0  # GPSF: 0 no fix, 2 2D, 3 3D
WORST_DOP = 10.0  # what is worse is "a very rough estimate", and "should be discarded"
GPSP_PER_DOP = 100.0
LONGEST_LATE_S = 10.0  # a longer TIMO is broken
# Names of fields that are documented, but not in the file
FIELDS = {
    "GPS5": ("lat", "lon", "alt", "speed_2d", "speed_3d"),
    "GPS9": ("lat", "lon", "alt", "speed_2d", "speed_3d", "days", "secs", "dop", "fix"),
}
DAYS, SECONDS, DOP, FIX = 5, 6, 7, 8  # places in GPS9
GPS_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)  # before the format: the receiver has not heard the date yet
EARLIEST_DAYS, LATEST_DAYS = (EARLIEST - GPS_EPOCH).days, 36_525  # up to 2100
DAY_S = 86_400
CLASSES = "SCEN"  # a list of classes with their probabilities for each sample
LISTS = {"FACE", "HUES"}  # lists whose entries are not the same thing from one sample to the next
# What describes a stream; one that ends in it holds no measurements
DESCRIBING = {
    "STNM", "RMRK", "SCAL", "SIUN", "UNIT", "TYPE", "MTRX", "ORIN", "ORIO", "TSMP", "TIMO", "EMPT", "TICK", "TOCK",
    "STMP", "STPS", "TMPC", "QUAN", "VERS", "FREE", "PFRM", "VPTS", "GPSF", "GPSU", "GPSP",
}  # fmt: skip


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
        source: Device and name of the stream, which tell apart sensors with one key.
        names: Of its channels [C], e.g. ``ACCL.x``.
        values_NC: In ``units``; samples are evenly spaced over the payload's time. NaN: no measurement.
        stamp_us: The camera's time of the first sample; ``None`` if there is none.
        late_us: How much later than measured the samples were stored.
        utc: A row, and when it was measured by GPS; ``None`` for other sensors, and without a fix.
        unusable: Rows with a position that is no measurement.
    """

    key: str
    source: tuple[bytes, str]
    names: tuple[str, ...]
    units: tuple[str, ...]
    values_NC: NDArray[np.float64]
    stamp_us: int | None = None
    late_us: int = 0
    utc: tuple[int, datetime] | None = None
    unusable: int = 0


class Payload(NamedTuple):
    """What a payload holds.

    Attributes:
        without: Keys of streams that hold something else than numbers that were sampled.
    """

    streams: list[Stream]
    without: list[str]


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


def read(payload: bytes) -> Payload:
    """What the sensors measured during a payload.

    Raises:
        ValueError: It is not GPMF.
    """
    found = Payload([], [])
    for device in items(payload):
        if device.key != "DEVC":
            continue
        inside = list(items(device.value))
        identity = next((item.value for item in inside if item.key == "DVID"), b"")
        for stream in inside:
            if stream.key == "STRM":
                _read_stream(identity, list(items(stream.value)), found)
    return found


def _read_stream(device: bytes, inside: list[Item], found: Payload) -> None:
    if not inside or inside[-1].key in DESCRIBING:
        return
    key = inside[-1].key
    described = {item.key: item for item in inside if item.key != key}
    measured = [item for item in inside if item.key == key]
    if not any(item.value for item in measured):
        return
    table = _classes(measured, described) if key == CLASSES else _table(measured, described)
    if table is None:
        found.without.append(key)
        return
    names, units, values_NC = table
    name = _text(described["STNM"].value) if "STNM" in described else ""
    stream = Stream(key, (device, name), names, units, values_NC, _stamp_us(described), _late_us(described))
    found.streams.append({"GPS5": _gps5, "GPS9": _gps9}.get(key, _plain)(stream, described))


def _table(
    measured: list[Item], described: dict[str, Item]
) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[np.float64]] | None:
    """Names, units and values of channels; ``None`` if the items do not hold numbers that were sampled."""
    last = measured[-1]
    if last.key in LISTS or any((item.kind, item.size) != (last.kind, last.size) for item in measured):
        return None
    if len(measured) > 1 and any(item.repeat != 1 for item in measured):
        return None  # a list per sample: it has no channels
    values_NC = _numbers(last, b"".join(item.value for item in measured), described)
    if values_NC is None or values_NC.size == 0:
        return None
    channels = values_NC.shape[1]
    scale = _scale(described, channels)
    if scale is None:
        return None
    axes, signs = _axes(last.key, described, channels)
    names = (last.key,) if axes is None else tuple(f"{last.key}.{axis}" for axis in axes)
    return names, _units(described, channels), values_NC / scale * signs


def _classes(
    measured: list[Item], described: dict[str, Item]
) -> tuple[tuple[str, ...], tuple[str, ...], NDArray[np.float64]] | None:
    """A channel for each class, from lists of four characters and a probability."""
    if _kinds(described) != "Ff" or any(item.size != 8 for item in measured):
        return None
    samples = [np.frombuffer(item.value, np.dtype([("name", "S4"), ("value", ">f4")])) for item in measured]
    classes = sorted({_text(bytes(name)) for sample in samples for name in sample["name"]})
    values_NC = np.full((len(samples), len(classes)), np.nan)
    for row, sample in enumerate(samples):
        for name, value in sample:
            values_NC[row, classes.index(_text(bytes(name)))] = value
    return tuple(f"{CLASSES}.{name}" for name in classes), ("",) * len(classes), values_NC


# positions


def _plain(stream: Stream, described: dict[str, Item]) -> Stream:
    return stream


def _gps5(stream: Stream, described: dict[str, Item]) -> Stream:
    """Fix, precision and time are those of the payload: its first position has them."""
    fix, precision = (_whole(described, key) for key in ("GPSF", "GPSP"))
    dop = None if precision is None else precision / GPSP_PER_DOP
    values_NC, moment = stream.values_NC, _gpsu(described)
    count = len(values_NC)
    usable = fix != NO_FIX and (dop is None or dop <= WORST_DOP)
    if not usable:
        values_NC = np.full_like(values_NC, np.nan)
    stated = [(name, value) for name, value in (("dop", dop), ("fix", fix)) if value is not None]
    return stream._replace(
        names=(*stream.names, *(f"{stream.key}.{name}" for name, _ in stated)),
        units=(*stream.units, *("" for _ in stated)),
        values_NC=np.column_stack([values_NC, *(np.full(count, float(value)) for _, value in stated)]),
        utc=(0, moment) if moment is not None and fix != NO_FIX else None,
        unusable=0 if usable else count,
    )


def _gpsu(described: dict[str, Item]) -> datetime | None:
    try:
        moment = datetime.strptime(_text(described["GPSU"].value), "%y%m%d%H%M%S.%f").replace(tzinfo=UTC)
    except (KeyError, ValueError):
        return None
    return moment if moment >= EARLIEST else None


def _gps9(stream: Stream, described: dict[str, Item]) -> Stream:
    """Every position has its own fix, precision and time."""
    if len(stream.names) != len(FIELDS["GPS9"]):
        return stream
    values_NC = stream.values_NC.copy()
    fixed = values_NC[:, FIX] != NO_FIX
    usable = fixed & (values_NC[:, DOP] <= WORST_DOP)
    utc = None
    for row in np.flatnonzero(fixed):
        days, seconds = float(values_NC[row, DAYS]), float(values_NC[row, SECONDS])
        if EARLIEST_DAYS <= days < LATEST_DAYS and 0 <= seconds <= DAY_S:
            utc = (int(row), GPS_EPOCH + timedelta(days=days, seconds=seconds))
            break
    values_NC[~usable, :DOP] = np.nan
    return stream._replace(values_NC=values_NC, utc=utc, unusable=int((~usable).sum()))


def _whole(described: dict[str, Item], key: str) -> int | None:
    return int.from_bytes(described[key].value, "big") if key in described else None


def _stamp_us(described: dict[str, Item]) -> int | None:
    item = described.get("STMP")
    return int.from_bytes(item.value, "big") if item is not None and item.kind == "J" and len(item.value) == 8 else None


def _late_us(described: dict[str, Item]) -> int:
    """``TIMO`` in seconds."""
    item = described.get("TIMO")
    if item is None or item.kind != "f" or len(item.value) != 4:
        return 0
    late_s = float(np.frombuffer(item.value, ">f4")[0])
    return round(late_s * 1e6) if abs(late_s) < LONGEST_LATE_S else 0


def _numbers(item: Item, raw: bytes, described: dict[str, Item]) -> NDArray[np.float64] | None:
    """Values [N, C] before scaling; NaN: another field of a structure; ``None`` if the item does not hold numbers."""
    kinds = _kinds(described) if item.kind == "?" else item.kind * _fields(item)
    if not any(kind in NUMBERS for kind in kinds) or any(kind not in NUMBERS and kind not in OPAQUE for kind in kinds):
        return None
    layout = np.dtype([(str(i), NUMBERS.get(kind) or OPAQUE[kind]) for i, kind in enumerate(kinds)])
    if layout.itemsize != item.size:
        return None
    rows = np.frombuffer(raw, layout)
    columns = [
        rows[str(i)].astype(np.float64) / FIXED_POINT.get(kind, 1.0) if kind in NUMBERS else np.full(len(rows), np.nan)
        for i, kind in enumerate(kinds)
    ]
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
    listed = re.search(r"\(([^()]*)\)", _text(described["STNM"].value)) if "STNM" in described else None
    names = [re.sub(r"\W+", "_", name.strip().lower()).strip("_") for name in listed[1].split(",")] if listed else []
    if len(names) == channels and all(names) and max(Counter(names).values()) == 1:
        return tuple(names), forward
    return tuple(map(str, range(channels))), forward


def _text(raw: bytes) -> str:
    """GoPro's texts are ISO 8859-1, padded with NULs."""
    return raw.rstrip(b"\0").decode("latin-1").strip()
