"""Alarms in Redis, each raised once in effect.

One atomic Lua call moves the cursor of a session and notes its new alarms: as open, until somebody acknowledges them;
with each action that is to be done; and in the session's log. So a process that was killed raises nothing again, and
what it had not done yet is done by the next one.

    {prefix}:{SESSION}:rules         hash: how far the rules have come, see readers.Cursor
    {prefix}:{SESSION}:alarms        hash: rule -> its newest alarm, until that is acknowledged; rule# -> how many;
                                     rule@ -> end of the window of the first
    {prefix}:{SESSION}:alarm_actions hash: ACTION:RULE:END -> an alarm with an action that is to be done
    {prefix}:{SESSION}:alarm_log     stream: what happened to alarms
    {prefix}:alarms                  pub/sub channel: names of sessions whose open alarms have changed
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from heapq import nlargest

import msgspec
import redis
import redis.asyncio

from streamer.rules.alarm import Alarm
from streamer.store.readers import Cursor
from streamer.store.results import Keys, sessions

# KEYS: rules, results, alarms, alarm_actions, alarm_log (one hash slot). ARGV: the cursor's end_us before (empty:
# none), end_us, state, maxlen, channel, session, then for each alarm its rule, end_us, JSON, and actions joined by
# commas. A session without results was forgotten, and gets no keys again.
STEP = """
if (redis.call('HGET', KEYS[1], 'end_us') or '') ~= ARGV[1] or redis.call('EXISTS', KEYS[2]) == 0 then return 0 end
redis.call('HSET', KEYS[1], 'end_us', ARGV[2], 'state', ARGV[3])
for i = 7, #ARGV, 4 do
  redis.call('HSET', KEYS[3], ARGV[i], ARGV[i + 2])
  if redis.call('HINCRBY', KEYS[3], ARGV[i] .. '#', 1) == 1 then
    redis.call('HSET', KEYS[3], ARGV[i] .. '@', ARGV[i + 1])
  end
  for action in string.gmatch(ARGV[i + 3], '[^,]+') do
    redis.call('HSET', KEYS[4], action .. ':' .. ARGV[i] .. ':' .. ARGV[i + 1], ARGV[i + 2])
  end
  redis.call('XADD', KEYS[5], 'MAXLEN', '~', ARGV[4], '*', 'what', 'raised', 'rule', ARGV[i], 'alarm', ARGV[i + 2])
end
if #ARGV > 6 then redis.call('PUBLISH', ARGV[5], ARGV[6]) end
return 1
"""

# KEYS: alarm_actions, alarm_log. ARGV: maxlen, action, rule, end_us, what became of it.
DONE = """
if redis.call('HDEL', KEYS[1], ARGV[2] .. ':' .. ARGV[3] .. ':' .. ARGV[4]) == 0 then return 0 end
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'what', ARGV[2], 'rule', ARGV[3], 'note', ARGV[5])
return 1
"""

# KEYS: alarms, alarm_log. ARGV: rule, who, note, maxlen, channel, session, end_us of the newest that was seen (empty:
# any).
ACKNOWLEDGE = """
local alarm = redis.call('HGET', KEYS[1], ARGV[1])
if not alarm or (ARGV[7] ~= '' and cjson.decode(alarm).end_us > tonumber(ARGV[7])) then return 0 end
redis.call('HDEL', KEYS[1], ARGV[1], ARGV[1] .. '#', ARGV[1] .. '@')
redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[4], '*', 'what', 'acknowledged', 'rule', ARGV[1], 'by', ARGV[2],
           'note', ARGV[3], 'alarm', alarm)
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 1
"""


class Open(msgspec.Struct, frozen=True):
    """An alarm that nobody has acknowledged.

    Attributes:
        alarm: The newest of its rule in its session.
        count: How often it has been raised since it was last acknowledged.
        since_us: End of the window that raised the first of these.
    """

    alarm: Alarm
    count: int
    since_us: int

    def fields(self) -> dict[str, object]:
        """For JSON."""
        more = {"count": self.count, "since_us": self.since_us}
        return {"id": self.alarm.id, **msgspec.structs.asdict(self.alarm), **more}


class Entry(msgspec.Struct, frozen=True):
    """A line of a session's log.

    Attributes:
        at_ms: When, by Redis' clock, milliseconds.
        what: ``raised``, ``acknowledged``, or the name of an action that is done.
        by: Who acknowledged it.
        note: What became of an action, or what was said with the acknowledgement.
    """

    session: str
    at_ms: int
    what: str
    rule: str
    by: str = ""
    note: str = ""
    alarm: Alarm | None = None


class Alarms:
    """Writes what a session's results raise.

    Args:
        maxlen: Entries of a session's log, about.
    """

    def __init__(self, client: redis.asyncio.Redis, keys: Keys, maxlen: int) -> None:
        self._client = client
        self._keys = keys
        self._maxlen = maxlen
        self._step = client.register_script(STEP)
        self._done = client.register_script(DONE)

    async def step(
        self, session: str, before: Cursor, after: Cursor, alarms: Sequence[tuple[Alarm, Sequence[str]]]
    ) -> bool:
        """Move the cursor and note alarms, each with its actions; ``False``: the cursor is another, nothing was done.

        Raises:
            RedisError, OSError: Redis does not answer; it may have been done or not.
        """
        of = self._keys
        keys = [
            of.ruled(session),
            of.results(session),
            of.alarms(session),
            of.alarm_actions(session),
            of.alarm_log(session),
        ]
        place = ["" if before.end_us is None else before.end_us, after.end_us, after.state]
        args: list[object] = [*place, self._maxlen, of.alarms_channel, session]
        for alarm, actions in alarms:
            args += [alarm.rule, alarm.end_us, msgspec.json.encode(alarm), ",".join(actions)]
        return bool(await self._step(keys=keys, args=args))

    async def undone(self) -> list[tuple[str, Alarm]]:
        """What a predecessor has left to be done: action and alarm.

        Raises:
            RedisError, OSError: Redis does not answer.
        """
        names = [name.decode() for name in await self._client.zrange(self._keys.sessions, 0, -1)]
        found = []
        for name in names:
            fields = await self._client.hgetall(self._keys.alarm_actions(name))
            found += [(field.decode().partition(":")[0], _alarm(value)) for field, value in fields.items()]
        return found

    async def done(self, action: str, alarm: Alarm, note: str) -> bool:
        """Note what became of an action.

        Raises:
            RedisError, OSError: Redis does not answer.
        """
        keys = [self._keys.alarm_actions(alarm.session), self._keys.alarm_log(alarm.session)]
        return bool(await self._done(keys=keys, args=[self._maxlen, action, alarm.rule, alarm.end_us, note]))


def opened(client: redis.Redis, keys: Keys, only: Iterable[str] | None = None) -> list[Open]:
    """The alarms that nobody has acknowledged, the newest first.

    Args:
        only: Of these sessions; ``None``: of all.
    """
    names = sessions(client, keys) if only is None else list(only)
    with client.pipeline(transaction=False) as pipe:
        for session in names:
            pipe.hgetall(keys.alarms(session))
        answers: list[dict[bytes, bytes]] = pipe.execute()
    found = [
        Open(_alarm(value), int(fields[rule + b"#"]), int(fields[rule + b"@"]))
        for fields in answers
        for rule, value in fields.items()
        if not rule.endswith((b"#", b"@"))
    ]
    return sorted(found, key=lambda one: (-one.alarm.end_us, one.alarm.session, one.alarm.rule))


def acknowledge(
    client: redis.Redis,
    keys: Keys,
    session: str,
    rule: str,
    by: str,
    note: str = "",
    *,
    maxlen: int,
    seen_us: int | None = None,
) -> bool:
    """Acknowledge the open alarm of a rule; ``False``: there is none, or a newer one than was seen.

    Args:
        maxlen: Entries of the session's log, about.
        seen_us: End of the window of the newest alarm that was seen; ``None``: acknowledge whatever there is.
    """
    names = [keys.alarms(session), keys.alarm_log(session)]
    seen = "" if seen_us is None else seen_us
    return bool(
        client.eval(ACKNOWLEDGE, len(names), *names, rule, by, note, maxlen, keys.alarms_channel, session, seen)
    )


def history(client: redis.Redis, keys: Keys, session: str) -> Iterator[Entry]:
    """What happened to a session's alarms, the oldest first."""
    for entry, fields in client.xrange(keys.alarm_log(session)):
        yield _entry(session, entry, fields)


def newest(client: redis.Redis, keys: Keys, count: int) -> list[Entry]:
    """What happened last to the alarms of all sessions, the newest first."""
    names = sessions(client, keys)
    with client.pipeline(transaction=False) as pipe:
        for session in names:
            pipe.xrevrange(keys.alarm_log(session), count=count)
        answers = pipe.execute()
    found = [
        _entry(session, entry, fields) for session, page in zip(names, answers, strict=True) for entry, fields in page
    ]
    return nlargest(count, found, key=lambda entry: entry.at_ms)


def _entry(session: str, entry: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    text = {name.decode(): value for name, value in fields.items()}
    alarm = _alarm(text.pop("alarm")) if "alarm" in text else None
    plain = {name: value.decode() for name, value in text.items()}
    return Entry(session, int(entry.partition(b"-")[0]), alarm=alarm, **plain)


def _alarm(value: bytes) -> Alarm:
    return msgspec.json.decode(value, type=Alarm)
