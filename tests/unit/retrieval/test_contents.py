"""What was in a window of several cameras, microphones and other sensors, read from the topics of their kinds."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT
from streamer.result import Result
from streamer.retrieval.contents import Content, Frame, Gone, Records, Windows
from streamer.settings import Settings
from tests import kept
from tests.kept import START_US, Log

L16 = "audio/L16;rate=8000;channels=1"
SENSORS = {
    "image": {"enabled": False},
    "audio": {"enabled": False},
    "camera_front": {"kind": "image"},
    "camera_left": {"kind": "image"},
    "camera_rear": {"kind": "image"},
    "cabin_mic": {"kind": "audio", "offset_ms": 250},
    "roof_mic": {"kind": "audio"},
    "imu": {"kind": "telemetry"},
}
NAMES = Settings.load(sensors=SENSORS).sensor_set.names


def window(log: Log, present: Sequence[str], of: Sequence[str] = NAMES, **changed: Any) -> Result:
    return kept.window(log, present, of, **changed)


def frames(log: Log, result: Result, *sensors: str | None, declared: Any = SENSORS) -> list[str]:
    """Contents of the newest frames, or why there is none."""

    async def read() -> list[str]:
        windows, found = Windows(Settings.load(sensors=declared), log), []
        for sensor in sensors:
            try:
                frame = await windows.frame(result, sensor)
                assert isinstance(frame, Frame)
                found.append(frame.content.decode())
            except Gone as gone:
                found.append(str(gone))
        await windows.close()
        return found

    return asyncio.run(read())


def content(log: Log, result: Result, declared: Any = SENSORS) -> Content:
    async def read() -> bytes:
        windows = Windows(Settings.load(sensors=declared), log)
        found = await windows.content(result)
        await windows.close()
        return found

    return msgspec.json.decode(asyncio.run(read()), type=Content)


def cameras(*names: str | None) -> Log:
    return Log(*((IMAGE, name, f"{name} {place}".encode(), "image/jpeg") for place, name in enumerate(names)))


FRONT, LEFT, REAR = "camera_front", "camera_left", "camera_rear"


def test_each_camera_has_its_newest_frame_and_one_read_finds_all() -> None:
    log = cameras(FRONT, LEFT, REAR, FRONT, LEFT, REAR, LEFT)
    found = frames(log, window(log, [FRONT, LEFT, REAR]), REAR, FRONT, LEFT, None)
    assert found == ["camera_rear 5", "camera_front 3", "camera_left 6", "camera_front 3"]
    assert log.reads == [5]


def test_a_slow_camera_is_found_before_many_frames_of_the_others() -> None:
    log = cameras(REAR, *[FRONT] * 40)
    assert frames(log, window(log, [FRONT, REAR]), REAR) == ["camera_rear 0"]
    assert log.reads == [5, 10, 20, 6]


def test_for_a_camera_that_the_window_lacks_nothing_more_is_read() -> None:
    log = cameras(*[FRONT] * 40)
    assert frames(log, window(log, [FRONT]), REAR, FRONT) == ["no frame in this window", "camera_front 39"]
    assert log.reads == [5]


def test_of_a_window_that_failed_and_names_no_sensor_the_newest_frames_are_shown() -> None:
    log = cameras(*[LEFT] * 40)
    found = frames(log, window(log, [], status="failed"), LEFT, None, REAR)
    assert found == ["camera_left 39", "camera_left 39", "the frame is not in Kafka any more"]
    assert log.reads == [5]


def test_a_window_of_the_time_before_the_cameras_had_names_is_read_as_it_was() -> None:
    log = cameras(None, None)
    before = ("image", "audio", "text", "telemetry")
    assert frames(log, window(log, ["image"], before), None, "image") == ["None 1", "None 1"]
    named = cameras("camera_old", FRONT)
    now = {**SENSORS, "camera_old": {"kind": "image", "enabled": False}}
    result = window(named, ["camera_old", FRONT], (*NAMES, "camera_old"))
    assert frames(named, result, "camera_old", declared=now) == ["camera_old 0"]


def test_sounds_words_and_telemetry_are_those_of_their_sensors() -> None:
    block = {"channels": {"speed": {"unit": "m/s", "values": [1.0, 2.0]}}, "rate_hz": 4.0}
    other = {"channels": {"speed": {"unit": "km/h", "values": [3.0]}}, "rate_hz": 4.0}
    log = Log(
        (AUDIO, "cabin_mic", bytes(8000), L16),
        (AUDIO, "roof_mic", b"\x40\0" * 8000, L16),
        (TEXT, "text", b'{"text": "later", "start": 0.5, "end": 0.9}', "application/json"),
        (TEXT, None, b'{"text": "sooner", "start": 0.1, "end": 0.9}', "application/json"),
        (TELEMETRY, "telemetry", json.dumps(block).encode(), "application/json"),
        (TELEMETRY, "imu", json.dumps(other).encode(), "application/json"),
    )
    found = content(log, window(log, ["cabin_mic", "roof_mic", "text", "telemetry", "imu"]))
    assert {name: sound.peak_dbfs for name, sound in found.audio.items()} == {"cabin_mic": None, "roof_mic": -6.0}
    assert [(one.sensor, one.text) for one in found.transcripts] == [("text", "sooner"), ("text", "later")]
    units = {name: {channel: one.unit for channel, one in own.items()} for name, own in found.telemetry.items()}
    assert units == {"telemetry": {"speed": "m/s"}, "imu": {"speed": "km/h"}}
    assert found.gone == []


def test_what_is_wrong_with_a_sensors_clock_is_put_right_as_the_worker_did() -> None:
    log = Log((AUDIO, "cabin_mic", bytes(8000), L16))
    records = Records(Settings.load(sensors=SENSORS), log)
    ((name, (event,)),) = records.by_sensor(window(log, ["cabin_mic"]), AUDIO, [(0, 0)]).items()
    assert (name, event.start_us) == ("cabin_mic", START_US + 250_000)


def test_sensors_that_can_no_longer_be_read_are_named() -> None:
    log = Log((AUDIO, "cabin_mic", bytes(8000), L16), (TELEMETRY, "other", b"{}", "application/json"))
    found = content(log, window(log, ["cabin_mic", "roof_mic", "imu"]))
    assert (list(found.audio), found.gone) == (["cabin_mic"], ["roof_mic", "imu"])


@pytest.mark.parametrize("kind", ["text", "telemetry"])
def test_a_window_that_failed_names_the_sensors_of_a_kind_of_which_nothing_is_left(kind: str) -> None:
    log = Log((TEXT if kind == "text" else TELEMETRY, "unheard_of", b"{}", "application/json"))
    names = [name for name in NAMES if Settings.load(sensors=SENSORS).sensors[name].kind == kind]
    assert content(log, window(log, [], status="failed")).gone == names
