"""Objects in frames of real films, against what a person counted in them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bench import rig
from bench.senses import Table
from bench.senses.films import frames_at
from streamer.model.senses import Objects
from streamer.model.spec import read_spec
from streamer.senses.objects import Detection, Detector
from streamer.settings import Settings

Picture = NDArray[np.uint8]
VEHICLES = ("car", "truck", "bus")  # one thing here: COCO's pickups are both cars and trucks
HALF = 0.575  # width of each of two tiles, which overlap
SAME = 0.5  # share of the smaller box that is in the other, from which a tile's box is one of the whole picture's


class Frame(NamedTuple):
    """What a person sees in a frame: things of at least a fiftieth of its width, by label.

    Attributes:
        second: Of the film.
        doubtful: Labels that one may give to what is there, or not.
    """

    second: float
    there: dict[str, int]
    doubtful: tuple[str, ...] = ()


PARK = ("bench", "person")  # a wall with a seat; nobody is near, somebody may be far
FILMS = {
    "driving/solidWhiteRight.mp4": [
        Frame(0.5, {"car": 4}),
        Frame(2.5, {"car": 4}),
        Frame(4.5, {"car": 5}),
        Frame(6.5, {"car": 6}),
        Frame(8.5, {"car": 7}),
    ],
    "gopro/max-heromode.mp4": [
        Frame(0.5, {"car": 5}, PARK),
        Frame(2.5, {"car": 4}, PARK),
        Frame(4.5, {"car": 5}, PARK),
        Frame(6.5, {"car": 4}, PARK),
        Frame(8.5, {"car": 2}, PARK),
        Frame(10.0, {"car": 3}, PARK),
    ],
    "grid/bbaf2n.mpg": [Frame(1.0, {"person": 1})],
    "grid/lbaq7a.mpg": [Frame(1.0, {"person": 1})],
    "grid/pbav3s.mpg": [Frame(1.0, {"person": 1})],
    "nasa/nasa_13013.mp4": [Frame(1.0, {"person": 1}), Frame(11.0, {"person": 1})],
}
KINDS = {
    "driving": "a motorway",
    "gopro": "a car park behind shrubs",
    "grid": "a face",
    "nasa": "somebody far in the dark",
}


def measure(settings: Settings, data: Path) -> Table:
    """How many of the things that are there were found, and how many labels are of nothing there."""
    senses = read_spec(rig.ROOT / "models" / "everyday").senses
    assert senses is not None
    assert senses.objects is not None
    own, plain = senses.objects, Objects(senses.objects.labels)
    detector = Detector(settings)
    ways: dict[str, Callable[[Picture], Counter[str]]] = {
        "score ≥ 0.5": lambda frame: counted(detector.detect([frame])[0], plain),
        "models/everyday": lambda frame: counted(detector.detect([frame])[0], own),
        "≥ 0.5, and in two halves": lambda frame: counted(tiled(detector, frame), plain),
    }
    rows = []
    for kind, about in KINDS.items():
        frames = [
            (truth, picture)
            for film, truths in FILMS.items()
            if film.startswith(kind)
            for truth, picture in zip(truths, frames_at(data / film, [one.second for one in truths]), strict=True)
        ]
        there = sum(sum(truth.there.values()) for truth, _ in frames)
        cells = [about, str(len(frames)), str(there)]
        for way in ways.values():
            said = [(truth, way(picture)) for truth, picture in frames]
            found = sum(min(some[label], count) for truth, some in said for label, count in truth.there.items())
            false = [label for truth, some in said for label in some if label not in (*truth.there, *truth.doubtful)]
            cells.append(f"{found}{f', false: {chr(44).join(sorted(false))}' if false else ''}")
        rows.append(cells)
    picture = frames_at(data / "driving/solidWhiteRight.mp4", [0.5])[0]
    times_ms = [1000 * spent_s(partial(way, picture)) for way in ways.values()]
    rows.append(["CPU time a frame", "", "", *(f"{ms:.0f} ms" for ms in times_ms)])
    return Table(
        f"{sum(map(len, FILMS.values()))} frames of {len(FILMS)} real films; counted are things of at least a fiftieth "
        "of the picture's width. Found is at most what is there: a count that is too high is not seen here. Cars, "
        "trucks and buses are one.",
        ("what the films show", "frames", "there", *(f"found, {way}" for way in ways)),
        rows,
    )


def counted(detections: Sequence[Detection], spec: Objects) -> Counter[str]:
    """How many there are of each label, with all vehicles as cars."""
    return Counter(
        "car" if one.label in VEHICLES else one.label
        for one in detections
        if one.label in spec.labels and one.score >= spec.thresholds.get(one.label, spec.threshold)
    )


def tiled(detector: Detector, frame: Picture) -> list[Detection]:
    """Detections in the whole frame, and those in its two halves that the whole did not show."""
    width = frame.shape[1]
    wide = round(HALF * width)
    whole, *halves = detector.detect([frame, frame[:, :wide], frame[:, width - wide :]])
    found = list(whole)
    for start, half in zip((0.0, 1 - wide / width), halves, strict=True):
        for label, score, (x0, y0, x1, y1) in half:
            box = (start + x0 * wide / width, y0, start + x1 * wide / width, y1)
            if not any(one.label == label and inside(one.box, box) > SAME for one in found):
                found.append(Detection(label, score, box))
    return found


def inside(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Share of the smaller box that lies in the other."""
    width, height = (min(one[2 + n], other[2 + n]) - max(one[n], other[n]) for n in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return max(0.0, width) * max(0.0, height) / max(min(areas), 1e-9)


def spent_s(call: Callable[[], object]) -> float:
    """CPU time of one call, of five."""
    began_s = time.process_time()
    for _ in range(5):
        call()
    return (time.process_time() - began_s) / 5
