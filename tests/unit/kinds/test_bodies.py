"""Transcripts and telemetry blocks: what they must be, and when what they tell of began and ended."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from streamer.errors import BadRecord, Reason
from streamer.events import TELEMETRY, TEXT, Channel, Event, EventType, Record, Telemetry, Transcript, Word
from streamer.kinds.bodies import Span
from streamer.kinds.telemetry import parse_telemetry
from streamer.kinds.text import parse_transcript
from streamer.model import payloads

SPEED = {"speed": {"unit": "m/s", "values": [1, 2, 3, 4]}}


def span_of_transcript(**fields: Any) -> Span:
    return parse_transcript(json.dumps({"text": "a", **fields}).encode())[1]


def span_of_telemetry(**fields: Any) -> Span:
    return parse_telemetry(json.dumps({"channels": SPEED, **fields}).encode())[1]


def word(start: float, end: float) -> dict[str, Any]:
    return {"text": "w", "start": start, "end": end}


# ---- transcripts


def test_a_transcript_is_parsed_with_all_its_fields() -> None:
    said = {"text": "mind the", "start": 0.1, "end": 0.9, "words": [word(0.1, 0.4)], "language": "en", "confidence": 1}
    body, span = parse_transcript(json.dumps(said).encode())
    assert body == Transcript("mind the", 0.1, 0.9, (Word("w", 0.1, 0.4),), "en", 1.0)
    assert span == Span(100_000, 800_000)


@pytest.mark.parametrize(
    ("fields", "span"),
    [
        ({}, Span(0, 0)),
        ({"end": 1.5}, Span(0, 1_500_000)),
        ({"start": -0.5, "end": 1}, Span(-500_000, 1_500_000)),
        ({"start": 2}, Span(2_000_000, 0)),
        ({"words": [word(0.1, 0.4), word(0.4, 0.7)]}, Span(0, 700_000)),
        ({"words": [word(0.1, 0.9), word(0.4, 0.7)]}, Span(0, 900_000)),  # people talk over one another
        ({"start": 0.1, "end": None, "words": [word(0.1, 0.4)]}, Span(100_000, 300_000)),
        ({"end": 0.000001}, Span(0, 1)),
        ({"start": 0.0000004, "end": 0.0000006}, Span(0, 1)),
        ({"start": 999_999_999, "end": 999_999_999.5}, Span(999_999_999_000_000, 500_000)),
        ({"words": [word(0, 0)]}, Span(0, 0)),
    ],
)
def test_a_transcript_lasts_to_its_end_or_that_of_its_last_word(fields: dict[str, Any], span: Span) -> None:
    assert span_of_transcript(**fields) == span


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"start": 1, "end": 0.5}, "transcript: start 1.0 and end 0.5 are no span"),
        ({"words": [word(0.5, 0.4)], "end": 1}, "a word: start 0.5 and end 0.4 are no span"),
        ({"start": 1, "words": [word(0.2, 0.4)]}, "transcript: start 1.0 and end 0.4"),
        ({"start": 1, "end": 2, "words": [word(0.5, 1.5)]}, "word 'w' is outside"),
        ({"end": 1, "words": [word(0.5, 1.5)]}, "word 'w' is outside"),
        ({"end": 1e9}, r"\$\.end"),
        ({"start": -1e9}, r"\$\.start"),
        ({"confidence": 1.01}, r"\$\.confidence"),
        ({"confidence": -0.01}, r"\$\.confidence"),
        ({"text": None}, r"\$\.text"),
        ({"words": [{"text": "w", "start": 0}]}, r"\$\.words\[0\]"),
        ({"end": True}, r"\$\.end"),
        ({"language": 1}, r"\$\.language"),
    ],
)
def test_what_is_no_transcript_is_refused_with_the_place(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(BadRecord, match=why) as refused:
        span_of_transcript(**fields)
    assert refused.value.reason is Reason.BAD_PAYLOAD


def test_a_transcript_needs_a_text_and_may_have_an_empty_one() -> None:
    with pytest.raises(BadRecord, match="`text`"):
        parse_transcript(b"{}")
    assert parse_transcript(b'{"text": ""}')[0].text == ""


@pytest.mark.parametrize("confidence", [0, 1, 0.5])
def test_confidence_goes_from_0_to_1_inclusive(confidence: float) -> None:
    assert span_of_transcript(confidence=confidence) == Span(0, 0)


@pytest.mark.parametrize(("end", "is_inside"), [(1.0009, True), (1.0011, False)])
def test_word_times_may_be_rounded_by_a_millisecond(end: float, is_inside: bool) -> None:
    if is_inside:
        assert span_of_transcript(end=1, words=[word(0.5, end)]) == Span(0, 1_000_000)
        assert span_of_transcript(start=0.5, end=1, words=[word(0.4991, 0.6)]) == Span(500_000, 500_000)
    else:
        with pytest.raises(BadRecord, match="outside"):
            span_of_transcript(end=1, words=[word(0.5, end)])
        with pytest.raises(BadRecord, match="outside"):
            span_of_transcript(start=0.5, end=1, words=[word(0.4989, 0.6)])


# ---- telemetry


def test_a_telemetry_block_is_parsed_with_all_its_fields() -> None:
    body, span = parse_telemetry(b'{"channels": {"speed": {"unit": "m/s", "values": [1, 2.5]}}, "times": [0.5, 1]}')
    assert body == Telemetry({"speed": Channel((1.0, 2.5), "m/s")}, times=(0.5, 1.0))
    assert span == Span(500_000, 1_000_000)


@pytest.mark.parametrize(
    ("fields", "span"),
    [
        ({"rate_hz": 20}, Span(0, 200_000)),
        ({"rate_hz": 20, "start": 0.5}, Span(500_000, 200_000)),
        ({"rate_hz": 20, "start": -0.5}, Span(-500_000, 200_000)),
        ({"rate_hz": 3}, Span(0, 1_333_333)),
        ({"rate_hz": 0.5}, Span(0, 8_000_000)),
        ({"rate_hz": 1, "times": None}, Span(0, 4_000_000)),
        ({"times": [0, 0.1, 0.2, 0.3]}, Span(0, 400_000)),
        ({"times": [0, 0.1, 0.2, 0.9]}, Span(0, 1_200_000)),
        ({"times": [-0.3, -0.2, -0.1, 0]}, Span(-300_000, 400_000)),
        ({"times": [0, 0.1, 0.2, 0.3], "start": 5}, Span(0, 400_000)),
    ],
)
def test_a_block_lasts_to_the_end_of_its_last_sample(fields: dict[str, Any], span: Span) -> None:
    assert span_of_telemetry(**fields) == span


def test_a_lone_sample_lasts_a_period_at_a_rate_and_no_time_at_a_time() -> None:
    lone = {"speed": {"values": [1]}}
    assert span_of_telemetry(channels=lone, rate_hz=10) == Span(0, 100_000)
    assert span_of_telemetry(channels=lone, times=[0.25]) == Span(250_000, 0)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({}, "exactly one of times and rate_hz"),
        ({"rate_hz": 20, "times": [0, 1, 2, 3]}, "exactly one of times and rate_hz"),
        ({"rate_hz": 0}, r"\$\.rate_hz"),
        ({"rate_hz": -20}, r"\$\.rate_hz"),
        ({"rate_hz": 5e-324}, "are no span of seconds"),
        ({"rate_hz": 20, "start": 1e9}, r"\$\.start"),
        ({"rate_hz": 1, "start": 999_999_998}, "are no span of seconds"),
        ({"times": []}, r"\$\.times"),
        ({"times": [0, 1, 2]}, "3 times for 4 samples"),
        ({"times": [0, 1, 2, 3, 4]}, "5 times for 4 samples"),
        ({"times": [0, 1, 1, 2]}, "times must ascend"),
        ({"times": [3, 2, 1, 0]}, "times must ascend"),
        ({"times": [0, 1, 2, 1e9]}, r"\$\.times\[3\]"),
        ({"times": [0, 1, 2, 999_999_999]}, "are no span of seconds"),
        ({"rate_hz": 20, "channels": {}}, r"\$\.channels"),
        ({"rate_hz": 20, "channels": {"a": {"values": []}}}, r"\.values"),
        ({"rate_hz": 20, "channels": {"a": {"values": [1]}, "b": {"values": [1, 2]}}}, "equally long"),
        ({"rate_hz": 20, "channels": {"a": {"values": [1, None]}}}, r"\.values"),
        ({"rate_hz": 20, "channels": {"a": {"values": ["1"]}}}, r"\.values"),
        ({"rate_hz": 20, "channels": {"a": [1]}}, r"\$\.channels"),
        ({"rate_hz": "20"}, r"\$\.rate_hz"),
    ],
)
def test_what_is_no_telemetry_block_is_refused_with_the_place(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(BadRecord, match=why) as refused:
        span_of_telemetry(**fields)
    assert refused.value.reason is Reason.BAD_PAYLOAD


# ---- both


@pytest.mark.parametrize("parse", [parse_transcript, parse_telemetry])
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"{",
        b'{"text": "a", "channels": {"a": {"values": [1]}}, "rate_hz": 1} b',
        b"\xef\xbb\xbf{}",  # a byte order mark
        '{"text": "a"}'.encode("utf-16"),
        b'{"text": NaN, "channels": NaN}',
        b'{"text": Infinity, "channels": Infinity}',
        b'{"text": "\xff", "channels": {"\xff": {"values": [1]}}}',
        b'{"text": "\\ud800", "channels": {"\\ud800": {"values": [1]}}}',
        b'{"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=["empty", "blank", "open", "more", "mark", "utf16", "nan", "infinity", "not utf8", "surrogate", "deep"],
)
def test_what_does_not_parse_is_bad_json(parse: Any, payload: bytes) -> None:
    with pytest.raises(BadRecord) as refused:
        parse(payload)
    assert refused.value.reason is Reason.BAD_JSON


@pytest.mark.parametrize("parse", [parse_transcript, parse_telemetry])
@pytest.mark.parametrize("payload", [b"null", b"[]", b"1", b'"a"', b"{}"])
def test_json_of_another_kind_is_a_bad_payload(parse: Any, payload: bytes) -> None:
    with pytest.raises(BadRecord) as refused:
        parse(payload)
    assert refused.value.reason is Reason.BAD_PAYLOAD


@pytest.mark.parametrize("number", ["1e309", "-1e309", "1" + "0" * 400])
def test_a_number_beyond_a_double_is_refused(number: str) -> None:
    with pytest.raises(BadRecord, match="out of range"):
        parse_telemetry(b'{"rate_hz": 1, "channels": {"a": {"values": [%s]}}}' % number.encode())


def test_fields_that_nobody_knows_are_passed_over() -> None:
    assert span_of_transcript(end=1, mood={"name": "x"}) == Span(0, 1_000_000)
    assert span_of_telemetry(rate_hz=4, device=[1, 2]) == Span(0, 1_000_000)


def outcome_of(parse: Any, payload: bytes) -> Span | Reason:
    try:
        _, span = parse(payload)
    except BadRecord as error:
        return error.reason
    assert isinstance(span, Span)
    return span


JSONISH = st.lists(
    st.sampled_from(
        [
            *(
                b"{",
                b"}",
                b"[",
                b"]",
                b",",
                b":",
                b'"text"',
                b'"end"',
                b'"words"',
                b'"start"',
                b'"channels"',
                b'"values"',
            ),
            *(b'"times"', b'"rate_hz"', b'"a"', b"0", b"1", b"-1", b"1e9", b"1e400", b"null", b"true", b"\xff", b"\\"),
            *(b'{"channels":{"a":{"values":[1]}},', b'{"text":"a",', b'"times":[', b'"rate_hz":', b'"end":'),
        ]
    ),
    max_size=12,
).map(b"".join)


@settings(max_examples=2000, deadline=None)
@given(st.binary(max_size=40) | JSONISH)
@example(b'{"channels":{"a":{"values":[1]}},"rate_hz":1}')
@example(b'{"text":"a","end":1}')
def test_whatever_comes_is_a_body_with_a_span_or_a_bad_record(payload: bytes) -> None:
    for parse in (parse_transcript, parse_telemetry):
        outcome = outcome_of(parse, payload)
        if isinstance(outcome, Span):
            assert outcome.length_us >= 0
            assert abs(outcome.start_us) < 10**15
        else:
            assert outcome in (Reason.BAD_JSON, Reason.BAD_PAYLOAD)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=5, unique=True).map(sorted))
def test_a_block_begins_at_its_first_time_to_the_microsecond_and_ends_after_its_last(times_us: list[int]) -> None:
    channels = {"a": {"values": [0] * len(times_us)}}
    span = span_of_telemetry(channels=channels, times=[time_us / 1e6 for time_us in times_us])
    assert span.start_us == times_us[0]
    step_us = (times_us[-1] - times_us[0]) / max(1, len(times_us) - 1)
    assert span.start_us + span.length_us == pytest.approx(times_us[-1] + step_us, abs=1)


@pytest.mark.parametrize(
    ("row", "payload", "reason"),
    [
        (TEXT, b'{"text": "a", "start": 2, "end": 1}', Reason.BAD_PAYLOAD),
        (TEXT, b'{"text": "\xff"}', Reason.BAD_JSON),
        (TEXT, b'{"more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.BAD_JSON),
        (TELEMETRY, b'{"channels": {"a": {"values": [1, 2]}}, "times": [1, 0]}', Reason.BAD_PAYLOAD),
        (TELEMETRY, b"", Reason.BAD_JSON),
    ],
)
def test_a_body_that_comes_by_claim_check_is_judged_like_any_other(
    tmp_path: Path, row: int, payload: bytes, reason: Reason
) -> None:
    file = tmp_path / "body.json"
    file.write_bytes(payload)
    event = Event(Record(row, 0, 0, 0, b"s", b"", ()), "s", EventType.DATA, 0, 1, dataref=file.as_uri())
    with pytest.raises(BadRecord) as refused:
        (payloads.transcript if row == TEXT else payloads.telemetry)(event)
    assert refused.value.reason is reason
