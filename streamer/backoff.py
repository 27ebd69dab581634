"""How long to wait before a call is repeated."""

from __future__ import annotations

import asyncio
import random

FIRST_S, MOST_S = 0.05, 2.0


class Backoff:
    """Pauses between the attempts at one call: each twice as long as the one before, up to the longest.

    Each is shortened by a random share of up to half, so that workers that lost the same server do not return at once.

    Args:
        most_s: The longest pause, seconds.
    """

    def __init__(self, most_s: float = MOST_S) -> None:
        self._next_s = FIRST_S
        self._most_s = most_s

    async def pause(self) -> None:
        """Wait."""
        await asyncio.sleep(self.next_s())

    def next_s(self) -> float:
        """How long to wait now, for who waits by other means."""
        now_s = self._next_s * random.uniform(0.5, 1.0)
        self._next_s = min(2 * self._next_s, self._most_s)
        return now_s
