"""What `streamer rules run` says of rules that are never true or false."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest
from prometheus_client import CollectorRegistry

from streamer.result import Result
from streamer.rules.actions import Doing
from streamer.rules.alarms import Alarms
from streamer.rules.metrics import Metrics
from streamer.rules.process import Ruler
from streamer.rules.table import Rule
from streamer.store.readers import Cursor, Page
from tests.published import result


class Steps:
    """Alarms that are always noted."""

    async def step(self, *args: object) -> bool:
        return True


def warnings(rules: dict[str, Rule], windows: Sequence[Result], caplog: pytest.LogCaptureFixture) -> list[str]:
    """What is logged once the rules have seen these windows, each in a page of its own."""
    doing = Doing({}, cast(Alarms, Steps()), Metrics(CollectorRegistry()))
    ruler = Ruler(rules, cast(Alarms, Steps()), doing, Metrics(CollectorRegistry()))

    async def drive() -> None:
        cursor = Cursor(0, b"")
        for one in windows:
            await ruler.take(Page(one.session, cursor, (one,), missed=""))

    asyncio.run(drive())
    return [record.getMessage() for record in caplog.records]


def test_a_rule_that_is_unknown_in_its_first_windows_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    rules = {"hazard": Rule("tags.hazard"), "good": Rule("action.score > 2")}
    said = warnings(rules, [result("car", number) for number in range(30)], caplog)
    assert said == [
        "rule hazard: neither true nor false in its first 10 windows: the results have no 'tags'; "
        "they have: action, window"
    ]


def test_a_rule_that_is_unknown_at_times_is_not_told_of(caplog: pytest.LogCaptureFixture) -> None:
    other = result("car", 0, outputs={"tags": {"labels": [], "scores": {"hazard": 0.1}}})
    windows = [other, *(result("car", number) for number in range(1, 30))]
    assert warnings({"hazard": Rule("tags.hazard")}, windows, caplog) == []


def test_first_windows_of_many_sessions_have_none_before_and_that_is_no_fault(
    caplog: pytest.LogCaptureFixture,
) -> None:
    windows = [result(f"car-{number}", 0) for number in range(12)]
    assert warnings({"changed": Rule("before.action.brake")}, windows, caplog) == []


def test_windows_on_which_the_model_failed_do_not_count(caplog: pytest.LogCaptureFixture) -> None:
    failed = [result("car", number, outputs={}, status="failed") for number in range(20)]
    good = [result("car", number) for number in range(20, 29)]
    assert warnings({"hazard": Rule("tags.hazard")}, failed + good, caplog) == []
