"""mypy --strict on what the pages tell users to copy, in a folder without this project's configuration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "README.md", ROOT / "schemas" / "README.md", ROOT / "docs" / "models.md")

# kafka-python has no types, and those of redis-py contradict its answers: neither is ours to fix.
CONFIGURATION = """
[mypy]
strict = true
[mypy-kafka.*]
ignore_missing_imports = true
[mypy-redis.*]
follow_imports = skip
"""
WRONG = """
from streamer import Producer, Settings
from streamer.model import ModelSpec

def send(producer: Producer, spec: ModelSpec) -> int:
    producer.frame(7, b"")
    Settings.load().window_length
    return spec.name
"""


def snippets() -> dict[str, str]:
    """Name of a file -> an example of a page."""
    return {
        f"{page.stem.lower()}_{number}.py": example
        for page in PAGES
        for number, example in enumerate(re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL))
    }


@pytest.fixture(scope="module")
def complaints(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What mypy says of all examples, and of code that uses the API wrongly, where the wheel is installed."""
    folder = tmp_path_factory.mktemp("user")
    for name, content in {**snippets(), "wrong.py": WRONG, "mypy.ini": CONFIGURATION}.items():
        (folder / name).write_text(content, "utf-8")
    files = sorted(path.name for path in folder.glob("*.py"))
    options = [
        "--python-executable",
        str(installed / "bin" / "python"),
        "--cache-dir",
        str(ROOT / ".mypy_cache" / "users"),
    ]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-m", "mypy", *options, *files]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_every_page_has_examples() -> None:
    assert {name.rpartition("_")[0] for name in snippets()} == {page.stem.lower() for page in PAGES}


@pytest.mark.parametrize("name", snippets())
def test_an_example_passes_a_strict_type_check(name: str, complaints: list[str]) -> None:
    assert [line for line in complaints if line.startswith(f"{name}:")] == []


def test_users_see_the_types_of_the_api(complaints: list[str]) -> None:
    found = [line for line in complaints if line.startswith("wrong.py:") and ": error:" in line]
    assert [re.findall(r"\[([\w-]+)\]$", line) for line in found] == [["arg-type"], ["attr-defined"], ["return-value"]]
