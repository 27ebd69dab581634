"""A new version of the model in its folder is served, or refused with its reason, and the old one continues."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import torch
from prometheus_client import CollectorRegistry
from tokenizers import Tokenizer, models

from streamer.model import reload, repository
from streamer.model.predictor import Predictor
from streamer.model.reload import Reloader
from streamer.model.spec import read_spec
from streamer.observe.metrics import Metrics
from streamer.settings import Settings

TOML = """
name = "toy"
version = "1"
window_ms = 1000
[inputs.image]
frames = 1
height = 24
width = 32
[inputs.telemetry]
channels = ["speed"]
rate_hz = 10
[outputs.action]
labels = ["go", "stop"]
"""
WITHIN_S = 20.0
POLL_MS = 20


def train(folder: Path, seed: int, toml: str = TOML) -> None:
    (folder / "model.toml").write_text(toml)
    torch.manual_seed(seed)
    repository.write(folder, repository.new_module(read_spec(folder), folder, None), None, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    train(tmp_path, 0)
    return tmp_path


class Served:
    """Stands for the pipeline: the model served, and the metrics."""

    def __init__(self, folder: Path, poll_ms: int) -> None:
        self.settings = Settings.load(model=folder, device="cpu", model_poll_ms=poll_ms)
        self.metrics = Metrics(CollectorRegistry())
        state = reload.state_of(folder)
        self.first = reload.load(self.settings)
        self.swapped: list[Predictor] = []
        self.reloader = Reloader(self.settings, self.first, state, self.metrics, self.swapped.append)

    def count(self, outcome: str) -> float:
        return self.metrics.registry.get_sample_value("streamer_model_reloads_total", {"outcome": outcome}) or 0.0

    async def until(self, outcome: str, count: int) -> None:
        async with asyncio.timeout(WITHIN_S):
            while self.count(outcome) < count:  # noqa: ASYNC110 - a metric does not notify of changes
                await asyncio.sleep(0.01)

    async def some_polls(self) -> None:
        """Wait for several polls of the folder."""
        await asyncio.sleep(10 * POLL_MS / 1000)


@asynccontextmanager
async def served(folder: Path, poll_ms: int = POLL_MS) -> AsyncIterator[Served]:
    made = Served(folder, poll_ms)
    task = asyncio.create_task(made.reloader.run())
    try:
        yield made
        assert not task.done() or not poll_ms
    finally:
        task.cancel()
        await asyncio.wait({task})


async def test_new_weights_are_served_and_the_metrics_say_which(folder: Path) -> None:
    async with served(folder) as it:
        train(folder, 1)
        await it.until("loaded", 1)
        assert [one.version for one in it.swapped] == [repository.read(folder).version]
        assert it.swapped[0].version != it.first.version
        labels = {"name": "toy", "version": it.swapped[0].version}
        assert it.metrics.registry.get_sample_value("streamer_model_info", labels) == 1
        assert it.count("refused") == 0


async def test_broken_weights_are_refused_once_with_their_reason_and_mended_ones_are_taken(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "streamer.model.reload")
    async with served(folder) as it:
        path = folder / "weights.safetensors"
        path.write_bytes(path.read_bytes()[:1000])
        await it.until("refused", 1)
        await it.some_polls()
        assert it.count("refused") == 1
        assert it.swapped == []
        (line,) = [record.getMessage() for record in caplog.records]
        assert "truncated or no safetensors file" in line
        assert it.first.version in line
        train(folder, 2)
        await it.until("loaded", 1)
        assert len(it.swapped) == 1


@pytest.mark.parametrize(
    ("wrong", "right", "says"),
    [
        ('name = "toy"', 'name = "other"', "name was toy and is other"),
        ("window_ms = 1000", "window_ms = 500", "window_ms was 1000 and is 500"),
        ("frames = 1", "frames = 2", "frames was image 1 and is image 2"),
        (
            '[inputs.telemetry]\nchannels = ["speed"]\nrate_hz = 10\n',
            "",
            "inputs was image, telemetry and is image",
        ),
        ('["go", "stop"]', '["go", "halt"]', "give it another"),
    ],
)
async def test_a_model_that_takes_a_restart_is_refused(
    folder: Path, wrong: str, right: str, says: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with served(folder) as it:
        train(folder, 0, TOML.replace(wrong, right))
        await it.until("refused", 1)
        assert says in caplog.text
        assert it.swapped == []


async def test_heads_and_sizes_of_inputs_may_change_with_the_version(folder: Path) -> None:
    toml = TOML.replace('version = "1"', 'version = "2"').replace('["go", "stop"]', '["go", "stop", "wait"]')
    async with served(folder) as it:
        train(folder, 1, toml.replace("width = 32", "width = 40"))
        await it.until("loaded", 1)
        assert it.swapped[0].version.startswith("2-")
        assert it.swapped[0].spec.outputs["action"].labels == ("go", "stop", "wait")


async def test_files_that_say_the_same_are_no_new_version(folder: Path) -> None:
    async with served(folder) as it:
        path = folder / "weights.safetensors"
        path.write_bytes(path.read_bytes())
        await it.some_polls()
        train(folder, 1)
        await it.until("loaded", 1)
        assert len(it.swapped) == 1


async def test_a_poll_of_0_never_looks(folder: Path) -> None:
    async with served(folder, poll_ms=0) as it:
        train(folder, 1)
        await it.some_polls()
        assert it.swapped == []


def test_a_change_of_any_file_of_a_model_shows(folder: Path) -> None:
    seen = {reload.state_of(folder)}
    for name in ("tokenizer.json", "model.py", "onnx.toml", "model.onnx", "model.pt2", "model.int8.safetensors"):
        Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(folder / name))
        seen.add(reload.state_of(folder))
    assert len(seen) == 7
