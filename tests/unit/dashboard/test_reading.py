"""What reads for the page goes on when Kafka or Redis goes away, or when something fails that nobody foresaw."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import msgspec
import pytest
from kafka import TopicPartition
from kafka.errors import KafkaConnectionError
from redis.exceptions import ConnectionError as RedisDown

from streamer.clients import kafka as kafka_clients
from streamer.dashboard import alarms, faults, reading, speech
from streamer.dashboard import live as live_module
from streamer.dashboard.live import Client, Live
from streamer.errors import UsageError
from streamer.events import SPEECH_TYPE, TOPIC_DEADLETTER, TOPIC_SPEECH
from streamer.rules import alarms as kept
from streamer.settings import Settings
from streamer.speak.sentences import Utterance
from streamer.store import heartbeats
from streamer.store.heartbeats import Answering
from streamer.store.results import Keys

DOWN = KafkaConnectionError("no broker")
FAILURES = 3
WITHIN_S = 10.0


class MemoryConsumer:
    """As much of a consumer as the page's threads use: a step of it fails first, then it has one record."""

    def __init__(self, topic: str, record: Any) -> None:
        self.places = [TopicPartition(topic, 0)]
        self.records = [record]
        self.assigned: list[TopicPartition] = []
        self.sought: dict[TopicPartition, int] = {}
        self.fails: dict[str, list[Exception]] = {}
        self.closed = False

    def _perhaps_fail(self, step: str) -> None:
        if self.fails.get(step):
            raise self.fails[step].pop()

    def assignment(self) -> list[TopicPartition]:
        return self.assigned

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned = places

    def partitions_for_topic(self, topic: str) -> set[int]:
        self._perhaps_fail("partitions_for_topic")
        return {place.partition for place in self.places if place.topic == topic}

    def beginning_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        self._perhaps_fail("end_offsets")
        return dict.fromkeys(places, 5)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.sought[place] = offset

    def poll(self, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        self._perhaps_fail("poll")
        assert self.sought.keys() == set(self.assigned)  # else a consumer would begin at the end
        found, self.records = self.records, []
        return {self.places[0]: found} if found else {}

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(reading, "BACKOFF_S", 0.001)
    monkeypatch.setattr(live_module, "BACKOFF_S", 0.001)
    caplog.set_level(logging.INFO, reading.log.name)


def consume(consumer: MemoryConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_clients, "consumer", lambda settings: consumer)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == reading.log.name]


@pytest.mark.parametrize(
    ("step", "error"),
    [("partitions_for_topic", DOWN), ("end_offsets", DOWN), ("poll", DOWN), ("poll", KeyError("strange"))],
)
def test_speech_is_read_on_when_kafka_is_back(
    step: str, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"ce_type": SPEECH_TYPE, "ce_time": "2026-11-30T12:00:00Z", "ce_text": "stop", "ce_severity": "alarm"}
    record = SimpleNamespace(key=b"car", headers=[(k, v.encode()) for k, v in headers.items()], value=b"RIFF")
    settings = Settings.load()
    consumer = MemoryConsumer(settings.topic(TOPIC_SPEECH), record)
    consumer.fails[step] = [error] * FAILURES
    consume(consumer, monkeypatch)
    heard: list[str] = []
    come = threading.Event()

    def said_aloud(one: Utterance) -> None:
        heard.append(one.text)
        come.set()

    listener = speech.Listener(settings, speech.Spoken(), said_aloud)
    listener.start()
    assert come.wait(WITHIN_S)
    listener.close()
    assert (heard, consumer.closed) == (["stop"], True)
    begun, over = said(caplog)
    assert begun.startswith("what is said aloud cannot be read, trying again: ")
    assert over == "what is said aloud can be read again"
    assert bool(caplog.records[0].exc_info) is isinstance(error, KeyError)


@pytest.mark.parametrize("error", [DOWN, KeyError("strange")])
def test_late_records_and_dead_letters_are_counted_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings = Settings.load()
    record = SimpleNamespace(key=b"car", headers=[], timestamp=1000)
    consumer = MemoryConsumer(settings.topic(TOPIC_DEADLETTER), record)
    consume(consumer, monkeypatch)
    consumer.fails["poll"] = [error] * FAILURES
    told: list[faults.Faults] = []
    come = threading.Event()

    def seen(one: faults.Faults) -> None:
        told.append(one)
        come.set()

    watch = faults.Watch(settings, seen)
    watch.start()
    assert come.wait(WITHIN_S)
    watch.close()
    assert told[-1].dead == {"other": 1}
    assert len(said(caplog)) == 2


@pytest.mark.parametrize("error", [UsageError("Redis is away"), RedisDown("gone"), KeyError("strange")])
def test_alarms_that_cannot_be_read_are_told_as_such_and_read_on(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [error] * FAILURES

    @contextmanager
    def connected(settings: Settings) -> Iterator[tuple[Any, Keys]]:
        client = MagicMock()
        client.hgetall.return_value = {b"rules": b"1"}
        client.pubsub.return_value.__enter__.return_value.get_message.return_value = None
        yield client, Keys("streamer")

    def opened(*given: Any) -> list[Any]:
        if failures:
            raise failures.pop()
        return []

    monkeypatch.setattr(alarms, "connected", connected)
    monkeypatch.setattr(kept, "opened", opened)
    told: list[bool] = []
    back = threading.Event()

    def changed(shown: alarms.Shown) -> None:
        told.append(shown.readable)
        if shown.readable:
            back.set()

    watch = alarms.Watch(Settings.load(), changed)
    watch.start()
    assert back.wait(WITHIN_S)
    watch.close()
    assert told == [False, True]
    assert len(said(caplog)) == 2


async def told(client: Client, name: str, value: Any) -> dict[str, Any]:
    """The first news in which something has this value."""
    async with asyncio.timeout(WITHIN_S):
        while (news := msgspec.json.decode(await client.take(WITHIN_S) or b"{}")).get(name) != value:
            pass
    found: dict[str, Any] = news
    return found


@pytest.mark.parametrize("error", [RedisDown("gone"), KeyError("strange")])
async def test_results_are_followed_on_and_browsers_catch_up(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    failures = [error] * FAILURES

    class Channel:
        async def __aenter__(self) -> Channel:
            return self

        async def __aexit__(self, *what: object) -> None:
            pass

        async def subscribe(self, *names: str) -> None:
            if failures:
                raise failures.pop()

        async def get_message(self, **options: Any) -> None:
            await asyncio.sleep(0.001)

    memory: Any = SimpleNamespace(pubsub=Channel)
    live = Live(memory, Keys("streamer"), dict)
    client = live.join(None)
    assert client is not None
    follow = asyncio.create_task(live.follow())
    assert "gap" not in await told(client, "redis", False)
    assert (await told(client, "redis", True))["gap"] is True
    follow.cancel()
    await asyncio.wait([follow])
    assert len(said(caplog)) == 2


async def test_workers_are_watched_on(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(live_module, "WORKERS_EVERY_S", 0.001)
    failures: list[Exception] = [KeyError("strange")] * FAILURES
    gone = Answering(False)

    async def read(*given: Any) -> Answering:
        if failures:
            raise failures.pop()
        return gone

    monkeypatch.setattr(heartbeats, "read", read)
    live = Live(MagicMock(), Keys("streamer"), dict)
    client = live.join(None)
    assert client is not None
    watch = asyncio.create_task(live.watch_workers())
    await told(client, "workers", msgspec.to_builtins(gone))
    watch.cancel()
    await asyncio.wait([watch])
    assert len(said(caplog)) == 2
