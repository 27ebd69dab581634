"""How many tokens a minute a language model may cost."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

MINUTE_S = 60.0


class Budget:
    """Tokens that refill evenly: at most a minute's worth at once, and on average that many a minute.

    Args:
        tokens_a_minute: The limit.
        clock: Seconds that never step back.
    """

    def __init__(self, tokens_a_minute: int, clock: Callable[[], float] = monotonic) -> None:
        self._most = float(tokens_a_minute)
        self._left = self._most
        self._clock = clock
        self._filled_s = clock()

    def take(self, tokens: int) -> bool:
        """Reserve what a question is likely to cost; ``False``: too little is left, and nothing was reserved."""
        now_s = self._clock()
        self._left = min(self._most, self._left + (now_s - self._filled_s) * self._most / MINUTE_S)
        self._filled_s = now_s
        if tokens > self._left:
            return False
        self._left -= tokens
        return True

    def settle(self, reserved: int, used: int) -> None:
        """Replace a reservation by what was used; more than was reserved delays the questions to come."""
        self._left += reserved - used
