"""Batching: a batch is ready at ``max_batch`` items, or ``max_wait_s`` after its oldest item came.

Early items have batches of their own, which go out only while no other batch is ready.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from itertools import islice
from typing import Generic, TypeVar

T = TypeVar("T", bound=Hashable)


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
        self._early: dict[T, float] = {}
        self._changed = asyncio.Event()
        self._closed = False

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: T) -> None:
        """Add an item; never blocks (the bound on bytes in flight is the worker's)."""
        self._items.append((asyncio.get_running_loop().time(), item))
        self._changed.set()

    def put_early(self, item: T) -> None:
        """Add an early item."""
        self._early[item] = asyncio.get_running_loop().time()
        self._changed.set()

    def drop(self, item: T) -> bool:
        """Take an early item back; ``False`` if it has gone out."""
        return self._early.pop(item, None) is not None

    def close(self) -> None:
        """No more items: what is there goes out at once, early items aside, then :meth:`get` returns an empty list."""
        self._closed = True
        self._changed.set()

    async def get(self) -> list[T]:
        """Wait for the next batch; empty only after :meth:`close`."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            oldest = self._items[0][0] if self._items else math.inf
            oldest_early = next(iter(self._early.values()), math.inf)
            if self._closed or self._ripe(len(self._items), oldest, now):
                return [self._items.popleft()[1] for _ in range(min(len(self._items), self.max_batch))]
            if self._ripe(len(self._early), oldest_early, now):
                batch = list(islice(self._early, self.max_batch))
                for item in batch:
                    del self._early[item]
                return batch
            self._changed.clear()
            wait = min(oldest, oldest_early) + self.max_wait_s - now
            with suppress(TimeoutError):  # the oldest item has waited long enough
                await asyncio.wait_for(self._changed.wait(), None if wait == math.inf else wait)

    def _ripe(self, count: int, oldest: float, now: float) -> bool:
        return count >= self.max_batch or now >= oldest + self.max_wait_s
