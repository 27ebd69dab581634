"""What Redis keeps of sessions and partition groups for the next process, and how calls to Redis are retried."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import redis.asyncio
import redis.exceptions

from streamer.backoff import Backoff
from streamer.errors import Stop
from streamer.events import Position, Saved, Stored
from streamer.observe.health import Service
from streamer.store.results import Keys

REFUSED_IN_SCRIPT = ("The user executing the script can't", "ACL failure in script")  # Redis 6.2 and 7: without a code


class Kept(NamedTuple):
    """A session's state as one writer left it."""

    saved: Saved | None
    lost_until_us: int

    @property
    def end_us(self) -> int:
        return self.saved.published_end_us if self.saved is not None else 0


class States:
    """Reads what a restart needs; all writes go through one script, which is atomic.

    Args:
        client: A connection pool to Redis.
        keys: Names of the keys.
        service: Learns whether Redis answers.
    """

    SCRIPT: ClassVar[str]

    def __init__(
        self,
        client: redis.asyncio.Redis,
        keys: Keys,
        service: Service,
    ) -> None:
        self._client = client
        self._keys = keys
        self._service = service
        self._script = client.register_script(self.SCRIPT)

    async def load(self, session: str, group: str) -> Stored:
        """What Redis keeps of a session and of its partition group.

        Args:
            group: Name of the group, as for :meth:`open_group`.
        """
        answers = await self._retried(lambda: self._load_once(session, group))
        state, closings, marks, lost_until, emitted, emitted_closings = answers
        return self._stored(
            Kept(_saved(state, closings), int(state.get(b"lost_until_us", 0))),
            Kept(_saved(emitted, emitted_closings), int(emitted.get(b"lost_until_us", 0))),
            _suspects(marks),
            None if lost_until is None else int(lost_until),
        )

    def _stored(
        self, published: Kept, emitted: Kept, suspects: dict[int, int], group_lost_until_us: int | None
    ) -> Stored:
        """Choose the state that counts for this role: here the published one."""
        return Stored(published.saved, suspects, published.lost_until_us, group_lost_until_us, emitted.end_us)

    async def _load_once(self, session: str, group: str) -> list[Any]:
        # No transaction, since the group's key is in another hash slot. The state is read before the closings: those
        # of a publication in between are then merely known too early.
        async with self._client.pipeline(transaction=False) as pipe:
            pipe.hgetall(self._keys.state(session))
            pipe.zrange(self._keys.closings(session), 0, -1)
            pipe.zrange(self._keys.inflight(session), 0, -1)
            pipe.hget(self._keys.groups, group)
            pipe.hgetall(self._keys.emitted(session))
            pipe.zrange(self._keys.emitted_closings(session), 0, -1)
            answers: list[Any] = await pipe.execute()
            return answers

    async def open_group(self, group: str) -> int | None:
        """``Stored.group_lost_until_us`` of a partition group; ``None`` if Redis does not know the group."""
        [answer] = await self._retried(lambda: self._one(self._client.hget(self._keys.groups, group)))
        return None if answer is None else int(answer)

    async def note_group(self, group: str, lost_until_us: int) -> None:
        """Make a partition group known before its first commit: if it is missing later, Redis has lost its data."""
        await self._retried(lambda: self._one(self._client.hset(self._keys.groups, group, str(lost_until_us))))

    async def _one(self, call: Any) -> list[Any]:
        return [await call]

    async def _retried(self, call: Callable[[], Any]) -> list[Any]:
        backoff = Backoff()
        while True:
            try:
                answers: list[Any] = await call()
            except (redis.exceptions.RedisError, OSError) as error:
                if refuses_us(error):
                    raise Stop(
                        f"Redis refuses this worker: {error}; check the user and password in STREAMER_REDIS"
                    ) from None
                self._service.away(error)
                await backoff.pause()
            else:
                self._service.answers()
                return answers


def _saved(state: Mapping[bytes, bytes], closings: Sequence[bytes]) -> Saved | None:
    if not state:
        return None
    return Saved(
        published_end_us=int(state[b"published_end_us"]),
        heard_us=tuple(int(part) for part in state[b"heard_us"].split(b",")),
        closings=dict(_closing(member) for member in closings),
        fingerprint=state[b"fingerprint"].decode(),
    )


def _suspects(marks: Sequence[bytes]) -> dict[int, int]:
    suspects: dict[int, int] = {}
    for mark in marks:
        end_us, number = (int(part) for part in mark.split(b":"))
        suspects[end_us] = max(number, suspects.get(end_us, 0))
    return suspects


def refuses_us(error: Exception) -> bool:
    """Whether Redis rejects our credentials, or does not allow a command, a key or the channel."""
    if isinstance(error, (redis.exceptions.AuthenticationError, redis.exceptions.NoPermissionError)):
        return True
    return any(text in str(error) for text in REFUSED_IN_SCRIPT)


def _closing(member: bytes) -> tuple[int, Position]:
    end_us, log_time_us, row, offset = (int(part) for part in member.split(b":"))
    return end_us, Position(log_time_us, row, offset)
