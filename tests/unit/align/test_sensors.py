"""Several sensors of one kind: whose a record is, what waits for whom, and what happens when the set changes."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.align.decode import Decoder, home_partition
from streamer.align.windows import Aligner, Joined, Repeated, Rules
from streamer.errors import BadRecord, Reason
from streamer.events import (
    AUDIO,
    DEFAULT_SENSORS,
    IMAGE,
    KINDS,
    TELEMETRY,
    Event,
    EventType,
    Record,
    Saved,
    Sensor,
    Sensors,
    Window,
    rfc3339,
)
from streamer.settings import Settings

S_US = 1_000_000
T0_US = 1_760_000_000 * S_US
TWO_CAMERAS = {"camera_rear": {"kind": "image"}, "cabin_mic": {"kind": "audio", "offset_ms": -12.5}}
CONTENT = ("image/jpeg", "audio/L16;rate=16000", "application/json", "application/json")


def record(row: int, sensor: str | None = None, at_us: int = T0_US, offset: int = 0) -> Record:
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(offset),
        "ce_source": "/car",
        "ce_type": KINDS[row].ce_type,
        "ce_time": rfc3339(at_us),
        "content-type": CONTENT[row],
        **({} if sensor is None else {"ce_sensor": sensor}),
    }
    value = b'{"channels": {"v": {"values": [1]}}, "rate_hz": 10}' if row == TELEMETRY else bytes(320)
    pairs = tuple((name, text.encode()) for name, text in headers.items())
    return Record(row, home_partition(b"car", 1), offset, at_us + 1000, b"car", value, pairs)


def decode(given: Record, **sensors: Any) -> Event:
    return Decoder(Settings.load(sensors=sensors or TWO_CAMERAS), 1).decode(given)


def refusal(given: Record, **sensors: Any) -> str:
    with pytest.raises(BadRecord) as caught:
        decode(given, **sensors)
    assert caught.value.reason is Reason.UNKNOWN_SENSOR
    return caught.value.detail


def test_sensors_go_by_kind_then_the_one_called_like_it_then_by_name() -> None:
    names = "telemetry", "a_mic", "rear", "image", "front", "audio"
    rows = {"telemetry": 3, "a_mic": 1, "audio": 1}
    expected = ("image", "front", "rear", "audio", "a_mic", "telemetry")
    for order in (names, names[::-1]):
        assert Sensors.of(Sensor(name, rows.get(name, 0)) for name in order).names == expected


def test_the_header_says_whose_a_record_is() -> None:
    names = Settings.load(sensors=TWO_CAMERAS).sensor_set.names
    assert names == ("image", "camera_rear", "audio", "cabin_mic", "text", "telemetry")
    assert names[decode(record(IMAGE, "camera_rear")).sensor] == "camera_rear"
    assert names[decode(record(AUDIO, "audio")).sensor] == "audio"


def test_without_the_header_it_is_the_one_called_like_the_kind_or_the_only_one() -> None:
    assert decode(record(IMAGE)).sensor == 0
    only = Settings.load(sensors={"image": {"enabled": False}, "rear": {"kind": "image"}})
    assert only.sensor_set.names[Decoder(only, 1).decode(record(IMAGE)).sensor] == "rear"


def test_a_record_that_is_nobodys_says_who_there_is() -> None:
    assert "'camera_left' is not declared; of kind image are image, camera_rear" in refusal(
        record(IMAGE, "camera_left")
    )
    assert "'camera_rear' is of kind image, and this topic is of audio" in refusal(record(AUDIO, "camera_rear"))
    two = {"image": {"enabled": False}, "front": {"kind": "image"}, "rear": {"kind": "image"}}
    assert "missing, and there are several sensors of kind image: front, rear" in refusal(record(IMAGE), **two)
    assert "no sensor of kind image is declared" in refusal(record(IMAGE), image={"enabled": False})


def test_a_producer_need_not_declare_the_sensor_that_it_names() -> None:
    producers = Decoder(Settings.load(sensors=TWO_CAMERAS), 1, any_sensor=True)
    assert producers.decode(record(IMAGE, "camera_left")).start_us == T0_US
    with pytest.raises(BadRecord, match="'camera_rear' is of kind image, and this topic is of audio"):
        producers.decode(record(AUDIO, "camera_rear"))


def test_the_offset_of_a_sensor_is_added_to_its_times() -> None:
    assert decode(record(AUDIO, "cabin_mic")).start_us == T0_US - 12_500
    assert decode(record(AUDIO)).start_us == T0_US
    moved = decode(record(TELEMETRY), telemetry={"offset_ms": 40})
    assert (moved.start_us, moved.end_us) == (T0_US + 40_000, T0_US + 140_000)


def rules(sensors: Sensors) -> Rules:
    count = len(sensors.all)
    return Rules(
        window_us=S_US,
        hop_us=S_US,
        disorder_us=(0,) * count,
        max_delay_us=(200_000,) * count,
        idle_after_us=(3 * S_US,) * count,
        session_gap_us=10 * S_US,
        max_open_bytes=1 << 30,
        sensors=sensors,
    )


CAMERAS = Sensors.of([Sensor("front", IMAGE), Sensor("rear", IMAGE)])


class Log:
    def __init__(self, sensors: Sensors, saved: Saved | None = None) -> None:
        self.aligner = Aligner(rules(sensors), 0)
        self.aligner.restore("car", saved)
        self.offset = 0

    def event(self, at_s: float, sensor: int, start_s: float, identity: str | None = None) -> list[Any]:
        given = Record(IMAGE, 0, self.offset, T0_US + round(at_s * S_US), b"car", b"x", ())
        self.offset += 1
        start_us = T0_US + round(start_s * S_US)
        name = None if identity is None else ("/car", identity)
        return self.aligner.on_event(
            Event(given, "car", EventType.DATA, start_us, start_us, identity=name, sensor=sensor)
        )


def closed(outcomes: list[Any]) -> list[tuple[str, int]]:
    return [(str(o.closed_by), o.closed_at.log_time_us - T0_US) for o in outcomes if isinstance(o, Window)]


def test_a_window_waits_for_the_other_camera_and_no_longer_once_it_has_died() -> None:
    log = Log(CAMERAS)
    outcomes = []
    for second in range(6):
        outcomes += log.event(second, 0, second)
        outcomes += log.event(second + 0.1, 1, second) if second < 2 else []
    # rear is heard at 0.1 and 1.1: up to 4.1 windows wait 200 ms for it, then not at all
    assert closed(outcomes) == [
        ("complete", 1_100_000),
        ("deadline", 2_200_000),
        ("deadline", 3_200_000),
        ("deadline", 4_100_000),
        ("deadline", 5_000_000),
    ]


def test_a_sensor_that_a_session_never_had_is_waited_for_no_longer_than_idle_after_from_its_start() -> None:
    log = Log(CAMERAS)
    outcomes = [outcome for second in range(6) for outcome in log.event(second, 0, second)]
    assert closed(outcomes) == [
        ("deadline", 1_200_000),
        ("deadline", 2_200_000),
        ("deadline", 3_000_000),
        ("deadline", 4_000_000),
        ("deadline", 5_000_000),
    ]


def test_the_same_source_and_id_of_two_sensors_are_two_events() -> None:
    log = Log(CAMERAS)
    assert isinstance(log.event(0, 0, 0, "1")[-1], Joined)
    assert isinstance(log.event(0.1, 1, 0, "1")[-1], Joined)
    assert isinstance(log.event(0.2, 1, 0, "1")[-1], Repeated)


def test_the_fingerprint_is_what_it_was_for_the_default_sensors_and_another_for_others() -> None:
    assert rules(DEFAULT_SENSORS).fingerprint == "89a3c1b93ae08984"
    assert rules(CAMERAS).fingerprint.startswith("89a3c1b93ae08984.")
    renamed = Sensors.of([Sensor("front", IMAGE), Sensor("back", IMAGE)])
    assert rules(renamed).fingerprint != rules(CAMERAS).fingerprint


def test_after_a_change_of_sensors_a_session_goes_on_after_its_last_window() -> None:
    heard_us = (T0_US + 1_900_000, T0_US + 100_000, 0, T0_US)
    before = Saved(T0_US + 2 * S_US, heard_us, {}, rules(DEFAULT_SENSORS).fingerprint)
    log = Log(CAMERAS, before)
    outcomes = [outcome for second in (2, 3, 4, 5, 6) for outcome in log.event(second, 0, second)]
    # every sensor counts as heard at 1.9 s: rear is waited for until 4.9 s
    assert closed(outcomes) == [
        ("deadline", 3_200_000),
        ("deadline", 4_200_000),
        ("deadline", 5_000_000),
        ("deadline", 6_000_000),
    ]
    assert next(o.start_us for o in outcomes if isinstance(o, Window)) == T0_US + 2 * S_US
