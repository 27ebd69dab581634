"""Bags of ROS 1 and 2 and logs of ROS messages, in every storage and compression."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rosbags import rosbag1
from rosbags.rosbag2 import CompressionMode as Compression
from rosbags.rosbag2 import StoragePlugin as Storage

from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT
from streamer.feeds import replay
from tests.bags import Sent, bag1, bag2
from tests.harness import jpeg
from tests.recordings import by_row, events, pcm, samples, spans, texts

TONE = (np.sin(np.arange(8000) / 7) * 9000).astype("<i2")


def drive() -> list[Sent]:
    """A second of a robot: camera, microphone, words, an IMU, GPS, a joystick and two others."""
    sent: list[Sent] = [
        ("/audio/audio_info", "audio_common_msgs/msg/AudioInfo", 0.0,
         {"channels": 1, "sample_rate": 8000, "sample_format": "S16LE", "coding_format": "wave"}),
    ]  # fmt: skip
    for i in range(10):
        at = i / 10
        picture = np.frombuffer(jpeg(i), np.uint8)
        head = {"header": {"stamp": at, "frame_id": "base"}}
        sent += [
            ("/camera", "sensor_msgs/msg/CompressedImage", at + 0.02,
             {**head, "format": "bgr8; jpeg compressed bgr8", "data": picture}),
            ("/imu", "sensor_msgs/msg/Imu", at + 0.01, {
                **head,
                "orientation_covariance": [-1] + [0] * 8,
                "angular_velocity": {"x": i, "y": 0.5},
                "linear_acceleration": {"z": 9.81},
            }),
            ("/fix", "sensor_msgs/msg/NavSatFix", at + 0.01, {
                **head,
                "status": {"status": -1 if i < 5 else 0},
                "latitude": 48.0 + i, "longitude": 11.0, "altitude": 500.0,
            }),
            ("/joy", "sensor_msgs/msg/Joy", at + 0.01, {**head, "axes": [0.25, -1.0], "buttons": [i % 2]}),
            ("/cmd_vel", "geometry_msgs/msg/TwistStamped", at + 0.01, {**head, "twist": {"linear": {"x": 1.5}}}),
            ("/battery", "std_msgs/msg/Float32", at, {"data": 12.5}),
            ("/audio/audio", "audio_common_msgs/msg/AudioData", at + 0.1,
             {"data": TONE[800 * i : 800 * (i + 1)].view(np.uint8)}),
        ]  # fmt: skip
    sent.append(("/scan", "sensor_msgs/msg/PointField", 0.5, {"name": "x"}))
    sent.append(("/speech", "std_msgs/msg/String", 0.9, {"data": "turn left"}))
    return sorted(sent, key=lambda one: one[2])


def check_drive(path: Path) -> list[str]:
    """Everything of ``drive`` arrives, with its values and times; returns the notes."""
    recording = replay.open_all([path])
    rows = by_row(events(recording=recording))
    assert [e.record.value for e in rows[IMAGE]] == [jpeg(i) for i in range(10)]
    assert [round(begin, 3) for begin, _ in spans(rows[IMAGE])] == [i / 10 for i in range(10)]
    assert np.array_equal(pcm(rows[AUDIO])[:, 0], TONE)
    assert spans(rows[AUDIO])[0][0] == 0
    assert (texts(rows[TEXT]), spans(rows[TEXT])) == (["turn left"], [(0.9, 0.9)])
    measured = samples(rows[TELEMETRY])
    assert [v for _, v in measured["imu.angular_velocity.x"]] == list(range(10))
    assert [round(t, 6) for t, _ in measured["imu.angular_velocity.x"]] == [i / 10 for i in range(10)]
    assert {v for _, v in measured["imu.linear_acceleration.z"]} == {9.81}
    assert not any(name.startswith("imu.orientation") for name in measured)  # its covariance says: not measured
    assert measured["fix.latitude"] == [(i / 10, 48.0 + i) for i in range(5, 10)]
    assert [v for _, v in measured["fix.status.status"]] == [-1] * 5 + [0] * 5
    assert [v for _, v in measured["joy.axes.0"]] == [0.25] * 10
    assert [v for _, v in measured["joy.buttons.0"]] == [0, 1] * 5
    assert {v for _, v in measured["cmd_vel.twist.linear.x"]} == {1.5}
    assert {v for _, v in measured["battery"]} == {12.5}
    return recording.notes


@pytest.mark.parametrize(
    ("storage", "compression"),
    [
        (storage, compression)
        for storage in Storage
        for compression in Compression
        if (storage, compression) != (Storage.SQLITE3, Compression.STORAGE)  # SQLite has none
    ],
)
def test_a_bag_of_ros_2(storage: Storage, compression: Compression, tmp_path: Path) -> None:
    notes = check_drive(bag2(tmp_path / "bag", drive(), storage, compression))
    assert any("/imu" in note and "orientation_covariance" in note for note in notes)


@pytest.mark.parametrize("compression", [None, *rosbag1.Writer.CompressionFormat])
def test_a_bag_of_ros_1(compression: Any, tmp_path: Path) -> None:
    check_drive(bag1(tmp_path / "a.bag", drive(), compression))


@pytest.mark.parametrize("compression", [Compression.NONE, Compression.MESSAGE])
@pytest.mark.parametrize("storage", Storage)
def test_a_lone_file_of_a_bag(storage: Storage, compression: Compression, tmp_path: Path) -> None:
    folder = bag2(tmp_path / "bag", drive(), storage, compression)
    (lone,) = (path for path in folder.iterdir() if path.suffix in (".db3", ".mcap"))
    check_drive(lone)
