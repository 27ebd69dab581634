"""A window -> what was said, measured and seen in it, read from Kafka; for threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamer.errors import BadRecord
from streamer.events import IMAGE, TELEMETRY, TEXT, Event
from streamer.model import payloads, pictures
from streamer.result import Result
from streamer.retrieval.contents import Gone, Ranges, Records, Signal, readable, signals

MAX_GAP = 1000  # records between those of two windows; more are not read through, but skipped by another read


class Words(msgspec.Struct, frozen=True):
    """What was said in a window.

    Attributes:
        phrases: In the order of their records; of those with times of words, the words inside the window.
        gone: There were more, which Kafka has deleted.
    """

    phrases: tuple[str, ...] = ()
    gone: bool = False


class Sights(msgspec.Struct, frozen=True):
    """Frames of a window.

    Attributes:
        frames: uint8 [H, W, 3] each, RGB, upright, in order of time.
        cameras: The sensor of each.
        gone: There were some, and none is left or can be read.
    """

    frames: tuple[NDArray[np.uint8], ...] = ()
    cameras: tuple[str, ...] = ()
    gone: bool = False


class Measured(msgspec.Struct, frozen=True):
    """Telemetry of a window.

    Attributes:
        channels: By name; one that several sensors have is ``SENSOR.CHANNEL``.
        gone: There was more, which Kafka has deleted.
    """

    channels: dict[str, Signal] = {}
    gone: bool = False


def sights(records: Records, result: Result, count: int, longest: int, max_pixels: int) -> Sights:
    """Frames of a window: of one camera spread evenly, of several the newest of each.

    Args:
        count: At most this many.
        longest: Most pixels of a side.
        max_pixels: Larger frames are left out, unopened.

    Raises:
        Unavailable: Kafka does not answer in time.
    """
    offsets = [offset for first, last in records.ranges(result, IMAGE) for offset in range(first, last + 1)]
    if not offsets or not count:
        return Sights()
    sensors = records.sensors(result)
    cameras = [sensors.names[number] for number in sensors.of_kind(IMAGE) if sensors.names[number] in result.present]
    events: list[Event] = []
    if len(cameras) > 1:
        events = _newest(records, result)[:count]
    else:
        chosen = sorted({offsets[(2 * i + 1) * len(offsets) // (2 * count)] for i in range(count)})
        for offset in chosen:  # one by one, since frames are large and most are not wanted
            events += _there(records, result, IMAGE, [(offset, offset)])
    frames = []
    for event in events:
        with suppress(BadRecord, Image.DecompressionBombError, ValueError, OSError, SyntaxError, MemoryError):
            picture = pictures.fitted(payloads.payload(event), event.media_type, longest, max_pixels)
            frames.append((picture, sensors.names[event.sensor]))
    return Sights(tuple(picture for picture, _ in frames), tuple(name for _, name in frames), gone=not frames)


def measured(records: Records, result: Result) -> Measured:
    """The telemetry of a window.

    Raises:
        Unavailable: Kafka does not answer in time.
    """
    ranges = records.ranges(result, TELEMETRY)
    blocks: dict[int, list[Event]] = {}
    for event in _there(records, result, TELEMETRY, ranges) if ranges else []:
        blocks.setdefault(event.sensor, []).append(event)
    names = records.sensors(result).names
    found = {names[sensor]: signals(own, result.start_us, result.end_us) for sensor, own in blocks.items()}
    often = Counter(channel for channels in found.values() for channel in channels)
    named = {
        channel if often[channel] == 1 else f"{sensor}.{channel}": signal
        for sensor, channels in found.items()
        for channel, signal in channels.items()
    }
    return Measured(named, gone=bool(ranges) and not blocks)


def _newest(records: Records, result: Result) -> list[Event]:
    """The newest frame of each camera, as far as Kafka still has it."""
    try:
        return [event for event in records.newest_frames(result).values() if event is not None]
    except Gone:
        return []


def _there(records: Records, result: Result, row: int, ranges: Ranges) -> list[Event]:
    """The events that Kafka still has."""
    try:
        return records.events(result, row, ranges)
    except Gone:
        return []


def words(records: Records, results: Sequence[Result]) -> list[Words]:
    """The words of consecutive windows of one session.

    They are read together, since windows that follow each other have records that do. Only if Kafka has deleted some
    of them is each window read for itself.

    Raises:
        Unavailable: Kafka does not answer in time.
    """
    found: list[Words] = []
    for group in _near(records, results):
        offsets = [range_ for result in group for range_ in records.ranges(result, TEXT)]
        if not offsets:
            found += [Words()] * len(group)
            continue
        try:
            events = records.events(group[0], TEXT, offsets)
        except Gone:
            found += [_alone(records, result) for result in group]
        else:
            found += [_said(records, result, events) for result in group]
    return found


def _near(records: Records, results: Sequence[Result]) -> Iterator[list[Result]]:
    """The windows in groups that have the same sensors and whose records of words lie near each other."""
    group: list[Result] = []
    last = None
    for result in results:
        ranges = records.ranges(result, TEXT)
        far = ranges and last is not None and not -MAX_GAP < ranges[0][0] - last < MAX_GAP
        if far or (group and records.sensors(result) != records.sensors(group[-1])):
            yield group
            group = []
        group.append(result)
        last = ranges[-1][1] if ranges else last
    if group:
        yield group


def _alone(records: Records, result: Result) -> Words:
    ranges = records.ranges(result, TEXT)
    try:
        return _said(records, result, records.events(result, TEXT, ranges) if ranges else ())
    except Gone:
        return Words(gone=True)


def _said(records: Records, result: Result, events: Iterable[Event]) -> Words:
    ranges = records.ranges(result, TEXT)
    own = [event for event in events if any(first <= event.record.offset <= last for first, last in ranges)]
    spoken = readable(own, lambda event: payloads.spoken(event, result.start_us, result.end_us))
    phrases = tuple(" ".join(text.split()) for text, share in spoken if text and share > 0)
    return Words(phrases, gone=bool(ranges) and not own)
