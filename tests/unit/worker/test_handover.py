"""A window goes to the windows topic and comes back: the same but for what was left behind."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from streamer.broker import refetch
from streamer.clients.batches import FAULT
from streamer.errors import BadRecord, LeftBehind, Reason
from streamer.events import (
    AUDIO,
    DEFAULT_SENSORS,
    IMAGE,
    KIND_NAMES,
    TELEMETRY,
    TEXT,
    ClosedBy,
    Event,
    EventType,
    Position,
    Record,
    Sensor,
    Sensors,
    Transcript,
    Window,
)
from streamer.model import frames, sample
from streamer.model.sample import Limits, cut
from streamer.model.spec import AudioInput, ImageInput, InputSpec
from streamer.worker import handover
from tests.harness import jpeg

S_US = 1_000_000
T0_US = 1_700_000_000 * S_US

SIX = Sensors.of([*DEFAULT_SENSORS.all, Sensor("camera_rear", IMAGE), Sensor("cabin_mic", AUDIO)])

whole = st.integers(0, 2**53)
text = st.text(max_size=20)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    session, partition = draw(st.text(min_size=1, max_size=20)), draw(st.integers(0, 999))
    key = session.encode()

    sensors = draw(st.sampled_from((DEFAULT_SENSORS, SIX)))

    def event(row: int, sensor: int) -> Event:
        record = Record(
            row,
            partition,
            draw(whole),
            draw(whole),
            key,
            draw(st.binary(max_size=50)),
            tuple(draw(st.lists(st.tuples(text, st.binary(max_size=9)), max_size=3))),
        )
        start_us = draw(whole)
        return Event(
            record,
            session,
            EventType.DATA,
            start_us,
            start_us + draw(st.integers(0, S_US)),
            draw(text),
            draw(st.dictionaries(text, text, max_size=2)),
            Transcript("parsed") if row == TEXT else None,
            draw(st.none() | text),
            draw(st.none() | whole),
            sensor=sensor,
        )

    events = tuple(
        tuple(event(row, number) for _ in range(draw(st.integers(0, 2)))) for number, row in enumerate(sensors.rows)
    )
    start_us = draw(whole)
    return Window(
        session,
        partition,
        start_us,
        start_us + S_US,
        draw(st.sampled_from(ClosedBy)),
        Position(draw(whole), draw(st.integers(-1, 3)), draw(st.integers(-1, 2**53))),
        events,
        tuple(draw(whole) for _ in sensors.all),
        sensors,
        draw(whole),
    )


def carried(window: Window, value: bytes, offset: int = 7) -> Record:
    headers = handover.headers(window)
    return Record(0, window.partition, offset, T0_US, window.session.encode(), value, headers)


def unparsed(event: Event) -> Event:
    return msgspec.structs.replace(event, body=None)


def left(event: Event) -> Event:
    record = msgspec.structs.replace(event.record, value=b"", headers=())
    return msgspec.structs.replace(event, record=record, body=None, left_behind=True)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(windows(), st.data(), whole, whole, whole)
def test_a_window_comes_back_as_it_went(
    window: Window, data: st.DataObject, closed_us: int, trim_below_us: int, lost_until_us: int
) -> None:
    travels = [[data.draw(st.booleans()) for _ in events] for events in window.events]
    value = handover.encode(
        window,
        travels,
        closed_us=closed_us,
        fingerprint="rules",
        trim_below_us=trim_below_us,
        lost_until_us=lost_until_us,
    )
    back, facts = handover.decode(carried(window, value))
    wanted = tuple(
        tuple(unparsed(event) if goes else left(event) for event, goes in zip(events, flags, strict=True))
        for events, flags in zip(window.events, travels, strict=True)
    )
    assert back == msgspec.structs.replace(window, events=wanted)
    assert (facts.closed_us, facts.fingerprint) == (closed_us, "rules")
    assert (facts.trim_below_us, facts.lost_until_us) == (trim_below_us, lost_until_us)


def test_fields_that_are_not_known_are_passed_over_and_a_type_that_is_not_is_refused() -> None:
    window = of_frames(1)
    value = encoded(window, frames.opened(window, InputSpec()))
    more = msgspec.msgpack.encode({**msgspec.msgpack.decode(value), "later": [1]})
    assert handover.decode(carried(window, more)) == handover.decode(carried(window, value))
    record = carried(window, value)
    newer = [(k, b"streamer.window.v2" if k == "ce_type" else v) for k, v in record.headers]
    with pytest.raises(BadRecord, match=r"streamer\.window\.v2") as refused:
        handover.decode(msgspec.structs.replace(record, headers=tuple(newer)))
    assert refused.value.reason is Reason.UNKNOWN_TYPE


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"key": None}, Reason.NO_KEY),
        ({"key": b""}, Reason.NO_KEY),
        ({"key": b"\xff"}, Reason.BAD_KEY),
        ({"headers": ()}, Reason.UNKNOWN_TYPE),
        ({"key": None, "headers": ((FAULT, b"its checksum is wrong"),)}, Reason.UNREADABLE_BATCH),
        ({"value": b""}, Reason.BAD_PAYLOAD),
        ({"value": b"\xc1"}, Reason.BAD_PAYLOAD),
        ({"value": msgspec.msgpack.encode({"start_us": 1})}, Reason.BAD_PAYLOAD),
    ],
)
def test_what_is_no_window_is_refused_with_its_reason(changes: dict[str, object], reason: Reason) -> None:
    window = of_frames(1)
    good = carried(window, encoded(window, [[True], [], [], []]))
    with pytest.raises(BadRecord) as refused:
        handover.decode(msgspec.structs.replace(good, **changes))
    assert refused.value.reason is reason


@given(st.binary(max_size=200))
def test_no_bytes_are_any_worse_than_refused(value: bytes) -> None:
    with pytest.raises(BadRecord):
        handover.decode(carried(of_frames(1), value))


@pytest.mark.parametrize("changed", [{"heard_us": [1]}, {"members": {"smell": []}}])
def test_a_window_of_other_modalities_is_refused(changed: dict[str, object]) -> None:
    window = of_frames(1)
    value = msgspec.msgpack.decode(encoded(window, [[True], [], [], []]))
    with pytest.raises(BadRecord):
        handover.decode(carried(window, msgspec.msgpack.encode(value | changed)))


# which payloads travel


def event(row: int, number: int, value: bytes, at_us: int, media_type: str = "") -> Event:
    record = Record(row, 0, number, T0_US + at_us, b"car", value, (("ce_id", b"1"),))
    length_us = 0 if row == IMAGE else S_US // 10
    return Event(record, "car", EventType.DATA, T0_US + at_us, T0_US + at_us + length_us, media_type)


def window_of(*rows: list[Event]) -> Window:
    events = tuple(map(tuple, rows)) + ((),) * (len(KIND_NAMES) - len(rows))
    closed_at = Position(T0_US + S_US, 0, 9)
    return Window("car", 0, T0_US, T0_US + S_US, ClosedBy.COMPLETE, closed_at, events, (1, 2, 3, 4))


def of_frames(count: int, broken: tuple[int, ...] = ()) -> Window:
    frames = [
        event(IMAGE, i, b"no picture" if i in broken else jpeg(i), i * S_US // count, "image/jpeg")
        for i in range(count)
    ]
    return window_of(frames)


def encoded(window: Window, travels: object) -> bytes:
    return handover.encode(window, travels, closed_us=1, fingerprint="f", trim_below_us=0, lost_until_us=0)  # type: ignore[arg-type]


def handed_over(window: Window, inputs: InputSpec) -> Window:
    return handover.decode(carried(window, encoded(window, frames.opened(window, inputs))))[0]


LOST = "its source topic no longer had the record when its window needed it"
SPREAD = InputSpec(image=ImageInput(frames=3, height=16, width=16))


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 10, 31])
@pytest.mark.parametrize("wanted", [1, 3, 8])
def test_the_frames_that_a_model_opens_travel_and_no_others(count: int, wanted: int) -> None:
    inputs = InputSpec(image=ImageInput(frames=wanted, height=16, width=16))
    window = of_frames(count)
    back = handed_over(window, inputs)
    assert sum(not frame.left_behind for frame in back.events[IMAGE]) == min(count, wanted)
    assert_same_sample(cut(back, inputs, Limits()), cut(window, inputs, Limits()))


Cut = tuple[sample.Sample, list[sample.Reject]]


def assert_same_sample(mine: Cut, theirs: Cut) -> None:
    (found, rejects), (other, others) = mine, theirs
    assert (found.present, found.coverage) == (other.present, other.coverage)
    if other.image_FHW3 is None:
        assert found.image_FHW3 is None
    else:
        assert found.image_FHW3 is not None
        assert found.image_mask_F is not None
        assert np.array_equal(found.image_FHW3, other.image_FHW3)
        assert other.image_mask_F is not None
        assert np.array_equal(found.image_mask_F, other.image_mask_F)
    assert [(e.position, str(r)) for e, r in rejects] == [(e.position, str(r)) for e, r in others]


def test_a_broken_frame_asks_for_what_was_left_behind() -> None:
    window = of_frames(10, broken=(5,))  # the middle one of the three that are chosen
    back = handed_over(window, SPREAD)
    assert [i for i, frame in enumerate(back.events[IMAGE]) if not frame.left_behind] == [1, 5, 8]
    with pytest.raises(LeftBehind):
        cut(back, SPREAD, Limits())


def test_frames_that_no_model_looks_at_are_counted_all_the_same() -> None:
    window = of_frames(5)
    limits = Limits(expected_hz={"image": 10.0})
    blind = handed_over(window, InputSpec())
    assert all(frame.left_behind for frame in blind.events[IMAGE])
    assert cut(blind, InputSpec(), limits)[0].coverage[IMAGE] == 0.5


def test_sound_travels_for_a_model_that_hears_and_text_and_telemetry_always() -> None:
    rows: list[list[Event]] = [
        [],
        [event(AUDIO, 1, bytes(3200), 0, "audio/l16")],
        [event(TEXT, 2, b'{"text": "go"}', 0, "application/json")],
        [event(TELEMETRY, 3, b'{"channels": {"v": {"values": [1]}}, "rate_hz": 10}', 0, "application/json")],
    ]
    window = window_of(*rows)
    assert frames.opened(window, InputSpec()) == ((), (False,), (True,), (True,))
    assert frames.opened(window, InputSpec(audio=AudioInput(16_000))) == ((), (True,), (True,), (True,))
    deaf = cut(handed_over(window, InputSpec()), InputSpec(), Limits())
    assert deaf[0].present == cut(window, InputSpec(), Limits())[0].present == (False, True, True, True)


def test_a_member_without_its_payload_takes_some_fifty_bytes() -> None:
    window = of_frames(100)
    assert len(encoded(window, [[False] * 100, [], [], []])) < 110 * 100


def test_what_kafka_keeps_no_longer_is_a_broken_payload_and_the_window_goes_on() -> None:
    back = refetch._filled(handed_over(of_frames(10, broken=(5,)), SPREAD), {})
    found, rejects = cut(back, SPREAD, Limits())
    assert found.image_mask_F is not None
    assert found.image_mask_F.sum() == 2
    assert {error.reason for _, error in rejects} == {Reason.BAD_PAYLOAD}
    assert [error.detail for _, error in rejects].count(LOST) == 7
    assert len(rejects) == 8
