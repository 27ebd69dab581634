"""Windows -> where their sensors lie in the common space. Shape suffixes: see ``streamer.training.dataset``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from rich.console import Console

from streamer.model.predictor import Network, Vectors
from streamer.terminal.progress import track
from streamer.training.dataset import Example

BATCH = 32
WINDOW = "window"  # the fused vector of a window with all sensors, as published


def vectors_of(network: Network, windows: Sequence[Example], what: str, console: Console) -> dict[str, Vectors]:
    """Sensor or WINDOW -> its vectors of length 1 [N, D], and which windows have it [N].

    Args:
        what: Is being done, for the progress that is shown.
    """
    rows: dict[str, list[Vectors]] = {}
    for start in track(range(0, len(windows), BATCH), what, console):
        samples = [example.sample for example in windows[start : start + BATCH]]
        parts, embedding_ND = network.vectors(samples)
        for name, part in {**parts, WINDOW: (embedding_ND, np.ones(len(samples), np.bool_))}.items():
            rows.setdefault(name, []).append(part)
    return {name: (np.concatenate([v for v, _ in p]), np.concatenate([h for _, h in p])) for name, p in rows.items()}
