"""The nouns of the pipeline: kind, sensor, record, event, window, and the names on the wire.

Types with many instances opt out of cyclic garbage collection (``gc=False``); they cannot form cycles.

All times are int64 microseconds since the Unix epoch (``_us``). *Event time* says when something happened in the
world; *log time* is the timestamp that the Kafka broker gave the record when it appended it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from functools import cached_property, lru_cache
from typing import NamedTuple

import msgspec
from msgspec.structs import force_setattr

# what kinds are and their payloads: words of the pipeline too
from streamer.kinds.bodies import MAX_OFFSET_S as MAX_OFFSET_S
from streamer.kinds.kind import Kind as Kind
from streamer.kinds.table import AUDIO as AUDIO
from streamer.kinds.table import IMAGE as IMAGE
from streamer.kinds.table import KIND_NAMES as KIND_NAMES
from streamer.kinds.table import KINDS as KINDS
from streamer.kinds.table import OWN
from streamer.kinds.table import TELEMETRY as TELEMETRY
from streamer.kinds.table import TEXT as TEXT
from streamer.kinds.telemetry import Channel as Channel
from streamer.kinds.telemetry import Telemetry as Telemetry
from streamer.kinds.text import Transcript as Transcript
from streamer.kinds.text import Word as Word


class Sensor(msgspec.Struct, frozen=True):
    """A named source of one kind; ``row`` is the kind's number."""

    name: str
    row: int


class Sensors(msgspec.Struct, frozen=True, dict=True):
    """The sensors that a session may have. A sensor's index in ``all`` is its number.

    The order is that of the kinds; within one, the sensor that is called like it comes first, then they go by name: so
    it does not depend on the order in which they were declared. Make it by :meth:`of`.
    """

    all: tuple[Sensor, ...]

    @classmethod
    def of(cls, sensors: Iterable[Sensor]) -> Sensors:
        """The sensors in their order."""
        return cls(tuple(sorted(sensors, key=lambda one: (one.row, one.name != KIND_NAMES[one.row], one.name))))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The sensors' names."""
        return tuple(sensor.name for sensor in self.all)

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """The sensors' kinds."""
        return tuple(sensor.row for sensor in self.all)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Name -> number."""
        return {name: number for number, name in enumerate(self.names)}

    def of_kind(self, row: int) -> tuple[int, ...]:
        """Numbers of the sensors of a kind."""
        return tuple(number for number, own in enumerate(self.rows) if own == row)

    def unnamed(self, row: int) -> int | None:
        """Whose a record is that names no sensor: the one called like its kind, else the only one of that kind."""
        numbers = self.of_kind(row)
        if numbers and (len(numbers) == 1 or self.names[numbers[0]] == KIND_NAMES[row]):
            return numbers[0]
        return None

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the set; empty for the default one."""
        if self == DEFAULT_SENSORS:
            return ""
        return hashlib.sha256(msgspec.json.encode([(sensor.name, sensor.row) for sensor in self.all])).hexdigest()[:8]


# One of each kind that comes with the program; sensors of other kinds are declared.
DEFAULT_SENSORS = Sensors.of(Sensor(kind.name, row) for row, kind in enumerate(OWN))
DEFAULT_NAMES = DEFAULT_SENSORS.names

END_TYPE = "streamer.end.v1"  # control record: this session ends
TICK_TYPE = "streamer.tick.v1"  # control record: carries nothing but its log time
WINDOW_TYPE = "streamer.window.v1"  # a closed window on its way from role align to role infer
SPEECH_TYPE = "streamer.speech.v1"  # a sentence said aloud
RESULT_TYPE = "streamer.result.v1"  # a window's result, on its way out

TOPIC_WINDOWS, TOPIC_LATE, TOPIC_DEADLETTER = "windows", "late", "deadletter"
TOPIC_SPEECH, TOPIC_RESULTS = "speech", "results"

MAX_SESSION_BYTES = 128  # of the UTF-8 name

# Estimated size of CPython's objects around payloads and header texts. Without these, many small records would take
# several times the memory that the settings allow.
RECORD_BYTES, HEADER_BYTES, EVENT_BYTES = 500, 150, 700
BODY_BYTES = 4  # for each byte of JSON that is parsed


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class EventType(IntEnum):
    """What a source record is to alignment."""

    DATA = 0
    END = 1
    TICK = 2


DATA, END, TICK = EventType  # for what every event goes through: a class's member takes 0.1 µs to find in Python 3.11


class TimeSource(StrEnum):
    """Which clock told the time of an event: header ``ce_timesource``; workers do not read it."""

    RTCP = "rtcp"  # the camera's, by the sender reports of its RTP stream (RFC 3550, section 6.4.1)
    DEVICE = "device"  # the device's, which stamped the data when it took them
    ARRIVAL = "arrival"  # that of the machine at which they arrived


class Position(NamedTuple):
    """A place in the merged log of a partition group; tuples compare in merge order."""

    log_time_us: int
    row: int
    offset: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """A source record as it is in the log.

    Attributes:
        row: Number of the kind whose topic it was read from.
        log_time_us: The broker's append time (Kafka keeps milliseconds).
    """

    row: int
    partition: int
    offset: int
    log_time_us: int
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]

    @property
    def position(self) -> Position:
        return Position(self.log_time_us, self.row, self.offset)

    @property
    def nbytes(self) -> int:
        """Estimated memory of the record: payload, headers and the objects that hold them."""
        nbytes = len(self.value) + RECORD_BYTES + HEADER_BYTES * len(self.headers)
        for name, value in self.headers:  # a loop, since a generator is slower and every record comes here
            nbytes += len(name) + len(value or b"")  # a Kafka header may have no value
        return nbytes


class Event(msgspec.Struct, frozen=True, gc=False):
    """A decoded source record: one frame, audio chunk, transcript or telemetry block with its time ``[start, end)``.

    A frame has ``start_us == end_us``. For control records (``type`` END or TICK) both are the log time.

    Attributes:
        row: Number of its kind.
        media_type: Lower-case media type without parameters, e.g. ``audio/l16``.
        params: Parameters of the content type, e.g. ``{"rate": "16000", "channels": "1"}``.
        body: The parsed payload of kinds whose time is inside it: transcripts, telemetry; ``None`` for frames and
            audio, whose payload stays unopened in ``record.value``.
        dataref: URL of a payload that is stored elsewhere (claim check), or ``None``.
        identity: ``ce_source`` and ``ce_id``, which together name one event; ``None`` where they do not matter.
        left_behind: Whether payload and headers of the record were left in its source topic, see ``worker.handover``.
        lost: Whether they were left there and Kafka no longer has them.
        sensor: Number of its sensor; by default its row, which is right for the default sensors.
        position: Of the record. Like ``nbytes`` computed once, since it is used often; never pass it.
        nbytes: Estimated memory of the record with its parsed body.
    """

    record: Record
    session: str
    type: EventType
    start_us: int
    end_us: int
    media_type: str = ""
    params: dict[str, str] = {}
    body: msgspec.Struct | None = None
    dataref: str | None = None
    sequence: int | None = None
    identity: tuple[str, str] | None = None
    left_behind: bool = False
    lost: bool = False
    sensor: int = -1
    position: Position = Position(0, 0, 0)
    nbytes: int = 0

    def __post_init__(self) -> None:
        record = self.record
        body_bytes = BODY_BYTES * len(record.value) if self.body is not None else 0
        force_setattr(self, "position", record.position)
        if self.sensor < 0:
            force_setattr(self, "sensor", record.row)
        force_setattr(self, "nbytes", record.nbytes + EVENT_BYTES + body_bytes)

    @property
    def row(self) -> int:
        return self.record.row


class ClosedBy(StrEnum):
    """Why a window closed."""

    COMPLETE = "complete"  # every sensor has been seen past the window's end
    DEADLINE = "deadline"  # a sensor was too slow or silent
    END = "end"  # the session ended or fell silent
    MEMORY = "memory"  # closed early to stay within max_open_bytes
    OPEN = "open"  # it has not closed: this is what it holds at its early run


class Window(msgspec.Struct, frozen=True):
    """A closed window ``[start_us, end_us)`` of a session with its members, or an open one as it stands.

    Attributes:
        events: One tuple for each sensor, in order of (start, end, merge position).
        closed_at: Merge position of the record at which it closed; for a closing by time alone, the position
            (closing time, -1, -1), which sorts before every record of that log time. Of an open one likewise: it holds
            what came before that time.
        heard_us: For each sensor the log time of the last event that joined a window of the session, as of the
            closing; stored with the publication, since a restart needs it.
        due_us: Log time from which it only waited for what was missing; 0 if it closed before.
    """

    session: str
    partition: int
    start_us: int
    end_us: int
    closed_by: ClosedBy
    closed_at: Position
    events: tuple[tuple[Event, ...], ...]
    heard_us: tuple[int, ...]
    sensors: Sensors = DEFAULT_SENSORS
    due_us: int = 0

    @property
    def id(self) -> str:
        return f"{self.session}/{self.end_us}"

    def of(self, sensor: str) -> tuple[Event, ...]:
        """The members of a sensor."""
        return self.events[self.sensors.numbers[sensor]]

    @property
    def nbytes(self) -> int:
        return sum(event.nbytes for events in self.events for event in events)


class Saved(msgspec.Struct, frozen=True):
    """What Redis keeps of a session so that a restart continues it without a trace.

    Attributes:
        published_end_us: End of the newest published window.
        heard_us: ``Window.heard_us`` of that window.
        closings: Window end -> merge position of its closing, for the windows that closed after the committed cut.
        fingerprint: Of the settings of windows and sensors under which it was published.
    """

    published_end_us: int
    heard_us: tuple[int, ...]
    closings: dict[int, Position]
    fingerprint: str


class Drift(msgspec.Struct, frozen=True):
    """A sensor whose clock drifts away from those of its session's other sensors, see ``align.skew``.

    Attributes:
        ppm: Slope of its skew (log time minus event end) against theirs, µs a second; above 0: its clock is slow.
        behind_ms: By how much its events come later than theirs, by the times that they carry.
        left_s: Until windows close without its events, or without those of others where its clock is fast; 0: they do.
    """

    sensor: str
    ppm: float
    behind_ms: float
    left_s: float


class Stored(msgspec.Struct, frozen=True):
    """What Redis keeps of a session and of its partition group.

    Attributes:
        saved: For alignment; ``None`` if nothing of the session was ever published, or Redis has lost it.
        suspects: Window end -> how often it was run alone, for windows that were being run when a process died.
        lost_until_us: Windows of this session that begin before this time may lack records, because Redis had lost its
            data when the session last had no state; 0 if that never happened.
        group_lost_until_us: The same for sessions of the partition group without state; ``None`` if Redis does not know
            the group.
        emitted_end_us: End of the newest window that role align put on the windows topic; 0 if there is none.
    """

    saved: Saved | None
    suspects: dict[int, int] = {}
    lost_until_us: int = 0
    group_lost_until_us: int | None = 0
    emitted_end_us: int = 0


def rfc3339(time_us: int, precision: str = "microseconds") -> str:
    """Microseconds since the epoch as RFC 3339 in UTC.

    Args:
        precision: Of the fraction, as ``datetime.isoformat`` names it; finer digits are cut off.
    """
    if precision == "microseconds":  # a header of each record that is sent
        return f"{_second(time_us // 1_000_000)}.{time_us % 1_000_000:06d}Z"
    moment = EPOCH + timedelta(microseconds=time_us)
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


@lru_cache(maxsize=64)
def _second(time_s: int) -> str:
    return (EPOCH + timedelta(seconds=time_s)).isoformat(timespec="seconds").removesuffix("+00:00")


def moment_us(text: str) -> int:
    """Microseconds since the epoch of a time that a person or another program wrote; finer digits are cut off.

    Raises:
        ValueError: With one line: it is no time as ISO 8601 writes one, or has no offset from UTC.
    """
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        raise ValueError(f"{text[:40]!r} is no time: a number of seconds or RFC 3339 is wanted") from None
    if moment.tzinfo is None:
        raise ValueError(f"{text[:40]!r} has no offset from UTC: append Z or +02:00")
    return (moment - EPOCH) // MICROSECOND
