"""A window that is run early and again, with the car's own model: the final result is that of a single run."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import torch

from streamer.events import TEXT, ClosedBy, Window
from streamer.feeds import simulate
from streamer.model.predictor import Predictor
from streamer.result import Result
from streamer.settings import Settings
from streamer.training import simulated
from tests.harness import ROOT
from tests.unit.worker.test_pipeline import Bench, running, until

SECONDS = 3


@pytest.fixture
def windows() -> list[Window]:
    drives = simulate.fleet(1, SECONDS, 5, simulated.START_US, "again")
    settings = Settings.load(partitions=1)
    return list(simulated.aligned(simulated.logged(simulate.outgoing(drives)), settings))


@pytest.fixture
def predictor() -> Predictor:
    before = torch.get_num_threads()
    loaded = Predictor.load(ROOT / "models" / "driving", device="cpu", threads=1)
    torch.set_num_threads(before)
    return loaded


def as_it_stood(window: Window) -> Window:
    """Before its words and its last chunk of sound had come."""
    events = tuple(() if row == TEXT else own for row, own in zip(window.sensors.rows, window.events, strict=True))
    events = (events[0], events[1][:-1], *events[2:])
    return msgspec.structs.replace(window, events=events, closed_by=ClosedBy.OPEN)


async def published(predictor: Predictor, windows: list[Window], *, early: bool) -> list[Result]:
    bench = Bench(max_batch=1)
    bench.pipeline.swap(predictor)
    async with running(bench):
        for window in windows:
            if early:
                shown = len(bench.redis.shown)
                bench.pipeline.submit_early(bench.group, as_it_stood(window))
                await until(lambda shown=shown: len(bench.redis.shown) > shown)  # type: ignore[misc]
            bench.pipeline.submit(bench.group, window)
        await until(lambda: len(bench.group.done) == len(windows))
    assert bench.metric("streamer_early_runs_total", outcome="again") == (len(windows) if early else 0)
    return [publication.result for publication in bench.redis.published]


async def test_the_prediction_is_the_same_to_the_bit(predictor: Predictor, windows: list[Window]) -> None:
    assert len(windows) == SECONDS
    assert any(window.events[TEXT] for window in windows)
    again = await asyncio.wait_for(published(predictor, windows, early=True), 60)
    once = await asyncio.wait_for(published(predictor, windows, early=False), 60)
    for found, full in zip(again, once, strict=True):
        assert full.outputs
        assert full.novelty
        found, full = (msgspec.structs.replace(result, latencies_us={}) for result in (found, full))
        assert found.to_json(embedding=True) == full.to_json(embedding=True)
