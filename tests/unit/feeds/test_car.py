"""What each sensor of the simulated car shows, and what only one of them does."""

from __future__ import annotations

from functools import lru_cache
from itertools import combinations, pairwise

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from streamer.events import AUDIO, IMAGE, Telemetry
from streamer.feeds import car, simulate
from streamer.feeds.car import Course
from streamer.feeds.producer import Outgoing
from streamer.feeds.scenario import BEHIND, OCCUPANTS, Segment
from streamer.feeds.sound import RATE_HZ

START_US = 1_700_000_000_000_000
S_US = 1_000_000
SEGMENT = Segment(
    0,
    2,
    label="proceed",
    siren=False,
    obstacle=False,
    fast=True,
    speed_mps=20.0,
    curvature=0.6,
    vehicle=0,
    thing=7,
    roadside=0,
    behind=0,
    occupants=0,
)


def course(**facts: object) -> Course:
    segment = msgspec.structs.replace(SEGMENT, **facts)
    return Course(3, "car", START_US, light=0, segments=(segment,), frame_hz=1)


@lru_cache(maxsize=64)
def sensed(name: str, **facts: object) -> list[Outgoing]:
    return list(car.SENSORS[name].sense(course(**facts)))


def changed_by(**facts: object) -> set[str]:
    """The sensors to which it makes a difference."""
    return {name for name in car.SENSORS if sensed(name) != sensed(name, **facts)}


@pytest.mark.parametrize("behind", range(1, len(BEHIND)))
def test_only_the_rear_camera_shows_what_follows_the_car(behind: int) -> None:
    assert changed_by(behind=behind) == {"camera_rear"}


@pytest.mark.parametrize("occupants", range(1, len(OCCUPANTS)))
def test_only_the_cabin_microphone_tells_what_the_occupants_do(occupants: int) -> None:
    assert changed_by(occupants=occupants) == {"cabin_mic"}


def test_a_siren_is_heard_by_both_microphones_and_spoken_of_and_not_seen() -> None:
    assert changed_by(siren=True) == {"roof_mic", "audio", "cabin_mic", "words", "text"}


def test_an_obstacle_is_seen_ahead_and_spoken_of() -> None:
    assert changed_by(obstacle=True) == {"camera_front", "image", "words", "text"}


def test_speed_is_measured_on_the_can_bus_and_by_the_inertial_unit_and_heard_by_both_microphones() -> None:
    shown = changed_by(fast=False, speed_mps=2.0)
    assert {"can", "telemetry", "imu", "roof_mic", "audio", "cabin_mic"} <= shown
    assert not {"words", "text"} & shown


def test_an_emergency_vehicle_looks_the_same_behind_the_car_whether_its_siren_sounds_or_not() -> None:
    assert sensed("camera_rear", behind=2, siren=True) == sensed("camera_rear", behind=2, siren=False)


def test_the_cameras_see_different_pictures_at_the_same_times() -> None:
    cameras = [name for name, sensor in car.SENSORS.items() if sensor.row == IMAGE]
    assert {*car.YAWS_DEG, "image"} == set(cameras)
    records = {name: sensed(name) for name in cameras}
    assert len({tuple(r.time_us for r in each) for each in records.values()}) == 1
    for one, other in combinations(cameras, 2):
        assert not {r.payload for r in records[one]} & {r.payload for r in records[other]}


def test_the_cabin_is_quieter_than_the_roof_until_somebody_speaks() -> None:
    roof, quiet = loudness("roof_mic"), loudness("cabin_mic")
    talking, crying = (loudness("cabin_mic", occupants=who) for who in (1, 2))
    assert quiet < roof / 4
    assert min(talking, crying) > 2 * quiet


def loudness(name: str, **facts: object) -> float:
    sound = np.concatenate([np.frombuffer(r.payload, ">i2") for r in sensed(name, **facts)]).astype(float)
    return float(np.sqrt((sound**2).mean()))


def test_the_inertial_unit_feels_gravity_the_bend_and_the_road() -> None:
    fast, slow = axes(), axes(speed_mps=3.0)
    left = axes(curvature=-0.6)
    assert {axis: len(values) for axis, values in fast.items()} == dict.fromkeys(fast, 2 * car.IMU_HZ)
    assert fast["accel_z"].mean() == pytest.approx(car.GRAVITY, abs=0.3)
    assert fast["yaw_rate"].mean() < -3 < 3 < left["yaw_rate"].mean()  # to the right is negative
    assert fast["accel_y"].mean() < -1 < 1 < left["accel_y"].mean()
    assert fast["accel_z"].std() > 3 * slow["accel_z"].std()


def axes(**facts: object) -> dict[str, NDArray[np.float64]]:
    blocks = [msgspec.json.decode(r.payload, type=Telemetry) for r in sensed("imu", **facts)]
    return {name: np.concatenate([block.channels[name].values for block in blocks]) for name in blocks[0].channels}


@pytest.mark.parametrize("name", car.SENSORS)
def test_the_records_of_a_sensor_are_of_its_kind_numbered_and_due_in_order(name: str) -> None:
    records = sensed(name)
    assert {r.row for r in records} == {car.SENSORS[name].row}
    assert [r.sequence for r in records] == list(range(len(records)))
    assert all(a.due_us <= b.due_us for a, b in pairwise(records))


def test_microphones_fill_the_whole_drive() -> None:
    for name in ("roof_mic", "cabin_mic"):
        records = sensed(name)
        assert {r.row for r in records} == {AUDIO}
        assert sum(len(r.payload) for r in records) == 2 * 2 * RATE_HZ


def test_a_set_has_sensors_of_the_car_and_all_of_them_are_six_cameras_two_microphones_words_can_and_imu() -> None:
    assert all(set(names) <= set(car.SENSORS) for names in car.SETS.values())
    assert [sum(car.SENSORS[name].row == kind for name in car.SETS["all"]) for kind in range(4)] == [6, 2, 1, 2]
    assert [sum(car.SENSORS[name].row == kind for name in car.SETS["surround"]) for kind in range(4)] == [2, 2, 0, 2]


def test_what_is_behind_and_who_is_in_the_car_depends_on_nothing_else() -> None:
    truths = [t for seed in range(120) for t in simulate.Drive(seed, "car", START_US, 60).truth()]
    for sirens in (True, False):
        behind = [t.behind for t in truths if t.siren == sirens]
        shares = [behind.count(label) / len(behind) for label in BEHIND]
        assert all(0.28 < share < 0.39 for share in shares), shares
    for label in BEHIND:
        occupants = [t.occupants for t in truths if t.behind == label]
        shares = [occupants.count(each) / len(occupants) for each in OCCUPANTS]
        assert all(0.28 < share < 0.39 for share in shares), shares
