"""Workers that are started again when they end, as Kubernetes would, and waiting for a run to be over."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import redis
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from streamer.settings import Settings
from tests.faults import verifier
from tests.harness import WorkerProcess, wait_for

FULL = os.environ.get("STREAMER_TEST_FAULTS", "short") == "full"
MIB = 1 << 20
MAX_MESSAGE_BYTES = MIB
RESTART_AFTER_S = 0.3


def new_settings(**given: Any) -> Settings:
    """Settings with topics, keys and a group of their own; ``given`` names the servers and the model at least."""
    name = f"f{uuid.uuid4().hex[:8]}"
    quick = {"max_delay_ms": 700, "idle_after_ms": 2500}
    values: dict[str, Any] = {
        "topic_prefix": name,
        "key_prefix": name,
        "group": name,
        "partitions": 3,
        "port": 0,
        "max_message_bytes": MAX_MESSAGE_BYTES,
        "device": "cpu",
        "session_gap_ms": 6000,
        # A busy machine may stop the broker between stamping a record and showing it for longer than the 20 ms that one
        # broker needs otherwise.
        "merge_slack_ms": 250,
        "sensors": {
            "image": {**quick, "disorder_ms": 50},
            "audio": quick,
            "text": {"max_delay_ms": 2200},
            "telemetry": quick,
            "camera_rear": {"kind": "image", **quick, "disorder_ms": 50},
            "cabin_mic": {"kind": "audio", **quick, "offset_ms": 30},
        },
        **given,
    }
    return Settings.load(**values)


class Supervised:
    """A worker whose process is replaced whenever it ends, until :meth:`stop`.

    Attributes:
        kills: Ends that a test caused.
        exits: Exit codes of ends that it did not.
        peak_bytes: The most resident memory that any of its processes had.
    """

    def __init__(self, settings: Settings, log: Path, **extra: Any) -> None:
        self.worker = WorkerProcess(settings, log, **extra)
        self.log = log
        self.kills = 0
        self.exits: list[int] = []
        self.peak_bytes = 0
        self.violations = 0.0
        self._wanted = True
        self._killed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)
        self._thread.start()

    def _supervise(self) -> None:
        while True:
            while (code := self.worker.code) is None:
                self._measure(self.pid)
                time.sleep(0.05)
            with self._lock:
                if not self._wanted:
                    return
                if not self._killed:
                    self.exits.append(code)
                self._killed = False
            time.sleep(RESTART_AFTER_S)
            with self._lock:
                if not self._wanted:
                    return
                self.worker.start()

    def _measure(self, pid: int) -> None:
        with suppress(psutil.Error):
            self.peak_bytes = max(self.peak_bytes, psutil.Process(pid).memory_info().rss)

    @property
    def pid(self) -> int:
        return self.worker.pid

    def ready(self) -> bool:
        """Whether the current process can take work."""
        return self.worker.ready()

    def wait_ready(self, within_s: float = 120.0) -> Supervised:
        wait_for(self.ready, within_s, self.why)
        return self

    def why(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if "dead letter:" not in line]
        return f"worker (exits {self.exits}, /readyz {self.worker.get('/readyz')}):\n" + "\n".join(lines[-30:])

    def note_violations(self) -> None:
        """Add what the current process has counted; it is gone with the process."""
        self.violations += self.worker.metric("streamer_merge_order_violations_total")

    def kill(self) -> None:
        """kill -9, wherever it is; the supervisor starts another."""
        with self._lock:
            if self.worker.code is None:
                self._killed = True
                self.kills += 1
                self.worker.kill()

    def pause(self) -> None:
        psutil.Process(self.pid).suspend()

    def resume(self) -> None:
        psutil.Process(self.pid).resume()

    def stop(self, graceful: bool = True) -> None:
        """SIGTERM, or SIGKILL if it need not be graceful, and no other process after it."""
        with self._lock:
            self._wanted = False
            if self.worker.code is None:
                with suppress(psutil.Error):
                    self.resume()
                if graceful:
                    self.worker.end()
                    assert self.worker.code == 0, self.why()
                else:
                    self.worker.kill()
        self._thread.join(timeout=10)


@contextmanager
def supervised(settings: Settings, log: Path, **extra: Any) -> Iterator[Supervised]:
    """A supervised worker; gone after the block, gracefully if nothing went wrong in it."""
    worker = Supervised(settings, log, **extra)
    graceful = False
    try:
        yield worker
        worker.note_violations()
        graceful = True
    finally:
        worker.stop(graceful)


def end_offsets(settings: Settings) -> dict[tuple[int, int], int]:
    """End offsets of the source topics, by row and partition."""
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False)
    try:
        partitions = {
            (row, p): TopicPartition(topic, p)
            for row, topic in enumerate(settings.source_topics)
            for p in consumer.partitions_for_topic(topic) or ()
        }
        ends = consumer.end_offsets(list(partitions.values()))
        return {log: ends[tp] for log, tp in partitions.items()}
    finally:
        consumer.close()


def wait_until_committed(settings: Settings, within_s: float = 120.0, why: Callable[[], str] = lambda: "") -> None:
    """Wait until all records of the source topics are done. Only for logs that no longer grow."""
    ends = end_offsets(settings)
    last: dict[str, Any] = {}

    def done() -> bool:
        try:
            last["committed"] = verifier.committed(settings)
        except KafkaError:  # the broker has just come back
            return False
        return all(last["committed"].get(log, 0) >= end for log, end in ends.items())

    def missing() -> str:
        behind = {log: (last["committed"].get(log, 0), end) for log, end in ends.items()} if last else {}
        return f"(row, partition): (committed, end) {[(k, v) for k, v in behind.items() if v[0] < v[1]]}; {why()}"

    wait_for(done, within_s, missing)


def published(settings: Settings, url: str | None = None) -> int:
    """Results in Redis now; -1 if it does not answer."""
    client = redis.Redis.from_url(url or settings.redis, socket_timeout=2, socket_connect_timeout=2)
    try:
        return sum(client.xlen(key) for key in client.scan_iter(f"{settings.key_prefix}:{{*}}:results", count=1000))
    except redis.RedisError:
        return -1
    finally:
        client.close()


def wait_for_more(settings: Settings, more: int, within_s: float = 60.0, why: Callable[[], str] = lambda: "") -> None:
    """Wait for this many more results than now: the system works."""
    before = max(0, published(settings))
    wait_for(lambda: published(settings) >= before + more, within_s, why)
