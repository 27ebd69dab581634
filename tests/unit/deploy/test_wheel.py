"""The wheel, installed into an empty environment and used in an empty folder, where no checkout is near."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

import streamer

ROOT = Path(__file__).parents[3]
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


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel alone, which finds the packages that it depends on where we have them."""
    dist = tmp_path_factory.mktemp("dist")
    run(ROOT, sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(dist))
    (wheel,) = dist.iterdir()
    assert wheel.name == f"streamer_multimodal-{streamer.__version__}-py3-none-any.whl"
    prefix = tmp_path_factory.mktemp("environment")
    venv.create(prefix, with_pip=False, symlinks=True)
    (packages,) = prefix.glob("lib/python*/site-packages")
    assert [*packages.iterdir()] == []
    installing = ("install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-index", str(wheel))
    run(ROOT, sys.executable, "-m", "pip", "--python", str(prefix / "bin" / "python"), *installing)
    assert {path.name for path in packages.iterdir()} == {
        "streamer",
        f"streamer_multimodal-{streamer.__version__}.dist-info",
    }
    # A line of a .pth file leads to a folder, but not to what that folder's .pth files name: not to this checkout.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return prefix


def run(folder: Path, *command: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("STREAMER_", "PYTHON"))}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(root: Path, name: str) -> set[Path]:
    return {path.relative_to(root) for path in (root / name).rglob("*.*") if "__pycache__" not in str(path)}


def test_the_command_and_the_package_say_the_same_version(prefix: Path, tmp_path: Path) -> None:
    assert run(tmp_path, str(prefix / "bin" / "streamer"), "--version") == f"streamer {streamer.__version__}\n"
    assert "streamer demo" in run(tmp_path, str(prefix / "bin" / "streamer"), "--help")
    asked = "import streamer; print(streamer.__version__)"
    assert run(tmp_path, str(prefix / "bin" / "python"), "-c", asked) == f"{streamer.__version__}\n"


def test_the_models_and_schemas_inside_are_found(prefix: Path, tmp_path: Path) -> None:
    settings = tomllib.loads(run(tmp_path, str(prefix / "bin" / "streamer"), "settings"))
    assert Path(settings["model"]).is_relative_to(prefix)
    inside = Path(settings["model"]).parents[1]
    assert Path(settings["schemas"]) == inside / "schemas"
    for name in ("models", "schemas"):
        assert files(inside, name) == files(ROOT, name)
    assert run(tmp_path, str(prefix / "bin" / "python"), "-c", CHECKED).startswith("driving ")


def test_a_model_in_the_working_directory_goes_before_the_one_inside(prefix: Path, tmp_path: Path) -> None:
    (tmp_path / "models" / "driving").mkdir(parents=True)
    settings = tomllib.loads(run(tmp_path, str(prefix / "bin" / "streamer"), "settings"))
    assert settings["model"] == "models/driving"
    assert Path(settings["schemas"]).is_relative_to(prefix)
