"""Objects in pictures: what, where and how sure, by a network of the role ``objects``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamer.senses import files, ssd
from streamer.senses.sessions import files_of, session
from streamer.settings import Settings

ROLE = "objects"
BATCH = 8  # pictures of one run: more cost memory and are no faster
FLOOR = 0.05  # least score of a detection
OVERLAP = 0.6  # intersection ÷ union from which two boxes of one label are one object
MOST = 100  # detections of a picture

# COCO's categories by the network's number; it has ten more, marked by -, that no data set uses.
NAMES = """
person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign parking_meter bench
bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie suitcase frisbee skis
snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle - wine_glass cup fork
knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed -
dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator - book
clock vase scissors teddy_bear hair_drier toothbrush
"""
LABELS = {number: name.replace("_", " ") for number, name in enumerate(NAMES.split(), 1) if name != "-"}

Picture = NDArray[np.uint8]


class Detection(NamedTuple):
    """An object in a picture.

    Attributes:
        score: A probability.
        box: x0, y0, x1, y1, shares of the picture's width and height.
    """

    label: str
    score: float
    box: tuple[float, float, float, float]


class Detector:
    """SSD with MobileNet v2, of 80 labels; the version is that of its file."""

    def __init__(self, settings: Settings) -> None:
        """Load the network.

        Raises:
            UsageError: It is not there, or cannot be run; says how to get it.
        """
        sense = files.find(ROLE, settings)
        self.version = sense.version
        self._session = session(ssd.to_onnx(files_of(sense)["graph"]), name=sense.name)
        self._anchors_A4 = ssd.anchors()

    def detect(self, pictures: Sequence[Picture]) -> list[list[Detection]]:
        """Find objects.

        Args:
            pictures: uint8 [H, W, 3], RGB, of any size; those of 300 × 300 are not scaled.

        Returns:
            For each picture its detections of at least ``FLOOR``, best first.
        """
        found: list[list[Detection]] = []
        for start in range(0, len(pictures), BATCH):
            batch_N = np.stack([_scaled(picture) for picture in pictures[start : start + BATCH]])
            encoded_NA4, scores_NAC = self._session.run(None, {"pictures": batch_N})
            found += [self._detections(*one) for one in zip(encoded_NA4, scores_NAC, strict=True)]
        return found

    def _detections(self, encoded_A4: NDArray[np.float32], scores_AC: NDArray[np.float32]) -> list[Detection]:
        scores_AC[:, 0] = 0  # background
        kept = np.flatnonzero(scores_AC.max(axis=1) >= FLOOR)
        boxes_K4, scores_KC = ssd.boxes(encoded_A4[kept], self._anchors_A4[kept]), scores_AC[kept]
        found = []
        for number in np.flatnonzero((scores_KC >= FLOOR).any(axis=0)).tolist():
            if (label := LABELS.get(number)) is not None:
                for row in _distinct(boxes_K4, scores_KC[:, number]):
                    found.append(Detection(label, float(scores_KC[row, number]), tuple(boxes_K4[row].tolist())))
        return sorted(found, key=lambda one: -one.score)[:MOST]


def _scaled(picture: Picture) -> Picture:
    if picture.shape[:2] == (ssd.SIZE, ssd.SIZE):
        return picture
    return np.asarray(Image.fromarray(picture).resize((ssd.SIZE, ssd.SIZE), Image.Resampling.BILINEAR))


def _distinct(boxes_K4: NDArray[np.float32], scores_K: NDArray[np.float32]) -> list[int]:
    """Rows of the boxes that stand for an object each, best first: greedy non-maximum suppression."""
    left = np.flatnonzero(scores_K >= FLOOR)
    left = left[np.argsort(-scores_K[left], kind="stable")]
    rows = []
    while left.size:
        best, left = int(left[0]), left[1:]
        rows.append(best)
        left = left[_overlaps(boxes_K4[best], boxes_K4[left]) <= OVERLAP]
    return rows


def _overlaps(box_4: NDArray[np.float32], boxes_K4: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection ÷ union of a box with each of others."""
    sides_K2 = np.minimum(box_4[2:], boxes_K4[:, 2:]) - np.maximum(box_4[:2], boxes_K4[:, :2])
    shared_K = np.prod(np.maximum(sides_K2, 0), axis=1)
    area, areas_K = np.prod(box_4[2:] - box_4[:2]), np.prod(boxes_K4[:, 2:] - boxes_K4[:, :2], axis=1)
    shares_K: NDArray[np.float32] = shared_K / np.maximum(area + areas_K - shared_K, 1e-9)
    return shares_K
