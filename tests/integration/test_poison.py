"""Windows that raise, windows that kill, workers that are killed for other reasons, and a Redis that forgets."""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import redis
from kafka import KafkaConsumer, TopicPartition

from streamer.errors import Reason
from streamer.events import TELEMETRY, TOPIC_DEADLETTER, TOPIC_LATE
from streamer.model import repository
from streamer.model.spec import read_spec
from streamer.sensors import SensorSettings
from streamer.settings import Settings
from tests.harness import (
    S_US,
    Outgoing,
    WorkerProcess,
    end,
    read_topic,
    record,
    results,
    running_worker,
    send,
    wait_for,
)

pytestmark = pytest.mark.integration

HEALTHY, RAISES, KILLS = 0.0, 1.0, 2.0

MODEL_TOML = """
name = "touchy"
version = "1"
window_ms = 1000

[inputs.telemetry]
channels = ["fault"]
rate_hz = 10

[outputs.action]
labels = ["go", "stop"]
"""

MODEL_PY = f"""
import os
import signal

import torch
from torch import nn

from streamer.model import Outputs


class Touchy(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, inputs):
        fault_B = inputs.telemetry_BCT.amax(dim=(1, 2))
        if (fault_B == {KILLS}).any():
            os.kill(os.getpid(), signal.SIGKILL)
        if (fault_B == {RAISES}).any():
            raise RuntimeError("I cannot bear this window")
        logits_BL = fault_B[:, None] * self.scale * torch.ones(2)
        return Outputs({{"action": logits_BL}}, torch.ones(len(fault_B), 4) / 2, {{}})


def build(spec):
    return Touchy()
"""


@pytest.fixture
def touchy(topics: Settings, tmp_path: Path) -> Settings:
    """A model that telemetry can make raise or die, and windows that wait for no other modality."""
    folder = tmp_path / "touchy"
    folder.mkdir()
    (folder / "model.toml").write_text(MODEL_TOML)
    (folder / "model.py").write_text(MODEL_PY)
    repository.write(folder, repository.new_module(read_spec(folder), folder, None), None, {})
    names = ("image", "audio", "text", "telemetry")
    return topics.model_copy(
        update={
            "model": folder,
            "sensors": {name: SensorSettings(kind=name, max_delay_ms=0) for name in names},
            "instance_id": topics.group,  # a worker that is back within 6 s waits for no rebalance
        }
    )


def block(settings: Settings, session: str, start_us: int, fault: float = HEALTHY, seconds: float = 1.0) -> Outgoing:
    """Telemetry of a part of a window."""
    values = [fault] * round(10 * seconds)
    body = {"channels": {"fault": {"values": values}}, "rate_hz": 10.0}
    return record(settings, TELEMETRY, session, start_us, json.dumps(body).encode(), "application/json")


def statuses(settings: Settings, session: str, origin_us: int) -> dict[int, str]:
    """Status by number of the window, and that they lie in order."""
    found = results(settings.redis, settings, session)
    ends = [int(r["end_us"]) for r in found]
    assert ends == sorted(set(ends))
    return {(int(r["end_us"]) - origin_us) // S_US - 1: r["status"].decode() for r in found}


def supervise(worker: WorkerProcess, done: Callable[[], bool], within_s: float) -> list[int]:
    """Start the worker again whenever it has ended; returns the exit codes of those that died."""
    codes: list[int] = []
    deadline = time.monotonic() + within_s
    while not done():
        assert time.monotonic() < deadline, f"deaths: {codes}\n{worker.text()[-3000:]}"
        if (code := worker.code) is not None:
            assert code == -9, worker.text()[-3000:]
            codes.append(code)
            worker.start()
        time.sleep(0.05)
    return codes


def marked(settings: Settings) -> list[bytes]:
    """The marks of windows that are being run, or were when a worker died."""
    with redis.Redis.from_url(settings.redis) as client:
        keys = list(client.scan_iter(f"{settings.key_prefix}:*:inflight"))
        return [mark for key in keys for mark in client.zrange(key, 0, -1)]


def letters(settings: Settings) -> list[tuple[str, str]]:
    """Origin and reason of the dead letters."""
    found = [dict(letter.headers) for letter in read_topic(settings, settings.topic(TOPIC_DEADLETTER))]
    return [(h["deadletter_origin"].decode(), h["deadletter_reason"].decode()) for h in found]


@pytest.mark.parametrize("role", ["all", "infer"])
def test_a_window_that_kills_is_set_aside_after_four_deaths_and_one_that_raises_at_once(
    touchy: Settings, tmp_path: Path, role: str
) -> None:
    seconds, bad = 12, 4
    sessions = {"kills": KILLS, "raises": RAISES, **{f"healthy-{i}": HEALTHY for i in range(6)}}
    origin_us = int(time.time()) * S_US - 60 * S_US
    for i in range(seconds):
        send(touchy, [block(touchy, s, origin_us + i * S_US, f if i == bad else HEALTHY) for s, f in sessions.items()])
    send(touchy, [end(touchy, s, origin_us + seconds * S_US) for s in sessions])
    aligner = running_worker(touchy, tmp_path / "align.log", role="align") if role == "infer" else nullcontext()

    def done() -> bool:
        return all(len(results(touchy.redis, touchy, s)) == seconds for s in sessions)

    with WorkerProcess(touchy, tmp_path / "worker.log", role=role) as worker:
        with aligner:
            codes = supervise(worker, done, 300.0)
        assert codes == [-9] * 4  # in a batch with others, then three times alone
        for session, fault in sessions.items():
            wanted = dict.fromkeys(range(seconds), "ok") | ({bad: "failed"} if fault != HEALTHY else {})
            assert statuses(touchy, session, origin_us) == wanted
        killer = results(touchy.redis, touchy, "kills")[bad]
        assert (killer["outputs"], killer["present"]) == (b"{}", b"")
        assert json.loads(killer["members"]).keys() == {touchy.source_topics[TELEMETRY]}
        [(origin, reason)] = letters(touchy)
        assert reason == Reason.POISON
        assert origin.startswith(touchy.source_topics[TELEMETRY])
        assert worker.stop() < 5.0
    assert marked(touchy) == []


def test_kills_at_random_moments_set_no_healthy_window_aside(touchy: Settings, tmp_path: Path) -> None:
    rng, kills, sessions = random.Random(7), 0, [f"car-{i}" for i in range(12)]
    origin_us = int(time.time()) * S_US - 3600 * S_US
    stop = threading.Event()
    seconds = suspects = 0

    def feed() -> None:
        nonlocal seconds
        while not stop.is_set():  # far faster than time, so that there is always something in flight
            send(touchy, [block(touchy, s, origin_us + seconds * S_US) for s in sessions])
            seconds += 1

    feeding = threading.Thread(target=feed)
    with running_worker(touchy, tmp_path / "worker.log") as worker:
        feeding.start()
        for _ in range(kills):
            time.sleep(rng.uniform(0.0, 0.5))
            worker.kill()
            suspects += len(marked(touchy))
            worker.restart()
        stop.set()
        feeding.join()
        send(touchy, [end(touchy, s, origin_us + seconds * S_US) for s in sessions])
        wait_for(lambda: all(len(results(touchy.redis, touchy, s)) == seconds for s in sessions), 60.0)
        assert worker.stop() < 5.0
    counts = Counter(status for s in sessions for status in statuses(touchy, s, origin_us).values())
    assert counts == {"ok": seconds * len(sessions)}
    assert letters(touchy) == []
    assert read_topic(touchy, touchy.topic(TOPIC_LATE)) == []


def play(settings: Settings, session: str, origin_us: int, first: float, last: float) -> None:
    """The feed of a device whose clock is right, from one second to another: each half when it is over."""
    for half in range(round(2 * first), round(2 * last)):
        time.sleep(max(0.0, origin_us / S_US + (half + 1) / 2 - time.time()))
        send(settings, [block(settings, session, origin_us + half * S_US // 2, seconds=0.5)])


def committed(settings: Settings) -> int:
    """Telemetry records that the group has committed."""
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka, group_id=settings.group, enable_auto_commit=False)
    try:
        topic = settings.source_topics[TELEMETRY]
        return sum(consumer.committed(TopicPartition(topic, p)) or 0 for p in range(settings.partitions))
    finally:
        consumer.close()


def test_windows_that_began_before_redis_lost_its_data_and_a_restart_are_partial(
    touchy: Settings, tmp_path: Path
) -> None:
    live = touchy.model_copy(update={"max_ahead_ms": 0})

    def wait_for_window(number: int) -> None:
        wait_for(lambda: number in statuses(live, "car", origin_us), 20.0)

    with redis.Redis.from_url(live.redis) as client, running_worker(live, tmp_path / "worker.log") as worker:
        origin_us = (int(time.time()) + 1) * S_US
        play(live, "car", origin_us, 0.0, 1.5)
        wait_for_window(0)
        client.flushall()  # under a worker that lives: it has its state, and nothing is missing from what it publishes
        play(live, "car", origin_us, 1.5, 3.5)
        wait_for_window(2)
        assert statuses(live, "car", origin_us) == {1: "ok", 2: "ok"}
        wait_for(lambda: committed(live) == 6, 10.0)
        worker.kill()
        client.flushall()
        send(live, [block(live, "car", origin_us + S_US, seconds=0.5)])  # late, had Redis not forgotten its window
        worker.restart()
        play(live, "car", origin_us, 3.5, 6.5)
        wait_for_window(5)
        worker.kill()
        worker.restart()  # a restart like any other
        send(live, [end(live, "car", origin_us + 7 * S_US)])
        wait_for_window(6)
        assert worker.stop() < 5.0
    assert statuses(live, "car", origin_us) == {1: "partial", 3: "partial", 4: "ok", 5: "ok", 6: "ok"}
    assert letters(live) == []
