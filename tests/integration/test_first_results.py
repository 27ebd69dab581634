"""A window that waits for words has a first result, on a real Kafka and a real Redis, by a worker or by two roles."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from streamer.events import IMAGE, TEXT
from streamer.settings import Settings
from streamer.store.results import Keys
from tests.harness import S_US, jpeg, record, results, running_worker, second, send

pytestmark = pytest.mark.integration

WITHIN_S = 20.0
WORDS_DELAY_MS = 60_000  # longer than anything here takes: what comes meanwhile has not waited


def told(channel: redis.client.PubSub) -> dict[str, Any]:
    """The next result on the channel."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        message = channel.get_message(ignore_subscribe_messages=True, timeout=1.0)
        if message is not None:
            found: dict[str, Any] = json.loads(message["data"])
            return found
    raise AssertionError("no result")


@pytest.mark.parametrize("roles", [("all",), ("align", "infer")])
def test_late_words_are_not_waited_for_by_the_first_result(
    topics: Settings, roles: tuple[str, ...], tmp_path: Path
) -> None:
    text = topics.sensors["text"].model_copy(update={"max_delay_ms": WORDS_DELAY_MS})
    topics = topics.model_copy(update={"sensors": {**topics.sensors, "text": text}})
    keys = Keys(topics.key_prefix)
    with ExitStack() as stack:
        workers = [stack.enter_context(running_worker(topics, tmp_path / f"{role}.log", role=role)) for role in roles]
        client = stack.enter_context(redis.Redis.from_url(topics.redis))
        channel = stack.enter_context(client.pubsub())
        channel.subscribe(keys.channel)
        start_us = (int(time.time()) - 1) * S_US
        border, after = (record(topics, IMAGE, "car", at, jpeg(), "image/jpeg") for at in (start_us, start_us + S_US))
        send(topics, [*second(topics, "car", start_us - S_US), border])
        while not (before := told(channel))["final"]:  # it may have waited for a slow producer
            pass
        assert (before["final"], before["end_us"]) == (True, start_us)
        everything = [*second(topics, "car", start_us)[1:], after]
        (words,) = (one for one in everything if one.topic == topics.source_topics[TEXT])
        send(topics, [one for one in everything if one not in (words, after)])
        sent_s = time.monotonic()
        send(topics, [after])  # it is due, and waits for words
        first = told(channel)
        first_s = time.monotonic() - sent_s
        assert (first["final"], first["closed_by"], first["end_us"]) == (False, "open", start_us + S_US)
        assert first["outputs"]
        assert words.topic not in first["members"]
        assert first_s >= topics.early_ms / 1000
        assert client.hget(keys.latest("car"), "final") == b"false"
        assert client.xlen(keys.results("car")) == 1

        send(topics, [words])
        final = told(channel)
        assert (final["final"], final["closed_by"], final["end_us"]) == (True, "complete", start_us + S_US)
        assert final["members"].keys() == set(topics.source_topics)
        assert first["members"].keys() < final["members"].keys()  # on a busy machine more than words may be late
        assert client.hget(keys.latest("car"), "final") == b"true"
        published = [(int(one["end_us"]), one["final"]) for one in results(topics.redis, topics, "car")]
        assert published == [(start_us, b"true"), (start_us + S_US, b"true")]
        last = workers[-1]
        assert last.metric("streamer_early_runs_total", outcome="again") >= 1
        assert last.metric("streamer_first_result_seconds_count") == 2
        assert last.metric("streamer_first_result_seconds_sum") < WORDS_DELAY_MS / 1000
