"""When things happen in a film: where its clock begins, how long it is, and where the clock was reset.

The clock of an MPEG stream restarts wherever two recordings were joined, and Ogg files may be chained; players go on
from where they are. Such files are read once before they are sent, as are those that do not state their length, or
state one that their index contradicts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.error import FFmpegError

from streamer.feeds.replay.media.container import AUDIO, VIDEO, demuxed, opened, us
from streamer.feeds.replay.part import S_US

# formats whose length FFmpeg guesses from the bit rate, or reads from the last of several pieces; and whose clock may
# restart: https://ffmpeg.org/doxygen/trunk/avformat_8h.html, AVFMT_TS_DISCONT
SCANNED = {"aac", "flv", "mp3", "mpeg", "mpegts", "ogg"}
SEEKABLE = ("mov", "matroska")
STAMP = re.compile(r"(\d+):(\d+):([\d.]+)")  # how Matroska files state the length of a track
TICK_US = S_US // av.time_base  # of times of the container
BACK_US = 100_000  # a clock that runs back by more has restarted; decoding order moves times by less
FORWARD_US = 10 * S_US  # a clock that jumps by more has been set; less is missing from the recording
DOUBT_US = S_US  # an index that differs more from the stated length contradicts it
LONGEST_PACKET_US = 10 * S_US  # more is an error of the container


class Timeline(NamedTuple):
    """How times of a film's tracks become microseconds from its start.

    Attributes:
        origin_us: The container's time of the first picture or sound.
        stated_us: Where the tracks that are sent should end; less than the length where others are longer.
        shifts: Track -> number of a packet of it, and what to add to the times from there on, µs; ascending.
        seekable: Whether reading may begin in the middle.
    """

    origin_us: int
    length_us: int
    stated_us: int
    shifts: Mapping[int, Sequence[tuple[int, int]]] = {}
    seekable: bool = False

    def at_us(self, ticks: int, time_base: Any) -> int:
        """Time from the film's start."""
        return us(ticks, time_base) - self.origin_us


def timeline(path: Path, container: Any, indices: Sequence[int]) -> Timeline:
    """The timeline of a film.

    Args:
        indices: Numbers of the tracks that are sent.
    """
    starts = [
        us(stream.start_time, stream.time_base)
        for stream in container.streams
        if stream.type in (VIDEO, AUDIO) and stream.start_time is not None
    ]
    origin_us = min(starts, default=(container.start_time or 0) * TICK_US)
    if not any(container.streams[index].type == VIDEO for index in indices):
        origin_us = _first_us(path, indices, origin_us)
    length_us = (container.duration or 0) * TICK_US
    names = container.format.name.split(",")
    if not SCANNED.isdisjoint(names) or _doubtful(container, indices, origin_us, length_us):
        pieces = _scanned(path, indices)
        shifts_us = list(_shifts_us(pieces, [i for i in indices if container.streams[i].type == VIDEO]))
        ends = [end + shift for piece, shift in zip(pieces, shifts_us, strict=True) for end in piece.ends_us.values()]
        length_us = max(0, max(ends, default=origin_us) - origin_us)
        if len(pieces) > 1:
            return Timeline(origin_us, length_us, length_us, _by_track(pieces, shifts_us))
    stated = [_stated_us(container.streams[index], origin_us) for index in indices]
    stated_us = max((end_us for end_us in stated if end_us is not None), default=length_us)
    return Timeline(origin_us, length_us, min(length_us, stated_us), seekable=names[0] in SEEKABLE)


def _stated_us(stream: Any, origin_us: int) -> int | None:
    """Where a track ends according to its header; ``None`` if that does not say."""
    if stream.duration is not None:
        return us((stream.start_time or 0) + stream.duration, stream.time_base) - origin_us
    found = STAMP.fullmatch(stream.metadata.get("DURATION", ""))
    if found is None:
        return None
    hours, minutes, seconds = found.groups()
    return int((int(hours) * 3600 + int(minutes) * 60 + float(seconds)) * S_US)


def _first_us(path: Path, indices: Sequence[int], origin_us: int) -> int:
    """When the first sample of a sound file is: decoders leave out what encoders put in front of it."""
    with opened(path) as container:
        sound = [container.streams[index] for index in indices if container.streams[index].type == AUDIO]
        try:
            first = next(container.decode(sound), None) if sound else None
        except FFmpegError:
            return origin_us  # the user learns of it when the file is sent
    return origin_us if first is None or first.pts is None else us(first.pts, first.time_base)


def _doubtful(container: Any, indices: Sequence[int], origin_us: int, length_us: int) -> bool:
    """Whether the container states no length, or one that is not where its index ends."""
    if not length_us:
        return True
    whole, ends_us = True, []
    for index in indices:
        stream = container.streams[index]
        entries = stream.index_entries
        whole = whole and 0 < stream.frames <= len(entries)
        if len(entries):
            ends_us.append(us(entries[-1].timestamp, stream.time_base) - origin_us)
    last_us = max(ends_us, default=0)
    return last_us > length_us + DOUBT_US or (whole and last_us < length_us - 2 * DOUBT_US)


@dataclass
class _Piece:
    """A stretch of a film in which its clock goes on.

    Attributes:
        begins: Track -> number of its first packet.
        firsts_us: Track -> earliest time.
        ends_us: Track -> end of the last packet.
        last_us: Time at which the last packet of any track is decoded.
    """

    begins: dict[int, int] = field(default_factory=dict)
    firsts_us: dict[int, int] = field(default_factory=dict)
    ends_us: dict[int, int] = field(default_factory=dict)
    last_us: int = 0

    def add(self, index: int, number: int, begin_us: int, end_us: int) -> None:
        self.begins.setdefault(index, number)
        self.firsts_us[index] = min(begin_us, self.firsts_us.get(index, begin_us))
        self.ends_us[index] = max(end_us, self.ends_us.get(index, end_us))


def _scanned(path: Path, indices: Sequence[int]) -> list[_Piece]:
    """Read the times of all packets, and begin a piece wherever the clock of a track jumps."""
    pieces = [_Piece()]
    inside = dict.fromkeys(indices, 0)  # track -> which piece its last packet was of
    lasts_us: dict[int, int] = {}
    with opened(path) as container:
        for packet, number in counted(container, [container.streams[index] for index in indices]):
            index = packet.stream.index
            stamp = packet.dts if packet.dts is not None else packet.pts
            if stamp is None:
                continue
            stamp_us = us(stamp, packet.time_base)
            last_us, newest = lasts_us.get(index, stamp_us), pieces[-1]
            if pieces[inside[index]] is not newest and abs(stamp_us - newest.last_us) < abs(stamp_us - last_us):
                inside[index] = len(pieces) - 1  # after the track that showed that a new piece has begun
            elif stamp_us < last_us - BACK_US or stamp_us > max(last_us, newest.last_us) + FORWARD_US:
                inside[index] = len(pieces)
                pieces.append(_Piece())
            lasts_us[index] = pieces[inside[index]].last_us = stamp_us
            piece = pieces[inside[index]]
            if packet.pts is not None:
                begin_us = us(packet.pts, packet.time_base)
            else:
                begin_us = max(stamp_us, piece.ends_us.get(index, stamp_us))
            piece.add(index, number, begin_us, begin_us + _length_us(packet))
    return pieces


def counted(container: Any, streams: Sequence[Any]) -> Iterator[tuple[Any, int]]:
    """Packets with their numbers within their tracks. A file that is broken ends early, as it does when it is sent."""
    counts = {stream.index: 0 for stream in streams}
    try:
        for packet in demuxed(container, streams):
            if packet.size:
                trusted(packet)
                yield packet, counts[packet.stream.index]
                counts[packet.stream.index] += 1
    except FFmpegError:
        pass


def trusted(packet: Any) -> None:
    """Take away the time of a packet that FFmpeg took from behind a jump of the clock."""
    if packet.pts is not None and packet.dts is not None:
        ahead_us = us(packet.pts - packet.dts, packet.time_base)
        if not -FORWARD_US < ahead_us < FORWARD_US:
            packet.pts = None


def _length_us(packet: Any) -> int:
    length_us = us(packet.duration or 0, packet.time_base)
    if 0 < length_us < LONGEST_PACKET_US:
        return length_us
    rate_hz = packet.stream.average_rate if packet.stream.type == VIDEO else None
    return int(S_US / rate_hz) if rate_hz else 0


def _shifts_us(pieces: Sequence[_Piece], video: Sequence[int]) -> Iterator[int]:
    """What to add to the times of each piece, so that it follows those before it without a gap.

    Pictures follow each other exactly. Sound that is longer than them then overlaps, or has a gap.
    """
    ends_us: dict[int, int] = {}  # where each track has come to
    for number, piece in enumerate(pieces):
        again = [index for index in piece.firsts_us if index in ends_us]
        guides = [index for index in again if index in video] or again
        if number == 0:
            shift_us = 0
        elif guides:
            shift_us = ends_us[guides[0]] - piece.firsts_us[guides[0]]
        else:
            shift_us = max(ends_us.values()) - min(piece.firsts_us.values())
        ends_us |= {index: end_us + shift_us for index, end_us in piece.ends_us.items()}
        yield shift_us


def _by_track(pieces: Sequence[_Piece], shifts_us: Sequence[int]) -> dict[int, list[tuple[int, int]]]:
    shifts: dict[int, list[tuple[int, int]]] = {}
    for piece, shift_us in zip(pieces, shifts_us, strict=True):
        for index, number in piece.begins.items():
            shifts.setdefault(index, []).append((number, shift_us))
    return shifts
