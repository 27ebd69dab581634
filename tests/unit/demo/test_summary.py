from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from streamer.demo import summary
from streamer.demo.summary import Expected, Summary
from streamer.result import Result

S_US = 1_000_000


def result(second: int, label: str, session: str = "car-1", **changed: Any) -> Result:
    values: dict[str, Any] = {
        "session": session,
        "start_us": second * S_US,
        "end_us": (second + 1) * S_US,
        "closed_by": "complete",
        "present": ("image",),
        "coverage": {"image": 1.0},
        "members": {},
        "outputs": {"action": {"label": label, "score": 0.9}},
        "embedding": b"",
        "model": "driving",
        "version": "1-00000000",
        "status": "ok",
        "latencies_us": {"align": 1000 * second, "total": 2000 * second},
    }
    return Result(**values | changed)


def window(second: int, label: str | None, session: str = "car-1") -> Expected:
    return Expected(session, second * S_US, (second + 1) * S_US, label)


def summarise(results: list[Result], expected: list[Expected], **changed: Any) -> Summary:
    counts: dict[str, Any] = {"records": 100, "dead_letters": 0, "late_events": 0, "seconds": 10.0}
    return summary.summarise(results, expected, **counts | changed)


def test_a_window_that_the_drive_has_and_redis_has_not_is_lost() -> None:
    made = summarise([result(0, "hold")], [window(0, "hold"), window(1, "hold"), window(0, "hold", "car-2")])
    assert (made.windows, made.expected_windows, made.lost_windows, made.sessions) == (1, 3, 2, 2)
    assert not made.clean


def test_results_beyond_the_drive_count_as_windows_and_are_not_judged() -> None:
    made = summarise([result(0, "hold"), result(1, "brake")], [window(0, "hold")])
    assert (made.windows, made.lost_windows, made.judged_windows, made.accuracy) == (2, 0, 1, 1.0)
    assert made.clean


def test_windows_whose_truth_is_undecided_are_expected_and_not_judged() -> None:
    made = summarise([result(0, "hold")], [window(0, None)])
    assert (made.lost_windows, made.judged_windows, made.accuracy, made.macro_f1) == (0, 0, None, None)


def test_accuracy_and_macro_f1_are_taken_over_the_judged_windows() -> None:
    said, truths = ["hold", "hold", "brake", "brake"], ["hold", "hold", "hold", "brake"]
    made = summarise(
        [result(second, label) for second, label in enumerate(said)],
        [window(second, label) for second, label in enumerate(truths)],
    )
    assert made.accuracy == 0.75
    assert made.macro_f1 == pytest.approx((0.8 + 2 / 3) / 2)  # hold: 2·2/(3+2), brake: 2·1/(1+2)


def test_a_label_that_is_said_and_never_true_lowers_only_the_others() -> None:
    assert summary.macro_f1([("hold", "hold"), ("hold", "creep")]) == pytest.approx(2 / 3)


def test_a_failed_window_is_judged_wrong_and_the_run_is_not_clean() -> None:
    made = summarise([result(0, "", outputs={}, status="failed")], [window(0, "hold")])
    assert (made.accuracy, made.failed_windows, made.clean) == (0.0, 1, False)


def test_dead_letters_make_a_run_unclean_and_late_events_do_not() -> None:
    assert not summarise([result(0, "hold")], [window(0, "hold")], dead_letters=1).clean
    assert summarise([result(0, "hold")], [window(0, "hold")], late_events=1).clean


def test_latencies_are_percentiles_of_each_stage_in_milliseconds() -> None:
    made = summary.latencies([result(second, "hold") for second in range(101)])
    assert made == {"align": summary.Percentiles(50.0, 99.0), "total": summary.Percentiles(100.0, 198.0)}


def test_presence_is_the_share_of_windows_with_each_sensor_of_the_session() -> None:
    covered = {"image": 1.0, "cabin_mic": 1.0, "can": 0.0}
    here = ("image", "cabin_mic")
    made = summarise([result(0, "hold", coverage=covered), result(1, "hold", coverage=covered, present=here)], [])
    assert made.present == {"image": 1.0, "cabin_mic": 0.5, "can": 0.0}


def test_a_run_without_results_has_a_summary_too() -> None:
    made = summarise([], [window(0, "hold")])
    assert (made.windows, made.lost_windows, made.accuracy, made.latency_ms, made.clean) == (0, 1, None, {}, False)
    Console(file=io.StringIO(), width=80).print(summary.view(made))


def test_the_json_has_the_keys_that_scripts_rely_on() -> None:
    made = json.loads(summary.as_json(summarise([result(0, "hold")], [window(0, "hold")])))
    keys = "windows dead_letters lost_windows accuracy macro_f1 closed_by late_events latency_ms windows_per_s sessions"
    assert set(f"{keys} seconds model version".split()) <= set(made)
    assert made["latency_ms"]["align"] == {"p50": 0.0, "p99": 0.0}


def test_the_view_fits_80_columns() -> None:
    stages = dict.fromkeys(("merge", "align", "batch", "decode", "infer", "publish", "total"), 1234567)
    results = [result(second, "hold", latencies_us=stages) for second in range(180)]
    made = summarise(results, [window(second, "hold") for second in range(180)], records=123_456)
    console = Console(file=(told := io.StringIO()), width=80, color_system=None)
    console.print(summary.view(made))
    text = told.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert "0 of 180 lost" in text
    assert "1234.6" in text
