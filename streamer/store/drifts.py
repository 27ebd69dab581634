"""Clocks that drift, as workers report them, for the doctor and the page.

    {prefix}:drifts               stream: a session's drifting sensors, while they drift

An entry speaks of its session for FRESH_S, by Redis' clock. Then it does not count any more, and is deleted soon.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nlargest

import msgspec
import redis
import redis.asyncio

from streamer.events import Drift
from streamer.store.results import Keys

REPORT_EVERY_S = 10.0
FRESH_S = 45.0
MAX_REPORTED = 100  # sessions, of one worker: those with the largest drifts


class Reports:
    """Writes what a worker finds."""

    def __init__(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        self._client = client
        self._key = keys.drifts
        self._written_ms = 0  # the last entry, by Redis' clock

    async def write(self, found: Iterable[tuple[str, tuple[Drift, ...]]]) -> None:
        """Add what is found now, by session.

        Raises:
            RedisError, OSError: Redis does not answer.
        """
        largest = nlargest(MAX_REPORTED, found, key=lambda item: max(abs(drift.ppm) for drift in item[1]))
        if not largest:
            return
        oldest = _entry(self._written_ms)
        async with self._client.pipeline(transaction=False) as pipe:
            for session, drifts in largest:
                entry = {"session": session, "drifts": msgspec.json.encode(drifts)}
                pipe.xadd(self._key, entry, minid=oldest, approximate=False)
            pipe.expire(self._key, round(FRESH_S))
            *_, newest, _ = await pipe.execute()
        self._written_ms = int(newest.partition(b"-")[0])


def read(client: redis.Redis, keys: Keys) -> dict[str, tuple[Drift, ...]]:
    """Session -> its sensors that drift now.

    Raises:
        RedisError: Redis does not answer.
    """
    return _newest(client.xrange(keys.drifts, min=_since(client.time())))


async def read_async(client: redis.asyncio.Redis, keys: Keys) -> dict[str, tuple[Drift, ...]]:
    """See :func:`read`."""
    return _newest(await client.xrange(keys.drifts, min=_since(await client.time())))


def _since(now: tuple[int, int]) -> str:
    return _entry(now[0] * 1000 + now[1] // 1000)


def _entry(now_ms: int) -> str:
    """The first entry that counts."""
    return f"{max(0, now_ms - round(FRESH_S * 1000))}-0"


def _newest(entries: Iterable[tuple[bytes, dict[bytes, bytes]]]) -> dict[str, tuple[Drift, ...]]:
    return {
        fields[b"session"].decode(): msgspec.json.decode(fields[b"drifts"], type=tuple[Drift, ...])
        for _, fields in entries
    }
