"""The tree of errors in errors.py is the one there is."""

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import streamer
from streamer import errors
from streamer.errors import StreamerError


def found() -> Iterator[type[BaseException]]:
    for info in pkgutil.walk_packages(streamer.__path__, "streamer."):
        if info.name.endswith("__main__"):
            continue  # it runs the command line
        for value in vars(importlib.import_module(info.name)).values():
            if inspect.isclass(value) and issubclass(value, BaseException) and value.__module__ == info.name:
                yield value


@pytest.fixture(scope="module")
def classes() -> dict[str, type[BaseException]]:
    return {found.__name__: found for found in found()}


def drawn() -> dict[str, str]:
    """The parent of each class in the picture of the tree."""
    path: list[str] = []
    parents = {}
    for branch, name in re.findall(r"^ {4}((?:│ {3}| {4})*[├└]── )?(\w+)", str(errors.__doc__), re.MULTILINE):
        del path[len(branch) // 4 :]
        if path:
            parents[name] = path[-1]
        path.append(name)
    return parents


def test_every_exception_of_the_package_is_drawn_under_its_parent(classes: dict[str, type[BaseException]]) -> None:
    assert len(classes) > 10
    assert drawn() == {name: made.__bases__[0].__name__ for name, made in classes.items() if made is not StreamerError}


def test_every_exception_is_raised_somewhere(classes: dict[str, type[BaseException]]) -> None:
    made = {
        node.func.id
        for path in Path(streamer.__file__).parent.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert set(classes) - made == {"StreamerError"}


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines."), "two lines"),
        (KeyError(), "KeyError"),
        (RuntimeError("x" * 300), "x" * 200),
    ],
)
def test_the_text_of_any_error_fits_one_line(error: Exception, line: str) -> None:
    assert errors.one_line(error) == line
