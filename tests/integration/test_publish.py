"""Publication on a real Redis: once in effect, in order, and repeated until Redis has it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from streamer.errors import Stop
from streamer.events import Position, Saved
from streamer.local.stack import Stack
from streamer.observe.health import Service
from streamer.result import Result
from streamer.store.emissions import Emission, Emissions
from streamer.store.publish import Publication, Publisher
from streamer.store.results import Keys

pytestmark = pytest.mark.integration

S_US = 1_000_000
T0_US = 1_700_000_000 * S_US
HEARD_US = (T0_US + 11, T0_US + 22, 0, T0_US + 44)


def publication(second: int, session: str = "car", trim_below_us: int = 0, **changed: Any) -> Publication:
    """The window that ends this many seconds after T0, closed 200 ms of log time later."""
    end_us = T0_US + second * S_US
    result = Result(
        session=session,
        start_us=end_us - S_US,
        end_us=end_us,
        closed_by="complete",
        present=("image", "text"),
        coverage={"image": 0.5, "text": 1.0},
        members={"streamer.frames": ((3, 5), (9, 9))},
        outputs={"action": {"label": "stop", "score": 0.75}},
        embedding=b"\x00\x3c\xff\x00",
        model="driving",
        version="1-abc",
        status="ok",
        latencies_us={"total": 1234},
    )
    closed_at = Position(end_us + 200_000, 1, 7 * second)
    return Publication(msgspec.structs.replace(result, **changed), closed_at, HEARD_US, "rules-1", trim_below_us)


@pytest.fixture
def keys() -> Keys:
    return Keys(f"t{uuid.uuid4().hex[:8]}")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    """What anybody sees who reads with plain Redis commands."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


class Unbroken(Service):
    """A Redis of which no call may be repeated."""

    def away(self, error: Exception, what: str = "", of: object = None) -> None:
        pytest.fail(str(error))


UNBROKEN = Unbroken("Redis")


@asynccontextmanager
async def publisher(
    url: str, keys: Keys, service: Service | None = None, maxlen: int = 1000, **options: Any
) -> AsyncIterator[Publisher]:
    """As a worker makes it: the client's own retries are off."""
    client = redis.asyncio.Redis.from_url(url, socket_timeout=5.0, retry=Retry(NoBackoff(), 0))
    try:
        yield Publisher(client, keys, service or Service("Redis"), maxlen=maxlen, **options)
    finally:
        await client.aclose()


def ends(client: redis.Redis, keys: Keys, session: str = "car") -> list[int]:
    """Ends of the published windows in seconds after T0, in the stream's order."""
    return [(int(fields[b"end_us"]) - T0_US) // S_US for _, fields in client.xrange(keys.results(session))]


async def test_a_window_is_in_redis_once_however_often_it_is_published(
    redis_url: str, client: redis.Redis, keys: Keys
) -> None:
    async with publisher(redis_url, keys) as one, publisher(redis_url, keys) as other:
        assert await one.publish([publication(1), publication(2)]) == [True, True]
        assert await one.publish([publication(1), publication(2)]) == [False, False]
        assert await other.publish([publication(2), publication(3)]) == [False, True]
        twice_at_once = await asyncio.gather(*(p.publish([publication(4)]) for p in (one, other) * 5))
    assert sorted(twice_at_once) == [[False]] * 9 + [[True]]
    assert ends(client, keys) == [1, 2, 3, 4]


async def test_an_older_window_than_the_newest_is_ignored_and_changes_nothing(
    redis_url: str, client: redis.Redis, keys: Keys
) -> None:
    async with publisher(redis_url, keys) as publish:
        await publish.publish([publication(5)])
        before = [client.hgetall(keys.latest("car")), client.hgetall(keys.state("car"))]
        assert await publish.publish([publication(3, status="failed")]) == [False]
    assert ends(client, keys) == [5]
    assert [client.hgetall(keys.latest("car")), client.hgetall(keys.state("car"))] == before
    assert client.zcard(keys.closings("car")) == 1
    assert client.zscore(keys.sessions, "car") == T0_US + 5 * S_US


async def test_nothing_is_published_of_nothing(redis_url: str, client: redis.Redis, keys: Keys) -> None:
    async with publisher(redis_url, keys) as publish:
        assert await publish.publish([]) == []
    assert client.exists(keys.sessions) == 0


async def test_every_key_holds_what_the_contract_says(redis_url: str, client: redis.Redis, keys: Keys) -> None:
    with client.pubsub() as channel:
        channel.subscribe(keys.channel)
        assert channel.get_message(timeout=5)["type"] == "subscribe"
        async with publisher(redis_url, keys) as publish:
            await publish.publish([publication(1), publication(2)])
        messages = [channel.get_message(timeout=5)["data"] for _ in range(2)]

    (first_id, first), (second_id, second) = client.xrange(keys.results("car"))
    assert [first_id, second_id] == [b"%d-0" % (T0_US + n * S_US) for n in (1, 2)]
    assert Result.from_fields(first) == publication(1).result
    assert first[b"embedding"] == b"\x00\x3c\xff\x00"
    assert client.hgetall(keys.latest("car")) == second
    assert client.hgetall(keys.state("car")) == {
        b"published_end_us": b"%d" % (T0_US + 2 * S_US),
        b"heard_us": b"%d,%d,0,%d" % (T0_US + 11, T0_US + 22, T0_US + 44),
        b"fingerprint": b"rules-1",
        b"lost_until_us": b"0",
    }
    closed_us = T0_US + 2 * S_US + 200_000
    assert client.zrange(keys.closings("car"), -1, -1, withscores=True) == [
        (b"%d:%d:1:14" % (T0_US + 2 * S_US, closed_us), float(closed_us))
    ]
    assert client.zrange(keys.sessions, 0, -1, withscores=True) == [(b"car", float(T0_US + 2 * S_US))]
    assert messages == [publication(n).result.to_json() for n in (1, 2)]


def early(second: int, session: str = "car", **changed: Any) -> Result:
    return publication(second, session, closed_by="open", final=False, **changed).result


async def test_an_early_result_is_the_latest_and_on_the_channel_and_nothing_else(
    redis_url: str, client: redis.Redis, keys: Keys
) -> None:
    with client.pubsub() as channel:
        channel.subscribe(keys.channel)
        assert channel.get_message(timeout=5)["type"] == "subscribe"
        async with publisher(redis_url, keys, UNBROKEN) as publish:
            assert await publish.show([early(1), early(1), early(1, "bus")]) == [True, False, True]
            assert (await publish.load("car", "group")).saved is None
        messages = [channel.get_message(timeout=5)["data"] for _ in range(2)]
        assert channel.get_message(timeout=0.1) is None
    assert messages == [early(1).to_json(), early(1, "bus").to_json()]
    assert Result.from_fields(client.hgetall(keys.latest("car"))) == early(1)
    prefix = keys.channel.removesuffix(":results")
    names = sorted(key.decode() for key in client.scan_iter(f"{prefix}:*"))
    assert names == [f"{prefix}:{{bus}}:latest", f"{prefix}:{{car}}:latest"]


async def test_the_latest_is_of_the_newest_window_and_final_once_that_is(
    redis_url: str, client: redis.Redis, keys: Keys
) -> None:
    def newest() -> tuple[int, bool]:
        result = Result.from_fields(client.hgetall(keys.latest("car")))
        return (result.end_us - T0_US) // S_US, result.final

    async with publisher(redis_url, keys, UNBROKEN) as publish:
        await publish.show([early(1)])
        await publish.show([early(2)])
        await publish.publish([publication(1)])  # an older window closes
        assert newest() == (2, False)
        await publish.publish([publication(2)])
        assert newest() == (2, True)
        assert await publish.show([early(2), early(1)]) == [False, False]  # too late
        assert newest() == (2, True)
        await publish.show([early(9)])  # of windows that a change of the settings leaves without an end
        await publish.publish([msgspec.structs.replace(publication(3), fingerprint="rules-2")])
        assert newest() == (3, True)
    assert ends(client, keys) == [1, 2, 3]
    assert all(fields[b"final"] == b"true" for _, fields in client.xrange(keys.results("car")))


async def test_latest_keeps_no_field_of_the_result_before(redis_url: str, client: redis.Redis, keys: Keys) -> None:
    client.hset(keys.latest("car"), "from_an_older_version", "1")
    async with publisher(redis_url, keys) as publish:
        await publish.publish([publication(1)])
    assert set(client.hgetall(keys.latest("car"))) == {name.encode() for name in publication(1).result.to_fields()}


async def test_closings_are_trimmed_below_the_cut_and_not_at_it(
    redis_url: str, client: redis.Redis, keys: Keys
) -> None:
    cut_us = publication(2).closed_at.log_time_us
    async with publisher(redis_url, keys) as publish:
        await publish.publish([publication(1), publication(2), publication(3)])
        assert client.zcard(keys.closings("car")) == 3
        await publish.publish([publication(4, trim_below_us=cut_us)])
        saved = (await publish.load("car", "group")).saved
    assert saved is not None
    assert saved.closings == {T0_US + n * S_US: publication(n).closed_at for n in (2, 3, 4)}


async def test_load_returns_what_a_restart_needs(redis_url: str, keys: Keys) -> None:
    async with publisher(redis_url, keys) as publish:
        assert (await publish.load("car", "group")).saved is None
        # closed by time alone: such positions have no record, and row and offset below zero
        by_time = msgspec.structs.replace(publication(2), closed_at=Position(T0_US + 9, -1, -1), fingerprint="rules-2")
        await publish.publish([publication(1), by_time])
        saved = (await publish.load("car", "group")).saved
        assert (await publish.load("another", "group")).saved is None
    assert saved == Saved(
        published_end_us=T0_US + 2 * S_US,
        heard_us=HEARD_US,
        closings={T0_US + S_US: publication(1).closed_at, T0_US + 2 * S_US: Position(T0_US + 9, -1, -1)},
        fingerprint="rules-2",
    )


async def test_the_stream_of_results_is_trimmed_to_about_its_length(
    redis_url: str, client: redis.Redis, keys: Keys
) -> None:
    async with publisher(redis_url, keys, maxlen=200) as publish:
        await publish.publish([publication(n) for n in range(1, 1001)])
    kept = ends(client, keys)
    assert 200 <= len(kept) <= 400  # Redis trims whole nodes of a hundred entries
    assert kept[-1] == 1000


@pytest.mark.parametrize(
    ("session", "name"),
    [
        ("räume/7", "r%C3%A4ume%2F7"),
        ("a}b{c", "a%7Db%7Bc"),
        ("50% off:results", "50%25%20off%3Aresults"),
        ("zero\0line\nbreak", "zero%00line%0Abreak"),
        ("車🚗", "%E8%BB%8A%F0%9F%9A%97"),
        ("plain-name_1.~", "plain-name_1.~"),
    ],
)
async def test_a_session_of_any_name_has_keys_of_its_own_with_one_hash_tag(
    redis_url: str, client: redis.Redis, keys: Keys, session: str, name: str
) -> None:
    prefix = keys.channel.removesuffix(":results")
    async with publisher(redis_url, keys) as publish:
        await publish.publish([publication(1, session=session)])
        saved = (await publish.load(session, "group")).saved
    names = sorted(key.decode() for key in client.scan_iter(f"{prefix}:*"))
    kinds = ("closings", "latest", "results", "state")
    assert names == sorted([f"{prefix}:sessions", *(f"{prefix}:{{{name}}}:{what}" for what in kinds)])
    assert client.zrange(keys.sessions, 0, -1) == [session.encode()]
    assert saved is not None
    assert ends(client, keys, session) == [1]


async def test_the_order_given_is_the_order_published_also_across_sessions(
    redis_url: str, client: redis.Redis, keys: Keys
) -> None:
    mixed = [publication(n, session=session) for n in (1, 2, 3) for session in ("b", "a")]
    async with publisher(redis_url, keys) as publish:
        assert await publish.publish(mixed) == [True] * 6
    assert ends(client, keys, "a") == ends(client, keys, "b") == [1, 2, 3]


async def test_a_session_that_was_forgotten_starts_anew(redis_url: str, client: redis.Redis, keys: Keys) -> None:
    async with publisher(redis_url, keys) as publish:
        await publish.publish([publication(5)])
        client.delete(*(key("car") for key in (keys.results, keys.latest, keys.state, keys.closings)))
        assert await publish.publish([publication(1)]) == [True]
    assert ends(client, keys) == [1]


async def test_results_that_outlived_their_state_are_not_published_again(
    redis_url: str, client: redis.Redis, keys: Keys
) -> None:
    async with publisher(redis_url, keys, UNBROKEN) as publish:
        await publish.publish([publication(n) for n in (1, 2, 3)])
        client.delete(keys.state("car"))
        assert (await publish.load("car", "group")).saved is None
        again = [publication(n) for n in (2, 3, 4)]
        assert await asyncio.wait_for(publish.publish(again), 10) == [False, False, True]
        saved = (await publish.load("car", "group")).saved
    assert ends(client, keys) == [1, 2, 3, 4]
    assert saved is not None
    assert saved.published_end_us == T0_US + 4 * S_US


async def test_also_results_that_were_deleted_from_the_stream_are_not_published_again(
    redis_url: str, client: redis.Redis, keys: Keys
) -> None:
    async with publisher(redis_url, keys, UNBROKEN) as publish:
        await publish.publish([publication(1), publication(2)])
        client.xtrim(keys.results("car"), maxlen=0, approximate=False)
        client.delete(keys.state("car"))
        assert await asyncio.wait_for(publish.publish([publication(2), publication(3)]), 10) == [False, True]
    assert ends(client, keys) == [3]


class Log(Service):
    """Notes how calls went; ``first`` is set at the first repetition."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        super().__init__("Redis")
        self.errors: list[str] = []
        self.successes = 0
        self.first = asyncio.Event()
        self._then = then

    def away(self, error: Exception, what: str = "", of: object = None) -> None:
        super().away(error, what, of)
        self.errors.append(str(error))
        self.first.set()
        self._then()

    def answers(self, of: object = None) -> None:
        super().answers(of)
        self.successes += 1


async def test_a_redis_that_is_away_for_a_while_loses_nothing(own_redis: Stack, keys: Keys) -> None:
    log, url = Log(), own_redis.redis_url
    with redis.Redis.from_url(url) as client:
        client.config_set("appendfsync", "always")  # with everysec a busy disk may hold up the write itself
    async with publisher(url, keys, log) as publish:
        await publish.publish([publication(1)])
        assert (log.errors, log.successes) == ([], 1)

        own_redis.redis.kill()
        publishing = asyncio.create_task(publish.publish([publication(2), publication(3)]))
        loading = asyncio.create_task(publish.load("car", "group"))
        await asyncio.wait_for(log.first.wait(), 10)
        assert not publishing.done()
        assert log.successes == 1

        await asyncio.to_thread(own_redis.start_redis)
        assert await asyncio.wait_for(publishing, 20) == [True, True]
        saved = (await asyncio.wait_for(loading, 20)).saved
        assert log.successes == 3
    assert saved is not None
    with redis.Redis.from_url(url) as client:
        assert ends(client, keys) == [1, 2, 3]


async def test_a_redis_without_its_scripts_is_given_them_again(redis_url: str, client: redis.Redis, keys: Keys) -> None:
    async with publisher(redis_url, keys, UNBROKEN) as publish:
        await publish.publish([publication(1)])
        client.script_flush()
        assert await publish.publish([publication(2)]) == [True]


async def test_replicas_that_are_not_there_are_waited_for(redis_url: str, client: redis.Redis, keys: Keys) -> None:
    log = Log()
    async with publisher(redis_url, keys, log, wait_replicas=1, wait_ms=10) as publish:
        publishing = asyncio.create_task(publish.publish([publication(1)]))
        await asyncio.wait_for(log.first.wait(), 10)
        assert not publishing.done()
        publishing.cancel()
    assert log.errors[0] == "only 0 of 1 replicas have the results"
    assert log.successes == 0
    assert ends(client, keys) == [1]  # it is there, but not as safe as was asked for


@pytest.mark.parametrize(
    "rights",
    [
        ["on", ">other"],
        ["on", ">secret", "~*", "&*", "+@all", "-evalsha"],
        ["on", ">secret", "~*", "&*", "+@all", "-xadd"],
        ["on", ">secret", "~*", "resetchannels", "+@all"],
    ],
    ids=["password", "script", "command in the script", "channel"],
)
async def test_a_redis_that_refuses_us_stops_the_worker(own_redis: Stack, keys: Keys, rights: list[str]) -> None:
    with redis.Redis.from_url(own_redis.redis_url) as admin:
        admin.execute_command("ACL", "SETUSER", "worker", *rights)
    url = own_redis.redis_url.replace("redis://", "redis://worker:secret@")
    async with publisher(url, keys, UNBROKEN) as publish:
        with pytest.raises(Stop, match=r"^Redis refuses this worker: .*; check the user and password") as stopped:
            await asyncio.wait_for(publish.publish([publication(1)]), 10)
    assert "\n" not in str(stopped.value)


async def test_a_window_that_redis_refused_for_now_is_not_overtaken_by_the_next(own_redis: Stack, keys: Keys) -> None:
    """A large result does not fit into the memory that Redis may use; the small one after it would."""
    with redis.Redis.from_url(own_redis.redis_url) as client:
        log = Log(then=lambda: client.config_set("maxmemory", 0))
        async with publisher(own_redis.redis_url, keys, log) as publish:
            await publish.publish([publication(1), publication(1, session="other")])
            client.config_set("maxmemory", client.info("memory")["used_memory"] + (6 << 20))
            large = publication(2, outputs={"text": "x" * (4 << 20)})
            batch = [large, publication(2, session="other"), publication(3)]
            assert len(await asyncio.wait_for(publish.publish(batch), 20)) == 3
        assert len(log.errors) == 1
        assert "OOM" in log.errors[0]
        assert ends(client, keys) == [1, 2, 3]
        assert ends(client, keys, "other") == [1, 2]


def emission(second: int) -> Emission:
    made = publication(second)
    window: Any = SimpleNamespace(session="car", end_us=made.result.end_us, heard_us=HEARD_US, closed_at=made.closed_at)
    return Emission(window, "rules-1", 0, 0)


async def test_role_align_knows_each_closing_also_of_a_window_whose_emission_was_not_recorded(
    redis_url: str, keys: Keys
) -> None:
    """It was killed after the broker had window 2; role infer has published it. Killed again, it replays from there."""
    async with publisher(redis_url, keys) as infer:
        client = redis.asyncio.Redis.from_url(redis_url)
        align = Emissions(client, keys, UNBROKEN)
        await align.record([emission(1)])
        await infer.publish([publication(1), publication(2)])
        stored = await align.load("car", "group")
        assert stored.saved is not None
        assert stored.saved.published_end_us == T0_US + 2 * S_US
        await align.record([emission(3)])
        stored = await align.load("car", "group")
        await client.aclose()
    assert stored.saved is not None
    assert stored.saved.published_end_us == T0_US + 3 * S_US
    assert stored.saved.closings == {made.result.end_us: made.closed_at for made in map(publication, (1, 2, 3))}
