"""One source: opened, read until it ends, opened again, for as long as the process lives.

A source that is away is reported once, until it is back. Only what cannot become right by waiting, at the very first
attempt, is an error.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from time import monotonic, time_ns
from typing import Any, NamedTuple

import av
from av.error import (
    DemuxerNotFoundError,
    FFmpegError,
    HTTPForbiddenError,
    HTTPUnauthorizedError,
    InvalidDataError,
    OptionNotFoundError,
    ProtocolNotFoundError,
)

from streamer.backoff import Backoff
from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, KIND_NAMES, Sensor, TimeSource
from streamer.feeds.capture.address import Source
from streamer.feeds.capture.clock import Clock, Stamp
from streamer.feeds.capture.metrics import CaptureMetrics
from streamer.feeds.replay.media.container import demuxed, us, why

log = logging.getLogger(__name__)

# how long FFmpeg looks for streams and what they are, µs of media; RTSP describes them
LOOK_US, LOOK_RTSP_US = 1_000_000, 200_000
OPEN_S = 10.0
LONGEST_BURST_S = 2.0
AT_ONCE_US = 10_000  # a packet that was waited for shorter than this was there already
TYPES = {IMAGE: "video", AUDIO: "audio"}
NO_TIMES = ("mpjpeg", "mjpeg", "image2pipe", "jpeg_pipe")  # FFmpeg makes time stamps up
PRFT, REPORT = "prft", struct.Struct("<q")  # AVProducerReferenceTime begins with the wall time, µs since the epoch
# What waiting does not change.
LASTING = (ProtocolNotFoundError, DemuxerNotFoundError, OptionNotFoundError, HTTPUnauthorizedError, HTTPForbiddenError)


class Arrived(NamedTuple):
    """A packet with what is known of its time.

    Attributes:
        media_us: By its own time stamp; ``None`` if there is none.
        wall_us: When it was taken by a clock that knows the date.
    """

    packet: Any
    arrival_us: int
    media_us: int | None
    wall_us: int | None


class Taker:
    """Takes the packets of one stream of one connection."""

    def take(self, packet: Any, stamp: Stamp) -> None:
        """Take the next packet."""
        raise NotImplementedError

    def end(self) -> None:
        """The connection has ended."""


class Camera:
    """A source and its connections.

    Args:
        sensors: Kind -> the sensor that its stream of that kind is.
        taker: Makes what takes the packets of a stream, for each connection anew.
        most_off_us: See :class:`Clock`.
        silence_s: A connection without a packet for so long is given up.
    """

    def __init__(
        self,
        source: Source,
        sensors: Mapping[int, Sensor],
        taker: Callable[[Any, Sensor], Taker],
        metrics: CaptureMetrics,
        most_off_us: int,
        silence_s: float,
    ) -> None:
        self.source = source
        self._sensors = sensors
        self._taker = taker
        self._metrics = metrics
        self._most_off_us = most_off_us
        self._silence_s = silence_s
        self._told: dict[str, TimeSource] = {}
        self._reported = False
        self.away: str | None = f"{source.name}: not opened yet"

    def run(self, stop: threading.Event) -> None:
        """Read until told to stop.

        Raises:
            UsageError: It cannot be captured, whenever it is there.
        """
        backoff, tried = Backoff(), False
        while not stop.is_set():
            try:
                with self._opened() as container:
                    streams = self._streams(container)
                    self._is_back()
                    if self._read(container, streams, stop):
                        backoff = Backoff()
                reason = "it has ended"
            except UsageError as error:
                if not tried:
                    raise
                reason = str(error)
            except FFmpegError as error:
                if not tried:
                    self._refuse_lasting(error)
                reason = why(error)
            except OSError as error:
                reason = str(error.strerror or error)
            tried = True
            if stop.is_set():
                break
            self._is_away(reason)
            stop.wait(backoff.next_s())
        self._metrics.connected.labels(self.source.name).set(0)

    def _opened(self) -> Any:
        source = self.source
        rtsp = source.url.startswith("rtsp")
        options = {"analyzeduration": str(LOOK_RTSP_US if rtsp else LOOK_US), **source.options}
        if rtsp:
            options["allowed_media_types"] = "+".join(TYPES[row] for row in self._sensors)
        if source.url.partition("?")[0].endswith(".m3u8"):
            options["live_start_index"] = "-1"  # the newest segment, not the third newest
        # a sender may take its time to come, and is then read as any other
        timeout = (None if source.listens else OPEN_S, self._silence_s)
        return av.open(source.url, format=source.form, options=options, timeout=timeout, metadata_errors="replace")

    def _refuse_lasting(self, error: FFmpegError) -> None:
        name, reason = self.source.name, why(error)
        if isinstance(error, ProtocolNotFoundError):
            protocol = self.source.url.partition("://")[0]
            raise UsageError(
                f"{name}: the FFmpeg in PyAV {av.__version__} does not speak {protocol}; have it sent by RTSP or RTMP, "
                "or install PyAV on an FFmpeg that does (docs/capture.md)"
            ) from None
        in_file = isinstance(error, InvalidDataError) and self.source.url.startswith("http")
        if isinstance(error, (*LASTING, PermissionError)) or in_file:
            raise UsageError(f"{name} cannot be captured: {reason}; check address, user and password") from None

    def _streams(self, container: Any) -> dict[int, Sensor]:
        """Number of each stream to read -> the sensor that it is."""
        found = {}
        for row, sensor in self._sensors.items():
            best = container.streams.best(TYPES[row])
            if best is not None:
                found[best.index] = sensor
            else:
                self._metrics.clock(sensor.name, None)
        if not found:
            wanted = " and no ".join(KIND_NAMES[row] for row in self._sensors)
            there = ", ".join(stream.type or "data" for stream in container.streams)
            raise UsageError(f"{self.source.name} has no {wanted}; it has: {there or 'nothing'}")
        return found

    def _read(self, container: Any, streams: Mapping[int, Sensor], stop: threading.Event) -> bool:
        """Read a connection to its end; returns whether anything came."""
        takers = {index: self._taker(container.streams[index], sensor) for index, sensor in streams.items()}
        kind = TimeSource.DEVICE if self.source.device else TimeSource.RTCP
        clocks = {index: Clock(kind, self._most_off_us) for index in streams}
        came = False
        try:
            for arrived in self._settled(container, clocks):
                came = True
                index = arrived.packet.stream.index
                stamp = clocks[index].stamp(arrived.media_us, arrived.wall_us, arrived.arrival_us)
                self._tell(streams[index], stamp, clocks[index])
                takers[index].take(arrived.packet, stamp)
                if stop.is_set():
                    break
        finally:
            for taker in takers.values():
                taker.end()
        return came

    def _settled(self, container: Any, clocks: Mapping[int, Clock]) -> Iterator[Arrived]:
        """The packets. Those that came while it was opened are there at once, late: clocks see all of them first."""
        packets = self._packets(container, list(clocks))
        timeless = container.format.name in NO_TIMES
        held: list[Arrived] = []
        before: dict[int, Arrived] = {}
        begun_s = monotonic()
        for arrived in packets:
            held.append(arrived)
            index = arrived.packet.stream.index
            if (index in before and not _was_there(before[index], arrived)) or monotonic() - begun_s > LONGEST_BURST_S:
                break
            if timeless or arrived.media_us is not None:
                before[index] = arrived
        held = held[-1:] if timeless else _dated(held)  # nothing says when the timeless ones came, but for the last
        for arrived in held:
            clocks[arrived.packet.stream.index].see(arrived.media_us, arrived.wall_us, arrived.arrival_us)
        yield from held
        yield from packets

    def _packets(self, container: Any, streams: list[int]) -> Iterator[Arrived]:
        timeless = container.format.name in NO_TIMES
        for packet in demuxed(container, [container.streams[index] for index in streams]):
            arrival_us = time_ns() // 1000
            if not packet.size:
                continue
            if packet.stream.type == TYPES[AUDIO]:  # its last sample is what has just been taken
                arrival_us -= us(packet.duration or 0, packet.time_base)
            media_us = None if timeless or packet.pts is None else us(packet.pts, packet.time_base)
            wall_us = media_us if self.source.device else None
            if packet.has_sidedata(PRFT):
                (wall_us,) = REPORT.unpack_from(bytes(packet.get_sidedata(PRFT)))
            yield Arrived(packet, arrival_us, media_us, wall_us)

    # what is reported

    def _is_back(self) -> None:
        log.info("%s is there", self.source.name)
        self.away, self._reported = None, False
        self._metrics.connected.labels(self.source.name).set(1)
        self._metrics.connections.labels(self.source.name).inc()

    def _is_away(self, reason: str) -> None:
        self._metrics.connected.labels(self.source.name).set(0)
        if not self._reported:
            self._reported = True
            waits = "waiting for a sender again" if self.source.listens else "trying again until it is back"
            log.warning("%s is away: %s; %s", self.source.name, reason, waits)
        self.away = f"{self.source.name}: {reason}"

    def _tell(self, sensor: Sensor, stamp: Stamp, clock: Clock) -> None:
        """Report which clock tells the time of a sensor, when it changes."""
        if self._told.get(sensor.name) is stamp.source:
            return
        self._told[sensor.name] = stamp.source
        self._metrics.clock(sensor.name, stamp.source)
        off = ""
        if clock.off_us is not None and not clock.believed:
            off = f", since its own is {abs(clock.off_us) / 1e6:.1f} s off (STREAMER_CAPTURE_CLOCK_MS)"
        log.info("%s: time by %s%s", sensor.name, stamp.source, off)


def _was_there(before: Arrived, after: Arrived) -> bool:
    """Whether a packet was there at once, and not when its turn was."""
    passed_us = after.arrival_us - before.arrival_us
    if before.media_us is None or after.media_us is None:
        return passed_us < AT_ONCE_US
    return passed_us < (after.media_us - before.media_us) / 2


def _dated(held: list[Arrived]) -> list[Arrived]:
    """The packets; the very first of a stream may have no time stamp, and gets one just before the next."""
    found: list[Arrived] = []
    after_us: dict[int, int] = {}
    for arrived in reversed(held):
        index = arrived.packet.stream.index
        if arrived.media_us is None and index in after_us:
            arrived = arrived._replace(media_us=after_us[index] - 1)
        if arrived.media_us is not None:
            after_us[index] = arrived.media_us
        found.insert(0, arrived)
    return found
