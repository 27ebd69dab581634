"""Film and sound files, through PyAV (FFmpeg): frames, sound, subtitles, GoPro's telemetry.

container   its tracks, which are sent      timeline                       its clock, its length
tracks      reading a track                 pictures, fields, jpeg, tone   video
sound       audio                           captions                       subtitles, and files of words beside it
                                            gopro, gpmf, gpmftrack         GoPro's telemetry
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import msgspec

from streamer import events
from streamer.errors import UsageError
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay import speech
from streamer.feeds.replay.media import captions, gopro
from streamer.feeds.replay.media.container import (
    AUDIO,
    DATA,
    SUBTITLE,
    VIDEO,
    choose,
    cut_off,
    left_out,
    opened,
    tracks_of,
)
from streamer.feeds.replay.media.pictures import pictures
from streamer.feeds.replay.media.sound import sound
from streamer.feeds.replay.media.timeline import timeline
from streamer.feeds.replay.media.tracks import Tracks
from streamer.feeds.replay.part import S_US, Options, Part, due, header

CLOCK_SET_US = 946_684_800 * S_US  # 2000; earlier times come from cameras whose clock was never set
ROWS = {VIDEO: events.IMAGE, AUDIO: events.AUDIO, SUBTITLE: events.TEXT, DATA: events.TELEMETRY}

Reader = Callable[[int], Iterator[Outgoing]]  # of a track, from a time on


def part(path: Path, options: Options) -> Part:
    """Open a film or sound file.

    Raises:
        UsageError: It is broken, has no such track, or nothing that can be sent.
    """
    with opened(path) as container:
        listed = tracks_of(path, container)
        numbers = frozenset(str(track.number) for track in listed)
        mapped = {int(name): sensor for name, sensor in options.sensors.items() if name in numbers}
        if len(set(mapped.values())) < len(mapped):
            raise UsageError(f"{path}: tracks {', '.join(map(str, mapped))} cannot be one sensor; declare another")
        chosen = choose(path, container, listed, options.streams, list(mapped))
        times = timeline(path, container, list(chosen))
        utc_us = _created_us(container.metadata.get("creation_time", ""))
        broken = list(cut_off(path, container))
        languages = {index: _language(container.streams[index].language) for index in chosen}
    made = Part(
        path, times.length_us, lambda _: iter(()), frozenset(), utc_us=utc_us, tracks=len(listed), topics=numbers
    )
    tracks = Tracks(made, times)
    readers: list[Reader] = []
    rows = {index: _row(path, index, kind, mapped.get(index)) for index, kind in chosen.items()}
    written = [index for index, kind in chosen.items() if kind == SUBTITLE]
    asked = any(index in options.streams or index in mapped for index in written)
    heard = next((languages[index] for index, kind in chosen.items() if kind == AUDIO), None)
    if not asked and (words := _beside(made, heard, options)) is not None:
        for index in written:
            if words.row == rows[index]:
                del chosen[index]
        made.sends |= {words.row}
        made.channels, made.utc_us = words.channels, made.utc_us or words.utc_us
        readers.append(lambda _: words.records(made.length_us))
    made.sends |= {rows[index] for index in chosen if index not in mapped}
    made.named = frozenset(mapped.values())
    made.notes += (*broken, *left_out(path, listed, chosen))
    for index, kind in chosen.items():
        reader = _reader(tracks, kind, index, options, languages)
        readers.append(reader if index not in mapped else _named(reader, mapped[index]))
        if kind == DATA:
            made.utc_us = gopro.utc_us(tracks, index)
            made.channels = gopro.channels(tracks, index)

    def records(begin_us: int) -> Iterator[Outgoing]:
        yield from heapq.merge(*(read(begin_us) for read in readers), key=due)
        tracks.end()

    made.records = records
    return made


def _row(path: Path, index: int, kind: str, sensor: events.Sensor | None) -> int:
    """The kind of records that a track becomes."""
    row = events.TELEMETRY if kind == SUBTITLE and captions.is_log(path, index) else ROWS[kind]
    if sensor is not None and sensor.row != row:
        what, wanted = events.KIND_NAMES[row], events.KIND_NAMES[sensor.row]
        raise UsageError(f"{path}: track {index} is {what}, and {sensor.name} a sensor of kind {wanted}")
    return row


def _named(reader: Reader, sensor: events.Sensor) -> Reader:
    """The records of a track as those of a sensor."""
    name = header(sensor)
    return lambda begin_us: (msgspec.structs.replace(record, sensor=name) for record in reader(begin_us))


def _reader(tracks: Tracks, kind: str, index: int, options: Options, languages: dict[int, str | None]) -> Reader:
    by_kind: dict[str, Reader] = {
        VIDEO: lambda begin_us: pictures(tracks, index, options.rate_hz, begin_us),
        AUDIO: lambda begin_us: sound(tracks, index, begin_us),
        SUBTITLE: lambda _: captions.subtitles(tracks, index, languages[index]),
        DATA: lambda begin_us: gopro.measured(tracks, index, begin_us),
    }
    return by_kind[kind]


def _beside(made: Part, language: str | None, options: Options) -> speech.Words | None:
    """The words beside a film or sound file; ``None`` if there are none."""
    found = captions.beside(made.path, speech.SUFFIXES, language, options.given)
    words = speech.first_of(found, made.notes)
    if words is not None:
        paths = [path for path, _ in found]
        others = paths[paths.index(words.path) + 1 :]
        made.uses = frozenset({words.path, *others})
        made.notes += (f"{made.path}: {other} is not sent, since {words.path.name} is" for other in others)
    return words


def _language(stated: str | None) -> str | None:
    return None if stated == "und" else stated


def _created_us(text: str) -> int | None:
    try:
        created_us = round(datetime.fromisoformat(text).timestamp() * S_US)
    except ValueError:
        return None
    return created_us if created_us >= CLOCK_SET_US else None
