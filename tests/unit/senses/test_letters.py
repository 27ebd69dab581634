"""Text in pictures, by the networks that the extra installs."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from streamer.errors import UsageError
from streamer.settings import Settings

pytest.importorskip("rapidocr", reason="the extra senses is not installed")

from streamer.senses.letters import Reader


@pytest.fixture(scope="module")
def reader() -> Reader:
    return Reader(Settings())


def drawn(picture: Image.Image, words: str, at: tuple[int, int]) -> None:
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(24)
    draw.rectangle(draw.textbbox(at, words, font=font), fill=(0, 0, 60))
    draw.text(at, words, fill=(255, 255, 0), font=font)


def test_words_on_a_frame_of_a_film_are_read_from_top_to_bottom_where_they_are(reader: Reader, data: Path) -> None:
    with av.open(str(data / "driving" / "solidWhiteRight.mp4")) as film:
        frame = np.asarray(next(film.decode(video=0)).to_ndarray(format="rgb24"), np.uint8)
    picture = Image.fromarray(frame)
    drawn(picture, "SPEED LIMIT 55", (600, 100))
    drawn(picture, "Rue de Londres", (90, 40))
    with_words, without = reader.read([np.asarray(picture), frame])
    assert without == []
    assert [line.text for line in with_words] == ["Rue de Londres", "SPEED LIMIT 55"]
    x0, y0, x1, y1 = with_words[1].box
    assert (x0, y0) == pytest.approx((600 / 960, 100 / 540), abs=0.02)
    assert x0 < x1 < 0.9
    assert y0 < y1 < 0.3
    assert with_words[1].score > 0.9


@pytest.mark.parametrize("shape", [(1, 1, 3), (40, 2, 3)])
def test_pictures_of_any_shape_are_read(shape: tuple[int, ...], reader: Reader) -> None:
    blank: NDArray[np.uint8] = np.full(shape, 128, np.uint8)
    assert reader.read([blank]) == [[]]


def test_a_narrow_strip_is_read_where_it_is(reader: Reader) -> None:
    strip = Image.new("RGB", (900, 40))
    drawn(strip, "open 7 to 19", (30, 5))
    ((line,),) = reader.read([np.asarray(strip)])
    assert line.text == "open 7 to 19"
    assert line.box[2] < 0.25
    assert line.box[3] > 0.6


def test_lines_below_the_least_score_are_left_out(reader: Reader) -> None:
    picture = Image.new("RGB", (400, 100))
    drawn(picture, "open 7 to 19", (30, 30))
    assert [line.text for line in reader.read([np.asarray(picture)], 0.5)[0]] == ["open 7 to 19"]
    assert reader.read([np.asarray(picture)], 1.01) == [[]]


def test_a_folder_that_is_not_like_the_package_s_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="files named as those of rapidocr"):
        Reader(Settings(senses={"letters": str(tmp_path)}))
