"""A partition group: partition p of every source topic, through decode, merge, align and ledger."""

from __future__ import annotations

import logging
from collections import Counter
from typing import Protocol

import msgspec

from streamer.align.decode import Decoder
from streamer.align.merged import MergedLog
from streamer.align.skew import Skews
from streamer.align.windows import Aligner, Early, Joined, Late, Outcome, Repeated, Rules
from streamer.errors import BadRecord, Stop
from streamer.events import DATA, KIND_NAMES, KINDS, TICK, Event, Position, Record, Stored, Window
from streamer.observe.metrics import Metrics

log = logging.getLogger(__name__)


class Store(Protocol):
    """What a group asks of Redis: see the methods of :class:`streamer.store.publish.Publisher`."""

    async def load(self, session: str, group: str) -> Stored:
        """State of a session."""

    async def open_group(self, group: str) -> int | None:
        """Whether Redis knows the group, and until when it had lost data."""

    async def note_group(self, group: str, lost_until_us: int) -> None:
        """Make a group known."""


class Sink(Protocol):
    """Where a group's windows go: see :class:`streamer.worker.ports.Sink`."""

    def submit(self, owner: PartitionGroup, window: Window) -> None:
        """Take a closed window."""

    def submit_early(self, owner: PartitionGroup, window: Window) -> None:
        """Take an open window as it stands."""


class Rejected(msgspec.Struct, frozen=True):
    """A record that decode refused; it keeps its place in the merged order until its dead letter is acknowledged.

    ``sensor`` is what it counts for, see :meth:`streamer.align.decode.Decoder.label`.
    """

    record: Record
    error: BadRecord
    sensor: str = ""

    @property
    def position(self) -> Position:
        return self.record.position

    @property
    def nbytes(self) -> int:
        return self.record.nbytes


Leaving = Window | Early | Late | Rejected


class PartitionGroup(MergedLog[Event | Rejected]):
    """State of one partition group.

    Args:
        name: Of the group, in Redis.
        committed: Whether Kafka has committed offsets of it.
        max_ahead_us: How far an event may lie ahead of its log time.

    Attributes:
        repeated: Records whose event all its open windows had already.
        skews: Watches the clocks of its sessions' sensors.
    """

    def __init__(
        self,
        partition: int,
        decoder: Decoder,
        rules: Rules,
        fifo_bytes: int,
        metrics: Metrics,
        *,
        name: str,
        committed: bool,
        max_ahead_us: int,
    ) -> None:
        super().__init__(partition, name, len(KINDS), fifo_bytes)
        self.fingerprint = rules.fingerprint
        self.aligner = Aligner(rules, partition)
        self.skews = Skews(rules.sensors.names, rules.max_delay_us, metrics.skew)
        self._decoder = decoder
        self._metrics = metrics
        self._names = rules.sensors.names
        # Since the last update of the metrics: events that joined, and bytes, by sensor's number; then what is rarer.
        self._joined = [0] * len(self._names)
        self._data_bytes = [0] * len(self._names)
        self._counted: Counter[tuple[str, str]] = Counter()  # by sensor and outcome
        self._received_bytes: Counter[str] = Counter()
        self._counted_violations = self._counted_steps_back = 0  # likewise, as of then
        self._dead: set[Position] = set()
        self._committed = committed
        self._max_ahead_us = max_ahead_us
        self._opened = False
        self.repeated = 0
        self._suspects: dict[str, dict[int, int]] = {}
        self._lost_until_us: dict[str, int] = {}

    def receive(self, record: Record) -> None:
        """Take a record as the consumer delivers it; one that was received before is ignored."""
        if (admitted := self._admit(record)) is None:
            return
        record = admitted
        try:
            item = self._decoder.decode(record)
        except BadRecord as error:
            name = self._decoder.label(record)
            self._received_bytes[name] += len(record.value)
            self.merge.push(record.row, Rejected(record, error, name))
            return
        if item.type is DATA:
            self._data_bytes[item.sensor] += len(record.value)
        else:
            name = KIND_NAMES[record.row]
            self._received_bytes[name] += len(record.value)
            if item.type is TICK and self._opened and not self.merge.nbytes(record.row):
                # It brings only its time. In the merge it would wait for ticks of other topics, and those for more of
                # this.
                self.merge.advance(record.row, record.log_time_us)
                self.ledger.add(record.position, 0)
                self._count(name, "control")
                return
        self.merge.push(record.row, item)

    @property
    def owners(self) -> tuple[PartitionGroup, ...]:
        """Owners of its windows."""
        return (self,)

    @property
    def sessions(self) -> int:
        """Sessions with open state."""
        return self.aligner.sessions

    @property
    def open_bytes(self) -> int:
        """Held by open windows."""
        return self.aligner.open_bytes

    @property
    def next_closing_us(self) -> int | None:
        """See :class:`streamer.align.windows.Aligner`."""
        return self.aligner.next_closing_us

    def submit(self, item: Window | Early, sink: Sink) -> None:
        """Hand a window that left the group to the sink."""
        if isinstance(item, Early):
            sink.submit_early(self, item.window)
        else:
            sink.submit(self, item)

    async def advance(self, store: Store, limit: int) -> tuple[list[Leaving], bool]:
        """Release what the merge lets go, at most ``limit`` records, and align it.

        Args:
            store: Is asked about sessions that alignment does not know yet.

        Returns:
            What leaves the group, in order; and whether more may be released at once.
        """
        leaving: list[Leaving] = []
        aligner, items = self.aligner, self.merge.release(limit)
        if items and not self._opened:
            await self._open(store, items[0].position.log_time_us)
            if not self.alive:
                return [], False
        for item in items:
            if isinstance(item, Rejected):
                self.ledger.add(item.position, 1)
                self._count(item.sensor, "dead")
                leaving.append(item)
                continue
            log_time_us = item.record.log_time_us
            self._settle(aligner.tick(log_time_us), leaving)
            if item.type is not TICK and not aligner.knows(item.session):
                await self._restore(store, item.session, log_time_us)
                if not self.alive:
                    return [], False
            self._settle(aligner.on_event(item), leaving)
        self.skews.observe(items)
        if len(items) < limit:
            self._settle(self.aligner.tick(self.merge.give_clock()), leaving)
        self._update_metrics()
        return leaving, len(items) == limit

    def relieve(self) -> list[Leaving]:
        """Close the window that has been open longest, which frees memory; returns what leaves."""
        leaving: list[Leaving] = []
        self._settle(self.aligner.relieve(self.merge.released), leaving)
        return leaving

    async def _open(self, store: Store, log_time_us: int) -> None:
        """Make the group known to Redis before its first commit, so that a later loss of Redis' data is noticed.

        Args:
            log_time_us: Of the first record after the committed cut.
        """
        if await store.open_group(self.name) is None:
            await store.note_group(self.name, self._lost(log_time_us) if self._committed else 0)
        self._opened = True

    async def _restore(self, store: Store, session: str, log_time_us: int) -> None:
        stored = await store.load(session, self.name)
        lost_until_us = stored.group_lost_until_us
        if lost_until_us is None:  # it was known when the group was opened
            lost_until_us = self._lost(log_time_us)
            await store.note_group(self.name, lost_until_us)
        if stored.saved is not None:
            # Published windows precede those to come, and every record of an unpublished window is replayed.
            lost_until_us = stored.lost_until_us
        if lost_until_us:
            self._lost_until_us[session] = lost_until_us
        published_end_us = 0 if stored.saved is None else stored.saved.published_end_us
        if (
            stored.emitted_end_us > published_end_us
        ):  # this role would repeat them without the records that are committed
            raise Stop(
                f"windows of session {session} that role align has closed are not published yet: run role infer until "
                f"it has none left, then start this worker again"
            )
        if stored.suspects:
            self._suspects[session] = dict(stored.suspects)
        self.aligner.restore(session, stored.saved)

    def _lost(self, log_time_us: int) -> int:
        """Redis has lost its data: until when windows may lack records that were done before the loss.

        Such a record is in the log before ``log_time_us``, and its event ends at most ``max_ahead`` after its log time.
        """
        log.error(
            "partition %d: Redis has lost its data; windows that began before the restart are published as partial",
            self.partition,
        )
        return log_time_us + self._max_ahead_us

    def suspicion(self, window: Window) -> int | None:
        """How often the window was run alone since a process died running it; ``None`` if none did. Answers once."""
        suspects = self._suspects.get(window.session)
        if suspects is None:
            return None
        number = suspects.pop(window.end_us, None)
        if not suspects:
            del self._suspects[window.session]
        return number

    def lost_until_us(self, window: Window) -> int:
        """If not 0, this window and its session's later ones that begin before this time may lack records."""
        lost_until_us = self._lost_until_us.get(window.session, 0)
        if window.start_us < lost_until_us:
            return lost_until_us
        self._lost_until_us.pop(window.session, None)
        return 0

    def _settle(self, outcomes: list[Outcome], leaving: list[Leaving]) -> None:
        for outcome in outcomes:  # no match statement: this runs for each record
            if isinstance(outcome, Joined):
                event = outcome.event
                self.ledger.add(event.position, outcome.holders)
                if event.type is DATA:
                    self._joined[event.sensor] += 1
                else:
                    self._count(self._name(event), "control")
            elif isinstance(outcome, Window):
                self._metrics.windows.labels(str(outcome.closed_by)).inc()
                leaving.append(outcome)
            elif isinstance(outcome, Early):
                if outcome.window.closed_at.log_time_us >= self.live_from_us:
                    leaving.append(outcome)
            elif isinstance(outcome, Late):
                event = outcome.event
                self.ledger.add(event.position, 1)
                self._count(self._name(event), "late")
                leaving.append(outcome)
            elif isinstance(outcome, Repeated):
                event = outcome.event
                self.ledger.add(event.position, 0)
                self.repeated += 1
                self._count(self._name(event), "repeated")
            else:
                event = outcome.event
                if event.position in self.ledger:
                    self.ledger.done(event.position)
                else:
                    self.ledger.add(event.position, 0)
                    self._count(self._name(event), "replayed" if event.type is DATA else "control")

    def window_done(self, window: Window) -> None:
        """A window is published: drop its references to its members."""
        for events in window.events:
            for event in events:
                self.ledger.done(event.position)
        self.aligner.published(window)

    def first_death(self, position: Position) -> bool:
        """True once for each record: a broken payload in several windows is dead-lettered once."""
        if position in self._dead:
            return False
        self._dead.add(position)
        return True

    def _forget(self, position: Position) -> None:
        self._dead.discard(position)

    def _name(self, event: Event) -> str:
        """The sensor that an event counts for; a control record is nobody's and counts for its topic's kind."""
        return self._names[event.sensor] if event.type is DATA else KIND_NAMES[event.row]

    def _count(self, sensor: str, outcome: str) -> None:
        self._counted[sensor, outcome] += 1

    def _update_metrics(self) -> None:
        """Once a turn, since each update looks up a label and takes a lock."""
        for number, (joined, nbytes) in enumerate(zip(self._joined, self._data_bytes, strict=True)):
            if joined:
                self._counted[self._names[number], "joined"] += joined
                self._joined[number] = 0
            if nbytes:
                self._received_bytes[self._names[number]] += nbytes
                self._data_bytes[number] = 0
        for (sensor, outcome), count in self._counted.items():
            self._metrics.events.labels(sensor, outcome).inc(count)
        self._counted.clear()
        for sensor, nbytes in self._received_bytes.items():
            if nbytes:
                self._metrics.event_bytes.labels(sensor).inc(nbytes)
        self._received_bytes.clear()
        self._metrics.order_violations.inc(self.merge.violations - self._counted_violations)
        self._metrics.log_time_steps_back.inc(self.steps_back - self._counted_steps_back)
        self._counted_violations, self._counted_steps_back = self.merge.violations, self.steps_back
