"""A worker that gets a new model in mid-stream, and then a broken one, on a real Kafka and a real Redis."""

from __future__ import annotations

import shutil
import time
from functools import partial
from itertools import groupby
from pathlib import Path

import pytest
import torch

from streamer.model import repository
from streamer.model.spec import read_spec
from streamer.settings import Settings
from tests.harness import S_US, WorkerProcess, end, results, running_worker, second, send, wait_for

pytestmark = pytest.mark.integration

SESSIONS = ("car-a", "car-b")
PHASE = 4  # windows that are sent with each model in place
PHASES = 3


def test_a_new_model_takes_over_between_windows_and_a_broken_one_does_not(topics: Settings, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(topics.model, tmp_path / "driving"))
    start_us = int(time.time()) * S_US - (PHASE * PHASES + 2) * S_US
    before = repository.read(folder).version
    with running_worker(topics, tmp_path / "worker.log", model=str(folder), model_poll_ms=100) as worker:
        feed(topics, start_us, 0)
        published(topics, PHASE - 1)
        write_fresh_weights(folder)
        after = repository.read(folder).version
        # sent while the new model loads: these windows are predicted by whichever is served when they close
        feed(topics, start_us, 1)
        wait_for(lambda: worker.metric("streamer_model_reloads_total", outcome="loaded") == 1, 60.0)
        assert worker.metric("streamer_model_info", version=after) == 1
        assert worker.metric("streamer_model_info", version=before) == 0

        weights = folder / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:10_000])
        wait_for(lambda: worker.metric("streamer_model_reloads_total", outcome="refused") == 1, 60.0)
        feed(topics, start_us, 2)
        send(topics, [end(topics, session, start_us + PHASES * PHASE * S_US) for session in SESSIONS])
        published(topics, PHASES * PHASE)
        check(topics, start_us, before, after)
        assert worker.metric("streamer_model_info", version=after) == 1
        assert worker.metric("streamer_ready") == 1
        assert refusals(worker) == 1
        assert worker.stop() < 6.0


def feed(settings: Settings, start_us: int, phase: int) -> None:
    for number in range(phase * PHASE, (phase + 1) * PHASE):
        send(settings, [r for session in SESSIONS for r in second(settings, session, start_us + number * S_US)])


def has_results(settings: Settings, session: str, count: int) -> bool:
    return len(results(settings.redis, settings, session)) >= count


def published(settings: Settings, count: int) -> None:
    for session in SESSIONS:
        wait_for(partial(has_results, settings, session, count), 60.0)


def write_fresh_weights(folder: Path) -> None:
    torch.manual_seed(99)
    spec, tokenizer = read_spec(folder), repository.read_tokenizer(folder)
    repository.write(folder, repository.new_module(spec, folder, tokenizer), tokenizer, {})


def check(settings: Settings, start_us: int, before: str, after: str) -> None:
    """Every window once and in order; the version changes once in each session, and nothing failed at it."""
    for session in SESSIONS:
        found = results(settings.redis, settings, session)
        assert [int(r["end_us"]) for r in found] == [start_us + (i + 1) * S_US for i in range(PHASES * PHASE)]
        assert {r["status"] for r in found} == {b"ok"}
        assert [version.decode() for version, _ in groupby(r["version"] for r in found)] == [before, after]
        assert {r["version"].decode() for r in found[-PHASE:]} == {after}


def refusals(worker: WorkerProcess) -> int:
    return worker.log.read_text().count("new model refused")
