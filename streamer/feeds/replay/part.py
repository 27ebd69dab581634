"""What every reader is asked and returns: a part of a session, as records in due order with times from its start."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, KIND_NAMES, TELEMETRY, Channel, Sensor, Telemetry
from streamer.feeds.producer import JSON, Outgoing
from streamer.feeds.sound import l16
from streamer.kinds.audio import L16_BYTES, MAX_CHANNELS, MAX_RATE_HZ, MIN_RATE_HZ

S_US = 1_000_000
MS_US = 1_000
SLICE_US = 200_000  # of audio in a chunk, of telemetry in a block: how long windows wait for a modality by default
MAX_GAP_US = 100_000  # more than this missing between two pieces of sound is a gap, less is rounding of time stamps
JPEG_QUALITY = 85  # of pictures that are not sent as they are
ROUNDING_US = 1_000  # times of pictures are rounded to milliseconds in some containers
NO_SESSION = ""  # readers do not know the session's name


class Options(NamedTuple):
    """What the user asked of every reader.

    Attributes:
        streams: Numbers of tracks (of a film) or channels (of an MCAP file) to send in place of the default ones.
        sensors: Topic of a robot's log, or number of a film's track -> sensor that it is sent as.
        files: Path -> sensors that what it has of their kinds is sent as.
        rate_hz: Most pictures a second; ``None``: all. A reader may skip those that :class:`Thinned` would drop.
        names: Telemetry channel -> the name under which it is sent.
        taken: Telemetry channels that the model takes: what measures the same is sent under these names.
        given: All paths of the session; one may explain another, as a database of signals does a log of a CAN bus.
    """

    streams: tuple[int, ...] = ()
    sensors: Mapping[str, Sensor] = {}
    files: Mapping[Path, tuple[Sensor, ...]] = {}
    rate_hz: float | None = None
    names: Mapping[str, str] = {}
    taken: tuple[str, ...] = ()
    given: tuple[Path, ...] = ()


ALL = Options()


def header(sensor: Sensor) -> str | None:
    """What a record says of its sensor: nothing, if that is called like its kind."""
    return None if sensor.name == KIND_NAMES[sensor.row] else sensor.name


class Measured(NamedTuple):
    """What a telemetry channel measures.

    Attributes:
        name: By which models may know it: ``ecg``.
        unit: Of its values times ``scale``; ``None``: that of the file.
    """

    name: str
    unit: str | None = None
    scale: float = 1.0


@dataclass
class Part:
    """One recording, opened and inspected.

    Attributes:
        length_us: Its length according to the file.
        records: Reads it from the start: records in ascending due order; times are relative to the part's start, never
            before it, and neither session nor sequence is set. Records that begin before the time given, µs, are not
            wanted and may be skipped. May raise UsageError where the file turns out to be broken.
        sends: Rows of the kinds that it has without a sensor's name.
        named: Sensors that it names, as ``Options.sensors`` asks.
        clock_us: Reading of the clock of its time stamps at its start. Parts that share a clock keep their offset from
            each other. ``None`` if its times count from its start.
        utc_us: Start in microseconds since the epoch, as exactly as the file says; ``None`` if it does not.
        late_us: The longest after its beginning that a record is due.
        tracks: Number of tracks to choose from.
        topics: Names of the topics of a robot's log, numbers of the tracks of a film.
        channels: Names of its telemetry channels, where they are known before it is read.
        measures: Telemetry channel -> what it measures, where its reader knows; the best of several comes first.
        uses: Other files that it reads, e.g. subtitles of a film.
        notes: What the user should know, a sentence each; reading adds to them, the same ones each time.
    """

    path: Path
    length_us: int
    records: Callable[[int], Iterator[Outgoing]]
    sends: frozenset[int]
    named: frozenset[Sensor] = frozenset()
    clock_us: int | None = None
    utc_us: int | None = None
    late_us: int = 5 * S_US  # words are due at their end
    tracks: int = 0
    topics: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    measures: Mapping[str, Measured] = field(default_factory=dict)
    uses: frozenset[Path] = frozenset()
    notes: list[str] = field(default_factory=list)


class Thinned:
    """Chooses pictures, evenly in time, so that there are at most so many a second.

    Args:
        rate_hz: Pictures a second; ``None``: all are kept.
    """

    def __init__(self, rate_hz: float | None) -> None:
        self._rate_hz = rate_hz
        self._last = -1

    def keeps(self, time_us: int) -> bool:
        """Whether to send the picture of this time; times ascend."""
        if self._rate_hz is None:
            return True
        slot = int((time_us + ROUNDING_US) * self._rate_hz / S_US)
        if slot <= self._last:
            return False
        self._last = slot
        return True


class Reorder:
    """Sorts records by due time as they are read; it holds only those that are not due yet."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Outgoing]] = []
        self._ties = count()

    def push(self, record: Outgoing) -> None:
        heapq.heappush(self._heap, (record.due_us, next(self._ties), record))

    def until(self, floor_us: int) -> Iterator[Outgoing]:
        """Records due by ``floor_us``; none that is due earlier may be pushed afterwards."""
        while self._heap and self._heap[0][0] <= floor_us:
            yield heapq.heappop(self._heap)[2]

    def rest(self) -> Iterator[Outgoing]:
        while self._heap:
            yield heapq.heappop(self._heap)[2]


def frame(payload: bytes, time_us: int, content_type: str = "image/jpeg") -> Outgoing:
    """An encoded picture, due when it was taken."""
    return Outgoing(IMAGE, NO_SESSION, time_us, payload, content_type, time_us)


class Sound:
    """Cuts a sound track into ``audio/L16`` chunks that tile, and leaves a gap where the recording has one.

    Args:
        rate_hz: Samples a second.
        channels: Interleaved in every sample.

    Raises:
        UsageError: No chunk can have this rate or number of channels.
    """

    def __init__(self, what: str, rate_hz: int, channels: int) -> None:
        check_sound(what, rate_hz, channels)
        self._rate_hz, self._channels = rate_hz, channels
        self._size = max(1, rate_hz * SLICE_US // S_US)
        self._content_type = f"audio/L16;rate={rate_hz};channels={channels}"
        self._begin_us: int | None = None  # of the stretch without gaps
        self._sent = 0  # samples of the stretch
        self._held: list[NDArray[np.int16]] = []
        self._held_samples = 0

    def add(self, samples: NDArray[np.int16], time_us: int) -> Iterator[Outgoing]:
        """Add samples [S, channels], the first taken at ``time_us``; yields the chunks that are now full."""
        if self._begin_us is None:
            self._begin_us = time_us
        elif time_us - self.end_us > MAX_GAP_US:
            yield from self.rest()
            self._begin_us, self._sent = time_us, 0
        self._held.append(samples)
        self._held_samples += len(samples)
        if self._held_samples >= self._size:
            held = np.concatenate(self._held)
            full = len(held) - len(held) % self._size
            for begin in range(0, full, self._size):
                yield self._chunk(held[begin : begin + self._size])
            self._hold(held[full:])

    @property
    def end_us(self) -> int:
        """Time of the sample after the last one."""
        return self._at(self._sent + self._held_samples)

    def rest(self) -> Iterator[Outgoing]:
        """The last chunk, which may be shorter than the others."""
        if self._held_samples:
            yield self._chunk(np.concatenate(self._held))
            self._hold(np.empty((0, self._channels), np.int16))

    def _hold(self, samples: NDArray[np.int16]) -> None:
        self._held, self._held_samples = [samples], len(samples)

    def _chunk(self, samples: NDArray[np.int16]) -> Outgoing:
        begin_us = self._at(self._sent)
        self._sent += len(samples)
        return Outgoing(AUDIO, NO_SESSION, begin_us, l16(samples), self._content_type, self._at(self._sent))

    def _at(self, sample: int) -> int:
        return (self._begin_us or 0) + sample * S_US // self._rate_hz


def check_sound(what: str, rate_hz: int, channels: int) -> None:
    """Refuse sound that ``audio/L16`` records cannot hold.

    Raises:
        UsageError: The message begins with ``what``.
    """
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise UsageError(f"{what} has {rate_hz} samples a second; {MIN_RATE_HZ} to {MAX_RATE_HZ} can be sent: resample")
    if not 1 <= channels <= MAX_CHANNELS:
        raise UsageError(f"{what} has {channels} channels; 1 to {MAX_CHANNELS} can be sent: mix it down")


def raw_sound(payload: bytes, time_us: int, rate_hz: int, channels: int) -> Outgoing:
    """One chunk of little-endian 16-bit samples as ``audio/L16``; it is due when its last sample was taken."""
    samples = len(payload) // (L16_BYTES * channels)
    whole = np.frombuffer(payload[: samples * L16_BYTES * channels], "<i2")
    end_us = time_us + samples * S_US // rate_hz
    return Outgoing(AUDIO, NO_SESSION, time_us, l16(whole), f"audio/L16;rate={rate_hz};channels={channels}", end_us)


def telemetry(
    times_us: Sequence[int], values_NC: NDArray[np.float64], names: Sequence[str], units: Sequence[str]
) -> list[Outgoing]:
    """The telemetry blocks of one slice of time, in due order.

    Channels with values at the same times share a block.

    Args:
        times_us: Strictly ascending [N], within one ``SLICE_US``.
        values_NC: Measurements; NaN and infinities mean no value.
    """
    there_NC = np.isfinite(values_NC)
    together: dict[bytes, list[int]] = {}
    for channel in range(len(names)):
        if there_NC[:, channel].any():
            together.setdefault(there_NC[:, channel].tobytes(), []).append(channel)
    blocks = []
    for channels in together.values():
        rows = np.flatnonzero(there_NC[:, channels[0]])
        times = [times_us[int(row)] for row in rows]
        measured = {names[c]: Channel(tuple(map(float, values_NC[rows, c])), units[c]) for c in channels}
        blocks.append(_block(times, measured, times_us[0] + SLICE_US))
    return sorted(blocks, key=due)


def _block(times_us: Sequence[int], channels: dict[str, Channel], latest_due_us: int) -> Outgoing:
    begin_us, count = times_us[0], len(times_us)
    body = Telemetry(channels, times=tuple((time_us - begin_us) / S_US for time_us in times_us))
    step_us = (times_us[-1] - begin_us) // (count - 1) if count > 1 else 0
    due_us = min(times_us[-1] + step_us, latest_due_us)
    return Outgoing(TELEMETRY, NO_SESSION, begin_us, msgspec.json.encode(body), JSON, due_us)


def due(record: Outgoing) -> int:
    """Key for sorting and merging."""
    return record.due_us
