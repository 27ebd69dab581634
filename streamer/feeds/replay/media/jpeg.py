"""One picture of a film as JPEG: upright, with square pixels, of ordinary brightness."""

from __future__ import annotations

import threading
from fractions import Fraction
from typing import Any

import numpy as np
import simplejpeg
from av.sidedata.sidedata import Type
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from streamer.feeds.replay.media.tone import LIGHT, ToneMap
from streamer.feeds.replay.part import JPEG_QUALITY

HD_LINES = 720  # where a film does not name its colour matrix: BT.709 from here on, BT.601 below, as players assume
SQUARE = Fraction(1)

RGB = NDArray[np.uint8]
Matrix = tuple[int, int, int, int]  # a b c d of x' = a·x + c·y, y' = b·x + d·y
AS_IS = (1, 0, 0, 1)


class Jpeg:
    """Encodes pictures of one track; threads may share it.

    Args:
        pixel: Width of a pixel divided by its height. Pictures are made wider or higher, so that none is lost.
    """

    def __init__(self, pixel: Fraction = SQUARE) -> None:
        self._pixel = pixel
        self._tools = threading.local()  # neither of FFmpeg's may be used by two threads at a time

    def __call__(self, picture: Any, matrix: Matrix = AS_IS) -> bytes:
        """One picture as JPEG, turned and mirrored by a display matrix."""
        rgb_HW3 = upright(self._rgb(picture), matrix)
        encoded: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(rgb_HW3), JPEG_QUALITY, colorspace="RGB", colorsubsampling="420"
        )
        return encoded

    def _rgb(self, picture: Any) -> RGB:
        matrix = picture.colorspace
        if picture.color_trc in LIGHT:
            picture, matrix = self._toned(picture), Colorspace.DEFAULT
        elif matrix not in set(Colorspace):
            matrix = Colorspace.ITU709 if picture.height >= HD_LINES else Colorspace.ITU601
        width, height = squared(picture.width, picture.height, self._pixel)
        if not hasattr(self._tools, "reformatter"):
            self._tools.reformatter = VideoReformatter()
        shown = self._tools.reformatter.reformat(
            picture, width, height, format="rgb24", src_colorspace=matrix, threads=1
        )
        plane = shown.planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        return rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)

    def _toned(self, picture: Any) -> Any:
        form = (picture.width, picture.height, picture.format.name, picture.color_trc)
        if getattr(self._tools, "form", None) != form:
            self._tools.form, self._tools.tone_map = form, ToneMap(picture)
        return self._tools.tone_map(picture)


def squared(width: int, height: int, pixel: Fraction) -> tuple[int, int]:
    """Size of a picture whose pixels are made square."""
    if pixel >= 1:
        return round(width * pixel), height
    return width, round(height / pixel)


def matrix_of(picture: Any) -> Matrix:
    """The part of a picture's display matrix that turns and mirrors.

    Do not ask it for every picture: PyAV then keeps the picture until the next cyclic garbage collection
    (``findings/pyav-side-data.sh``).

    Its nine numbers, row by row, are ``a b u  c d v  x y w``: ISO/IEC 14496-12, section 6.2.2, and
    https://ffmpeg.org/doxygen/trunk/group__lavu__video__display.html.
    """
    try:
        found = picture.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # PyAV does not know all kinds of side data (same finding)
        return {90: (0, -1, 1, 0), -90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), -180: (-1, 0, 0, -1)}.get(
            round(picture.rotation / 90) * 90, AS_IS
        )
    if found is None:
        return AS_IS
    numbers = np.frombuffer(bytes(found), np.int32)
    return int(numbers[0]), int(numbers[1]), int(numbers[3]), int(numbers[4])


def upright(rgb_HW3: RGB, matrix: Matrix) -> RGB:
    """A view of a picture turned and mirrored by a display matrix, to the nearest quarter turn."""
    a, b, c, d = matrix
    if abs(b) + abs(c) > abs(a) + abs(d):
        rgb_HW3 = rgb_HW3.transpose(1, 0, 2)
        right_to_left, upside_down = c < 0, b < 0
    else:
        right_to_left, upside_down = a < 0, d < 0
    return rgb_HW3[:: -1 if upside_down else 1, :: -1 if right_to_left else 1]
