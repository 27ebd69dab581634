"""Outputs learned from few windows on the frozen picture backbone that the extra installs, then served."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from typer.testing import CliRunner

from streamer.cli.app import app
from streamer.errors import ModelError, UsageError
from streamer.model import learned
from streamer.model.learned import LEARNED_FILE, Features, Head
from streamer.model.predictor import Predictor
from streamer.model.sample import Sample
from streamer.model.senses import Learned, Senses
from streamer.settings import Settings
from streamer.training import few_shot
from streamer.training.data import open_data
from streamer.training.data.rows import Row
from tests import ready

TOML = """
name = "floor"
version = "1"
description = "What a floor is made of."
window_ms = 1000
[senses.learned.pattern]
labels = ["stripes", "tiles", "plain"]
senses = ["pictures"]
"""


def picture(label: str, rng: np.random.Generator) -> Image.Image:
    """A pattern of 96 × 96 in a colour and phase of its own."""
    rows, columns = np.mgrid[:96, :96] + rng.integers(0, 16, size=(2, 1, 1))
    lit = {"stripes": columns // 8 % 2, "tiles": (columns // 8 + rows // 8) % 2, "plain": 0 * rows}[label]
    noise = rng.normal(0, 6, size=(96, 96, 3))
    return Image.fromarray(np.clip(lit[..., None] * rng.integers(60, 160, 3) + 60 + noise, 0, 255).astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with its data: six windows a label, two each in three groups."""
    rng = np.random.default_rng(0)
    lines = []
    for label in ("stripes", "tiles", "plain"):
        for number in range(6):
            picture(label, rng).save(tmp_path / f"{label}{number}.png")
            lines.append({"image": f"{label}{number}.png", "label": label, "group": f"room-{number // 2}"})
    (tmp_path / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "model.toml").write_text(TOML)
    return tmp_path


@pytest.mark.usefixtures("_backbone")
def test_what_is_learned_in_a_folder_is_served_from_it(folder: Path) -> None:
    done = CliRunner().invoke(app, ["learn", str(folder), "--data", str(folder)])
    assert done.exit_code == 0, done.output
    assert "of 18 right, by cross-validation that keeps groups together" in " ".join(done.output.split())
    predictor = Predictor.load(folder)
    spec = predictor.spec
    examples = open_data(folder, msgspec.structs.replace(spec, outputs={"pattern": spec.outputs["pattern"]})).training
    windows = [examples[n] for n in range(len(examples))]
    said = predictor.predict([window.sample for window in windows])
    assert [one.outputs["pattern"]["label"] for one in said] == [window.labels["pattern"] for window in windows]
    assert all(sum(one.outputs["pattern"]["scores"].values()) == pytest.approx(1, abs=0.001) for one in said)
    assert predictor.predict([Sample.empty()])[0].outputs == {}, "no picture, no answer"


@pytest.fixture
def _backbone() -> None:
    pytest.importorskip("timm", reason="the extra backbones is not installed")
    here()


def here() -> Settings:
    return ready.settings(Settings().senses_dir, "backbone")


@pytest.mark.usefixtures("_backbone")
def test_the_card_has_the_score_with_its_interval_and_keeps_the_rest(folder: Path) -> None:
    (folder / "README.md").write_text("# Floors\n\nMine.\n")
    for _ in range(2):
        report = few_shot.learn(folder, folder, here(), Console(quiet=True))
    card = (folder / "README.md").read_text()
    assert card.startswith("# Floors\n\nMine.\n\n<!-- measured: start -->\n")
    assert card.count("measured: start") == 1
    (score,) = report.scores
    assert f"| all senses | {few_shot.shown(score.right, score.windows)} |" in card
    assert score.most_frequent == pytest.approx(1 / 3)


@pytest.mark.usefixtures("_backbone")
def test_a_test_part_is_not_learned_from(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    split = [{**line, "split": "test" if line["group"] == "room-0" else "train"} for line in lines]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in split))
    report = few_shot.learn(folder, folder, here(), Console(quiet=True))
    assert report.windows == 12
    (score,) = report.scores
    assert (score.windows, score.how) == (6, "the test part of the data")


@pytest.mark.usefixtures("_backbone")
def test_labels_without_any_sense_in_them_score_as_a_guess_does(folder: Path) -> None:
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    labels = np.random.default_rng(1).permutation([line["label"] for line in lines])
    shuffled = [{**line, "label": label} for line, label in zip(lines, labels, strict=True)]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in shuffled))
    (score,) = few_shot.learn(folder, folder, here(), Console(quiet=True)).scores
    low, _ = few_shot.interval(score.right, score.windows)
    assert low < 1 / 3


@pytest.mark.usefixtures("_backbone")
def test_heads_of_other_labels_or_senses_are_refused(folder: Path) -> None:
    with pytest.raises(ModelError, match=r"learned.safetensors is not a file; run `streamer learn"):
        Predictor.load(folder)
    few_shot.learn(folder, folder, here(), Console(quiet=True))
    (folder / "model.toml").write_text(TOML.replace('"stripes", "tiles"', '"tiles", "stripes"'))
    with pytest.raises(ModelError, match="learned for other labels of pattern"):
        Predictor.load(folder)
    (folder / "model.toml").write_text(TOML)
    with pytest.raises(UsageError, match="on other senses than are here"):
        learned.read(folder, Predictor.load(folder).spec.senses.learned, {"pictures": "another"})  # type: ignore[union-attr]
    (folder / LEARNED_FILE).write_bytes(b"broken")
    with pytest.raises(ModelError, match="is truncated"):
        Predictor.load(folder)


def rows_of(*labels: str, group: str = "", part: str = "") -> list[Row]:
    return [Row(label, {"x": label}, group=group, part=part) for label in labels]


def test_a_test_part_is_what_is_judged() -> None:
    rows = rows_of("a", "b", "a", "b") + rows_of("a", "b", part="test")
    folds, how = few_shot._folds(rows, [row.where for row in rows])
    assert (folds, how) == ([[4, 5]], "the test part of the data")
    alone = rows_of("a", "a") + rows_of("a", "b", part="test")
    assert few_shot._test_part(alone, [row.where for row in alone]) == [], "nothing else shows b"


def test_groups_are_not_divided() -> None:
    rows = [row for group in "xyz" for row in rows_of("a", "b", group=group)]
    folds, how = few_shot._folds(rows, [row.where for row in rows])
    assert sorted(folds) == [[0, 1], [2, 3], [4, 5]]
    assert how == "cross-validation that keeps groups together"


def test_without_groups_stretches_of_the_data_are_held_out() -> None:
    rows = rows_of(*"aaaabbbb")
    folds, how = few_shot._folds(rows, [row.where for row in rows])
    assert folds == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert "a new recording will do worse" in how


def test_one_window_of_a_label_is_not_enough() -> None:
    learned_ = Learned(("a", "b"))
    with pytest.raises(UsageError, match="'b' has 1 windows with pictures, sounds, words; two or more"):
        few_shot._enough("x", learned_, ["a", "a", "b"])


def block(rng: np.random.Generator, truth: list[str], present: list[bool]) -> tuple[np.ndarray, np.ndarray]:
    """Features of which one tells the label."""
    features = rng.normal(size=(len(truth), 20)).astype(np.float32)
    features[:, 3] = [4.0 if label == "a" else -4.0 for label in truth]
    return features, np.array(present)


def test_a_head_judges_by_whichever_sense_a_window_has() -> None:
    rng = np.random.default_rng(0)
    truth = ["a", "b"] * 10
    blocks = {"pictures": block(rng, truth, [True] * 20), "sounds": block(rng, truth, [n > 3 for n in range(20)])}
    one = Learned(("b", "a"), ("pictures", "sounds"))
    head = few_shot._fitted(one, blocks, truth)
    for lacking in ((), ("pictures",), ("sounds",)):
        given = {name: (features, present & (name not in lacking)) for name, (features, present) in blocks.items()}
        scores, known = head.scores(given)
        assert known.tolist() == [n > 3 or "pictures" not in lacking for n in range(20)]
        right = [one.labels[int(row.argmax())] == label for row, label in zip(scores, truth, strict=True)]
        assert all(np.array(right)[known])


def test_a_fold_without_a_label_never_says_it() -> None:
    rng = np.random.default_rng(0)
    truth = ["a", "b"] * 5
    one = Learned(("a", "b", "c"), ("pictures",))
    head = few_shot._fitted(one, {"pictures": block(rng, truth, [True] * 10)}, truth)
    scores, _ = head.scores({"pictures": block(rng, truth, [True] * 10)})
    assert scores[:, 2].max() == 0


def test_wilsons_interval() -> None:
    # Agresti and Coull 1998: 0 of 20 and 10 of 20
    assert few_shot.interval(0, 20) == pytest.approx((0.0, 0.161), abs=0.001)
    assert few_shot.interval(10, 20) == pytest.approx((0.299, 0.701), abs=0.001)


def test_heads_are_read_as_they_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    head = Head(
        ("a", "b"),
        rng.normal(size=2).astype(np.float32),
        {"words": (rng.normal(size=5).astype(np.float32), rng.normal(size=(2, 5)).astype(np.float32))},
    )
    learned.write(tmp_path, {"x": head}, {"words": "v"})
    read = learned.read(tmp_path, {"x": Learned(("a", "b"), ("words",))}, {"words": "v"})["x"]
    given = {"words": (rng.normal(size=(3, 5)).astype(np.float32), np.ones(3, np.bool_))}
    assert np.array_equal(read.scores(given)[0], head.scores(given)[0])


@pytest.mark.usefixtures("_backbone")
def test_features_are_the_same_in_any_company() -> None:
    rng = np.random.default_rng(0)
    pictures = [np.asarray(picture(label, rng)) for label in ("tiles", "plain", "stripes")]
    features = Features(Senses(learned={"x": Learned(("a", "b"), ("pictures",))}), here())
    samples = [
        Sample(
            present=(True, False, False, False),
            coverage=(1.0, 0.0, 0.0, 0.0),
            image_FHW3=one[None],
            image_mask_F=np.ones(1, np.bool_),
        )
        for one in pictures
    ]
    together, present = features.of([samples[0], Sample.empty(), *samples[1:]])["pictures"]
    assert present.tolist() == [True, False, True, True]
    alone, _ = features.of([samples[1]])["pictures"]
    np.testing.assert_allclose(together[2], alone[0], atol=1e-4)
