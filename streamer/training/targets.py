"""Labels of examples -> tensors for the losses. Shape suffixes: see ``model/nets/inputs.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from streamer.errors import UsageError
from streamer.model.spec import Output
from streamer.training.dataset import Label

NO_CLASS = -100  # ignored by PyTorch's cross-entropy
NAN = float("nan")


def targets_of(labels: Sequence[Mapping[str, Label]], outputs: Mapping[str, Output]) -> dict[str, Tensor]:
    """One tensor for each output; labels that an example lacks are marked as missing.

    Returns:
        For classes int64 [B], missing: NO_CLASS; for tags float32 [B, L] of 0 and 1, missing: NaN; for numbers
        float32 [B] in the output's unit, missing: NaN.

    Raises:
        UsageError: The output does not have a label.
    """
    return {name: _target(name, output, [row.get(name) for row in labels]) for name, output in outputs.items()}


def labelled(target: Tensor) -> Tensor:
    """Which rows of a target are not missing.

    Returns:
        bool [B].
    """
    if target.dtype == torch.int64:
        return target != NO_CLASS
    return ~target.isnan().view(len(target), -1).any(1)


def only_where(target: Tensor, kept_B: Tensor) -> Tensor:
    """The target with the rows that are not kept marked as missing."""
    missing = NO_CLASS if target.dtype == torch.int64 else NAN
    return target.masked_fill(~kept_B.view(-1, *[1] * (target.ndim - 1)), missing)


def _target(name: str, output: Output, given: Sequence[Label | None]) -> Tensor:
    if output.kind == "classes":
        return torch.tensor([_class(name, output, label) for label in given], dtype=torch.int64)
    if output.kind == "tags":
        return torch.tensor([_tags(name, output, label) for label in given], dtype=torch.float32)
    return torch.tensor([_number(name, label) for label in given], dtype=torch.float32)


def _class(name: str, output: Output, label: Label | None) -> int:
    if label is None:
        return NO_CLASS
    if not isinstance(label, str) or label not in output.labels:
        raise UsageError(f"output {name!r} has no label {label!r}; it has: {', '.join(output.labels)}")
    return output.labels.index(label)


def _tags(name: str, output: Output, label: Label | None) -> list[float]:
    if label is None:
        return [NAN] * len(output.labels)
    if not isinstance(label, tuple | list) or (unknown := set(label) - set(output.labels)):
        wrong = sorted(unknown)[0] if isinstance(label, tuple | list) else label
        raise UsageError(f"output {name!r} has no tag {wrong!r}; it has: {', '.join(output.labels)}")
    return [float(tag in label) for tag in output.labels]


def _number(name: str, label: Label | None) -> float:
    if label is None:
        return NAN
    if isinstance(label, bool) or not isinstance(label, float | int):
        raise UsageError(f"output {name!r} is a number, not {label!r}")
    return float(label)
