"""Progress of work that takes minutes: bars in a terminal, plain lines where there is none, as in a log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

from rich.console import Console
from rich.progress import track as rich_track

EVERY_S = 10.0  # between two lines

Item = TypeVar("Item")


class Lines:
    """Lines such as ``training: 120 of 400``: the first at once, then one every 10 s. A terminal shows none.

    Args:
        what: What is done.
        total: How many steps there are.
        done: How many of them were done before.
    """

    def __init__(self, console: Console, what: str, total: int, done: int = 0) -> None:
        self._console, self._what, self._total, self._done = console, what, total, done
        self._said_s = monotonic()
        _say(console, f"{what}: {done} of {total}")

    def advance(self) -> None:
        """One step more is done."""
        self._done += 1
        if monotonic() - self._said_s >= EVERY_S:
            self._said_s = monotonic()
            _say(self._console, f"{self._what}: {self._done} of {self._total}")


def track(items: Sequence[Item], what: str, console: Console) -> Iterator[Item]:
    """The items, with progress while they are worked on."""
    lines = Lines(console, what, len(items))
    for item in rich_track(items, what, console=console, transient=True, disable=not console.is_terminal):
        yield item
        lines.advance()


@contextmanager
def status(what: str, console: Console) -> Iterator[Callable[[str], None]]:
    """What is being done, for as long as the context is open; the function replaces the text."""
    _say(console, what)

    def replace(text: str) -> None:
        shown.update(text)
        _say(console, text)

    with console.status(what) as shown:
        yield replace


def _say(console: Console, line: str) -> None:
    if not console.is_terminal:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
