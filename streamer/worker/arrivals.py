"""Role infer's partition group: the records of one partition of the windows topic, and their state.

What :class:`streamer.align.group.PartitionGroup` is to the source topics: it lives from the assignment of the partition
to its revocation, and its ledger says what may be committed. There is one topic, so nothing to merge or align; a
window that was received before (see ``emissions``) is skipped.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from streamer.align.group import Rejected, Store
from streamer.align.merged import MergedLog
from streamer.errors import BadRecord
from streamer.events import ClosedBy, Position, Record, Window
from streamer.observe.metrics import Metrics
from streamer.worker import handover
from streamer.worker.handover import WindowRecord
from streamer.worker.ports import Sink

MAX_IDLE_SESSIONS = 10_000  # kept without windows in flight; a forgotten one is looked up in Redis again
MAX_DEAD = 10_000  # recent broken payloads that are dead-lettered already
ROW = 0


class Arrival(msgspec.Struct, eq=False):
    """A received window, closed or to be run early.

    It is its own ``Owner``, because fingerprint, cut and loss differ per window.

    Attributes:
        facts: Its record without the members.
        position: In the windows topic.
    """

    group: WindowGroup
    window: Window
    facts: WindowRecord
    position: Position
    nbytes: int
    run_alone: int | None = None

    @property
    def alive(self) -> bool:
        return self.group.alive

    @property
    def fingerprint(self) -> str:
        return self.facts.fingerprint

    @property
    def trim_below_us(self) -> int:
        return self.facts.trim_below_us

    def suspicion(self, window: Window) -> int | None:
        """See :class:`streamer.worker.ports.Owner`."""
        return self.run_alone

    def lost_until_us(self, window: Window) -> int:
        """See :class:`streamer.worker.ports.Owner`."""
        return self.facts.lost_until_us

    def window_done(self, window: Window) -> None:
        """See :class:`streamer.worker.ports.Owner`."""
        self.group.done(self)

    def first_death(self, position: Position) -> bool:
        """See :class:`streamer.align.group.PartitionGroup`."""
        return self.group.first_death(position)


class _Session(msgspec.Struct):
    """What is known of a session.

    Attributes:
        reached_us: End of the newest window that is published or in flight.
        inflight: Windows in flight.
        suspects: See :class:`streamer.events.Stored`.
    """

    reached_us: int
    inflight: int
    suspects: dict[int, int]


class WindowGroup(MergedLog[Arrival | Rejected]):
    """State of one partition of the windows topic.

    Args:
        name: Of the group.
    """

    # No window is open here, so none closes by time.
    open_bytes = 0
    next_closing_us: int | None = None

    def __init__(self, partition: int, fifo_bytes: int, metrics: Metrics, *, name: str) -> None:
        super().__init__(partition, name, 1, fifo_bytes)
        self._metrics = metrics
        self._sessions: OrderedDict[str, _Session] = OrderedDict()
        self._arrivals: dict[Position, Arrival] = {}
        self._dead: OrderedDict[Position, None] = OrderedDict()

    @property
    def owners(self) -> tuple[Arrival, ...]:
        """Owners of its windows in the pipeline."""
        return tuple(self._arrivals.values())

    @property
    def sessions(self) -> int:
        """Sessions with windows in flight."""
        return sum(session.inflight > 0 for session in self._sessions.values())

    def receive(self, record: Record) -> None:
        """Take a record as the consumer delivers it; one that was received before is ignored."""
        if (admitted := self._admit(record)) is None:
            return
        record = admitted
        item: Arrival | Rejected
        try:
            window, facts = handover.decode(record)
        except BadRecord as error:
            item = Rejected(record, error)
        else:
            item = Arrival(self, window, facts, record.position, window.nbytes)
            for name, events in zip(window.sensors.names, window.events, strict=True):
                self._metrics.event_bytes.labels(name).inc(sum(len(event.record.value) for event in events))
        self.merge.push(ROW, item)

    async def advance(self, store: Store, limit: int) -> tuple[list[Arrival | Rejected], bool]:
        """Take at most ``limit`` records out of the FIFO; see :meth:`streamer.align.group.PartitionGroup.advance`."""
        leaving: list[Arrival | Rejected] = []
        items = self.merge.release(limit)
        for item in items:
            if isinstance(item, Rejected):
                self.ledger.add(item.position, 1)
                leaving.append(item)
                continue
            session = await self._session(store, item.window.session)
            if not self.alive:
                return [], False
            if item.window.closed_by is ClosedBy.OPEN:
                self.ledger.add(item.position, 0)
                self._metrics.window_records.labels("early").inc()
                live = item.window.closed_at.log_time_us >= self.live_from_us
                if live and item.window.end_us > session.reached_us:
                    leaving.append(item)
                continue
            if item.window.end_us <= session.reached_us:
                self.ledger.add(item.position, 0)
                self._metrics.window_records.labels("repeated").inc()
                continue
            self._metrics.window_records.labels("new").inc()
            self.ledger.add(item.position, 1)
            session.reached_us = item.window.end_us
            session.inflight += 1
            item.run_alone = session.suspects.pop(item.window.end_us, None)
            self._arrivals[item.position] = item
            leaving.append(item)
        return leaving, len(items) == limit

    async def _session(self, store: Store, name: str) -> _Session:
        session = self._sessions.get(name)
        if session is None:
            stored = await store.load(name, self.name)
            reached_us = stored.saved.published_end_us if stored.saved is not None else 0
            session = self._sessions[name] = _Session(reached_us, 0, dict(stored.suspects))
        self._sessions.move_to_end(name)
        if len(self._sessions) > MAX_IDLE_SESSIONS:
            oldest = next(iter(self._sessions))
            if self._sessions[oldest].inflight:
                self._sessions.move_to_end(oldest)
            else:
                del self._sessions[oldest]
        return session

    def submit(self, item: Arrival, sink: Sink) -> None:
        """Hand a window to the sink; its owner is its arrival, with role align's facts."""
        if item.window.closed_by is ClosedBy.OPEN:
            sink.submit_early(item, item.window)
        else:
            sink.submit(item, item.window, item.facts.closed_us)

    def relieve(self) -> list[Arrival | Rejected]:
        """Close no window: none is open here."""
        return []

    def done(self, arrival: Arrival) -> None:
        """A window is published."""
        self.ledger.done(arrival.position)
        del self._arrivals[arrival.position]
        self._sessions[arrival.window.session].inflight -= 1

    def first_death(self, position: Position) -> bool:
        """True once for each source record, within ``MAX_DEAD``: overlapping windows share their records."""
        if position in self._dead:
            return False
        self._dead[position] = None
        if len(self._dead) > MAX_DEAD:
            self._dead.popitem(last=False)
        return True
