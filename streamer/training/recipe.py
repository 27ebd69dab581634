"""How a model is trained: options of the loop, the losses and the augmentation; ``train.toml`` of a model folder."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamer.errors import UsageError

RECIPE_FILE = "train.toml"


class Augment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How training examples are varied; all off by default, since some variations change the label of some tasks.

    Attributes:
        image_crop: Crops keep at least this share of the frame's area; 1: off.
        image_flip: Mirror half of the windows left to right. Wrong where the side matters: steering, text, ECGs.
        image_jitter: Brightness, contrast and saturation change by up to this share.
        audio_time_mask: Up to this share of the window's sound is masked in one piece (SpecAugment, Park et al. 2019).
        audio_band_mask: Up to this share of the mel bands is silenced in one piece.
        text_drop: Probability of each token to be masked.
    """

    image_crop: float = 1.0
    image_flip: bool = False
    image_jitter: float = 0.0
    audio_time_mask: float = 0.0
    audio_band_mask: float = 0.0
    text_drop: float = 0.0


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a model is trained.

    Attributes:
        epochs: Largest number of passes over the data.
        batch: Windows in one forward pass of each process.
        accumulate: Forward passes whose gradients are added up before a step: a larger batch in the same memory.
        learning_rate: The highest of the one-cycle schedule (Smith & Topin 2018), reached after a tenth of the steps.
        patience: Epochs without a better validation loss after which training ends.
        drop: Probability of each sensor of a window to be hidden, so that the model learns to work without it.
        solo: Probability of a window to be shown through one sensor alone: else the model learns from the easiest
            sensor only, and fails where that is missing.
        contrast: Weight of the contrastive loss; the task's has weight 1.
        probe: Weight of the task's loss of linear probes on each sensor's vector. They are discarded after training;
            they give every encoder a gradient from every window, even one that the fused output does not need.
        precision: Of the forward pass; ``auto``: bfloat16 on CUDA, float32 elsewhere.
        compile: Whether to run the network through ``torch.compile``: takes minutes, which pay on long runs.
        workers: Processes that load examples; 0: the training process itself, best for examples in memory.
        shots: Learn from only this many examples of each label (few-shot); ``None``: from all.
    """

    epochs: int = 8
    seed: int = 0
    batch: int = 64
    accumulate: int = 1
    learning_rate: float = 1e-3
    weight_decay: float = 0.02
    patience: int = 4
    drop: float = 0.25
    solo: float = 0.3
    contrast: float = 1.0
    probe: float = 1.0
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compile: bool = False
    workers: int = 0
    shots: int | None = None
    augment: Augment = Augment()


def read_recipe(folder: Path, **given: Any) -> Recipe:
    """The recipe of a model folder, with fields overridden by the caller.

    Args:
        folder: May have a ``train.toml`` with fields of :class:`Recipe`; fields that it lacks have their defaults.
        given: Fields that override those of the folder, unless they are ``None``.

    Raises:
        UsageError: A field is unknown or has a wrong value; one line says which.
    """
    path = folder / RECIPE_FILE
    try:
        stored = tomllib.loads(path.read_text("utf-8")) if path.is_file() else {}
        fields = stored | {name: value for name, value in given.items() if value is not None}
        recipe = msgspec.convert(fields, Recipe)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{path}: {error}" if path.is_file() else f"the recipe: {error}") from None
    problem = _problem(recipe)
    if problem:
        raise UsageError(f"the recipe's {problem}")
    return recipe


def _problem(recipe: Recipe) -> str | None:
    fields = {**msgspec.structs.asdict(recipe), **msgspec.structs.asdict(recipe.augment)}
    for name in ("epochs", "batch", "accumulate", "patience", "shots", "learning_rate"):
        if fields[name] is not None and not fields[name] > 0:
            return f"{name} = {fields[name]} must be above 0"
    for name in ("seed", "workers", "weight_decay", "contrast", "probe"):
        if not fields[name] >= 0:
            return f"{name} = {fields[name]} must not be negative"
    for name in ("drop", "solo", "image_jitter", "audio_time_mask", "audio_band_mask", "text_drop"):
        if not 0 <= fields[name] < 1:
            return f"{name} = {fields[name]} must be from 0 to below 1"
    if not 0 < recipe.augment.image_crop <= 1:
        return f"image_crop = {recipe.augment.image_crop} must be above 0 and at most 1"
    return None
