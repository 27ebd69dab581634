"""Bags of ROS 1 and 2 and logs of ROS messages, in every storage and compression."""

from __future__ import annotations

import contextlib
import io
import re
import sqlite3
import sys
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from rosbags import rosbag1
from rosbags.rosbag2 import CompressionMode as Compression
from rosbags.rosbag2 import StoragePlugin as Storage
from ruamel.yaml import YAML

from streamer.errors import UsageError
from streamer.events import AUDIO, DEFAULT_SENSORS, IMAGE, TELEMETRY, TEXT, Sensor
from streamer.feeds import replay
from tests.bags import Sent, bag1, bag2
from tests.harness import jpeg
from tests.recordings import START_US, by_row, events, pcm, samples, spans, texts

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


# pictures


def image(encoding: str, pixels: np.ndarray[Any, Any], step: int = 0, big: bool = False) -> dict[str, Any]:
    """Fields of a sensor_msgs/Image of pixels [H, W, C] or [H, W]; rows are ``step`` bytes apart, if given."""
    height, width = pixels.shape[:2]
    rows = np.ascontiguousarray(pixels.astype(pixels.dtype.newbyteorder(">" if big else "<"))).view(np.uint8)
    rows = rows.reshape(height, -1)
    step = step or rows.shape[1]
    padded = np.full((height, step), 77, np.uint8)
    padded[:, : rows.shape[1]] = rows
    return {
        "height": height, "width": width, "encoding": encoding, "step": step, "is_bigendian": int(big),
        "data": padded.ravel(),
    }  # fmt: skip


def shown(path: Path) -> np.ndarray[Any, Any]:
    """The first picture that is sent [H, W, 3]."""
    payload = by_row(events(path))[IMAGE][0].record.value
    return np.asarray(Image.open(io.BytesIO(payload)).convert("RGB"))


ORANGE = np.full((16, 32, 3), (200, 100, 50), np.uint8)
UYVY_GREY = np.full((16, 32, 2), (128, 90), np.uint8)  # full chroma is 128, luma 90: (90 − 16) × 255 / 219
BAYER_RED = np.zeros((16, 32), np.uint8)
BAYER_RED[::2, ::2] = 200
GREY_16 = np.full((16, 32), 100 * 256, np.uint16)


@pytest.mark.parametrize(
    ("fields", "colour"),
    [
        (image("rgb8", ORANGE), (200, 100, 50)),
        (image("rgb8", ORANGE, step=120), (200, 100, 50)),
        (image("bgr8", ORANGE[:, :, ::-1]), (200, 100, 50)),
        (image("8UC3", ORANGE[:, :, ::-1]), (200, 100, 50)),
        (image("rgba8", np.dstack([ORANGE, ORANGE[:, :, :1]])), (200, 100, 50)),
        (image("bgra8", np.dstack([ORANGE[:, :, ::-1], ORANGE[:, :, :1]])), (200, 100, 50)),
        (image("mono8", ORANGE[:, :, 1], step=40), (100, 100, 100)),
        (image("mono16", GREY_16), (100, 100, 100)),
        (image("mono16", GREY_16, big=True), (100, 100, 100)),
        (image("rgb16", ORANGE.astype(np.uint16) * 256), (200, 100, 50)),
        (image("yuv422", UYVY_GREY), (86, 86, 86)),
        (image("yuv422_yuy2", UYVY_GREY[:, :, ::-1], step=72), (86, 86, 86)),
        (image("bayer_rggb8", BAYER_RED), (200, 0, 0)),
        (image("bayer_bggr8", BAYER_RED), (0, 0, 200)),
    ],
    ids=lambda value: value["encoding"] if isinstance(value, dict) else "",
)
def test_raw_images_become_pictures_of_their_colour(
    fields: dict[str, Any], colour: tuple[int, int, int], tmp_path: Path
) -> None:
    seen = shown(bag2(tmp_path / "bag", [("/camera", "sensor_msgs/msg/Image", 0, fields)]))
    assert seen.shape == (16, 32, 3)
    assert np.abs(seen[4:12, 4:28].astype(int).mean((0, 1)) - colour).max() < 8


def test_distances_are_no_pictures_and_the_next_camera_is_sent(tmp_path: Path) -> None:
    depth = image("16UC1", GREY_16)
    compressed = {"format": "16UC1; compressedDepth", "data": np.zeros(40, np.uint8)}
    sent: list[Sent] = [
        ("/depth", "sensor_msgs/msg/Image", 0, depth),
        ("/depth/compressed", "sensor_msgs/msg/CompressedImage", 0, compressed),
        ("/colour", "sensor_msgs/msg/Image", 0.1, image("rgb8", ORANGE)),
    ]
    recording = replay.open_all([bag2(tmp_path / "bag", sent)])
    assert len(by_row(events(recording=recording))[IMAGE]) == 1
    notes = " ".join(recording.notes)
    assert "/depth is left out, its messages are 16UC1 images" in notes
    assert "/depth/compressed is left out, its messages are 16UC1; compressedDepth pictures" in notes


def test_an_image_that_is_too_short_is_counted(tmp_path: Path) -> None:
    short = image("rgb8", ORANGE)
    short["data"] = short["data"][:-1]
    fields = [image("rgb8", ORANGE), short, image("rgb8", ORANGE)]
    sent = [("/camera", "sensor_msgs/msg/Image", i / 10, one) for i, one in enumerate(fields)]
    recording = replay.open_all([bag2(tmp_path / "bag", sent)])
    assert len(by_row(events(recording=recording))[IMAGE]) == 2
    assert "1 messages were left out: those of /camera are broken" in " ".join(recording.notes)


CODECS = {"h264": "libx264", "h265": "libx265", "vp9": "libvpx-vp9", "av1": "libsvtav1"}


def coded(codec: str, count: int, gap: int) -> list[bytes]:
    """Coded pictures that grow brighter, a key frame each ``gap``."""
    encoder: Any = av.CodecContext.create(CODECS[codec], "w")
    encoder.width, encoder.height, encoder.pix_fmt = 128, 96, "yuv420p"
    encoder.time_base, encoder.framerate, encoder.gop_size = Fraction(1, 10), Fraction(10), gap
    encoder.max_b_frames = 0
    encoder.options = {
        "h264": {"tune": "zerolatency", "x264-params": "scenecut=0"},
        "h265": {"tune": "zerolatency", "x265-params": "scenecut=0:repeat-headers=1:log-level=none"},
        "vp9": {"lag-in-frames": "0", "deadline": "realtime"},
        "av1": {"preset": "12", "svtav1-params": "pred-struct=1:lookahead=0"},
    }[codec]
    packets = []
    for i in range(count):
        pixels = np.full((96, 128, 3), 20 + 20 * i, np.uint8)
        picture = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(format="yuv420p")
        picture.pts = i
        packets += encoder.encode(picture)
    packets += encoder.encode()
    return [bytes(packet) for packet in packets]


@pytest.mark.parametrize("codec", CODECS)
def test_video_in_messages_becomes_pictures(codec: str, tmp_path: Path) -> None:
    sent: list[Sent] = [
        ("/video", "foxglove_msgs/msg/CompressedVideo", i / 10 + 0.03,
         {"timestamp": i / 10, "format": codec, "data": np.frombuffer(packet, np.uint8)})
        for i, packet in enumerate(coded(codec, 10, 5))
    ]  # fmt: skip
    rows = by_row(events(bag2(tmp_path / "bag", sent)))
    assert [round(begin, 3) for begin, _ in spans(rows[IMAGE])] == [i / 10 for i in range(10)]
    for i, event in enumerate(rows[IMAGE]):
        seen = np.asarray(Image.open(io.BytesIO(event.record.value)))
        assert abs(float(seen.mean()) - (20 + 20 * i)) < 6


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_video_begins_at_its_first_key_frame(codec: str, tmp_path: Path) -> None:
    sent: list[Sent] = [
        ("/video", "foxglove_msgs/msg/CompressedVideo", i / 10,
         {"timestamp": i / 10, "format": codec, "data": np.frombuffer(packet, np.uint8)})
        for i, packet in enumerate(coded(codec, 10, 5)) if i > 1
    ]  # fmt: skip
    recording = replay.open_all([bag2(tmp_path / "bag", sent)])
    rows = by_row(events(recording=recording))
    assert [round(begin, 3) for begin, _ in spans(rows[IMAGE])] == [i / 10 for i in range(3, 8)]
    assert "3 messages were left out: those of /video are before the first key frame" in " ".join(recording.notes)


def test_a_stretch_of_a_video_begins_where_it_is_asked_to(tmp_path: Path) -> None:
    sent: list[Sent] = [
        ("/video", "foxglove_msgs/msg/CompressedVideo", i / 10,
         {"timestamp": i / 10, "format": "h264", "data": np.frombuffer(packet, np.uint8)})
        for i, packet in enumerate(coded("h264", 10, 10))
    ]  # fmt: skip
    path = bag2(tmp_path / "bag", sent)
    recording = replay.open_all([path], replay.Options(), replay.Stretch(begin_us=500_000, rate_hz=5))
    rows = by_row(events(recording=recording))
    assert [round(begin, 3) for begin, _ in spans(rows[IMAGE])] == [0, 0.2, 0.4]


# sound


def test_mp3_describes_itself(tmp_path: Path) -> None:
    encoder: Any = av.CodecContext.create("libmp3lame", "w")
    encoder.sample_rate, encoder.layout, encoder.format = 16_000, "mono", "s16p"
    tone = (np.sin(np.arange(32_000) / 9) * 9000).astype(np.int16)
    stream = b""
    for begin in range(0, 32_000, 576):
        heard = av.AudioFrame.from_ndarray(tone[None, begin : begin + 576], "s16p", "mono")
        heard.sample_rate, heard.pts = 16_000, begin
        stream += b"".join(bytes(packet) for packet in encoder.encode(heard))
    stream += b"".join(bytes(packet) for packet in encoder.encode())
    chunks = [stream[begin : begin + 500] for begin in range(0, len(stream), 500)]  # not at frames' borders
    sent: list[Sent] = [
        ("/audio", "audio_common_msgs/msg/AudioData", 2 * (i + 1) / len(chunks), {"data": np.frombuffer(c, np.uint8)})
        for i, c in enumerate(chunks)
    ]
    rows = by_row(events(bag2(tmp_path / "bag", sent)))
    heard_tone = pcm(rows[AUDIO])[:, 0]
    assert abs(len(heard_tone) - 32_000) < 2500
    assert 5000 < np.abs(heard_tone[4000:28_000]).mean() < 6500  # of a sine of 9000: 5730


def test_sound_of_unknown_rate_is_left_out_and_told(tmp_path: Path) -> None:
    sent: list[Sent] = [
        ("/audio", "audio_common_msgs/msg/AudioData", 0.1, {"data": TONE[:800].view(np.uint8)}),
        ("/battery", "std_msgs/msg/Float32", 0.1, {"data": 12.5}),
    ]
    recording = replay.open_all([bag2(tmp_path / "bag", sent)])
    assert AUDIO not in by_row(events(recording=recording))
    assert "/audio is left out, its messages are sound of unknown rate" in " ".join(recording.notes)


# words, numbers, times


def test_of_several_strings_the_one_that_speaks_is_sent(tmp_path: Path) -> None:
    sent: list[Sent] = [
        ("/robot_description", "std_msgs/msg/String", 0.0, {"data": "<robot/>"}),
        ("/state", "std_msgs/msg/String", 0.1, {"data": "idle"}),
        ("/asr/result", "std_msgs/msg/String", 0.2, {"data": "go home"}),
        ("/asr/result", "std_msgs/msg/String", 0.3, {"data": '{"partial": ""}'}),
    ]
    path = bag2(tmp_path / "bag", sent)
    recording = replay.open_all([path])
    assert texts(by_row(events(recording=recording))[TEXT]) == ["go home"]
    notes = " ".join(recording.notes)
    assert all(
        f"/{name} is left out, a sensor has one topic of words" in notes for name in ("state", "robot_description")
    )
    assert "--map /state=text" in notes
    assert "1 messages were left out: those of /asr/result are broken (XML or JSON, not words)" in notes
    mapped = replay.open_all([path], replay.Options(sensors={"/state": Sensor("text", TEXT)}))
    assert texts(by_row(events(recording=mapped))[TEXT]) == ["idle"]


def test_elements_of_lists_are_called_by_their_names(tmp_path: Path) -> None:
    def transform(child: str, x: float) -> dict[str, Any]:
        return {"child_frame_id": child, "transform": {"translation": {"x": x}}}

    sent: list[Sent] = [
        ("/tf", "tf2_msgs/msg/TFMessage", 0.0, {"transforms": [transform("wheel", 1.0), transform("arm", 2.0)]}),
        ("/tf", "tf2_msgs/msg/TFMessage", 0.1, {"transforms": [transform("arm", 3.0)]}),
        ("/joints", "sensor_msgs/msg/JointState", 0.0, {"name": ["hip", "knee"], "position": [0.5, 0.25]}),
        ("/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", 0.0,
         {"status": [{"name": "cpu", "level": 2, "values": [{"key": "temperature", "value": "54.5"},
                                                            {"key": "state", "value": "warm"}]}]}),
    ]  # fmt: skip
    measured = samples(by_row(events(bag2(tmp_path / "bag", sent)))[TELEMETRY])
    assert measured["tf.transforms.arm.transform.translation.x"] == [(0.0, 2.0), (0.1, 3.0)]
    assert measured["tf.transforms.wheel.transform.translation.x"] == [(0.0, 1.0)]
    assert measured["joints.position.knee"] == [(0.0, 0.25)]
    assert measured["diagnostics.status.cpu.level"] == [(0.0, 2.0)]
    assert measured["diagnostics.status.cpu.values.temperature"] == [(0.0, 54.5)]


def test_stamps_of_another_clock_give_way_to_log_times(tmp_path: Path) -> None:
    sent: list[Sent] = [
        ("/imu", "sensor_msgs/msg/Imu", i / 10, {"header": {"stamp": i / 10 - 1e6}, "angular_velocity": {"x": i}})
        for i in range(3)
    ]
    sent += [("/gps", "sensor_msgs/msg/Imu", i / 10, {"angular_velocity": {"x": i}}) for i in range(3)]  # unset stamps
    recording = replay.open_all([bag2(tmp_path / "bag", sorted(sent, key=lambda one: one[2]))])
    measured = samples(by_row(events(recording=recording))[TELEMETRY])
    assert measured["imu.angular_velocity.x"] == measured["gps.angular_velocity.x"] == [(0, 0), (0.1, 1), (0.2, 2)]
    told = [note for note in recording.notes if "another clock" in note]
    assert len(told) == 1
    assert "/imu: the stamps of 3 messages" in told[0]


def test_stamps_that_do_not_ascend_keep_their_values(tmp_path: Path) -> None:
    stamps = [0.2, 0.0, 0.1, 0.5, 0.3]
    sent: list[Sent] = [
        ("/imu", "sensor_msgs/msg/Imu", 1 + i / 100, {"header": {"stamp": at}, "angular_velocity": {"x": at}})
        for i, at in enumerate(stamps)
    ]
    measured = samples(by_row(events(bag2(tmp_path / "bag", sent)))[TELEMETRY])
    # the first message is the begin; what is stamped earlier is moved there
    assert sorted(measured["imu.angular_velocity.x"]) == [(0, 0.1), (0.1, 0.3), (0.3, 0.5)]


# choosing


def cameras() -> list[Sent]:
    picture = {name: np.frombuffer(jpeg(i), np.uint8) for i, name in enumerate(("front", "rear"))}
    return [
        *((f"/{name}", "sensor_msgs/msg/CompressedImage", 0.0, {"format": "jpeg", "data": picture[name]})
          for name in picture),
        ("/imu", "sensor_msgs/msg/Imu", 0.0, {}),
        ("/battery", "std_msgs/msg/Float32", 0.0, {"data": 12.5}),
    ]  # fmt: skip


def test_a_topic_is_mapped_to_what_it_is_sent_as(tmp_path: Path) -> None:
    path = bag1(tmp_path / "a.bag", cameras())
    assert [e.record.value for e in by_row(events(path))[IMAGE]] == [jpeg(0)]
    options = replay.Options(sensors={"/rear": Sensor("image", IMAGE), "/battery": Sensor("telemetry", TELEMETRY)})
    recording = replay.open_all([path], options)
    rows = by_row(events(recording=recording))
    assert [e.record.value for e in rows[IMAGE]] == [jpeg(1)]
    assert set(samples(rows[TELEMETRY])) == {"battery"}
    notes = " ".join(recording.notes)
    assert "/front is left out" in notes
    assert "/imu is left out, --map names other telemetry" in notes


@pytest.mark.parametrize(
    ("sensors", "words"),
    [
        ({"/imu": "image"}, r"/imu \(sensor_msgs/Imu\) cannot be image"),
        ({"/front": "image", "/rear": "image"}, "/front and /rear cannot be one sensor"),
        ({"/side": "image"}, "there is no topic /side to map; there are: /battery, /front, /imu, /rear"),
    ],
)
def test_a_mapping_that_cannot_be_is_refused(sensors: dict[str, str], words: str, tmp_path: Path) -> None:
    path = bag2(tmp_path / "bag", cameras())
    known = {sensor.name: sensor for sensor in DEFAULT_SENSORS.all}
    options = replay.Options(sensors={topic: known[name] for topic, name in sensors.items()})
    with pytest.raises(UsageError, match=words):
        replay.open_all([path], options)


# files


def test_the_files_of_a_split_bag_follow_each_other(tmp_path: Path) -> None:
    halves = [bag2(tmp_path / name, [s for s in drive() if (s[2] < 0.5) == (name == "a")]) for name in "ab"]
    (halves[1] / "b.db3").rename(halves[0] / "b.db3")
    facts = [YAML(typ="safe").load((half / "metadata.yaml").read_text()) for half in halves]
    one, other = (fact["rosbag2_bagfile_information"] for fact in facts)
    one["relative_file_paths"] += other["relative_file_paths"]
    one["message_count"] += other["message_count"]
    one["duration"]["nanoseconds"] = 10**9
    counts = {t["topic_metadata"]["name"]: t["message_count"] for t in other["topics_with_message_count"]}
    for topic in one["topics_with_message_count"]:
        topic["message_count"] += counts.pop(topic["topic_metadata"]["name"], 0)
    one["topics_with_message_count"] += [
        t for t in other["topics_with_message_count"] if t["topic_metadata"]["name"] in counts
    ]
    with (halves[0] / "metadata.yaml").open("w") as file:
        YAML(typ="safe").dump(facts[0], file)
    assert not any("could be found" in note for note in check_drive(halves[0]))


def test_split_bags_of_ros_1_follow_each_other(tmp_path: Path) -> None:
    paths = [
        bag1(tmp_path / f"drive_{number}.bag", [s for s in drive() if (s[2] < 0.5) == (number == 0)])
        for number in range(2)
    ]
    rows = by_row(events(*paths))
    assert [e.record.value for e in rows[IMAGE]] == [jpeg(i) for i in range(10)]
    assert [round(begin, 3) for begin, _ in spans(rows[IMAGE])] == [i / 10 for i in range(10)]


def test_a_bag_without_definitions_is_read_by_the_standard_messages(tmp_path: Path) -> None:
    path = bag2(tmp_path / "bag", [*cameras(), ("/sound", "audio_common_msgs/msg/AudioInfo", 0.0, {})]) / "bag.db3"
    with closing(sqlite3.connect(path)) as database:  # as up to ROS 2 Humble
        database.executescript(
            "DROP TABLE message_definitions; DROP TABLE schema; ALTER TABLE topics DROP COLUMN type_description_hash;"
        )
    recording = replay.open_all([path])
    rows = by_row(events(recording=recording))
    assert [e.record.value for e in rows[IMAGE]] == [jpeg(0)]
    assert samples(rows[TELEMETRY])["battery"] == [(0.0, 12.5)]
    assert (
        "/sound is left out, its messages cannot be read: type audio_common_msgs/msg/AudioInfo is defined"
        in " ".join(recording.notes)
    )


def test_a_message_that_cannot_be_decoded_stops_nothing(tmp_path: Path) -> None:
    path = bag2(tmp_path / "bag", drive())
    with closing(sqlite3.connect(path / "bag.db3")) as database, database:
        database.execute("UPDATE messages SET data = x'00010000ff' WHERE id = 20")
    recording = replay.open_all([path])
    assert sum(map(len, by_row(events(recording=recording)).values())) > 20
    assert any("1 messages were left out: those of" in note and "broken" in note for note in recording.notes)


def test_messages_that_are_missing_from_a_bag_are_told(tmp_path: Path) -> None:
    path = bag2(tmp_path / "bag", drive())
    with closing(sqlite3.connect(path / "bag.db3")) as database, database:
        database.execute("DELETE FROM messages WHERE id > 40")
    recording = replay.open_all([path])
    events(recording=recording)
    assert any(re.search(r"/camera: \d of its 10 messages could be found", note) for note in recording.notes)


@pytest.mark.parametrize("compression", [None, *rosbag1.Writer.CompressionFormat])
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_a_bag_of_ros_1_that_was_cut_off_ends_early(compression: Any, share: float, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (20, 100_000), np.uint8)  # a chunk of 1 MiB holds ten
    sent: list[Sent] = [
        ("/camera", "sensor_msgs/msg/CompressedImage", i / 10,
         {"format": "jpeg", "data": np.concatenate([np.frombuffer(b"\xff\xd8\xff", np.uint8), noise[i]])})
        for i in range(20)
    ]  # fmt: skip
    whole = bag1(tmp_path / "whole.bag", sent, compression).read_bytes()
    path = tmp_path / "cut.bag"
    path.write_bytes(whole[: round(len(whole) * share)])
    recording = replay.open_all([path])
    records = [r for r in recording.outgoing("test", START_US) if r.row == IMAGE]
    assert 5 < len(records) < 20
    assert [r.payload[3:] for r in records] == [bytes(noise[i]) for i in range(len(records))]
    assert "cut.bag has no index and was read as far as it is whole: Got only" in " ".join(recording.notes)


def test_a_cut_off_bag_with_a_damaged_topic_is_sent_without_it(tmp_path: Path) -> None:
    sent: list[Sent] = [(f"/{name}", "std_msgs/msg/Float32", 0.5, {"data": 2.5}) for name in ("left", "right")]
    whole = bag1(tmp_path / "whole.bag", sent, None).read_bytes()
    path = tmp_path / "cut.bag"
    path.write_bytes(whole[:-1].replace(b"message_definition", b"message_definitian", 1))
    recording = replay.open_all([path])
    assert samples(by_row(events(recording=recording))[TELEMETRY]) == {"right": [(0.0, 2.5)]}
    assert any("Could not read string field 'message_definition'" in note for note in recording.notes)


def test_a_bag_in_sqlite_that_was_cut_off_is_refused_or_ends_early(tmp_path: Path) -> None:
    folder = bag2(tmp_path / "bag", drive())
    raw = (folder / "bag.db3").read_bytes()
    (folder / "bag.db3").write_bytes(raw[: len(raw) - 3 * 4096])
    with contextlib.suppress(UsageError):  # SQLite sees it at once, or on the way
        recording = replay.open_all([folder])
        events(recording=recording)
        assert any("could not be read to its end" in note or "could be found" in note for note in recording.notes)


@pytest.mark.parametrize("name", ["a.bag", "a.db3", "bag/metadata.yaml"])
@pytest.mark.parametrize("content", [b"", b"nothing of the kind", b"#ROSBAG V2.0\n\xff\xff\xff\xff", b"a: [1"])
def test_what_is_no_bag_is_refused_in_one_line(name: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    with pytest.raises(UsageError) as refused:
        replay.open_all([path.parent if path.suffix == ".yaml" else path])
    assert "\n" not in str(refused.value)


def test_without_rosbags_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bag1(tmp_path / "a.bag", cameras())
    monkeypatch.setitem(sys.modules, "rosbags.rosbag1", None)
    with pytest.raises(UsageError, match=r"pip install 'streamer-multimodal\[ros\]'"):
        replay.open_all([path])
