"""Results to Redis, each once in effect.

One Lua call a window does all or nothing: it ignores a window that does not lie after the newest published one of its
session, else it appends the result, sets the latest, and stores with it what a restart of alignment needs to know. A
call may therefore be repeated any number of times, by this worker or by another that rebuilt the same window.

The results stream's entry id is ``<window end in µs>-0``, so ``XRANGE`` reads by event time.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import redis.asyncio
import redis.exceptions

from streamer.errors import Stop
from streamer.events import Position, Saved
from streamer.results import Keys, Result

BACKOFF_FIRST_S, BACKOFF_MOST_S = 0.05, 2.0
REFUSED_IN_SCRIPT = ("The user executing the script can't", "ACL failure in script")  # Redis 6.2 and 7: without a code

# KEYS: results, latest, state, closings (one hash slot). ARGV: end_us, maxlen, channel, message, heard_us, fingerprint,
# closing position, closing log time, trim closings below this log time, end of the session's window before this one in
# the same pipeline (or 0), then the result's fields and values.
# Numbers are microseconds below 2^53, which Lua's doubles hold exactly.
# Where the state was deleted or evicted and the results were not, the stream itself says how far the session came: to
# append below its last id is an error, and would be at every repetition.
PUBLISH = """
local published = redis.call('HGET', KEYS[3], 'published_end_us')
if not published and redis.call('EXISTS', KEYS[1]) == 1 then
  local stream = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #stream, 2 do
    if stream[i] == 'last-generated-id' then published = string.match(stream[i + 1], '^%d+') end
  end
end
if published and tonumber(ARGV[1]) <= tonumber(published) then return 0 end
if tonumber(ARGV[10]) > tonumber(published or 0) then
  return redis.error_reply('RETRY the window before this one was not published')
end
local fields = {}
for i = 11, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[1] .. '-0', unpack(fields))
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[2], unpack(fields))
redis.call('HSET', KEYS[3], 'published_end_us', ARGV[1], 'heard_us', ARGV[5], 'fingerprint', ARGV[6])
redis.call('ZADD', KEYS[4], ARGV[8], ARGV[1] .. ':' .. ARGV[7])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', '(' .. ARGV[9])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
"""


class Publication(msgspec.Struct, frozen=True):
    """A result with what alignment must find again after a restart.

    Attributes:
        closed_at: Merge position of the window's closing.
        heard_us: As of the closing, see :class:`streamer.events.Window`.
        fingerprint: Of the window settings under which it was made.
        trim_below_us: Log time of the committed cut: closings below it are never asked for again.
    """

    result: Result
    closed_at: Position
    heard_us: tuple[int, ...]
    fingerprint: str
    trim_below_us: int


class Publisher:
    """The only writer of results.

    Args:
        client: A connection pool to Redis.
        keys: Names of the keys.
        maxlen: Results kept a session, about.
        wait_replicas: Replicas that must hold a result before it counts as published.
        wait_ms: Longest wait for them, in milliseconds.
        on_retry: Called with the error each time Redis does not answer and the call will be repeated.
        on_success: Called after each call that Redis answered.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        *,
        maxlen: int,
        wait_replicas: int = 0,
        wait_ms: int = 1000,
        on_retry: Callable[[Exception], None] = lambda error: None,
        on_success: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._keys = keys
        self._maxlen = maxlen
        self._wait_replicas = wait_replicas
        self._wait_ms = wait_ms
        self._on_retry = on_retry
        self._on_success = on_success
        self._script = client.register_script(PUBLISH)

    async def publish(self, publications: Sequence[Publication]) -> list[bool]:
        """Publish in the given order and wait until Redis has everything; retries until it does.

        Returns:
            For each publication whether it was new (False: Redis already had that window).

        Raises:
            Stop: Redis refuses our credentials or rights; waiting would not help.
        """
        if not publications:
            return []
        answers = await self._retried(lambda: self._publish_once(publications))
        return [bool(answer) for answer in answers]

    async def _publish_once(self, publications: Sequence[Publication]) -> list[int]:
        async with self._client.pipeline(transaction=False) as pipe:
            before: dict[
                str, int
            ] = {}  # a window must not overtake one that Redis refused for now, which would be lost
            for publication in publications:
                result = publication.result
                args = self._args(publication, before.get(result.session, 0))
                await self._script(keys=self._session_keys(publication), args=args, client=pipe)
                before[result.session] = max(result.end_us, before.get(result.session, 0))
            for result in {p.result.session: p.result for p in publications}.values():
                pipe.zadd(self._keys.sessions, {result.session: result.end_us}, gt=True)
            if self._wait_replicas:
                pipe.wait(self._wait_replicas, self._wait_ms)
            answers: list[Any] = await pipe.execute()
        if self._wait_replicas and answers[-1] < self._wait_replicas:
            raise redis.exceptions.ConnectionError(
                f"only {answers[-1]} of {self._wait_replicas} replicas have the results"
            )
        return answers[: len(publications)]

    def _session_keys(self, publication: Publication) -> list[str]:
        keys, session = self._keys, publication.result.session
        return [keys.results(session), keys.latest(session), keys.state(session), keys.closings(session)]

    def _args(self, publication: Publication, before_us: int) -> list[Any]:
        result, closed_at = publication.result, publication.closed_at
        args: list[Any] = [
            result.end_us,
            self._maxlen,
            self._keys.channel,
            result.to_json(),
            ",".join(map(str, publication.heard_us)),
            publication.fingerprint,
            ":".join(map(str, closed_at)),
            closed_at.log_time_us,
            publication.trim_below_us,
            before_us,
        ]
        for name, value in result.to_fields().items():
            args += (name, value)
        return args

    async def load(self, session: str) -> Saved | None:
        """What Redis keeps of a session for alignment; None for a session that it has never seen."""
        state, closings = await self._retried(lambda: self._load_once(session))
        if not state:
            return None
        return Saved(
            published_end_us=int(state[b"published_end_us"]),
            heard_us=tuple(int(part) for part in state[b"heard_us"].split(b",")),
            closings=dict(_closing(member) for member in closings),
            fingerprint=state[b"fingerprint"].decode(),
        )

    async def _load_once(self, session: str) -> list[Any]:
        async with self._client.pipeline(transaction=True) as pipe:
            pipe.hgetall(self._keys.state(session))
            pipe.zrange(self._keys.closings(session), 0, -1)
            answers: list[Any] = await pipe.execute()
            return answers

    async def _retried(self, call: Callable[[], Any]) -> list[Any]:
        backoff_s = BACKOFF_FIRST_S
        while True:
            try:
                answers: list[Any] = await call()
            except (redis.exceptions.RedisError, OSError) as error:
                if _refuses_us(error):
                    raise Stop(
                        f"Redis refuses this worker: {error}; check the user and password in STREAMER_REDIS"
                    ) from None
                self._on_retry(error)
                await asyncio.sleep(backoff_s * random.uniform(0.5, 1.0))
                backoff_s = min(2 * backoff_s, BACKOFF_MOST_S)
            else:
                self._on_success()
                return answers


def _refuses_us(error: Exception) -> bool:
    """Whether Redis does not know us, or does not allow a command, a key or the channel."""
    if isinstance(error, (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)):
        return True
    return any(text in str(error) for text in REFUSED_IN_SCRIPT)


def _closing(member: bytes) -> tuple[int, Position]:
    end_us, log_time_us, row, offset = (int(part) for part in member.split(b":"))
    return end_us, Position(log_time_us, row, offset)
