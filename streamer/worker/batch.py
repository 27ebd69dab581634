"""Batching: a batch is ready at ``max_batch`` items, or ``max_wait_s`` after its oldest item came."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Batcher(Generic[T]):
    """First in, first out; since every item waits equally long, that is also the order of their deadlines.

    Args:
        max_batch: Most items in a batch.
        max_wait_s: Longest wait of an item for others, in seconds; while the consumer of the batches is busy, items
            wait for it instead, and the next batch takes all that fit.
    """

    def __init__(self, max_batch: int, max_wait_s: float) -> None:
        self.max_batch = max_batch
        self.max_wait_s = max_wait_s
        self._items: deque[tuple[float, T]] = deque()
        self._changed = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item; never blocks (the bound on bytes in flight is the worker's)."""
        self._items.append((asyncio.get_running_loop().time(), item))
        self._changed.set()

    def close(self) -> None:
        """No more items: what is there goes out at once, then :meth:`get` returns an empty list."""
        self._closed = True
        self._changed.set()

    async def get(self) -> list[T]:
        """Wait for the next batch; empty only after :meth:`close`."""
        loop = asyncio.get_running_loop()
        while not self._ripe(loop.time()):
            self._changed.clear()
            wait = self._items[0][0] + self.max_wait_s - loop.time() if self._items else None
            try:
                await asyncio.wait_for(self._changed.wait(), wait)
            except TimeoutError:
                break  # the oldest item has waited long enough
        return [self._items.popleft()[1] for _ in range(min(len(self._items), self.max_batch))]

    def _ripe(self, now: float) -> bool:
        if self._closed or len(self._items) >= self.max_batch:
            return True
        return bool(self._items) and now - self._items[0][0] >= self.max_wait_s
