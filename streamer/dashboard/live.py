"""New results from Redis to all browsers.

One subscription serves every browser. Each browser has a place of bounded size for what it has not yet taken: the
newest summary of each session, and the last results of the session that it looks at. A slow one finds newer summaries
in place of older ones and a note that results were left out, which it then reads from Redis by range.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from time import monotonic
from typing import Any

import msgspec
import redis.asyncio
from redis.exceptions import RedisError

from streamer.result import Result, decision
from streamer.store.results import Keys

MAX_CLIENTS = 64
MAX_SESSIONS = 200  # shown in the list, those heard last
MAX_HELD = 100  # results that wait for one browser
QUIET_S = 1.0
BACKOFF_S = 1.0


class Summary(msgspec.Struct, frozen=True):
    """A session in the list, by its newest result.

    Attributes:
        age_s: Seconds since that result was published; None: not known.
    """

    session: str
    end_us: int
    status: str
    closed_by: str
    label: str
    score: float | None
    total_us: int
    age_s: float | None


def summary(result: Result, age_s: float | None) -> Summary:
    """What the list shows of a session."""
    label, score = decision(result)
    total_us = result.latencies_us.get("total", 0)
    return Summary(result.session, result.end_us, result.status, result.closed_by, label, score, total_us, age_s)


class Client:
    """What waits for one browser, bounded.

    Args:
        session: Whose results it wants whole; None: the summaries alone.
    """

    def __init__(self, session: str | None) -> None:
        self.session = session
        self._summaries: dict[str, tuple[Summary, float]] = {}
        self._results: deque[bytes] = deque(maxlen=MAX_HELD)
        self._notes: dict[str, Any] = {}
        self._something = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        """Nothing more will come."""
        self.closed = True
        self._something.set()

    def result(self, result: Result) -> None:
        """A result was published."""
        self._summaries.pop(result.session, None)
        self._summaries[result.session] = (summary(result, 0.0), monotonic())
        if len(self._summaries) > MAX_SESSIONS:
            del self._summaries[next(iter(self._summaries))]
        if result.session == self.session:
            if len(self._results) == MAX_HELD:
                self._notes["gap"] = True
            self._results.append(result.to_json())
        self._something.set()

    def note(self, name: str, value: Any) -> None:
        """Something else that it should know; a newer value takes the place of one that still waits."""
        self._notes[name] = value
        self._something.set()

    async def take(self, within_s: float) -> bytes | None:
        """Everything that waits, as one line of JSON; None if nothing comes within so many seconds."""
        try:
            await asyncio.wait_for(self._something.wait(), within_s)
        except TimeoutError:
            return None
        self._something.clear()
        now_s = monotonic()
        summaries = [msgspec.structs.replace(s, age_s=now_s - since_s) for s, since_s in self._summaries.values()]
        message = {"sessions": summaries, "results": [msgspec.Raw(raw) for raw in self._results], **self._notes}
        self._summaries.clear()
        self._results.clear()
        self._notes.clear()
        return msgspec.json.encode(message)


class Live:
    """Reads Redis for all browsers.

    Args:
        client: Is closed by whoever made it.
        faults: The newest counts of late records and dead letters, for a browser that has just come.
    """

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, faults: Callable[[], Any]) -> None:
        self._redis = client
        self._keys = keys
        self._faults = faults
        self._clients: set[Client] = set()
        self._heard_s: OrderedDict[str, float] = OrderedDict()  # session -> when, on the monotonic clock
        self._answers = True

    def join(self, session: str | None) -> Client | None:
        """A place for a browser; None if there are too many."""
        if len(self._clients) >= MAX_CLIENTS:
            return None
        client = Client(session)
        client.note("redis", self._answers)
        client.note("faults", self._faults())
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """The browser has gone."""
        self._clients.discard(client)

    def close(self) -> None:
        """Tell all streams to end."""
        for client in self._clients:
            client.close()

    def note(self, name: str, value: Any) -> None:
        """Tell all browsers."""
        for client in self._clients:
            client.note(name, value)

    async def follow(self) -> None:
        """Hand on new results until cancelled; while Redis does not answer, say so and try again."""
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(self._keys.channel)
                    self._tell(answers=True)
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=QUIET_S)
                        if message is not None:
                            self._publish(message["data"])
            except (RedisError, OSError):
                self._tell(answers=False)
                await asyncio.sleep(BACKOFF_S)

    def _tell(self, answers: bool) -> None:
        if answers != self._answers:
            self._answers = answers
            self.note("redis", answers)
            if answers:
                self.note("gap", True)  # what was published meanwhile was not heard

    def _publish(self, message: bytes) -> None:
        try:
            result = msgspec.convert({**msgspec.json.decode(message), "embedding": b""}, Result)
        except (msgspec.MsgspecError, TypeError, UnicodeDecodeError):
            return  # anybody may write to a channel
        self._heard_s.pop(result.session, None)
        self._heard_s[result.session] = monotonic()
        if len(self._heard_s) > MAX_SESSIONS:
            self._heard_s.popitem(last=False)
        for client in self._clients:
            client.result(result)

    async def sessions(self) -> list[Summary]:
        """The sessions with the newest windows and those heard last, at most twice MAX_SESSIONS.

        Raises:
            RedisError: It does not answer.
        """
        newest = await self._redis.zrevrange(self._keys.sessions, 0, MAX_SESSIONS - 1)
        names = list(dict.fromkeys([*self._heard_s, *(name.decode() for name in newest)]))
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(self._keys.latest(name))
                # Nobody but the publisher and a starting worker touches the state, so its idle time is the age of the
                # newest result. Redis does not count it under an LFU policy, and answers with an error then.
                pipe.object("IDLETIME", self._keys.state(name))
            answers = await pipe.execute(raise_on_error=False)
        now_s = monotonic()
        found = []
        for name, fields, idle_s in zip(names, answers[::2], answers[1::2], strict=True):
            age_s = now_s - self._heard_s[name] if name in self._heard_s else idle_s
            if isinstance(fields, dict) and fields:
                known = isinstance(age_s, (int, float))
                found.append(summary(Result.from_fields(fields), float(age_s) if known else None))
        return found

    async def results(self, session: str, since_us: int, until_us: int, count: int) -> list[bytes]:
        """The newest results of a session that end in ``[since_us, until_us]``, oldest first, each as JSON.

        Raises:
            RedisError: It does not answer.
        """
        stream = self._keys.results(session)
        page = await self._redis.xrevrange(stream, min=f"{since_us}-0", max=f"{until_us}-0", count=count)
        return [Result.from_fields(fields).to_json() for _, fields in reversed(page)]

    async def result(self, session: str, end_us: int) -> Result | None:
        """One result; None if Redis does not have it.

        Raises:
            RedisError: It does not answer.
        """
        entry = f"{end_us}-0"
        page = await self._redis.xrange(self._keys.results(session), min=entry, max=entry)
        return Result.from_fields(page[0][1]) if page else None
