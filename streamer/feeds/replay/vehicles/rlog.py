"""Logs of openpilot (rlog, qlog) as telemetry: Cap'n Proto messages, by the schema in the package openpilot-logging.

Each number of a message becomes a channel: ``carState.vEgo``, ``accelerometer.acceleration.v.0``. What the schema has
retired, longer lists and texts are left out. Frames of the car's buses are decoded by each .dbc among the paths. Times
count from when the device was booted; ``clocks`` or ``initData`` say what the wall clock showed.
"""

from __future__ import annotations

import bz2
import heapq
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from streamer.errors import UsageError, extra, one_line
from streamer.events import TELEMETRY
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.part import SLICE_US, Options, Part, due
from streamer.feeds.replay.slices import Slices
from streamer.feeds.replay.vehicles.can import Frames, named
from streamer.feeds.replay.vehicles.canlog import Frame, Kind, Log
from streamer.feeds.replay.vehicles.dbc import Databases

EXTRA = "openpilot"
CAN = "can"
UNKNOWN = ""  # kind of a message that the schema does not have
# of these, the time is that of the drive's start, in whatever part of the drive they are
OF_THE_DRIVE = ("initData", "sentinel")
RETIRED = "DEPRECATED"
MAX_SEGMENTS = 512  # of a message, as in Cap'n Proto's own readers
MAX_MESSAGE_BYTES = 1 << 28
MAX_LIST = 16  # longer lists are paths and pictures, not channels
SYNCED_NS = 1_500_000_000 * 10**9  # 2017, before there was openpilot: a wall clock before that was not set


@dataclass
class Survey:
    """What a first pass finds.

    Attributes:
        utc_us: Time at boot since the epoch; ``None`` if no message says.
        kinds: How many messages there are of each kind.
    """

    first_us: int | None = None
    last_us: int = 0
    utc_us: int | None = None
    kinds: Counter[str] = field(default_factory=Counter)


def part(path: Path, options: Options) -> Part:
    """Open a log and read it once, to see what is in it.

    Raises:
        UsageError: It is no such log, or has no messages.
    """
    notes: list[str] = []
    found = Survey()
    for kind, event in _events(path, notes):
        time_us = event.logMonoTime // 1000
        found.kinds[kind] += 1
        wall_ns = _fields(kind, event).get("wallTimeNanos", 0) if kind in ("clocks", "initData") else 0
        if found.utc_us is None and wall_ns > SYNCED_NS:
            found.utc_us = wall_ns // 1000 - time_us
        if kind not in OF_THE_DRIVE:
            found.first_us = time_us if found.first_us is None else min(found.first_us, time_us)
            found.last_us = max(found.last_us, time_us)
    if found.first_us is None or not any(found.kinds.keys() - {UNKNOWN}):
        raise UsageError(f"{path} has no message of openpilot")
    if found.kinds[UNKNOWN]:
        notes.append(
            f"{path}: {found.kinds[UNKNOWN]} messages of kinds that the package openpilot-logging does not know are "
            "left out; they are newer, or damaged"
        )
    origin_us = found.first_us
    frames = None
    if CAN in found.kinds and (databases := named(options)):
        frames = Frames(Log(path, lambda: _frames(path)), Databases(databases), notes)
    elif CAN in found.kinds:
        notes.append(
            f"{path}: the frames of its buses are left out, since no database says what is in them; name a .dbc"
        )

    def records(begin_us: int) -> Iterator[Outgoing]:
        streams = [_numbers(path, origin_us, begin_us, notes)]
        if frames is not None:
            streams.append(frames.records(origin_us, begin_us))
        return heapq.merge(*streams, key=due)

    return Part(
        path,
        found.last_us - origin_us,
        records,
        frozenset({TELEMETRY}),
        clock_us=origin_us,
        utc_us=None if found.utc_us is None else found.utc_us + origin_us,
        notes=notes,
    )


@contextmanager
def _unpacked(path: Path) -> Iterator[IO[bytes]]:
    """The log as a file with a descriptor, as pycapnp wants it; what comes after a fault in the compression is lost."""
    import zstandard

    with tempfile.TemporaryFile() as plain, path.open("rb") as file:
        packed: Any = file
        if path.suffix.lower() == ".bz2":
            packed = bz2.BZ2File(file)
        elif path.suffix.lower() == ".zst":
            packed = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        with suppress(EOFError, zstandard.ZstdError):  # of a device that lost power: the last message is cut off
            shutil.copyfileobj(packed, plain)
        plain.seek(0)
        yield plain


def _events(path: Path, notes: list[str]) -> Iterator[tuple[str, Any]]:
    """Each message with its kind, or ``UNKNOWN``."""
    with extra(EXTRA, f"reading {path}"):
        import capnp
        from openpilot_logging.cereal import log as schema
    try:
        with _unpacked(path) as plain:
            for message in _messages(plain):
                with schema.Event.from_bytes(message, traversal_limit_in_words=1 << 40) as event:
                    try:
                        kind = event.which()
                    except capnp.KjException:  # of a newer openpilot
                        kind = UNKNOWN
                    yield kind, event
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or one_line(error)}") from None
    except (capnp.KjException, ValueError) as error:
        notes.append(f"{path} could not be read to its end: {one_line(error)}")


def _messages(plain: IO[bytes]) -> Iterator[bytes]:
    """Messages one by one; pycapnp's own reader ends at one that is cut off as if it were the end of the file.

    Format: capnproto.org/encoding.html, "Serialization Over a Stream".

    Raises:
        ValueError: A message is cut off, or is none.
    """
    while head := plain.read(4):
        segments = int.from_bytes(head, "little") + 1
        if segments > MAX_SEGMENTS:
            raise ValueError("what follows is no message")
        head += plain.read(4 * segments + 4 * (segments % 2 == 0))
        size = 8 * sum(int.from_bytes(head[4 * place : 4 * place + 4], "little") for place in range(1, segments + 1))
        body = plain.read(size) if size < MAX_MESSAGE_BYTES else b""
        if len(body) < size:
            raise ValueError("a message is cut off")
        yield head + body


def _numbers(path: Path, origin_us: int, begin_us: int, notes: list[str]) -> Iterator[Outgoing]:
    """Blocks of a kind of messages and a slice of time each."""
    slices = Slices({})
    without: Counter[str] = Counter()
    for kind, event in _events(path, notes):
        time_us = event.logMonoTime // 1000 - origin_us
        if kind in (CAN, UNKNOWN) or kind in OF_THE_DRIVE or time_us < begin_us - SLICE_US:
            continue
        if RETIRED in kind:
            without[kind] += 1
            continue
        values = dict(_flat(kind, _fields(kind, event)))
        if not values:
            without[kind] += 1
            continue
        yield from slices.add(kind, max(0, time_us), values)
    yield from slices.rest()
    if left_out := sorted(kind for kind, count in without.items() if count):
        notes.append(f"{path}: messages without numbers are left out: {', '.join(left_out)}")


def _fields(kind: str, event: Any) -> Any:
    """What is in a message; nothing if it is damaged."""
    import capnp

    try:
        return event.to_dict().get(kind, {})
    except capnp.KjException:
        return {}


def _flat(name: str, value: Any) -> Iterator[tuple[str, float]]:
    """The numbers in a message, each with its path."""
    if isinstance(value, bool | int | float):
        yield name, float(value)
    elif isinstance(value, dict):
        for key, inner in value.items():
            if RETIRED not in key:
                yield from _flat(f"{name}.{key}", inner)
    elif isinstance(value, list) and len(value) <= MAX_LIST and all(isinstance(x, int | float) for x in value):
        for place, inner in enumerate(value):
            yield f"{name}.{place}", float(inner)


def _frames(path: Path) -> Iterator[Frame]:
    for kind, event in _events(path, []):
        if kind == CAN:
            for one in event.can:
                yield Frame(
                    event.logMonoTime // 1000, one.address, one.address > 0x7FF, Kind.DATA, f"can{one.src}", one.dat
                )
