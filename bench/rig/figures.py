"""Figures with their spread, and what is drawn beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
import numpy as np


class Spread(msgspec.Struct, frozen=True):
    """Median and quartiles of the rounds."""

    median: float
    low: float
    high: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value; quartiles by linear interpolation."""
        low, median, high = (float(value) for value in np.percentile(values, (25, 50, 75)))
        return cls(median, low, high, len(values))

    @property
    def width(self) -> float:
        """Interquartile range."""
        return self.high - self.low

    def __str__(self) -> str:
        if self.count == 1:
            return f"{self.median:.3g}"
        return f"{self.median:.3g} ({self.low:.3g}–{self.high:.3g})"


class Figure(msgspec.Struct, frozen=True):
    """One measured quantity.

    Attributes:
        unit: Empty for a ratio; ratios alone are compared with the history.
        better: Which way an improvement goes.
        aim: What is wanted; ``None`` if the figure is only reported.
    """

    name: str
    spread: Spread
    unit: str = ""
    better: Literal["lower", "higher"] = "lower"
    aim: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the median meets the aim; ``None`` without one."""
        if self.aim is None:
            return None
        return self.spread.median <= self.aim if self.better == "lower" else self.spread.median >= self.aim


class Curve(msgspec.Struct, frozen=True):
    """A line in a plot.

    Attributes:
        points: (x, y).
    """

    name: str
    points: Sequence[tuple[float, float]]


class Plot(msgspec.Struct, frozen=True):
    """A picture beside the table, ``NAME.png``."""

    name: str
    x: str
    y: str
    curves: Sequence[Curve]
    x_scale: Literal["linear", "log"] = "linear"


class Report(msgspec.Struct, frozen=True):
    """What a benchmark found.

    Attributes:
        name: Of the benchmark, as in ``python -m bench.NAME``.
        notes: Sentences for the page: how much was run.
    """

    name: str
    figures: Sequence[Figure]
    notes: Sequence[str] = ()
    plots: Sequence[Plot] = ()


def ratios(values: Sequence[float], reference: Sequence[float]) -> Spread:
    """Spread of the ratios of rounds that ran side by side."""
    return Spread.of([value / base for value, base in zip(values, reference, strict=True)])


def regression(now: Figure, before: Spread) -> str | None:
    """One line if a ratio has become worse by more than its spread, else ``None``.

    The spread is the wider of the two interquartile ranges.
    """
    worse_by = now.spread.median - before.median
    if now.better == "higher":
        worse_by = -worse_by
    spread = max(now.spread.width, before.width)
    if worse_by <= spread:
        return None
    return (
        f"{now.name}: {now.spread.median:.3g}, was {before.median:.3g}, worse by more than the spread of {spread:.2g}"
    )


def table(figures: Sequence[Figure]) -> str:
    """Markdown: name, median and quartiles, aim."""
    rows = ["| | median (quartiles) | aim |", "|---|---|---|"]
    for figure in figures:
        sign = "≤" if figure.better == "lower" else "≥"
        missed = ", missed" if figure.reached is False else ""
        aim = "" if figure.aim is None else f"{sign} {figure.aim:g}{missed}"
        rows.append(f"| {figure.name} | {figure.spread}{' ' + figure.unit if figure.unit else ''} | {aim} |")
    return "\n".join(rows)
