"""Simulated drives -> the weights and the tokenizer of a model folder."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec
from rich.console import Console

from streamer import repository
from streamer.errors import UsageError
from streamer.training.fit import Epoch, Recipe, fit
from streamer.training.simulated import FIRST_HELD_OUT_SEED, examples


class Report(msgspec.Struct, frozen=True):
    """What a training run did."""

    windows: int
    epochs: tuple[Epoch, ...]
    seconds: float
    cpu_seconds: float


def train(folder: Path, recipe: Recipe, cache: Path, console: Console) -> Report:
    """Train a model folder's weights and tokenizer on simulated drives.

    Args:
        folder: Holds a ``model.toml``; weights and tokenizer are written beside it.
        cache: Where cut drives are kept between runs.

    Raises:
        ModelError: The folder cannot be read.
        UsageError: The recipe cannot be carried out.
    """
    started_s, cpu_s = time.monotonic(), time.process_time()
    spec = repository.read_spec(folder)
    validation_drives = -(-recipe.drives // 8)
    first = recipe.seed * 1000
    if recipe.drives < 1 or first < 0 or first + recipe.drives + validation_drives > FIRST_HELD_OUT_SEED:
        raise UsageError(f"--drives must be above 0 and --seed from 0 to {FIRST_HELD_OUT_SEED // 1000 - 1}")
    seeds = range(first, first + recipe.drives)
    training = examples(seeds, recipe.seconds, spec, cache, console)
    validation = examples(range(seeds.stop, seeds.stop + validation_drives), recipe.seconds, spec, cache, console)
    module, tokenizer, epochs = fit(folder, spec, training, validation, recipe, console)
    repository.write(folder, module, tokenizer, {"recipe": msgspec.structs.asdict(recipe), "windows": len(training)})
    return Report(len(training), epochs, time.monotonic() - started_s, time.process_time() - cpu_s)
