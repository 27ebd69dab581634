"""The wheel, installed into an empty environment and used in an empty folder, where no checkout is near."""

from __future__ import annotations

import tomllib
from pathlib import Path

import streamer
from tests.wheel import ROOT, run

CHECKED = """
import sys
from pathlib import Path
from streamer import Settings, __file__ as place
from streamer.model.predictor import Predictor
from streamer.model.sample import Sample

assert Path(place).is_relative_to(sys.prefix), place
predictor = Predictor.load(Settings.load().model, device="cpu")
print(predictor.name, predictor.predict([Sample((False,) * 4, (0.0,) * 4)])[0].outputs["action"]["label"])
"""


def files(root: Path, name: str) -> set[Path]:
    return {path.relative_to(root) for path in (root / name).rglob("*.*") if "__pycache__" not in str(path)}


def test_the_command_and_the_package_say_the_same_version(installed: Path, tmp_path: Path) -> None:
    assert run(tmp_path, str(installed / "bin" / "streamer"), "--version") == f"streamer {streamer.__version__}\n"
    assert "streamer demo" in run(tmp_path, str(installed / "bin" / "streamer"), "--help")
    asked = "import streamer; print(streamer.__version__)"
    assert run(tmp_path, str(installed / "bin" / "python"), "-c", asked) == f"{streamer.__version__}\n"


def test_the_models_and_schemas_inside_are_found(installed: Path, tmp_path: Path) -> None:
    settings = tomllib.loads(run(tmp_path, str(installed / "bin" / "streamer"), "settings"))
    assert Path(settings["model"]).is_relative_to(installed)
    inside = Path(settings["model"]).parents[1]
    assert Path(settings["schemas"]) == inside / "schemas"
    for name in ("models", "schemas"):
        assert files(inside, name) == files(ROOT, name)
    assert run(tmp_path, str(installed / "bin" / "python"), "-c", CHECKED).startswith("driving ")


def test_a_model_in_the_working_directory_goes_before_the_one_inside(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "driving").mkdir(parents=True)
    settings = tomllib.loads(run(tmp_path, str(installed / "bin" / "streamer"), "settings"))
    assert settings["model"] == "models/driving"
    assert Path(settings["schemas"]).is_relative_to(installed)
