"""The official CloudEvents SDK reads what we send, and we read what it sends, in Kafka's binary mode."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings import kafka as sdk
from cloudevents.core.v1.event import CloudEvent
from cloudevents.v1 import kafka as sdk_v1
from cloudevents.v1.http import CloudEvent as CloudEventV1
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from kafka.partitioner.default import murmur2

from streamer.align.decode import Decoder
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
    TimeSource,
    Transcript,
    Word,
    rfc3339,
)
from streamer.feeds.producer import Outgoing, end_record, headers
from streamer.settings import Settings

SESSION = "cab-7"
PARTITIONS = 12
TIME_US = 1_767_225_600_123_456  # 2026-01-01T00:00:00.123456Z
TIME = EPOCH + timedelta(microseconds=TIME_US)
LOG_TIME_US = 1_767_225_601_000_000

TRANSCRIPT = Transcript("mind the van", end=0.75, words=(Word("mind", 0.0, 0.25),))
BLOCK = Telemetry({"speed": Channel((13.9, 14.0), "m/s")}, rate_hz=20)

# row, payload, content type, ce_durationus, and how long the event then lasts
SAMPLES: list[tuple[int, bytes, str, int | None, int]] = [
    (IMAGE, b"\xff\xd8\xff\xe0 jpeg", "image/jpeg", None, 0),
    (IMAGE, b"\x89PNG\r\n\x1a\n", "image/png", None, 0),
    (AUDIO, b"\xff\xfe" * 1600, "audio/L16;rate=16000;channels=1", None, 100_000),
    (AUDIO, b"OggS\0\xff", "audio/ogg", 20_000, 20_000),
    (TEXT, msgspec.json.encode(TRANSCRIPT), "application/json", None, 750_000),
    (TELEMETRY, msgspec.json.encode(BLOCK), "application/json", None, 100_000),
    (TELEMETRY, msgspec.json.encode(BLOCK), "application/json", 90_000, 90_000),
]
NAMES = [f"{KINDS[row].name}-{content_type.partition(';')[0]}-{told}" for row, _, content_type, told, _ in SAMPLES]


def read(row: int, key: str | bytes | None, value: bytes, sent: Sequence[tuple[str, bytes]]) -> Event:
    """The event of a record as read from the topic of a modality."""
    key = key.encode() if isinstance(key, str) else key
    partition = 0 if key is None else (murmur2(key) & 0x7FFFFFFF) % PARTITIONS
    record = Record(row, partition, 0, LOG_TIME_US, key, value, tuple(sent))
    return Decoder(Settings(), PARTITIONS).decode(record)


def received(outgoing: Outgoing) -> CloudEvent:
    """The producer's record as the SDK reads it."""
    event = sdk.from_kafka_event(sdk.KafkaMessage(dict(headers(outgoing)), outgoing.session.encode(), outgoing.payload))
    assert isinstance(event, CloudEvent)
    return event


@pytest.mark.parametrize(("row", "payload", "content_type", "told_us", "_lasts_us"), SAMPLES, ids=NAMES)
def test_the_sdk_reads_what_the_producer_sends(
    row: int, payload: bytes, content_type: str, told_us: int | None, _lasts_us: int
) -> None:
    event = received(Outgoing(row, SESSION, TIME_US, payload, content_type, 0, told_us, sequence=41))
    assert event.get_specversion() == "1.0"
    assert event.get_type() == KINDS[row].ce_type
    assert event.get_source() == f"/sessions/{SESSION}/{KINDS[row].name}"
    assert event.get_id() == f"{SESSION}/{KINDS[row].ce_type}/41"
    assert event.get_time() == TIME
    assert event.get_datacontenttype() == content_type
    assert event.get_extension("sequence") == "41"
    assert event.get_extension("durationus") == (None if told_us is None else str(told_us))
    assert event.get_extension("partitionkey") == SESSION
    data = event.get_data()
    assert data == (json.loads(payload) if content_type == "application/json" else payload)


def test_the_sdk_reads_which_sensor_it_is_of() -> None:
    event = received(Outgoing(IMAGE, SESSION, TIME_US, b"\xff", "image/jpeg", 0, sequence=1, sensor="camera_rear"))
    assert event.get_extension("sensor") == "camera_rear"
    assert event.get_source() == "/sessions/cab-7/camera_rear"


@pytest.mark.parametrize("time_source", TimeSource)
def test_the_sdk_reads_which_clock_told_the_time(time_source: TimeSource) -> None:
    event = received(Outgoing(IMAGE, SESSION, TIME_US, b"\xff", "image/jpeg", 0, time_source=time_source))
    assert event.get_extension("timesource") == str(time_source)
    assert received(Outgoing(IMAGE, SESSION, TIME_US, b"\xff", "image/jpeg", 0)).get_extension("timesource") is None


def test_the_sdk_reads_the_end_of_a_session() -> None:
    event = received(end_record(SESSION, TIME_US, 0))
    assert event.get_type() == END_TYPE
    assert event.get_time() == TIME
    assert event.get_data() is None


@pytest.mark.parametrize("session", ["cab 7", "Straße/7?#%", "\x07\x7f\x85", "\U0001f695"])
def test_id_and_source_are_what_cloudevents_allows_whatever_the_session_is_called(session: str) -> None:
    event = received(Outgoing(IMAGE, session, TIME_US, b"\xff", "image/jpeg", 0, sequence=1))
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/%")
    assert set(event.get_source()) <= allowed  # section 3.1 of the specification: a URI reference (RFC 3986)
    assert set(event.get_id()) <= allowed  # a String, which holds no control characters
    assert event.get_source().count("/") == 3, "the session is one segment"
    assert event.get_extension("partitionkey") == session
    other = received(Outgoing(IMAGE, session + "x", TIME_US, b"\xff", "image/jpeg", 0, sequence=1))
    assert (event.get_source(), event.get_id()) != (other.get_source(), other.get_id())


def written(row: int, payload: bytes, content_type: str, **extensions: Any) -> sdk.KafkaMessage:
    """An event with these extension attributes as the SDK writes it."""
    event = CloudEvent(
        {
            "specversion": "1.0",
            "id": "41",
            "source": "/devices/cab-7",
            "type": KINDS[row].ce_type,
            "time": TIME,
            "datacontenttype": content_type,
            "partitionkey": SESSION,
            **extensions,
        },
        payload,
    )
    return sdk.to_binary_event(event)


@pytest.mark.parametrize(("row", "payload", "content_type", "told_us", "lasts_us"), SAMPLES, ids=NAMES)
def test_what_the_sdk_writes_is_decoded(
    row: int, payload: bytes, content_type: str, told_us: int | None, lasts_us: int
) -> None:
    told = {} if told_us is None else {"durationus": told_us}
    message = written(row, payload, content_type, sequence=41, subject="front", **told)
    event = read(row, message.key, message.value, list(message.headers.items()))
    assert (event.row, event.type, event.session) == (row, EventType.DATA, SESSION)
    assert (event.start_us, event.end_us) == (TIME_US, TIME_US + lasts_us)
    assert event.media_type == content_type.partition(";")[0].lower()
    assert event.sequence == 41
    assert event.body == {TEXT: TRANSCRIPT, TELEMETRY: BLOCK}.get(row)
    assert event.record.value == payload


def test_json_that_the_sdk_serialises_itself_is_decoded() -> None:
    event = CloudEvent(
        {
            "type": KINDS[TEXT].ce_type,
            "source": "/asr",
            "time": TIME,
            "datacontenttype": "application/json; charset=utf-8",
        },
        {"text": "brémse", "end": 0.5},
    )
    message = sdk.to_binary_event(event, key_mapper=lambda _: SESSION)
    decoded = read(TEXT, message.key, message.value, list(message.headers.items()))
    assert decoded.body == Transcript("brémse", end=0.5)
    assert decoded.end_us - decoded.start_us == 500_000


def test_the_sdks_older_interface_is_understood_too() -> None:
    event = CloudEventV1(
        {
            "type": KINDS[IMAGE].ce_type,
            "source": "/devices/cab-7",
            "datacontenttype": "image/jpeg",
            "time": rfc3339(TIME_US),
            "partitionkey": SESSION,
            "sequence": "41",
        },
        b"\xff\xd8",
    )
    message = sdk_v1.to_binary(event, data_marshaller=lambda data: data)
    assert isinstance(message.value, bytes)
    decoded = read(IMAGE, message.key, message.value, list(message.headers.items()))
    assert (decoded.session, decoded.start_us, decoded.sequence) == (SESSION, TIME_US, 41)


@pytest.mark.parametrize(("ce_type", "kind"), [(END_TYPE, EventType.END), (TICK_TYPE, EventType.TICK)])
@pytest.mark.parametrize("row", range(len(KINDS)))
def test_control_records_of_the_sdk_are_decoded_on_any_topic(row: int, ce_type: str, kind: EventType) -> None:
    message = sdk.to_binary_event(CloudEvent({"type": ce_type, "source": "/devices/cab-7", "partitionkey": SESSION}))
    decoded = read(row, message.key, message.value, list(message.headers.items()))
    assert (decoded.type, decoded.session) == (kind, SESSION)
    assert decoded.start_us == decoded.end_us == LOG_TIME_US


zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1971, 1, 1), datetime(2025, 12, 30), timezones=zones | st.just(UTC))


@hypothesis_settings(max_examples=300, deadline=None)
@given(moments)
def test_times_pass_to_the_microsecond_in_both_directions(moment: datetime) -> None:
    time_us = (moment - EPOCH) // timedelta(microseconds=1)
    event = CloudEvent(
        {
            "type": KINDS[IMAGE].ce_type,
            "source": "/devices/cab-7",
            "time": moment,
            "datacontenttype": "image/jpeg",
            "partitionkey": SESSION,
        },
        b"\xff",
    )
    message = sdk.to_binary_event(event)
    assert read(IMAGE, message.key, message.value, list(message.headers.items())).start_us == time_us
    assert received(Outgoing(IMAGE, SESSION, time_us, b"\xff", "image/jpeg", 0)).get_time() == moment


@hypothesis_settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30), st.integers(0, 10**17))
def test_what_the_producer_sends_is_what_is_decoded(session: str, sequence: int) -> None:
    outgoing = Outgoing(AUDIO, session, TIME_US, b"fLaC", "audio/flac", 0, duration_us=20_000, sequence=sequence)
    event = read(AUDIO, session, outgoing.payload, headers(outgoing))
    assert (event.session, event.sequence) == (session, sequence)
    assert (event.start_us, event.end_us) == (TIME_US, TIME_US + 20_000)
