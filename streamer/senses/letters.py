"""Text in pictures: what is written, where and how sure, by a network of the role ``letters``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.errors import extra
from streamer.senses import files
from streamer.senses.sessions import files_of
from streamer.settings import Settings

ROLE = "letters"
# Lines of a lower score are wrong more often than right in film (docs/senses.md).
LEAST_SCORE = 0.9
MOST_NARROW = 4  # sides' ratio: the shorter one is scaled to 736 pixels, and the cost follows the longer one

Picture = NDArray[np.uint8]


class Line(NamedTuple):
    """A line of text in a picture.

    Attributes:
        text: What is written.
        score: Mean probability of its letters.
        box: x0, y0, x1, y1 of the upright box around it, shares of the picture's width and height.
    """

    text: str
    score: float
    box: tuple[float, float, float, float]


class Reader:
    """PP-OCRv6 as RapidOCR runs it: finds lines, turns those upside down, reads them; Latin and Chinese letters.

    Attributes:
        version: Changes with the weights.
    """

    def __init__(self, settings: Settings, threads: int = 1) -> None:
        """Load the networks.

        Args:
            settings: Says what takes the role.
            threads: Cores that a picture may take.

        Raises:
            UsageError: They or the package that runs them are not there, or a setting names what it cannot run.
        """
        sense = files.find(ROLE, settings)
        located = files_of(sense)
        with extra("senses", "reading text in pictures"):
            from rapidocr import RapidOCR
        self.version = sense.version
        self._read: Any = RapidOCR(
            params={
                "Det.model_path": str(located["detector"]),
                "Cls.model_path": str(located["turner"]),
                "Rec.model_path": str(located["recogniser"]),
                "EngineConfig.onnxruntime.intra_op_num_threads": threads,
                "EngineConfig.onnxruntime.inter_op_num_threads": 1,
                "Global.log_level": "error",  # it logs each picture without text
            }
        )

    def read(self, pictures: Sequence[Picture], least_score: float = LEAST_SCORE) -> list[list[Line]]:
        """Read what is written.

        Args:
            pictures: uint8 [H, W, 3], RGB, of any size.
            least_score: Lines below it are left out.

        Returns:
            For each picture its lines, from top to bottom.
        """
        return [self._lines(picture, least_score) for picture in pictures]

    def _lines(self, picture: Picture, least_score: float) -> list[Line]:
        height, width = picture.shape[:2]
        short = -(-max(height, width) // MOST_NARROW)
        margins = ((0, max(0, short - height)), (0, max(0, short - width)), (0, 0))
        found = self._read(np.pad(picture[..., ::-1], margins))  # it reads BGR
        if not found.txts:
            return []
        corners_N42 = np.clip(np.asarray(found.boxes, np.float64) / (width, height), 0, 1)
        low_N2, high_N2 = corners_N42.min(axis=1).tolist(), corners_N42.max(axis=1).tolist()
        lines = [
            Line(text, float(score), (*low, *high))
            for text, score, low, high in zip(found.txts, found.scores, low_N2, high_N2, strict=True)
        ]
        return [line for line in lines if line.score >= least_score]
