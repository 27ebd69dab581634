"""What may be committed: the records of a partition group in merge order, each until nothing holds it any more.

Offsets are released from the head only, so the committed offsets of all topics are one consistent cut of the merged
log: a restart replays exactly the suffix after it, and no window can be rebuilt from half of its modalities. Pure code.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from streamer.events import Position

H = TypeVar("H")


class _Entry(Generic[H]):
    __slots__ = ("handle", "position", "references")

    def __init__(self, position: Position, references: int, handle: H) -> None:
        self.position = position
        self.references = references
        self.handle = handle


class Ledger(Generic[H]):
    """The ledger of one partition group."""

    def __init__(self) -> None:
        self._entries: deque[_Entry[H]] = deque()
        self._by_position: dict[Position, _Entry[H]] = {}

    def add(self, position: Position, references: int, handle: H) -> None:
        """A record was released by the merge.

        Args:
            references: What holds it: windows, a letter on its way, the session that it ends. 0: nothing.

        Raises:
            ValueError: The position is there already, or the count is negative.
        """
        if references < 0 or position in self._by_position:
            raise ValueError(f"{position} with {references} references: already there, or a negative count")
        entry = _Entry(position, references, handle)
        self._entries.append(entry)
        self._by_position[position] = entry

    def done(self, position: Position, count: int = 1) -> None:
        """``count`` of what held the record have let go.

        Raises:
            KeyError: No such record is pending.
            ValueError: More let go than held it.
        """
        entry = self._by_position[position]
        if count > entry.references:
            raise ValueError(f"{position}: {count} let go, {entry.references} held it")
        entry.references -= count

    def release(self) -> list[H]:
        """Handles from the head on that nothing holds: these may be committed."""
        released: list[H] = []
        while self._entries and not self._entries[0].references:
            entry = self._entries.popleft()
            del self._by_position[entry.position]
            released.append(entry.handle)
        return released

    def __contains__(self, position: Position) -> bool:
        return position in self._by_position

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def oldest(self) -> Position | None:
        """The head: what a restart would replay first."""
        return self._entries[0].position if self._entries else None
