"""Readers of the results of all sessions, each with a cursor of its own, in Redis or where the results go.

Where a reader is in a session, and what it needs of the windows before, lie in one hash of Redis: fields ``end_us`` and
``state``. A restart continues there. Nothing waits for a reader: what the results streams have deleted before it came
is noted.

What a command costs its client is the way there and back, whatever it carries (``bench/sinks.py``). So sessions that
are read at the same time share their commands: one that reads their cursors, one their results, one that moves the
cursors. In a Redis Cluster these would have to be one for each node.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import monotonic
from typing import Any, Protocol

import msgspec
import redis.asyncio
import redis.exceptions

from streamer.backoff import Backoff
from streamer.errors import Stop, Unavailable
from streamer.events import rfc3339
from streamer.observe.health import Service
from streamer.result import Result
from streamer.store.results import Keys
from streamer.store.states import refuses_us
from streamer.store.together import Together

PAGE = 100  # results in one read
POLL_S = 0.5  # between two looks at what is new
BUSY_S = 0.02  # the same while sessions are being read: a look is a list of all sessions
AT_ONCE = 16  # sessions that are read at the same time

# KEYS: cursors. Returns end_us and state of each.
READ = """
local found = {}
for i, cursor in ipairs(KEYS) do found[i] = redis.call('HMGET', cursor, 'end_us', 'state') end
return found
"""

# KEYS: cursor, results, of one session after the other. ARGV, for each: the cursor's end_us before (empty: none),
# end_us, state. Returns 1 for each that has moved. A session without results was forgotten, and gets no keys again.
MOVE = """
local moved = {}
for i = 1, #KEYS / 2 do
  local cursor, results, before = KEYS[2 * i - 1], KEYS[2 * i], ARGV[3 * i - 2]
  if (redis.call('HGET', cursor, 'end_us') or '') == before and redis.call('EXISTS', results) == 1 then
    redis.call('HSET', cursor, 'end_us', ARGV[3 * i - 1], 'state', ARGV[3 * i])
    moved[i] = 1
  else
    moved[i] = 0
  end
end
return moved
"""

log = logging.getLogger(__name__)


class Cursor(msgspec.Struct, frozen=True):
    """How far a reader is in a session.

    Attributes:
        end_us: Windows up to this end are done; ``None``: the session is new.
        state: What the next window needs of those before it.
    """

    end_us: int | None = None
    state: bytes = b""


class Places(Protocol):
    """Where one reader is, in every session."""

    async def read(self, session: str) -> Cursor:
        """Where the reader is.

        Raises:
            RedisError, OSError, Unavailable: What holds the cursors does not answer.
        """
        ...

    async def move(self, session: str, before: Cursor, after: Cursor) -> bool:
        """Move the cursor; ``False`` if it is not where it was, or the session was forgotten: nothing was done.

        Raises:
            RedisError, OSError, Unavailable: No answer; the cursor may have moved or not.
        """
        ...


class Cursors:
    """The cursors of one reader, in Redis.

    Args:
        key: Session -> the key of its hash, in the session's hash slot.
    """

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, key: Callable[[str], str]) -> None:
        self._keys = keys
        self._key = key
        self._read_script = client.register_script(READ)
        self._move_script = client.register_script(MOVE)
        self._read = Together(self._read_all)
        self._move = Together(self._move_all)

    async def read(self, session: str) -> Cursor:
        """Where the reader is.

        Raises:
            RedisError, OSError: Redis does not answer.
        """
        return await self._read(session)

    async def move(self, session: str, before: Cursor, after: Cursor) -> bool:
        """Move the cursor; ``False`` if it is not where it was, or the session was forgotten: nothing was done.

        Raises:
            RedisError, OSError: Redis does not answer; the cursor may have moved or not.
        """
        return await self._move((session, before, after))

    async def _read_all(self, sessions: Sequence[str]) -> list[Cursor]:
        found = await self._read_script(keys=[self._key(session) for session in sessions])
        return [Cursor() if end_us is None else Cursor(int(end_us), state or b"") for end_us, state in found]

    async def _move_all(self, moves: Sequence[tuple[str, Cursor, Cursor]]) -> list[bool]:
        keys, args = list[str](), list[Any]()
        for session, before, after in moves:
            keys += self._key(session), self._keys.results(session)
            args += "" if before.end_us is None else before.end_us, after.end_us, after.state
        return [bool(moved) for moved in await self._move_script(keys=keys, args=args)]


class Page(msgspec.Struct, frozen=True):
    """The next results of a session.

    Attributes:
        results: In their order; one or more.
        missed: Which results may have been trimmed before they were read; empty if none.
        missed_us: How much event time lies between the cursor and these results, if some may have been trimmed.
        reached: To be called with the end of each window that is done, where a page takes long.
    """

    session: str
    cursor: Cursor
    results: tuple[Result, ...]
    missed: str = ""
    missed_us: int = 0
    reached: Callable[[int], object] = lambda end_us: None


class Later(msgspec.Struct, frozen=True):
    """A session that cannot go on now: it is read again after some seconds, the others go on."""

    after_s: float


class Reader:
    """Reads what is new in all sessions, in the order of each.

    Args:
        client: Not closed here.
        cursors: Where it is.
        take: Called with each page, for several sessions at the same time; moves the session's cursor, and returns how
            far it did: ``None`` if the cursor was not where the page has it, ``Later`` if this session has to wait.
            What it raises ends the page: it is read again, from wherever the cursor is. ``Unavailable`` and Redis'
            errors are retried with back-off.
        redis, other: Learn whether Redis, and the service that ``take`` needs, answer.
        only: Only these sessions; empty for all.
        since_us: In sessions without a cursor, begin with the windows that end at or after this time.
        at_once: Sessions that are read at the same time.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        cursors: Places,
        take: Callable[[Page], Awaitable[int | Later | None]],
        *,
        redis: Service,
        other: Service,
        only: Sequence[str] = (),
        since_us: int = 0,
        at_once: int = AT_ONCE,
    ) -> None:
        self._client = client
        self._keys = keys
        self._cursors = cursors
        self._take = take
        self._redis = redis
        self._other = other
        self._only = frozenset(only)
        self._since_us = since_us
        self._places_us: dict[str, int] = {}  # session -> end of its newest window that is done
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._entries = Together(self._entries_of_all)
        self._later_s: dict[str, float] = {}  # session -> when it may be read again, by the monotonic clock
        self._free = asyncio.Semaphore(at_once)
        self.behind_s = 0.0  # event time by which the furthest session is behind its newest result

    async def skip(self) -> None:
        """Pass over what is there already, in sessions without a cursor.

        Raises:
            RedisError, OSError: Redis does not answer.
        """
        await asyncio.gather(*(self._skip(session, end_us) for session, end_us in (await self._newest()).items()))

    async def _skip(self, session: str, end_us: int) -> None:
        async with self._free:
            if (await self._cursors.read(session)).end_us is None:
                await self._cursors.move(session, Cursor(), Cursor(end_us))

    async def run(self, once: bool = False) -> None:
        """Read until cancelled.

        Args:
            once: End as soon as every result that Redis has is done.

        Raises:
            Stop: Redis refuses our credentials or rights.
        """
        backoff = Backoff()
        try:
            while True:
                try:
                    waiting = await self._look()
                    await self._finished()
                except (redis.exceptions.RedisError, OSError) as error:
                    if refuses_us(error):
                        raise Stop(f"Redis refuses this reader: {error}; SECURITY.md lists its rights") from None
                    self._redis.away(error)
                except Unavailable as error:
                    self._other.away(error)
                else:
                    self._redis.answers()
                    backoff = Backoff()
                    if once and not waiting and not self._tasks:
                        return
                    await asyncio.sleep(BUSY_S if self._tasks or (once and not self._later_s) else POLL_S)
                    continue
                await backoff.pause()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _newest(self) -> dict[str, int]:
        """Session -> end of its newest window."""
        found = await self._client.zrevrange(self._keys.sessions, 0, -1, withscores=True)
        newest = {name.decode(): int(end_us) for name, end_us in found}
        return {name: end_us for name, end_us in newest.items() if not self._only or name in self._only}

    async def _look(self) -> bool:
        """Start a task for each session that has something new; returns whether any has."""
        newest = await self._newest()
        for gone in set(self._places_us) - set(newest):
            del self._places_us[gone]
        # below its place: forgotten, and published again
        waiting = [name for name, end_us in newest.items() if self._places_us.get(name) != end_us]
        now_s = monotonic()
        self._later_s = {name: at_s for name, at_s in self._later_s.items() if at_s > now_s}
        for name in waiting:
            if name not in self._tasks and name not in self._later_s:
                self._tasks[name] = asyncio.create_task(self._read(name, newest[name]))
        behind_us = max((newest[name] - self._places_us.get(name, newest[name]) for name in waiting), default=0)
        self.behind_s = max(0, behind_us) / 1e6
        return bool(waiting)

    async def _finished(self) -> None:
        """Forget the tasks that have ended; raises what one of them raised."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        ended = [name for name, task in self._tasks.items() if task.done()]
        for error in [self._tasks.pop(name).exception() for name in ended]:
            if error is not None:
                raise error

    async def _read(self, session: str, newest_us: int) -> None:
        """Read what a session has that is new, at least up to a window that was seen in the list of sessions."""
        async with self._free:
            while (page := await self._page(session)) is not None:
                reached_us = await self._take(page)
                if isinstance(reached_us, Later):
                    self._later_s[session] = monotonic() + reached_us.after_s
                    return
                self._other.answers()
                if reached_us is not None:
                    self._places_us[session] = reached_us
                    if len(page.results) < PAGE and reached_us >= newest_us:
                        return  # what has come since is seen at the next look
        # As it was seen, and not as it is now: what came since, perhaps after the session was forgotten, is new.
        self._places_us[session] = newest_us

    async def _page(self, session: str) -> Page | None:
        cursor = await self._cursors.read(session)
        entries = await self._entries((session, self._since_us - 1 if cursor.end_us is None else cursor.end_us))
        results = tuple(Result.from_fields(fields) for _, fields in entries)
        if not results:
            return None
        missed = await self._missed(session, cursor, results[0])
        missed_us = results[0].start_us - cursor.end_us if missed and cursor.end_us is not None else 0
        return Page(session, cursor, results, missed, missed_us, partial(self._places_us.__setitem__, session))

    async def _entries_of_all(self, places: Sequence[tuple[str, int]]) -> list[Sequence[tuple[bytes, Any]]]:
        """The entries behind a window's end, for each session; one that is forgotten has none."""
        after = {self._keys.results(session): f"{max(0, end_us)}-0" for session, end_us in places}
        found = {name.decode(): entries for name, entries in await self._client.xread(after, count=PAGE)}
        return [found.get(name, ()) for name in after]

    async def _missed(self, session: str, cursor: Cursor, first: Result) -> str:
        if cursor.end_us is None or first.start_us <= cursor.end_us:
            return ""
        entry = f"{cursor.end_us}-0"
        if await self._client.xrange(self._keys.results(session), min=entry, max=entry):
            return ""  # nothing is deleted after an entry that is still there
        since, until = (rfc3339(time_us, "milliseconds") for time_us in (cursor.end_us, first.start_us))
        missed = f"results from {since} to {until} may have been trimmed before they were read"
        log.warning("%s: %s", session, missed)
        return missed
