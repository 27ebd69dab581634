"""A partition group: partition p of every source topic, and all the state that its records build up.

It joins decode, merge, align and ledger. It lives from the assignment of its partition to the revocation and is then
dropped whole; whoever owns the partition next rebuilds it from the committed offsets.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from streamer.align import Aligner, Done, Joined, Late, Outcome, Rules
from streamer.decode import Decoder
from streamer.errors import BadRecord
from streamer.events import MODALITIES, MODALITY_NAMES, Event, Kind, Position, Record, Saved, Window
from streamer.ledger import Ledger
from streamer.merge import Merge
from streamer.metrics import Metrics


class Rejected(msgspec.Struct, frozen=True):
    """A record that decode refused; it keeps its place in the merged order until the dead-letter topic has it."""

    record: Record
    error: BadRecord

    @property
    def position(self) -> Position:
        return self.record.position

    @property
    def nbytes(self) -> int:
        return self.record.nbytes


Leaving = Window | Late | Rejected


class PartitionGroup:
    """State of one partition group.

    Attributes:
        alive: False once the partition was taken away: completions that come later must change nothing.
        next_offset: For each modality the offset after the newest record that was received.
        cut_us: Log time below which nothing would be replayed if what was released by now were committed.
        trim_below_us: The same of what is committed.
    """

    def __init__(self, partition: int, decoder: Decoder, rules: Rules, fifo_bytes: int, metrics: Metrics) -> None:
        self.partition = partition
        self.alive = True
        self.fingerprint = rules.fingerprint
        self.cut_us = self.trim_below_us = 0
        self.next_offset = [0] * len(MODALITIES)
        self.merge: Merge[Event | Rejected] = Merge(len(MODALITIES), fifo_bytes)
        self.aligner = Aligner(rules, partition)
        self.ledger: Ledger[Position] = Ledger()
        self._decoder = decoder
        self._metrics = metrics
        self._dead: set[Position] = set()

    def receive(self, record: Record) -> None:
        """Take a record as the consumer delivers it; one that was received before is ignored."""
        if record.offset < self.next_offset[record.row]:
            return
        self.next_offset[record.row] = record.offset + 1
        item: Event | Rejected
        try:
            item = self._decoder.decode(record)
        except BadRecord as error:
            item = Rejected(record, error)
        name = MODALITY_NAMES[record.row]
        self._metrics.event_bytes.labels(name).inc(len(record.value))
        self.merge.push(record.row, item)

    async def advance(self, load: Callable[[str], Awaitable[Saved | None]], limit: int) -> tuple[list[Leaving], bool]:
        """Release what the merge lets go, at most ``limit`` records, and align it.

        Args:
            load: Reads what is stored of a session that alignment does not know yet.

        Returns:
            What leaves the group, in order; and whether there may be more to release at once.
        """
        leaving: list[Leaving] = []
        violations = self.merge.violations
        items = self.merge.release(limit)
        for item in items:
            if isinstance(item, Rejected):
                self.ledger.add(item.position, 1, item.position)
                self._count(item.record.row, "dead")
                leaving.append(item)
                continue
            self._settle(self.aligner.tick(item.record.log_time_us), leaving)
            if item.kind is not Kind.TICK and not self.aligner.knows(item.session):
                saved = await load(item.session)
                if not self.alive:
                    return [], False
                self.aligner.restore(item.session, saved)
            self._settle(self.aligner.on_event(item), leaving)
        self._metrics.order_violations.inc(self.merge.violations - violations)
        if len(items) < limit:
            self._settle(self.aligner.tick(self.merge.clock_us), leaving)
        return leaving, len(items) == limit

    def relieve(self) -> list[Leaving]:
        """Close the window that has been open longest, which frees memory; returns what leaves."""
        leaving: list[Leaving] = []
        self._settle(self.aligner.relieve(self.merge.released), leaving)
        return leaving

    def _settle(self, outcomes: list[Outcome], leaving: list[Leaving]) -> None:
        for outcome in outcomes:
            match outcome:
                case Window():
                    self._metrics.windows.labels(str(outcome.closed_by)).inc()
                    leaving.append(outcome)
                case Joined(event, windows):
                    self.ledger.add(event.position, windows, event.position)
                    self._count(event.row, "joined" if event.kind is Kind.DATA else "control")
                case Late(event, _):
                    self.ledger.add(event.position, 1, event.position)
                    self._count(event.row, "late")
                    leaving.append(outcome)
                case Done(event):
                    if event.position in self.ledger:
                        self.ledger.done(event.position)
                    else:
                        self.ledger.add(event.position, 0, event.position)
                        self._count(event.row, "replayed" if event.kind is Kind.DATA else "control")

    def window_done(self, window: Window) -> None:
        """A window is published: its members are done as far as it goes."""
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

    def releasable(self) -> dict[int, int]:
        """Offsets to commit, by modality, as far as they grew since the last call."""
        grown: dict[int, int] = {}
        for position in self.ledger.release():
            self._dead.discard(position)
            grown[position.row] = position.offset + 1
        oldest = self.ledger.oldest
        self.cut_us = oldest.log_time_us if oldest is not None else self.merge.clock_us
        return grown

    def _count(self, row: int, outcome: str) -> None:
        self._metrics.events.labels(MODALITY_NAMES[row], outcome).inc()
