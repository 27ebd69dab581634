"""Frames of CAN buses out of their logs, through python-can: candump, Vector's ASC and BLF, PEAK's TRC, and MF4.

What python-can 4.6 reads otherwise than the tools that write these logs, and what is done about it:

    candump   of the error frames, only those of class bus error are recognised, the others become data frames; a frame
              with the DLC of more than 8 bytes behind its data ends the reading: both are sorted out line by line
    ASC       stamps that are relative to the line before are taken as absolute: they are added up line by line
    BLF       stamps before the start of the measurement, which CANape writes, are taken as unsigned
    BLF, TRC  the start of the measurement is the recorder's local time, and taken as UTC: nothing is made of it here
"""

from __future__ import annotations

import io
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from streamer.errors import UsageError, extra, one_line
from streamer.feeds.replay.part import S_US

if TYPE_CHECKING:
    import can

EXTRA = "can"
EPOCH_S = 1e9  # 2001: a stamp from here on is since the epoch
WRAPPED_US = 2**64 / 1000  # 64 bits of nanoseconds
CANDUMP = re.compile(
    r"(?P<begin>\(\d+\.\d+\)\s+\S+\s+(?P<id>[0-9A-F]{3}|[0-9A-F]{8})"
    r"#(?:R[0-9]?|(?:#[0-9])?(?:[0-9A-F]{2})*))(?:_[0-9A-F])?(?P<end>(?:\s+[RT])?)",
    re.IGNORECASE,
)
ERROR_FLAG = 0x20000000  # in an id of SocketCAN
ASC_STAMP = re.compile(r"\s*(\d+\.\d+)(?=\s)")
ASC_RELATIVE = re.compile(r"\s*base\s+\w+\s+timestamps\s+relative", re.IGNORECASE)
TRC_COMMENT = ";"
NO_FRAMES = "lines that are no frames"
HEADER_LINES = 20  # in which a date is looked for


class Kind(Enum):
    """What a frame is, by what the log says of it."""

    DATA = "data"
    REMOTE = "remote frames"
    ERROR = "error frames"


class Frame(NamedTuple):
    """A frame as it was on a bus.

    Attributes:
        time_us: As the log has it: since the epoch, or since the start of the log.
        bus: ``can0``, ``can1``, …, numbered as in the log.
    """

    time_us: int
    id: int
    extended: bool
    kind: Kind
    bus: str
    data: bytes


@dataclass
class Log:
    """A log of CAN buses.

    Attributes:
        frames: Reads them from the start, in the log's order.
        zero_us: Reading of the recorder's clock at time 0 of the frames; ``None`` if it is not known.
        utc: Whether that clock is UTC.
        ignored: What its lines are that are not read as frames, with how many there are; set by reading.
        cut: What is wrong with a log that could not be read to its end; set by reading.
    """

    path: Path
    frames: Callable[[], Iterator[Frame]]
    zero_us: int | None = None
    utc: bool = False
    ignored: Counter[str] = field(default_factory=Counter)
    cut: str = ""


def open_log(path: Path) -> Log:
    """Open a log by the ending of its name.

    Raises:
        UsageError: It is no such log.
    """
    with extra(EXTRA, f"reading {path}"):
        import can  # noqa: F401 - to see that it is there
    log = Log(path, lambda: iter(()))
    opener = {".log": _candump, ".asc": _asc, ".blf": _blf, ".trc": _trc, ".mf4": _mf4}[path.suffix.lower()]
    try:
        messages, shift = opener(log)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - the libraries let out whatever their parsers and decompressors raise
        raise UsageError(f"{path} is no {_what(path)}: {one_line(error)}") from None
    log.frames = lambda: _frames(log, messages, shift)
    return log


class _Shift(NamedTuple):
    """From what python-can makes of a log to what is in it."""

    seconds: float = 0.0  # that it adds to all stamps
    channel: int = 0  # that the log's first channel has too much


def _what(path: Path) -> str:
    names = {".log": "log of candump -l", ".asc": "ASC log", ".blf": "BLF log", ".trc": "TRC log", ".mf4": "MF4 file"}
    return names[path.suffix.lower()]


def _frames(log: Log, messages: Callable[[], Iterable[can.Message]], shift: _Shift) -> Iterator[Frame]:
    log.ignored.clear()
    log.cut = ""
    try:
        for message in messages():
            time_us = round((message.timestamp - shift.seconds) * S_US)
            if time_us > WRAPPED_US / 2:
                time_us -= round(WRAPPED_US)
            kind = Kind.ERROR if message.is_error_frame else Kind.REMOTE if message.is_remote_frame else Kind.DATA
            number = message.channel if isinstance(message.channel, int) else 0
            bus = message.channel if isinstance(message.channel, str) else f"can{number - shift.channel}"
            yield Frame(time_us, message.arbitration_id, message.is_extended_id, kind, bus, bytes(message.data))
    except OSError as error:
        raise UsageError(f"{log.path} cannot be read: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - as above
        log.cut = one_line(error)


Opened = tuple[Callable[[], Iterable["can.Message"]], _Shift]


class _Lines:
    """Lines in place of a text file, for python-can."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[str]:
        return self._lines

    def close(self) -> None:
        """Nothing is open."""


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding=_encoding(path), errors="replace") as file:
        yield from file


def _encoding(path: Path) -> str:
    """Vector's tools write German month names in the code page of Windows."""
    with path.open("rb") as file:
        head = file.read(4096)
    try:
        head[: head.rfind(b"\n") + 1].decode()
    except UnicodeDecodeError:
        return "cp1252"
    return "utf-8"


def _candump(log: Log) -> Opened:
    import can

    first = next((found for line in _lines(log.path) if (found := CANDUMP.fullmatch(line.strip()))), None)
    if first is None:
        raise ValueError("no line is like (1436509052.249713) can0 244#0000019D62A5, as candump -l and -L write them")
    if float(first["begin"].partition(")")[0][1:]) >= EPOCH_S:
        log.zero_us, log.utc = 0, True
    return lambda: can.CanutilsLogReader(_as_text(_dumped(log))), _Shift()


def _dumped(log: Log) -> Iterator[str]:
    for line in _lines(log.path):
        found = CANDUMP.fullmatch(line.strip())
        if found is None:
            log.ignored[NO_FRAMES] += bool(line.strip())
        elif len(found["id"]) == 8 and int(found["id"], 16) & ERROR_FLAG:
            log.ignored[Kind.ERROR.value] += 1
        else:
            yield found["begin"] + found["end"]


def _as_text(lines: Iterator[str]) -> Any:  # only iterated over and closed
    return _Lines(lines)


def _asc(log: Log) -> Opened:
    import can

    head = [line for line, _ in zip(_lines(log.path), range(HEADER_LINES), strict=False)]
    relative = any(ASC_RELATIVE.match(line) for line in head)
    reader = can.ASCReader(io.StringIO("".join(head)), relative_timestamp=False)
    try:
        next(iter(reader), None)
    except ValueError:  # a date in another language; or that of 1970
        reader.start_time = 0.0
    if reader.start_time:
        log.zero_us = _wall_us(datetime.fromtimestamp(reader.start_time))

    def messages() -> Iterable[can.Message]:
        lines = _added_up(_lines(log.path)) if relative else _lines(log.path)
        return can.ASCReader(_as_text(lines))

    return messages, _Shift(channel=-1)


def _added_up(lines: Iterable[str]) -> Iterator[str]:
    total = 0.0
    for line in lines:
        stamp = ASC_STAMP.match(line)
        if stamp is None:
            yield line
        else:
            total += float(stamp[1])
            yield f"{total:.6f}{line[stamp.end() :]}"


def _wall_us(wall: datetime) -> int:
    """A date without a zone as microseconds of the recorder's clock."""
    return round(wall.replace(tzinfo=UTC).timestamp() * S_US)


def _blf(log: Log) -> Opened:
    import can

    with log.path.open("rb") as file:
        reader = can.BLFReader(file)
        start_s, size = reader.start_timestamp, reader.file_size
    log.zero_us = round(start_s * S_US) if start_s else None
    there = log.path.stat().st_size

    def messages() -> Iterator[can.Message]:
        with log.path.open("rb") as file:
            yield from can.BLFReader(file)
        if there < size:
            raise ValueError(f"{there} of {size} bytes are there")

    return messages, _Shift(seconds=start_s, channel=-1)


def _trc(log: Log) -> Opened:
    import can

    logging.getLogger("can.io.trc").setLevel(logging.ERROR)  # it prints each line that it cannot parse
    with can.TRCReader(_as_text(_lines(log.path))) as reader:
        next(iter(reader), None)
        start = reader.start_time
        if reader.file_version is can.TRCFileVersion.UNKNOWN and any("FILEVERSION" in x for x in _lines(log.path)):
            raise ValueError("of its versions, python-can reads 1.0, 1.1, 1.3, 2.0 and 2.1")
    log.zero_us = None if start is None else round(start.timestamp() * S_US)
    seconds = 0.0 if start is None else start.timestamp()

    def messages() -> Iterator[can.Message]:
        frames = lines = 0

        def counted() -> Iterator[str]:
            nonlocal lines
            for line in _lines(log.path):
                lines += line.strip() != "" and not line.startswith(TRC_COMMENT)
                yield line

        for message in can.TRCReader(_as_text(counted())):
            frames += 1
            yield message
        log.ignored[NO_FRAMES] = lines - frames

    return messages, _Shift(seconds)


def _mf4(log: Log) -> Opened:
    with extra(EXTRA, f"reading {log.path}"):
        import asammdf
    import can

    with asammdf.MDF(log.path) as file:
        start, utc = file.header.start_time, file.header.start_time.tzinfo is not None
        log.zero_us, log.utc = round(file.header.abs_time / 1000) or None, utc

    def messages() -> Iterator[can.Message]:
        with can.MF4Reader(log.path) as reader:
            yield from reader

    return messages, _Shift(start.timestamp())
