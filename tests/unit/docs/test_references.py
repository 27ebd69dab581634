"""What docstrings and comments of the package refer to exists: objects, modules and files."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = ROOT / "streamer"
MODULES = sorted(PACKAGE.rglob("*.py"))
ROLE = re.compile(r":(?:class|func|meth|attr|data|exc|mod):`([^`]+)`")
# not types of the wire contract: streamer.end, streamer.window.v2
DOTTED = re.compile(r"``(streamer(?:\.\w+){2,})(?<!\.v\d)``")
FILE = re.compile(r"``([\w/]+/\w+\.py)``")


class Reference(NamedTuple):
    """``target`` as written in ``line`` (from 1) of a file."""

    line: int
    target: str


def references(text: str, pattern: re.Pattern[str]) -> Iterator[Reference]:
    for number, line in enumerate(text.splitlines(), 1):
        for target in pattern.findall(line):
            yield Reference(number, target)


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def enclosing_class(tree: ast.Module, line: int) -> str:
    """Name of the module-level class around a line, with a dot behind it; empty if there is none."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.lineno <= line <= (node.end_lineno or 0):
            return f"{node.name}."
    return ""


def exists(module: str, name: str) -> bool:
    """Whether an attribute, perhaps of an attribute, of a module exists."""
    found: object = import_module(module)
    for part in name.split("."):
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def resolves(target: str) -> bool:
    """Whether a full name is that of a module or of an object in one."""
    parts = target.split(".")
    for count in range(len(parts), 0, -1):
        module = ".".join(parts[:count])
        try:
            spec = find_spec(module)
        except ModuleNotFoundError:
            continue
        if spec is not None:
            return count == len(parts) or exists(module, ".".join(parts[count:]))
    return False


@pytest.mark.parametrize("path", MODULES, ids=module_of)
def test_every_reference_resolves(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    module = module_of(path)
    broken = [ref for ref in references(text, DOTTED) if not resolves(ref.target)]
    for ref in references(text, ROLE):
        if ref.target.startswith("streamer."):
            found = resolves(ref.target)
        else:
            found = exists(module, ref.target) or exists(module, enclosing_class(tree, ref.line) + ref.target)
        if not found:
            broken.append(ref)
    places = (ROOT, PACKAGE, path.parent)
    broken += [ref for ref in references(text, FILE) if not any((place / ref.target).is_file() for place in places)]
    assert not broken, f"{path.relative_to(ROOT)} refers to what does not exist: {broken}"


@pytest.mark.parametrize("target", ["streamer.gone", "streamer.events.Gone", "streamer.events.Window.gone"])
def test_a_broken_reference_is_found(target: str) -> None:
    assert not resolves(target)


def test_references_to_a_module_and_to_a_field_resolve() -> None:
    assert resolves("streamer.align")
    assert resolves("streamer.events.Window.start_us")
