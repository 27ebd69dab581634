"""Records of one partition of every source topic: merged into one order, and tracked until each is done."""

from __future__ import annotations

from typing import Generic

import msgspec

from streamer.align.ledger import Ledger
from streamer.align.merge import Merge, T
from streamer.events import Position, Record


class MergedLog(Generic[T]):
    """The part that all partition groups share: a merge and a ledger.

    Log time never steps back within a partition: it is the largest broker append time up to the record, which counts
    for the whole system. A broker whose clock is behind and that becomes a partition's leader stamps below what is
    there; without this rule the order of the merge would not follow from the logs.

    It lives from the assignment of its partition to the revocation and is then dropped whole; the next owner rebuilds
    it from the committed offsets.

    Args:
        name: Of the group, in Redis.
        rows: Topics that are read.
        fifo_bytes: Limit of each topic's FIFO.

    Attributes:
        alive: ``False`` once the partition was revoked: later completions must have no effect.
        next_offset: For each row the offset after the newest record that was received.
        live_from_us: Log time from which windows are run early: what is older was the part of the process before.
        cut_us: Log time from which a restart would replay, if all that is released now were committed.
        steps_back: Records whose broker append time was below that of a record before them.
        trim_below_us: Log time from which it would replay as of the last commit.
    """

    def __init__(self, partition: int, name: str, rows: int, fifo_bytes: int) -> None:
        self.partition = partition
        self.name = name
        self.alive = True
        self.live_from_us = 0
        self.cut_us = self.trim_below_us = 0
        self.next_offset = [0] * rows
        self._newest_us = [0] * rows
        self.steps_back = 0
        self.merge: Merge[T] = Merge(rows, fifo_bytes)
        self.ledger = Ledger()

    def resume(self, row: int, log_time_us: int) -> None:
        """Set the log time of the newest record that is committed, before the first record comes."""
        self._newest_us[row] = log_time_us

    def _admit(self, record: Record) -> Record | None:
        """The record with its log time; ``None`` if it was received before."""
        row = record.row
        if record.offset < self.next_offset[row]:
            return None
        self.next_offset[row] = record.offset + 1
        newest_us = self._newest_us[row]
        if record.log_time_us < newest_us:
            self.steps_back += 1
            return msgspec.structs.replace(record, log_time_us=newest_us)
        self._newest_us[row] = record.log_time_us
        return record

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and waiting in the merge."""
        return self.merge.nbytes_total

    @property
    def clock_us(self) -> int:
        """Log time up to which the merge has released everything; 0 before the first record or bound."""
        return self.merge.clock_us

    @property
    def oldest_us(self) -> int | None:
        """Log time of the oldest record that is not done; ``None`` if all are."""
        oldest = self.ledger.oldest
        return None if oldest is None else oldest.log_time_us

    def held(self, row: int) -> int:
        """Bytes in a topic's FIFO."""
        return self.merge.nbytes(row)

    def full(self, row: int) -> bool:
        """Whether a topic's FIFO is at its limit."""
        return self.merge.full(row)

    def bound(self, row: int, log_time_us: int) -> None:
        """No record below this log time will come from the topic any more."""
        self.merge.advance(row, log_time_us)

    def record_done(self, position: Position) -> None:
        """The broker has acknowledged the letter of a late or rejected record."""
        self.ledger.done(position)

    def releasable(self) -> dict[int, Position]:
        """The newest record that may be committed, by row, where it is another than at the last call."""
        grown: dict[int, Position] = {}
        for position in self.ledger.release():
            self._forget(position)
            grown[position.row] = position
        oldest_us = self.oldest_us
        self.cut_us = oldest_us if oldest_us is not None else self.merge.clock_us
        return grown

    def _forget(self, position: Position) -> None:
        """A record will be committed: drop what a subclass remembers of it."""
