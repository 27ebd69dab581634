"""Signs of life of workers, for the page.

    {prefix}:workers:ROLE         stream of one entry: the newest sign of a worker of this role that is ready

Redis stamps an entry with its own clock, so that nobody's clocks are compared. One entry for each role is enough: the
question is whether any worker answers, not which.
"""

from __future__ import annotations

import logging
from asyncio import sleep as pause
from collections.abc import Callable, Mapping

import msgspec
import redis.asyncio
import redis.exceptions

from streamer.store.results import Keys

BEAT_EVERY_S = 5.0
LOOK_EVERY_S = 1.0  # at whether a worker that was not ready is
FRESH_S = 20.0  # three beats may be lost
ROLES = ("all", "align", "infer")

log = logging.getLogger(__name__)


class Answering(msgspec.Struct, frozen=True):
    """Whether workers answer.

    Attributes:
        answers: Whether every stage has a worker that is ready.
        role: The role that nobody has, while the other one is there; empty: no worker at all.
        since_us: When the last sign came of what is missing, by Redis' clock; ``None``: never, or nothing is missing.
    """

    answers: bool
    role: str = ""
    since_us: int | None = None


async def beat(client: redis.asyncio.Redis, keys: Keys, role: str, not_ready: Callable[[], list[str]]) -> None:
    """Give signs of life while the worker is ready, until cancelled.

    What Redis does not take is not repeated: the next sign is as good.
    """
    while True:
        ready = not not_ready()
        if ready:
            try:
                await client.xadd(keys.workers(role), {"role": role}, maxlen=1, approximate=False)
            except (redis.exceptions.RedisError, OSError) as error:
                log.warning("Redis did not take the sign of life: %s", error)
        await pause(BEAT_EVERY_S if ready else LOOK_EVERY_S)


async def read(client: redis.asyncio.Redis, keys: Keys) -> Answering:
    """Whether workers answer now.

    Raises:
        RedisError, OSError: Redis does not answer.
    """
    newest: dict[str, int] = {}
    for role in ROLES:
        for entry, _ in await client.xrevrange(keys.workers(role), count=1):
            newest[role] = int(entry.partition(b"-")[0]) * 1000
    seconds, micros = await client.time()
    return judged(newest, seconds * 1_000_000 + micros)


def judged(newest_us: Mapping[str, int], now_us: int) -> Answering:
    """Whether workers answer: one of role all, or one of role align and one of role infer.

    Args:
        newest_us: Role -> time of the newest sign, of those that ever gave one.
    """
    fresh = {role for role, at_us in newest_us.items() if now_us - at_us < FRESH_S * 1e6}
    if "all" in fresh or {"align", "infer"} <= fresh:
        return Answering(True)
    if fresh:
        missing = "infer" if "align" in fresh else "align"
        return Answering(False, missing, newest_us.get(missing))
    return Answering(False, since_us=max(newest_us.values(), default=None))
