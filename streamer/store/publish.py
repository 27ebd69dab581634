"""Results to Redis, each once in effect.

One atomic Lua call for each window: it ignores a window that is not after the newest published one of its session, else
it appends the result, sets the latest, and stores what a restart of alignment needs. So the call is idempotent, whether
this worker repeats it or another that rebuilt the same window.

A window that is run early has a result before it closes. That one is only in the latest and on the channel, and its
loss is none: :data:`SHOW`.

The results stream's entry id is ``<window end in µs>-0``, so ``XRANGE`` reads by event time.

The in-flight markers are here too, since publications remove them: which windows are being run (:class:`Run`), so that
one that kills its process is found. So are the known partition groups, by which a loss of Redis' data is noticed. Why:
docs/decisions/0003-poison-windows.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import redis.asyncio
import redis.exceptions

from streamer.events import Position
from streamer.observe.health import Service
from streamer.result import Result
from streamer.store.results import Keys
from streamer.store.states import States

# KEYS: results, latest, state, closings, inflight (one hash slot). ARGV: end_us, maxlen, channel, message, heard_us,
# fingerprint, lost_until_us, closing position, closing log time, trim closings below this log time, end of the window
# before this one of the session in the same pipeline (or 0), then the result's fields and values. Numbers are
# microseconds below 2^53, which Lua's doubles hold exactly.
# A published window has killed nothing, nor has any before it: their in-flight markers go with the same call.
# Where the state was deleted or evicted and the results were not, the stream shows how far the session came: appending
# below its last id is an error, at every retry.
# The latest is of the newest window: an early result stays there while older windows close, unless it is of windows
# of other settings, which may never close.
# XADD is the first command that writes: a Redis without memory refuses the script there or not at all.
PUBLISH = """
local published = redis.call('HGET', KEYS[3], 'published_end_us')
if not published and redis.call('EXISTS', KEYS[1]) == 1 then
  local stream = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #stream, 2 do
    if stream[i] == 'last-generated-id' then published = string.match(stream[i + 1], '^%d+') end
  end
end
if published and tonumber(ARGV[1]) <= tonumber(published) then
  redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ARGV[1])
  return 0
end
if tonumber(ARGV[11]) > tonumber(published or 0) then
  return redis.error_reply('RETRY the window before this one was not published')
end
local fields = {}
for i = 12, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], ARGV[1] .. '-0', unpack(fields))
redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', ARGV[1])
local newer = redis.call('HGET', KEYS[2], 'final') == 'false'
  and tonumber(redis.call('HGET', KEYS[2], 'end_us')) > tonumber(ARGV[1])
local rules = redis.call('HGET', KEYS[3], 'fingerprint')
if not newer or (rules and rules ~= ARGV[6]) then
  redis.call('DEL', KEYS[2])
  redis.call('HSET', KEYS[2], unpack(fields))
end
redis.call('HSET', KEYS[3], 'published_end_us', ARGV[1], 'heard_us', ARGV[5], 'fingerprint', ARGV[6],
           'lost_until_us', ARGV[7])
redis.call('ZADD', KEYS[4], ARGV[9], ARGV[1] .. ':' .. ARGV[8])
redis.call('ZREMRANGEBYSCORE', KEYS[4], '-inf', '(' .. ARGV[10])
redis.call('PUBLISH', ARGV[3], ARGV[4])
return 1
"""

# KEYS: latest, state (one hash slot). ARGV: end_us, channel, message, then the result's fields and values.
# An early result is shown unless the window, or a newer one, has a result.
SHOW = """
local published = redis.call('HGET', KEYS[2], 'published_end_us')
local shown = redis.call('HGET', KEYS[1], 'end_us')
if tonumber(ARGV[1]) <= math.max(tonumber(published or 0), tonumber(shown or 0)) then return 0 end
local fields = {}
for i = 4, #ARGV do fields[#fields + 1] = ARGV[i] end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], unpack(fields))
redis.call('PUBLISH', ARGV[2], ARGV[3])
return 1
"""


class Publication(msgspec.Struct, frozen=True):
    """A result, with what alignment needs after a restart.

    Attributes:
        closed_at: Merge position of the window's closing.
        heard_us: As of the closing, see :class:`streamer.events.Window`.
        fingerprint: Of the window settings under which it was made.
        trim_below_us: Log time of the committed cut: closings below it are never needed again.
        lost_until_us: See :class:`streamer.events.Stored`.
    """

    result: Result
    closed_at: Position
    heard_us: tuple[int, ...]
    fingerprint: str
    trim_below_us: int
    lost_until_us: int = 0


class Run(msgspec.Struct, frozen=True):
    """A window that goes to native code, which may kill the process.

    Attributes:
        number: 0 in a batch with others; n for the n-th time alone.
    """

    session: str
    end_us: int
    number: int

    @property
    def member(self) -> str:
        """Its entry in the session's ``inflight`` set."""
        return f"{self.end_us}:{self.number}"


class Publisher(States):
    """The only writer of results and in-flight markers.

    Args:
        client: A connection pool to Redis.
        keys: Names of the keys.
        maxlen: Results kept a session, about.
        wait_replicas: Replicas that must hold a result before it counts as published.
        wait_ms: Longest wait for them, in milliseconds.
        service: Learns whether Redis answers.
    """

    SCRIPT = PUBLISH

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        service: Service,
        *,
        maxlen: int,
        wait_replicas: int = 0,
        wait_ms: int = 1000,
    ) -> None:
        super().__init__(client, keys, service)
        self._maxlen = maxlen
        self._wait_replicas = wait_replicas
        self._wait_ms = wait_ms
        self._show = client.register_script(SHOW)

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

    async def show(self, results: Sequence[Result]) -> list[bool]:
        """Show early results, in the given order; retries until Redis has them.

        Returns:
            For each whether it is the session's newest (False: Redis has this window's, or a newer one's).

        Raises:
            Stop: Redis refuses our credentials or rights.
        """
        return [bool(answer) for answer in await self._retried(lambda: self._show_once(results))]

    async def _show_once(self, results: Sequence[Result]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for result in results:
                keys = [self._keys.latest(result.session), self._keys.state(result.session)]
                args: list[Any] = [result.end_us, self._keys.channel, result.to_json(), *_flat(result)]
                await self._show(keys=keys, args=args, client=pipe)
            answers: list[Any] = await pipe.execute()
            return answers

    async def _publish_once(self, publications: Sequence[Publication]) -> list[int]:
        async with self._client.pipeline(transaction=False) as pipe:
            before: dict[str, int] = {}  # a window that overtakes one that is to be retried would lose it
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
        return [key(session) for key in (keys.results, keys.latest, keys.state, keys.closings, keys.inflight)]

    def _args(self, publication: Publication, before_us: int) -> list[Any]:
        result, closed_at = publication.result, publication.closed_at
        args: list[Any] = [
            result.end_us,
            self._maxlen,
            self._keys.channel,
            result.to_json(),
            ",".join(map(str, publication.heard_us)),
            publication.fingerprint,
            publication.lost_until_us,
            ":".join(map(str, closed_at)),
            closed_at.log_time_us,
            publication.trim_below_us,
            before_us,
        ]
        return [*args, *_flat(result)]

    # what is being run

    async def begin(self, runs: Sequence[Run]) -> None:
        """Mark windows as in flight before they are run, and wait until Redis has the markers; one round trip, retried.

        A window's publication removes its markers. What is still marked when a session is loaded was being run when
        a process died. Setting a marker twice is harmless; so is losing it together with Redis' data.
        """
        await self._retried(lambda: self._mark(runs))

    async def survived(self, run: Run) -> None:
        """Remove the markers of a window that was run alone and has killed nothing. Retried."""
        await self._retried(lambda: self._acquit(run))

    async def withdraw(self, runs: Sequence[Run]) -> None:
        """Remove the markers of runs that end without a result and without fault; those of earlier runs stay.

        Raises:
            RedisError, OSError: Redis does not answer. There is no retry, since the caller cannot wait. The windows
                stay marked and will be run alone, which only costs time.
        """
        async with self._client.pipeline(transaction=False) as pipe:
            for run in runs:
                pipe.zrem(self._keys.inflight(run.session), run.member)
            await pipe.execute()

    async def _mark(self, runs: Sequence[Run]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for run in runs:
                pipe.zadd(self._keys.inflight(run.session), {run.member: run.end_us})
            answers: list[Any] = await pipe.execute()
            return answers

    async def _acquit(self, run: Run) -> list[Any]:
        key = self._keys.inflight(run.session)
        return await self._one(self._client.zremrangebyscore(key, run.end_us, run.end_us))


def _flat(result: Result) -> list[Any]:
    """The result's fields and values, in turns."""
    return [part for field in result.to_fields().items() for part in field]
