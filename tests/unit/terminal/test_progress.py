from __future__ import annotations

import io

import pytest
from rich.console import Console

from streamer.terminal import progress


def console(terminal: bool) -> Console:
    return Console(file=io.StringIO(), width=80, force_terminal=terminal, color_system=None)


def lines(shown: Console) -> list[str]:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue().splitlines()


def test_without_a_terminal_progress_is_a_line_at_once_and_one_every_10_s(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    monkeypatch.setattr(progress, "monotonic", lambda: now_s)
    shown = console(terminal=False)
    for _ in progress.track(range(8), "simulating drives", shown):
        now_s += 4.0
    assert lines(shown) == ["simulating drives: 0 of 8", "simulating drives: 3 of 8", "simulating drives: 6 of 8"]


def test_a_terminal_shows_a_bar_and_no_lines() -> None:
    shown = console(terminal=True)
    assert list(progress.track("ab", "training", shown)) == ["a", "b"]
    assert not any(line.startswith("training: ") for line in lines(shown))


def test_without_a_terminal_each_text_of_a_status_is_a_line() -> None:
    shown = console(terminal=False)
    with progress.status("cutting windows", shown) as say_instead:
        say_instead("measuring [eager]")
    assert lines(shown) == ["cutting windows", "measuring [eager]"]
