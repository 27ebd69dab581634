"""A data set from which each head learns quickly, and a run of the training loop on it."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from streamer.model.sample import Phrase, Sample
from streamer.model.spec import InputSpec, ModelSpec, Output, TelemetryInput, TextInput
from streamer.training.dataset import Example, Label
from streamer.training.fit import Fitted, Where, fit
from streamer.training.recipe import Recipe

SPEC = ModelSpec(
    name="toy",
    version="1",
    window_ms=500,
    inputs=InputSpec(text=TextInput(max_tokens=6), telemetry=TelemetryInput(channels=("speed",), rate_hz=20)),
    outputs={
        "action": Output(("go", "stop")),
        "signs": Output(("hot", "loud"), kind="tags"),
        "speed": Output(kind="number", unit="m/s"),
    },
)
QUIET = Console(file=io.StringIO())


def example(seed: int) -> Example:
    """Words determine the action, the telemetry's level the number, its swing a tag; some labels are missing."""
    random = np.random.default_rng(seed)
    stop, hot, speed = random.random() < 0.5, random.random() < 0.5, float(random.uniform(100, 200))
    swing = 30 * hot * np.array([1, -1] * 5)
    labels: dict[str, Label] = {
        "action": "stop" if stop else "go",
        "signs": ("hot",) if hot else (),
        "speed": speed,
    }
    if seed % 4 == 0:
        del labels[list(labels)[seed // 4 % 3]]
    telemetry = (speed + swing + random.normal(0, 1, 10)).astype(np.float32)[None]
    sample = Sample(
        present=(False, False, True, True),
        coverage=(0.0, 0.0, 1.0, 1.0),
        text=(Phrase("please stop" if stop else "please go", 1.0),),
        telemetry_CT=telemetry,
        telemetry_mask_CT=np.ones((1, 10), np.bool_),
    )
    return Example(sample, labels)


TRAINING, VALIDATION = [example(seed) for seed in range(24)], [example(seed) for seed in range(100, 112)]
FEW = Recipe(epochs=2, batch=8, seed=5)


def fitted(folder: Path, recipe: Recipe = FEW, **where: Any) -> Fitted:
    return fit(folder, SPEC, TRAINING, VALIDATION, recipe, QUIET, Where(**where))
