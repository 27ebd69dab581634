"""When rules raise alarms: pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.result import Result
from streamer.rules.alarm import Alarm
from streamer.rules.engine import Engine, Memory
from streamer.rules.table import Rule
from tests.published import result

HAZARD = Rule("tags.hazard")


def window(number: int, *tags: str, **fields: Any) -> Result:
    """A window with these of the tags hazard and siren, and a speed."""
    outputs = {
        "action": {"label": "brake", "score": 0.9, "scores": {"brake": 0.9, "proceed": 0.1}},
        "tags": {"labels": list(tags), "scores": {"hazard": 0.5, "siren": 0.5}},
        "speed": {"value": 12.5, "unit": "m/s"},
    }
    return result("car", number, **{"outputs": outputs, **fields})


def failed(number: int) -> Result:
    return window(number, outputs={}, status="failed")


def raised(rule: Rule, results: list[Result]) -> list[int]:
    """Numbers of the windows in which the rule raises an alarm; the memory goes through Redis after each."""
    engine, memory, found = Engine({"it": rule}), Memory(), []
    for number, one in enumerate(results):
        memory = msgspec.json.decode(msgspec.json.encode(memory), type=Memory)
        found += [number] * len(engine.see(one, memory))
    return found


def drive(pattern: str) -> list[Result]:
    """Windows: h with a hazard, . without, x on which the model failed, ? without tags."""
    made: dict[str, Callable[[int], Result]] = {
        "h": lambda number: window(number, "hazard"),
        ".": window,
        "x": failed,
        "?": lambda number: window(number, outputs={"action": {"label": "brake"}}),
    }
    return [made[letter](number) for number, letter in enumerate(pattern)]


@pytest.mark.parametrize(
    ("when", "true"),
    [
        ("tags.hazard", True),
        ("tags.siren", False),
        ('"hazard" in tags.labels', True),
        ('action.label == "brake" && action.score > 0.8', True),
        ("action.brake && !action.proceed", True),
        ("speed.value > 10.0 && speed.value <= 12.5", True),
        ('"audio" in window.present', False),
        ("window.coverage.image == 1.0 && window.session == 'car'", True),
        ("tags.labels.exists(name, name.startsWith('haz'))", True),
        ("has(speed.value) && size(tags.labels) == 1", True),
        # missing: unknown, unless what is there decides
        ("nothing.hazard", False),
        ("tags.hazard || nothing.hazard", True),
        ("nothing.hazard || tags.hazard", True),
        ("!(nothing.hazard && tags.siren)", True),
        ("!nothing.hazard", False),
        ("speed.label == 'fast'", False),
        ("action.label > 3", False),
        ("speed.value", False),  # no yes or no
    ],
)
def test_an_expression_sees_outputs_labels_and_the_window(when: str, true: bool) -> None:
    assert raised(Rule(when), [window(0, "hazard")]) == [0] * true


def test_an_alarm_is_raised_when_a_rule_becomes_true_and_not_while_it_is() -> None:
    assert raised(HAZARD, drive("..hhh..h.h")) == [2, 7, 9]


def test_some_of_the_last_windows_must_be_true() -> None:
    three_of_five = Rule("tags.hazard", of=(3, 5))
    assert raised(three_of_five, drive("h.h.h....h.hh")) == [4, 12]
    assert raised(three_of_five, drive("hh..." + "hh")) == []
    assert raised(three_of_five, drive("hhhhhhhh")) == [2]


def test_it_is_not_raised_again_for_a_time_of_the_windows_clock() -> None:
    again = Rule("tags.hazard", again_after_s=4)
    assert raised(again, drive("h.h.h.h.h")) == [0, 6]


def test_what_is_unknown_neither_raises_nor_ends_an_alarm() -> None:
    assert raised(HAZARD, drive("hx?h")) == [0], "it goes on through a failure and a missing output"
    assert raised(HAZARD, drive("xxx???")) == []
    two_of_three = Rule("tags.hazard", of=(2, 3))
    assert raised(two_of_three, drive("hxh")) == [2]
    assert raised(two_of_three, drive("hhxx.h")) == [1], "two unknown ones may have been true"
    assert raised(two_of_three, drive("hh...hh")) == [1, 6]


def test_an_inversion_is_as_unknown_as_what_it_inverts() -> None:
    assert raised(Rule("!tags.hazard"), drive("hx?")) == []


def test_a_rule_may_look_at_the_window_before() -> None:
    begins = Rule("tags.hazard && !before.tags.hazard")
    assert raised(begins, drive("hh.h")) == [3], "before the first window nothing is known"


def test_a_session_that_has_ended_begins_without_a_past() -> None:
    ends = [window(1, "hazard", closed_by="end"), window(2, "hazard", closed_by="end")]
    one = [window(0, "hazard"), *ends, window(9, "hazard")]
    assert raised(HAZARD, one) == [0, 3]
    assert raised(Rule("tags.hazard", again_after_s=1000), one) == [0, 3]


def test_an_alarm_says_what_the_outputs_say_and_its_id_follows_from_the_window() -> None:
    engine = Engine({"near": Rule("tags.hazard", say="Hazard at {speed}, {action}.", severity="alarm")})
    one = msgspec.structs.replace(window(3, "hazard"), session="Straße 7/€")
    (alarm,) = engine.see(one, Memory())
    assert alarm == Alarm("near", "alarm", one.session, one.start_us, one.end_us, "Hazard at 12.5 m/s, brake.")
    assert alarm.id == f"Stra%C3%9Fe%207%2F%E2%82%AC/near/{one.end_us}"
    assert msgspec.json.decode(alarm.event())["data"]["text"] == alarm.text


def test_why_a_rule_was_unknown_is_kept() -> None:
    engine = Engine({"typo": Rule("tags.hazzard"), "number": Rule("speed.value"), "good": HAZARD})
    for one in drive("h.h"):
        engine.see(one, Memory())
    assert {name: count for name, (count, _) in engine.unknown.items()} == {"typo": 3, "number": 3}
    assert engine.unknown["typo"][1] == "'tags' has no 'hazzard'; it has: hazard, siren, labels, scores"
    assert "not true or false" in engine.unknown["number"][1]


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("tgs.hazard", "the results have no 'tgs'; they have: action, tags, speed, window"),
        ("before.tags.hazard", "a session's first window has no 'before'"),
        ("action.scores.creep > 0.5", "there is no 'creep'"),
        ("speed.value * 2 > 20", "Unsupported operation: float * int"),
    ],
)
def test_why_a_rule_is_unknown_names_what_is_missing_and_what_there_is(when: str, why: str) -> None:
    engine = Engine({"it": Rule(when)})
    engine.see(window(0), Memory())
    assert engine.unknown == {"it": (1, why)}


@given(st.text("h.x?", max_size=40), st.integers(1, 4), st.integers(0, 4), st.integers(0, 5))
def test_alarms_are_those_of_an_oracle_that_keeps_all_windows(pattern: str, least: int, more: int, again: int) -> None:
    windows, wanted, true, newest = least + more, [], False, None
    for number in range(len(pattern)):
        last = pattern[max(0, number - windows + 1) : number + 1]
        sure, maybe = last.count("h"), last.count("x") + last.count("?")
        if sure >= least:
            if not true and (newest is None or not again or number - newest > again):
                wanted.append(number)
                newest = number
            true = True
        elif sure + maybe < least:
            true = False
    assert raised(Rule("tags.hazard", of=(least, windows), again_after_s=again), drive(pattern)) == wanted
