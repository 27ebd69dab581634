"""Examples of any source -> a fitted model. Shape suffixes: see ``model/nets/inputs.py``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from streamer.errors import UsageError
from streamer.model import repository
from streamer.model.nets.inputs import Inputs, Outputs
from streamer.model.nets.model import FusedModel
from streamer.model.spec import ModelSpec, Output
from streamer.terminal.progress import Lines
from streamer.training import checkpoint
from streamer.training.augment import band_masks, gaps, hide, vary
from streamer.training.batches import Batch, Collator, Dataset, Survey, few, in_order, load, shuffled, survey
from streamer.training.checkpoint import CHECKPOINT_FILE, Checkpoint
from streamer.training.losses import Contrast, Probes, same_content, task_loss
from streamer.training.processes import Processes
from streamer.training.recipe import Recipe
from streamer.training.targets import labelled
from streamer.training.vocabulary import new_tokenizer

WARM_UP = 0.1  # share of the steps until the highest learning rate
MAX_NORM = 1.0  # of the gradient
SEED_STRIDE = 1_000_003  # more than any run has epochs or processes, so that no two share a seed


class Epoch(msgspec.Struct, frozen=True):
    """Result of an epoch.

    Attributes:
        training_loss: The task's loss, mean over the epoch's windows with their gaps and variations.
        validation_loss: Mean of the loss with all sensors and of that with gaps; both include the contrastive part,
            the only one for examples without labels.
        scores: Output -> score on the validation examples with all sensors: accuracy for classes, share of right
            tags for tags, mean absolute error in the output's unit for numbers.
        scores_with_gaps: The same with sensors hidden, the same ones in every epoch.
    """

    number: int
    training_loss: float
    validation_loss: float
    scores: dict[str, float]
    scores_with_gaps: dict[str, float]


class Fitted(NamedTuple):
    """A model with the weights of its best epoch."""

    module: nn.Module
    tokenizer: Tokenizer | None
    epochs: tuple[Epoch, ...]


class Where(NamedTuple):
    """Where a run takes place.

    Attributes:
        run_dir: Gets the checkpoint and TensorBoard's logs; ``None``: these are not written.
        resume: Resume from the checkpoint in ``run_dir``.
        device: Of this process.
    """

    run_dir: Path | None = None
    resume: bool = False
    device: torch.device = torch.device("cpu")
    processes: Processes = Processes()


def fit(
    folder: Path,
    spec: ModelSpec,
    training: Dataset,
    validation: Dataset,
    recipe: Recipe,
    console: Console,
    where: Where = Where(),  # noqa: B008 - immutable
) -> Fitted:
    """Fit a fresh model; the weights of the epoch with the lowest validation loss are kept.

    Raises:
        UsageError: The model lacks a label, or there is no example, or no checkpoint to resume from.
    """
    if not len(training) or not len(validation):
        raise UsageError("there must be at least one example to train on and one to validate with")
    if recipe.shots is not None:
        training = few(training, spec, recipe.shots, recipe.seed)
    run = _Run(folder, spec, training, validation, recipe, console, where)
    return run.go()


class _Objective(nn.Module):
    """The network and its losses as one module, so that DistributedDataParallel sees all parameters."""

    def __init__(
        self,
        network: nn.Module,
        spec: ModelSpec,
        recipe: Recipe,
        numbers: Mapping[str, tuple[float, float]],
        example: Inputs,
    ) -> None:
        super().__init__()
        self.network = network
        self.contrast = Contrast() if recipe.contrast else None
        self.probes = Probes(_widths(network, example), spec.outputs, numbers) if recipe.probe else None
        self._spec, self._recipe = spec, recipe
        self._deviations = {name: deviation for name, (_, deviation) in numbers.items()}

    def forward(
        self, batch: Batch, same_BB: Tensor | None, shown: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The loss to minimise, the task's part of it, and the logits.

        Args:
            shown: Sensor -> which windows show it. The built-in network does not fuse hidden sensors but computes
                their vectors, for the contrastive loss; a network of ``model.py`` does not see them at all.
        """
        if shown is None:
            outputs: Outputs = self.network(batch.inputs)
        elif isinstance(self.network, FusedModel):
            outputs = self.network(batch.inputs, shown)
        else:
            outputs = self.network(batch.inputs.shown_in(shown))
        task = task_loss(outputs.logits, batch.targets, self._spec.outputs, self._deviations)
        loss = task
        if self.contrast is not None:
            loss = loss + self._recipe.contrast * self.contrast(outputs.parts, outputs.embedding_BD, same_BB)
        if self.training and self.probes is not None and self.probes.probes:  # not part of the model, so not validated
            loss = loss + self._recipe.probe * self.probes(outputs.parts, batch.targets)
        return loss, task.detach(), outputs.logits


@torch.no_grad()
def _widths(network: nn.Module, example: Inputs) -> dict[str, int]:
    """Sensor -> length of its vectors, found by a forward pass; a network may have none."""
    outputs: Outputs = network.eval()(example)
    return {name: part_BD.shape[1] for name, (part_BD, _) in outputs.parts.items()}


class _Run:
    """One run of the loop over the epochs."""

    def __init__(
        self,
        folder: Path,
        spec: ModelSpec,
        training: Dataset,
        validation: Dataset,
        recipe: Recipe,
        console: Console,
        where: Where,
    ) -> None:
        self._spec, self._recipe, self._console, self._where = spec, recipe, console, where
        self._training, self._validation = training, validation
        self._made_for = _made_for(spec, recipe, len(training), where.processes.world)
        self._kept = where.run_dir / CHECKPOINT_FILE if where.run_dir else None
        found = checkpoint.load(self._kept, self._made_for) if where.resume and self._kept else None
        seen = survey(training, spec, recipe.seed, console) if found is None else None
        self._tokenizer = _tokenizer(spec, folder, seen, found, console)
        self._numbers = _moments(seen) if seen is not None else dict(found.notes["numbers"] if found else {})
        torch.manual_seed(recipe.seed)
        module = repository.new_module(spec, folder, self._tokenizer, pretrained=found is None)
        if seen is not None:
            _standardise(module, seen, console)
        example = self._collator()([training[0]]).inputs
        self._objective = _Objective(module, spec, recipe, self._numbers, example).to(where.device)
        self._module = module
        if recipe.compile:
            module.compile()
        own_windows = -(-len(training) // where.processes.world)
        self._batches = -(-own_windows // recipe.batch)  # of this process, per epoch
        self._steps = -(-self._batches // recipe.accumulate)
        self._optimiser, self._schedule = self._optimisation()
        self._epochs: list[Epoch] = []
        self._best: dict[str, Tensor] = {}
        if found is not None:
            self._restore(found)
        self._trained: nn.Module = self._objective
        if where.processes.world > 1:
            self._trained = DistributedDataParallel(self._objective, find_unused_parameters=True)

    def _optimisation(self) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
        """Optimiser and schedule of all parameters that are not frozen; vectors (norms, biases, …) do not decay."""
        free = [parameter for parameter in self._objective.parameters() if parameter.requires_grad]
        if not free:
            raise UsageError("every parameter of the model is frozen: there is nothing to train")
        groups = [
            {"params": [p for p in free if p.ndim > 1], "weight_decay": self._recipe.weight_decay},
            {"params": [p for p in free if p.ndim <= 1], "weight_decay": 0.0},
        ]
        highest = self._recipe.learning_rate
        optimiser = torch.optim.AdamW([group for group in groups if group["params"]], highest)
        total = max(2, self._recipe.epochs * self._steps)
        return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, highest, total_steps=total, pct_start=WARM_UP)

    def go(self) -> Fitted:
        recipe, first = self._recipe, self._where.processes.first
        with ExitStack() as stack:
            stack.enter_context(band_masks(self._module, recipe.augment.audio_band_mask))
            progress = stack.enter_context(_progress(self._console))
            board = stack.enter_context(_Board(self._where.run_dir if first else None, len(self._epochs)))
            total, done = recipe.epochs * self._batches, len(self._epochs) * self._batches
            task = progress.add_task("training", total=total, completed=done, note="")
            lines = Lines(self._console, "training, batches", total, done)

            def advance() -> None:
                progress.advance(task)
                lines.advance()

            while len(self._epochs) < recipe.epochs and not self._finished():
                number = len(self._epochs) + 1
                loss = self._epoch(number, advance)
                self._epochs.append(self._validate(number, loss))
                if not math.isfinite(self._epochs[-1].validation_loss):
                    raise UsageError(f"the loss of epoch {number} is not finite: lower the learning rate")
                if self._epochs[-1].validation_loss <= min(epoch.validation_loss for epoch in self._epochs):
                    self._best = {name: value.detach().clone() for name, value in self._module.state_dict().items()}
                self._keep()
                board.add(self._epochs[-1], float(self._schedule.get_last_lr()[0]))
                progress.update(task, note=_note(self._epochs[-1]))
                self._console.log(f"epoch {number}: {_note(self._epochs[-1])}")
        self._module.load_state_dict(self._best)
        return Fitted(self._module.cpu().eval(), self._tokenizer, tuple(self._epochs))

    def _finished(self) -> bool:
        """Whether the validation loss has not improved for as many epochs as the recipe's patience."""
        best = min(self._epochs, key=lambda epoch: epoch.validation_loss, default=None)
        return best is not None and len(self._epochs) - best.number >= self._recipe.patience

    def _epoch(self, number: int, advance: Any) -> float:
        """One pass over the data; returns the mean loss of the task."""
        self._trained.train()
        own, recipe = self._where.processes, self._recipe
        seed = recipe.seed * SEED_STRIDE + number
        order = shuffled(len(self._training), recipe.batch, seed, own.rank, own.world)
        torch.manual_seed(seed + own.rank * SEED_STRIDE**2)
        sums_2 = torch.zeros(2, device=self._where.device)  # loss × windows, windows
        for done, batch in enumerate(load(self._training, order, self._collator(), recipe.workers), 1):
            last_of_step = done % recipe.accumulate == 0 or done == len(order)
            together = len(order) % recipe.accumulate if done > len(order) - len(order) % recipe.accumulate else 0
            sums_2[0] += self._descend(batch, together or recipe.accumulate, step=last_of_step) * batch.windows
            sums_2[1] += batch.windows
            advance()
        loss, windows = own.sum(sums_2).tolist()
        return float(loss / windows)

    def _descend(self, batch: Batch, together: int, *, step: bool) -> Tensor:
        """Add the gradient of one of ``together`` batches that make a step; take the step if ``step``."""
        recipe, device = self._recipe, self._where.device
        varied = batch._replace(inputs=vary(batch.inputs, recipe.augment))
        shown = {n: shown_B.to(device) for n, shown_B in gaps(varied.inputs, recipe.drop, recipe.solo).items()}
        same_BB = self._same(batch)
        alone = isinstance(self._trained, DistributedDataParallel) and not step
        with self._trained.no_sync() if alone else nullcontext():  # type: ignore[operator]
            with self._autocast():
                loss, task, _ = self._trained(varied.to(device), same_BB, shown)
            (loss / together).backward()
        if step:
            nn.utils.clip_grad_norm_(self._objective.parameters(), MAX_NORM)
            self._optimiser.step()
            self._schedule.step()
            self._optimiser.zero_grad()
        return task  # type: ignore[no-any-return]

    def _validate(self, number: int, training_loss: float) -> Epoch:
        """Losses and scores with all sensors, and with some hidden, the same ones in every epoch."""
        self._trained.eval()
        own = self._where.processes
        order = in_order(len(self._validation), self._recipe.batch, own.rank, own.world)
        names = tuple(self._spec.outputs)
        sums_2X2 = torch.zeros(2, len(names) + 1, 2)  # whole and with gaps; loss, then each output; sum, count
        with torch.random.fork_rng(devices=[]), torch.inference_mode():
            torch.manual_seed(self._recipe.seed)
            for batch in load(self._validation, order, self._collator(), self._recipe.workers):
                hidden = batch._replace(inputs=hide(batch.inputs, self._recipe.drop, self._recipe.solo))
                for sums_X2, shown in zip(sums_2X2, (batch, hidden), strict=True):
                    sums_X2 += self._measure(shown)
        sums_2X2 = own.sum(sums_2X2.to(self._where.device)).cpu()
        means_2X = (sums_2X2[..., 0] / sums_2X2[..., 1].clamp_min(1)).tolist()
        scores, with_gaps = (dict(zip(names, means[1:], strict=True)) for means in means_2X)
        return Epoch(number, training_loss, (means_2X[0][0] + means_2X[1][0]) / 2, scores, with_gaps)

    def _measure(self, shown: Batch) -> Tensor:
        """Sums of loss and scores over a batch, with the counts to divide them by [1 + outputs, 2]."""
        batch = shown.to(self._where.device)
        with self._autocast():
            loss, _, logits = self._objective(batch, self._same(shown))
        rows = [torch.stack([loss * batch.windows, loss.new_tensor(batch.windows)])]
        rows += [_score(logits[n].float(), batch.targets[n], output) for n, output in self._spec.outputs.items()]
        return torch.stack(rows).cpu()

    def _same(self, batch: Batch) -> Tensor | None:
        if not self._recipe.contrast:
            return None
        return same_content(batch.targets, self._spec.outputs, batch.inputs).to(self._where.device)

    def _collator(self) -> Collator:
        return Collator(self._spec, self._tokenizer)

    def _autocast(self) -> torch.autocast:
        kind, wanted = self._where.device.type, self._recipe.precision
        half = wanted == "bfloat16" or (wanted == "auto" and kind == "cuda")
        return torch.autocast(kind, torch.bfloat16, enabled=half)

    # interruptions

    def _keep(self) -> None:
        if self._kept is None or not self._where.processes.first:
            return
        notes = {
            "epochs": msgspec.to_builtins(self._epochs),
            "schedule": self._schedule.last_epoch,
            "tokenizer": self._tokenizer.to_str() if self._tokenizer is not None else None,
            "numbers": self._numbers,
        }
        current, optimiser = self._objective.state_dict(), self._optimiser.state_dict()
        kept = Checkpoint(self._made_for, notes, current, self._best, optimiser)
        checkpoint.save(self._kept, kept)

    def _restore(self, found: Checkpoint) -> None:
        self._objective.load_state_dict(found.current)
        self._optimiser.load_state_dict(found.optimiser)
        self._schedule.last_epoch = found.notes["schedule"]  # steps so far, which determine its next rate
        self._epochs = msgspec.convert(found.notes["epochs"], list[Epoch])
        self._best = {name: value.to(self._where.device) for name, value in found.best.items()}


def _made_for(spec: ModelSpec, recipe: Recipe, examples: int, world: int) -> dict[str, Any]:
    """What must be the same when a run is resumed, as decoded from JSON."""
    model = hashlib.sha256(msgspec.json.encode(spec)).hexdigest()[:8]
    fields = {f"recipe.{name}": value for name, value in msgspec.to_builtins(recipe).items()}
    return {"model.toml": model, **fields, "number of examples": examples, "number of processes": world}


def _tokenizer(
    spec: ModelSpec, folder: Path, seen: Survey | None, found: Checkpoint | None, console: Console
) -> Tokenizer | None:
    """The interrupted run's tokenizer, else a new one."""
    if found is not None:
        return Tokenizer.from_str(found.notes["tokenizer"]) if found.notes["tokenizer"] else None
    if seen is None:
        return None
    return new_tokenizer(spec, folder, seen.texts, lambda line: console.log(line, markup=False))


def _moments(seen: Survey) -> dict[str, tuple[float, float]]:
    """Mean and deviation of each number; the deviation is 1 if all values are equal."""
    known = {name: values_N for name, values_N in seen.numbers.items() if len(values_N)}
    moments = {name: (float(values_N.mean()), float(values_N.std(correction=0))) for name, values_N in known.items()}
    return {name: (mean, deviation or 1.0) for name, (mean, deviation) in moments.items()}


def _standardise(module: nn.Module, seen: Survey, console: Console) -> None:
    """Set the built-in model's measured means and deviations; a module of ``model.py`` may scale as it likes."""
    if not isinstance(module, FusedModel):
        return
    module.standardise(seen.telemetry)
    for name, values_N in seen.numbers.items():
        if len(values_N):
            module.standardise_targets(name, values_N)
    for line in module.notes():
        console.log(line, markup=False)


def _score(logits_BL: Tensor, target: Tensor, output: Output) -> Tensor:
    """Sum and count [2] whose quotient is an output's score; see :class:`Epoch`."""
    there_B = labelled(target)
    if output.kind == "classes":
        hits = (logits_BL.argmax(1) == target) & there_B
        return torch.stack([hits.sum().float(), there_B.sum().float()])
    if output.kind == "tags":
        hits_BL = ((logits_BL > 0) == (target > 0.5)) & there_B[:, None]
        return torch.stack([hits_BL.sum().float(), there_B.sum().float() * len(output.labels)])
    off_B = torch.where(there_B, (logits_BL[:, 0] - target).abs(), 0.0)
    return torch.stack([off_B.sum(), there_B.sum().float()])


class _Board:
    """TensorBoard's log of a run.

    Args:
        run_dir: Where to write it; ``None``: it is not written.
        epochs: Number of epochs in the checkpoint; what the interrupted run wrote after these is dropped.
    """

    def __init__(self, run_dir: Path | None, epochs: int) -> None:
        self._writer: Any = None
        if run_dir is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(run_dir), purge_step=epochs + 1)

    def __enter__(self) -> _Board:
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, epoch: Epoch, learning_rate: float) -> None:
        if self._writer is not None:
            for name, value in _scalars(epoch):
                self._writer.add_scalar(name, value, epoch.number)
            self._writer.add_scalar("learning_rate", learning_rate, epoch.number)
            self._writer.flush()


def _scalars(epoch: Epoch) -> Iterator[tuple[str, float]]:
    yield "loss/training", epoch.training_loss
    yield "loss/validation", epoch.validation_loss
    for name, score in epoch.scores.items():
        yield f"score/{name}", score
        yield f"score/{name}, with gaps", epoch.scores_with_gaps[name]


def _note(epoch: Epoch) -> str:
    scores = ", ".join(
        f"{name} {score:.3f} (with gaps {epoch.scores_with_gaps[name]:.3f})" for name, score in epoch.scores.items()
    )
    return f"loss {epoch.training_loss:.3f}, validation {epoch.validation_loss:.3f}, {scores}"


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shown = TextColumn("{task.fields[note]}")
    return Progress(*columns, shown, console=console, transient=True, disable=not console.is_terminal)
