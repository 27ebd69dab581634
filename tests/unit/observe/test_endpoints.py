"""The probes and the metrics over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from prometheus_client import CollectorRegistry, Gauge

from streamer.errors import UsageError
from streamer.observe.endpoints import Endpoints


class Served:
    """Endpoints on a free port, and what they show."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.degraded: list[str] = []
        self.scrapes = 0
        registry = CollectorRegistry()
        self.gauge = Gauge("streamer_fake_bytes", "Told at each scrape", registry=registry)
        self.endpoints = Endpoints(registry, lambda: self.reasons, lambda: self.degraded, self._before_scrape)

    def _before_scrape(self) -> None:
        self.scrapes += 1
        self.gauge.set(self.scrapes)

    async def get(self, path: str, method: str = "GET") -> tuple[int, str, Any]:
        """Status, content type and body."""
        url = f"http://127.0.0.1:{self.endpoints.port}{path}"
        async with aiohttp.ClientSession() as session, session.request(method, url) as answer:
            body = await (answer.json() if answer.content_type == "application/json" else answer.text())
            return answer.status, answer.content_type, body


@asynccontextmanager
async def serving() -> AsyncIterator[Served]:
    served = Served()
    await served.endpoints.start("127.0.0.1", 0)
    try:
        yield served
    finally:
        await served.endpoints.stop()


async def test_a_free_port_is_taken_and_told() -> None:
    async with serving() as one, serving() as other:
        assert 0 < one.endpoints.port != other.endpoints.port > 0


async def test_a_worker_that_can_take_work_is_ready() -> None:
    async with serving() as served:
        assert await served.get("/readyz") == (200, "application/json", {"ready": True, "reasons": [], "degraded": []})


async def test_one_of_which_a_part_stands_still_is_ready_and_says_so() -> None:
    async with serving() as served:
        served.degraded = ["4 of 12 partitions stand still: Kafka does not answer for them"]
        ready = {"ready": True, "reasons": [], "degraded": served.degraded}
        assert await served.get("/readyz") == (200, "application/json", ready)


async def test_one_that_cannot_is_not_and_says_why_until_it_can_again() -> None:
    async with serving() as served:
        served.reasons = ["Redis does not answer", "stalled"]
        not_ready = {"ready": False, "reasons": ["Redis does not answer", "stalled"], "degraded": []}
        assert await served.get("/readyz") == (503, "application/json", not_ready)
        assert (await served.get("/healthz"))[0] == 200  # alive: a restart would not help
        served.reasons = []
        assert (await served.get("/readyz"))[0] == 200


async def test_health_says_that_the_process_lives() -> None:
    async with serving() as served:
        assert await served.get("/healthz") == (200, "application/json", {"alive": True})


async def test_metrics_are_brought_up_to_date_before_each_scrape() -> None:
    async with serving() as served:
        assert served.scrapes == 0
        for count in (1, 2):
            status, content_type, text = await served.get("/metrics")
            assert (status, content_type) == (200, "text/plain")
            assert f"streamer_fake_bytes {float(count)}" in text
            assert "# HELP streamer_fake_bytes Told at each scrape" in text
        await served.get("/readyz")
        assert served.scrapes == 2


@pytest.mark.parametrize("path", ["/", "/metrics/x", "/ready"])
async def test_other_paths_are_not_found(path: str) -> None:
    async with serving() as served:
        assert (await served.get(path))[0] == 404


async def test_nothing_can_be_written() -> None:
    async with serving() as served:
        assert (await served.get("/readyz", "POST"))[0] == 405
        assert (await served.get("/readyz", "HEAD"))[0] == 200


async def test_a_port_that_is_taken_names_the_setting() -> None:
    async with serving() as served:
        port, another = served.endpoints.port, Served()
        with pytest.raises(UsageError, match=rf"^cannot listen on 127.0.0.1:{port} \(.+\); set STREAMER_PORT") as taken:
            await another.endpoints.start("127.0.0.1", port)
        assert "\n" not in str(taken.value)
        await another.endpoints.stop()


async def test_an_address_that_is_not_ours_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"^cannot listen on 203\.0\.113\.1:0 "):
        await Served().endpoints.start("203.0.113.1", 0)


async def test_a_stopped_one_does_not_answer_and_leaves_the_port_free() -> None:
    async with serving() as served:
        port = served.endpoints.port
    with pytest.raises(aiohttp.ClientConnectionError):
        await served.get("/healthz")
    again = Served()
    await again.endpoints.start("127.0.0.1", port)
    assert (await again.get("/healthz"))[0] == 200
    await again.endpoints.stop()


async def test_stopping_what_was_not_started_does_nothing() -> None:
    await Served().endpoints.stop()
