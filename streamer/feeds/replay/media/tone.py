"""Pictures of high dynamic range, as phones film them, made into ordinary ones (sRGB).

A table from each colour to the one to show is made once, and FFmpeg's ``lut3d`` filter applies it.

Formulas: transfer functions PQ and HLG from Recommendation ITU-R BT.2100-2, tables 4 and 5
(https://www.itu.int/rec/R-REC-BT.2100); reference white of 203 cd/m² from report BT.2408
(https://www.itu.int/pub/R-REP-BT.2408); the curve that leaves dark and middle tones as they are and bends what is
brighter from report BT.2390, section 5.4 (https://www.itu.int/pub/R-REP-BT.2390); BT.2020 to BT.709 from
Recommendation BT.2087 (https://www.itu.int/rec/R-REC-BT.2087); sRGB from IEC 61966-2-1
(https://www.w3.org/Graphics/Color/sRGB).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
from av.filter import Graph
from av.video.reformatter import ColorTrc
from numpy.typing import NDArray

Values = NDArray[np.float64]

WHITE_NITS = 203.0  # cd/m², of a white page in a film of high dynamic range; ordinary white
PEAK_NITS = 1000.0  # what phones and most studios grade for; brighter is white
GRID = 33  # colours along each edge of the table
BT2020_LUMINANCE = (0.2627, 0.6780, 0.0593)
BT2020_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def pq_nits(code_N: Values) -> Values:
    """Light in cd/m² of PQ code values from 0 to 1."""
    root_N = code_N ** (1 / 78.84375)
    return np.asarray(
        10_000 * (np.maximum(root_N - 0.8359375, 0) / (18.8515625 - 18.6875 * root_N)) ** (1 / 0.1593017578125)
    )


def pq_code(nits_N: Values) -> Values:
    """PQ code values from 0 to 1 of light in cd/m²."""
    power_N = (nits_N / 10_000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power_N) / (1 + 18.6875 * power_N)) ** 78.84375)


def hlg_nits(code_N3: Values) -> Values:
    """Light in cd/m² of HLG code values on a display of ``PEAK_NITS``, whose system gamma is 1.2."""
    scene_N3 = np.where(code_N3 <= 0.5, code_N3**2 / 3, (np.exp((code_N3 - 0.55991073) / 0.17883277) + 0.28466892) / 12)
    luminance_N1 = (scene_N3 @ np.array(BT2020_LUMINANCE))[:, None]
    return np.asarray(PEAK_NITS * scene_N3 * luminance_N1**0.2)


LIGHT: dict[int, tuple[str, Callable[[Values], Values]]] = {
    ColorTrc.SMPTE2084: ("PQ", pq_nits),
    ColorTrc.ARIB_STD_B67: ("HLG", hlg_nits),
}


def bent(nits_N: Values) -> Values:
    """Light of up to ``PEAK_NITS`` brought down to ``WHITE_NITS``; what is darker than the knee stays as it is."""
    peak = float(pq_code(np.array(PEAK_NITS)))
    most = float(pq_code(np.array(WHITE_NITS))) / peak
    knee = 1.5 * most - 0.5
    code_N = np.minimum(pq_code(nits_N) / peak, 1)
    t_N = np.maximum(code_N - knee, 0) / (1 - knee)
    curve_N = (
        (2 * t_N**3 - 3 * t_N**2 + 1) * knee
        + (t_N**3 - 2 * t_N**2 + t_N) * (1 - knee)
        + (3 * t_N**2 - 2 * t_N**3) * most
    )
    return pq_nits(np.where(code_N < knee, code_N, curve_N) * peak)


def ordinary(code_N3: Values, light: Callable[[Values], Values]) -> Values:
    """sRGB values from 0 to 1 of BT.2020 code values.

    The brightest of the three colours is bent, and the others with it, so that the hue stays.
    """
    nits_N3 = light(code_N3)
    brightest_N1 = np.maximum(nits_N3.max(axis=1, keepdims=True), 1e-9)
    linear_N3 = np.clip(nits_N3 * (bent(brightest_N1) / brightest_N1 / WHITE_NITS) @ BT2020_TO_BT709.T, 0, 1)
    return np.asarray(np.where(linear_N3 <= 0.0031308, 12.92 * linear_N3, 1.055 * linear_N3 ** (1 / 2.4) - 0.055))


def table(light: Callable[[Values], Values]) -> str:
    """The table in the ``.cube`` format, in which red changes fastest."""
    steps = np.linspace(0, 1, GRID)
    blue, green, red = np.meshgrid(steps, steps, steps, indexing="ij")
    rows_N3 = ordinary(np.stack([red, green, blue], axis=-1).reshape(-1, 3), light)
    return f"LUT_3D_SIZE {GRID}\n" + "".join(f"{r:.5f} {g:.5f} {b:.5f}\n" for r, g, b in rows_N3)


class ToneMap:
    """Makes pictures of one film, which have one size and format, ordinary."""

    def __init__(self, picture: Any) -> None:
        _, light = LIGHT[picture.color_trc]
        self._graph = Graph()
        source = self._graph.add_buffer(
            width=picture.width, height=picture.height, format=picture.format, time_base=Fraction(1, 1000)
        )
        with tempfile.NamedTemporaryFile("w", suffix=".cube") as file:
            file.write(table(light))
            file.flush()
            steps = [
                source,
                self._graph.add("scale", "in_color_matrix=bt2020"),
                self._graph.add("format", "gbrp16le"),
                self._graph.add("lut3d", f"file={file.name}"),
                self._graph.add("format", "rgb24"),
                self._graph.add("buffersink"),
            ]
            for step, following in pairwise(steps):
                step.link_to(following)
            self._graph.configure()

    def __call__(self, picture: Any) -> Any:
        """The picture as sRGB, format ``rgb24``."""
        self._graph.push(picture)
        return self._graph.pull()
