"""Folders of files, one per class: ImageNet's and IMDB's, with sounds too."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from streamer.errors import UsageError
from streamer.model.spec import InputSpec, Output, TextInput
from streamer.training.data import Data, open_data
from tests.datasets import picture, portrait, sound, spec

REVIEW = spec({"opinion": Output(("neg", "pos"))}, InputSpec(text=TextInput(max_tokens=16)))


def labels(data: Data, part: str, output: str = "animal") -> list[object]:
    examples = getattr(data, part)
    return [examples[n].labels.get(output) for n in range(len(examples))]


def test_class_folders_in_parts_are_examples_of_these_parts(tmp_path: Path) -> None:
    for part in ("train", "val"):
        for shade, animal in ((50, "cat"), (150, "dog")):
            picture(tmp_path / part / animal / "1.JPEG", shade, kind="JPEG")
            picture(tmp_path / part / animal / "more" / "2.png", shade + 1)
    for number in range(3):
        picture(tmp_path / "train" / "cat" / f"more{number}.webp", 51, kind="WEBP")
    data = open_data(tmp_path, spec())
    assert labels(data, "validation") == ["cat", "cat", "dog", "dog"]
    assert len(data.training) + len(data.test) == 7
    image = data.validation[2].sample.image_FHW3
    assert image is not None
    assert image[0, 0, 0].tolist() == [150] * 3


def test_a_flat_folder_is_divided_by_a_draw(tmp_path: Path) -> None:
    for number in range(30):
        picture(tmp_path / ("cat", "dog")[number % 2] / f"{number}.png")
    data = open_data(tmp_path, spec())
    assert len(data.training) + len(data.validation) + len(data.test) == 30
    assert min(len(data.training), len(data.validation), len(data.test)) > 0
    again = open_data(tmp_path, spec())
    other = open_data(tmp_path, spec(), seed=1)
    rows = [[row.where for row in part.rows] for d in (data, again, other) for part in (d.training,)]  # type: ignore[attr-defined]
    assert rows[0] == rows[1] != rows[2]


def test_reviews_as_imdb_has_them_with_those_without_a_label(tmp_path: Path) -> None:
    for part, opinion, text in (
        ("train", "pos", "a joy"),
        ("train", "neg", "a bore"),
        ("train", "unsup", "a film"),
        ("test", "pos", "great"),
        ("test", "neg", "so so"),
    ):
        (tmp_path / part / opinion).mkdir(parents=True)
        (tmp_path / part / opinion / "0_9.txt").write_text(text, "utf-8")
    (tmp_path / "imdb.vocab").write_text("the\n")
    (tmp_path / "train" / "urls_pos.txt").write_text("http://example.org\n")
    data = open_data(tmp_path, REVIEW)
    assert data.bad == ()
    assert labels(data, "test", "opinion") == ["neg", "pos"]
    assert sorted([*data.training.texts(), *data.validation.texts()]) == ["a bore", "a film", "a joy"]
    assert list(data.test.texts()) == ["so so", "great"]


def test_sounds_are_examples_too(tmp_path: Path) -> None:
    for number in range(4):
        sound(tmp_path / "cat" / f"{number}.wav")
        sound(tmp_path / "dog" / f"{number}.wav", level=-0.25)
    data = open_data(tmp_path, spec())
    example = data.training[0]
    assert example.sample.audio_S is not None
    assert example.sample.audio_S.mean() == pytest.approx(0.5 if example.labels["animal"] == "cat" else -0.25, abs=0.01)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_a_picture_that_a_turned_camera_took_is_seen_upright(tmp_path: Path, kind: str) -> None:
    for part in ("train", "val"):
        for animal in ("cat", "dog"):
            portrait(tmp_path / part / animal / f"1.{kind}")
    image = open_data(tmp_path, spec()).validation[0].sample.image_FHW3
    assert image is not None
    assert image[0, :3].min() > 200  # of 8 rows
    assert image[0, 5:].max() < 50


def test_a_folder_that_is_no_label_and_a_file_that_is_nothing_are_bad_rows(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / "cat" / f"{number}.png")
        picture(tmp_path / "cow" / f"{number}.png")
    (tmp_path / "cat" / "notes.doc").write_bytes(b"?")
    (tmp_path / "cat" / ".DS_Store").write_bytes(b"?")
    (tmp_path / "cat" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    data = open_data(tmp_path, spec(), refuse_bad=False)
    assert [bad.where for bad in data.bad] == ["cat/broken.png", "cat/notes.doc", "cow/ (4 files)"]
    assert data.bad[2].reason == "'cow' is no label of animal; known: cat, dog"
    with pytest.raises(UsageError, match=r"cat/broken.png: image: image/png does not decode.*and 2 more bad rows\)"):
        open_data(tmp_path, spec())


def test_a_text_that_is_not_utf_8_is_a_bad_row(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / "pos").mkdir(exist_ok=True)
        (tmp_path / "pos" / f"{number}.txt").write_bytes(b"caf\xe9" if number == 2 else b"ok")
    data = open_data(tmp_path, REVIEW, refuse_bad=False)
    assert [str(bad) for bad in data.bad] == ["pos/2.txt: is not UTF-8 text: convert it, e.g. with iconv"]


def test_a_part_without_class_folders_says_what_is_wanted(tmp_path: Path) -> None:
    picture(tmp_path / "train" / "cat" / "1.png")
    picture(tmp_path / "val" / "ILSVRC2012_val_00000001.png")
    with pytest.raises(UsageError, match="val has no class folders: sort its files into a folder per class"):
        open_data(tmp_path, spec())


def test_real_reviews_are_read(data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(data / "text" / "movie_reviews_100.zip") as archive:
        archive.extractall(tmp_path)
    found = open_data(tmp_path / "movie_reviews", REVIEW)
    opinions = [label for part in ("training", "validation", "test") for label in labels(found, part, "opinion")]
    assert sorted(set(map(str, opinions))) == ["neg", "pos"]
    assert len(opinions) == len(list((tmp_path / "movie_reviews").glob("*/*.txt")))
    assert min(map(len, found.training.texts())) > 100
