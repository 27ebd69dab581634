"""The fused vector -> outputs. Shape suffixes: see ``inputs``."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class Head(NamedTuple):
    """An output of a model.

    Attributes:
        size: Columns of its logits.
        is_number: It is a quantity; else its columns are labels, of which one, or any number, is right.
    """

    size: int
    is_number: bool = False


class NumberHead(nn.Module):
    """A quantity in its unit: a linear layer learns it standardised, so that the unit does not affect learning."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)
        self.register_buffer("mean", torch.zeros(()))  # of the training targets, in the output's unit
        self.register_buffer("deviation", torch.ones(()))

    def forward(self, fused_BD: Tensor) -> Tensor:
        """Returns [B, 1] in the output's unit."""
        with torch.autocast(fused_BD.device.type, enabled=False):  # bfloat16 has two digits
            standard_B1: Tensor = self.linear(fused_BD.float())
        return self.mean + self.deviation * standard_B1

    def standardise(self, values_N: Tensor) -> None:
        """Set mean and deviation from training targets.

        Raises:
            ValueError: There are no targets, or one is not finite.
        """
        values_N = values_N.double().flatten()
        if not len(values_N) or not torch.isfinite(values_N).all():
            raise ValueError("a number needs at least one target, and finite ones")
        self.mean.fill_(values_N.mean())
        deviation = values_N.std(correction=0)
        self.deviation.fill_(deviation if deviation > 0 else 1.0)  # 0 if all targets are equal


def new_head(head: Head, width: int) -> nn.Module:
    """A head with fresh weights."""
    return NumberHead(width) if head.is_number else nn.Linear(width, head.size)
