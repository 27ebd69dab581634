"""Follows the results of all sessions and describes each window once, in the order of its session.

Where it is in a session, and what the next description needs of those before it, lie in Redis beside the descriptions
and move in the same atomic call (``store/descriptions.py``). So a restart goes on where the last process was, whenever
that was killed. Nothing waits for this reader: what the results streams no longer have when it comes is noted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec
import redis.asyncio
import redis.exceptions

from streamer.backoff import Backoff
from streamer.describe.evidence import Words
from streamer.describe.metrics import Metrics
from streamer.describe.sentences import Before, sentences
from streamer.errors import Stop, Unavailable
from streamer.events import rfc3339
from streamer.observe.health import Service
from streamer.result import Result
from streamer.store.descriptions import Cursor, Description, Descriptions
from streamer.store.results import Keys
from streamer.store.states import refuses_us

PAGE = 100  # results in one read
POLL_S = 0.5  # between two looks at what is new
AT_ONCE = 16  # sessions that are described at the same time

OUTPUTS = "outputs"  # who made a description that no model wrote

log = logging.getLogger(__name__)


class Scene(msgspec.Struct, frozen=True):
    """All that is known of a window when it is to be described.

    Attributes:
        before: What the windows before have shown.
        unasked: Windows since a model was last asked about one of this session; ``None``: never.
        behind: Results of the session that wait already.
    """

    result: Result
    words: Words
    before: Before
    unasked: int | None = None
    behind: int = 0


class Told(msgspec.Struct, frozen=True):
    """What was made of a scene; fields as in :class:`streamer.store.descriptions.Description`.

    Attributes:
        asked: A model was asked, whether or not it answered.
    """

    text: str
    by: str = OUTPUTS
    note: str = ""
    asked: bool = False


class State(msgspec.Struct, frozen=True):
    """What is kept between the windows of a session."""

    before: Before = Before()
    unasked: int | None = None


async def by_outputs(scene: Scene) -> Told:
    """The deterministic description."""
    return Told(sentences(scene.result, scene.words, scene.before))


class Reader:
    """The reader of all sessions.

    Args:
        client: Not closed here.
        words: Reads what was said in consecutive windows of a session.
        tell: Makes the description of a window.
        kafka, redis: Learn whether their service answers.
        only: Only these sessions; empty for all.
        since_us: In sessions that are new to the reader, begin with the windows that end at or after this time.
        on_description: Called with each new description.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        descriptions: Descriptions,
        words: Callable[[Sequence[Result]], Awaitable[list[Words]]],
        tell: Callable[[Scene], Awaitable[Told]],
        *,
        metrics: Metrics,
        kafka: Service,
        redis: Service,
        only: Sequence[str] = (),
        since_us: int = 0,
        on_description: Callable[[Description], object] = lambda description: None,
    ) -> None:
        self._client = client
        self._keys = keys
        self._descriptions = descriptions
        self._words = words
        self._tell = tell
        self._metrics = metrics
        self._kafka = kafka
        self._redis = redis
        self._only = frozenset(only)
        self._since_us = since_us
        self._on_description = on_description
        self._places_us: dict[str, int] = {}  # session -> end of its newest window that is described
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._free = asyncio.Semaphore(AT_ONCE)

    async def run(self, once: bool = False) -> None:
        """Describe what is new, until cancelled.

        Args:
            once: End as soon as every result that Redis has is described.

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
                    self._kafka.away(error)
                else:
                    self._redis.answers()
                    backoff = Backoff()
                    if once and not waiting and not self._tasks:
                        return
                    await asyncio.sleep(0 if once or self._tasks else POLL_S)
                    continue
                await backoff.pause()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _look(self) -> bool:
        """Start a task for each session that has something new; returns whether any has."""
        newest = {
            name.decode(): int(end_us)
            for name, end_us in await self._client.zrevrange(self._keys.sessions, 0, -1, withscores=True)
            if not self._only or name.decode() in self._only
        }
        for gone in set(self._places_us) - set(newest):
            del self._places_us[gone]
        # below its place: forgotten, and published again
        waiting = [name for name, end_us in newest.items() if self._places_us.get(name) != end_us]
        for name in waiting:
            if name not in self._tasks:
                self._tasks[name] = asyncio.create_task(self._describe(name, newest[name]))
        behind_us = max((newest[name] - self._places_us.get(name, newest[name]) for name in waiting), default=0)
        self._metrics.behind_seconds.set(max(0, behind_us) / 1e6)
        return bool(waiting)

    async def _finished(self) -> None:
        """Forget the tasks that have ended; raises what one of them raised."""
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=POLL_S, return_when=asyncio.FIRST_COMPLETED)
        ended = [name for name, task in self._tasks.items() if task.done()]
        for error in [self._tasks.pop(name).exception() for name in ended]:
            if error is not None:
                raise error

    async def _describe(self, session: str, newest_us: int) -> None:
        """Describe what a session has that is new, at least up to a window that was seen in the list of sessions."""
        async with self._free:
            while await self._page(session):
                pass
        # As it was seen, and not as it is now: what came since, perhaps after the session was forgotten, is new.
        self._places_us[session] = newest_us

    async def _page(self, session: str) -> bool:
        """Describe the next few windows; returns whether there may be more."""
        cursor = await self._descriptions.cursor(session)
        after = f"{self._since_us}-0" if cursor.end_us is None else f"({cursor.end_us}-0"
        page = await self._client.xrange(self._keys.results(session), min=after, count=PAGE)
        results = [Result.from_fields(fields) for _, fields in page]
        if not results:
            return False
        note = await self._overtaken(session, cursor, results[0])
        state = msgspec.json.decode(cursor.state, type=State) if cursor.state else State()
        said = await self._words(results)
        self._kafka.answers()
        for index, (result, words) in enumerate(zip(results, said, strict=True)):
            scene = Scene(result, words, state.before, state.unasked, len(results) - index - 1)
            told = await self._tell(scene)
            notes = "; ".join(filter(None, (note, told.note)))
            description = Description(session, result.start_us, result.end_us, told.text, told.by, notes)
            unasked = 0 if told.asked else None if state.unasked is None else state.unasked + 1
            state = State(state.before.after(result), unasked)
            moved = await self._descriptions.add(cursor, description, msgspec.json.encode(state))
            if moved is None:  # another reader was first, or the session was forgotten
                return True
            cursor, note = moved, ""
            self._places_us[session] = result.end_us
            self._metrics.descriptions.labels(OUTPUTS if told.by == OUTPUTS else "model").inc()
            self._on_description(description)
        return True

    async def _overtaken(self, session: str, cursor: Cursor, first: Result) -> str:
        """A note if results were deleted before they could be described; empty if none can have been."""
        if cursor.end_us is None or first.start_us <= cursor.end_us:
            return ""
        entry = f"{cursor.end_us}-0"
        if await self._client.xrange(self._keys.results(session), min=entry, max=entry):
            return ""  # nothing is deleted after an entry that is still there
        self._metrics.overtaken.inc()
        since, until = (rfc3339(time_us, "milliseconds") for time_us in (cursor.end_us, first.start_us))
        log.warning("%s: results from %s to %s may have been trimmed before they were described", session, since, until)
        return f"results from {since} to {until} may have been trimmed before they were described"
