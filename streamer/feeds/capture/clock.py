"""The time of what a source sends: microseconds since the epoch, and which clock told it.

A packet may have a *wall* time: by the last sender report of its RTP stream (RFC 3550, section 6.4.1), or by this
machine's clock where the device stamped it when it took the data. It is believed while it is not further from the time
of arrival than a bound: cameras whose clock was never set report the time since they were switched on.

Else its time is that of arrival. Packets jitter on their way, and the source's *media* times do not, so these are moved
by the least of (arrival - media) that was seen of late: the delay of the packets that came quickest. Media clocks drift
against ours, so the offset follows, slowly enough not to be heard.
"""

from __future__ import annotations

from typing import NamedTuple

from streamer.events import TimeSource

S_US = 1_000_000
SPAN_US = 5 * S_US  # the least is of the last one to two such spans
SLEW = 0.02  # the offset follows by at most so many seconds a second,
FAR_US = S_US // 2  # unless it is wrong by more than this
JUMP_US = 2 * S_US  # a media time so far from that of the packet before is of another beginning


class Stamp(NamedTuple):
    """When something was taken, and which clock says so."""

    time_us: int
    source: TimeSource


class Least:
    """The least of the values of the last one to two spans of time."""

    def __init__(self) -> None:
        self._before: int | None = None
        self._now: int | None = None
        self._begun_us = 0

    def add(self, value: int, at_us: int) -> int:
        """Add a value; returns the least."""
        if self._now is None or at_us - self._begun_us > SPAN_US:
            self._before, self._now, self._begun_us = self._now, value, at_us
        self._now = min(self._now, value)
        return self._now if self._before is None else min(self._before, self._now)


class Clock:
    """Stamps the packets of one stream of one connection, in the order in which they come.

    Args:
        source: Which clock a packet's wall time is of.
        most_off_us: A wall time that is further from arrival is not believed.
    """

    def __init__(self, source: TimeSource, most_off_us: int) -> None:
        self._source = source
        self._most_off_us = most_off_us
        self._delay = Least()  # arrival - wall
        self._offsets = Least()  # arrival - media
        self._offset_us: float | None = None
        self._last: tuple[int, int] | None = None  # media and arrival of the packet before
        self.off_us: int | None = None  # by how much wall times are before arrival, the least of late

    @property
    def believed(self) -> bool:
        """Whether wall times are taken."""
        return self.off_us is not None and abs(self.off_us) <= self._most_off_us

    def see(self, media_us: int | None, wall_us: int | None, arrival_us: int) -> None:
        """Learn from a packet that will be stamped later: those that came while the connection was being opened."""
        if wall_us is not None:
            self.off_us = self._delay.add(arrival_us - wall_us, arrival_us)
        if media_us is not None:
            least_us = self._offsets.add(arrival_us - media_us, arrival_us)
            self._offset_us = least_us if self._offset_us is None else min(self._offset_us, least_us)

    def stamp(self, media_us: int | None, wall_us: int | None, arrival_us: int) -> Stamp:
        """The time of a packet.

        Args:
            media_us: Its time stamp; ``None`` if it has none.
            wall_us: When it was taken, if its sender or device says so.
            arrival_us: When it came, by this machine's clock.
        """
        if wall_us is not None:
            self.off_us = self._delay.add(arrival_us - wall_us, arrival_us)
        by_media_us = arrival_us if media_us is None else self._by_media(media_us, arrival_us)
        if wall_us is not None and self.believed:
            return Stamp(wall_us, self._source)
        return Stamp(by_media_us, TimeSource.ARRIVAL)

    def _by_media(self, media_us: int, arrival_us: int) -> int:
        last, self._last = self._last, (media_us, arrival_us)
        if last is not None and abs(media_us - last[0]) > JUMP_US:
            self._offsets, self._offset_us = Least(), None
        least_us = self._offsets.add(arrival_us - media_us, arrival_us)
        if self._offset_us is None or abs(least_us - self._offset_us) > FAR_US:
            self._offset_us = least_us
        most_us = 0.0 if last is None else SLEW * max(0, arrival_us - last[1])
        self._offset_us += max(-most_us, min(most_us, least_us - self._offset_us))
        return media_us + round(self._offset_us)


class Ascending:
    """The times of a sensor, through any number of connections: each is after the one before.

    What a change of clocks would put back stands still instead, and is of the clock before.
    """

    def __init__(self) -> None:
        self.last: Stamp | None = None

    def next(self, stamp: Stamp) -> Stamp:
        """The time to send."""
        if self.last is not None and stamp.time_us <= self.last.time_us:
            stamp = Stamp(self.last.time_us + 1, self.last.source)
        self.last = stamp
        return stamp
