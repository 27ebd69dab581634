"""Stage 2: the logs of a partition group become one order, that of the broker's append times.

One byte-bounded FIFO a source topic. The head with the smallest position goes first; it may pass an *empty* sibling
only when nothing older can still come there: the sibling's *bound* says so (``broker`` works it out, see
``Consumer.idle_since_us``). So what alignment sees is a pure function of the logs: the same live, replayed, or
restarted. Pure code.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Protocol, TypeVar

from streamer.events import Position


class Item(Protocol):
    """What can be merged."""

    @property
    def position(self) -> Position:
        """Place in the merged log."""

    @property
    def nbytes(self) -> int:
        """Memory that it holds."""


T = TypeVar("T", bound=Item)


class Merge(Generic[T]):
    """The merge of one partition group.

    Args:
        rows: Source topics.
        fifo_bytes: Above this a topic's FIFO is full and its partition should be held.

    Attributes:
        violations: Records that came below what alignment was given, a record or the clock: a replay would order them
            differently.
        nbytes_total: Bytes in all FIFOs.
        released: Position of the newest record that went.
    """

    def __init__(self, rows: int, fifo_bytes: int) -> None:
        # With position and size, which are needed often while an item waits.
        self._fifos: list[deque[tuple[Position, int, T]]] = [deque() for _ in range(rows)]
        # The lowest position that a row may still bring: its head's, or, of an empty row, just before the first record
        # at its bound. At equal times the row decides.
        self._fronts = [Position(0, row, -1) for row in range(rows)]
        self._bounds = [0] * rows
        self._nbytes = [0] * rows
        self._fifo_bytes = fifo_bytes
        self.released = Position(0, -1, -1)
        self._given_us = 0  # the clock, as alignment has it
        self.violations = 0
        self.nbytes_total = 0

    def push(self, row: int, item: T) -> None:
        """Add the next record of a topic."""
        position, nbytes = item.position, item.nbytes
        if position < self.released or position.log_time_us < self._given_us:
            self.violations += 1
        fifo = self._fifos[row]
        if not fifo:
            self._fronts[row] = position
        fifo.append((position, nbytes, item))
        self._nbytes[row] += nbytes
        self.nbytes_total += nbytes
        self.advance(row, position.log_time_us)  # later records of this topic cannot be older

    def advance(self, row: int, bound_us: int) -> None:
        """No record with a log time below ``bound_us`` is still to come on this topic."""
        if bound_us > self._bounds[row]:
            self._bounds[row] = bound_us
            if not self._fifos[row]:
                self._fronts[row] = Position(bound_us, row, -1)

    def release(self, limit: int | None = None) -> list[T]:
        """Take all records, or ``limit``, that may go now, in order of position."""
        released: list[T] = []
        while limit is None or len(released) < limit:
            row = self._next()
            if row is None:
                break
            fifo = self._fifos[row]
            position, nbytes, item = fifo.popleft()
            self._fronts[row] = fifo[0][0] if fifo else Position(self._bounds[row], row, -1)
            self._nbytes[row] -= nbytes
            self.nbytes_total -= nbytes
            if position > self.released:
                self.released = position
            released.append(item)
        return released

    def _next(self) -> int | None:
        """Row of the head that may go: the smallest, unless an empty sibling may still bring a smaller one."""
        fronts = self._fronts
        row = fronts.index(min(fronts))
        if self._fifos[row]:
            return row
        head = min((front for front, fifo in zip(fronts, self._fifos, strict=True) if fifo), default=None)
        # A head below the clock is out of order already: waiting would not help.
        return fronts.index(head) if head is not None and head <= self.released else None

    @property
    def clock_us(self) -> int:
        """Log time up to which alignment may be ticked once nothing more can be released."""
        return max(min(self._fronts).log_time_us, self.released.log_time_us)

    def give_clock(self) -> int:
        """The clock, for alignment: a record that comes below it is a violation from now on."""
        self._given_us = max(self._given_us, self.clock_us)
        return self._given_us

    def full(self, row: int) -> bool:
        """Whether the topic's FIFO holds its share."""
        return self._nbytes[row] >= self._fifo_bytes

    def nbytes(self, row: int) -> int:
        """Bytes in the topic's FIFO; 0 exactly when it is empty."""
        return self._nbytes[row]
