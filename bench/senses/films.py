"""Frames of the films that the senses are measured on."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def frames_of(film: Path, count: int) -> list[NDArray[np.uint8]]:
    """Frames evenly spread over a film, uint8 [H, W, 3], RGB."""
    with av.open(str(film)) as container:
        total = sum(1 for _ in container.decode(video=0))
    wanted = {int((n + 0.5) * total / count) for n in range(count)}
    with av.open(str(film)) as container:
        return [frame.to_ndarray(format="rgb24") for n, frame in enumerate(container.decode(video=0)) if n in wanted]
