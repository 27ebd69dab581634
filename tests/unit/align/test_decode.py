"""Records become events, or a reason why they cannot."""

from __future__ import annotations

import base64
import json
import struct
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kafka.partitioner.default import DefaultPartitioner

from streamer.align.decode import LATEST_US, Decoder
from streamer.errors import BadRecord, Reason
from streamer.events import (
    AUDIO,
    END_TYPE,
    EPOCH,
    IMAGE,
    KINDS,
    TELEMETRY,
    TEXT,
    TICK_TYPE,
    Channel,
    Event,
    EventType,
    Record,
    Telemetry,
    Transcript,
)
from streamer.settings import Settings

PARTITIONS = 12
KEY = b"cab-7"
LOG_TIME_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
S_US = 1_000_000
SETTINGS = Settings(max_message_bytes=4000, dataref_prefixes=("s3://clips", "https://store.example/take/"))
VALUES = (
    b"\xff\xd8 jpeg",
    bytes(3200),
    b'{"text": "a", "end": 0.5}',
    b'{"channels": {"a": {"values": [1]}}, "rate_hz": 4}',
)
CONTENT_TYPES = ("image/jpeg", "audio/L16;rate=16000;channels=1", "application/json", "application/json")
ROWS = range(len(KINDS))


class Cluster:
    """What kafka-python's partitioner asks about a cluster: here it has one topic."""

    def __init__(self, partitions: int) -> None:
        self._partitions = set(range(partitions))

    def topics(self) -> set[str]:
        return {"topic"}

    def partitions_for_topic(self, _topic: str) -> set[int]:
        return self._partitions

    available_partitions_for_topic = partitions_for_topic


def home(key: bytes, partitions: int = PARTITIONS) -> int:
    """Where kafka-python's producer puts a key."""
    return int(DefaultPartitioner().partition("topic", key, key, b"", b"", Cluster(partitions)))


def record(row: int = IMAGE, **changes: Any) -> Record:
    """A good record of a modality but for the changes: fields, or headers (``ce_…``, None: without it)."""
    headers: dict[str, Any] = {
        "ce_specversion": "1.0",
        "ce_id": "1",
        "ce_source": "/devices/cab-7",
        "ce_type": KINDS[row].ce_type,
        "ce_time": "2026-01-01T00:00:00Z",
        "content-type": CONTENT_TYPES[row],
    }
    key = changes.pop("key", KEY)
    value = changes.pop("value", VALUES[row])
    partition = changes.pop("partition", home(key or b""))
    log_time_us = changes.pop("log_time_us", LOG_TIME_US)
    headers |= {"content-type" if name == "content_type" else name: text for name, text in changes.items()}
    pairs = tuple(
        (name, text if isinstance(text, bytes) else text.encode()) for name, text in headers.items() if text is not None
    )
    return Record(row, partition, 0, log_time_us, key, value, pairs)


def decode(given: Record, settings: Settings = SETTINGS) -> Event:
    return Decoder(settings, PARTITIONS).decode(given)


def reason_of(given: Record, settings: Settings = SETTINGS) -> Reason | None:
    """Why a record is refused; None: it is not."""
    try:
        decode(given, settings)
    except BadRecord as error:
        return error.reason
    return None


def span(event: Event) -> tuple[int, int]:
    """Start and end in microseconds after the log time."""
    return event.start_us - LOG_TIME_US, event.end_us - LOG_TIME_US


# ---- good records, and when they happened


@pytest.mark.parametrize(
    ("row", "ends_us", "media_type", "body"),
    [
        (IMAGE, 0, "image/jpeg", None),
        (AUDIO, 100_000, "audio/l16", None),
        (TEXT, 500_000, "application/json", Transcript("a", end=0.5)),
        (TELEMETRY, 250_000, "application/json", Telemetry({"a": Channel((1.0,))}, rate_hz=4)),
    ],
)
def test_a_good_record_becomes_an_event_with_its_time(row: int, ends_us: int, media_type: str, body: Any) -> None:
    given = record(row, ce_sequence="12")
    event = decode(given)
    assert event.record is given
    assert (event.type, event.session, event.sequence, event.dataref) == (EventType.DATA, "cab-7", 12, None)
    assert span(event) == (0, ends_us)
    assert (event.media_type, event.body) == (media_type, body)


@pytest.mark.parametrize("row", ROWS)
def test_without_a_time_of_its_own_an_event_begins_at_the_records_timestamp(row: int) -> None:
    assert decode(record(row, ce_time=None)).start_us == LOG_TIME_US


def test_a_frame_is_a_moment_whatever_length_is_told() -> None:
    assert span(decode(record(IMAGE, ce_durationus="40000"))) == (0, 0)


@pytest.mark.parametrize(
    ("content_type", "nbytes", "lasts_us"),
    [
        ("audio/L16;rate=16000;channels=1", 32_000, S_US),
        ("audio/L16;rate=16000", 32_000, S_US),
        ("audio/L16;rate=16000;channels=2", 32_000, S_US // 2),
        ('AUDIO/l16 ; Rate=8000 ; Channels="1"', 1_600, 100_000),
        ("audio/L16;channels=1;rate=44100", 882, 10_000),
        ("audio/L16;rate=44100", 2, 22),  # 22.68 µs, cut off: the next chunk may begin at its time
        ("audio/L16;rate=384000;channels=64", 128, 2),
    ],
)
@pytest.mark.parametrize("told", [None, "5"])
def test_raw_audio_lasts_as_long_as_its_samples_whatever_is_told(
    content_type: str, nbytes: int, lasts_us: int, told: str | None
) -> None:
    given = record(AUDIO, value=bytes(nbytes), content_type=content_type, ce_durationus=told)
    assert span(decode(given, Settings())) == (0, lasts_us)


@pytest.mark.parametrize("media_type", ["audio/wav", "audio/flac", "audio/ogg"])
def test_compressed_audio_lasts_as_long_as_it_says_and_must_say_so(media_type: str) -> None:
    assert span(decode(record(AUDIO, content_type=media_type, ce_durationus="20000"))) == (0, 20_000)
    assert reason_of(record(AUDIO, content_type=media_type)) is Reason.BAD_HEADER


@pytest.mark.parametrize(
    ("said", "told", "expected"),
    [
        ({"end": 1.5}, None, (0, 1_500_000)),
        ({"start": 0.5, "end": 1.5}, None, (500_000, 1_500_000)),
        ({"start": -0.5, "end": 1.5}, None, (-500_000, 1_500_000)),
        ({"words": [{"text": "a", "start": 0.1, "end": 0.4}]}, None, (0, 400_000)),
        ({}, None, (0, 0)),
        ({"end": 1.5}, "700000", (0, 700_000)),
        ({"start": 0.5}, "700000", (500_000, 1_200_000)),
    ],
)
def test_a_transcript_lasts_as_its_json_says_unless_a_header_does(
    said: dict[str, Any], told: str | None, expected: tuple[int, int]
) -> None:
    value = json.dumps({"text": "a", **said}).encode()
    assert span(decode(record(TEXT, value=value, ce_durationus=told))) == expected


@pytest.mark.parametrize(
    ("when", "told", "expected"),
    [
        ({"rate_hz": 20}, None, (0, 100_000)),
        ({"rate_hz": 20, "start": 0.5}, None, (500_000, 600_000)),
        ({"times": [0.1, 0.3]}, None, (100_000, 500_000)),
        ({"times": [0.1, 0.3]}, "250000", (100_000, 350_000)),
    ],
)
def test_a_telemetry_block_lasts_as_its_json_says_unless_a_header_does(
    when: dict[str, Any], told: str | None, expected: tuple[int, int]
) -> None:
    value = json.dumps({"channels": {"a": {"values": [1, 2]}}, **when}).encode()
    assert span(decode(record(TELEMETRY, value=value, ce_durationus=told))) == expected


@pytest.mark.parametrize(("ce_type", "kind"), [(END_TYPE, EventType.END), (TICK_TYPE, EventType.TICK)])
@pytest.mark.parametrize("row", ROWS)
def test_a_control_record_is_taken_from_any_topic_at_its_log_time(row: int, ce_type: str, kind: EventType) -> None:
    bare = record(row, ce_type=ce_type, content_type=None, ce_time="1999-01-01T00:00:00Z", value=b"")
    event = decode(bare)
    assert (event.type, event.session, span(event)) == (kind, "cab-7", (0, 0))


def test_a_tick_needs_no_key_and_an_end_does() -> None:
    tick = decode(record(ce_type=TICK_TYPE, key=None, partition=3))
    assert (tick.type, tick.session) == (EventType.TICK, "")
    assert reason_of(record(ce_type=END_TYPE, key=None)) is Reason.NO_KEY
    assert reason_of(record(ce_type=TICK_TYPE, partition=home(KEY) ^ 1)) is Reason.WRONG_PARTITION


# ---- times


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2025-12-31T23:59:59.999999Z", LOG_TIME_US - 1),
        ("2025-12-31t23:59:59.999999z", LOG_TIME_US - 1),
        ("2025-12-31 23:59:59.999999Z", LOG_TIME_US - 1),
        ("2026-01-01T01:30:00+01:30", LOG_TIME_US),
        ("2025-12-31T20:00:00-04:00", LOG_TIME_US),
        ("2026-01-01T23:59:00+23:59", LOG_TIME_US),
        ("2026-01-01T00:00:00-00:00", LOG_TIME_US),
        ("2026-01-01T00:00:00.1Z", LOG_TIME_US + 100_000),
        ("2026-01-01T00:00:00.12Z", LOG_TIME_US + 120_000),
        ("2026-01-01T00:00:00.0000019Z", LOG_TIME_US + 1),
        ("2026-01-01T00:00:00.000001" + "9" * 1000 + "Z", LOG_TIME_US + 1),
        ("2024-02-29T00:00:00Z", 1_709_164_800_000_000),
    ],
)
def test_a_time_is_read_as_rfc_3339_says_finer_digits_cut_off(text: str, time_us: int) -> None:
    assert decode(record(ce_time=text)).start_us == time_us


@pytest.mark.parametrize(
    "text",
    [
        "",
        "now",
        "1767225600",
        "2026-01-01",
        "2026-01-01T00:00:00",  # no offset: whose time?
        "2026-01-01T00:00Z",
        "20260101T000000Z",
        "2026-001T00:00:00Z",
        "2026-W01-4T00:00:00Z",
        "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00+01",
        "2026-01-01T00:00:00+01:00:00",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00 Z",
        " 2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z\n",
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:60:00Z",
        "2016-12-31T23:59:60Z",  # a leap second that really was
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+00:60",
        "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "２026-01-01T00:00:00Z",
        "1969-12-31T23:59:59.999999Z",
        "2200-01-01T00:00:00.000001Z",
        "1e3",
        b"\xff",
    ],
)
def test_what_is_no_time_or_none_of_our_days_is_a_bad_header(text: str) -> None:
    assert reason_of(record(ce_time=text)) is Reason.BAD_HEADER


def test_time_ends_in_2200() -> None:
    late = {"log_time_us": LATEST_US}
    assert decode(record(ce_time="2200-01-01T00:00:00Z", **late)).start_us == LATEST_US
    assert reason_of(record(ce_time="2200-01-01T00:00:00.000001Z", **late)) is Reason.BAD_HEADER
    beyond = record(AUDIO, ce_time="2200-01-01T00:00:00Z", content_type="audio/ogg", ce_durationus="1", **late)
    assert reason_of(beyond) is Reason.BAD_HEADER


def test_a_record_without_a_timestamp_needs_a_time_of_its_own() -> None:
    assert reason_of(record(ce_time=None, log_time_us=-1)) is Reason.BAD_HEADER


@hypothesis_settings(max_examples=300, deadline=None)
@given(
    st.datetimes(datetime(1970, 1, 2), datetime(2025, 12, 30)),
    st.integers(-1439, 1439),
    st.sampled_from(["T", "t", " "]),
)
def test_any_moment_at_any_offset_is_that_moment(local: datetime, offset_min: int, between: str) -> None:
    hours, minutes = divmod(abs(offset_min), 60)
    offset = f"{'-' if offset_min < 0 else '+'}{hours:02}:{minutes:02}"
    expected_us = (local.replace(tzinfo=EPOCH.tzinfo) - timedelta(minutes=offset_min) - EPOCH) // timedelta(
        microseconds=1
    )
    text = f"{local:%Y-%m-%d}{between}{local:%H:%M:%S.%f}{offset}"
    assert decode(record(ce_time=text)).start_us == expected_us


# ---- limits: exactly at the limit passes


@pytest.mark.parametrize(("lasts_us", "reason"), [(60 * S_US, None), (60 * S_US + 1, Reason.TOO_LONG)])
def test_an_event_may_be_as_long_as_the_limit(lasts_us: int, reason: Reason | None) -> None:
    old = "2025-12-31T00:00:00Z"
    assert reason_of(record(AUDIO, ce_time=old, content_type="audio/ogg", ce_durationus=str(lasts_us))) is reason
    assert reason_of(record(TEXT, ce_time=old, value=b'{"text": "a", "end": %f}' % (lasts_us / 1e6))) is reason


@pytest.mark.parametrize(
    ("text", "reason"), [("2026-01-01T00:00:05Z", None), ("2026-01-01T00:00:05.000001Z", Reason.CLOCK_AHEAD)]
)
def test_an_event_may_end_as_far_ahead_of_its_log_time_as_the_limit(text: str, reason: Reason | None) -> None:
    assert reason_of(record(ce_time=text)) is reason


def test_it_is_the_end_of_an_event_that_may_not_lie_ahead() -> None:
    ends = {"content_type": "audio/ogg", "ce_time": "2026-01-01T00:00:01Z"}
    assert reason_of(record(AUDIO, ce_durationus="4000000", **ends)) is None
    assert reason_of(record(AUDIO, ce_durationus="4000001", **ends)) is Reason.CLOCK_AHEAD


def test_an_event_may_be_as_old_as_it_likes() -> None:
    assert reason_of(record(ce_time="1970-01-01T00:00:00Z")) is None


@pytest.mark.parametrize(("nbytes", "reason"), [(4000, None), (4001, Reason.TOO_LARGE)])
def test_a_payload_may_be_as_large_as_the_limit(nbytes: int, reason: Reason | None) -> None:
    assert reason_of(record(value=bytes(nbytes))) is reason


# ---- keys and partitions


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (b"k", None),
        (b"k" * 128, None),
        ("ä".encode() * 64, None),
        (b"\0", None),
        (None, Reason.NO_KEY),
        (b"", Reason.NO_KEY),
        (b"k" * 129, Reason.BAD_KEY),
        ("ä".encode() * 65, Reason.BAD_KEY),
        (b"\xff", Reason.BAD_KEY),
        (b"\xed\xa0\x80", Reason.BAD_KEY),  # a surrogate
    ],
)
@pytest.mark.parametrize("row", ROWS)
def test_a_key_is_1_to_128_bytes_of_utf_8(row: int, key: bytes | None, reason: Reason | None) -> None:
    assert reason_of(record(row, key=key)) is reason


def test_a_record_must_lie_where_murmur2_puts_its_key() -> None:
    decoder = Decoder(SETTINGS, PARTITIONS)
    for number in range(50):
        key = f"cab-{number}".encode()
        for partition in range(PARTITIONS):
            given = record(key=key, partition=partition)
            if partition == home(key):
                assert decoder.decode(given).session == key.decode()
            else:
                with pytest.raises(BadRecord, match=f"partition {home(key)}, .* in {partition}: .*murmur2") as refused:
                    decoder.decode(given)
                assert refused.value.reason is Reason.WRONG_PARTITION


def test_the_home_of_a_key_follows_from_the_number_of_partitions() -> None:
    keys = [f"cab-{number}".encode() for number in range(100)]
    for partitions in (1, 3, 7):
        decoder = Decoder(SETTINGS, partitions)
        for key in keys:
            assert decoder.decode(record(key=key, partition=home(key, partitions))).session == key.decode()


# ---- headers


def test_source_and_id_name_an_event() -> None:
    assert decode(record(ce_source="/cabs/7", ce_id="18")).identity == ("/cabs/7", "18")


@pytest.mark.parametrize("name", ["ce_specversion", "ce_id", "ce_source"])
@pytest.mark.parametrize("ce_type", [None, END_TYPE, TICK_TYPE])
def test_the_required_attributes_of_cloudevents_are_required(name: str, ce_type: str | None) -> None:
    control: dict[str, Any] = {} if ce_type is None else {"ce_type": ce_type}
    assert reason_of(record(**control)) is None
    assert reason_of(record(**{**control, name: None})) is Reason.BAD_HEADER
    assert reason_of(record(**{**control, name: ""})) is Reason.BAD_HEADER


@pytest.mark.parametrize("version", ["0.3", "1", "1.0.2", "2.0", " 1.0"])
def test_no_other_version_of_cloudevents_is_taken(version: str) -> None:
    assert reason_of(record(ce_specversion=version)) is Reason.BAD_HEADER


@pytest.mark.parametrize("row", ROWS)
def test_only_the_topics_own_type_and_control_records_belong_on_it(row: int) -> None:
    for other in ROWS:
        reason = reason_of(record(row, ce_type=KINDS[other].ce_type))
        assert reason is (None if other == row else Reason.UNKNOWN_TYPE)
    for ce_type in (None, "", "streamer.frame.v2", "STREAMER.FRAME.V1", "x" * 10_000):
        assert reason_of(record(row, ce_type=ce_type)) is Reason.UNKNOWN_TYPE


@pytest.mark.parametrize("name", ["ce_durationus", "ce_sequence"])
@pytest.mark.parametrize(
    ("text", "is_good"),
    [
        ("0", True),
        ("007", True),
        ("", False),
        ("-1", False),
        ("+1", False),
        ("1.0", False),
        ("1e3", False),
        (" 1", False),
        ("1_000", False),
        ("٣", False),
        ("²", False),
        ("9" * 19, False),
        ("9" * 5000, False),
    ],
)
def test_whole_numbers_are_ascii_digits_and_no_more_than_18(name: str, text: str, is_good: bool) -> None:
    header: dict[str, Any] = {name: text}
    assert reason_of(record(**header)) is (None if is_good else Reason.BAD_HEADER)


def test_a_sequence_may_have_18_digits() -> None:
    assert decode(record(ce_sequence="9" * 18)).sequence == 10**18 - 1


@pytest.mark.parametrize("name", ["ce_id", "ce_time", "ce_anything", "content-type"])
def test_a_header_of_ours_must_be_text_and_come_once(name: str) -> None:
    good = record()
    value = dict(good.headers).get(name, b"x")
    others = tuple(pair for pair in good.headers if pair[0] != name)
    once = Record(0, good.partition, 0, LOG_TIME_US, KEY, b"x", (*others, (name, value)))
    assert reason_of(once) is None
    for headers in (
        (*once.headers, (name, value)),
        (*others, (name, b"\xff")),
        (*others, (name, None)),  # Kafka allows a header without a value
    ):
        wrong = Record(0, good.partition, 0, LOG_TIME_US, KEY, b"x", headers)  # type: ignore[arg-type]
        assert reason_of(wrong) is Reason.BAD_HEADER


def test_other_peoples_headers_are_passed_over() -> None:
    good = record()
    theirs = (("trace", b"\xff"), ("trace", None), ("CE_ID", b"2"), ("", b""))
    with_theirs = Record(0, good.partition, 0, LOG_TIME_US, KEY, b"x", (*theirs, *good.headers))  # type: ignore[arg-type]
    assert reason_of(with_theirs) is None


# ---- what clients of other languages send, docs/clients.md


def words_of(given: Record) -> str:
    with pytest.raises(BadRecord) as refused:
        decode(given)
    return str(refused.value)


@pytest.mark.parametrize("media_type", ["application/cloudevents+json", "application/cloudevents+json; charset=UTF-8"])
def test_structured_mode_is_told_to_be_binary_mode(media_type: str) -> None:
    """All that a structured record has is a content type."""
    given = Record(
        0, home(KEY), 0, LOG_TIME_US, KEY, b'{"specversion": "1.0"}', (("content-type", media_type.encode()),)
    )
    words = words_of(given)
    assert "is in structured mode" in words
    assert words.endswith("send it in binary mode, attributes as ce_ headers and the payload alone as the value")


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        ("ce_type", "ce-type"),
        ("ce_type", "CE_Type"),
        ("ce_id", "ce-id"),
        ("ce_source", "ceSource"),
        ("ce_specversion", "ce_specVersion"),
        ("content-type", "Content-Type"),
        ("content-type", "contentType"),
        ("content-type", "content_type"),
    ],
)
def test_a_header_with_another_spelling_is_named(name: str, alike: str) -> None:
    good = record()
    headers = tuple((alike if given == name else given, value) for given, value in good.headers)
    words = words_of(Record(0, good.partition, 0, LOG_TIME_US, KEY, b"x", headers))
    assert words.endswith(f"no {name} header: {alike!r} must be named {name!r}")


def test_a_missing_header_is_named() -> None:
    assert words_of(record(ce_type=None)).endswith("no ce_type header")
    assert words_of(record(ce_id="")).endswith("the ce_id header is empty")
    both: dict[str, Any] = {"content-type": None, "ce_datacontenttype": "image/jpeg"}
    assert words_of(record(**both)).endswith("no content-type header: send ce_datacontenttype as 'content-type'")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ce_specversion", '"1.0"'),
        ("ce_type", '"streamer.frame.v1"'),
        ("ce_time", '"2026-01-01T00:00:00Z"'),
        ("ce_sequence", '"7"'),
        ("ce_durationus", '"7"'),
        ("content-type", '"image/jpeg"'),
    ],
)
def test_a_text_in_json_quotes_is_named_as_such(name: str, text: str) -> None:
    header: dict[str, Any] = {name: text}
    words = words_of(record(**header))
    assert repr(text) in words
    assert words.endswith(": it is in JSON quotes, send the text without them")


@pytest.mark.parametrize("text", ["1.1", '"', '"1.0', '"a"b"'])
def test_other_wrong_texts_are_not_said_to_be_in_json_quotes(text: str) -> None:
    assert "JSON" not in words_of(record(ce_specversion=text))


@pytest.mark.parametrize("name", ["ce_id", "ce_subject", "content-type"])
def test_a_header_that_is_null_is_named(name: str) -> None:
    good = record()
    others = tuple(pair for pair in good.headers if pair[0] != name)
    null: Any = (name, None)
    words = words_of(Record(0, good.partition, 0, LOG_TIME_US, KEY, b"x", (*others, null)))
    assert words.endswith(f"header {name!r} is null: leave out what is not set")


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("length", [16, 17, 18, 3200])
def test_bytes_that_went_through_a_json_serializer_are_refused(row: int, length: int) -> None:
    """As samples they would be noise: two bytes of base64 are a sample too."""
    value = json.dumps(base64.b64encode(bytes(range(length % 256)) * 20).decode()).encode()
    assert words_of(record(row, value=value)).endswith(
        "the payload is base64 in JSON quotes: set the producer's value serializer to one for bytes"
    )


@pytest.mark.parametrize("value", [b'"' + b"A" * 8 + b'"', b'"' * 32, b'"' + b"A" * 17 + b'"', b'"' + b"A" * 31])
def test_samples_that_begin_like_a_text_are_samples(value: bytes) -> None:
    assert reason_of(record(AUDIO, value=value + b"\0" * (len(value) % 2))) is None


# ---- content types


@pytest.mark.parametrize("row", ROWS)
def test_each_modality_takes_its_media_types_in_any_case_and_with_parameters(row: int) -> None:
    for modality in KINDS:
        for media_type in modality.content_types:
            rate = ";rate=16000" if media_type == "audio/l16" else ""
            for text in (media_type, media_type.upper(), f"{media_type} ; charset=utf-8"):
                reason = reason_of(record(row, content_type=text + rate, ce_durationus="1"))
                assert reason is (
                    None if modality.content_types == KINDS[row].content_types else Reason.BAD_CONTENT_TYPE
                )


@pytest.mark.parametrize(
    "text", [None, "", ";", "jpeg", "image", "image/", "image/jpeg/x", "image/svg+xml", "text/html"]
)
def test_a_media_type_that_a_modality_does_not_have_is_refused(text: str | None) -> None:
    assert reason_of(record(content_type=text)) is Reason.BAD_CONTENT_TYPE


def test_a_content_type_has_at_most_200_characters() -> None:
    longest = "image/jpeg;x=" + "y" * 187
    assert reason_of(record(content_type=longest)) is None
    assert reason_of(record(content_type=longest + "y")) is Reason.BAD_CONTENT_TYPE


@pytest.mark.parametrize(
    ("params", "is_good"),
    [
        ("rate=1000", True),
        ("rate=384000", True),
        ("rate=16000;channels=64", True),
        ("", False),
        ("channels=1", False),
        ("rate", False),
        ("rate=", False),
        ("rate=999", False),
        ("rate=384001", False),
        ("rate=-16000", False),
        ("rate=16e3", False),
        ("rate=1.6", False),
        ("rate=٨٠٠٠", False),
        ("rate=" + "0" * 150 + "16000", False),
        ("rate=16000;channels=0", False),
        ("rate=16000;channels=65", False),
        ("rate=16000;channels=two", False),
    ],
)
def test_raw_audio_tells_its_rate_and_channels_within_bounds(params: str, is_good: bool) -> None:
    given = record(AUDIO, content_type=f"audio/L16;{params}", value=bytes(128))
    assert reason_of(given) is (None if is_good else Reason.BAD_CONTENT_TYPE)


@pytest.mark.parametrize(("nbytes", "channels", "is_good"), [(4, 1, True), (3, 1, False), (4, 2, True), (6, 2, False)])
def test_raw_audio_is_a_whole_number_of_samples_of_all_channels(nbytes: int, channels: int, is_good: bool) -> None:
    given = record(AUDIO, content_type=f"audio/L16;rate=8000;channels={channels}", value=bytes(nbytes))
    assert reason_of(given) is (None if is_good else Reason.BAD_PAYLOAD)


# ---- payloads


@pytest.mark.parametrize("row", ROWS)
def test_a_payload_must_not_be_empty(row: int) -> None:
    assert reason_of(record(row, value=b"")) is Reason.BAD_PAYLOAD


@pytest.mark.parametrize("row", [IMAGE, AUDIO])
def test_frames_and_audio_are_not_opened(row: int) -> None:
    assert reason_of(record(row, value=b"no such file", content_type=CONTENT_TYPES[row])) is None


@pytest.mark.parametrize("row", [TEXT, TELEMETRY])
def test_json_is_parsed_and_judged(row: int) -> None:
    assert reason_of(record(row, value=b"{")) is Reason.BAD_JSON
    assert reason_of(record(row, value=b"{}")) is Reason.BAD_PAYLOAD


def test_a_body_may_not_carry_its_event_out_of_time() -> None:
    far = b'{"text": "a", "start": 999999999, "end": 999999999}'
    assert reason_of(record(TEXT, value=far)) is Reason.CLOCK_AHEAD
    early = b'{"text": "a", "start": -999999999, "end": -999999999}'
    assert reason_of(record(TEXT, value=early)) is None
    assert reason_of(record(TEXT, value=early, ce_time="1970-01-01T00:00:00Z")) is Reason.BAD_HEADER


# ---- claim checks


@pytest.mark.parametrize("row", ROWS)
def test_a_claim_check_is_an_event_whose_payload_lies_elsewhere(row: int) -> None:
    event = decode(record(row, value=b"", ce_dataref="s3://clips/a/b.bin", ce_durationus="40000"))
    assert event.dataref == "s3://clips/a/b.bin"
    assert event.body is None
    assert span(event) == (0, 0 if row == IMAGE else 40_000)


@pytest.mark.parametrize("row", [AUDIO, TEXT, TELEMETRY])
def test_what_lies_elsewhere_must_tell_its_length(row: int) -> None:
    assert reason_of(record(row, value=b"", ce_dataref="s3://clips/a")) is Reason.BAD_HEADER


def test_a_claim_check_has_an_empty_value() -> None:
    assert reason_of(record(ce_dataref="s3://clips/a")) is Reason.BAD_HEADER


@pytest.mark.parametrize("url", ["s3://clips/a", "https://store.example/take/1.jpg", "file:///tmp/a", "/tmp/a"])
def test_by_default_no_claim_check_is_allowed(url: str) -> None:
    assert reason_of(record(value=b"", ce_dataref=url), Settings()) is Reason.DATAREF_REFUSED


@pytest.mark.parametrize(
    "url",
    [
        "s3://clips/a",
        "s3://clips/a/b..c/...jpg",
        "s3://clips/.../a",
        "https://store.example/take/1.jpg?v=2#x",
    ],
)
def test_a_url_under_an_allowed_prefix_is_taken(url: str) -> None:
    assert reason_of(record(value=b"", ce_dataref=url)) is None


@pytest.mark.parametrize(
    "url",
    [
        "",
        "s3://clips",
        "s3://clips-of-others/a",
        "s3://clips.evil/a",
        "S3://clips/a",
        "s3://other/s3://clips/a",
        "file:///etc/passwd",
        "/etc/passwd",
        "s3://clips/../other/a",
        "s3://clips/a/..",
        "s3://clips/a/%2e%2e/b",
        "s3://clips/a/%2E./b",
        "s3://clips/a%2f..%2fb",
        "s3://clips/a\\..\\b",
        "s3://clips/a::file:///etc/passwd",
        "zip://a::s3://clips/b.zip",
        "s3://clips/a/.\t./b",
        "s3://clips/a/.\n./b",
        "s3://clips/a b",
        "s3://clips/\u2025/b",  # "‥" is ".." in compatibility normalisation
        "s3://clips/a\0",
        "https://store.example/take",
        "https://store.example/taken/1",
        "https://store.example@evil.example/take/1",
        "https://store.example/take/../admin",
        "https://store.example/take/..?x=1",
        "https://store.example/take/..#x",
        "https://store.example/take/..;x/admin",
        "http://store.example/take/1",
    ],
)
def test_a_url_that_is_or_may_lead_outside_the_allowed_prefixes_is_refused(url: str) -> None:
    assert reason_of(record(value=b"", ce_dataref=url)) is Reason.DATAREF_REFUSED


def test_an_empty_prefix_allows_nothing() -> None:
    assert reason_of(record(value=b"", ce_dataref="/a"), Settings(dataref_prefixes=("",))) is Reason.DATAREF_REFUSED


# ---- what is told


@pytest.mark.parametrize(
    "given",
    [
        record(ce_type="x" * 100_000),
        record(ce_time="x" * 100_000),
        record(ce_sequence="x" * 100_000),
        record(content_type="x" * 100_000),
        record(ce_specversion="x" * 200),
        record(value=b"", ce_dataref="x" * 100_000),
        record(TEXT, value=b'{"text": "a", "end": 0, "words": [{"text": "%s", "start": 1, "end": 2}]}' % (b"x" * 1000)),
    ],
    ids=["type", "time", "sequence", "content type", "version", "dataref", "word"],
)
def test_the_detail_of_a_refusal_is_short_whatever_was_sent(given: Record) -> None:
    with pytest.raises(BadRecord) as refused:
        decode(given)
    assert 0 < len(refused.value.detail) < 400
    assert "\n" not in refused.value.detail


# ---- whatever comes


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


texts = st.text(max_size=12)
header_values = {
    "ce_specversion": st.just("1.0") | texts,
    "ce_id": st.just("1") | texts,
    "ce_source": st.just("/x") | texts,
    "ce_type": st.sampled_from([m.ce_type for m in KINDS] + [END_TYPE, TICK_TYPE]) | texts,
    "ce_time": st.sampled_from(
        [
            *(
                "2026-01-01T00:00:00Z",
                "1970-01-01T00:00:00+23:59",
                "9999-12-31T23:59:59-23:59",
                "0001-01-01T00:00:00+01:00",
            ),
            *("2026-02-30T00:00:00Z", "2026-01-01T00:00:00.5z"),
        ]
    )
    | st.from_regex(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", fullmatch=True)
    | texts,
    "ce_durationus": st.integers(-1, 10**19).map(str) | texts,
    "ce_sequence": st.integers(-1, 10**19).map(str) | texts,
    "ce_dataref": st.sampled_from(["s3://clips/a", "s3://clips/../a", "s3://other/a"]) | texts,
    "content-type": st.sampled_from([t for m in KINDS for t in m.content_types])
    | st.sampled_from(
        ["audio/L16;rate=16000", "audio/L16;rate=0;channels=0", 'audio/L16;rate="8000"; channels=2', ";=;;"]
    )
    | texts,
}
numbers = st.floats(allow_nan=True) | st.integers(-(2**70), 2**70) | st.none() | st.sampled_from([0, 1, 1e9])
bodies_near = st.fixed_dictionaries(
    {},
    optional={
        "text": texts,
        "start": numbers,
        "end": numbers,
        "words": st.lists(st.fixed_dictionaries({"text": texts, "start": numbers, "end": numbers}), max_size=2),
        "channels": st.dictionaries(
            texts, st.fixed_dictionaries({"values": st.lists(numbers, max_size=3)}), max_size=2
        ),
        "times": st.lists(numbers, max_size=3),
        "rate_hz": numbers,
        "confidence": numbers,
    },
).map(lambda body: json.dumps(body).encode())
payloads = st.sampled_from(VALUES) | st.binary(max_size=30) | bodies_near | st.just(b"") | st.just(bytes(4001))


PARTS = ("key", "partition", "value", "log time", "more headers", *sorted(header_values))


@st.composite
def records(draw: st.DrawFn) -> Record:
    """Records of which at most three parts differ from those of a good one, in any way."""
    row = draw(st.sampled_from(ROWS))
    changed = draw(st.sets(st.sampled_from(PARTS), max_size=3))
    good = dict(record(row).headers)
    for name in sorted(changed & set(header_values)):
        text = draw(maybe(header_values[name]))
        good.pop(name, None)
        if text is not None:
            good[name] = text.encode("utf-8", "surrogatepass")
    headers: list[tuple[str, Any]] = list(good.items())
    if "more headers" in changed:
        anything = st.tuples(st.sampled_from(["ce_id", "ce_x", "content-type", "x", ""]), maybe(st.binary(max_size=8)))
        headers += draw(st.lists(anything, max_size=3))
    key = draw(maybe(st.binary(max_size=140) | texts.map(str.encode))) if "key" in changed else KEY
    partition = draw(st.integers(0, 2**31 - 1)) if "partition" in changed else home(key or b"")
    log_time_us = draw(st.integers(-1, 2**62)) if "log time" in changed else LOG_TIME_US
    value = VALUES[row]
    if good.get("ce_dataref") is not None:
        value = b""
    if "value" in changed:
        value = draw(payloads)
    return Record(row, partition, 0, log_time_us, key, value, tuple(headers))


DECODER = Decoder(SETTINGS, PARTITIONS)


def outcome(given: Record) -> Event | Reason:
    try:
        return DECODER.decode(given)
    except BadRecord as error:
        return error.reason


@hypothesis_settings(max_examples=2500, deadline=None)
@given(records())
@example(record(IMAGE))
@example(record(AUDIO))
@example(record(TEXT))
@example(record(TELEMETRY))
def test_whatever_comes_is_an_event_within_the_limits_or_a_bad_record(given: Record) -> None:
    event = outcome(given)
    if isinstance(event, Reason):
        return
    assert event.record is given
    if event.type is EventType.DATA:
        assert 0 <= event.start_us <= event.end_us <= LATEST_US
        assert event.end_us - event.start_us <= SETTINGS.max_event_ms * 1000
        assert event.end_us - given.log_time_us <= SETTINGS.max_ahead_ms * 1000
        assert event.session.encode() == given.key
        assert event.media_type in KINDS[given.row].content_types
        assert (event.body is not None) == (given.row in (TEXT, TELEMETRY) and event.dataref is None)
        assert bool(given.value) == (event.dataref is None)
    else:
        assert event.start_us == event.end_us == given.log_time_us


@hypothesis_settings(max_examples=1000, deadline=None)
@given(
    st.sampled_from(ROWS),
    st.none() | st.binary(max_size=20),
    st.binary(max_size=50),
    st.lists(st.tuples(st.sampled_from(sorted(header_values)) | texts, st.binary(max_size=20)), max_size=8),
)
def test_bytes_that_were_never_meant_for_us_are_a_bad_record(
    row: int, key: bytes | None, value: bytes, headers: list[tuple[str, bytes]]
) -> None:
    assert isinstance(outcome(Record(row, 0, 0, LOG_TIME_US, key, value, tuple(headers))), Reason)


def test_every_reason_that_decoding_gives_is_given_here() -> None:
    """Those of the other stages alone are missing."""
    given = [
        record(key=None),
        record(key=b"\xff"),
        record(partition=home(KEY) ^ 1),
        record(ce_type="x"),
        record(ce_id=None),
        record(content_type=None),
        record(value=bytes(4001)),
        record(AUDIO, content_type="audio/ogg", ce_durationus="60000001", ce_time="2025-01-01T00:00:00Z"),
        record(ce_time="2026-01-02T00:00:00Z"),
        record(TEXT, value=b"{"),
        record(TEXT, value=b"{}"),
        record(value=b"", ce_dataref="s3://other/a"),
        record(ce_sensor="camera_rear"),
        record(unreadable_batch="lz4: it ends early"),
    ]
    assert {reason_of(one) for one in given} == set(Reason) - {Reason.IMAGE_BOMB, Reason.POISON}
    assert len(given) == len(Reason) - 2


def test_raw_samples_are_counted_not_looked_at() -> None:
    loud = struct.pack(">100h", *range(-50, 50))
    assert span(decode(record(AUDIO, value=loud, content_type="audio/L16;rate=10000"))) == (0, 10_000)
