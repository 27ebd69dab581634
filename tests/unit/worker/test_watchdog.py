"""The watchdog ends a worker that gets nothing done, but not one that waits for Kafka."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import pytest
from faust.types import TP
from prometheus_client import CollectorRegistry

from streamer.errors import Stalled
from streamer.local.process import free_port
from streamer.observe.metrics import Metrics
from streamer.settings import Settings
from streamer.worker import health
from streamer.worker.health import Health

STALL_S = 0.3


async def watched(answered_s_ago: float) -> None:
    """Watch a worker with work whose fetches were answered so long ago, for three times the limit."""
    settings = Settings.load(kafka=f"127.0.0.1:{free_port()}")
    watch = Health(settings, Metrics(CollectorRegistry()))
    watch._stall_after_s = STALL_S
    await asyncio.sleep(0.05)
    watch.answered()  # the last answer brought nothing to align
    answered_us = time.time_ns() // 1000 - round(answered_s_ago * 1e6)
    intake: Any = SimpleNamespace(
        started=True,
        rebalancing=False,
        fetches=True,
        answered_us=lambda: {TP("frames", 0): answered_us},
        leader=lambda tp: None,
        open_transactions=dict,
    )
    work: Any = SimpleNamespace(stopping=False, alignable=True, publishable=False)
    async with asyncio.timeout(3 * STALL_S):
        await watch.watch(intake, work)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "LOOK_EVERY_S", 0.01)


async def test_a_worker_that_aligns_nothing_although_kafka_answers_is_ended() -> None:
    with pytest.raises(Stalled, match="nothing was aligned"):
        await watched(0.0)


async def test_a_worker_for_which_no_broker_answers_goes_on() -> None:
    with pytest.raises(TimeoutError):
        await watched(10.0)
