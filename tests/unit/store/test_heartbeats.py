"""Whether workers answer, by their signs of life."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisDown

from streamer.store import heartbeats
from streamer.store.heartbeats import Answering, beat, judged, read
from streamer.store.results import Keys

NOW_US = 1_750_000_000_000_000
JUST_US = NOW_US - 5_000_000
LONG_US = NOW_US - 60_000_000
KEYS = Keys("streamer")


class MemoryRedis:
    """One entry for each key, stamped by a clock of its own."""

    def __init__(self) -> None:
        self.now_ms = NOW_US // 1000
        self.kept: dict[str, bytes] = {}
        self.down = False

    async def xadd(self, key: str, fields: Mapping[str, str], maxlen: int, approximate: bool) -> None:
        if self.down:
            raise RedisDown("gone")
        assert (maxlen, approximate) == (1, False)
        self.kept[key] = f"{self.now_ms}-0".encode()

    async def xrevrange(self, key: str, count: int) -> list[tuple[bytes, Any]]:
        return [(self.kept[key], {})] if key in self.kept else []

    async def time(self) -> tuple[int, int]:
        return divmod(self.now_ms * 1000, 1_000_000)


@pytest.mark.parametrize(
    ("newest_us", "found"),
    [
        ({}, Answering(False)),
        ({"all": JUST_US}, Answering(True)),
        ({"all": LONG_US}, Answering(False, "", LONG_US)),
        ({"align": JUST_US, "infer": JUST_US}, Answering(True)),
        ({"all": LONG_US, "align": JUST_US, "infer": JUST_US}, Answering(True)),
        ({"align": JUST_US, "infer": LONG_US}, Answering(False, "infer", LONG_US)),
        ({"align": JUST_US}, Answering(False, "infer")),
        ({"infer": JUST_US, "align": LONG_US}, Answering(False, "align", LONG_US)),
        ({"infer": LONG_US, "align": LONG_US - 1}, Answering(False, "", LONG_US)),
    ],
)
def test_workers_answer_if_each_stage_has_one(newest_us: dict[str, int], found: Answering) -> None:
    assert judged(newest_us, NOW_US) == found


async def test_a_worker_gives_signs_while_it_is_ready_also_after_an_outage_of_redis(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go, rests = asyncio.Event(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        assert seconds == (heartbeats.LOOK_EVERY_S if reasons else heartbeats.BEAT_EVERY_S)
        rests.set()
        await go.wait()
        go.clear()

    async def next_round() -> None:
        rests.clear()
        go.set()
        await rests.wait()

    monkeypatch.setattr(heartbeats, "pause", sleep)
    memory: Any = MemoryRedis()
    reasons = ["starting"]
    beating = asyncio.create_task(beat(memory, KEYS, "all", lambda: reasons))
    await rests.wait()
    assert await read(memory, KEYS) == Answering(False)
    reasons.clear()
    memory.down = True
    await next_round()
    assert await read(memory, KEYS) == Answering(False)
    memory.down = False
    await next_round()
    assert await read(memory, KEYS) == Answering(True)
    reasons.append("Kafka does not answer")
    memory.now_ms += 60_000
    await next_round()
    assert await read(memory, KEYS) == Answering(False, "", NOW_US)
    reasons.clear()
    await next_round()
    assert await read(memory, KEYS) == Answering(True)
    beating.cancel()
    await asyncio.wait([beating])
