"""Descriptions of windows, on a real Redis and a real Kafka: each once, in order, whatever happens to the reader."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis
import redis.asyncio
from prometheus_client import CollectorRegistry

from streamer import dashboard
from streamer.describe.describer import Describer, by_outputs
from streamer.describe.evidence import Words
from streamer.describe.metrics import Metrics
from streamer.local.process import free_port
from streamer.local.worker import environment
from streamer.observe.health import Service
from streamer.result import Result
from streamer.settings import Settings
from streamer.store import descriptions, results
from streamer.store.descriptions import Description, Descriptions
from streamer.store.readers import Cursor, Cursors, Reader
from streamer.store.results import Keys
from tests.harness import S_US, end, running_worker, second, send, wait_for

pytestmark = pytest.mark.integration

LABELS = ("proceed", "brake", "creep")


@pytest.fixture
def keys() -> Keys:
    return Keys(f"t{uuid.uuid4().hex[:8]}")


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def result(number: int, session: str = "car", **other: Any) -> Result:
    """Window ``number`` of a session, which lasts a second; every other one changes the decision."""
    label = LABELS[number // 2 % len(LABELS)]
    made = Result(
        session=session,
        start_us=(number - 1) * S_US,
        end_us=number * S_US,
        closed_by="complete",
        present=("image",),
        coverage={"image": 1.0},
        members={},
        outputs={"action": {"label": label, "score": 0.75, "scores": {label: 0.75}}},
        embedding=b"",
        model="m",
        version="1",
        status="ok",
        latencies_us={},
    )
    return msgspec.structs.replace(made, **other)


def publish(client: redis.Redis, keys: Keys, *published: Result) -> None:
    """As the contract has it."""
    pipe = client.pipeline(transaction=False)
    for one in published:
        pipe.xadd(keys.results(one.session), one.to_fields(), id=f"{one.end_us}-0")
        pipe.zadd(keys.sessions, {one.session: one.end_us}, gt=True)
    pipe.execute()


def described(client: redis.Redis, keys: Keys, session: str = "car") -> list[Description]:
    return list(descriptions.read(client, keys, session))


def numbers(found: Sequence[Description]) -> list[int]:
    return [one.end_us // S_US for one in found]


async def silence(windows: Sequence[Result]) -> list[Words]:
    return [Words()] * len(windows)


class Rig:
    """A reader in this process."""

    def __init__(self, redis_url: str, keys: Keys) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self._url, self._keys = redis_url, keys

    async def run(self, maxlen: int = 10_000, **options: Any) -> None:
        once = options.pop("once", True)
        async with redis.asyncio.Redis.from_url(self._url) as client:
            describer = Describer(
                Descriptions(client, self._keys, maxlen), options.pop("words", silence), by_outputs, self.metrics
            )
            cursors = Cursors(client, self._keys, self._keys.described)
            reader = Reader(
                client, self._keys, cursors, describer.take, redis=Service("Redis"), other=Service("Kafka"), **options
            )
            await reader.run(once)

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
def rig(redis_url: str, keys: Keys) -> Rig:
    return Rig(redis_url, keys)


async def test_every_window_of_every_session_is_described_once_and_in_order(
    rig: Rig, client: redis.Redis, keys: Keys
) -> None:
    publish(client, keys, *(result(n) for n in range(1, 251)), *(result(n, "räume/7") for n in range(5, 8)))
    await rig.run()
    assert numbers(described(client, keys)) == list(range(1, 251))
    assert numbers(described(client, keys, "räume/7")) == [5, 6, 7]
    assert rig.value("streamer_descriptions_total", by="outputs") == 253
    await rig.run()
    assert numbers(described(client, keys)) == list(range(1, 251))
    publish(client, keys, result(251))
    await rig.run()
    assert numbers(described(client, keys))[-2:] == [250, 251]


async def test_a_restart_still_knows_what_the_windows_before_had_shown(
    rig: Rig, client: redis.Redis, keys: Keys
) -> None:
    publish(client, keys, *(result(n) for n in range(1, 9)))
    await rig.run()
    whole = [one.text for one in described(client, keys)]
    for key in (keys.descriptions("car"), keys.described("car"), keys.results("car")):
        client.delete(key)
    for n in range(1, 9):
        publish(client, keys, result(n))
        await rig.run()
    assert [one.text for one in described(client, keys)] == whole
    assert "Action is brake (75 %), and was proceed before." in whole


async def test_a_description_is_in_the_stream_and_in_the_channel_as_the_schema_says(
    rig: Rig, client: redis.Redis, keys: Keys
) -> None:
    with client.pubsub() as channel:
        channel.subscribe(keys.described_channel)
        channel.get_message(timeout=5.0)
        publish(client, keys, result(1))
        await rig.run()
        heard = channel.get_message(ignore_subscribe_messages=True, timeout=5.0)
    assert heard is not None
    ((entry, fields),) = client.xrange(keys.descriptions("car"))
    assert entry == b"1000000-0"
    told = json.loads(heard["data"])
    assert {name.decode(): value.decode() for name, value in fields.items()} == {k: str(v) for k, v in told.items()}
    assert told["id"] == "car/1000000"
    assert told["text"] == "Action is proceed (75 %)."


async def test_two_readers_at_once_describe_each_window_once(rig: Rig, client: redis.Redis, keys: Keys) -> None:
    publish(client, keys, *(result(n) for n in range(1, 301)))
    await asyncio.gather(rig.run(), rig.run())
    assert numbers(described(client, keys)) == list(range(1, 301))
    assert rig.value("streamer_descriptions_total", by="outputs") == 300


async def test_new_sessions_are_found_while_it_runs_and_others_can_be_left_out(
    rig: Rig, client: redis.Redis, keys: Keys
) -> None:
    async with following(rig, only=("car", "bus")):
        publish(client, keys, result(1), result(1, "other"))
        await until(lambda: numbers(described(client, keys)) == [1])
        publish(client, keys, result(3, "bus"))
        await until(lambda: numbers(described(client, keys, "bus")) == [3])
    assert described(client, keys, "other") == []


async def test_a_new_session_begins_where_since_says_and_a_known_one_at_its_cursor(
    rig: Rig, client: redis.Redis, keys: Keys
) -> None:
    publish(client, keys, *(result(n) for n in range(1, 6)))
    await rig.run(since_us=4 * S_US)
    assert numbers(described(client, keys)) == [4, 5]
    publish(client, keys, result(6))
    await rig.run(since_us=20 * S_US)
    assert numbers(described(client, keys)) == [4, 5, 6]


async def test_what_trimming_has_overtaken_is_told_and_counted(rig: Rig, client: redis.Redis, keys: Keys) -> None:
    publish(client, keys, *(result(n) for n in range(1, 4)))
    await rig.run()
    publish(client, keys, *(result(n) for n in range(4, 9)))
    client.xtrim(keys.results("car"), maxlen=2, approximate=False)
    await rig.run()
    found = described(client, keys)
    assert numbers(found) == [1, 2, 3, 7, 8]
    said = (
        "results from 1970-01-01T00:00:03.000Z to 1970-01-01T00:00:06.000Z may have been trimmed before they were read"
    )
    assert found[3].note == said
    assert found[4].note == ""
    assert rig.value("streamer_descriptions_overtaken_total") == 1


async def test_a_pause_of_the_session_or_a_trimmed_but_described_window_is_no_loss(
    rig: Rig, client: redis.Redis, keys: Keys
) -> None:
    publish(client, keys, *(result(n) for n in range(1, 4)))
    await rig.run()
    publish(client, keys, result(9))  # a pause: the cursor's window is still there
    await rig.run()
    client.xtrim(keys.results("car"), maxlen=0, approximate=False)
    publish(client, keys, result(10))  # follows directly: nothing can lie between
    await rig.run()
    assert [one.note for one in described(client, keys)] == [""] * 5
    assert rig.value("streamer_descriptions_overtaken_total") == 0


async def test_the_stream_of_descriptions_is_trimmed_as_that_of_results(
    rig: Rig, client: redis.Redis, keys: Keys
) -> None:
    publish(client, keys, *(result(n) for n in range(1, 501)))
    await rig.run(maxlen=100)
    assert 100 <= client.xlen(keys.descriptions("car")) < 300
    assert numbers(described(client, keys))[-1] == 500


async def test_a_forgotten_session_is_described_no_further_and_starts_again_when_it_comes_back(
    rig: Rig, client: redis.Redis, keys: Keys
) -> None:
    async with following(rig):
        publish(client, keys, result(8), result(9))
        await until(lambda: numbers(described(client, keys)) == [8, 9])
        results.forget(client, keys, "car")
        assert list(client.scan_iter(keys.described("*").replace("%2A", "*"))) == []
        publish(client, keys, result(1))
        await until(lambda: numbers(described(client, keys)) == [1])


async def test_a_session_that_is_forgotten_while_it_is_described_gets_no_keys_again(
    rig: Rig, client: redis.Redis, keys: Keys
) -> None:
    async def forgetting(windows: Sequence[Result]) -> list[Words]:
        results.forget(client, keys, "car")
        return await silence(windows)

    publish(client, keys, result(1))
    await rig.run(words=forgetting)
    assert [name for name in client.scan_iter("*") if keys.sessions.split(":")[0].encode() in name] == []


async def test_a_redis_that_goes_away_and_comes_back_loses_and_doubles_nothing(own_redis: Any, keys: Keys) -> None:
    rig = Rig(own_redis.redis_url, keys)
    with redis.Redis.from_url(own_redis.redis_url) as client:
        client.config_set("appendonly", "yes")
        client.config_set("appendfsync", "always")
        async with following(rig):
            publish(client, keys, *(result(n) for n in range(1, 31)))
            await until(lambda: len(described(client, keys)) > 3)
            await asyncio.to_thread(own_redis.redis.kill)
            await asyncio.to_thread(own_redis.start_redis)
            publish(client, keys, *(result(n) for n in range(31, 41)))
            await until(lambda: len(described(client, keys)) == 40)
        assert numbers(described(client, keys)) == list(range(1, 41))


class following:  # noqa: N801 - reads as a statement
    """The reader runs while the context is open."""

    def __init__(self, rig: Rig, **options: Any) -> None:
        self._coroutine = rig.run(once=False, **options)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._coroutine)

    async def __aexit__(self, *error: object) -> None:
        if self._task.done():
            await self._task
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task


async def until(condition: Callable[[], bool], within_s: float = 30.0) -> None:
    deadline_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.02)


# the command


Command = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def streamer(topics: Settings, tmp_path: Path) -> Command:
    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "streamer", *arguments],
            cwd=tmp_path,
            env=os.environ | environment(topics),
            capture_output=True,
            timeout=60,
        )
        assert done.returncode == code, done.stderr.decode()
        return done

    return run


def test_what_a_worker_published_is_described_with_the_words_that_kafka_has(
    topics: Settings, streamer: Command, tmp_path: Path, client: redis.Redis
) -> None:
    keys = Keys(topics.key_prefix)
    start_us = int(time.time()) * S_US - 5 * S_US
    with running_worker(topics, tmp_path / "worker.log"):
        for n in range(3):
            send(topics, second(topics, "car", start_us + n * S_US))
        send(topics, [end(topics, "car", start_us + 3 * S_US)])
        wait_for(lambda: client.xlen(keys.results("car")) == 3, 30.0)
    printed = [json.loads(line) for line in streamer("describe", "--once", "--json").stdout.splitlines()]
    assert [one["end_us"] for one in printed] == [start_us + n * S_US for n in (1, 2, 3)]
    for one in printed:
        assert "Action may be " in one["text"]  # fresh weights are sure of nothing
        assert one["text"].count("Said: “continue straight”.") == 1
        assert (one["by"], one["note"]) == ("outputs", "")
    assert streamer("describe", "--once", "--json").stdout == b""

    listed = streamer("results", "--session", "car", "--descriptions", "--json", "--limit", "2").stdout.splitlines()
    assert [json.loads(line) for line in listed] == printed[1:]
    table = streamer("results", "--session", "car", "--descriptions").stdout.decode()
    assert table.count("continue straight") == 3
    nobody = streamer("results", "--session", "nobody", "--descriptions", code=1).stderr.decode()
    assert nobody == "streamer: session 'nobody' has no descriptions from then on; run `streamer describe`\n"


def test_killed_at_random_moments_it_describes_every_window_once(
    topics: Settings, tmp_path: Path, client: redis.Redis
) -> None:
    keys, moments = Keys(topics.key_prefix), random.Random(5)
    port = free_port()
    begun = 0
    for _ in range(5):
        publish(client, keys, *(result(n, session) for n in range(begun + 1, begun + 401) for session in ("a", "b")))
        begun += 400
        before = client.xlen(keys.descriptions("a"))
        with reader_process(topics, tmp_path, port) as process:
            wait_for(partial(longer, client, keys, before), 30.0)
            time.sleep(moments.uniform(0.0, 0.2))
            process.kill()
            process.wait()
    with reader_process(topics, tmp_path, port) as process:
        wait_for(lambda: all(client.xlen(keys.descriptions(name)) >= begun for name in ("a", "b")), 60.0)
        metrics = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30).read().decode()
        process.terminate()
        assert process.wait(10) == 0
    assert 'streamer_descriptions_total{by="outputs"}' in metrics
    for session in ("a", "b"):
        found = described(client, keys, session)
        assert numbers(found) == list(range(1, begun + 1))
        assert {one.note for one in found} == {""}


def longer(client: redis.Redis, keys: Keys, before: int) -> bool:
    return int(client.xlen(keys.descriptions("a"))) > before


@contextmanager
def reader_process(settings: Settings, folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    given = settings.model_copy(update={"describe_port": port, "results_maxlen": 100_000})
    with (folder / "describe.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "streamer", "describe"], cwd=folder, env=os.environ | environment(given), stderr=log
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_port_that_is_taken_names_its_setting(topics: Settings, tmp_path: Path) -> None:
    port = free_port()
    with reader_process(topics, tmp_path, port) as first:
        wait_for(lambda: b"describing new windows" in (tmp_path / "describe.log").read_bytes(), 30.0)
        with reader_process(topics, tmp_path, port) as other:
            assert other.wait(30) == 1
        first.terminate()
        assert first.wait(10) == 0
    assert b"set STREAMER_DESCRIBE_PORT to a free port, or 0" in (tmp_path / "describe.log").read_bytes()


def test_the_page_shows_the_newest_description_as_text(topics: Settings, client: redis.Redis, page: Any) -> None:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    keys = Keys(topics.key_prefix)
    hostile = "<img src=x onerror=\"document.title='owned'\">"
    with dashboard.running(topics.model_copy(update={"dashboard_port": 0})) as url:
        publish(client, keys, result(1), result(2))
        client.hset(keys.latest("car"), mapping=result(2).to_fields())
        page.goto(url)
        page.locator("#name", has_text="car").wait_for()
        sync_api.expect(page.locator("#description")).to_be_hidden()
        with ThreadPoolExecutor(1) as thread:  # this one has the browser's event loop
            thread.submit(asyncio.run, describe_as(topics, keys, [(1, "the first"), (2, hostile)])).result()
        sync_api.expect(page.locator("#description")).to_have_text(hostile)
        page.goto(f"{url}#session=car&at={S_US}")
        page.reload()
        sync_api.expect(page.locator("#description")).to_have_text("the first")
        assert page.locator("#description").get_attribute("title").endswith("by seer; a note")
        assert page.title() == "car · streamer"


async def describe_as(settings: Settings, keys: Keys, texts: Sequence[tuple[int, str]]) -> None:
    async with redis.asyncio.Redis.from_url(settings.redis) as client:
        cursor = Cursor()
        for number, text in texts:
            description = Description("car", (number - 1) * S_US, number * S_US, text, "seer", "a note")
            moved = await Descriptions(client, keys, 100).add(cursor, description, b"{}")
            assert moved is not None
            cursor = moved
