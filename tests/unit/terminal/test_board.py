from __future__ import annotations

import pytest

from streamer.result import Result
from streamer.terminal import board as boards
from streamer.terminal import tables
from streamer.terminal.presence import Presence
from tests.terminals import END_US, lines, result


def board(*results: Result) -> boards.Board:
    made = boards.Board()
    for one in results:
        made.update(one)
    return made


def test_a_row_shows_the_window_the_decision_the_sensors_and_the_latency_within_80_columns(zone: str) -> None:
    head, row = lines(board(result("a-session-with-a-very-long-name")))
    headings = ["session", "window", zone, "decision", "score", "img", "aud", "txt", "tel", "closed", "ms"]
    assert head.split() == headings
    cells = row.split()
    assert cells[0] == ("a-session-with-…" if zone == "UTC" else "a-session-wi…")
    assert cells[1] == tables.clock(END_US - 1_000_000)
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


def test_a_legend_takes_its_lines_from_the_sessions() -> None:
    names = [f"camera_{number:02}" for number in range(12)]
    here = {"coverage": dict.fromkeys(names, 1.0), "present": tuple(names)}
    shown = lines(board(*(result(f"car-{number}", **here) for number in range(9))), height=10)
    assert len(shown) <= 10
    assert [line.split()[0] for line in shown[1:5]] == ["car-5", "car-6", "car-7", "car-8"]
    assert [line.split()[0] for line in shown[5:]] == ["and", "a=camera_00", "f=camera_05", "k=camera_10"]


def test_before_the_first_result_the_view_says_that_it_waits() -> None:
    assert lines(board())[-1].strip() == "no new results yet"


@pytest.mark.parametrize(("right", "mark"), [(True, "✓"), (False, "✗"), (None, "")])
def test_where_the_truth_is_known_a_mark_says_whether_the_decision_is_right(right: bool | None, mark: str) -> None:
    assert tables.cells(result(), Presence([result()]), right)[1].plain == f"emergency_stop {mark}".strip()


def test_a_failed_window_says_so_in_place_of_a_decision() -> None:
    assert "failed" in lines(board(result(outputs={}, status="failed")))[1]


def test_a_name_cannot_steer_the_terminal_or_be_taken_for_markup() -> None:
    row = lines(board(result("\x1b[31m[bold]x")))[1]
    assert row.startswith("�[31m[bold]x")
