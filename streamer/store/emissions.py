"""Role align's bookkeeping in Redis: which windows of a session are on the windows topic.

One Lua call for each window, atomic as a publication is for role all, after the broker has acknowledged the window's
record: it ignores a window that is not after the newest emitted one of its session, else it stores what a restart of
alignment needs. After a crash between the two the window comes on the topic again; role infer skips it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

import msgspec

from streamer.events import Stored, Window
from streamer.store.states import Kept, States

# KEYS: emitted, emitted_closings (one hash slot). ARGV: end_us, heard_us, fingerprint, lost_until_us, closing position,
# closing log time, trim closings below this log time. Numbers as in publish.PUBLISH, fields as those of the state.
EMIT = """
local emitted = redis.call('HGET', KEYS[1], 'published_end_us')
if emitted and tonumber(ARGV[1]) <= tonumber(emitted) then return 0 end
redis.call('HSET', KEYS[1], 'published_end_us', ARGV[1], 'heard_us', ARGV[2], 'fingerprint', ARGV[3],
           'lost_until_us', ARGV[4])
redis.call('ZADD', KEYS[2], ARGV[6], ARGV[1] .. ':' .. ARGV[5])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', '(' .. ARGV[7])
return 1
"""


class Emission(msgspec.Struct, frozen=True):
    """A window that the broker has acknowledged; fields as in :class:`streamer.store.publish.Publication`."""

    window: Window
    fingerprint: str
    trim_below_us: int
    lost_until_us: int


class Emissions(States):
    """Records emissions, so that a restart of role align knows how far it had come."""

    SCRIPT = EMIT

    async def record(self, emissions: Sequence[Emission]) -> list[bool]:
        """Record in the given order and wait until Redis has everything; retries until it does.

        Returns:
            For each window whether it was new.

        Raises:
            Stop: Redis refuses our credentials or rights.
        """
        answers = await self._retried(lambda: self._record_once(emissions))
        return [bool(answer) for answer in answers]

    async def _record_once(self, emissions: Sequence[Emission]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for emission in emissions:
                window = emission.window
                keys = [self._keys.emitted(window.session), self._keys.emitted_closings(window.session)]
                args = [
                    window.end_us,
                    ",".join(map(str, window.heard_us)),
                    emission.fingerprint,
                    emission.lost_until_us,
                    ":".join(map(str, window.closed_at)),
                    window.closed_at.log_time_us,
                    emission.trim_below_us,
                ]
                await self._script(keys=keys, args=args, client=pipe)
            answers: list[Any] = await pipe.execute()
            return answers

    def _stored(
        self, published: Kept, emitted: Kept, suspects: dict[int, int], group_lost_until_us: int | None
    ) -> Stored:
        """The newer of the two states, with the closings of both; without suspects, since role align runs no window.

        The published one is newer where role all has worked since, or where role infer has published windows whose
        emission a crash kept from being recorded: these need not be sent again. Such a window is in no later emission
        either, so after another crash only the published closings show that its records had joined. Where both know a
        closing, the published one made the window that counts.
        """
        newest = emitted if emitted.end_us >= published.end_us else published
        saved = newest.saved
        if saved is not None:
            both = [kept.saved.closings for kept in (emitted, published) if kept.saved is not None]
            saved = msgspec.structs.replace(saved, closings=reduce(or_, both))
        return Stored(saved, {}, newest.lost_until_us, group_lost_until_us)
