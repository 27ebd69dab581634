"""Which offsets may be committed: a partition group's records in merge order, each with a reference count.

Offsets are released from the head only, so the committed offsets of all topics are one consistent cut of the merged
log: a restart replays exactly the suffix after it, and no window can be rebuilt from half of its modalities. Pure code.
"""

from __future__ import annotations

from collections import deque

from streamer.events import Position


class Ledger:
    """The ledger of one partition group."""

    def __init__(self) -> None:
        self._pending: deque[Position] = deque()  # in merge order; finding the oldest key of a dict is slow
        self._references: dict[Position, int] = {}

    def add(self, position: Position, references: int) -> None:
        """A record was released by the merge.

        Args:
            references: Windows, letters in flight, or a session to end that reference it; may be 0.

        Raises:
            ValueError: The position is there already, or the count is negative.
        """
        if references < 0 or position in self._references:
            raise ValueError(f"{position} with {references} references: already there, or a negative count")
        self._pending.append(position)
        self._references[position] = references

    def done(self, position: Position, count: int = 1) -> None:
        """Drop ``count`` references to a record.

        Raises:
            KeyError: No such record is pending.
            ValueError: It has fewer references.
        """
        left = self._references[position] - count
        if left < 0:
            raise ValueError(f"{position}: {count} references dropped, it had {left + count}")
        self._references[position] = left

    def release(self) -> list[Position]:
        """Take the positions at the head without references: these may be committed."""
        released: list[Position] = []
        pending, references = self._pending, self._references
        while pending and not references[pending[0]]:
            position = pending.popleft()
            del references[position]
            released.append(position)
        return released

    def __contains__(self, position: Position) -> bool:
        return position in self._references

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def oldest(self) -> Position | None:
        """The head: what a restart would replay first."""
        return self._pending[0] if self._pending else None
