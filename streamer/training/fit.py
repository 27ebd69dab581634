"""Examples -> a fitted model, wherever the examples come from. Shape suffixes: see ``nets/inputs.py``."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional

from streamer import repository
from streamer.collate import collate
from streamer.events import MODALITY_NAMES
from streamer.nets.inputs import Inputs, Outputs
from streamer.nets.model import FusedModel
from streamer.repository import ModelSpec
from streamer.training.dataset import Example
from streamer.training.losses import contrastive
from streamer.training.vocabulary import new_tokenizer


class Recipe(msgspec.Struct, frozen=True):
    """How a model is trained.

    Attributes:
        drives: Simulated drives to learn from; one more for every eight decides when to stop.
        seconds: Length of each.
        patience: Epochs without a better validation loss after which training ends.
        drop: Chance of each modality of a window to be hidden, so that the model learns to do without.
        solo: Chance of a window to be shown through one modality alone: without it the modality that is easiest to
            learn from leaves the others nothing to explain, and the model is lost where that one is missing.
        contrast: Weight of the contrastive loss beside the task's.
    """

    drives: int = 40
    seconds: int = 120
    epochs: int = 16
    seed: int = 0
    batch: int = 64
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    patience: int = 4
    drop: float = 0.25
    solo: float = 0.3
    contrast: float = 0.1


class Epoch(msgspec.Struct, frozen=True):
    """What an epoch came to: mean losses, and accuracy on the validation drives with everything and with gaps."""

    number: int
    training_loss: float
    validation_loss: float
    accuracy: float
    accuracy_with_gaps: float


def fit(
    folder: Path,
    spec: ModelSpec,
    training: Sequence[Example],
    validation: Sequence[Example],
    recipe: Recipe,
    console: Console,
) -> tuple[nn.Module, Tokenizer | None, tuple[Epoch, ...]]:
    """Fit a fresh model; the weights of the epoch with the lowest validation loss are kept."""
    torch.manual_seed(recipe.seed)
    tokenizer = new_tokenizer(spec, folder, (p.text for e in training for p in e.sample.text), console.log)
    module = repository.new_module(spec, folder, tokenizer)
    learn, check = _tensors(training, spec, tokenizer), _tensors(validation, spec, tokenizer)
    if isinstance(module, FusedModel):
        module.standardise(learn.inputs)
        for note in module.notes():
            console.log(note)
    optimiser = torch.optim.AdamW(module.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = recipe.epochs * -(-len(training) // recipe.batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.1)
    epochs: list[Epoch] = []
    best: dict[str, Tensor] = {}
    with _progress(console) as progress:
        task = progress.add_task("training", total=steps, note="")
        for number in range(1, recipe.epochs + 1):
            loss = _epoch(module, learn, recipe, optimiser, schedule, lambda: progress.advance(task))
            epochs.append(_validate(module, check, recipe, number, loss))
            if epochs[-1].validation_loss <= min(epoch.validation_loss for epoch in epochs):
                best = deepcopy(module.state_dict())
            progress.update(task, note=_note(epochs[-1]))
            console.log(f"epoch {number}: {_note(epochs[-1])}")
            if number - min(epochs, key=lambda epoch: epoch.validation_loss).number >= recipe.patience:
                break
    module.load_state_dict(best)
    return module.eval(), tokenizer, tuple(epochs)


class _Tensors(msgspec.Struct, frozen=True):
    """A data set as one batch."""

    inputs: Inputs
    labels: dict[str, Tensor]  # output -> [N]

    def rows(self, index_B: Tensor) -> _Tensors:
        inputs = Inputs(*(None if part is None else part[index_B] for part in self.inputs))
        return _Tensors(inputs, {name: label_N[index_B] for name, label_N in self.labels.items()})

    def __len__(self) -> int:
        return len(next(iter(self.labels.values())))


def _tensors(given: Sequence[Example], spec: ModelSpec, tokenizer: Tokenizer | None) -> _Tensors:
    labels = {
        name: torch.tensor([output.labels.index(example.labels[name]) for example in given])
        for name, output in spec.outputs.items()
    }
    return _Tensors(collate([example.sample for example in given], spec.inputs, tokenizer), labels)


def _epoch(
    module: nn.Module,
    learn: _Tensors,
    recipe: Recipe,
    optimiser: torch.optim.Optimizer,
    schedule: torch.optim.lr_scheduler.LRScheduler,
    advance: Any,
) -> float:
    module.train()
    total = 0.0
    for index_B in torch.split(torch.randperm(len(learn)), recipe.batch):
        batch = learn.rows(index_B)
        outputs: Outputs = module(hide(batch.inputs, recipe.drop, recipe.solo))
        loss = _task_loss(outputs, batch.labels)
        total += loss.item() * len(index_B)
        if recipe.contrast:
            label_B = torch.unique(torch.stack(list(batch.labels.values())), dim=1, return_inverse=True)[1]
            loss = loss + recipe.contrast * contrastive(outputs.parts, outputs.embedding_BD, label_B)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        advance()
    return total / len(learn)


def hide(inputs: Inputs, chance: float, solo: float = 0.0) -> Inputs:
    """Modality dropout: of a share ``solo`` of the windows keep one modality, of the others mask each with a chance.

    A window of which the draw would leave nothing keeps everything.
    """
    names = [name for name in MODALITY_NAMES if getattr(inputs, _mask_field(name)) is not None]
    windows = len(getattr(inputs, _mask_field(names[0])))
    keep_BM = torch.rand(windows, len(names)) >= chance
    there_BM = torch.stack([getattr(inputs, _mask_field(name)).flatten(1).any(1) for name in names], dim=1)
    one_B = torch.rand(windows, len(names)).masked_fill(~there_BM, -1.0).argmax(1)
    alone_BM = functional.one_hot(one_B, len(names)).bool()
    keep_BM = torch.where(torch.rand(windows, 1) < solo, alone_BM, keep_BM)
    keep_BM |= ~(keep_BM & there_BM).any(1, keepdim=True)
    masks = {}
    for column, name in enumerate(names):
        mask = getattr(inputs, _mask_field(name))
        masks[_mask_field(name)] = mask & keep_BM[:, column].view(-1, *[1] * (mask.ndim - 1))
    return inputs._replace(**masks)


def _mask_field(modality: str) -> str:
    return next(field for field in Inputs._fields if field.startswith(f"{modality}_mask_"))


def _task_loss(outputs: Outputs, labels: dict[str, Tensor]) -> Tensor:
    losses = [functional.cross_entropy(outputs.logits[name], label_B) for name, label_B in labels.items()]
    return torch.stack(losses).sum()


def _validate(module: nn.Module, check: _Tensors, recipe: Recipe, number: int, training_loss: float) -> Epoch:
    """Loss and accuracy with all that is there, and with modalities hidden, the same ones in every epoch."""
    module.eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        hidden = hide(check.inputs, recipe.drop, recipe.solo)
    whole_loss, whole = _measure(module, check, recipe.batch)
    gaps_loss, gaps = _measure(module, _Tensors(hidden, check.labels), recipe.batch)
    return Epoch(number, training_loss, (whole_loss + gaps_loss) / 2, whole, gaps)


@torch.inference_mode()
def _measure(module: nn.Module, given: _Tensors, batch: int) -> tuple[float, float]:
    """Mean loss and accuracy (all outputs right)."""
    loss, right = 0.0, 0
    for index_B in torch.split(torch.arange(len(given)), batch):
        rows = given.rows(index_B)
        outputs: Outputs = module(rows.inputs)
        loss += _task_loss(outputs, rows.labels).item() * len(index_B)
        hits = [outputs.logits[name].argmax(1) == label_B for name, label_B in rows.labels.items()]
        right += int(torch.stack(hits).all(0).sum())
    return loss / len(given), right / len(given)


def _note(epoch: Epoch) -> str:
    return (
        f"loss {epoch.training_loss:.3f}, validation {epoch.validation_loss:.3f}, "
        f"accuracy {epoch.accuracy:.3f}, with gaps {epoch.accuracy_with_gaps:.3f}"
    )


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, TextColumn("{task.fields[note]}"), console=console, transient=True)
