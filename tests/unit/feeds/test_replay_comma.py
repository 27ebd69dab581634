"""Segments of comma2k19: one of the data set itself, and small ones made here."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from streamer.errors import UsageError
from streamer.events import IMAGE, TELEMETRY, Telemetry
from streamer.feeds import replay
from tests.recordings import S_US, by_row, events, samples, spans

Array = np.ndarray[Any, Any]
BOOT_S = 46408.5


def saved(path: Path, values: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # np.save would add an ending
        np.save(file, values)


def log(segment: Path, name: str, t_s: Array, values: Array) -> None:
    saved(segment / "processed_log" / name / "t", t_s)
    saved(segment / "processed_log" / name / "value", values)


def channels(path: Path) -> dict[str, Array]:
    """Channel -> second and value of each sample [N, 2]."""
    return {name: np.array(found) for name, found in samples(by_row(events(path))[TELEMETRY]).items()}


def units(path: Path) -> dict[str, str]:
    bodies = [event.body for event in by_row(events(path))[TELEMETRY]]
    return {name: c.unit for body in bodies if isinstance(body, Telemetry) for name, c in body.channels.items()}


def notes(path: Path) -> list[str]:
    recording = replay.open_all([path])
    events(recording=recording)
    return recording.notes


def test_a_segment_of_the_data_set_is_sent_value_by_value(tmp_path: Path, data: Path) -> None:
    folder = data / "comma2k19"
    (tmp_path / "processed_log").symlink_to(folder)
    found = channels(tmp_path)
    wanted = {
        "speed": folder / "CAN" / "speed",
        "steering_angle": folder / "CAN" / "steering_angle",
        **{f"accelerometer.{axis}": folder / "IMU" / "accelerometer" for axis in ("forward", "right", "down")},
    }
    assert found.keys() == wanted.keys()
    begin_s = min(np.load(log_folder / "t").min() for log_folder in wanted.values())
    for column, (name, log_folder) in enumerate(wanted.items()):
        t_s, values = np.load(log_folder / "t"), np.load(log_folder / "value")
        values = values.reshape(len(t_s), -1)
        assert found[name][:, 1].tolist() == values[:, max(0, column - 2)].tolist()
        assert found[name][:, 0] == pytest.approx(t_s - begin_s, abs=2e-6)
    assert units(tmp_path) == dict.fromkeys(("speed",), "m/s") | {"steering_angle": "deg"} | {
        name: "m/s^2" for name in wanted if name.startswith("acc")
    }
    part = replay.open_all([tmp_path]).parts[0].part
    assert part.clock_us == round(begin_s * S_US)
    assert part.utc_us is None
    assert notes(tmp_path) == []


def test_logs_have_the_columns_and_units_of_the_data_sets_description(tmp_path: Path) -> None:
    t_s = BOOT_S + np.arange(20) / 10
    rng = np.random.default_rng(1)
    wheels, fix, odd = rng.random((20, 4)), rng.random((20, 6)), rng.random((20, 2))
    log(tmp_path, "CAN/wheel_speed", t_s, wheels)
    log(tmp_path, "GNSS/live_gnss_ublox", t_s, fix)
    log(tmp_path, "IMU/odd", t_s, odd)
    log(tmp_path, "CAN/radar", t_s, rng.random((20, 7)))
    log(tmp_path, "CAN/names", t_s, np.array(["a"] * 20))
    found = channels(tmp_path)
    assert units(tmp_path) == {
        **{f"wheel_speed.{place}": "m/s" for place in ("front_left", "front_right", "rear_left", "rear_right")},
        "live_gnss_ublox.latitude": "deg",
        "live_gnss_ublox.longitude": "deg",
        "live_gnss_ublox.speed": "m/s",
        "live_gnss_ublox.utc_timestamp": "",
        "live_gnss_ublox.altitude": "m",
        "live_gnss_ublox.bearing": "deg",
        "odd.0": "",
        "odd.1": "",
    }
    assert found["wheel_speed.rear_right"][:, 1].tolist() == wheels[:, 3].tolist()
    assert found["odd.1"][:, 1].tolist() == odd[:, 1].tolist()
    logs = tmp_path / "processed_log"
    assert notes(tmp_path) == [
        f"{logs / 'CAN' / 'names'} is left out: it holds no numbers, or no single ones",
        f"{logs / 'CAN' / 'radar'} is left out: it has a row for each object that the radar follows",
    ]


def test_pictures_have_the_times_of_the_camera(tmp_path: Path) -> None:
    log(tmp_path, "CAN/speed", BOOT_S + np.arange(10) / 10, np.arange(10.0))
    times_s = BOOT_S + 0.3 + np.arange(5) ** 1.5 / 20
    saved(tmp_path / "global_pose" / "frame_times", times_s)
    saved(tmp_path / "global_pose" / "frame_positions", np.arange(15.0).reshape(5, 3))
    saved(tmp_path / "global_pose" / "frame_gps_times", np.array([[2012, 300_000.0 + i] for i in range(5)]))
    with av.open(str(tmp_path / "video.hevc"), "w", format="hevc") as container:
        stream = container.add_stream("hevc", rate=20, options={"x265-params": "log-level=none"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for shade in (16, 70, 120, 170, 230):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8), "rgb24")))
        container.mux(stream.encode())
    pictures = by_row(events(tmp_path))[IMAGE]
    assert [begin for begin, _ in spans(pictures)] == pytest.approx((times_s - BOOT_S).tolist(), abs=2e-6)
    shades = [np.asarray(Image.open(io.BytesIO(event.record.value))).mean() for event in pictures]
    assert shades == pytest.approx([16, 70, 120, 170, 230], abs=6)
    assert channels(tmp_path)["frame_positions.y"][:, 1].tolist() == [1.0, 4.0, 7.0, 10.0, 13.0]
    part = replay.open_all([tmp_path]).parts[0].part
    gps_us = (2012 * 7 * 86_400 + 300_000) * S_US + 315_964_800 * S_US  # from 1970 to 1980
    assert part.utc_us == gps_us - 18 * S_US - 300_000


def test_a_film_without_times_is_left_out_with_a_note(tmp_path: Path) -> None:
    log(tmp_path, "CAN/speed", BOOT_S + np.arange(10) / 10, np.arange(10.0))
    (tmp_path / "video.hevc").write_bytes(b"")
    assert channels(tmp_path).keys() == {"speed"}
    assert notes(tmp_path) == [
        f"{tmp_path / 'video.hevc'} is left out, since there are no global_pose/frame_times for its pictures"
    ]


def test_rows_without_a_time_are_left_out_with_a_note(tmp_path: Path) -> None:
    log(tmp_path, "CAN/speed", BOOT_S + np.arange(10) / 10, np.arange(12.0))
    assert channels(tmp_path)["speed"][:, 1].tolist() == list(range(10))
    speed = tmp_path / "processed_log" / "CAN" / "speed"
    assert notes(tmp_path) == [f"{speed} has 12 rows and 10 times: what has none of the other is left out"]


def test_what_is_no_segment_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "processed_log").mkdir()
    with pytest.raises(UsageError, match="has no log in processed_log"):
        replay.open_all([tmp_path])
    log(tmp_path, "CAN/speed", np.arange(3.0), np.arange(3.0))
    for content in (b"", b"hello", b"\x93NUMPY\x01\x00"):
        (tmp_path / "processed_log" / "CAN" / "speed" / "t").write_bytes(content)
        with pytest.raises(UsageError, match="speed/t is no NumPy array") as refused:
            replay.open_all([tmp_path])
        assert "\n" not in str(refused.value)
