"""Examples -> batches of tensors, in an order determined by a seed. Shape suffixes: see ``model/nets/inputs.py``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
from rich.console import Console
from tokenizers import Tokenizer
from torch import Tensor
from torch.utils.data import DataLoader, Subset

from streamer.errors import UsageError
from streamer.model.collate import collate
from streamer.model.nets.inputs import Inputs
from streamer.model.sample import only
from streamer.model.spec import Input, InputSpec, ModelSpec, TelemetryInput
from streamer.terminal.progress import track
from streamer.training.dataset import Example
from streamer.training.targets import labelled, targets_of

SURVEYED = 20_000  # most examples from which tokenizer and scales are made; drawn at random from a larger set


class Dataset(Protocol):
    """A map-style data set; examples may be read from disk on access."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Example: ...


class Batch(NamedTuple):
    """Windows as tensors, with their targets."""

    inputs: Inputs
    targets: dict[str, Tensor]  # output -> see ``targets``

    def to(self, device: torch.device) -> Batch:
        inputs = self.inputs.each(lambda tensor: tensor.to(device))
        return Batch(inputs, {name: target.to(device) for name, target in self.targets.items()})

    @property
    def windows(self) -> int:
        """Number of windows (``len`` is that of the named tuple)."""
        return len(next(iter(self.inputs.tensors().values())))


class Collator:
    """Examples -> :class:`Batch`; a class, so that it can be sent to a loader process."""

    def __init__(self, spec: ModelSpec, tokenizer: Tokenizer | None) -> None:
        self._spec, self._tokenizer = spec, tokenizer

    def __call__(self, examples: Sequence[Example]) -> Batch:
        targets = targets_of([example.labels for example in examples], self._spec.outputs)
        return Batch(collate([example.sample for example in examples], self._spec.inputs, self._tokenizer), targets)


def shuffled(count: int, batch: int, seed: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """The indices of one epoch, in batches.

    Args:
        rank, world: Number of this process, and how many there are. All get equally many batches of the same sizes:
            the order is extended from its beginning to a multiple of ``world``.
    """
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    order += (order * world)[: -count % world]
    return _split(order[rank::world], batch)


def in_order(count: int, batch: int, rank: int = 0, world: int = 1) -> list[list[int]]:
    """All indices once, in batches; each of several processes gets a part, which may be empty."""
    return _split([*range(rank, count, world)], batch)


def _split(order: list[int], batch: int) -> list[list[int]]:
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def load(data: Dataset, batches: list[list[int]], collator: Collator, workers: int = 0) -> Iterable[Batch]:
    """Read these batches one after another; ``workers`` processes read ahead."""
    return DataLoader(data, batch_sampler=batches, collate_fn=collator, num_workers=workers)  # type: ignore[arg-type]


class Survey(NamedTuple):
    """What must be known about the data before a module can be made.

    Attributes:
        texts: Of all phrases.
        telemetry: One batch with the telemetry of all windows, without other kinds.
        numbers: Output of kind number -> its values, in its unit.
    """

    texts: list[str]
    telemetry: Inputs
    numbers: dict[str, Tensor]


def survey(data: Dataset, spec: ModelSpec, seed: int, console: Console) -> Survey:
    """Read the data once, or of a larger set SURVEYED examples chosen by the seed."""
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:SURVEYED].sort().values.tolist()
    more: dict[str, Input] = {n: one for n, one in spec.inputs.more.items() if isinstance(one, TelemetryInput)}
    only_telemetry = InputSpec(telemetry=spec.inputs.telemetry, more=more)
    measured = list(only_telemetry.all)
    texts: list[str] = []
    samples, labels = [], []
    for index in track(chosen, "looking at the data", console):
        example = data[index]
        for name in spec.inputs.of_kind("text"):
            texts += [phrase.text for phrase in example.sample.of(name).text]
        labels.append(example.labels)
        samples.append(only(example.sample, measured))
    targets = targets_of(labels, {n: output for n, output in spec.outputs.items() if output.kind == "number"})
    numbers = {name: target[labelled(target)] for name, target in targets.items()}
    return Survey(texts, collate(samples, only_telemetry, None), numbers)


def few(data: Dataset, spec: ModelSpec, shots: int, seed: int) -> Subset[Example]:
    """Few-shot: of each label of each output the first ``shots`` examples, in an order determined by the seed.

    Raises:
        UsageError: A label has fewer, or no output has labels.
    """
    wanted = {(name, label) for name, output in spec.outputs.items() for label in output.labels}
    if not wanted:
        raise UsageError(f"shots = {shots} counts examples of each label, and no output of this model has labels")
    counts: Counter[tuple[str, str]] = Counter()
    chosen = []
    for index in torch.randperm(len(data), generator=torch.Generator().manual_seed(seed)).tolist():
        shows = set(_labels(data[index])) & wanted
        if any(counts[label] < shots for label in shows):
            counts.update(shows)
            chosen.append(index)
        if all(counts[label] >= shots for label in wanted):
            return Subset(data, chosen)  # type: ignore[arg-type]
    name, label = min(wanted, key=lambda pair: (counts[pair], pair))
    raise UsageError(
        f"label {label!r} of output {name!r} has {counts[name, label]} examples, shots = {shots} needs more"
    )


def _labels(example: Example) -> Iterator[tuple[str, str]]:
    for name, label in example.labels.items():
        if isinstance(label, str):
            yield name, label
        elif isinstance(label, tuple):
            yield from ((name, tag) for tag in label)
