"""`streamer sink` on a real Kafka, a real Redis, and a receiver that answers, or does not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pyarrow.dataset as ds
import pytest
import redis
import redis.asyncio
from aiohttp import web
from cloudevents.core.bindings.kafka import KafkaMessage, from_binary
from cloudevents.core.formats.json import JSONFormat
from kafka.errors import KafkaTimeoutError
from prometheus_client import CollectorRegistry

from streamer.errors import UsageError
from streamer.events import TOPIC_RESULTS
from streamer.local.program import Program
from streamer.local.worker import environment
from streamer.observe.health import Service
from streamer.result import Result
from streamer.settings import Settings
from streamer.sinks import letters, parquet
from streamer.sinks.kafka import KafkaSink
from streamer.sinks.metrics import Metrics
from streamer.sinks.parquet import ParquetSink
from streamer.sinks.sink import Given, Sink
from streamer.sinks.webhook import Webhook
from streamer.store.readers import Cursor, Cursors, Page, Reader
from streamer.store.results import Keys, forget
from tests.harness import ROOT, wait_for
from tests.parquets import asked
from tests.published import S_US, START_US, publish, result
from tests.receiver import KEY, Post, Receiver
from tests.topics import committed

pytestmark = pytest.mark.integration

SESSIONS = ("car-1", "Straße 7/€", "car-3")


class Running(NamedTuple):
    sink: Sink
    reader: Reader
    metrics: Metrics


@asynccontextmanager
async def sinking(settings: Settings, kind: type[Sink]) -> AsyncIterator[Running]:
    """A sink with its reader, with the parts of the process."""
    keys, metrics = Keys(settings.key_prefix), Metrics(CollectorRegistry())
    async with redis.asyncio.Redis.from_url(settings.redis) as client:
        cursors = Cursors(client, keys, lambda session: keys.sink(session, "out"))
        sink = kind(Given(settings, "out", client, keys, cursors, metrics))
        await sink.open()
        try:
            services = Service("Redis"), Service("other")
            at_once = sink.at_once
            yield Running(
                sink,
                Reader(client, keys, sink.places, sink.take, redis=services[0], other=services[1], at_once=at_once),
                metrics,
            )
        finally:
            await sink.close()


def outcome(metrics: Metrics, name: str) -> float:
    found = metrics.registry.get_sample_value("streamer_sink_results_total", {"outcome": name})
    assert found is not None
    return found


def windows(settings: Settings) -> dict[str, list[str]]:
    """Session -> ids of its windows in Kafka, in their order."""
    found: dict[str, list[str]] = {}
    for record in committed(settings, settings.topic(TOPIC_RESULTS)):
        found.setdefault(record.key.decode(), []).append(json.loads(record.value)["id"])
    return found


def drives(count: int, first: int = 0) -> dict[str, list[Result]]:
    return {session: [result(session, first + i) for i in range(count)] for session in SESSIONS}


def ids(drives: dict[str, list[Result]]) -> dict[str, list[str]]:
    return {session: [one.id for one in results] for session, results in drives.items()}


def flat(drives: dict[str, list[Result]]) -> list[Result]:
    return [one for results in drives.values() for one in results]


# ---- Kafka


async def test_kafka_has_each_result_once_as_an_event_of_cloudevents(settings: Settings) -> None:
    given = drives(250)
    publish(settings, flat(given))
    for _ in range(2):  # the second one has nothing to do
        async with sinking(settings, KafkaSink) as running:
            await running.reader.run(once=True)
    assert windows(settings) == ids(given)
    record = next(r for r in committed(settings, settings.topic(TOPIC_RESULTS)) if r.key.decode() == SESSIONS[1])
    event = from_binary(KafkaMessage(dict(record.headers), record.key, record.value), JSONFormat())
    first = given[SESSIONS[1]][0]
    assert (event.get_id(), event.get_type(), event.get_subject()) == (first.id, "streamer.result.v1", first.session)
    data = event.get_data()
    assert isinstance(data, dict)
    assert data == json.loads(first.to_json(embedding=True))


async def test_a_transaction_that_was_not_committed_is_as_if_it_had_never_been(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = drives(3)
    publish(settings, flat(given))
    async with sinking(settings, KafkaSink) as running:
        assert isinstance(running.sink, KafkaSink)
        producer = running.sink._producer
        assert producer is not None
        monkeypatch.setattr(producer, "commit_transaction", lambda: (_ for _ in ()).throw(KafkaTimeoutError()))
        await running.reader.run(once=True)  # with the next producer
        assert outcome(running.metrics, "sent") == 9
    assert windows(settings) == ids(given)


async def test_a_transaction_whose_answer_was_lost_is_not_repeated(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = drives(3)
    publish(settings, flat(given))
    async with sinking(settings, KafkaSink) as running:
        assert isinstance(running.sink, KafkaSink)
        producer = running.sink._producer
        assert producer is not None
        commit = producer.commit_transaction

        def lost() -> None:
            commit()
            raise KafkaTimeoutError

        monkeypatch.setattr(producer, "commit_transaction", lost)
        await running.reader.run(once=True)
    assert windows(settings) == ids(given)


async def test_of_two_sinks_of_a_name_the_later_one_takes_over_and_nothing_is_twice(settings: Settings) -> None:
    publish(settings, flat(drives(2)))
    async with sinking(settings, KafkaSink) as old:
        await old.reader.run(once=True)
        publish(settings, flat(drives(2, first=2)))
        async with sinking(settings, KafkaSink) as new:
            await new.reader.run(once=True)
        publish(settings, flat(drives(2, first=4)))
        await old.reader.run(once=True)  # it has been fenced off, and comes back
    assert windows(settings) == ids(drives(6))


# ---- webhook


def hooked(settings: Settings, receiver: Receiver, **given: Any) -> Settings:
    values = settings.model_dump(exclude_unset=True)
    return Settings.load(**values | {"webhook_url": receiver.url, "webhook_key": KEY} | given)


async def test_posts_are_signed_and_in_the_order_of_their_session(settings: Settings) -> None:
    given = drives(20)
    publish(settings, flat(given))
    with Receiver() as receiver:
        async with sinking(hooked(settings, receiver), Webhook) as running:
            await running.reader.run(once=True)
        assert {session: receiver.windows(session) for session in SESSIONS} == ids(given)
        assert outcome(running.metrics, "sent") == 60
        name, post = receiver.accepted[0]
        assert "embedding" not in post["data"]
        assert post["specversion"] == "1.0"
        assert "/" in name


async def test_a_session_that_fails_is_slow_or_is_never_answered_delays_itself_alone(settings: Settings) -> None:
    healthy, failing, slow, silent, asked = "healthy", "failing", "slow", "silent", "asked"
    times: dict[str, list[float]] = {}

    async def answer(post: Post) -> web.Response:
        session = post["subject"]
        seen = times.setdefault(session, [])
        seen.append(time.monotonic())
        if session == failing and len(seen) <= 3:
            return web.Response(status=500)
        if session == asked and len(seen) == 1:
            return web.Response(status=429, headers={"Retry-After": "1"})
        if session == slow:
            await asyncio.sleep(0.2)
        if session == silent and len(seen) <= 2:
            await asyncio.sleep(60)
        return web.Response(status=200)

    given = {name: [result(name, i) for i in range(5)] for name in (failing, slow, silent, asked, healthy)}
    publish(settings, flat(given))
    with Receiver(answer) as receiver:
        async with sinking(hooked(settings, receiver, webhook_timeout_ms=1000), Webhook) as running:
            task = asyncio.ensure_future(running.reader.run(once=True))
            await asyncio.to_thread(wait_for, lambda: len(receiver.windows(healthy)) == 5, 30)
            assert len(receiver.windows(silent)) == len(receiver.windows(asked)) == 0
            await task
            assert running.sink.degraded() == []
        assert {name: receiver.windows(name) for name in given} == ids(given)
        assert times[healthy][-1] < times[silent][1]
        assert times[asked][1] - times[asked][0] >= 1.0
        assert running.metrics.registry.get_sample_value("streamer_retries_total", {"service": "webhook"}) == 6.0


async def test_what_a_receiver_refuses_for_good_is_set_aside_with_the_reason_and_the_rest_goes_on(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(post: Post) -> web.Response:
        refused = {1: 400, 2: 307}.get((post["data"]["end_us"] - START_US) // S_US - 1)
        return web.Response(status=refused or 204, headers={"Location": "/elsewhere"} if refused == 307 else None)

    publish(settings, [result("car", i) for i in range(4)])
    with Receiver(answer) as receiver:
        hidden = receiver.url + "?token=T0K3N"
        async with sinking(hooked(settings, receiver, webhook_url=hidden), Webhook) as running:
            await running.reader.run(once=True)
        assert receiver.windows("car") == [result("car", i).id for i in (0, 3)]
        assert (outcome(running.metrics, "sent"), outcome(running.metrics, "failed")) == (2, 2)
    with redis.Redis.from_url(settings.redis) as client:
        letters = client.xrange(Keys(settings.key_prefix).sink_deadletters("out"))
    assert [(fields[b"id"].decode(), fields[b"reason"]) for _, fields in letters] == [
        (result("car", 1).id, b"HTTP 400"),
        (result("car", 2).id, b"HTTP 307"),
    ]
    assert json.loads(letters[0][1][b"event"])["data"]["end_us"] == result("car", 1).end_us
    assert "HTTP 400" in caplog.text
    assert "T0K3N" not in caplog.text


async def test_refused_results_are_listed_and_posted_again_until_they_are_taken(settings: Settings) -> None:
    answers = {"car/2": 400, "car/3": 400, "car/4": 422}

    async def answer(post: Post) -> web.Response:
        return web.Response(status=answers.get(f"car/{(post['data']['end_us'] - START_US) // S_US}", 204))

    publish(settings, [result("car", i) for i in range(5)])
    with Receiver(answer) as receiver, redis.Redis.from_url(settings.redis) as client:
        hook = hooked(settings, receiver)
        async with sinking(hook, Webhook) as running:
            await running.reader.run(once=True)
        with pytest.raises(UsageError, match="no sink 'out' was ever started"):
            [*letters.read(hook, "out")]
        client.hset(Keys(settings.key_prefix).sinks, "out", "2026-05-01T00:00:00Z")  # as the process does

        refused = [*letters.read(hook, "out")]
        assert [(one.id, one.reason) for one in refused] == [
            (result("car", i).id, f"HTTP {status}") for i, status in ((1, 400), (2, 400), (3, 422))
        ]
        assert [one.id for one in letters.read(hook, "out", "HTTP 422")] == [result("car", 3).id]
        assert msgspec.json.decode(refused[0].event)["id"] == refused[0].id

        answers |= {"car/2": 204, "car/3": 503}
        with pytest.raises(UsageError, match=r"does not take car/\d+: HTTP 503; 1 were taken, the others wait"):
            await asyncio.to_thread(letters.requeue, hook, "out")
        answers["car/3"] = 204
        assert await asyncio.to_thread(letters.requeue, hook, "out") == letters.Again(sent=1, refused=1)
        assert receiver.windows("car") == [result("car", i).id for i in (0, 4, 1, 2)]
        assert [one.id for one in letters.read(hook, "out")] == [result("car", 3).id]


# ---- Parquet


def filed(settings: Settings, folder: Path, **given: Any) -> Settings:
    values = settings.model_dump(exclude_unset=True)
    return Settings.load(**values | {"parquet_dir": folder} | given)


def rows(folder: Path) -> dict[str, list[str]]:
    """Session -> ids of its windows in the files, in order of time."""
    query = f"select session, id from '{folder}/**/*.parquet' order by session, end_time"
    found: dict[str, list[str]] = {}
    for session, name in asked(query):
        found.setdefault(session, []).append(name)
    return found


def mixed() -> dict[str, list[Result]]:
    """Sessions over midnight, and one whose model changes and changes back."""
    given = {session: [result(session, 45_000 + i * 1000) for i in range(30)] for session in SESSIONS}
    changing = [result("changing", 100 + i, model="driving" if i // 4 != 1 else "vitals/2") for i in range(12)]
    return given | {"changing": changing}


async def test_files_by_day_and_model_are_read_by_pyarrow_and_duckdb(settings: Settings, tmp_path: Path) -> None:
    given = mixed()
    publish(settings, flat(given))
    folder = tmp_path / "out"
    for _ in range(2):  # the second one has nothing to do
        async with sinking(filed(settings, folder), ParquetSink) as running:
            await running.reader.run(once=True)
    files = [path.relative_to(folder) for path in folder.rglob("*.parquet")]
    assert {str(path.parent) for path in files} == {
        "day=2025-06-15/model=driving",
        "day=2025-06-15/model=vitals%2F2",
        "day=2025-06-16/model=driving",
    }
    assert rows(folder) == ids(given)
    read = ds.dataset(folder, partitioning="hive", exclude_invalid_files=True).to_table()
    assert read.schema.field("embedding").type == parquet.SCHEMA.field("embedding").type
    one = next(row for row in read.to_pylist() if row["session"] == SESSIONS[0])
    assert (one["decision"], one["score"], one["embedding"]) == ("proceed", 0.9, [1.0, -2.0])
    assert dict(one["coverage"]) == {"image": 1.0, "audio": 0.0}
    assert int(one["end_time"].timestamp()) * S_US == given[SESSIONS[0]][0].end_us
    per_day = f"select day, count(*) from read_parquet('{folder}/**/*.parquet', hive_partitioning=true) group by day"
    assert sum(count for _, count in asked(per_day)) == 102


@pytest.mark.parametrize("when", ["before the file has its name", "before the cursors have moved", "between cursors"])
async def test_a_death_leaves_each_result_in_one_file(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    given = mixed()
    publish(settings, flat(given))
    options = filed(settings, tmp_path, parquet_rows=20)

    def die(*arguments: object) -> None:
        raise RuntimeError("killed")

    async with sinking(options, ParquetSink) as running:
        assert isinstance(running.sink, ParquetSink)
        moves = running.sink.given.cursors.move
        left = [1 if when == "between cursors" else 0]

        async def move(session: str, before: Cursor, after: Cursor) -> bool:
            left[0] -= 1
            if left[0] < 0:
                die()
            return await moves(session, before, after)

        with monkeypatch.context() as patched:
            if when == "before the file has its name":
                patched.setattr(os, "replace", die)
            else:
                patched.setattr(running.sink.given.cursors, "move", move)
            with pytest.raises(RuntimeError, match="killed"):
                await running.reader.run(once=True)
        running.sink._batches.clear()  # as a death would
    async with sinking(options, ParquetSink) as running:
        await running.reader.run(once=True)
    assert rows(tmp_path) == ids(given)
    assert [name for name in os.listdir(tmp_path) if name.endswith(".draft")] == []


async def test_a_second_sink_of_the_name_is_refused(settings: Settings, tmp_path: Path) -> None:
    async with sinking(filed(settings, tmp_path), ParquetSink):
        with pytest.raises(UsageError, match="another sink of the name out"):
            async with sinking(filed(settings, tmp_path), ParquetSink):
                pass


async def test_a_file_that_is_not_full_is_written_in_time(settings: Settings, tmp_path: Path) -> None:
    publish(settings, [result("car", 0)])
    async with sinking(filed(settings, tmp_path, parquet_every_ms=200), ParquetSink) as running:
        await running.reader.run(once=True)
        await asyncio.to_thread(wait_for, lambda: outcome(running.metrics, "sent") == 1, 30)
        assert rows(tmp_path) == {"car": [result("car", 0).id]}


# ---- all of them


async def test_what_was_trimmed_before_it_was_read_is_told_with_its_length(settings: Settings) -> None:
    publish(settings, [result("car", i) for i in range(3)])
    pages: list[Page] = []
    with Receiver() as receiver:
        async with sinking(hooked(settings, receiver), Webhook) as running:
            await running.reader.run(once=True)
            publish(settings, [result("car", i) for i in range(3, 10)], maxlen=4)
            take = running.sink.take

            async def noted(page: Page) -> Any:
                pages.append(page)
                return await take(page)

            running.reader._take = noted
            await running.reader.run(once=True)
        assert receiver.windows("car") == [result("car", i).id for i in (0, 1, 2, 6, 7, 8, 9)]
    assert [(bool(page.missed), page.missed_us) for page in pages] == [(True, 3 * S_US)]


async def test_a_forgotten_session_leaves_no_cursor(settings: Settings) -> None:
    keys = Keys(settings.key_prefix)
    publish(settings, [result("car", 0)])
    with Receiver() as receiver, redis.Redis.from_url(settings.redis) as client:
        client.hset(keys.sinks, "out", "2026-01-01T00:00:00Z")
        async with sinking(hooked(settings, receiver), Webhook) as running:
            await running.reader.run(once=True)
            assert client.exists(keys.sink("car", "out"))
            forget(client, keys, "car")
            assert list(client.scan_iter(f"{settings.key_prefix}:{{car}}:*")) == []


def test_the_command_passes_over_what_was_there_at_its_first_start_and_nothing_later(
    settings: Settings, tmp_path: Path
) -> None:
    publish(settings, [result("before", i) for i in range(3)])
    with Receiver() as receiver:
        env = environment(hooked(settings, receiver, sink_port=0))
        command = [sys.executable, "-m", "streamer", "sink", "webhook", "--name", "hook"]
        with Program(command, tmp_path / "sink.log", env, ROOT, "streamer sink") as program:
            wait_for(lambda: "waiting for results" in program.text(), 60, program.text)
            publish(settings, [result("before", 3)])
            wait_for(lambda: len(receiver.accepted) == 1, 30, program.text)
            program.kill()
            publish(settings, [result("while it was away", i) for i in range(3)])
            program.start()
            wait_for(lambda: len(receiver.accepted) == 4, 60, program.text)
            program.end()
            assert program.code == 0, program.text()
        assert receiver.windows("before") == [result("before", 3).id]
        with redis.Redis.from_url(settings.redis) as client:
            assert set(client.hgetall(Keys(settings.key_prefix).sinks)) == {b"hook"}
