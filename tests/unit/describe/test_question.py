"""Answers by extraction: which windows are shown, and that they are said to be no answer."""

from __future__ import annotations

import json

import pytest

from streamer.describe.question import MOST_EXTRACTED, MOST_GIVEN, Reply, Window, _given, _stem, by_extraction
from streamer.store.descriptions import Description

S_US = 1_000_000
TEXTS = [
    "Action is proceed (98 %).",
    "Action is proceed (97 %). Said: “pedestrian ahead”.",
    "Action is brake (99 %), and was proceed before.",
    "Action is brake (95 %).",
    "Action is proceed (90 %), and was brake before.",
]


def windows(texts: list[str]) -> list[Window]:
    return [
        Window(Description("car", n * S_US, (n + 1) * S_US, text, "outputs"), ", and was" in text)
        for n, text in enumerate(texts)
    ]


def nothing_alike() -> list[Window]:
    return []


def numbers(reply: Reply) -> list[int]:
    return [one.start_us // S_US for one in reply.windows]


def test_windows_with_the_words_of_the_question_are_shown_in_order_of_time() -> None:
    reply = by_extraction("Why did it brake?", windows(TEXTS), nothing_alike, "no model is set")
    assert numbers(reply) == [2, 3, 4]
    assert reply.by == "extraction"
    assert reply.answer == (
        "Windows are shown instead of an answer, since no model is set: brake stands in 3 of 5 descriptions."
    )


@pytest.mark.parametrize("question", ["Was it braking?", "has the car BRAKED", "brakes"])
def test_other_forms_of_a_word_match_too(question: str) -> None:
    assert numbers(by_extraction(question, windows(TEXTS), nothing_alike, "x")) == [2, 3, 4]


def test_of_many_windows_those_with_rare_words_and_with_changes_come_first() -> None:
    many = windows(["Action is brake (90 %)."] * 50 + TEXTS)
    reply = by_extraction("brake for the pedestrian", many, nothing_alike, "x")
    assert len(reply.windows) == MOST_EXTRACTED
    assert {51, 52, 54} <= set(numbers(reply))  # the pedestrian, and the two changes
    assert numbers(reply) == sorted(numbers(reply))
    assert "the best 8 of them" in reply.answer


def test_without_a_word_in_common_the_index_is_asked_and_then_changes_are_shown() -> None:
    shown = windows(TEXTS)
    found = by_extraction("any ambulance?", shown, lambda: [shown[3], shown[0]], "x")
    assert numbers(found) == [0, 3]
    assert "the index finds these most alike" in found.answer
    changes = by_extraction("any ambulance?", shown, nothing_alike, "x")
    assert numbers(changes) == [2, 4]
    assert "in which a decision changes" in changes.answer
    none = by_extraction("any ambulance?", windows(TEXTS[:2]), nothing_alike, "x")
    assert (numbers(none), "no window has its words" in none.answer) == ([], True)


def test_a_model_is_given_all_windows_or_of_many_those_that_match_change_or_are_new() -> None:
    assert len(_given("brake", windows(TEXTS))) == 5
    many = windows([*TEXTS, *["Action is proceed (98 %)."] * 500])
    given = [one.start_us // S_US for one in _given("Why did it brake?", many)]
    assert len(given) == MOST_GIVEN
    assert {2, 3, 4, 504} <= set(given)
    assert 300 not in given
    assert given == sorted(given)


def test_a_reply_as_json_names_the_ids_of_its_windows() -> None:
    reply = by_extraction("brake", windows(TEXTS), nothing_alike, "x")
    told = json.loads(reply.to_json())
    assert [one["id"] for one in told["windows"]] == ["car/3000000", "car/4000000", "car/5000000"]
    assert set(told) == {"question", "answer", "by", "windows", "note"}


@pytest.mark.parametrize(("word", "stem"), [("braking", "brak"), ("brake", "brak"), ("red", "red"), ("is", "is")])
def test_stems(word: str, stem: str) -> None:
    assert _stem(word) == stem
