"""Picture -> faces, and the picture with them blurred.

centerface finds a face as a peak of a heat map at a quarter of the picture's resolution, with the face's size and its
place within the cell: Xu, Yan, Yang et al., "CenterFace: Joint Face Detection and Alignment Using Face as Point", 2020,
section 3. OpenCV runs it, since the file fixes a picture's size, which ONNX Runtime would insist on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from streamer.errors import UsageError, extra
from streamer.senses.files import find
from streamer.settings import Settings

ROLE = "faces"
LEAST_SCORE = 0.3  # low: a box too many costs less than a face that is seen
MOST_OVERLAP = 0.3  # of two boxes, as intersection ÷ union, that are two faces
CELL = 4  # pixels of the picture for one of the heat map
MULTIPLE = 32  # that the network's input sides are of
MARGIN = 0.3  # of a face's size, blurred around it too
OUTPUTS = ("537", "538", "539")  # heat map, sizes, offsets


class Faces:
    """Finds faces; for one thread at a time.

    Raises:
        UsageError: The network or OpenCV is not here.
    """

    def __init__(self, settings: Settings) -> None:
        sense = find(ROLE, settings)
        if "model" not in sense.files:
            raise UsageError(f"setting STREAMER_SENSES__FACES: {sense.name} is no file of centerface")
        with extra("senses", "finding faces"):
            import cv2
        self._cv2 = cv2
        self._net: Any = cv2.dnn.readNetFromONNX(str(sense.files["model"]))
        self.version = sense.version

    def find(self, frame_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Boxes of the faces [N, 4]: left, top, right, bottom in pixels, which may lie beyond the picture's border.

        Args:
            frame_HW3: RGB.
        """
        height, width = frame_HW3.shape[:2]
        size = [max(MULTIPLE, -(-side // MULTIPLE) * MULTIPLE) for side in (width, height)]
        self._net.setInput(self._cv2.dnn.blobFromImage(frame_HW3, 1.0, tuple(size)))
        heat, sizes, offsets = (output[0] for output in self._net.forward(OUTPUTS))
        rows, columns = np.where(heat[0] > LEAST_SCORE)
        scores_N = heat[0, rows, columns]
        tall_N, wide_N = (np.exp(sizes[axis, rows, columns]) * CELL for axis in (0, 1))
        y_N = (rows + offsets[0, rows, columns] + 0.5) * CELL
        x_N = (columns + offsets[1, rows, columns] + 0.5) * CELL
        boxes_N4 = np.stack([x_N - wide_N / 2, y_N - tall_N / 2, x_N + wide_N / 2, y_N + tall_N / 2], axis=1)
        scale_4 = np.array([width / size[0], height / size[1]] * 2)
        found_N4: NDArray[np.float32] = (boxes_N4[_apart(boxes_N4, scores_N)] * scale_4).astype(np.float32)
        return found_N4

    def blurred(self, frame_HW3: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
        """The picture with every face blurred beyond recognition, and how many there are.

        Args:
            frame_HW3: RGB; not changed.
        """
        boxes_N4 = self.find(frame_HW3)
        if not len(boxes_N4):
            return frame_HW3, 0
        picture = Image.fromarray(frame_HW3)
        for left, top, right, bottom in boxes_N4.tolist():
            wide, tall = (right - left) * MARGIN, (bottom - top) * MARGIN
            place = (left - wide, top - tall, right + wide, bottom + tall)
            mask = Image.new("L", picture.size)
            ImageDraw.Draw(mask).ellipse(place, fill=255)
            # a face of any size becomes a few blots, first coarse squares and then smooth
            coarse = max(1, round(max(right - left, bottom - top) / 5))
            small = picture.resize(
                (max(1, picture.width // coarse), max(1, picture.height // coarse)), Image.Resampling.BOX
            )
            soft = small.resize(picture.size, Image.Resampling.NEAREST).filter(ImageFilter.GaussianBlur(coarse / 2))
            picture.paste(soft, mask=mask)
        return np.asarray(picture), len(boxes_N4)


def _apart(boxes_N4: NDArray[np.float64], scores_N: NDArray[np.float32]) -> list[int]:
    """Indices of the best boxes that do not overlap: non-maximum suppression."""
    areas_N = (boxes_N4[:, 2] - boxes_N4[:, 0]) * (boxes_N4[:, 3] - boxes_N4[:, 1])
    kept: list[int] = []
    for index in np.argsort(-scores_N):
        wide_K, tall_K = (
            np.minimum(boxes_N4[kept, axis + 2], boxes_N4[index, axis + 2])
            - np.maximum(boxes_N4[kept, axis], boxes_N4[index, axis])
            for axis in (0, 1)
        )
        shared_K = np.clip(wide_K, 0, None) * np.clip(tall_K, 0, None)
        if (shared_K <= MOST_OVERLAP * (areas_N[kept] + areas_N[index] - shared_K)).all():
            kept.append(int(index))
    return kept
