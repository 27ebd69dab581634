"""Simulated drives are kept under a name that changes when, and only when, their examples do."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.align.windows import Rules
from streamer.model.sample import Limits
from streamer.model.spec import ModelSpec, read_spec
from streamer.settings import Settings
from streamer.training import simulated
from streamer.training.dataset import Example

DRIVING = read_spec(Path(__file__).parents[3] / "models" / "driving")
SEED, SECONDS, FRAME_HZ = 3, 6, 2

# What the drive gives, by `simulated.VERSION` 1: renew these with each new version.
VERSION = 1
WORDS = "a718a3b8b02f"
COVERAGE = [0.2, 1.0, 0.83333, 1.0]
IMAGE, AUDIO = [23.65, 18.258, 9.2993], [0.060285, 0.023819, 0.011507]
TELEMETRY = [6.0629, 2.3672, 1.1384]


def test_the_examples_of_a_drive_are_those_of_the_version() -> None:
    examples = list(simulated.drive_examples(SEED, SECONDS, DRIVING, FRAME_HZ))
    drawn = words(examples), *measures(examples)
    known = WORDS, *(pytest.approx(each, rel=2e-3, abs=1e-4) for each in (COVERAGE, IMAGE, AUDIO, TELEMETRY))
    assert (simulated.VERSION, *drawn) == (VERSION, *known), "raise simulated.VERSION, and renew what this test knows"


def words(examples: list[Example]) -> str:
    """Hash of all that is exact: labels, transcripts, which modalities are there, which values were measured."""
    facts = [
        (
            example.labels,
            example.sample.present,
            [(phrase.text, round(phrase.overlap, 3)) for phrase in example.sample.text],
            [
                mask.tolist()
                for mask in (example.sample.image_mask_F, example.sample.telemetry_mask_CT)
                if mask is not None
            ],
        )
        for example in examples
    ]
    return hashlib.sha256(msgspec.json.encode(facts, order="deterministic")).hexdigest()[:12]


def measures(examples: list[Example]) -> list[list[float]]:
    """Coverage; then of frames, sound and telemetry what is the same on every machine but for a last digit."""
    samples = [example.sample for example in examples]
    coverage = np.mean([sample.coverage for sample in samples], axis=0).tolist()
    return [
        coverage,
        spread([sample.image_FHW3 for sample in samples]),
        spread([sample.audio_S for sample in samples]),
        spread([sample.telemetry_CT for sample in samples]),
    ]


def spread(arrays: list[NDArray[np.generic] | None]) -> list[float]:
    """Standard deviation, and two means of magnitudes that depend on where they are."""
    values = np.concatenate([array.ravel().astype(np.float64) for array in arrays if array is not None])
    sizes, places = np.abs(values), np.linspace(0, 1, len(values))
    return [float(mean) for mean in (values.std(), (sizes * places).mean(), (sizes * places**3).mean())]


def key(spec: ModelSpec = DRIVING, seconds: int = SECONDS, frame_hz: int = FRAME_HZ) -> str:
    return simulated._key(spec, seconds, frame_hz)


def test_the_name_of_a_drive_changes_with_each_thing_that_its_examples_are_made_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inputs = msgspec.structs.replace(DRIVING.inputs, text=None)
    names = [
        key(),
        key(msgspec.structs.replace(DRIVING, inputs=inputs)),
        key(msgspec.structs.replace(DRIVING, window_ms=DRIVING.window_ms // 2)),
        key(seconds=SECONDS + 1),
        key(frame_hz=5),
    ]
    rules = msgspec.structs.replace(Rules.from_settings(Settings()), session_gap_us=1)
    limits = msgspec.structs.replace(Limits.of(Settings()), max_image_pixels=1)
    for owner, name, changed in (
        (simulated, "VERSION", 0),
        (Rules, "from_settings", lambda settings: rules),
        (Limits, "of", lambda settings: limits),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, changed)
            names.append(key())
    assert len(set(names)) == len(names)


def test_the_name_of_a_drive_depends_on_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    before = key()
    monkeypatch.setenv("STREAMER_SESSION_GAP_MS", "1234")
    assert key(msgspec.structs.replace(DRIVING, name="other", version="9", description="other")) == before
