"""Transactions, compaction and deleted records: what is read of a log that has gaps, held to the oracle."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from streamer.clients import kafka as kafka_clients
from streamer.events import IMAGE, TEXT
from streamer.golden import record as recorder
from streamer.golden import recording, verify
from streamer.local.worker import WorkerProcess
from streamer.settings import Settings
from streamer.store import results as stored
from tests.faults import verifier
from tests.faults.rig import wait_until_committed
from tests.harness import S_US, Outgoing, end, record, results, running_worker, second, send, wait_for

pytestmark = pytest.mark.integration

SECONDS = 4
HELD_S = 5.0  # longer than the watchdog's patience in these tests
STALL_MS = 2000


@contextmanager
def transactions(settings: Settings, name: str = "recogniser") -> Iterator[KafkaProducer]:
    """A producer with transactions; use a name again only after its block has ended."""
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka, transactional_id=f"{settings.topic_prefix}-{name}", acks="all"
    )
    producer.init_transactions()
    try:
        yield producer
    finally:
        producer.close()


def put(producer: KafkaProducer, records: list[Outgoing]) -> None:
    """Send inside a transaction, and wait until the broker has it."""
    sent = [producer.send(r.topic, key=r.key, value=r.value, headers=r.headers) for r in records]
    producer.flush(timeout=30)
    for future in sent:
        future.get(timeout=30)


def said(settings: Settings, session: str, start_us: int, words: str) -> Outgoing:
    speech = json.dumps({"text": words, "start": 0.0, "end": 1.0}).encode()
    return record(settings, TEXT, session, start_us, speech, "application/json")


def wordless(settings: Settings, session: str, start_us: int) -> list[Outgoing]:
    return [r for r in second(settings, session, start_us) if r.topic != settings.source_topics[TEXT]]


def transcripts(settings: Settings, session: str) -> list[int]:
    """Offsets of the transcripts in each window of a session."""
    topic = settings.source_topics[TEXT]
    found = [json.loads(r["members"]).get(topic, []) for r in results(settings.redis, settings, session)]
    return [first for ranges in found for first, _ in ranges]


def held_to_the_oracle(settings: Settings) -> verifier.Summary:
    """Everything is committed, and the windows are those of the committed records."""
    wait_until_committed(settings, 60.0)
    return verifier.verify(verifier.read(settings), verifier.Rules.of(settings))


def start_of(seconds: int) -> int:
    return (int(time.time()) - seconds) * S_US


def test_words_of_an_aborted_transaction_are_never_said(topics: Settings, tmp_path: Path) -> None:
    start_us = start_of(SECONDS)
    with running_worker(topics, tmp_path / "worker.log") as worker, transactions(topics) as producer:
        for number in range(SECONDS):
            at_us = start_us + number * S_US
            send(topics, wordless(topics, "car", at_us))
            producer.begin_transaction()
            put(producer, [said(topics, "car", at_us, "turn left")])
            producer.abort_transaction()
            producer.begin_transaction()
            put(producer, [said(topics, "car", at_us, "stop here")])
            producer.commit_transaction()
        send(topics, [end(topics, "car", start_us + SECONDS * S_US)])
        wait_for(lambda: len(results(topics.redis, topics, "car")) == SECONDS, 30.0, worker.text)
        # Each transaction is a transcript and its marker: the committed ones are at 2, 6, 10, 14 of 0 … 15.
        assert transcripts(topics, "car") == [2, 6, 10, 14]
        summary = held_to_the_oracle(topics)
        assert summary.late == 0
        wait_for(lambda: worker.metric("streamer_consumer_lag_records") == 0, 10.0)


@pytest.mark.parametrize("ends", ["commit", "abort"])
def test_an_open_transaction_holds_its_partition_as_long_as_it_is_open(
    topics: Settings, tmp_path: Path, ends: str
) -> None:
    start_us = start_of(SECONDS)
    with (
        running_worker(topics, tmp_path / "worker.log", stall_after_ms=STALL_MS) as worker,
        transactions(topics) as producer,
    ):
        producer.begin_transaction()
        put(producer, [said(topics, "car", start_us + i * S_US, "stop here") for i in range(SECONDS)])
        for number in range(SECONDS):
            send(topics, wordless(topics, "car", start_us + number * S_US))
        send(topics, [end(topics, "car", start_us + SECONDS * S_US)])
        began_s = time.monotonic()
        wait_for(lambda: "an open transaction holds" in worker.get("/readyz")[1], 30.0, worker.text)
        while time.monotonic() - began_s < HELD_S:
            assert results(topics.redis, topics, "car") == [], "a window closed before its words were decided"
            assert worker.code is None, worker.text()
            time.sleep(0.2)
        assert worker.get("/readyz")[0] == 200
        if ends == "commit":
            producer.commit_transaction()
        else:
            producer.abort_transaction()
        wait_for(lambda: len(results(topics.redis, topics, "car")) == SECONDS, 30.0, worker.text)
        assert transcripts(topics, "car") == ([0, 1, 2, 3] if ends == "commit" else [])
        summary = held_to_the_oracle(topics)
        assert summary.late == 0
        assert sum(summary.windows.values()) == SECONDS
        wait_for(lambda: worker.metric("streamer_consumer_lag_records") == 0, 10.0)
        assert worker.metric("streamer_merge_order_violations_total") == 0


def test_a_replay_of_a_log_with_transactions_is_as_the_live_run_was(topics: Settings, tmp_path: Path) -> None:
    start_us = start_of(2 * SECONDS)
    with running_worker(topics, tmp_path / "worker.log") as worker, transactions(topics) as producer:
        for number in range(2 * SECONDS):
            at_us = start_us + number * S_US
            producer.begin_transaction()
            put(producer, [said(topics, "car", at_us, "stop here")])
            send(topics, wordless(topics, "car", at_us))
            if number % 2:
                producer.abort_transaction()
            else:
                producer.commit_transaction()
            if number == SECONDS:
                worker.kill()
                worker.restart()
        send(topics, [end(topics, "car", start_us + 2 * SECONDS * S_US)])
        wait_for(lambda: len(results(topics.redis, topics, "car")) == 2 * SECONDS, 60.0, worker.text)
        held_to_the_oracle(topics)
        producer.begin_transaction()  # stays open: the recording is complete up to its first record only
        put(producer, [said(topics, "car", start_us + 3 * SECONDS * S_US, "who knows")])
        time.sleep(2 * topics.merge_slack_ms / 1000)  # a recording ends that far before its last look at the log
        path = tmp_path / "log.mcap"
        outcome = recorder.record(topics, path, recorder.Stretch(since_us=0))
        producer.abort_transaction()
    texts = [r.offset for r in recording.read(path) if r.row == TEXT]
    assert texts == [0, 4, 8, 12]  # of the transactions that were committed; each is followed by its marker
    assert outcome.undecided_us == recording.describe(path).end_us
    with stored.connected(topics) as (client, keys):
        report = verify.run(topics, path, verify.RedisReference(client, keys), tolerance=1e-3)
    assert report.differences == []
    assert report.summary.same == report.summary.compared == 2 * SECONDS


def ends(settings: Settings) -> dict[TopicPartition, int]:
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka)
    try:
        places = [TopicPartition(t, p) for t in settings.source_topics for p in range(settings.partitions)]
        found: dict[TopicPartition, int] = consumer.end_offsets(places)
        return found
    finally:
        consumer.close()


def test_deleted_records_hold_nothing_while_they_are_read(topics: Settings, tmp_path: Path) -> None:
    """Frames wait behind an open transaction of another topic, in the worker and, most of them, in Kafka."""
    small = {"fifo_bytes": 64 << 10, "stall_after_ms": 20_000}
    start_us = start_of(2 * SECONDS)
    frames = topics.source_topics[IMAGE]
    with running_worker(topics, tmp_path / "worker.log", **small) as worker, transactions(topics) as producer:
        producer.begin_transaction()
        put(producer, [said(topics, "car", start_us, "stop here")])
        for number in range(2 * SECONDS):
            send(topics, [r for r in second(topics, "car", start_us + number * S_US, frames=200) if r.topic == frames])
        wait_for(lambda: worker.metric("streamer_buffer_bytes", place="merge") > 64 << 10, 30.0, worker.text)
        with kafka_clients.admin(topics, 10_000) as admin:
            admin.delete_records({tp: at for tp, at in ends(topics).items() if tp.topic == frames and at})
        producer.commit_transaction()
        later_us = start_us + 3 * SECONDS * S_US
        send(topics, [end(topics, "car", later_us)])
        send(topics, second(topics, "later", start_us))
        send(topics, [end(topics, "later", later_us)])
        wait_for(lambda: len(results(topics.redis, topics, "later")) == 1, 60.0, worker.text)
        wait_until_committed(topics, 60.0, worker.text)  # the sessions may be in different partitions
        assert 0 < len(results(topics.redis, topics, "car")) < 2 * SECONDS
        assert f"{frames} " in worker.text()
        assert "Kafka has deleted records from offset" in worker.text()
        wait_for(lambda: worker.metric("streamer_consumer_lag_records") == 0, 10.0)


def compact(settings: Settings) -> None:
    """Have Kafka compact the source topics as soon as it can; each batch that is sent begins a new segment."""
    wanted = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.0",
        "max.compaction.lag.ms": "1",
    }
    with kafka_clients.admin(settings, 10_000) as admin:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, t, wanted) for t in settings.source_topics])


def offsets(settings: Settings, row: int) -> list[int]:
    return sorted(r.offset for r in verifier.read(settings).sources if r.row == row)


def test_a_compacted_log_is_read_past_its_gaps(topics: Settings, tmp_path: Path) -> None:
    compact(topics)
    start_us = start_of(SECONDS)
    with transactions(topics) as producer:
        for number in range(SECONDS):
            send(topics, wordless(topics, "car", start_us + number * S_US))
            producer.begin_transaction()
            put(producer, [said(topics, "car", start_us + number * S_US, "stop here")])
            producer.commit_transaction()
            time.sleep(0.2)
        send(topics, [end(topics, "car", start_us + SECONDS * S_US)])
        before = offsets(topics, IMAGE)
        # Kafka's cleaner looks every 15 s; it keeps the newest record of a key, and the segment that is written to.
        wait_for(lambda: len(offsets(topics, IMAGE)) < len(before), 60.0)
        wait_for(lambda: len(offsets(topics, TEXT)) < SECONDS, 60.0)
    with running_worker(topics, tmp_path / "worker.log") as worker:
        wait_for(lambda: len(results(topics.redis, topics, "car")) >= 1, 30.0, worker.text)
        summary = held_to_the_oracle(topics)
        assert summary.records < 5 * SECONDS
        wait_for(lambda: worker.metric("streamer_consumer_lag_records") == 0, 10.0)


def test_workers_that_are_killed_lose_nothing_of_transactions(topics: Settings, tmp_path: Path) -> None:
    """An owner that restarts while a transaction is open finds it open again."""
    start_us = start_of(SECONDS)
    worker: WorkerProcess
    with running_worker(topics, tmp_path / "worker.log") as worker, transactions(topics) as producer:
        send(topics, wordless(topics, "car", start_us))
        producer.begin_transaction()
        put(producer, [said(topics, "car", start_us, "stop here")])
        for number in range(1, SECONDS):
            send(topics, second(topics, "car", start_us + number * S_US))
        worker.kill()
        worker.restart()
        producer.commit_transaction()
        send(topics, [end(topics, "car", start_us + SECONDS * S_US)])
        wait_for(lambda: len(results(topics.redis, topics, "car")) == SECONDS, 60.0, worker.text)
        summary = held_to_the_oracle(topics)
        assert summary.late == 0
