"""What happens in a simulated drive: segments with three hidden facts, and the action that follows from them.

    siren      an emergency vehicle is near      heard in the audio, spoken of in the transcripts
    obstacle   something stands in the own lane  seen in the frames, spoken of in the transcripts
    fast       the car moves fast                measured in the telemetry, heard in the audio

Each fact shows in two modalities and no modality shows all three. So no single modality can tell the six actions apart
(an ideal one is right in two thirds of the cases), and any one of them may be missing.

Other details do not affect the action. They distinguish windows from one another, which the common embedding space of
the modalities, and a search in it, needs:

    which obstacle, the light, the weather, the bend    seen in the frames, spoken of in the transcripts
    which siren, and what sounds beside the road        heard in the audio, spoken of in the transcripts
    rain                                                heard in the audio too
    the bend                                            measured in the telemetry too

Two more facts do not affect the action either, and depend on nothing else. Each shows in one sensor alone, which a car
with only the default four lacks:

    behind      what follows the car                     seen by a camera that looks backwards
    occupants   what those in the car do                 heard by a microphone in the cabin

So a siren does not tell whether the emergency vehicle follows the car: it may be elsewhere, and one that follows may be
silent.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np

LABELS = ("proceed", "brake", "creep", "pull_over", "hold", "emergency_stop")
SEGMENT_S = (4, 9)  # shortest, longest; whole seconds, so that windows of a second do not straddle two
FAST_MPS = (16.0, 30.0)
SLOW_MPS = (1.0, 6.0)
OBSTACLES = ("pedestrian", "car", "cyclist")
LIGHTS = ("day", "clouds", "rain", "dusk", "night")  # of a whole drive
SIRENS = ("ambulance", "police", "fire")  # each vehicle has a different siren
ROADSIDES = ("quiet", "bells", "drill", "dog", "train", "music")  # what can be heard from beside the road
BENDS = ("left", "straight", "right")
BEHIND = ("nothing", "car", "emergency_vehicle")
OCCUPANTS = ("quiet", "talking", "crying")
LOOKS = 999  # of obstacles: a multiple of their kinds

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
    """A stretch of a drive in which the hidden facts do not change; times in whole seconds of the drive.

    Attributes:
        vehicle: Whose siren it is, an index of SIRENS, where there is one.
        thing: Which obstacle, where there is one: determines its kind and how it looks.
        roadside: An index of ROADSIDES.
        curvature: Of the road, -1 (left) to 1 (right).
        behind: An index of BEHIND; an emergency vehicle there is of the kind that ``vehicle`` names.
        occupants: An index of OCCUPANTS.
    """

    start_s: int
    end_s: int
    label: str
    siren: bool
    obstacle: bool
    fast: bool
    speed_mps: float
    curvature: float
    vehicle: int
    thing: int
    roadside: int
    behind: int
    occupants: int

    @property
    def obstacle_kind(self) -> int:
        """An index of OBSTACLES."""
        return self.thing % len(OBSTACLES)

    @property
    def bend(self) -> int:
        """An index of BENDS."""
        return int((self.curvature + 1) / 2 * len(BENDS))


def segments(rng: np.random.Generator, around: np.random.Generator, seconds: int) -> Iterator[Segment]:
    """A drive's segments: labels drawn uniformly, then whatever the label leaves open, uniformly too.

    Args:
        around: Draws what does not affect the action and shows in one sensor alone.
    """
    start_s = 0
    while start_s < seconds:
        end_s = min(seconds, start_s + int(rng.integers(SEGMENT_S[0], SEGMENT_S[1] + 1)))
        label = LABELS[int(rng.integers(len(LABELS)))]
        siren, obstacle, fast = FACTS[label]
        coin = bool(rng.integers(2))
        fast = coin if fast is None else fast
        speed_mps = float(rng.uniform(*(FAST_MPS if fast else SLOW_MPS)))
        vehicle, thing, roadside = (int(rng.integers(n)) for n in (len(SIRENS), LOOKS, len(ROADSIDES)))
        curvature = float(rng.uniform(-1, 1))
        behind, occupants = (int(around.integers(n)) for n in (len(BEHIND), len(OCCUPANTS)))
        yield Segment(
            start_s,
            end_s,
            label,
            siren,
            obstacle,
            fast,
            speed_mps,
            curvature,
            vehicle,
            thing,
            roadside,
            behind,
            occupants,
        )
        start_s = end_s
