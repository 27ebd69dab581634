"""GoPro's telemetry in the time of its film: when each sample of a payload was taken, and when the recording began.

Samples of a stream are evenly spaced over the payload's time. Where streams have time stamps (``STMP``), those of the
pictures' own data (exposure, orientation: one sample a frame, the first at the payload's first frame) are the film's
time, and the other streams' first samples are as much earlier or later as their stamps are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from operator import itemgetter
from statistics import median_low

import msgspec
import numpy as np

from streamer.events import Telemetry
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.media import gpmf
from streamer.feeds.replay.part import Reorder
from streamer.feeds.replay.slices import timed

POSITIONS = ("GPS5", "GPS9")
OF_FRAMES = ("SHUT", "CORI", "IORI", "GRAV", "ISOE", "ISOG")
LONGEST_SHIFT_US = 500_000  # a stamp further from the frames' is of another clock
READINGS = 15  # of GPS time, whose median is taken: single ones, the first above all, are up to two seconds old
FIRST = 5  # payloads, in which almost every sensor has measured something
WITHOUT_GPS = 30  # payloads without a position: the camera has no receiver, or it is off
PAYLOADS = 600  # in which these are looked for, a second each
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

Timed = tuple[bytes, int, int]  # a payload, where it begins in the film, and its length, µs


class Track:
    """A telemetry track as it is read, payload by payload in order of time."""

    def __init__(self) -> None:
        self._labels: dict[tuple[str, tuple[bytes, str], int], str] = {}
        self._ends: dict[str, int] = {}
        self._waiting = Reorder()
        self._without: set[str] = set()
        self._positions = self._unusable = self._broken = 0

    def add(self, raw: bytes, begin_us: int, length_us: int) -> Iterator[Outgoing]:
        """Add a payload; yields the telemetry blocks before which none can come any more, in due order."""
        try:
            payload = gpmf.read(raw)
        except ValueError:
            self._broken += 1
            return
        self._without.update(payload.without)
        seen: Counter[object] = Counter()
        frames_us = _frames_us(payload)
        for stream in payload.streams:
            seen[stream.key, stream.source] += 1
            label = self._label(stream, seen[stream.key, stream.source])
            if stream.key in POSITIONS:
                self._positions += len(stream.values_NC)
                self._unusable += stream.unusable
            start_us, end_us = _span(stream, frames_us, begin_us, length_us)
            start_us = max(start_us, self._ends.get(label, 0))
            if end_us - start_us < len(stream.values_NC):  # no µs for each sample
                end_us = start_us + length_us
            self._ends[label] = end_us
            for block in _blocks(stream, label, start_us, end_us):
                self._waiting.push(block)
        yield from self._waiting.until(begin_us - LONGEST_SHIFT_US)

    def rest(self) -> Iterator[Outgoing]:
        """The last blocks."""
        yield from self._waiting.rest()

    def notes(self) -> Iterator[str]:
        """What was left out so far, without the file's name."""
        if self._broken:
            yield f"{self._broken} broken telemetry payloads were left out"
        if self._without:
            yield f"telemetry that is no numbers over time was not sent: {', '.join(sorted(self._without))}"
        if self._unusable:
            yield (
                f"{self._unusable} of {self._positions} GPS positions were left out: there was no fix, or a dilution "
                f"of precision above {gpmf.WORST_DOP:g}"
            )

    def _label(self, stream: gpmf.Stream, nth: int) -> str:
        """What its channels begin with: its key, with a number if another sensor has the key as well."""
        identity = stream.key, stream.source, nth
        if identity not in self._labels:
            others = sum(key == stream.key for key, _, _ in self._labels)
            self._labels[identity] = f"{stream.key}_{others + 1}" if others else stream.key
        return self._labels[identity]


def utc_us(payloads: Iterable[Timed]) -> int | None:
    """When the recording began by GPS, in microseconds since the epoch; ``None`` without a fix."""
    found = list(islice(_readings(islice(payloads, PAYLOADS)), READINGS))
    return median_low(found) if found else None


def channels(payloads: Iterable[Timed]) -> frozenset[str]:
    """Names of the channels that are in the first payloads."""
    track = Track()
    blocks = [block for timed in islice(payloads, FIRST) for block in track.add(*timed)]
    blocks += track.rest()
    return frozenset(name for block in blocks for name in msgspec.json.decode(block.payload, type=Telemetry).channels)


def _readings(payloads: Iterable[Timed]) -> Iterator[int]:
    """When the recording began, µs since the epoch, by each payload with a fix."""
    receives = False
    for count, (raw, begin_us, length_us) in enumerate(payloads):
        if count == WITHOUT_GPS and not receives:
            return
        try:
            payload = gpmf.read(raw)
        except ValueError:
            continue
        receives = receives or any(stream.key in POSITIONS for stream in payload.streams)
        dated = [(stream.key, stream, *stream.utc) for stream in payload.streams if stream.utc is not None]
        if dated:
            _, stream, row, moment = max(dated, key=itemgetter(0))  # GPS9 rather than GPS5, which is less exact
            start_us, end_us = _span(stream, _frames_us(payload), begin_us, length_us)
            at_us = start_us + (end_us - start_us) * row // len(stream.values_NC)
            yield round((moment - EPOCH).total_seconds() * 1e6) - at_us


def _frames_us(payload: gpmf.Payload) -> int | None:
    """The camera's time of the payload's first frame."""
    stamps = {stream.key: stream.stamp_us for stream in payload.streams if stream.stamp_us is not None}
    return next((stamps[key] for key in OF_FRAMES if key in stamps), None)


def _span(stream: gpmf.Stream, frames_us: int | None, begin_us: int, length_us: int) -> tuple[int, int]:
    """When the first sample was taken, and when the one after the last."""
    shift_us = -stream.late_us
    if frames_us is not None and stream.stamp_us is not None:
        shift_us += stream.stamp_us - frames_us
    if abs(shift_us) > LONGEST_SHIFT_US:
        shift_us = 0
    return begin_us + shift_us, begin_us + length_us + shift_us


def _blocks(stream: gpmf.Stream, label: str, start_us: int, end_us: int) -> Iterator[Outgoing]:
    count = len(stream.values_NC)
    names = [label + name.removeprefix(stream.key) for name in stream.names]
    times_us = start_us + np.arange(count) * (end_us - start_us) // count
    return timed(times_us, stream.values_NC, names, stream.units)
