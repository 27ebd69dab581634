"""Examples -> the weights and the tokenizer of a model folder."""

from __future__ import annotations

import io
import os
import time
from importlib.util import find_spec
from pathlib import Path

import msgspec
import torch
from rich.console import Console

from streamer.errors import UsageError
from streamer.model import calibration, repository
from streamer.model.predictor import Network, pick_device
from streamer.model.sample import Limits
from streamer.model.spec import ModelSpec, read_network_spec
from streamer.training import fit as loop
from streamer.training.batches import Dataset
from streamer.training.checkpoint import CHECKPOINT_FILE
from streamer.training.fit import Epoch, Where
from streamer.training.processes import Processes, joined
from streamer.training.recipe import Recipe
from streamer.training.simulated import FIRST_HELD_OUT_SEED, examples

CURVES_FILE = "learning_curves.png"
NEEDED = ("matplotlib", "tensorboard", "sklearn")
SHOWN_BAD_ROWS = 10
VALIDATION_SHARE = 8  # training drives per validation drive


class Source(msgspec.Struct, frozen=True):
    """Simulated drives to learn from.

    Attributes:
        seconds: Length of each.
        cache: Where cut drives are kept between runs.
    """

    cache: Path
    drives: int = 120
    seconds: int = 60


class Report(msgspec.Struct, frozen=True):
    """Summary of a training run; CPU time is of this process and of those that it started."""

    windows: int
    epochs: tuple[Epoch, ...]
    seconds: float
    cpu_seconds: float


def train(
    folder: Path,
    recipe: Recipe,
    data: Source | Path,
    console: Console,
    *,
    run_dir: Path,
    resume: bool = False,
    device: str = "auto",
    skip_bad: bool = False,
) -> Report:
    """Train a model folder's weights and tokenizer.

    Started by ``torchrun``, all processes train one model and the first writes it.

    Args:
        folder: Has a ``model.toml``; weights, tokenizer and the learning curves are written beside it.
        data: Simulated drives, or the path of a data set.
        run_dir: For TensorBoard's logs, and for the checkpoint that ``resume`` continues from.
        device: Name of a device, see :func:`streamer.model.predictor.pick_device`.
        skip_bad: Leave out bad rows of a data set and print how many; else the first one is an error.

    Raises:
        ModelError: The folder cannot be read.
        UsageError: The recipe cannot be carried out, or the data are bad.
    """
    missing = next((name for name in NEEDED if find_spec(name) is None), None)
    if missing:
        raise UsageError(f"training needs {missing}: pip install 'streamer-multimodal[train]'")
    from streamer.training.calibrate import calibrate  # needs what was looked for

    started_s = time.monotonic()
    spec = read_network_spec(folder)
    with joined() as processes:
        own = pick_device(device)
        if own.type == "cuda" and own.index is None:
            own = torch.device("cuda", processes.local)
            torch.cuda.set_device(own)
        told = console if processes.first else Console(file=io.StringIO())
        if isinstance(data, Path):
            training, validation = opened(data, spec, recipe.seed, told, skip_bad=skip_bad)[:2]
        else:
            training, validation = _simulated(data, spec, recipe.seed, told, processes)
        if (run_dir / CHECKPOINT_FILE).is_file() and not resume:
            told.log(f"replacing the checkpoint of an interrupted run in {run_dir}; --resume would continue it")
        where = Where(run_dir, resume, own, processes)
        module, tokenizer, epochs = loop.fit(folder, spec, training, validation, recipe, told, where)
        if processes.first:
            notes = {"recipe": msgspec.to_builtins(recipe), "windows": len(training), "data": _named(data)}
            network = Network(repository.Model(spec, module, tokenizer, ""), own, Limits())
            measured = calibrate(network, training, validation, told)
            calibration.write(folder, measured, repository.write(folder, module, tokenizer, notes))
            _draw_curves(folder / CURVES_FILE, epochs)
            (run_dir / CHECKPOINT_FILE).unlink(missing_ok=True)
        processes.wait()
    return Report(len(training), epochs, time.monotonic() - started_s, _cpu_s())


def recalibrate(
    folder: Path, data: Source | Path, seed: int, console: Console, *, device: str = "auto", skip_bad: bool = False
) -> Path:
    """Measure the limits of weights that are there, as training does at its end.

    Args:
        data, seed: Those that the weights were trained with.

    Returns:
        The file that was written.

    Raises:
        ModelError: The folder cannot be read.
        UsageError: The data are bad.
    """
    from streamer.training.calibrate import calibrate

    model = repository.read(folder)
    network = Network(model, pick_device(device), Limits())
    if isinstance(data, Path):
        training, validation = opened(data, model.spec, seed, console, skip_bad=skip_bad)[:2]
    else:
        training, validation = _simulated(data, model.spec, seed, console, Processes())
    return calibration.write(folder, calibrate(network, training, validation, console), model.weights)


def opened(path: Path, spec: ModelSpec, seed: int, console: Console, *, skip_bad: bool) -> tuple[Dataset, ...]:
    """A data set's parts: for training, for validation, for test; prints skipped bad rows.

    Raises:
        UsageError: It cannot be opened.
    """
    from streamer.training.data import open_data  # its formats need libraries that a worker lacks

    data = open_data(path, spec, refuse_bad=not skip_bad, seed=seed, console=console)
    for row in data.bad[:SHOWN_BAD_ROWS]:
        console.log(f"skipped {row}", markup=False)
    if len(data.bad) > SHOWN_BAD_ROWS:
        console.log(f"skipped {len(data.bad) - SHOWN_BAD_ROWS} more bad rows")
    return data.training, data.validation, data.test


def _simulated(
    source: Source, spec: ModelSpec, seed: int, console: Console, processes: Processes
) -> tuple[Dataset, Dataset]:
    """Drives for training and others for validation, with seeds that no evaluation uses."""
    validation_drives = -(-source.drives // VALIDATION_SHARE)
    first = seed * 1000
    if source.drives < 1 or first < 0 or first + source.drives + validation_drives > FIRST_HELD_OUT_SEED:
        raise UsageError(f"--drives must be above 0 and --seed from 0 to {FIRST_HELD_OUT_SEED // 1000 - 1}")
    if not processes.first:
        processes.wait()  # until the first process has simulated: the others read its cache
    seeds = range(first, first + source.drives + validation_drives)
    parts = [
        examples(part, source.seconds, spec, source.cache, console, sparse=True)
        for part in (seeds[: source.drives], seeds[source.drives :])
    ]
    if processes.first:
        processes.wait()
    return parts[0], parts[1]


def _named(data: Source | Path) -> object:
    """The data as recorded with the weights, without paths of this machine."""
    return data.name if isinstance(data, Path) else {"drives": data.drives, "seconds": data.seconds}


def _draw_curves(path: Path, epochs: tuple[Epoch, ...]) -> None:
    from streamer.training.plots import learning_curves

    losses = {
        "training, with gaps": [epoch.training_loss for epoch in epochs],
        "validation": [epoch.validation_loss for epoch in epochs],
    }
    scores = {name: [epoch.scores[name] for epoch in epochs] for name in epochs[0].scores}
    scores |= {f"{name}, with gaps": [e.scores_with_gaps[name] for e in epochs] for name in epochs[0].scores}
    learning_curves(path, losses, scores)


def _cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
