"""Audio packets become chunks that tile, at the rate and with the channels that the source has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from av.error import FFmpegError

from streamer.events import TimeSource
from streamer.feeds.capture.camera import Taker
from streamer.feeds.capture.clock import Stamp
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.media.sound import Even, Steady
from streamer.feeds.replay.part import Sound


class End:
    """Where the sound of a sensor ends, through any number of connections; 0 before there is any."""

    def __init__(self) -> None:
        self.time_us = 0


class Sounds(Taker):
    """The sound of one connection.

    Args:
        what: For an error.
        end: Of the sensor: sound that another connection has sent already is left out.
        emit: Takes a record without a session.
        damaged: Called for each packet that cannot be decoded.
    """

    def __init__(
        self, stream: Any, what: str, end: End, emit: Callable[[Outgoing], None], damaged: Callable[[], None]
    ) -> None:
        self._what, self._end = what, end
        self._emit, self._damaged = emit, damaged
        self._even: Even | None = None
        self._source = TimeSource.ARRIVAL
        stream.codec_context.copy_opaque = True

    def take(self, packet: Any, stamp: Stamp) -> None:
        """Send the chunks that a packet fills.

        Raises:
            UsageError: The sound has a rate or channels that no record can have.
        """
        packet.opaque = stamp
        try:
            frames = packet.decode()
        except FFmpegError:
            self._damaged()
            return
        last: Stamp | None = None
        for heard in frames:
            if self._even is None:
                self._even = Even(heard)
                self._sound = Sound(self._what, self._even.rate_hz, self._even.channels)
                self._steady = Steady(self._even.rate_hz)
            told: Stamp = heard.opaque or stamp
            follows = told is last  # one of several that came in one packet
            last = told
            self._source = told.source
            ends_us = self._sound.end_us if self._steady.begun else None
            if ends_us is None and self._end.time_us > told.time_us:
                ends_us = self._end.time_us
            time_us = ends_us if follows and ends_us is not None else told.time_us
            samples, time_us = self._steady.fit(self._even(heard), time_us, ends_us)
            if len(samples):
                self._send_all(self._sound.add(samples, max(time_us, self._end.time_us)))

    def end(self) -> None:
        """Send what is left."""
        if self._even is not None:
            self._send_all(self._sound.rest())

    def _send_all(self, chunks: Any) -> None:
        for chunk in chunks:
            self._end.time_us = chunk.due_us
            self._emit(msgspec.structs.replace(chunk, time_source=self._source))
