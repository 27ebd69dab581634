"""Descriptions from outputs and words: what is told of a window, and what is not."""

from __future__ import annotations

from typing import Any

import msgspec

from streamer.describe.evidence import Words
from streamer.describe.sentences import Before, changed, sentences, sparse
from streamer.result import Result
from streamer.settings import Settings

S_US = 1_000_000


def result(outputs: dict[str, Any] | None = None, **other: Any) -> Result:
    made = Result(
        session="car",
        start_us=0,
        end_us=S_US,
        closed_by="complete",
        present=("image", "audio"),
        coverage={"image": 1.0, "audio": 1.0, "text": 0.0, "telemetry": 0.0},
        members={},
        outputs=outputs if outputs is not None else {},
        embedding=b"",
        model="m",
        version="1",
        status="ok",
        latencies_us={},
    )
    return msgspec.structs.replace(made, **other)


def action(label: str, score: float = 0.93) -> dict[str, Any]:
    return {"action": {"label": label, "score": score, "scores": {label: score}}}


NOTHING, FIRST = Words(), Before()


def told(one: Result, words: Words = NOTHING, before: Before = FIRST) -> str:
    return sentences(one, words, before)


def test_a_class_is_told_with_its_probability_in_words_without_underscores() -> None:
    assert told(result(action("emergency_stop"))) == "Action is emergency stop (93 %)."


def test_a_class_that_changes_is_told_with_what_it_was() -> None:
    before = Before().after(result(action("proceed")))
    assert told(result(action("brake")), before=before) == "Action is brake (93 %), and was proceed before."
    assert changed(result(action("brake")), before)
    assert told(result(action("proceed")), before=before) == "Action is proceed (93 %)."
    assert not changed(result(action("proceed")), before)
    assert not changed(result(action("proceed")), Before())  # the first window changes nothing


def test_a_window_without_outputs_between_two_keeps_what_the_class_was() -> None:
    before = Before().after(result(action("proceed"))).after(result({}, status="failed"))
    assert changed(result(action("brake")), before)


def test_tags_a_number_and_its_unit_make_one_sentence() -> None:
    outputs = {
        "condition": {"labels": ["tachycardia", "irregular_rhythm"], "scores": {}},
        "heart_rate": {"value": 121.9438, "unit": "1/min"},
        "speed": {"value": 13.5, "unit": "m/s"},
        "people": {"value": 3.0, "unit": ""},
    }
    assert told(result(outputs)) == (
        "Condition: tachycardia and irregular rhythm; heart rate is 121.94 per minute; speed is 13.5 m/s; people is 3."
    )
    assert told(result({"condition": {"labels": [], "scores": {}}})) == "Condition: none."


def test_tags_that_are_counted_are_told_with_their_number() -> None:
    tags = {"labels": ["person", "car", "bus", "dog"], "scores": {}, "counts": {"person": 2, "car": 1, "bus": 3}}
    assert told(result({"objects": tags})) == "Objects: two people, a car, three buses and dog."


def test_a_model_that_tells_its_findings_in_text_is_quoted_and_nothing_is_told_twice() -> None:
    outputs = {
        "words": {"text": "two cars; engine; speed 3 m/s;\n says: turn left"},
        "objects": {"labels": ["car"], "scores": {}, "counts": {"car": 2}},
        "speed": {"value": 3.0, "unit": "m/s"},
        **action("brake"),
    }
    said = Words(("turn left", "and stop"))
    assert told(result(outputs), said) == (
        "Two cars; engine; speed 3 m/s; says: turn left; action is brake (93 %). Said: “and stop”."
    )


def test_what_ends_with_a_stop_gets_no_second_one() -> None:
    outputs = {"words": {"text": "a person; says: Turn left."}}
    assert told(result(outputs)) == "A person; says: Turn left."


def test_an_output_of_an_unknown_kind_is_not_told() -> None:
    assert told(result({"box": {"corners": [1, 2]}, **action("brake")})) == "Action is brake (93 %)."


def test_what_was_said_is_quoted_and_cut_off_between_words() -> None:
    assert told(result(action("brake")), Words(("stop", "right here"))) == (
        "Action is brake (93 %). Said: “stop … right here”."
    )
    long = told(result(), Words(("word " * 100,)))
    assert long.startswith("Said: “word word")
    assert long.endswith("word …”.")
    assert len(long) < 320


def test_words_that_kafka_has_deleted_are_told_to_be_missing() -> None:
    assert told(result(), Words(gone=True)) == "Kafka no longer has what was said."


def test_what_the_session_had_sent_before_is_missed_but_silence_is_not() -> None:
    before = Before().after(result(present=("image", "audio", "text", "telemetry")))
    assert told(result(action("proceed")), before=before) == "Action is proceed (93 %). There is no telemetry."
    assert told(result(action("proceed"), present=()), before=before).endswith("There is no image, audio or telemetry.")
    assert told(result(action("proceed"), present=("image",))) == "Action is proceed (93 %)."


def test_a_modality_that_covers_less_than_half_is_named() -> None:
    coverage = {"image": 0.3, "audio": 0.5, "text": 0.0, "telemetry": 0.0}
    assert told(result(action("proceed"), coverage=coverage)) == "Action is proceed (93 %). Image covers 30 % of it."


def test_a_failed_a_partial_and_a_last_window_are_told() -> None:
    assert told(result(status="failed")) == "The model failed on this window."
    assert "Data may be missing" in told(result(action("proceed"), status="partial"))
    assert told(result(action("hold"), closed_by="end")) == "Action is hold (93 %). The session ends here."
    assert told(result()) == "Nothing is known of this window."


def test_sensors_whose_silence_says_nothing_are_those_of_the_settings() -> None:
    settings = Settings(sensors={"radio": {"kind": "text"}, "cabin": {"kind": "audio"}})
    before = Before().after(result(present=("image", "radio", "cabin")))
    assert sentences(result(present=("image",)), NOTHING, before, sparse(settings)) == "There is no cabin."
