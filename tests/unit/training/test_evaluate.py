"""Evaluation of a model on windows of known labels, and its tables in the card."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from streamer.errors import UsageError
from streamer.events import KIND_NAMES
from streamer.model import repository
from streamer.model.predictor import Network, Prediction
from streamer.model.sample import Phrase, Sample, only
from streamer.model.spec import read_spec
from streamer.training import card, evaluate
from streamer.training.dataset import Example
from streamer.training.evaluate import HeldOut
from streamer.training.scores import Classes, Number, Tags
from streamer.training.vocabulary import train_tokenizer
from tests.toy import QUIET, SPEC

TOML = """
name = "toy"
version = "1"
window_ms = 500
[inputs.text]
max_tokens = 6
[inputs.telemetry]
channels = ["speed"]
rate_hz = 20
[outputs.action]
labels = ["go", "stop"]
"""


class Says:
    """The methods of Predictor that evaluation uses; right about windows with words, guessing without."""

    spec, name, version, device = SPEC, "toy", "1-abc", torch.device("cpu")

    def predict(self, samples: list[Sample]) -> list[Prediction]:
        return [Prediction(self._say(sample), np.zeros(4, np.float16)) for sample in samples]

    def _say(self, sample: Sample) -> dict[str, Any]:
        stop = bool(sample.text) and "stop" in sample.text[0].text
        return {
            "action": {
                "label": "stop" if stop else "go",
                "score": 1.0,
                "scores": {"go": 1.0 - stop, "stop": 1.0 * stop},
            },
            "signs": {"labels": ["hot"], "scores": {"hot": 0.5 + 0.4 * stop, "loud": 0.1}},
            "speed": {"value": 10.0 if stop else 20.0, "unit": "m/s"},
        }


def window(stop: bool) -> Example:
    return Example(
        Sample(
            present=(False, False, True, True),
            coverage=(0.0, 0.0, 1.0, 1.0),
            text=(Phrase("stop" if stop else "go", 1.0),),
            telemetry_CT=np.full((1, 10), 10.0 + 10 * stop, np.float32),
            telemetry_mask_CT=np.ones((1, 10), np.bool_),
        ),
        {"action": "stop" if stop else "go", "signs": ("hot",) if stop else (), "speed": 11.0 if stop else 20.0},
    )


WINDOWS = [window(n % 4 == 0) for n in range(40)]


@pytest.fixture(scope="module")
def measured() -> evaluate.Evaluation:
    return evaluate.evaluate(Path("nowhere"), Says(), HeldOut(WINDOWS, "a toy"), QUIET)  # type: ignore[arg-type]


def test_each_output_is_measured_by_its_kind(measured: evaluate.Evaluation) -> None:
    action, signs, speed = (head.rows[0].quality for head in measured.heads)
    assert isinstance(action, Classes)
    assert action.accuracy == 1.0
    assert action.confusion == ((30, 0), (0, 10))
    assert isinstance(signs, Tags)
    assert signs.auroc == 1.0
    assert signs.each[0].f1 == pytest.approx(0.4)  # "hot" is predicted for all: 10 hits, 30 false alarms
    assert isinstance(speed, Number)
    assert speed.mae == 0.25


def test_rows_are_everything_each_alone_and_each_missing(measured: evaluate.Evaluation) -> None:
    rows = {row.given: row.quality for row in measured.heads[0].rows}
    assert [*rows] == ["all", "text alone", "telemetry alone", "text missing", "telemetry missing"]
    assert rows["text alone"] == rows["telemetry missing"] == rows["all"]
    blind = rows["telemetry alone"]
    assert isinstance(blind, Classes)
    assert blind.accuracy == 0.75
    assert measured.present == {"image": 0.0, "audio": 0.0, "text": 1.0, "telemetry": 1.0}


def test_speed_is_told_by_batch_size(measured: evaluate.Evaluation) -> None:
    assert [speed.batch for speed in measured.speeds] == [1, 8, 32]
    for speed in measured.speeds:
        assert 0 <= speed.median_ms <= speed.p99_ms


def test_windows_without_a_label_are_left_out_and_so_is_an_output_without_any() -> None:
    some = [*WINDOWS, Example(WINDOWS[0].sample, {})]
    done = evaluate.evaluate(Path("nowhere"), Says(), HeldOut(some, "a toy"), QUIET)  # type: ignore[arg-type]
    assert [head.rows[0].quality.windows for head in done.heads] == [40, 40, 40]
    bare = [Example(e.sample, {"action": "go", "speed": 1.0}) for e in WINDOWS]
    told = io.StringIO()
    without = evaluate.evaluate(Path("nowhere"), Says(), HeldOut(bare, "a toy"), Console(file=told))  # type: ignore[arg-type]
    assert [head.name for head in without.heads] == ["action", "speed"]
    assert "no window has a label for the output 'signs'" in " ".join(told.getvalue().split())
    with pytest.raises(UsageError, match="a toy has no windows"):
        evaluate.evaluate(Path("nowhere"), Says(), HeldOut([], "a toy"), QUIET)  # type: ignore[arg-type]


def test_the_common_space_of_a_folder_is_measured_for_every_pair(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(TOML)
    spec = read_spec(tmp_path)
    tokenizer = train_tokenizer(["go", "stop"] * 2)
    torch.manual_seed(0)
    repository.write(tmp_path, repository.new_module(spec, tmp_path, tokenizer), tokenizer, {})
    silent = Example(Sample((False, False, False, True), (0.0,) * 4, telemetry_CT=WINDOWS[0].sample.telemetry_CT,
                            telemetry_mask_CT=WINDOWS[0].sample.telemetry_mask_CT), {"action": "stop"})  # fmt: skip
    held_out = HeldOut([*WINDOWS, silent], "a toy")
    whole = evaluate.evaluate(tmp_path, Network.load(tmp_path, "cpu"), held_out, QUIET)
    assert whole.heads[0].rows[0].quality.windows == 41
    found = {(r.query, r.found): r for r in whole.recalls}
    assert set(found) == {("text", "telemetry"), ("telemetry", "text"), ("text", "window"), ("telemetry", "window")}
    assert found["telemetry", "text"].windows == 40  # one has no words
    assert found["telemetry", "window"].windows == 41
    # 30 windows say "go", 10 "stop": any of these is right
    assert found["telemetry", "text"].chance["1"] == pytest.approx(0.75**2 + 0.25**2)
    assert found["text", "telemetry"].chance["1"] == pytest.approx(1 / 40)


def test_a_card_gets_its_tables_between_the_markers_and_keeps_the_rest(
    tmp_path: Path, measured: evaluate.Evaluation
) -> None:
    path = tmp_path / card.CARD_FILE
    path.write_text(f"# Toy\n\n{card.CARD_START}\nold\n{card.CARD_END}\n\nLimits.\n")
    card.write_card(measured, tmp_path)
    once = path.read_text()
    card.write_card(measured, tmp_path)
    assert path.read_text() == once
    assert once.startswith("# Toy\n")
    assert once.endswith("\n\nLimits.\n")
    assert "old" not in once
    assert "| all | 1.000 | 1.000 | 0.000 |" in once
    assert "| **stop** | 0 | 10 |" in once
    assert "Output `speed` in m/s:" in once
    assert "| hot | 10 | 0.400 | 1.000 | 1.000 |" in once
    assert "| loud | 0 | 0.000 | – | – |" in once


def test_a_card_without_markers_is_refused(tmp_path: Path, measured: evaluate.Evaluation) -> None:
    with pytest.raises(UsageError, match="measured: start"):
        card.write_card(measured, tmp_path)


def test_tables_fit_a_terminal_of_80_columns(measured: evaluate.Evaluation) -> None:
    out = io.StringIO()
    card.show(measured, Console(file=out, width=80))
    assert "macro-F1" in out.getvalue()
    assert "…" not in out.getvalue()


def test_figures_go_to_a_file_and_confusions_to_pictures(tmp_path: Path, measured: evaluate.Evaluation) -> None:
    evaluate.write_json(measured, tmp_path / "new" / "figures.json")
    told = json.loads((tmp_path / "new" / "figures.json").read_text())
    assert told["heads"][0]["rows"][0]["quality"]["accuracy"] == 1.0
    assert evaluate.draw_confusions(measured, tmp_path) == [tmp_path / "confusion-action.png"]
    with Image.open(tmp_path / "confusion-action.png") as picture:
        assert picture.width > 200


def test_only_hides_the_other_modalities() -> None:
    seen = only(WINDOWS[0].sample, ["text"])
    assert seen.present == tuple(name == "text" for name in KIND_NAMES)
    assert seen.telemetry_CT is None
    assert seen.text == WINDOWS[0].sample.text
