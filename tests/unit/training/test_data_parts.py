"""Which format a path has, and which part an example is in."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.errors import UsageError
from streamer.training.data import open_data
from streamer.training.data.opening import detect
from streamer.training.data.parts import divide, straddling
from streamer.training.data.rows import Row
from tests.datasets import manifest, picture, spec

PATH = Path("data.jsonl")


def rows(count: int, group_of: int = 1, part: str = "") -> list[Row]:
    return [
        Row(f"row {n}", {}, part=part, group=f"g{n // group_of}" if group_of > 1 else "", key=f"{part}{n}")
        for n in range(count)
    ]


# parts


@given(st.integers(3, 200), st.integers(1, 5), st.integers(0, 99))
def test_every_row_is_in_one_part_every_part_has_some_and_no_group_is_divided(
    count: int, group_of: int, seed: int
) -> None:
    own = rows(3 * group_of + count, group_of)
    parts = divide(PATH, own, seed)
    assert sorted(row.where for part in parts for row in part) == sorted(row.where for row in own)
    groups = [{row.group or row.key for row in part} for part in parts]
    assert all(groups)
    assert len(set.union(*groups)) == sum(map(len, groups))


def test_shares_are_about_a_tenth_each() -> None:
    parts = divide(PATH, rows(5000), seed=0)
    assert 400 < len(parts.validation) < 600
    assert 400 < len(parts.test) < 600


def test_a_row_stays_in_its_part_when_the_data_grow_and_moves_with_the_seed() -> None:
    small, large = divide(PATH, rows(1000), seed=0), divide(PATH, rows(3000), seed=0)
    assert {row.where for row in small.test} <= {row.where for row in large.test}
    assert {row.where for row in small.training} <= {row.where for row in large.training}
    assert {row.where for row in divide(PATH, rows(1000), seed=1).test} != {row.where for row in small.test}


def test_parts_that_the_data_give_are_kept_and_the_missing_one_comes_out_of_training() -> None:
    own = rows(50) + rows(20, part="test") + rows(10, part="training")
    parts = divide(PATH, own, seed=0)
    assert [row.part for row in parts.test] == ["test"] * 20
    assert len(parts.training) + len(parts.validation) == 60
    assert 0 < len(parts.validation) < 20
    complete = rows(3) + rows(2, part="test") + rows(1, part="validation")
    assert list(map(len, divide(PATH, complete, seed=0))) == [3, 1, 2]


@pytest.mark.parametrize("own", [rows(2), rows(20, group_of=10), rows(5, part="test")])
def test_too_few_groups_for_every_part_is_said(own: list[Row]) -> None:
    with pytest.raises(UsageError, match="needs more, or name the parts in the data"):
        divide(PATH, own, seed=0)


def test_a_group_that_the_data_put_into_two_parts_is_bad() -> None:
    own = [
        Row("row 0", {}, part="training", group="patient 1"),
        Row("row 1", {}, part="test", group="patient 1"),
        Row("row 2", {}, group="patient 1"),  # none means training
        Row("row 3", {}, part="test", group="patient 2"),
        Row("row 4", {}, part="test"),
    ]
    (bad,) = straddling(own)
    assert str(bad) == "row 1: group 'patient 1' is in training (row 0) already: a group has one part"


def test_a_group_and_a_file_of_a_manifest_are_never_divided(tmp_path: Path) -> None:
    picture(tmp_path / "shared.png")
    lines = [{"text": f"{n}", "group": f"speaker {n % 5}"} for n in range(40)]
    lines += [{"image": "shared.png", "text": f"view {n}"} for n in range(20)]
    data = open_data(manifest(tmp_path, lines), spec())
    parts = [set(part.texts()) for part in (data.training, data.validation, data.test)]
    views = [sum(text.startswith("view") for text in part) for part in parts]
    speakers = [{int(text) % 5 for text in part if text.isdigit()} for part in parts]
    assert sorted(views) == [0, 0, 20]
    assert sum(map(len, speakers)) == 5


def test_data_can_be_sent_to_the_processes_of_a_loader(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 40)
    data = open_data(manifest(tmp_path, [{"image": "a.png"}, *({"text": f"{n}"} for n in range(9))]), spec())
    for part in (data.training, data.validation, data.test):
        copy = pickle.loads(pickle.dumps(part))
        assert list(copy.texts()) == list(part.texts())
        assert [copy[n].sample.present for n in range(len(copy))] == [part[n].sample.present for n in range(len(part))]


# formats


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\ny\n")
    return folder


@pytest.mark.parametrize(
    ("names", "format_name"),
    [
        (["manifest.jsonl", "images/1.png", "README.txt"], "manifest"),
        (["train-images-idx3-ubyte.gz", "readme.txt"], "MNIST"),
        (["train-images.idx3-ubyte"], "MNIST"),
        (["data_batch_1.bin", "batches.meta.txt"], "CIFAR-10"),
        (["test_batch"], "CIFAR-10"),
        (["train/cat/1.JPEG", "val/cat/1.JPEG", "notes.txt"], "folder per class"),
        (["cat/1.flac"], "folder per class"),
        (["train/pos/0_1.txt", "imdb.vocab"], "folder per class"),
        (["day.mcap", "day.labels.csv"], "recording"),
        (["a.txt"], "texts"),
    ],
)
def test_a_folder_is_known_by_what_is_in_it(tmp_path: Path, names: list[str], format_name: str) -> None:
    assert detect(touch(tmp_path, *names)).name.startswith(format_name)


def test_files_are_known_by_their_names(tmp_path: Path) -> None:
    touch(tmp_path, "a.jsonl", "b.ndjson", "c.mcap", "d.txt", "e-images-idx3-ubyte")
    names = [detect(path).name.split()[0] for path in sorted(tmp_path.iterdir())]
    assert names == ["manifest", "manifest", "recording", "texts", "MNIST"]


@pytest.mark.parametrize("names", [["a.zip"], [".hidden/a.png"], ["a.png"], []])
def test_what_is_not_understood_gets_a_list_of_what_is(tmp_path: Path, names: list[str]) -> None:
    with pytest.raises(UsageError, match=r"is no data set of a known format: manifest .*recording .*MNIST .*texts"):
        open_data(touch(tmp_path, *names), spec())


def test_what_may_be_two_formats_is_not_guessed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"may be manifest .* or MNIST .*: name the file, or divide the folder"):
        open_data(touch(tmp_path, "manifest.jsonl", "train-images-idx3-ubyte"), spec())


def test_a_path_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing does not exist"):
        open_data(tmp_path / "nothing", spec())
