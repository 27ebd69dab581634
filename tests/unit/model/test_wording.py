"""What the senses found, in words."""

from __future__ import annotations

import pytest

from streamer.model import wording
from streamer.senses.objects import LABELS


@pytest.mark.parametrize(
    ("label", "count", "text"),
    [
        ("car", 1, "a car"),
        ("umbrella", 1, "an umbrella"),
        ("person", 2, "two people"),
        ("bus", 3, "three buses"),
        ("bench", 12, "twelve benches"),
        ("knife", 2, "two knives"),
        ("mouse", 4, "four mice"),
        ("sheep", 2, "two sheep"),
        ("scissors", 1, "scissors"),
        ("skis", 2, "two skis"),
        ("broccoli", 3, "broccoli"),
        ("traffic light", 13, "13 traffic lights"),
    ],
)
def test_things_are_counted_as_people_say_it(label: str, count: int, text: str) -> None:
    assert label in LABELS.values()
    assert wording.counted(label, count) == text


def test_a_window_is_told_in_parts_and_what_there_is_not_is_not_told() -> None:
    told = wording.words(
        {"person": 2, "car": 1, "dog": 1}, ["engine", "siren"], {"speed": (13.94, "m/s")}, ["turn left", "now"]
    )
    assert told == "two people, a car and a dog; engine, siren; speed 13.9 m/s; says: turn left now"
    assert wording.words({"car": 1}, [], {}, []) == "a car"
    assert wording.words({}, [], {"pulse": (72.0, "")}, []) == "pulse 72"
    assert wording.words({}, [], {}, []) == ""
