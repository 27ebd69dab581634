"""New results from Redis to all browsers.

One subscription serves every browser. Each browser has a bounded queue: the newest summary of each session, and the
last results of the session that it shows. For a slow browser newer summaries replace older ones, and a note reports
that results were left out; it then reads them from Redis by range.
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

from streamer.dashboard.reading import Trouble
from streamer.dashboard.severity import decisions, standing
from streamer.events import Drift
from streamer.result import Result, decision
from streamer.speak.sentences import Utterance
from streamer.store import drifts, heartbeats
from streamer.store.descriptions import Description
from streamer.store.heartbeats import Answering
from streamer.store.results import Keys

MAX_CLIENTS = 64
MAX_SESSIONS = 200  # in the list, those with the newest results
MAX_HELD = 100  # results queued for one browser
MAX_SPOKEN = 8  # utterances queued for one browser
QUIET_S = 1.0
BACKOFF_S = 1.0
WORKERS_EVERY_S = 5.0  # between two looks at whether workers answer


class Summary(msgspec.Struct, frozen=True):
    """A session in the list, by its newest result.

    Attributes:
        end_us: End of the window: the event time up to which it has been judged.
        label, score: What the most severe output says, and how sure it is if that is a label; the status without one.
        severity, sure, rank: See :class:`streamer.dashboard.severity.Standing`.
        final: Whether the window has closed.
        decisions: Output -> what it says.
        age_s: Seconds since that result was published; ``None`` if unknown.
    """

    session: str
    end_us: int
    status: str
    closed_by: str
    label: str
    score: float | None
    severity: str
    sure: bool
    rank: int
    final: bool
    decisions: dict[str, str]
    total_us: int
    age_s: float | None


def summary(result: Result, age_s: float | None) -> Summary:
    """A session's row in the list."""
    said, stands = decisions(result), standing(result)
    label, score = decision(result)
    if said and stands.output in said and stands.output != next(iter(result.outputs)):
        label, score = f"{stands.output}: {said[stands.output]}", result.outputs[stands.output].get("score")
    return Summary(
        session=result.session,
        end_us=result.end_us,
        status=result.status,
        closed_by=result.closed_by,
        label=label,
        score=score,
        severity=stands.severity,
        sure=stands.sure,
        rank=stands.rank,
        final=result.final,
        decisions=said,
        total_us=result.latencies_us.get("total", 0),
        age_s=age_s,
    )


class Said(msgspec.Struct, frozen=True):
    """What was said aloud of a window; its sound is at /api/speech."""

    id: str
    session: str
    end_us: int
    text: str
    severity: str


def said(utterance: Utterance) -> Said:
    """An utterance as the page shows and plays it."""
    severity = utterance.severity.name.lower()
    return Said(utterance.id, utterance.session, utterance.end_us, utterance.text, severity)


class Client:
    """The bounded queue of one browser.

    Args:
        session: The session whose full results it wants; ``None`` for the summaries only.
    """

    def __init__(self, session: str | None) -> None:
        self.session = session
        self._summaries: dict[str, tuple[Summary, float]] = {}
        self._early: dict[str, Summary] = {}
        self._results: deque[bytes] = deque(maxlen=MAX_HELD)
        self._spoken: deque[Said] = deque(maxlen=MAX_SPOKEN)
        self._notes: dict[str, Any] = {}
        self._something = asyncio.Event()
        self.closed = False

    def close(self) -> None:
        """End the stream."""
        self.closed = True
        self._something.set()

    def result(self, result: Result) -> None:
        """Queue a result that was published."""
        self._summaries.pop(result.session, None)
        self._summaries[result.session] = (summary(result, 0.0), monotonic())
        if len(self._summaries) > MAX_SESSIONS:
            del self._summaries[next(iter(self._summaries))]
        if result.session == self.session:
            if len(self._results) == MAX_HELD:
                self._notes["gap"] = True
            self._results.append(result.to_json())
        self._something.set()

    def first(self, result: Result) -> None:
        """Queue an early result; a newer one of its session takes its place."""
        self._early.pop(result.session, None)
        self._early[result.session] = summary(result, 0.0)
        if len(self._early) > MAX_SESSIONS:
            del self._early[next(iter(self._early))]
        self._something.set()
        if result.session == self.session:
            self.note("first", msgspec.Raw(result.to_json()))

    def say(self, utterance: Utterance) -> None:
        """Queue what was said aloud; the oldest give way."""
        if utterance.session == self.session:
            self._spoken.append(said(utterance))
            self._something.set()

    def describe(self, description: Description) -> None:
        """Queue what a window shows; a newer one takes its place."""
        if description.session == self.session:
            self.note("description", msgspec.Raw(description.to_json()))

    def note(self, name: str, value: Any) -> None:
        """Queue another fact; a newer value replaces one that still waits."""
        self._notes[name] = value
        self._something.set()

    async def take(self, within_s: float) -> bytes | None:
        """Everything queued, as one line of JSON; ``None`` if nothing comes within this time."""
        try:
            await asyncio.wait_for(self._something.wait(), within_s)
        except TimeoutError:
            return None
        self._something.clear()
        now_s = monotonic()
        summaries = [msgspec.structs.replace(s, age_s=now_s - since_s) for s, since_s in self._summaries.values()]
        message = {"sessions": summaries, "results": [msgspec.Raw(raw) for raw in self._results], **self._notes}
        if self._early:
            message["early"] = list(self._early.values())
        if self._spoken:
            message["spoken"] = list(self._spoken)
        self._summaries.clear()
        self._early.clear()
        self._results.clear()
        self._spoken.clear()
        self._notes.clear()
        return msgspec.json.encode(message)


class Live:
    """Reads Redis for all browsers.

    Args:
        client: Not closed here.
        faults: Gives the newest counts of late records and dead letters, for a new browser.
    """

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, faults: Callable[[], Any]) -> None:
        self._redis = client
        self._keys = keys
        self._faults = faults
        self._clients: set[Client] = set()
        self._heard_s: OrderedDict[str, float] = OrderedDict()  # session -> when, on the monotonic clock
        self._answers = True
        self._workers = Answering(True)

    def join(self, session: str | None, newest: Utterance | None = None) -> Client | None:
        """A queue for a new browser; ``None`` if there are too many browsers.

        Args:
            newest: What was last said in the session.
        """
        if len(self._clients) >= MAX_CLIENTS:
            return None
        client = Client(session)
        client.note("redis", self._answers)
        client.note("faults", self._faults())
        client.note("workers", self._workers)
        if newest is not None:
            client.say(newest)
        self._clients.add(client)
        return client

    def leave(self, client: Client) -> None:
        """The browser has gone."""
        self._clients.discard(client)

    def close(self) -> None:
        """End all streams."""
        for client in self._clients:
            client.close()

    def note(self, name: str, value: Any) -> None:
        """Send a fact to all browsers."""
        for client in self._clients:
            client.note(name, value)

    def say(self, utterance: Utterance) -> None:
        """Send what was said aloud to the browsers that show its session."""
        for client in self._clients:
            client.say(utterance)

    async def follow(self) -> None:
        """Pass on new results until cancelled; while Redis does not answer, report that and try again."""
        following = Trouble("new results")
        while True:
            try:
                async with self._redis.pubsub() as channel:
                    await channel.subscribe(self._keys.channel, self._keys.described_channel)
                    following.over()
                    self._tell(answers=True)
                    while True:
                        message = await channel.get_message(ignore_subscribe_messages=True, timeout=QUIET_S)
                        if message is not None and message["channel"] == self._keys.described_channel.encode():
                            self._describe(message["data"])
                        elif message is not None:
                            self._publish(message["data"])
            except Exception as error:  # noqa: BLE001 - else it would end, and browsers show old results as new
                following.met(error)
                self._tell(answers=False)
                await asyncio.sleep(BACKOFF_S)

    async def watch_workers(self) -> None:
        """Tell browsers when workers stop to answer, or answer again, until cancelled."""
        watching = Trouble("whether workers answer")
        while True:
            try:
                found = await heartbeats.read(self._redis, self._keys)
            except (RedisError, OSError):
                pass  # that Redis does not answer is told by `follow`
            except Exception as error:  # noqa: BLE001 - else it would end, and workers seem to answer for ever
                watching.met(error)
            else:
                watching.over()
                if found != self._workers:
                    self._workers = found
                    self.note("workers", found)
            await asyncio.sleep(WORKERS_EVERY_S)

    def _tell(self, answers: bool) -> None:
        if answers != self._answers:
            self._answers = answers
            self.note("redis", answers)
            if answers:
                self.note("gap", True)  # results published meanwhile were missed

    def _publish(self, message: bytes) -> None:
        try:
            result = Result.from_json(message)
        except ValueError:
            return  # anybody may write to a channel
        if not result.final:
            for client in self._clients:
                client.first(result)
            return
        self._heard_s.pop(result.session, None)
        self._heard_s[result.session] = monotonic()
        if len(self._heard_s) > MAX_SESSIONS:
            self._heard_s.popitem(last=False)
        for client in self._clients:
            client.result(result)

    def _describe(self, message: bytes) -> None:
        try:
            description = msgspec.json.decode(message, type=Description)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return  # anybody may write to a channel
        for client in self._clients:
            client.describe(description)

    async def sessions(self) -> list[Summary]:
        """The sessions with the newest windows and the newest results, at most twice MAX_SESSIONS.

        Raises:
            RedisError: Redis does not answer.
        """
        newest = await self._redis.zrevrange(self._keys.sessions, 0, MAX_SESSIONS - 1)
        names = list(dict.fromkeys([*self._heard_s, *(name.decode() for name in newest)]))
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hgetall(self._keys.latest(name))
                # Only the publisher and a starting worker touch the state, so its idle time is the age of the newest
                # result. Under an LFU policy Redis does not count it, and answers with an error.
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
            RedisError: Redis does not answer.
        """
        stream = self._keys.results(session)
        page = await self._redis.xrevrange(stream, min=f"{since_us}-0", max=f"{until_us}-0", count=count)
        return [Result.from_fields(fields).to_json() for _, fields in reversed(page)]

    async def result(self, session: str, end_us: int) -> Result | None:
        """One result; ``None`` if Redis does not have it.

        Raises:
            RedisError: Redis does not answer.
        """
        entry = f"{end_us}-0"
        page = await self._redis.xrange(self._keys.results(session), min=entry, max=entry)
        return Result.from_fields(page[0][1]) if page else None

    async def description(self, session: str, until_us: int) -> Description | None:
        """The newest description of a window that ends at or before ``until_us``; ``None`` if there is none.

        Raises:
            RedisError: Redis does not answer.
        """
        page = await self._redis.xrevrange(self._keys.descriptions(session), min="0-0", max=f"{until_us}-0", count=1)
        return Description.from_fields(page[0][1]) if page else None

    async def drifts(self, session: str) -> tuple[Drift, ...]:
        """The session's sensors whose clocks drift, as its worker reports them.

        Raises:
            RedisError: Redis does not answer.
        """
        return (await drifts.read_async(self._redis, self._keys)).get(session, ())
