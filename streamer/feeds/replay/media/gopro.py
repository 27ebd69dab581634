"""GoPro's telemetry track within a film."""

from __future__ import annotations

from collections.abc import Iterator

from streamer.feeds.producer import Outgoing
from streamer.feeds.replay import gpmf
from streamer.feeds.replay.media.container import us
from streamer.feeds.replay.media.tracks import Tracks
from streamer.feeds.replay.part import S_US, SLICE_US, due, telemetry


def utc_us(tracks: Tracks, index: int) -> int | None:
    """When the recording began, by the first payload with a GPS fix; ``None`` if there is none."""
    for packet in tracks.packets(index):
        if packet.size and packet.pts is not None:
            try:
                now_us = gpmf.utc_us(bytes(packet))
            except ValueError:
                continue
            if now_us is not None:
                return now_us - tracks.at_us(packet.pts, packet.time_base)
    return None


def measured(tracks: Tracks, index: int, begin_us: int) -> Iterator[Outgoing]:
    """The telemetry blocks of a track.

    Args:
        begin_us: Payloads before it may be left out.
    """
    broken = 0
    for packet in tracks.packets(index, begin_us):
        if packet.pts is None or not packet.size:
            continue
        try:
            streams = gpmf.streams(bytes(packet))
        except ValueError:
            broken += 1
            continue
        start_us = tracks.at_us(packet.pts, packet.time_base)
        length_us = us(packet.duration or 0, packet.time_base) or S_US
        records = [record for stream in streams for record in _blocks(stream, start_us, length_us)]
        yield from sorted(records, key=due)
    if broken:
        tracks.note(f"{broken} broken telemetry payloads of track {index} were left out")


def _blocks(stream: gpmf.Stream, begin_us: int, length_us: int) -> Iterator[Outgoing]:
    count = len(stream.values_NC)
    times_us = [begin_us + length_us * sample // max(count, 1) for sample in range(count)]
    first = 0
    while first < count:
        last = first + 1
        while last < count and times_us[last] < times_us[first] + SLICE_US:
            last += 1
        yield from telemetry(times_us[first:last], stream.values_NC[first:last], stream.names, stream.units)
        first = last
