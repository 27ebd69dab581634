"""Faces: found and blurred in real film, apart from each other, and refused where the network is not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.senses.faces import Faces, _apart
from streamer.settings import Settings
from tests import ready


@pytest.fixture(scope="module")
def faces(senses_dir: Path) -> Faces:
    pytest.importorskip("cv2", reason="OpenCV is not installed (extra: senses)")
    return Faces(ready.settings(senses_dir, "faces"))


def frame(film: Path) -> NDArray[np.uint8]:
    """The eleventh frame of a film, RGB [H, W, 3]."""
    av = pytest.importorskip("av", reason="PyAV is not installed (extra: feeds)")
    with av.open(str(film)) as opened:
        for number, found in enumerate(opened.decode(video=0)):
            if number == 10:
                pixels: NDArray[np.uint8] = found.to_ndarray(format="rgb24")
                return pixels
    raise AssertionError(f"{film} has no eleventh frame")


@pytest.mark.parametrize("clip", ["bbaf2n", "lbaq7a", "pbav3s"])
def test_a_face_is_found_and_no_longer_found_once_it_is_blurred(clip: str, faces: Faces, data: Path) -> None:
    before_HW3 = frame(data / "grid" / f"{clip}.mpg")
    kept_HW3 = before_HW3.copy()
    ((left, top, right, bottom),) = faces.find(before_HW3)
    assert 60 < right - left < 180  # of 360: the speaker fills much of the picture
    assert 80 < bottom - top < 220
    after_HW3, count = faces.blurred(before_HW3)
    assert count == 1
    assert len(faces.find(after_HW3)) == 0
    assert np.array_equal(before_HW3, kept_HW3)
    inside = (slice(int(top) + 20, int(bottom) - 20), slice(int(left) + 20, int(right) - 20))
    assert _detail(after_HW3[inside]) < _detail(before_HW3[inside]) / 4
    assert np.array_equal(after_HW3[:5], before_HW3[:5])  # what is no face stays


def _detail(pixels_HW3: NDArray[np.uint8]) -> float:
    """Mean difference of neighbouring pixels."""
    return float(np.abs(np.diff(pixels_HW3.astype(float), axis=1)).mean())


@pytest.mark.parametrize(("height", "width"), [(1, 1), (31, 700), (90, 160)])
def test_a_picture_of_any_size_can_be_given(height: int, width: int, faces: Faces) -> None:
    grey_HW3 = np.full((height, width, 3), 128, np.uint8)
    after_HW3, _ = faces.blurred(grey_HW3)  # whatever it takes for a face: blurred grey is grey
    assert after_HW3.shape == grey_HW3.shape
    assert np.abs(after_HW3.astype(int) - 128).max() <= 1


def test_of_boxes_that_overlap_the_best_is_kept_and_those_beside_it_too() -> None:
    boxes_N4 = np.array([[0, 0, 10, 10], [1, 1, 11, 11], [20, 0, 30, 10], [0, 0, 10, 10]], np.float64)
    assert _apart(boxes_N4, np.array([0.5, 0.9, 0.4, 0.3], np.float32)) == [1, 2]
    assert _apart(np.zeros((0, 4)), np.zeros(0, np.float32)) == []


def test_without_the_network_it_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^faces needs centerface, which is not here: .*streamer senses --fetch"):
        Faces(Settings(senses_dir=tmp_path))
