"""What happens in a simulated drive: segments with three hidden facts, and the action that follows from them.

    siren      an emergency vehicle is near      heard in the audio, spoken of in the transcripts
    obstacle   something stands in the own lane  seen in the frames, spoken of in the transcripts
    fast       the car moves fast                measured in the telemetry, heard in the audio

Each fact shows in two modalities and no modality shows all three. So no single modality can tell the six actions apart
(an ideal one is right in two thirds of the cases), and any one of them may be missing.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

LABELS = ("proceed", "brake", "creep", "pull_over", "hold", "emergency_stop")
SEGMENT_S = (4, 9)  # shortest, longest; whole seconds, so that windows of a second do not straddle two
FAST_MPS = (16.0, 30.0)
SLOW_MPS = (1.0, 6.0)

# label -> (siren, obstacle, fast); None: either
FACTS: dict[str, tuple[bool, bool, bool | None]] = {
    "proceed": (False, False, None),
    "brake": (False, True, True),
    "creep": (False, True, False),
    "pull_over": (True, False, True),
    "hold": (True, False, False),
    "emergency_stop": (True, True, None),
}


class Segment(msgspec.Struct, frozen=True):
    """A stretch of a drive in which the hidden facts do not change; times in whole seconds of the drive."""

    start_s: int
    end_s: int
    label: str
    siren: bool
    obstacle: bool
    fast: bool
    speed_mps: float
    curvature: float  # -1 (left) to 1 (right)


def segments(rng: np.random.Generator, seconds: int) -> Iterator[Segment]:
    """A drive's segments: labels uniformly, then what the label leaves open uniformly."""
    start_s = 0
    while start_s < seconds:
        end_s = min(seconds, start_s + int(rng.integers(SEGMENT_S[0], SEGMENT_S[1] + 1)))
        label = LABELS[int(rng.integers(len(LABELS)))]
        siren, obstacle, fast = FACTS[label]
        coin = bool(rng.integers(2))
        fast = coin if fast is None else fast
        speed_mps = float(rng.uniform(*(FAST_MPS if fast else SLOW_MPS)))
        yield Segment(start_s, end_s, label, siren, obstacle, fast, speed_mps, float(rng.uniform(-1, 1)))
        start_s = end_s
