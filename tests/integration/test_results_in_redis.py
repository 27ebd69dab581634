"""Reading results back from a real Redis."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from time import monotonic

import pytest
import redis

from streamer.errors import UsageError
from streamer.local.process import free_port
from streamer.local.stack import Stack
from streamer.result import Result
from streamer.settings import Settings
from streamer.store import results
from streamer.store.results import Keys

pytestmark = pytest.mark.integration

S_US = 1_000_000


@pytest.fixture
def keys() -> Keys:
    return Keys(f"t{uuid.uuid4().hex[:8]}")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def settings(redis_url: str) -> Settings:
    return Settings.load(redis=redis_url, key_prefix="streamer")


def result(second: int, session: str = "car") -> Result:
    return Result(
        session=session,
        start_us=(second - 1) * S_US,
        end_us=second * S_US,
        closed_by="complete",
        present=(),
        coverage={},
        members={},
        outputs={},
        embedding=b"",
        model="m",
        version="1",
        status="ok",
        latencies_us={},
    )


def publish(client: redis.Redis, keys: Keys, *published: Result) -> None:
    """As the contract has it; that the publisher does the same is held in its own tests."""
    pipe = client.pipeline()
    for one in published:
        pipe.xadd(keys.results(one.session), one.to_fields(), id=f"{one.end_us}-0")
        pipe.hset(keys.latest(one.session), mapping=one.to_fields())
        pipe.zadd(keys.sessions, {one.session: one.end_us}, gt=True)
        pipe.publish(keys.channel, one.to_json())
    pipe.execute()


def seconds(found: Iterator[Result]) -> list[int]:
    return [one.end_us // S_US for one in found]


@pytest.mark.parametrize("there", [0, 1, results.PAGE - 1, results.PAGE, results.PAGE + 1, 2 * results.PAGE + 7])
def test_all_results_are_read_page_by_page(client: redis.Redis, keys: Keys, there: int) -> None:
    publish(client, keys, *(result(n) for n in range(1, there + 1)))
    assert seconds(results.results(client, keys, "car")) == list(range(1, there + 1))


def test_as_many_as_asked_for_also_over_pages(client: redis.Redis, keys: Keys) -> None:
    publish(client, keys, *(result(n) for n in range(1, 1101)))
    for count in (0, 1, results.PAGE, results.PAGE + 1, 5000):
        found = seconds(results.results(client, keys, "car", count=count))
        assert found == list(range(1, min(count, 1100) + 1))


def test_results_since_a_time_are_those_that_end_at_it_or_later(client: redis.Redis, keys: Keys) -> None:
    publish(client, keys, *(result(n) for n in (1, 2, 3)))
    assert seconds(results.results(client, keys, "car", since_us=2 * S_US)) == [2, 3]
    assert seconds(results.results(client, keys, "car", since_us=2 * S_US + 1)) == [3]
    assert seconds(results.results(client, keys, "car", since_us=4 * S_US)) == []
    assert seconds(results.results(client, keys, "car", since_us=-S_US)) == [1, 2, 3]


def test_sessions_are_listed_by_their_newest_window(client: redis.Redis, keys: Keys) -> None:
    assert results.sessions(client, keys) == []
    publish(client, keys, result(1, "a"), result(3, "räume/7"), result(2, "b"))
    assert results.sessions(client, keys) == ["räume/7", "b", "a"]
    publish(client, keys, result(4, "a"))
    assert results.sessions(client, keys) == ["a", "räume/7", "b"]


def test_the_latest_result_of_a_session(client: redis.Redis, keys: Keys) -> None:
    publish(client, keys, result(1), result(2), result(9, "other"))
    assert results.latest(client, keys, "car") == result(2)
    assert results.latest(client, keys, "nobody") is None


def test_forgetting_a_session_leaves_nothing_of_it_and_all_of_the_others(client: redis.Redis, keys: Keys) -> None:
    publish(client, keys, result(1), result(2), result(1, "other"))
    client.hset(keys.state("car"), "published_end_us", 2 * S_US)
    client.zadd(keys.closings("car"), {"1:2:3:4": 2})
    assert results.forget(client, keys, "car") == 2
    prefix = keys.channel.removesuffix(":results")
    assert sorted(client.scan_iter(f"{prefix}:*")) == sorted(
        key.encode() for key in (keys.sessions, keys.results("other"), keys.latest("other"))
    )
    assert results.sessions(client, keys) == ["other"]
    assert results.forget(client, keys, "car") == 0


def take(fresh: Iterator[Result | None], count: int, within: int = 10) -> list[tuple[str, int]]:
    """The next so many results, whatever waits lie between them."""
    found: list[tuple[str, int]] = []
    for _ in range(within):
        if len(found) == count:
            break
        one = next(fresh)
        if one is not None:
            found.append((one.session, one.end_us // S_US))
    return found


def test_following_begins_now_for_sessions_that_exist_and_at_the_beginning_for_new_ones(
    client: redis.Redis, keys: Keys
) -> None:
    publish(client, keys, result(1), result(2))
    fresh = results.follow(client, keys)
    assert next(fresh) is None
    publish(client, keys, result(3), result(1, "new"), result(2, "new"))
    assert sorted(take(fresh, 3)) == [("car", 3), ("new", 1), ("new", 2)]
    publish(client, keys, result(4), result(3, "new"))
    assert sorted(take(fresh, 2)) == [("car", 4), ("new", 3)]


@pytest.mark.parametrize("there_are_sessions", [True, False])
def test_following_tells_about_once_a_second_that_there_is_nothing(
    client: redis.Redis, keys: Keys, there_are_sessions: bool
) -> None:
    if there_are_sessions:
        publish(client, keys, result(1))
    fresh = results.follow(client, keys)
    began_s = monotonic()
    assert [next(fresh), next(fresh)] == [None, None]
    assert 1.0 < monotonic() - began_s < 5.0


def test_following_a_redis_without_sessions_sees_the_first_one_from_its_beginning(
    client: redis.Redis, keys: Keys
) -> None:
    fresh = results.follow(client, keys)
    assert next(fresh) is None
    publish(client, keys, result(1), result(2))
    assert take(fresh, 2) == [("car", 1), ("car", 2)]


def test_following_some_sessions_shows_no_other(client: redis.Redis, keys: Keys) -> None:
    publish(client, keys, result(1), result(1, "other"))
    fresh = results.follow(client, keys, ["car", "to come"])
    assert next(fresh) is None
    publish(client, keys, result(2, "other"), result(2), result(1, "to come"))
    assert sorted(take(fresh, 2)) == [("car", 2), ("to come", 1)]
    assert next(fresh) is None


def test_a_session_whose_results_were_trimmed_away_is_followed_too(client: redis.Redis, keys: Keys) -> None:
    publish(client, keys, result(1))
    client.xtrim(keys.results("car"), maxlen=0, approximate=False)
    fresh = results.follow(client, keys)
    assert next(fresh) is None
    publish(client, keys, result(2))
    assert take(fresh, 1) == [("car", 2)]


def test_more_than_a_page_at_once_is_followed_without_a_gap(client: redis.Redis, keys: Keys) -> None:
    publish(client, keys, result(1))
    fresh = results.follow(client, keys)
    assert next(fresh) is None
    count = 2 * results.PAGE + 7
    publish(client, keys, *(result(n) for n in range(2, count + 2)))
    assert [end for _, end in take(fresh, count, within=count)] == list(range(2, count + 2))


# errors


def refusal(redis_url: str) -> str:
    with pytest.raises(UsageError) as refused, results.connected(settings(redis_url)):
        pass
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)
    return str(refused.value)


def test_a_connection_gives_a_client_that_answers_and_the_keys(redis_url: str) -> None:
    with results.connected(settings(redis_url)) as (client, keys):
        assert client.ping()
        assert keys.sessions == "streamer:sessions"


def test_no_redis_is_one_line_with_what_to_do() -> None:
    port = free_port()
    said = refusal(f"redis://me:secret@127.0.0.1:{port}/0")
    assert said.startswith(f"cannot reach Redis at redis://me:***@127.0.0.1:{port}/0 (")
    assert said.endswith("set STREAMER_REDIS to where one answers, or unset it and run `streamer up`")


@pytest.mark.parametrize("url", ["http://localhost", "localhost:6379", "redis://localhost:port/0"])
def test_an_address_that_is_none_names_the_setting(url: str) -> None:
    assert refusal(url).startswith("setting STREAMER_REDIS: ")


def test_a_wrong_password_names_the_setting(redis_url: str) -> None:
    said = refusal(redis_url.replace("redis://", "redis://nobody:secret@"))
    assert said.startswith("Redis at redis://nobody:***@")
    assert "; check STREAMER_REDIS" in said


def test_missing_rights_name_the_setting(redis_url: str, client: redis.Redis, keys: Keys) -> None:
    name = keys.channel.partition(":")[0]
    client.execute_command("ACL", "SETUSER", name, "on", ">secret", "~none:*", "+@all")
    try:
        with (
            pytest.raises(UsageError, match=r"refuses us: .*; SECURITY.md lists the rights"),
            results.connected(settings(redis_url.replace("redis://", f"redis://{name}:secret@"))) as (limited, own),
        ):
            results.sessions(limited, own)
    finally:
        client.execute_command("ACL", "DELUSER", name)


def test_a_key_that_holds_something_else_is_one_line(redis_url: str, client: redis.Redis, keys: Keys) -> None:
    client.set(keys.results("car"), "not a stream")
    with (
        pytest.raises(UsageError, match=r"^Redis at redis://[^ ]*: .*wrong kind of value$"),
        results.connected(settings(redis_url)) as (own, _),
    ):
        list(results.results(own, keys, "car"))


def test_a_redis_that_goes_away_is_one_line(own_redis: Stack) -> None:
    with results.connected(settings(own_redis.redis_url)) as (client, keys):
        assert results.sessions(client, keys) == []
    with pytest.raises(UsageError, match=r"^cannot reach Redis at"):
        read_while_it_goes_away(own_redis)


def read_while_it_goes_away(own_redis: Stack) -> None:
    with results.connected(settings(own_redis.redis_url)) as (client, keys):
        own_redis.redis.kill()
        results.sessions(client, keys)
