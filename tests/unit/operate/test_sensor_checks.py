"""What the doctor says of sensors that never come, and of records that belong to none."""

from __future__ import annotations

from typing import Any

import pytest

from streamer.broker.deadletters import DeadLetter
from streamer.operate.findings import Finding, Status
from streamer.operate.sensor_checks import absent, undeclared
from streamer.result import Result
from streamer.settings import Settings
from tests.terminals import result

SENSORS: dict[str, Any] = {
    "image": {"enabled": False},
    "camera_front": {"kind": "image"},
    "camera_rear": {"kind": "image"},
    "telemetry": {"enabled": False},
}
SETTINGS = Settings.load(sensors=SENSORS)
NAMES = ("camera_front", "camera_rear", "audio", "text")


def window(*present: str, of: tuple[str, ...] = NAMES) -> Result:
    return result(present=present, coverage={name: float(name in present) for name in of})


def said(*results: Result, settings: Settings = SETTINGS) -> list[Finding]:
    return [*absent(settings, results)]


def test_sensors_that_no_window_has_are_named_with_what_it_costs_to_wait_for_them() -> None:
    rear, text, there = said(window("camera_front", "audio"), window("camera_front"))
    assert (rear.status, text.status, there.status) == (Status.WARN, Status.WARN, Status.OK)
    assert rear.found == "camera_rear was in none of the newest 2 windows: each lacks it"
    assert "with ce_sensor camera_rear?" in rear.remedy
    assert "STREAMER_SENSORS__CAMERA_REAR__ENABLED=false" in rear.remedy
    assert text.found == "text was in none of the newest 2 windows: each waits 2000 ms for it"
    assert there.found == "the newest 2 windows have camera_front, audio"


def test_where_all_came_there_is_nothing_to_warn_of() -> None:
    (there,) = said(window("camera_front", "audio"), window("camera_rear", "text"))
    assert there.status is Status.OK


def test_windows_of_the_time_before_a_sensor_was_declared_say_nothing_of_it() -> None:
    (nothing,) = said(window("image", of=("image", "audio", "text", "telemetry")))
    assert nothing.status is Status.OK
    assert nothing.found == "declared are camera_front, camera_rear, audio, text; there are no windows with them yet"
    assert said() == [nothing]


def letter(ce_sensor: str | None, topic: str = "streamer.frames", reason: str = "unknown_sensor") -> DeadLetter:
    return DeadLetter(
        reason=reason,
        detail="",
        topic=topic,
        partition=0,
        offset=0,
        log_time_us=0,
        key="car",
        ce_id="1",
        ce_type=None,
        size_bytes=1,
        ce_sensor=ce_sensor,
    )


def test_letters_of_sensors_that_are_still_unknown_are_counted_by_name() -> None:
    letters = [
        *[letter("camera_top")] * 3,
        *[letter(None)] * 2,  # there are two cameras, and none is called image
        letter("audio"),  # of another kind
        letter("camera_rear"),  # declared since
        letter(None, "streamer.transcripts"),  # has become the only one
        letter("camera_top", reason="bad_header"),
        letter("camera_top", "other.frames"),
    ]
    found = [*undeclared(SETTINGS, letters)]
    assert [finding.found for finding in found] == [
        "3 of the newest 10 dead letters are records on streamer.frames of the sensor 'camera_top', which is not "
        "declared there",
        "2 of the newest 10 dead letters are records on streamer.frames of no sensor",
        "1 of the newest 10 dead letters are records on streamer.frames of the sensor 'audio', which is not declared "
        "there",
    ]
    assert {finding.status for finding in found} == {Status.WARN}
    assert all("--requeue --reason unknown_sensor" in finding.remedy for finding in found)


@pytest.mark.parametrize("letters", [[], [letter("camera_rear")]])
def test_without_such_letters_nothing_is_said(letters: list[DeadLetter]) -> None:
    assert [*undeclared(SETTINGS, letters)] == []
