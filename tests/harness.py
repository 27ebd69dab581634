"""What integration tests share: a worker process, records made without this package's producer, and their results."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import redis
import simplejpeg
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from streamer.events import AUDIO, IMAGE, KINDS, TELEMETRY, TEXT
from streamer.local import worker
from streamer.settings import Settings

ROOT = Path(__file__).parents[1]
AUDIO_RATE_HZ = 16_000
S_US = 1_000_000
READY_WITHIN_S = 60.0


def own_settings(kafka: str, redis_url: str, model: Path, max_delay_ms: int) -> Settings:
    """Settings with unique names of topics, keys and group."""
    name = f"t{uuid.uuid4().hex[:8]}"
    return Settings.load(
        kafka=kafka,
        redis=redis_url,
        topic_prefix=name,
        key_prefix=name,
        group=name,
        partitions=3,
        port=0,
        model=model,
        sensors={name: {"max_delay_ms": max_delay_ms} for name in ("image", "audio", "text", "telemetry")},
    )


class WorkerProcess(worker.WorkerProcess):
    """``streamer worker`` as its users run it: a process, settings by environment, probes by HTTP.

    Args:
        command: Another one that runs until it is ended.
        arguments: Of the command.
        extra: Settings that differ from ``settings``.
    """

    def __init__(
        self,
        settings: Settings,
        log: Path,
        command: str = "worker",
        arguments: Sequence[str] = (),
        **extra: Any,
    ) -> None:
        given = settings.model_dump(exclude_unset=True) | extra
        super().__init__(Settings.load(**given), log, cwd=ROOT, command=command, arguments=arguments)

    def __exit__(self, *error: object) -> None:
        self.kill()

    def restart(self) -> None:
        """Start it again after it has ended, and wait until it is ready."""
        self.start()
        self.wait_ready(READY_WITHIN_S)

    def stop(self) -> float:
        """Stop it by SIGTERM; returns the seconds until it had ended, and checks that it ended gracefully."""
        before = time.monotonic()
        self.end()
        assert self.code == 0, self.text()
        return time.monotonic() - before


@contextmanager
def running_worker(settings: Settings, log: Path, **extra: Any) -> Iterator[WorkerProcess]:
    with WorkerProcess(settings, log, **extra) as running:
        running.wait_ready(READY_WITHIN_S)
        yield running


def replay(settings: Settings, *arguments: object) -> subprocess.CompletedProcess[str]:
    """``streamer replay`` as its users run it."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
    command = [sys.executable, "-m", "streamer", "replay", *map(str, arguments)]
    env |= worker.environment(settings)
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)


def wait_for(condition: Callable[[], bool], within_s: float, why: Callable[[], str] = lambda: "") -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s. {why()}"
        time.sleep(0.05)


class Outgoing(NamedTuple):
    """A record with explicit headers, as sent by a client without this package."""

    topic: str
    key: bytes | None
    value: bytes
    headers: list[tuple[str, bytes]]


def jpeg(seed: int = 0, width: int = 64, height: int = 48) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    encoded: bytes = simplejpeg.encode_jpeg(pixels, quality=70)
    return encoded


def rfc3339(time_us: int) -> bytes:
    return datetime.fromtimestamp(time_us / 1e6, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()


def record(
    settings: Settings, row: int, session: str, time_us: int, value: bytes, content_type: str, sensor: str | None = None
) -> Outgoing:
    named = [] if sensor is None else [("ce_sensor", sensor.encode())]
    return Outgoing(
        settings.source_topics[row],
        session.encode(),
        value,
        [
            ("ce_specversion", b"1.0"),
            ("ce_id", f"{session}-{row}-{time_us}".encode()),
            ("ce_source", b"/test"),
            ("ce_type", KINDS[row].ce_type.encode()),
            ("ce_time", rfc3339(time_us)),
            ("content-type", content_type.encode()),
            *named,
        ],
    )


def second(settings: Settings, session: str, start_us: int, frames: int = 2) -> list[Outgoing]:
    """One second of all four kinds, starting on a window's border."""
    step_us = S_US // frames
    pcm = (np.sin(np.arange(AUDIO_RATE_HZ // 2) / 9) * 9000).astype(">i2").tobytes()
    speech = json.dumps({"text": "continue straight", "start": 0.0, "end": 1.0}).encode()
    block = {"channels": {"speed": {"unit": "m/s", "values": [10.0] * 50}}, "rate_hz": 50.0}
    records = [record(settings, IMAGE, session, start_us + i * step_us, jpeg(i), "image/jpeg") for i in range(frames)]
    records += [
        record(settings, AUDIO, session, start_us + i * S_US // 2, pcm, f"audio/L16;rate={AUDIO_RATE_HZ};channels=1")
        for i in range(2)
    ]
    records.append(record(settings, TEXT, session, start_us, speech, "application/json"))
    records.append(record(settings, TELEMETRY, session, start_us, json.dumps(block).encode(), "application/json"))
    return records


def end(settings: Settings, session: str, time_us: int) -> Outgoing:
    sent = record(settings, TELEMETRY, session, time_us, b"", "application/json")
    return sent._replace(headers=[(k, b"streamer.end.v1" if k == "ce_type" else v) for k, v in sent.headers])


def send(settings: Settings, records: list[Outgoing]) -> None:
    """Send in order and wait until the broker has all."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka, max_request_size=settings.max_message_bytes + (1 << 20))
    try:
        sent = [producer.send(r.topic, key=r.key, value=r.value, headers=r.headers) for r in records]
        producer.flush(timeout=60)
        for future in sent:
            future.get(timeout=60)
    finally:
        producer.close()


def read_topic(settings: Settings, topic: str) -> list[Any]:
    """All records that a topic has now."""
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False, consumer_timeout_ms=10_000)
    try:
        partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        records = []
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            for batch in consumer.poll(timeout_ms=500).values():
                records += batch
        return records
    finally:
        consumer.close()


def results(redis_url: str, settings: Settings, session: str) -> list[dict[str, Any]]:
    """Results of a session, read with plain Redis commands."""
    client = redis.Redis.from_url(redis_url)
    try:
        entries = client.xrange(f"{settings.key_prefix}:{{{session}}}:results")
        return [{k.decode(): v for k, v in fields.items()} for _, fields in entries]
    finally:
        client.close()
