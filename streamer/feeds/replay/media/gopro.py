"""GoPro's telemetry track within a film."""

from __future__ import annotations

from collections.abc import Iterator

from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.media import gpmftrack
from streamer.feeds.replay.media.container import us
from streamer.feeds.replay.media.tracks import Tracks
from streamer.feeds.replay.part import S_US


def utc_us(tracks: Tracks, index: int) -> int | None:
    """When the recording began by GPS; ``None`` without a fix: the date in the film is the camera's local time."""
    return gpmftrack.utc_us(_payloads(tracks, index, 0))


def channels(tracks: Tracks, index: int) -> frozenset[str]:
    """Names of the channels, by the first payloads."""
    return gpmftrack.channels(_payloads(tracks, index, 0))


def measured(tracks: Tracks, index: int, begin_us: int) -> Iterator[Outgoing]:
    """The telemetry blocks of a track.

    Args:
        begin_us: Payloads before it may be left out.
    """
    track = gpmftrack.Track()
    for raw, start_us, length_us in _payloads(tracks, index, begin_us):
        yield from track.add(raw, start_us, length_us)
    yield from track.rest()
    for note in track.notes():
        tracks.note(note)


def _payloads(tracks: Tracks, index: int, begin_us: int) -> Iterator[gpmftrack.Timed]:
    for packet in tracks.packets(index, begin_us):
        if packet.pts is not None and packet.size:
            length_us = us(packet.duration or 0, packet.time_base) or S_US
            yield bytes(packet), tracks.at_us(packet.pts, packet.time_base), length_us
