"""What users import: quick to load, complete, and what `__all__` says."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import streamer

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_every_public_name_that_a_package_declares_is_there_and_once() -> None:
    packages = [module.name for module in pkgutil.walk_packages(streamer.__path__, "streamer.") if module.ispkg]
    declared = {name: getattr(importlib.import_module(name), "__all__", ()) for name in ["streamer", *packages]}
    assert {name for name, names in declared.items() if len(set(names)) < len(names)} == set()
    assert [(name, one) for name, names in declared.items() for one in names if not has(name, one)] == []


def has(module: str, name: str) -> bool:
    return hasattr(importlib.import_module(module), name)


def test_these_names_are_the_api() -> None:
    assert set(streamer.__all__) == {"Producer", "Settings", "__version__", "model"}
    assert set(streamer.model.__all__) == {"Inputs", "ModelSpec", "Outputs"}


@pytest.mark.parametrize("module", [streamer, importlib.import_module("streamer.model")])
def test_a_name_that_does_not_exist_is_an_attribute_error(module: object) -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nonsense'"):
        module.Nonsense  # type: ignore[attr-defined]  # noqa: B018 - that is the test


@pytest.mark.parametrize(
    ("code", "unloaded"),
    [
        ("import streamer; streamer.__version__", {"numpy", "pydantic", "kafka", "torch"}),
        ("import streamer; streamer.Producer, streamer.Settings", {"torch"}),
        ("import streamer; streamer.model.ModelSpec", {"torch"}),
        ("from streamer.model import ModelSpec", {"torch"}),
    ],
)
def test_importing_loads_no_more_than_is_used(code: str, unloaded: set[str]) -> None:
    script = f"import sys; {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert unloaded & set(done.stdout.split()) == set()


def test_what_messages_and_pages_say_to_install_is_this_distribution_and_an_extra_of_it() -> None:
    files = [*(ROOT / "streamer").rglob("*.py"), *(ROOT / "docs").rglob("*.md"), ROOT / "README.md"]
    said = {
        found for file in files for found in re.findall(r"pip install '([\w-]+)\[(\w+|\{\w+\})\]", file.read_text())
    }
    assert {name for name, _ in said} == {PROJECT["name"]}
    extras = {extra for _, extra in said if not extra.startswith("{")}
    assert {"local", "train"} <= extras <= set(PROJECT["optional-dependencies"])
