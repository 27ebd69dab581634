"""docs/models.md: what it tells to copy works as it stands, from data to served predictions."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner

from streamer.cli.app import app
from streamer.events import TELEMETRY, TEXT
from streamer.model.predictor import Predictor
from streamer.model.sample import Sample
from streamer.model.spec import SPEC_FILE, read_spec
from streamer.training.data import open_data

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "models.md").read_text("utf-8")
EXAMPLE = PAGE[PAGE.index("## Your own network") :]
FILES = dict(re.findall(r"^`([\w/.]+)`[^\n]*:\n\n```\w+\n(.*?)```", EXAMPLE, re.DOTALL | re.MULTILINE))


def test_the_example_is_all_there() -> None:
    assert set(FILES) == {"models/press/model.toml", "models/press/model.py", "make_data.py"}


def test_the_example_trains_evaluates_and_serves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, content in FILES.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(content, "utf-8")
    commands = [line.split("  ")[0].split() for line in EXAMPLE.splitlines() if line.startswith("streamer ")]
    assert [command[1] for command in commands] == ["train", "evaluate"]
    runpy.run_path("make_data.py")
    for command in commands:
        result = CliRunner().invoke(app, command[1:], catch_exceptions=False)
        assert result.exit_code == 0, result.output

    predictor = Predictor.load(Path("models/press"), device="cpu")
    held_out = open_data(Path("press_data"), predictor.spec).test
    examples = [held_out[n] for n in range(len(held_out))]
    said = predictor.predict([example.sample for example in examples])
    right = [p.outputs["state"]["label"] == e.labels["state"] for p, e in zip(said, examples, strict=True)]
    assert len(right) > 10
    assert np.mean(right) > 0.9
    for row in (TEXT, TELEMETRY):  # each alone serves too
        alone = [e for e in examples if e.sample.present[row] and sum(e.sample.present) == 1]
        assert alone
    assert predictor.predict([Sample.empty()])[0].outputs["state"]["label"] in ("ok", "worn")


def test_the_model_toml_and_the_manifest_lines_of_the_page_are_valid(tmp_path: Path) -> None:
    files: list[str] = []
    for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL):
        if text.startswith("name ="):
            files.append(text)
        else:  # what may be added to the one before
            files[-1] += text
    specs = []
    for text in files:
        (tmp_path / SPEC_FILE).write_text(text, "utf-8")
        specs.append(read_spec(tmp_path))
    assert [spec.name for spec in specs] == ["mine", "garage", "press"]
    assert list(specs[0].inputs.all) == ["image", "audio", "text", "telemetry", "camera_rear"]
    assert specs[1].senses is not None
    assert specs[1].senses.problem() is None
    schema = Draft202012Validator(json.loads((ROOT / "schemas" / "manifest.json").read_text()))
    lines = [
        json.loads(line) for text in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL) for line in text.splitlines()
    ]
    assert len(lines) == 5
    assert all(schema.is_valid(line) for line in lines)


def test_the_files_that_it_names_exist() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", PAGE) if "://" not in link]
    named = re.findall(r"`((?:streamer|models|schemas)/[\w/.]+)`", PAGE.replace("models/mine", ""))
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
    assert [name for name in named if not (ROOT / name).exists() and "press" not in name] == []
