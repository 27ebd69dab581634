"""Cars with two cameras, two microphones, CAN bus and inertial unit: from the simulator through Kafka and a worker."""

from __future__ import annotations

import json
import tomllib
from functools import partial
from pathlib import Path

import msgspec
import pytest

from streamer.feeds import car, simulate
from streamer.feeds.simulate import Truth
from streamer.settings import Settings
from tests.drive_files import Files
from tests.harness import ROOT, replay, results, running_worker, wait_for

pytestmark = pytest.mark.integration

FOLDER = ROOT / "models" / "surround"
SENSORS = car.SETS["surround"]
SECONDS, SEED = 12, 5
PATIENT = {"max_delay_ms": 3000}  # as tests.conftest has it for the default sensors


@pytest.fixture
def surround(topics: Settings) -> Settings:
    """The settings that come with the model."""
    with (FOLDER / "streamer.toml").open("rb") as file:
        given = tomllib.load(file)
    patient = {name: table | PATIENT for name, table in given["sensors"].items()}
    own = {"model": FOLDER, "sensors": patient}
    return Settings.model_validate(topics.model_dump(exclude_unset=True) | given | own)


def judged(settings: Settings, session: str, truths: list[Truth]) -> list[tuple[set[str], dict[str, str], Truth]]:
    """Of each window which sensors it had, the label that was published for each output, and the truth."""
    found = []
    for result in results(settings.redis, settings, session):
        truth = simulate.truth_of(
            [t for t in truths if t.session == session], int(result["start_us"]), int(result["end_us"])
        )
        assert truth is not None
        said = {name: output["label"] for name, output in json.loads(result["outputs"]).items()}
        found.append((set(result["present"].decode().split(",")), said, truth))
    return found


def test_windows_have_all_sensors_and_right_decisions_and_a_lost_rear_camera_costs_what_it_alone_sees(
    surround: Settings, tmp_path: Path
) -> None:
    options = {
        "whole": simulate.Options(frame_hz=2, sensors=SENSORS),
        "blind": simulate.Options(frame_hz=2, sensors=SENSORS, dies=("camera_rear", 0.0)),
    }
    truths: list[Truth] = []
    with running_worker(surround, tmp_path / "worker.log"):
        for name, one in options.items():
            path = tmp_path / f"{name}.ndjson"
            simulate.run(surround, sessions=2, seconds=SECONDS, speed=0, seed=SEED, name=name, truth=path, options=one)
            truths += simulate.read_truth(path)
        sessions = [f"sim-{name}-{number}" for name in options for number in (0, 1)]
        for session in sessions:
            wait_for(partial(_has_all, surround, session), 60.0)
    windows = {name: [w for s in sessions if name in s for w in judged(surround, s, truths)] for name in options}
    assert all(present == set(SENSORS) for present, _, _ in windows["whole"])
    assert all(present == set(SENSORS) - {"camera_rear"} for present, _, _ in windows["blind"])
    for output in ("action", "behind", "occupants"):
        assert _right(windows["whole"], output) >= 0.95, output
    assert _right(windows["blind"], "behind") < 0.75
    for output in ("action", "occupants"):
        assert _right(windows["blind"], output) >= 0.95, output


def test_two_films_of_a_drive_are_understood_as_the_drive_is(surround: Settings, tmp_path: Path) -> None:
    drive = filmed("surround")
    files = Files(drive)
    front = files.film(tmp_path / "front.mp4", "camera_front", "roof_mic")
    rear = files.film(tmp_path / "rear.mp4", "camera_rear", "cabin_mic")
    tables = [files.table(tmp_path / f"{name}.csv", name) for name in ("can", "imu")]
    sensors = ("front.mp4=camera_front", "front.mp4=roof_mic", "rear.mp4=camera_rear", "rear.mp4=cabin_mic")
    named = [word for given in (*sensors, "can.csv=can", "imu.csv=imu") for word in ("--as", given)]
    with running_worker(surround, tmp_path / "worker.log"):
        replayed(surround, front, rear, *tables, *named)
    windows = seen(surround, drive)
    assert all(present == set(SENSORS) for present, _, _ in windows)
    for output in ("action", "behind", "occupants"):
        assert _right(windows, output) >= 0.9, output


def test_a_log_with_six_cameras_gives_the_two_that_the_model_asks_for(surround: Settings, tmp_path: Path) -> None:
    drive = filmed("all")
    cameras = {name: f"/CAM_{name.removeprefix('camera_').upper()}/image_rect_compressed" for name in car.YAWS_DEG}
    log = Files(drive).log(tmp_path / "scene.mcap", cameras | {"can": "/can", "imu": "/imu"})
    declared = {name: {"kind": "image"} | PATIENT for name in cameras}
    given = surround.model_dump(exclude_unset=True)
    six = Settings.model_validate(given | {"sensors": given["sensors"] | declared})
    maps = {topic: name for name, topic in cameras.items()} | {"/can": "can", "/imu": "imu"}
    channels = {"can": ("speed", "steering_angle"), "imu": ("accel_x", "accel_y", "accel_z", "yaw_rate")}
    maps |= {f"{sensor}.{name}": name for sensor, names in channels.items() for name in names}
    named = [word for given in maps.items() for word in ("--map", "=".join(given))]
    with running_worker(six, tmp_path / "worker.log"):
        replayed(six, log, *named)
    windows = seen(six, drive)
    assert all(present == {*cameras, "can", "imu"} for present, _, _ in windows)
    assert _right(windows, "behind") >= 0.9


def filmed(sensors: str) -> simulate.Drive:
    """A drive whose files begin when its first window does."""
    return simulate.Drive(SEED, "filmed", 0, SECONDS, simulate.Options(frame_hz=4, sensors=car.SETS[sensors]))


def replayed(settings: Settings, *arguments: object) -> None:
    """Send files as the session "filmed"; wait for its windows."""
    done = replay(settings, *arguments, "--speed", 0, "--session", "filmed")
    assert done.returncode == 0, done.stderr
    wait_for(partial(_has_all, settings, "filmed"), 60.0)


def seen(settings: Settings, drive: simulate.Drive) -> list[tuple[set[str], dict[str, str], Truth]]:
    """As ``judged``, of a drive that was sent as if it began now."""
    begin_us = int(results(settings.redis, settings, "filmed")[0]["start_us"])
    return judged(
        settings,
        "filmed",
        [msgspec.structs.replace(t, start_us=t.start_us + begin_us, end_us=t.end_us + begin_us) for t in drive.truth()],
    )


def _has_all(settings: Settings, session: str) -> bool:
    return len(results(settings.redis, settings, session)) == SECONDS


def _right(windows: list[tuple[set[str], dict[str, str], Truth]], output: str) -> float:
    return sum(said[output] == truth.outputs[output] for _, said, truth in windows) / len(windows)
