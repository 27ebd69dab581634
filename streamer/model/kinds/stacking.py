"""Arrays of several samples as one batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Scalar = TypeVar("Scalar", bound=np.generic)


def stacked(arrays: Sequence[NDArray[Scalar] | None], shape: tuple[int, ...], of: type[Scalar]) -> NDArray[Scalar]:
    """Arrays as a batch of the given shape, with 0 where one is ``None`` or shorter."""
    batch = np.zeros((len(arrays), *shape), of)
    for row, array in zip(batch, arrays, strict=True):
        if array is not None:
            row[tuple(slice(size) for size in array.shape)] = array
    return batch


def masks(arrays: Sequence[NDArray[np.bool_] | None], shape: tuple[int, ...]) -> Tensor:
    """Masks as a batch of the given shape, with False where one is ``None`` or shorter."""
    return torch.from_numpy(stacked(arrays, shape, np.bool_))
