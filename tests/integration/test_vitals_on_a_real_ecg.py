"""A real ECG, replayed by the command line to a worker with models/vitals, on a real Kafka and a real Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamer.errors import UsageError
from streamer.events import TOPIC_DEADLETTER
from streamer.model.predictor import Predictor
from streamer.settings import Settings
from tests.harness import read_topic, replay, results, running_worker, wait_for
from tests.vitals import FOLDER, program

pytestmark = pytest.mark.integration

SECONDS, WINDOW_MS = 60, 4000
WINDOWS = SECONDS * 1000 // WINDOW_MS
MOST_BPM = 10  # mean error of the heart rate on the whole record, by the card

measure = program("measure")


@pytest.fixture
def header(tmp_path: Path) -> Path:
    """MIT-BIH record 208 as WFDB files."""
    try:
        found: Path = measure.record_208(tmp_path)
    except UsageError as error:
        pytest.skip(str(error))
    return found


@pytest.fixture
def ward(topics: Settings, tmp_path: Path) -> Iterator[Settings]:
    """A worker with models/vitals; the settings with which it runs."""
    settings = topics.model_copy(update={"model": FOLDER, "window_ms": WINDOW_MS})
    with running_worker(settings, tmp_path / "worker.log"):
        yield settings


def test_the_worker_says_of_a_replayed_record_what_the_measured_figures_rest_on(ward: Settings, header: Path) -> None:
    done = replay(ward, header, "--speed", 0, "--duration", SECONDS, "--session", "208")
    assert done.returncode == 0, done.stderr
    assert "MLII is sent as ecg" in done.stderr
    assert "no channel is known as pleth, resp, spo2" in done.stderr
    wait_for(lambda: len(results(ward.redis, ward, "208")) >= WINDOWS, 60.0)
    found = results(ward.redis, ward, "208")
    assert len(found) == WINDOWS
    assert {entry["present"] for entry in found} == {b"telemetry"}
    assert not read_topic(ward, ward.topic(TOPIC_DEADLETTER))
    served_bpm = [json.loads(entry["outputs"])["heart_rate"]["value"] for entry in found]
    predicted = list(measure.predictions(header, Predictor.load(FOLDER, "cpu")))[:WINDOWS]
    assert served_bpm == pytest.approx([outputs["heart_rate"]["value"] for _, outputs in predicted], abs=0.1)
    _, beats_s = measure.beats(header)
    rhythms = [
        measure.rhythm(beats_s[(beats_s >= start_s) & (beats_s < start_s + WINDOW_MS / 1000)])
        for start_s, _ in predicted
    ]
    errors = [abs(said - found[0]) for said, found in zip(served_bpm, rhythms, strict=True) if found is not None]
    assert sum(errors) / len(errors) < MOST_BPM
