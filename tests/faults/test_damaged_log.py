"""Batches that lie damaged in a broker's log: everything around them is read, and each is a dead letter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from struct import unpack_from

import pytest
from kafka import KafkaProducer

from streamer.align.decode import home_partition
from streamer.broker import deadletters
from streamer.broker import topics as topic_admin
from streamer.events import AUDIO, IMAGE, TELEMETRY
from streamer.golden import record, verify
from streamer.local.stack import Stack
from streamer.store import results as stored
from tests.broker import as_stored
from tests.faults import rig
from tests.harness import S_US, end, own_settings, results, running_worker, second, wait_for
from tests.integration.test_worker import aligned_now

pytestmark = [pytest.mark.integration, pytest.mark.faults]

SESSION = "car"
SECONDS = 4
HEADER_BYTES = 61

Damage = Callable[[bytes], bytes]


def spoilt(batch: bytes) -> bytes:
    """Other compressed bytes, with the checksum that belongs to them."""
    return as_stored(batch, HEADER_BYTES, b"\xee" * (len(batch) - HEADER_BYTES))


def of_unknown_codec(batch: bytes) -> bytes:
    return as_stored(batch, 22, bytes([batch[22] & ~7 | 5]))


def rotten(batch: bytes) -> bytes:
    """A byte that the checksum does not belong to."""
    return batch[:-1] + bytes([batch[-1] ^ 1])


DAMAGES: dict[int, tuple[Damage, str]] = {
    IMAGE: (spoilt, "lz4: "),
    AUDIO: (of_unknown_codec, "codec 5 is unknown"),
    TELEMETRY: (rotten, "its checksum is wrong"),
}


def damage(log: Path, number: int, how: Damage) -> tuple[int, int]:
    """Change a batch of a log in place; returns its first and last offset."""
    stored_bytes = log.read_bytes()
    at = 0
    for _ in range(number):
        at += 12 + unpack_from(">i", stored_bytes, at + 8)[0]
    length = 12 + unpack_from(">i", stored_bytes, at + 8)[0]
    changed = how(stored_bytes[at : at + length])
    assert len(changed) == length
    log.write_bytes(stored_bytes[:at] + changed + stored_bytes[at + length :])
    first_offset, last_delta = unpack_from(">q", changed)[0], unpack_from(">i", changed, 23)[0]
    return first_offset, first_offset + last_delta


def test_damaged_batches_are_set_aside_and_all_around_them_is_processed(
    healthy: Stack, model_folder: Path, tmp_path: Path
) -> None:
    settings = own_settings(healthy.kafka_address, healthy.redis_url, model_folder, max_delay_ms=3000)
    topic_admin.create(settings)
    start_us = aligned_now(SECONDS + 2)
    producer = KafkaProducer(bootstrap_servers=settings.kafka, compression_type="lz4", linger_ms=50, batch_size=1 << 20)
    for number in range(SECONDS):  # so each second of a topic is one batch
        for sent in second(settings, SESSION, start_us + number * S_US):
            producer.send(sent.topic, key=sent.key, value=sent.value, headers=sent.headers)
        producer.flush(timeout=30)
    last = end(settings, SESSION, start_us + SECONDS * S_US)
    producer.send(last.topic, key=last.key, value=last.value, headers=last.headers)
    producer.close()
    healthy.kafka.stop()
    partition = home_partition(SESSION.encode(), settings.partitions)
    offsets = {
        row: damage(
            healthy.directory / "kafka-data" / f"{settings.source_topics[row]}-{partition}" / f"{0:020}.log", 1, how
        )
        for row, (how, _) in DAMAGES.items()
    }
    healthy.start_kafka()
    with running_worker(settings, tmp_path / "worker.log") as worker:
        wait_for(lambda: len(results(settings.redis, settings, SESSION)) == SECONDS, 60, worker.text)
        rig.wait_until_committed(settings, within_s=30, why=worker.text)
        assert worker.metric("streamer_dead_letters_total", reason="unreadable_batch") == len(DAMAGES)
        worker.stop()
    whole = b"image,audio,text,telemetry"
    found = results(settings.redis, settings, SESSION)
    assert [one["present"] for one in found] == [whole, b"text", whole, whole]
    letters = {letter.topic: letter for letter in deadletters.read(settings)}
    for row, (_, detail) in DAMAGES.items():
        letter = letters.pop(settings.source_topics[row])
        assert (letter.reason, letter.partition) == ("unreadable_batch", partition)
        assert (letter.first_offset, letter.offset) == offsets[row]
        assert letter.detail.startswith(detail)
        assert letter.size_bytes > HEADER_BYTES
    assert letters == {}
    record.record(settings, tmp_path / "all.mcap", record.Stretch(since_us=0))
    with stored.connected(settings) as (client, keys):
        report = verify.run(settings, tmp_path / "all.mcap", verify.RedisReference(client, keys), tolerance=1e-3)
    assert report.differences == [], [str(line) for line in report.differences]
    assert report.summary.refused == {"unreadable_batch": len(DAMAGES)}
    assert report.summary.same == SECONDS
