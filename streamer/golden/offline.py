"""Alignment without a broker: a recording goes through the worker's own partition groups.

The order of all records is known, so the merge never waits: once a record with log time t was read, no older one will
come on any topic. At the recording's end every topic's bound is ``About.end_us``; windows that are open then would have
stayed open: they come out marked as open.

The past of a session that was under way when the recording began is unknown. It matters in three ways alone: records
from before the recording, windows that had closed already (so that an event is late), and how long a sensor had been
silent (so that a window does not wait for it). The more windows had closed, and the longer the silence, the earlier
every window closes and the fewer events it has. So such a session is aligned twice, with the two extremes of its past:

* no window had closed, and all sensors had just been heard: it begins with the recording;
* every window had closed that an earlier record could have touched (``max_ahead`` bounds how far), and no sensor had
  been heard but one, without which the session would have ended.

A window that is the same in both is the same for every past in between, the true one included: it is *certain*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry

from streamer.align.decode import Decoder, home_partition
from streamer.align.group import Leaving, PartitionGroup, Rejected
from streamer.align.sessions import NEVER_US
from streamer.align.windows import Late, Rules
from streamer.errors import BadRecord, UsageError
from streamer.events import KINDS, EventType, Record, Saved, Stored, Window
from streamer.golden import recording
from streamer.observe.metrics import Metrics
from streamer.result import ranges
from streamer.settings import Settings

RELEASE_EVERY = 256  # records read between two releases of the merge; no result depends on it
CUT_US = 1_000_000  # log time by which partitions may be apart in a recording while it is written

Identity = tuple[str, int]  # session, window's end in µs
Content = tuple[str, tuple[tuple[tuple[int, int], ...], ...]]  # closed_by, offset ranges of each sensor


def identity(window: Window) -> Identity:
    """The identity of a window among all others."""
    return window.session, window.end_us


def content(window: Window) -> Content:
    """The content of a window: equal for the same window."""
    return str(window.closed_by), tuple(ranges(e.record.offset for e in events) for events in window.events)


class Offline:
    """The windows of a recording.

    Args:
        under_way: Whether a session, by name and partition, had begun before the recording.

    Attributes:
        about: The recording's metadata.
        next_offsets: For each topic and partition, the offset after the last record that was read.
        begins_us: Session under way -> windows that end up to this time may hold records from before the recording.
        open: Windows that were still open at the recording's end.
        records, late, repeated: Numbers of records, of late events, and of records that repeat an event.
        refused: Reason -> number of records that decode refused.
        sessions: Name -> partition of all sessions that have records.

    Raises:
        UsageError: The file cannot be read, or it is no recording.
    """

    def __init__(self, settings: Settings, path: Path, under_way: Callable[[str, int], bool]) -> None:
        self.about = recording.describe(path)
        self.next_offsets = [list(offsets) for offsets in self.about.first_offsets]
        self.begins_us: dict[str, int] = {}
        self.open: set[Identity] = set()
        self.records = self.late = self.repeated = 0
        self.refused: Counter[str] = Counter()
        self.sessions: dict[str, int] = {}
        self._path = path
        self._under_way = under_way
        self._settings = settings
        self._rules = msgspec.structs.replace(Rules.from_settings(settings), early_us=0)
        self._decoder = Decoder(settings, self.about.partitions)
        self._groups: dict[int, _Group] = {}
        self._others: dict[int, _Group] = {}  # the second extreme, of the sessions under way alone
        self._joined_us: dict[str, int] = {}  # session under way -> first log time at which it counts there
        self._contents: dict[Identity, Content] = {}  # of windows that came out of one extreme only, so far
        self._uncertain: set[Identity] = set()
        self._end_us = self.about.end_us if self.about.end_us is not None else _last_us(path)

    async def windows(self) -> AsyncIterator[Window]:
        """The windows that close by the recording's end, each partition's in the order of their closing."""
        clock_us = 0
        for recorded in recording.read(self._path):
            if recorded.log_time_us >= self._end_us:
                continue  # other records of this time may be missing
            self._push(recorded.as_record())
            clock_us = max(clock_us, recorded.log_time_us)
            if self.records % RELEASE_EVERY == 0:
                async for window in self._advance(clock_us):
                    yield window
        async for window in self._advance(self._end_us):
            yield window
        async for window in self._advance(NEVER_US):
            self.open.add(identity(window))
        self.repeated = sum(group.repeated for group in self._groups.values())

    def certain(self, window: Identity) -> bool:
        """Whether the recording alone decides that this window exists, or does not; valid after :meth:`windows`."""
        session, end_us = window
        if session not in self.begins_us:
            return True
        return end_us > self.begins_us[session] and window not in self._contents and window not in self._uncertain

    def _push(self, record: Record) -> None:
        self.records += 1
        partition = record.partition
        if not partition < self.about.partitions:
            raise UsageError(f"{self._path} is damaged: partition {partition} of {self.about.partitions}")
        self.next_offsets[record.row][partition] = record.offset + 1
        self._group(self._groups, partition, self._nothing_before).push(record)
        session = self._session(record)
        if session is None:
            return
        if session not in self.sessions:
            self.sessions[session] = partition
            start_us = self.about.start_us[partition]
            if start_us and self._under_way(session, partition):
                self.begins_us[session] = self._last_touched_us(start_us)
        if session in self.begins_us and self._counts(record, session):
            self._group(self._others, partition, self._longest_before).push(record)

    def _counts(self, record: Record, session: str) -> bool:
        """Whether the record can be other than late where all windows up to ``begins_us`` have closed."""
        if session not in self._joined_us:
            try:
                event = self._decoder.decode(record)
            except BadRecord:
                return False
            if event.type is not EventType.DATA or self._rules.ends_of(event)[-1] <= self.begins_us[session]:
                return False
            self._joined_us[session] = record.log_time_us
        return True

    def _session(self, record: Record) -> str | None:
        """The record's session; ``None`` if decode will refuse its key, or the key belongs to another partition."""
        key = record.key
        try:
            session = key.decode() if key else None
        except UnicodeDecodeError:
            return None
        if key is None or session is None or self.sessions.get(session) == record.partition:
            return session
        return session if record.partition == home_partition(key, self.about.partitions) else None

    def _group(self, groups: dict[int, _Group], partition: int, before: Callable[[int, str], Saved | None]) -> _Group:
        if partition not in groups:
            metrics = Metrics(CollectorRegistry())
            group = PartitionGroup(
                partition,
                self._decoder,
                self._rules,
                self._settings.fifo_bytes,
                metrics,
                name=str(partition),
                committed=False,
                max_ahead_us=self._settings.max_ahead_ms * 1000,
            )
            groups[partition] = _Group(group, before)
        return groups[partition]

    async def _advance(self, bound_us: int) -> AsyncIterator[Window]:
        for partition in sorted(self._groups):
            for leaving in await self._groups[partition].advance(bound_us):
                match leaving:
                    case Window():
                        self._compare(leaving)
                        yield leaving
                    case Late():
                        self.late += 1
                    case Rejected(_, error):
                        self.refused[str(error.reason)] += 1
        for partition in sorted(self._others):
            for leaving in await self._others[partition].advance(bound_us):
                if isinstance(leaving, Window):
                    self._compare(leaving)

    def _compare(self, window: Window) -> None:
        """Compare a window that came out of one extreme with the one that came out of the other."""
        if window.session not in self.begins_us:
            return
        which, what = identity(window), content(window)
        if which not in self._contents:
            self._contents[which] = what
        elif self._contents.pop(which) != what:
            self._uncertain.add(which)

    # the extremes of what was before

    def _last_touched_us(self, start_us: int) -> int:
        """End of the last window that a record from before ``start_us`` can touch: events end within ``max_ahead``."""
        rules = self._rules
        reach_us = start_us + self._settings.max_ahead_ms * 1000
        return (reach_us - 1) // rules.hop_us * rules.hop_us + rules.window_us

    def _nothing_before(self, partition: int, session: str) -> Saved | None:
        return None

    def _longest_before(self, partition: int, session: str) -> Saved | None:
        """One sensor was heard as long ago as the session can live; the others never were.

        No window waits for that one if its silence says nothing, or once ``idle_after`` has passed, if that is within
        ``session_gap``; if all of them are longer, this is not quite the extreme.
        """
        idle_after_us = self._rules.idle_after_us
        one = idle_after_us.index(NEVER_US if NEVER_US in idle_after_us else min(idle_after_us))
        lives_us = self._joined_us[session] - self._rules.session_gap_us + 1
        heard_us = min(lives_us, self.about.start_us[partition] - 1)  # else it had ended before, and begins again
        all_heard_us = tuple(heard_us if m == one else 0 for m in range(len(idle_after_us)))
        return Saved(self.begins_us[session], all_heard_us, {}, self._rules.fingerprint)


class _Group:
    """A partition group whose windows count as published at once; it is also the group's store.

    Args:
        before: The saved state of a session, by partition and name, when the recording began.
    """

    def __init__(self, group: PartitionGroup, before: Callable[[int, str], Saved | None]) -> None:
        self._group = group
        self._before = before
        self._saved: dict[str, Saved] = {}

    @property
    def repeated(self) -> int:
        return self._group.repeated

    def push(self, record: Record) -> None:
        self._group.receive(record)

    async def advance(self, bound_us: int) -> list[Leaving]:
        """Release and align everything; no record with a log time below the bound will come."""
        group, more = self._group, True
        found: list[Leaving] = []
        for row in range(len(KINDS)):
            group.bound(row, bound_us)
        while more:
            leaving, more = await group.advance(self, RELEASE_EVERY)
            for item in leaving:
                self._settle(item)
            found += leaving
        group.releasable()  # nothing is committed, but the ledger must not grow
        return found

    async def load(self, session: str, group: str) -> Stored:
        """The state of the session as published here, or before the recording."""
        return Stored(self._saved.get(session) or self._before(self._group.partition, session))

    async def open_group(self, group: str) -> int | None:
        """Report that no data were ever lost."""
        return 0

    async def note_group(self, group: str, lost_until_us: int) -> None:
        """Store no note, see :meth:`open_group`."""

    def _settle(self, item: Leaving) -> None:
        match item:
            case Window():
                self._saved[item.session] = Saved(item.end_us, item.heard_us, {}, self._group.fingerprint)
                self._group.window_done(item)
            case Late(event, _):
                self._group.record_done(event.position)
            case Rejected():
                self._group.record_done(item.position)


def _last_us(path: Path) -> int:
    """Log time up to which a recording that was cut off is certainly complete."""
    span = recording.span_us(path)
    return span[1] - CUT_US if span is not None else 0
