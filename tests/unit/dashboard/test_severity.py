"""How the page's server orders what the newest results say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamer.dashboard.live import MAX_SESSIONS, Client, summary
from streamer.dashboard.severity import AT_LEAST, ORDER, Standing, decisions, standing
from streamer.result import Result

S_US = 1_000_000
END_US = 1_750_000_000 * S_US


def result(session: str = "car-1", end_us: int = END_US, **changed: Any) -> Result:
    values: dict[str, Any] = {
        "session": session,
        "start_us": end_us - S_US,
        "end_us": end_us,
        "closed_by": "complete",
        "present": ("image",),
        "coverage": {"image": 1.0},
        "members": {},
        "outputs": {},
        "embedding": b"",
        "model": "driving",
        "version": "1",
        "status": "ok",
        "latencies_us": {"total": 1000},
    }
    return Result(**values | changed)


def said(severity: str | None, *, unsure: bool = False, label: str = "x") -> dict[str, Any]:
    graded = {} if severity is None else {"severity": severity}
    return {"label": label, "score": 0.9, "scores": {label: 0.9}, **graded, **({"unsure": True} if unsure else {})}


def test_what_is_unsure_or_still_open_comes_after_what_is_sure_and_before_what_is_less_severe() -> None:
    descending = [
        result(outputs={"action": said("alarm")}),
        result(outputs={"action": said("alarm", unsure=True)}),
        result(outputs={"action": said("warning")}),
        result(outputs={"action": said("warning")}, final=False),
        result(status="failed"),
        result(outputs={"action": said("notice")}, status="partial"),
        result(outputs={"action": said("notice", unsure=True)}),
        result(status="empty"),
        result(outputs={"action": said("normal")}),
    ]
    assert [standing(one).rank for one in descending] == sorted(range(len(ORDER)), reverse=True)
    assert {name: sum(standing(one).rank >= least for one in descending) for name, least in AT_LEAST.items()} == {
        "alarm": 2,
        "warning": 4,
        "notice": 7,  # the failed one too
    }
    assert [standing(one).sure for one in descending] == [True, False, True, False, True, True, False, True, True]


@pytest.mark.parametrize("severity", [None, "normal", "deadly", "failed?"])
def test_what_no_model_has_graded_is_normal_sure_or_not(severity: str | None) -> None:
    for unsure in (False, True):
        assert standing(result(outputs={"action": said(severity, unsure=unsure)})) == Standing(
            "normal", not unsure, 0, "action"
        )


def test_the_most_severe_output_stands_for_the_result_and_is_what_the_list_says() -> None:
    outputs = {
        "action": said("notice", label="creep"),
        "behind": said("warning", label="emergency_vehicle"),
        "occupants": said("warning", unsure=True, label="crying"),
        "words": {"text": "a siren; somebody cries"},
    }
    one = summary(result(outputs=outputs), 1.0)
    assert (one.severity, one.sure, one.label, one.score) == ("warning", True, "behind: emergency_vehicle", 0.9)
    assert one.decisions == {"action": "creep", "behind": "emergency_vehicle", "occupants": "crying?"}
    first = summary(result(outputs=outputs | {"action": said("warning", label="brake", unsure=True)}), 1.0)
    assert first.label == "behind: emergency_vehicle"  # sure
    equal = summary(result(outputs=outputs | {"action": said("warning", label="brake")}), 1.0)
    assert equal.label == "brake"  # the first output needs no name
    assert decisions(result(outputs={"words": {"text": "nothing"}})) == {}
    assert summary(result(outputs={"words": {"text": "nothing"}}), 1.0).label == "nothing"


async def test_early_results_of_all_sessions_are_listed_apart_and_the_newest_of_each_alone() -> None:
    client = Client("car-1")
    for number in range(2 * MAX_SESSIONS):
        client.first(result(f"car-{number}", outputs={"action": said("notice")}, final=False))
    client.result(result("car-0", outputs={"action": said("normal")}))
    client.first(result(f"car-{number}", END_US + S_US, outputs={"action": said("alarm")}, final=False))
    news = json.loads(await client.take(1.0) or b"")
    assert [one["session"] for one in news["sessions"]] == ["car-0"]
    assert len(news["early"]) == MAX_SESSIONS
    newest = news["early"][-1]
    assert (newest["severity"], newest["sure"], newest["final"]) == ("alarm", False, False)
    client.result(result())
    assert "early" not in json.loads(await client.take(1.0) or b"")
