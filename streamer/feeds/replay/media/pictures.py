"""The pictures of a film.

They are decoded in one thread and made into JPEG in others. With a rate, pictures that are not sent are not made into
JPEG, and of H.264 those that no other picture refers to are not decoded either.
"""

from __future__ import annotations

import heapq
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from itertools import chain
from typing import Any

from av.video.reformatter import ColorTrc

from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.media.container import us
from streamer.feeds.replay.media.fields import deinterlaced
from streamer.feeds.replay.media.jpeg import AS_IS, SQUARE, Jpeg, Matrix, matrix_of, squared
from streamer.feeds.replay.media.tone import LIGHT
from streamer.feeds.replay.media.tracks import Tracks
from streamer.feeds.replay.part import S_US, Thinned, frame

MOST_THREADS = 4
DEFAULT_HZ = 25  # of raw streams, which have no times
WHOLE_PICTURES = (0, 1)  # AVFieldOrder: not known, progressive; else a packet may hold half a picture
MOST_HELD = 64  # packets; H.264 reorders at most 16 pictures
WIDEST = 4  # pixels more than so many times as wide as high, or as high as wide, are an error of the container
DOLBY = ("dvh1", "dvhe", "dva1", "dvav", "dav1")  # films that only a Dolby Vision decoder shows in the right colours


def pictures(tracks: Tracks, index: int, rate_hz: float | None, begin_us: int) -> Iterator[Outgoing]:
    """The pictures of a track in order of their times.

    Args:
        rate_hz: Most pictures a second; ``None``: all.
        begin_us: Pictures before it are left out.
    """
    packets = tracks.packets(index, begin_us)
    first = next(packets, None)
    if first is None:
        return
    packets, stream = chain([first], packets), first.stream
    choice = Choice(tracks, rate_hz, begin_us)
    stamps: list[int] = []
    if stream.container.format.name == "avi":
        packets = _stamped(packets, stamps)
    elif (
        rate_hz is not None
        and stream.codec_context.name == "h264"
        and stream.codec_context.field_order in WHOLE_PICTURES
    ):
        packets = choice.planned(packets)
    whole = deinterlaced(
        _timed(tracks, index, packets, stamps),
        begun=lambda: tracks.note(f"track {index} is interlaced: its pictures are deinterlaced"),
    )
    yield from _encoded(choice.kept(whole), Look(tracks, stream))


def _encoded(chosen: Iterable[tuple[Any, int]], look: Look) -> Iterator[Outgoing]:
    """Records of pictures, made in as many threads as there are cores; memory holds little more than one for each."""
    threads = min(MOST_THREADS, _cores())
    jpeg = Jpeg(look.pixel)
    waiting: deque[tuple[int, Future[bytes]]] = deque()
    with ThreadPoolExecutor(threads, "jpeg") as pool:
        for picture, time_us in chosen:
            waiting.append((time_us, pool.submit(jpeg, picture, look.matrix(picture))))
            if len(waiting) > threads:
                begun_us, encoded = waiting.popleft()
                yield frame(encoded.result(), begun_us)
        for begun_us, encoded in waiting:
            yield frame(encoded.result(), begun_us)


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# times


def _stamped(packets: Iterable[Any], stamps: list[int]) -> Iterator[Any]:
    """Packets of an AVI file, which have only the times at which they are decoded: in order, those of the pictures."""
    for packet in packets:
        if packet.size and packet.dts is not None:
            heapq.heappush(stamps, packet.dts)
        yield packet


def _timed(tracks: Tracks, index: int, packets: Iterable[Any], stamps: list[int]) -> Iterator[tuple[Any, int]]:
    """Pictures from the start of the film on, with their times, which ascend."""
    last_us = step_us = early = damaged = 0
    for picture in tracks.decoded(index, packets):
        pts = heapq.heappop(stamps) if stamps else picture.pts
        time_us = last_us + step_us if pts is None else tracks.at_us(pts, picture.time_base)
        step_us = us(picture.duration or 0, picture.time_base) or S_US // DEFAULT_HZ
        if time_us < 0:
            early += 1
            continue
        damaged += picture.is_corrupt
        last_us = max(time_us, last_us)
        yield picture, last_us
    if early:
        tracks.note(f"{early} pictures of track {index} before the start of the film were left out")
    if damaged:
        tracks.note(f"{damaged} pictures of track {index} are damaged")


class Choice:
    """Chooses which pictures to keep, if possible before they are decoded.

    Packets come in the order in which they are decoded; the choice is made in the order in which their pictures are
    shown. It can be made for all that are shown before the last packet read is decoded: no later packet is shown
    before that.

    Args:
        rate_hz: Most pictures a second; ``None``: all.
        begin_us: Pictures before it are left out.
    """

    def __init__(self, tracks: Tracks, rate_hz: float | None, begin_us: int) -> None:
        self._at_us: Callable[[int, Any], int] = tracks.at_us
        self._begin_us = begin_us
        self._thinned = Thinned(rate_hz)
        self._open: list[int] = []  # times at which packets are shown that are not decided, a heap
        self._decided: deque[tuple[int, bool]] = deque()  # time from the film's start, and whether it is kept
        self._dropped: set[int] = set()

    def kept(self, timed: Iterable[tuple[Any, int]]) -> Iterator[tuple[Any, int]]:
        """The pictures to send."""
        for picture, time_us in timed:
            while self._decided and self._decided[0][0] < time_us:
                self._decided.popleft()
            if self._decided and self._decided[0][0] == time_us:
                keep = self._decided.popleft()[1]
            else:
                keep = self._keeps(time_us)
            if keep:
                yield picture, time_us

    def planned(self, packets: Iterable[Any]) -> Iterator[Any]:
        """Packets; the decoder passes over those whose picture is neither kept nor referred to."""
        held: deque[Any] = deque()
        for packet in packets:
            held.append(packet)
            if packet.size and packet.pts is not None:
                heapq.heappush(self._open, packet.pts)
            # the first packets of Matroska have no time at which they are decoded
            last = not packet.size or packet.pts is None or len(held) > MOST_HELD
            if last or packet.dts is not None:
                self._decide(None if last else packet.dts, packet.time_base)
            while held and (not self._open or held[0].pts is None or held[0].pts < self._open[0]):
                yield self._marked(held.popleft())
        yield from map(self._marked, held)

    def _decide(self, until: int | None, time_base: Any) -> None:
        """Decide on what is shown until then; ``None``: on all that is open."""
        while self._open and (until is None or self._open[0] <= until):
            pts = heapq.heappop(self._open)
            time_us = self._at_us(pts, time_base)
            keep = self._keeps(time_us)
            self._decided.append((time_us, keep))
            if not keep:
                self._dropped.add(pts)

    def _keeps(self, time_us: int) -> bool:
        return time_us >= self._begin_us and self._thinned.keeps(time_us - self._begin_us)

    def _marked(self, packet: Any) -> Any:
        drop = packet.pts in self._dropped
        self._dropped.discard(packet.pts)
        packet.stream.codec_context.skip_frame = "NONREF" if drop else "DEFAULT"
        return packet


# what a picture is


def pixel_of(stream: Any) -> Fraction:
    """Width of a track's pixels divided by their height."""
    ratio = stream.sample_aspect_ratio
    return ratio if ratio and 1 <= max(ratio, 1 / ratio) <= WIDEST else SQUARE


class Look:
    """What the pictures of a track need to be shown right. What is changed in them is noted, or should have been.

    Attributes:
        pixel: Width of a pixel divided by its height.
    """

    def __init__(self, tracks: Tracks, stream: Any) -> None:
        self._tracks, self._index, self._codec_tag = tracks, stream.index, stream.codec_tag
        self.pixel = pixel_of(stream)
        self._seen: object = None
        self._matrix: Matrix = AS_IS

    def matrix(self, picture: Any) -> Matrix:
        """How to turn and mirror a picture; looked at again only where the track changes."""
        seen = (picture.rotation, picture.width, picture.height, picture.color_trc)
        if seen != self._seen:
            self._seen, self._matrix = seen, matrix_of(picture)
            self._describe(picture)
        return self._matrix

    def _describe(self, picture: Any) -> None:
        note, track = self._tracks.note, f"track {self._index}"
        if picture.color_trc in LIGHT:
            note(f"{track} is HDR ({LIGHT[picture.color_trc][0]}): its pictures are tone-mapped to sRGB")
        size = squared(picture.width, picture.height, self.pixel)
        if size != (picture.width, picture.height):
            note(
                f"the pixels of {track} are not square: its pictures are stretched from "
                f"{picture.width} × {picture.height} to {size[0]} × {size[1]}"
            )
        if self._codec_tag in DOLBY and picture.color_trc not in (*LIGHT, ColorTrc.BT709):
            note(f"{track} is Dolby Vision without an ordinary base layer: its colours are wrong")
