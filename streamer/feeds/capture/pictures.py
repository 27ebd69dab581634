"""Video packets become JPEG records: chosen before they are decoded where that can be, else before they are encoded."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import simplejpeg
from av.codec.codec import Properties
from av.error import FFmpegError

from streamer.events import IMAGE
from streamer.feeds.capture.camera import Taker
from streamer.feeds.capture.clock import Ascending, Stamp
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.media.jpeg import Jpeg, matrix_of
from streamer.feeds.replay.media.pictures import WHOLE_PICTURES, pixel_of
from streamer.feeds.replay.part import NO_SESSION, S_US
from streamer.model.jpeg import SOI, SOS, segments

JPEG_CODEC = "mjpeg"
DHT = 0xC4  # Huffman tables
MARKER_BYTES = 4  # of a segment, with its length
SKIPS = ("h264", "hevc")  # decoders that pass over pictures to which no other refers
MOST_BEHIND = 64  # slots; pictures are decoded by at most 16 before they are shown


@cache
def _tables() -> bytes:
    """The Huffman tables of ITU-T T.81, annex K.3, which libjpeg writes into every picture."""
    picture = simplejpeg.encode_jpeg(np.zeros((8, 8, 3), np.uint8))
    return b"".join(picture[one.begin - MARKER_BYTES : one.end] for one in segments(picture) if one.marker == DHT)


def with_tables(content: bytes) -> bytes:
    """A picture with the tables that many webcams leave out and not every program takes for granted."""
    found = list(segments(content))
    if any(one.marker == DHT for one in found) or not found or found[-1].marker != SOS:
        return content
    scan = found[-1].begin - MARKER_BYTES
    return content[:scan] + _tables() + content[scan:]


class Slots:
    """Chooses the first picture that comes in each slot of time, in order of decoding.

    Of pictures that are decoded before they are shown, those to which others refer come first: they must be decoded
    anyway.

    Args:
        rate_hz: Slots a second; ``None``: all pictures are kept.
    """

    def __init__(self, rate_hz: float | None) -> None:
        self._rate_hz = rate_hz
        self._taken: set[int] = set()
        self._newest = 0

    def keeps(self, time_us: int) -> bool:
        """Whether to send the picture of this time."""
        if self._rate_hz is None:
            return True
        slot = int(time_us * self._rate_hz / S_US)
        if slot in self._taken or slot <= self._newest - MOST_BEHIND:
            return False
        self._newest = max(self._newest, slot)
        self._taken = {one for one in self._taken if one > self._newest - MOST_BEHIND} | {slot}
        return True


class Pictures(Taker):
    """The pictures of one connection.

    Args:
        slots: Of the sensor, like ``ascending``: they go on from connection to connection.
        emit: Takes a record without a session.
        damaged: Called for each picture that was chosen and cannot be sent.
    """

    def __init__(
        self,
        stream: Any,
        slots: Slots,
        ascending: Ascending,
        emit: Callable[[Outgoing], None],
        damaged: Callable[[], None],
    ) -> None:
        self._slots, self._ascending = slots, ascending
        self._emit, self._damaged = emit, damaged
        context = self._context = stream.codec_context
        self._is_jpeg = context.name == JPEG_CODEC
        self._alone = bool(context.codec.properties & Properties.INTRA_ONLY.value)
        self._skips = context.name in SKIPS and context.field_order in WHOLE_PICTURES
        self._jpeg = Jpeg(pixel_of(stream))
        self._seen: object = None
        self._begun = False
        self._awaited: set[int] = set()  # times of the chosen pictures that are in the decoder
        if not self._is_jpeg:
            context.thread_count = 1  # more would hold back as many pictures
            context.copy_opaque = True

    def take(self, packet: Any, stamp: Stamp) -> None:
        """Send the picture of a packet, if it is chosen and already whole."""
        keep = self._slots.keeps(stamp.time_us)
        if self._is_jpeg:
            if keep:
                self._pass_on(packet, stamp)
            return
        if not keep and self._alone:
            return
        if self._skips:
            self._context.skip_frame = "DEFAULT" if keep else "NONREF"
        packet.opaque = stamp if keep else None
        if keep:
            self._awaited.add(stamp.time_us)
        try:
            pictures = packet.decode()
        except FFmpegError:
            return  # what does not come out is counted
        for picture in pictures:
            self._begun = True
            if picture.opaque is not None:
                self._passed(picture.opaque.time_us)
                self._encode(picture, picture.opaque)
        if len(self._awaited) > MOST_BEHIND:
            self._passed(min(self._awaited) + 1)

    def _passed(self, time_us: int) -> None:
        """Count the chosen pictures before this one that the decoder has not given: it never will."""
        lost = {one for one in self._awaited if one < time_us}
        self._awaited -= {*lost, time_us}
        for _ in lost if self._begun else ():  # before the first key frame nothing can be decoded
            self._damaged()

    def _pass_on(self, packet: Any, stamp: Stamp) -> None:
        content = bytes(packet)
        if not content.startswith(SOI):
            self._damaged()
            return
        self._send(with_tables(content), stamp)

    def _encode(self, picture: Any, stamp: Stamp) -> None:
        if picture.is_corrupt:
            self._damaged()
            return
        form = (picture.rotation, picture.width, picture.height)
        if form != self._seen:
            self._seen, self._matrix = form, matrix_of(picture)
        self._send(self._jpeg(picture, self._matrix), stamp)

    def _send(self, content: bytes, stamp: Stamp) -> None:
        time_us, source = self._ascending.next(stamp)
        self._emit(Outgoing(IMAGE, NO_SESSION, time_us, content, "image/jpeg", time_us, time_source=source))
