"""The worker as a process, on a real Kafka and a real Redis."""

from __future__ import annotations

import random
import struct
import threading
import time
import zlib
from collections import Counter
from pathlib import Path

import pytest

from streamer.errors import Reason, Stop
from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT, TOPIC_DEADLETTER, TOPIC_LATE
from streamer.local.worker import WorkerProcess
from streamer.settings import Settings
from tests.harness import S_US, Outgoing, end, jpeg, read_topic, record, results, running_worker, second, send, wait_for

pytestmark = pytest.mark.integration

SECONDS = 5


def aligned_now(seconds: int) -> int:
    """A window border that lies this far in the past."""
    return int(time.time()) * S_US - seconds * S_US


def feed(settings: Settings, session: str, start_us: int, seconds: int = SECONDS) -> list[list[Outgoing]]:
    return [second(settings, session, start_us + i * S_US) for i in range(seconds)]


def send_paced(settings: Settings, batches: list[list[Outgoing]], every_s: float = 0.0) -> None:
    """Each batch is in the log before the next one is sent, as in a live feed."""
    for batch in batches:
        began_s = time.monotonic()
        send(settings, batch)
        time.sleep(max(0.0, every_s - (time.monotonic() - began_s)))


def wait_for_results(settings: Settings, session: str, count: int, within_s: float = 30.0) -> None:
    wait_for(
        lambda: len(results(settings.redis, settings, session)) >= count,
        within_s,
        lambda: f"{session} has {len(results(settings.redis, settings, session))} results, not {count}",
    )


def test_windows_of_all_sessions_are_published_in_order_with_all_modalities(topics: Settings, tmp_path: Path) -> None:
    start_us = aligned_now(SECONDS + 2)
    with running_worker(topics, tmp_path / "worker.log") as worker:
        sessions = ["car-a", "car-b", "räume/7"]
        for step in zip(*(feed(topics, s, start_us) for s in sessions), strict=True):
            send(topics, [r for batch in step for r in batch])
        send(topics, [end(topics, s, start_us + SECONDS * S_US) for s in sessions])
        for session in ("car-a", "car-b", "r%C3%A4ume%2F7"):
            wait_for_results(topics, session, SECONDS)
            found = results(topics.redis, topics, session)
            assert [int(r["end_us"]) for r in found] == [start_us + (i + 1) * S_US for i in range(SECONDS)]
            assert {r["present"] for r in found} == {b"image,audio,text,telemetry"}
            assert {r["status"] for r in found} == {b"ok"}
        assert worker.metric("streamer_results_total", status="ok") == 3 * SECONDS
        assert worker.metric("streamer_events_total", outcome="late") == 0
        assert worker.get("/healthz")[0] == 200
        assert worker.stop() < 5.0


def malformed(settings: Settings, session: str, at_us: int, count: int) -> list[tuple[str, Outgoing]]:
    """Records that must be refused, with the reason, of every kind in turn."""
    good = record(settings, IMAGE, session, at_us, jpeg(), "image/jpeg")
    speech = record(settings, TEXT, session, at_us, b'{"text": "hm", "end": 0.5}', "application/json")
    sound = record(settings, AUDIO, session, at_us, b"\0" * 640, "audio/L16;rate=16000")
    block = record(settings, TELEMETRY, session, at_us, b'{"channels": {}, "rate_hz": 1}', "application/json")

    def header(base: Outgoing, name: str, value: bytes | None) -> Outgoing:
        rest = [(k, v) for k, v in base.headers if k != name]
        return base._replace(headers=rest if value is None else [*rest, (name, value)])

    size = b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + size + struct.pack(">I", zlib.crc32(size))
    bomb += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    year_ahead = b"2199-01-01T00:00:00Z"
    kinds = [
        (Reason.NO_KEY, good._replace(key=None)),
        (Reason.NO_KEY, good._replace(key=b"")),
        (Reason.BAD_KEY, good._replace(key=b"\xff\xfe")),
        (Reason.BAD_KEY, good._replace(key=b"k" * 129)),
        (Reason.UNKNOWN_TYPE, header(good, "ce_type", b"streamer.smell.v1")),
        (Reason.UNKNOWN_TYPE, header(good, "ce_type", None)),
        (Reason.BAD_HEADER, header(good, "ce_specversion", b"0.3")),
        (Reason.BAD_HEADER, header(good, "ce_time", b"yesterday")),
        (Reason.BAD_HEADER, header(good, "ce_time", b"\xff")),
        (Reason.BAD_HEADER, header(good, "ce_id", None)),
        (Reason.BAD_CONTENT_TYPE, header(good, "content-type", b"image/tiff")),
        (Reason.BAD_CONTENT_TYPE, header(sound, "content-type", b"audio/L16")),
        (Reason.BAD_PAYLOAD, sound._replace(value=b"\0" * 641)),
        (Reason.CLOCK_AHEAD, header(good, "ce_time", year_ahead)),
        (Reason.TOO_LONG, speech._replace(value=b'{"text": "hm", "end": 61}')),
        (Reason.BAD_JSON, speech._replace(value=b'{"text": ')),
        (Reason.BAD_PAYLOAD, speech._replace(value=b'{"text": 7}')),
        (Reason.BAD_PAYLOAD, block),
        (Reason.BAD_PAYLOAD, good._replace(value=b"")),
        (Reason.BAD_PAYLOAD, good._replace(value=b"this is no picture")),
        (Reason.IMAGE_BOMB, header(good._replace(value=bomb), "content-type", b"image/png")),
        (Reason.DATAREF_REFUSED, header(good._replace(value=b""), "ce_dataref", b"file:///etc/passwd")),
    ]
    return [(str(reason), bad) for reason, bad in (kinds[i % len(kinds)] for i in range(count))]


def test_malformed_records_are_dead_lettered_with_their_reasons_and_the_stream_goes_on(
    topics: Settings, tmp_path: Path
) -> None:
    # Broken pictures are found only where they are decoded: each lies alone in a window of a session of its own.
    start_us = aligned_now(SECONDS + 2)
    bad = malformed(topics, "bad", start_us, 1000)
    rng = random.Random(1)
    opened = {str(Reason.BAD_PAYLOAD), str(Reason.IMAGE_BOMB)}
    bad = [
        (reason, r._replace(key=f"broken-{i}".encode()) if reason in opened and r.topic.endswith("frames") else r)
        for i, (reason, r) in enumerate(bad)
    ]
    with running_worker(topics, tmp_path / "worker.log") as worker:
        for number, good in enumerate(feed(topics, "good", start_us)):
            batch = good + [r for _, r in bad[number * 200 : (number + 1) * 200]]
            rng.shuffle(batch)
            send(topics, batch)
        misplaced = second(topics, "misplaced", start_us)[:1]
        send_to_wrong_partition(topics, misplaced[0])
        send(topics, [end(topics, "good", start_us + SECONDS * S_US)])
        wait_for_results(topics, "good", SECONDS)
        wanted = Counter(reason for reason, _ in bad) + Counter([str(Reason.WRONG_PARTITION)])
        wait_for(
            lambda: sum(worker.metric("streamer_dead_letters_total", reason=r) for r in wanted) >= 1001,
            60.0,
            lambda: worker.get("/metrics")[1],
        )
        letters = read_topic(topics, topics.topic(TOPIC_DEADLETTER))
        found = Counter(dict(letter.headers)["deadletter_reason"].decode() for letter in letters)
        assert found == wanted
        published = results(topics.redis, topics, "good")
        assert [r["present"] for r in published] == [b"image,audio,text,telemetry"] * SECONDS
        assert worker.ready()
        assert worker.stop() < 5.0
    for letter in letters[:50]:  # untouched payloads, with where they came from
        headers = dict(letter.headers)
        assert headers["deadletter_origin"].count(b"/") == 3
        assert (
            any(letter.value == r.value and letter.key == r.key for _, r in bad) or letter.value == misplaced[0].value
        )


def send_to_wrong_partition(settings: Settings, outgoing: Outgoing) -> None:
    from kafka import KafkaProducer
    from kafka.partitioner.default import murmur2

    assert outgoing.key is not None
    home = (murmur2(outgoing.key) & 0x7FFFFFFF) % settings.partitions
    producer = KafkaProducer(bootstrap_servers=settings.kafka)
    try:
        wrong = (home + 1) % settings.partitions
        producer.send(outgoing.topic, outgoing.value, outgoing.key, outgoing.headers, partition=wrong).get(timeout=30)
    finally:
        producer.close()


def test_a_late_event_goes_to_the_late_topic_and_changes_no_result(topics: Settings, tmp_path: Path) -> None:
    start_us = aligned_now(SECONDS + 4)
    with running_worker(topics, tmp_path / "worker.log") as worker:
        send_paced(topics, feed(topics, "car", start_us))
        wait_for_results(topics, "car", SECONDS - 1)
        before = results(topics.redis, topics, "car")
        late = second(topics, "car", start_us)
        send(topics, late)
        wait_for(lambda: worker.metric("streamer_events_total", outcome="late") == len(late), 20.0)
        send(topics, [end(topics, "car", start_us + SECONDS * S_US)])
        wait_for_results(topics, "car", SECONDS)
        assert results(topics.redis, topics, "car")[: len(before)] == before
        assert worker.stop() < 5.0
    letters = read_topic(topics, topics.topic(TOPIC_LATE))
    assert sorted(letter.value for letter in letters) == sorted(r.value for r in late)
    assert all(int(dict(letter.headers)["late_by_us"]) >= 0 for letter in letters)


def members(settings: Settings, session: str) -> dict[int, tuple[bytes, bytes, bytes]]:
    return {
        int(r["end_us"]): (r["members"], r["closed_by"], r["present"])
        for r in results(settings.redis, settings, session)
    }


def test_a_worker_that_is_killed_loses_and_doubles_nothing(topics: Settings, tmp_path: Path) -> None:
    seconds = 40
    start_us = aligned_now(seconds + 6)
    steps = zip(*(feed(topics, s, start_us, seconds) for s in "abcd"), strict=True)
    batches = [[r for session in step for r in session] for step in steps]
    sending = threading.Thread(target=send_paced, args=(topics, batches, 1.0))
    with running_worker(topics, tmp_path / "worker.log") as worker:
        sending.start()  # the feed goes on while the worker is away
        for _ in range(3):
            time.sleep(random.Random(len(batches)).uniform(1.0, 3.0))
            worker.kill()
            worker.restart()
        sending.join()
        send(topics, [end(topics, s, start_us + seconds * S_US) for s in "abcd"])
        for session in "abcd":
            wait_for_results(topics, session, seconds)
        assert worker.stop() < 5.0
    killed = {s: members(topics, s) for s in "abcd"}
    assert all(len(found) == seconds for found in killed.values())
    late = read_topic(topics, topics.topic(TOPIC_LATE))
    # A second group reads the same log from its beginning, in one go, into keys of its own.
    calm = topics.model_copy(update={"group": topics.group + "-calm", "key_prefix": topics.key_prefix + "-calm"})
    with running_worker(calm, tmp_path / "calm.log") as worker:
        for session in "abcd":
            wait_for_results(calm, session, seconds)
        assert worker.stop() < 5.0
    assert {s: members(calm, s) for s in "abcd"} == killed
    assert late == []


def test_a_port_that_is_taken_is_one_line_and_exit_code_1(topics: Settings, tmp_path: Path) -> None:
    with running_worker(topics, tmp_path / "first.log") as first:
        taken = {"STREAMER_PORT": str(first.port)}
        with WorkerProcess(topics, tmp_path / "second.log", taken) as other:
            wait_for(lambda: other.code == 1, 60)
        assert "set STREAMER_PORT to a free port" in other.text()
        assert first.ready()


@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("redis", "redis://127.0.0.1:1/0", "cannot reach Redis at redis://127.0.0.1:1/0"),
        ("model", "models/none", "models/none"),
        ("topic_prefix", "nobody", "topic nobody.frames does not exist; run `streamer topics create`"),
    ],
)
def test_a_start_that_cannot_work_is_one_line(
    topics: Settings, tmp_path: Path, setting: str, value: str, says: str
) -> None:
    with (
        pytest.raises(Stop, match="ended with code 1") as failed,
        running_worker(topics, tmp_path / "worker.log", **{setting: value}),
    ):
        pass
    assert says in str(failed.value)
    assert "Traceback" not in str(failed.value)
