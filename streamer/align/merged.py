"""The records of one partition of every topic that is read: merged into one order, and kept until each is done."""

from __future__ import annotations

from typing import Generic

from streamer.align.ledger import Ledger
from streamer.align.merge import Merge, T
from streamer.events import Position, Record


class MergedLog(Generic[T]):
    """What every partition group has, whatever becomes of its records.

    It lives from the assignment of its partition to the revocation and is then dropped whole; whoever owns the
    partition next rebuilds it from the committed offsets.

    Args:
        name: Of the group, in Redis.
        rows: Topics that are read.
        fifo_bytes: Limit of each topic's FIFO.

    Attributes:
        alive: False once the partition was taken away: completions that come later must change nothing.
        next_offset: For each row the offset after the newest record that was received.
        cut_us: Log time below which nothing would be replayed if what was released by now were committed.
        trim_below_us: The same of what is committed.
    """

    def __init__(self, partition: int, name: str, rows: int, fifo_bytes: int) -> None:
        self.partition = partition
        self.name = name
        self.alive = True
        self.cut_us = self.trim_below_us = 0
        self.next_offset = [0] * rows
        self.merge: Merge[T] = Merge(rows, fifo_bytes)
        self.ledger = Ledger()

    def _is_new(self, record: Record) -> bool:
        """Whether a record was not received before; notes that it is now."""
        if record.offset < self.next_offset[record.row]:
            return False
        self.next_offset[record.row] = record.offset + 1
        return True

    @property
    def buffered_bytes(self) -> int:
        """Received, and waiting for the merge."""
        return self.merge.nbytes_total

    @property
    def clock_us(self) -> int:
        """Log time up to which the merge has released everything; 0: nothing is known yet."""
        return self.merge.clock_us

    @property
    def oldest_us(self) -> int | None:
        """Log time of the oldest record that is not done; None: all are."""
        oldest = self.ledger.oldest
        return None if oldest is None else oldest.log_time_us

    def held(self, row: int) -> int:
        """Bytes that wait in the FIFO of a topic."""
        return self.merge.nbytes(row)

    def full(self, row: int) -> bool:
        """Whether this FIFO is at its limit."""
        return self.merge.full(row)

    def bound(self, row: int, log_time_us: int) -> None:
        """Nothing below this log time will come from a topic any more."""
        self.merge.advance(row, log_time_us)

    def record_done(self, position: Position) -> None:
        """A record that left by itself, late or rejected, is where it belongs."""
        self.ledger.done(position)

    def releasable(self) -> dict[int, int]:
        """Offsets to commit, by row, as far as they grew since the last call."""
        grown: dict[int, int] = {}
        for position in self.ledger.release():
            self._forget(position)
            grown[position.row] = position.offset + 1
        oldest_us = self.oldest_us
        self.cut_us = oldest_us if oldest_us is not None else self.merge.clock_us
        return grown

    def _forget(self, position: Position) -> None:
        """A record will be committed; a group that remembers anything of it need not any more."""
