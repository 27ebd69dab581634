"""How much may come in: a rate for each token, and a bound on the bytes that are here."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from streamer.gateway.problems import Problem
from streamer.settings import Settings

BURST_S = 2.0  # what a token may send at once after a pause, in seconds of its rate
KEPT_TOKENS = 10_000  # the quotas of tokens that were used last; a full one is the same as none
BUSY_RETRY_S = 2


class Bucket:
    """A token bucket that may go into debt: a body is charged once its size is known, and the next one waits for it.

    So a body of any size passes, and the mean rate still holds.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._clock = clock
        self._level = rate * BURST_S
        self._at_s = clock()

    def wait_s(self) -> float:
        """How long until something may come; 0: now."""
        now_s = self._clock()
        self._level = min(self._rate * BURST_S, self._level + (now_s - self._at_s) * self._rate)
        self._at_s = now_s
        return max(0.0, -self._level / self._rate)

    def charge(self, amount: float) -> None:
        """Take what has come."""
        self._level -= amount


class Quotas:
    """Bytes and records a second of each token."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = monotonic) -> None:
        self._rates = settings.gateway_bytes_a_second, settings.gateway_records_a_second
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[Bucket, Bucket]] = OrderedDict()

    def check(self, token: str) -> None:
        """Refuse more from a token that has sent too much.

        Raises:
            Problem: 429, with the seconds to wait.
        """
        nbytes, records = self._of(token)
        if (wait_s := max(nbytes.wait_s(), records.wait_s())) > 0:
            limits = "{} bytes and {} records a second".format(*self._rates)
            raise Problem(429, f"this token may send {limits}", math.ceil(wait_s))

    def charge(self, token: str, nbytes: int, records: int) -> None:
        """Note what a token has sent."""
        of_bytes, of_records = self._of(token)
        of_bytes.charge(nbytes)
        of_records.charge(records)

    def _of(self, token: str) -> tuple[Bucket, Bucket]:
        found = self._buckets.get(token)
        if found is None:
            nbytes, records = self._rates
            found = self._buckets[token] = Bucket(nbytes, self._clock), Bucket(records, self._clock)
            if len(self._buckets) > KEPT_TOKENS:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(token)
        return found


class Room:
    """The bytes that may be here: bodies that are being read, and records that wait for Kafka.

    Args:
        limit_bytes: Of all together.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.used_bytes = 0

    def take(self, nbytes: int) -> None:
        """Reserve bytes, which :meth:`give` returns.

        Raises:
            Problem: 503: there is no room for them now.
        """
        if self.used_bytes + nbytes > self._limit_bytes and self.used_bytes > 0:
            raise Problem(503, "too much waits for Kafka here: send it again later", BUSY_RETRY_S)
        self.used_bytes += nbytes

    def hold(self, nbytes: int) -> None:
        """Note bytes that are here already: those of a record that was in a body which had its room."""
        self.used_bytes += nbytes

    def give(self, nbytes: int) -> None:
        """Return bytes that have gone."""
        self.used_bytes -= nbytes
