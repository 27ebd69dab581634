"""Workers with roles, on a real Kafka and a real Redis: what comes of a log is what role all makes of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import KafkaAdminClient

from streamer.broker import topics as topic_admin
from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, KIND_NAMES, TOPIC_DEADLETTER, TOPIC_WINDOWS
from streamer.settings import Settings
from streamer.store import results as stored
from tests.harness import (
    S_US,
    Outgoing,
    WorkerProcess,
    end,
    own_settings,
    read_topic,
    record,
    results,
    running_worker,
    second,
    send,
    wait_for,
)

pytestmark = pytest.mark.integration

SECONDS = 5
SESSIONS = ["car-a", "car-b", "räume/7"]
Found = dict[str, list[dict[str, Any]]]


def other(settings: Settings, name: str, **changes: Any) -> Settings:
    """The same topics for another group and other keys."""
    given = {"group": f"{settings.group}-{name}", "key_prefix": f"{settings.key_prefix}-{name}"}
    return settings.model_copy(update={**given, **changes})


def quoted(session: str) -> str:
    return session.replace("ä", "%C3%A4").replace("/", "%2F")


def found(settings: Settings, sessions: list[str]) -> Found:
    return {session: results(settings.redis, settings, quoted(session)) for session in sessions}


def settled(settings: Settings, count: int, sessions: list[str] = SESSIONS) -> Found:
    def there() -> list[int]:
        return [len(windows) for windows in found(settings, sessions).values()]

    wait_for(lambda: there() == [count] * len(sessions), 60, lambda: f"{there()} results, not {count} each")
    return found(settings, sessions)


def same(mine: Found, theirs: Found) -> None:
    """Windows, members, presence, reasons to the letter; scores and embeddings up to the order of sums."""
    assert mine.keys() == theirs.keys()
    for session in mine:
        assert len(mine[session]) == len(theirs[session])
        for left, right in zip(mine[session], theirs[session], strict=True):
            for name in ("id", "start_us", "closed_by", "present", "status", "version"):
                assert left[name] == right[name], (left["id"], name)
            for name in ("members", "coverage"):
                assert json.loads(left[name]) == json.loads(right[name]), (left["id"], name)
            scores = [
                {head: out["scores"] for head, out in json.loads(side["outputs"]).items()} for side in (left, right)
            ]
            assert scores[0].keys() == scores[1].keys()
            for head, labels in scores[0].items():
                # Published with four digits: 1e-5 apart may round to neighbours.
                assert labels == pytest.approx(scores[1][head], abs=1.1e-4), (left["id"], head)
            embeddings = [np.frombuffer(side["embedding"], "<f2").astype(float) for side in (left, right)]
            assert np.abs(embeddings[0] - embeddings[1]).max() <= 2**-10


def drives(settings: Settings, start_us: int) -> list[Outgoing]:
    sent = [
        record_
        for i in range(SECONDS)
        for session in SESSIONS
        for record_ in second(settings, session, start_us + i * S_US, frames=8)
    ]
    return sent + [end(settings, session, start_us + SECONDS * S_US) for session in SESSIONS]


def aligned_now(seconds: int) -> int:
    return int(time.time()) * S_US - seconds * S_US


@pytest.fixture
def hopping(kafka: str, redis_url: str, model_folder: Path) -> Settings:
    """Windows that overlap by half."""
    settings = own_settings(kafka, redis_url, model_folder, max_delay_ms=3000).model_copy(update={"hop_ms": 500})
    topic_admin.create(settings)
    return settings


@contextmanager
def both(settings: Settings, folder: Path, **of_align: Any) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """A worker of either role, started together."""
    with (
        WorkerProcess(settings, folder / f"{settings.group}-align.log", role="align", **of_align) as align,
        running_worker(settings, folder / f"{settings.group}-infer.log", role="infer") as infer,
    ):
        wait_for(lambda: align.get("/healthz")[0] == 200, 60)
        yield align, infer


def test_results_of_roles_are_those_of_role_all(hopping: Settings, tmp_path: Path) -> None:
    """Overlapping windows, a broken frame that its neighbour stands in for, and sound that does not decode.

    Once more with windows that are too large for their records: 40 kB, where a second of sound alone has 32.
    """
    start_us = aligned_now(SECONDS + 2)
    sent = drives(hopping, start_us)
    frames = [i for i, r in enumerate(sent) if r.topic == hopping.source_topics[IMAGE] and r.key == b"car-a"]
    for i in frames[3:6]:
        sent[i] = sent[i]._replace(value=b"this is no picture")
    broken = record(hopping, AUDIO, "car-b", start_us + S_US, b"this is no sound", "audio/flac")
    sent.insert(len(sent) // 2, broken._replace(headers=[*broken.headers, ("ce_durationus", b"100000")]))
    send(hopping, sent)
    whole, split, bare = (other(hopping, name) for name in ("all", "split", "bare"))
    count = 2 * SECONDS + 1
    with running_worker(whole, tmp_path / "all.log") as worker:
        theirs = settled(whole, count)
        worker.stop()
    letters = origins(hopping)
    with both(split, tmp_path) as (align, infer):
        same(settled(split, count), theirs)
        assert infer.metric("streamer_results_total", status="ok") == len(SESSIONS) * count
        assert align.metric("streamer_window_records_total", outcome="whole") == len(SESSIONS) * count
        assert 0 < infer.metric("streamer_refetched_windows_total") < count
        assert (align.metric("streamer_role", role="align"), infer.metric("streamer_role", role="infer")) == (1, 1)
        assert align.stop() < 5.0
        assert infer.stop() < 5.0
    assert Counter(origins(hopping)) == Counter(2 * letters)
    carried = [msgspec.msgpack.decode(r.value) for r in read_topic(hopping, hopping.topic(TOPIC_WINDOWS))]
    values = [["value" in member for member in window["members"]["image"]] for window in carried]
    assert all(sum(flags) < len(flags) for flags in values)  # 8 frames a window, fewer than that are asked for
    empty_windows_topic(hopping)  # what lies there would serve the other group, too
    with both(bare, tmp_path, max_message_bytes=40_000) as (align, infer):
        same(settled(bare, count), theirs)
        assert align.metric("streamer_window_records_total", outcome="bare") >= len(SESSIONS) * (count - 2)
        assert infer.metric("streamer_refetched_windows_total") >= len(SESSIONS) * (count - 2)


def empty_windows_topic(settings: Settings) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka)
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False)
    try:
        topic = settings.topic(TOPIC_WINDOWS)
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        admin.delete_records(consumer.end_offsets(partitions))
    finally:
        consumer.close()
        admin.close()
    assert read_topic(settings, topic) == []


def origins(settings: Settings) -> list[tuple[bytes, bytes]]:
    """Where each dead letter comes from, and why."""
    letters = [dict(r.headers) for r in read_topic(settings, settings.topic(TOPIC_DEADLETTER))]
    return [(letter["deadletter_origin"], letter["deadletter_reason"]) for letter in letters]


def test_windows_that_are_on_the_topic_twice_or_are_none_do_no_harm(topics: Settings, tmp_path: Path) -> None:
    start_us = aligned_now(SECONDS + 2)
    send(topics, drives(topics, start_us))
    windows = topics.topic(TOPIC_WINDOWS)
    with running_worker(topics, tmp_path / "align.log", role="align") as align:
        wait_for(lambda: len(read_topic(topics, windows)) == len(SESSIONS) * SECONDS, 60)
        align.stop()
    there = read_topic(topics, windows)
    again = [Outgoing(windows, r.key, r.value, list(r.headers)) for r in there[:4]]
    junk = Outgoing(windows, b"car-a", b"\xc1 no window", list(there[0].headers))
    send(topics, [*again, junk])
    with running_worker(topics, tmp_path / "infer.log", role="infer") as infer:
        mine = settled(topics, SECONDS)
        wait_for(lambda: len(origins(topics)) == 1, 30)
        wait_for(lambda: infer.metric("streamer_window_records_total", outcome="repeated") == 4, 30)
        infer.stop()
    assert [int(r["end_us"]) for r in mine["car-a"]] == [start_us + (i + 1) * S_US for i in range(SECONDS)]
    ((origin, reason),) = origins(topics)
    assert origin.startswith(windows.encode())
    assert reason == b"bad_payload"
    assert committed_windows(topics) == len(there) + len(again) + 1
    with stored.connected(topics) as (client, keys):
        assert client.exists(keys.emitted("car-a"), keys.emitted_closings("car-a")) == 2
        stored.forget(client, keys, "car-a")
        assert client.exists(keys.emitted("car-a"), keys.emitted_closings("car-a")) == 0


def committed_windows(settings: Settings) -> int:
    """Records of the windows topic that are done."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka, group_id=f"{settings.group}-infer", enable_auto_commit=False
    )
    try:
        topic = settings.topic(TOPIC_WINDOWS)
        return sum(
            consumer.committed(TopicPartition(topic, p)) or 0 for p in consumer.partitions_for_topic(topic) or ()
        )
    finally:
        consumer.close()


@pytest.fixture
def patient(kafka: str, redis_url: str, model_folder: Path) -> Settings:
    """Silence says nothing: a worker takes its time to start, and the drive goes on when it has."""
    settings = own_settings(kafka, redis_url, model_folder, max_delay_ms=3000)
    waits = {"max_delay_ms": 3000, "idle_after_ms": None}
    settings = Settings.load(
        **{
            **settings.model_dump(exclude_unset=True),
            "sensors": dict.fromkeys(KIND_NAMES, waits),
            "session_gap_ms": 600_000,
        }
    )
    topic_admin.create(settings)
    return settings


def test_from_role_all_to_roles_and_back_in_the_middle_of_a_drive(patient: Settings, tmp_path: Path) -> None:
    """Each goes on where the other was; role all refuses while windows are on their way."""
    topics = patient
    start_us = aligned_now(3 * SECONDS + 2)
    sent = [second(topics, "car", start_us + i * S_US) for i in range(3 * SECONDS)]
    part = [[r for batch in sent[i * SECONDS : (i + 1) * SECONDS] for r in batch] for i in range(3)]
    count: Callable[[], int] = lambda: len(results(topics.redis, topics, "car"))  # noqa: E731
    with running_worker(topics, tmp_path / "first.log") as worker:
        send(topics, part[0])
        wait_for(lambda: count() >= SECONDS - 1, 60)
        worker.stop()
    with running_worker(topics, tmp_path / "align.log", role="align") as align:
        send(topics, part[1])
        wait_for(lambda: len(read_topic(topics, topics.topic(TOPIC_WINDOWS))) >= SECONDS, 60)
        align.stop()
    with WorkerProcess(topics, tmp_path / "refused.log") as refused:
        wait_for(lambda: refused.code == 1, 60)
    said = (tmp_path / "refused.log").read_text()
    assert "role align has closed are not published yet: run role infer" in said
    assert "streamer: windows of session car" in said.splitlines()[-1]
    with running_worker(topics, tmp_path / "infer.log", role="infer") as infer:
        wait_for(lambda: count() >= 2 * SECONDS - 1, 60)
        infer.stop()
    with running_worker(topics, tmp_path / "last.log") as worker:
        send(topics, [*part[2], end(topics, "car", start_us + 3 * SECONDS * S_US)])
        wait_for(lambda: count() >= 3 * SECONDS, 60)
        assert worker.metric("streamer_events_total", outcome="late") == 0
        worker.stop()
    mine = results(topics.redis, topics, "car")
    assert [int(r["end_us"]) for r in mine] == [start_us + (i + 1) * S_US for i in range(3 * SECONDS)]
    assert {r["present"] for r in mine} == {b"image,audio,text,telemetry"}
    assert [members(r) for r in mine] == [6] * len(mine)


def members(result: dict[str, bytes]) -> int:
    return sum(last - first + 1 for spans in json.loads(result["members"]).values() for first, last in spans)


def test_a_windows_topic_with_other_partitions_is_refused_where_it_is_used(topics: Settings) -> None:
    admin = KafkaAdminClient(bootstrap_servers=topics.kafka)
    try:
        admin.create_partitions({topics.topic(TOPIC_WINDOWS): 4})
    finally:
        admin.close()
    for role in ("align", "infer"):
        wait_for(partial(refuses, topics, role), 20)
    assert refusal(topics, "all") == ""


def refuses(settings: Settings, role: str) -> bool:
    return "4 partitions, the source topics 3" in refusal(settings, role)


def refusal(settings: Settings, role: str) -> str:
    try:
        topic_admin.check(settings.model_copy(update={"role": role}))
    except UsageError as error:
        return str(error)
    return ""
