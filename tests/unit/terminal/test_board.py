from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from streamer.broker.deadletters import DeadLetter
from streamer.result import Result
from streamer.terminal import board as boards

END_US = 1_750_000_001_000_000


def result(session: str = "car-1", **changed: Any) -> Result:
    values: dict[str, Any] = {
        "session": session,
        "start_us": END_US - 1_000_000,
        "end_us": END_US,
        "closed_by": "deadline",
        "present": ("image", "audio"),
        "coverage": {"image": 1.0, "audio": 0.83, "text": 0.0, "telemetry": 0.0},
        "members": {},
        "outputs": {"action": {"label": "emergency_stop", "score": 0.9812}},
        "embedding": b"",
        "model": "driving",
        "version": "1-00000000",
        "status": "ok",
        "latencies_us": {"total": 1_234_567},
    }
    return Result(**values | changed)


def lines(what: Any, width: int = 80, height: int = 25) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, color_system=None)
    console.print(what)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined,no-any-return]


def board(*results: Result) -> boards.Board:
    made = boards.Board()
    for one in results:
        made.update(one)
    return made


def test_a_row_shows_the_window_the_decision_the_modalities_and_the_latency_within_80_columns() -> None:
    head, row = lines(board(result("a-session-with-a-very-long-name")))
    assert head.split() == ["session", "window", "decision", "score", "img", "aud", "txt", "tel", "closed", "ms"]
    cells = row.split()
    assert cells[0] == "a-session-with-a-…"
    assert cells[1] == boards.clock(END_US - 1_000_000)
    assert cells[2:] == ["emergency_stop", "0.98", "100", "83", "–", "–", "deadline", "1235"]
    assert max(map(len, (head, row))) <= 80


def test_a_wide_terminal_shows_the_whole_name() -> None:
    assert lines(board(result("a-session-with-a-very-long-name")), width=120)[1].startswith(
        "a-session-with-a-very-long-name "
    )


def test_each_session_has_one_row_with_its_newest_window() -> None:
    shown = lines(board(result("b"), result("a"), result("b", closed_by="end")))
    assert [line.split()[0] for line in shown[1:]] == ["a", "b"]
    assert "end" in shown[2]


def test_of_more_sessions_than_lines_those_heard_last_are_shown() -> None:
    shown = lines(board(*(result(f"car-{number}") for number in range(9))), height=7)
    assert [line.split()[0] for line in shown[1:-1]] == ["car-5", "car-6", "car-7", "car-8"]
    assert shown[-1].strip() == "and 5 more sessions"


def test_before_the_first_result_the_view_says_that_it_waits() -> None:
    assert lines(board())[-1].strip() == "no new results yet"


@pytest.mark.parametrize(("right", "mark"), [(True, "✓"), (False, "✗"), (None, "")])
def test_where_the_truth_is_known_a_mark_says_whether_the_decision_is_right(right: bool | None, mark: str) -> None:
    assert boards.cells(result(), right)[1].plain == f"emergency_stop {mark}".strip()


def test_a_failed_window_says_so_in_place_of_a_decision() -> None:
    assert "failed" in lines(board(result(outputs={}, status="failed")))[1]


def test_a_name_cannot_steer_the_terminal_or_be_taken_for_markup() -> None:
    row = lines(board(result("\x1b[31m[bold]x")))[1]
    assert row.startswith("�[31m[bold]x")


def test_a_listing_has_a_row_for_each_result() -> None:
    assert len(lines(boards.listing([result(), result()]))) == 3


def test_dead_letters_are_listed_with_origin_reason_and_detail() -> None:
    letter = DeadLetter(
        reason="bad_json",
        detail="the body is not JSON",
        topic="streamer.telemetry",
        partition=3,
        offset=17,
        log_time_us=END_US,
        key="car-1",
        ce_id="1",
        ce_type="streamer.telemetry.v1",
        size_bytes=5,
    )
    assert lines(boards.letters([letter]))[1].split(maxsplit=3)[1:] == [
        "streamer.telemetry/3/17",
        "bad_json",
        "the body is not JSON",
    ]
