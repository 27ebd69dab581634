"""Pictures of a training run and of an evaluation. Shape suffixes: L labels (rows: true, columns: predicted)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray


def learning_curves(path: Path, losses: Mapping[str, Sequence[float]], scores: Mapping[str, Sequence[float]]) -> None:
    """Losses on the left, scores on the right, over the epochs.

    Args:
        losses, scores: Name of a line -> its values, one per epoch.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, title, lines in zip(figure.subplots(1, 2), ("loss", "validation score"), (losses, scores), strict=True):
        for name, values in lines.items():
            axes.plot(range(1, len(values) + 1), values, marker=".", label=name)
        axes.set(title=title, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.legend()
    _save(figure, path)


def confusion(path: Path, counts_LL: NDArray[np.int64], labels: Sequence[str], title: str) -> None:
    """Counts as numbers, coloured by their share of the true label."""
    side = 2.5 + 0.6 * len(labels)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    shares_LL = counts_LL / np.maximum(1, counts_LL.sum(1, keepdims=True))
    axes.imshow(shares_LL, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(labels))
    axes.set_xticks(ticks, labels, rotation=45, ha="right")
    axes.set_yticks(ticks, labels)
    axes.set(title=title, xlabel="said", ylabel="true")
    for row, column in np.ndindex(*counts_LL.shape):
        colour = "white" if shares_LL[row, column] > 0.5 else "black"
        axes.text(column, row, str(counts_LL[row, column]), ha="center", va="center", color=colour, fontsize=8)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG without pyplot and its global state; a reader never sees half a file."""
    beside = path.with_name(path.name + ".new")
    FigureCanvasAgg(figure).print_png(str(beside))  # type: ignore[no-untyped-call]
    beside.replace(path)
