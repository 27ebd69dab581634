"""MCAP files: their encodings, with their difficult cases; every channel of a file is sent or named in a note."""

from __future__ import annotations

import base64
import io
import re
import struct
import sys
from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mcap.writer import CompressionType, IndexType
from PIL import Image

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT, Event
from streamer.feeds import replay
from streamer.feeds.replay.robots.fields import numbers
from tests.bags import message, store
from tests.harness import jpeg
from tests.recordings import BASE_NS, Log, by_row, events, pcm, samples, spans, stamp, texts

TONE = (np.sin(np.arange(8000) / 7) * 9000).astype("<i2")
ROS1, ROS2 = store(ros1=True), store()
FIELD = descriptor_pb2.FieldDescriptorProto


def state_schema() -> descriptor_pb2.FileDescriptorProto:
    """A message with a field of each kind of presence."""
    file = descriptor_pb2.FileDescriptorProto(name="state.proto", syntax="proto3", package="test")
    state = file.message_type.add(name="State")
    optional = FIELD.LABEL_OPTIONAL
    state.field.add(name="speed", number=1, type=FIELD.TYPE_DOUBLE, label=optional)
    state.field.add(name="grip", number=2, type=FIELD.TYPE_DOUBLE, label=optional, proto3_optional=True, oneof_index=1)
    state.field.add(name="left", number=3, type=FIELD.TYPE_INT32, label=optional, oneof_index=0)
    state.field.add(name="right", number=4, type=FIELD.TYPE_INT32, label=optional, oneof_index=0)
    state.oneof_decl.add(name="turn")
    state.oneof_decl.add(name="_grip")
    return file


STATE_SCHEMA = descriptor_pb2.FileDescriptorSet(file=[state_schema()]).SerializeToString()


@cache
def state_class() -> Any:
    pool = descriptor_pool.DescriptorPool()
    pool.Add(state_schema())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.State"))


def state(**fields: float) -> bytes:
    return bytes(state_class()(**fields).SerializeToString())


def cdr(of: Any) -> bytes:
    return bytes(ROS2.serialize_cdr(of, of.__msgtype__))


def ros_channel(log: Log, topic: str, kind: str, ros1: bool = False) -> int:
    definition = (ROS1 if ros1 else ROS2).generate_msgdef(kind, ros_version=1 if ros1 else 2)[0]
    name, encoding = (kind.replace("/msg/", "/"), "ros1") if ros1 else (kind, "cdr")
    return log.channel(topic, name, encoding, definition.encode(), "ros1msg" if ros1 else "ros2msg")


def test_pictures_sound_texts_and_numbers_of_an_mcap_file(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    tone = (np.sin(np.arange(8000) / 7) * 9000).astype("<i2")
    imu, words = log.channel("/imu"), log.channel("/asr", "my.Words")
    for i in range(10):
        log.picture(i / 10, jpeg(i))
        log.sound(i / 10, tone[800 * i : 800 * (i + 1)].tobytes(), 8000)
        log.add(imu, i / 10, {"stamp": {"sec": 1, "nsec": 2}, "a": {"x": i, "y": 0.5}, "list": [1, 2], "name": "n"})
    log.add(words, 0.9, {"text": "turn left", "start": -0.5, "end": 0.0})
    recording = replay.open_all([log.finish()])
    rows = by_row(events(recording=recording))
    assert [round(a, 3) for a, _ in spans(rows[IMAGE])] == [i / 10 for i in range(10)]
    assert rows[IMAGE][3].record.value == jpeg(3)
    assert np.array_equal(pcm(rows[AUDIO])[:, 0], tone)
    assert all(a[1] == b[0] for a, b in pairwise(spans(rows[AUDIO])))
    assert (texts(rows[TEXT]), spans(rows[TEXT])) == (["turn left"], [(0.4, 0.9)])
    measured = samples(rows[TELEMETRY])
    assert set(measured) == {"imu.a.x", "imu.a.y", "imu.list.0", "imu.list.1"}
    assert [v for _, v in measured["imu.a.x"]] == list(range(10))
    assert recording.utc_us == BASE_NS // 1000
    assert recording.length_us == 1_000_000


def test_a_message_of_one_number_is_a_channel_called_like_its_topic(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    log.add(log.channel("/car/speed"), 0, {"value": 3.5})
    assert samples(by_row(events(log.finish()))[TELEMETRY]) == {"car.speed": [(0.0, 3.5)]}


def test_long_lists_and_times_are_no_channels() -> None:
    body = {
        "ranges": [1.0] * 100,
        "stamp": {"sec": 1, "nanosec": 2},
        "ok": True,
        "deep": {"er": [{"x": 1}]},
        "no": None,
    }
    assert dict(numbers(body, set())) == {"ok": 1.0, "deep.er.0.x": 1.0}


def test_one_of_several_cameras_is_sent_and_the_others_are_told(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    log.picture(0, jpeg(1), "/front")
    log.picture(0, jpeg(2), "/rear")
    rear = log.channel("/rear")
    path = log.finish()
    recording = replay.open_all([path])
    assert [e.record.value for e in by_row(events(recording=recording))[IMAGE]] == [jpeg(1)]
    assert f"--stream {rear}" in " ".join(recording.notes)
    assert [e.record.value for e in by_row(events(path, streams=[rear]))[IMAGE]] == [jpeg(2)]
    with pytest.raises(UsageError, match="/front"):
        replay.open_all([path], replay.Options(streams=(77,)))


def test_broken_and_foreign_messages_are_left_out_and_told(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    log.picture(0, jpeg(1))
    log.picture(0.1, b"x", form="avif")
    log.add(log.channel("/camera"), 0.2, b"{broken")
    log.add(log.channel("/ros", "std_msgs/String", "cdr"), 0.3, b"abc")
    recording = replay.open_all([log.finish()])
    assert len(by_row(events(recording=recording))[IMAGE]) == 1
    notes = " ".join(recording.notes)
    assert all(word in notes for word in ("avif", "broken", "cdr", "/camera", "/ros"))


@pytest.mark.parametrize("options", [{"use_chunking": False}, {"use_summary_offsets": False, "index_types": 0}])
def test_a_file_without_an_index_is_read_in_its_own_order(options: dict[str, object], tmp_path: Path) -> None:
    from mcap.writer import IndexType

    if "index_types" in options:
        options["index_types"] = IndexType.NONE
    log = Log(tmp_path / "a.mcap", **options)
    for i in range(20):
        log.picture(i / 10, jpeg(i))
    assert len(by_row(events(log.finish()))[IMAGE]) == 20


def test_a_file_that_is_cut_off_is_sent_up_to_there(tmp_path: Path) -> None:
    log = Log(tmp_path / "whole.mcap", chunk_size=10_000)
    for i in range(50):
        log.picture(i / 10, jpeg(i))
    raw = log.finish().read_bytes()
    (tmp_path / "cut.mcap").write_bytes(raw[: len(raw) // 2])
    recording = replay.open_all([tmp_path / "cut.mcap"])
    assert 10 < len(by_row(events(recording=recording))[IMAGE]) < 40
    assert "could not be read to its end" in " ".join(recording.notes)


def test_protobuf_messages_are_read_with_the_schema_in_the_file(tmp_path: Path) -> None:
    T = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="all.proto", syntax="proto3", package="foxglove")
    stamp = file.message_type.add(name="Stamp")
    stamp.field.add(name="seconds", number=1, type=T.TYPE_INT64, label=T.LABEL_OPTIONAL)
    stamp.field.add(name="nanos", number=2, type=T.TYPE_INT32, label=T.LABEL_OPTIONAL)
    image = file.message_type.add(name="CompressedImage")
    own = T.TYPE_MESSAGE
    image.field.add(name="timestamp", number=1, type=own, type_name=".foxglove.Stamp", label=T.LABEL_OPTIONAL)
    image.field.add(name="data", number=2, type=T.TYPE_BYTES, label=T.LABEL_OPTIONAL)
    image.field.add(name="format", number=3, type=T.TYPE_STRING, label=T.LABEL_OPTIONAL)
    state = file.message_type.add(name="State")
    state.field.add(name="speed", number=1, type=T.TYPE_DOUBLE, label=T.LABEL_OPTIONAL)
    state.field.add(name="wheels", number=2, type=T.TYPE_FLOAT, label=T.LABEL_REPEATED)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kinds = {
        n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"foxglove.{n}"))
        for n in ("CompressedImage", "State")
    }
    definition = descriptor_pb2.FileDescriptorSet(file=[file]).SerializeToString()
    log = Log(tmp_path / "a.mcap")
    camera = log.channel("/camera", "foxglove.CompressedImage", "protobuf", definition)
    car = log.channel("/car", "foxglove.State", "protobuf", definition)
    shot = {"seconds": BASE_NS // 10**9, "nanos": 50_000_000}
    log.add(car, 0, kinds["State"](speed=0.0, wheels=[1.0, 2.0]).SerializeToString())
    log.add(camera, 0.1, kinds["CompressedImage"](timestamp=shot, data=jpeg(1), format="jpeg").SerializeToString())
    log.add(car, 0.1, b"\xff\xff")
    recording = replay.open_all([log.finish()])
    rows = by_row(events(recording=recording))
    assert (spans(rows[IMAGE]), rows[IMAGE][0].record.value) == ([(0.05, 0.05)], jpeg(1))
    assert samples(rows[TELEMETRY]) == {"car.speed": [(0, 0)], "car.wheels.0": [(0, 1)], "car.wheels.1": [(0, 2)]}
    assert "/car are broken" in " ".join(recording.notes)


def test_a_protobuf_field_that_is_not_set_is_no_measurement(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    car = log.channel("/car", "test.State", "protobuf", STATE_SCHEMA)
    log.add(car, 0.0, state())
    log.add(car, 0.1, state(grip=0.0, right=2))
    measured = samples(by_row(events(log.finish()))[TELEMETRY])
    assert measured["car.speed"] == [(0, 0), (0.1, 0)]  # proto3 cannot tell 0 from unset here
    assert measured["car.grip"] == [(0.1, 0)]
    assert measured["car.right"] == [(0.1, 2)]
    assert "car.left" not in measured


IDL = """================================================================================
IDL: test_msgs/msg/State
module test_msgs { module msg {
  module State_Constants { const uint8 IDLE = 0; };
  struct State { double speed; @verbatim (language="comment", text="unit: volts") float voltage; int32 levels[2]; };
}; };
"""


def test_messages_of_ros_in_each_encoding(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    imu = message(ROS2, "sensor_msgs/msg/Imu", {"header": {"stamp": 0.0}, "angular_velocity": {"x": 1.5}})
    log.add(ros_channel(log, "/cdr", "sensor_msgs/msg/Imu"), 0.02, cdr(imu))
    imu1 = message(ROS1, "sensor_msgs/msg/Imu", {"header": {"stamp": 0.0}, "angular_velocity": {"x": 2.5}})
    raw = bytes(ROS1.serialize_ros1(imu1, "sensor_msgs/msg/Imu"))
    log.add(ros_channel(log, "/ros1", "sensor_msgs/msg/Imu", ros1=True), 0.02, raw)
    body = b"\0\1\0\0" + struct.pack("<dfii", 3.5, 12.0, 7, 8)
    log.add(log.channel("/idl", "test_msgs/msg/State", "cdr", IDL.encode(), "ros2idl"), 0.02, body)
    big = b"\0\0\0\0" + struct.pack(">dfii", 4.5, 12.0, 7, 8)
    log.add(log.channel("/big", "test_msgs/msg/State", "cdr", IDL.encode(), "ros2idl"), 0.02, big)
    measured = samples(by_row(events(log.finish()))[TELEMETRY])
    assert measured["cdr.angular_velocity.x"] == [(0, 1.5)]
    assert measured["ros1.angular_velocity.x"] == [(0, 2.5)]
    assert measured["idl.speed"] == [(0.02, 3.5)]
    assert measured["idl.levels.1"] == [(0.02, 8)]
    assert measured["big.speed"] == [(0.02, 4.5)]
    assert not any("IDLE" in name or "header" in name for name in measured)


@pytest.mark.parametrize(
    ("module", "remedy"),
    [("rosbags.typesys.msg", "streamer-multimodal[ros]"), ("google.protobuf", "streamer-multimodal[feeds]")],
)
def test_a_missing_library_is_told_and_the_rest_is_sent(
    module: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(tmp_path / "a.mcap")
    log.add(ros_channel(log, "/cdr", "std_msgs/msg/Float32"), 0, cdr(message(ROS2, "std_msgs/msg/Float32", {})))
    log.add(log.channel("/protobuf", "test.State", "protobuf", STATE_SCHEMA), 0, state(speed=1.0))
    monkeypatch.setitem(sys.modules, module, None)
    recording = replay.open_all([log.finish()])
    assert len(samples(by_row(events(recording=recording))[TELEMETRY])) == 1
    assert any(f"pip install '{remedy}'" in note for note in recording.notes)


def test_a_definition_of_odd_names_is_refused(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    odd = log.channel("/odd", "pkg/msg/A B", "cdr", b"float64 x\n", "ros2msg")
    log.add(odd, 0, b"\0\1\0\0" + bytes(8))
    log.add(log.channel("/car/speed"), 0, {"value": 3.5})
    recording = replay.open_all([log.finish()])
    assert any("/odd is left out" in note and "no name of a type" in note for note in recording.notes)


@pytest.mark.parametrize("compression", CompressionType)
def test_the_halves_of_a_split_file_follow_each_other(compression: CompressionType, tmp_path: Path) -> None:
    logs = [Log(tmp_path / f"drive_{number}.mcap", compression=compression) for number in range(2)]
    for i in range(10):
        log = logs[i // 5]
        body = {"timestamp": stamp(i / 10), "data": base64.b64encode(jpeg(i)).decode(), "format": "jpeg"}
        log.add(log.channel("/camera", "foxglove.CompressedImage"), i / 10 + 0.05, body)
    rows = by_row(events(*(log.finish() for log in logs)))
    assert [e.record.value for e in rows[IMAGE]] == [jpeg(i) for i in range(10)]
    assert [round(begin, 3) for begin, _ in spans(rows[IMAGE])] == [i / 10 for i in range(10)]


def test_two_senders_of_a_topic_are_one_topic(tmp_path: Path) -> None:
    log = Log(tmp_path / "a.mcap")
    first, second = log.channel("/speed"), log.another("/speed")
    log.add(first, 0.0, {"value": 1})
    log.add(second, 0.1, {"value": 2})
    assert samples(by_row(events(log.finish()))[TELEMETRY]) == {"speed": [(0, 1), (0.1, 2)]}


# nothing is left out silently


class Made(NamedTuple):
    """A channel of a generated file: what it is called, and what it does to the log."""

    kind: str
    messages: int


KINDS = (
    "json image", "json other image", "raw image", "depth", "video", "json sound", "json other sound", "json text",
    "json numbers", "json nothing", "json broken", "protobuf", "protobuf broken schema", "cdr imu", "cdr string",
    "cdr nothing", "cdr broken", "cdr without schema", "ros1 float", "unknown",
)  # fmt: skip
IMU = message(ROS2, "sensor_msgs/msg/Imu", {"angular_velocity": {"x": 1.5}})


def write_channel(log: Log, place: int, made: Made) -> str:
    """Add a channel and its messages; returns its topic."""
    topic = f"/topic{place}"
    kind = made.kind
    for i in range(made.messages):
        second = i / 10 + place / 100
        stamped = {"timestamp": stamp(second)}
        if kind in ("json image", "json other image"):
            form, payload = ("jpeg", jpeg(place)) if kind == "json image" else ("avif", b"avif")
            log.picture(second, payload, topic, form)
        elif kind in ("raw image", "depth"):
            encoding = {"raw image": "mono8", "depth": "16UC1"}[kind]
            body = {**stamped, "width": 8, "height": 8, "step": 16, "encoding": encoding,
                    "data": base64.b64encode(bytes([10 * place]) * 128).decode()}  # fmt: skip
            log.add(log.channel(topic, "foxglove.RawImage"), second, body)
        elif kind == "video":
            body = {**stamped, "format": "h264", "data": base64.b64encode(b"\0\0\0\1\x41no key").decode()}
            log.add(log.channel(topic, "foxglove.CompressedVideo"), second, body)
        elif kind in ("json sound", "json other sound"):
            form = {"json sound": "pcm-s16", "json other sound": "opus"}[kind]
            body = {**stamped, "format": form, "sample_rate": 8000 + place, "number_of_channels": 1,
                    "data": base64.b64encode(TONE[:800].tobytes()).decode()}  # fmt: skip
            log.add(log.channel(topic, "foxglove.RawAudio"), second, body)
        elif kind == "json text":
            log.add(log.channel(topic), second, {"text": topic})
        elif kind == "json numbers":
            log.add(log.channel(topic), second, {"a": {"b": i}, "list": [1, 2]})
        elif kind == "json nothing":
            log.add(log.channel(topic), second, {"name": "n", "ranges": [0.5] * 100})
        elif kind == "json broken":
            log.add(log.channel(topic), second, b"{broken")
        elif kind == "protobuf":
            log.add(log.channel(topic, "test.State", "protobuf", STATE_SCHEMA), second, state(speed=1.0))
        elif kind == "protobuf broken schema":
            log.add(log.channel(topic, "test.State", "protobuf", b"\xff"), second, b"")
        elif kind == "cdr imu":
            log.add(ros_channel(log, topic, "sensor_msgs/msg/Imu"), second, cdr(IMU))
        elif kind == "cdr string":
            log.add(ros_channel(log, topic, "std_msgs/msg/String"), second,
                    cdr(message(ROS2, "std_msgs/msg/String", {"data": topic})))  # fmt: skip
        elif kind == "cdr nothing":
            log.add(ros_channel(log, topic, "std_msgs/msg/Empty"), second, cdr(message(ROS2, "std_msgs/msg/Empty", {})))
        elif kind == "cdr broken":
            log.add(ros_channel(log, topic, "sensor_msgs/msg/Imu"), second, b"\0\1\0\0abc")
        elif kind == "cdr without schema":
            log.add(log.channel(topic, "", "cdr"), second, cdr(IMU))
        elif kind == "ros1 float":
            log.add(ros_channel(log, topic, "std_msgs/msg/Float32", ros1=True), second, struct.pack("<f", 2.5))
        else:
            log.add(log.channel(topic, "some.Thing", "flatbuffer"), second, b"abc")
    if not made.messages:
        log.channel(topic, "", "json")
    return topic


def arrived(rows: dict[int, list[Event]], topics: Sequence[str]) -> set[str]:
    """The topics of which something was sent."""
    found = set(texts(rows[TEXT]))
    for name in samples(rows[TELEMETRY]):
        found.add("/" + name.partition(".")[0])
    of_pictures = {jpeg(place): topic for place, topic in enumerate(topics)}
    for event in rows[IMAGE]:
        if event.record.value in of_pictures:
            found.add(of_pictures[event.record.value])
        else:  # a raw image is as bright as its place
            grey = float(np.asarray(Image.open(io.BytesIO(event.record.value)).convert("L")).mean())
            found.add(topics[round(grey / 10)])
    for event in rows[AUDIO]:
        rate_hz = int(re.findall(r"rate=(\d+)", dict(event.record.headers)["content-type"].decode())[0])
        found.add(topics[rate_hz - 8000])
    return found


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    channels=st.lists(st.builds(Made, st.sampled_from(KINDS), st.integers(0, 3)), min_size=1, max_size=8),
    chunked=st.booleans(),
    indexed=st.booleans(),
    extras=st.booleans(),
)
def test_every_channel_is_sent_or_told(
    channels: list[Made], chunked: bool, indexed: bool, extras: bool, tmp_path: Path
) -> None:
    assume(any(made.messages for made in channels))
    path = tmp_path / "a.mcap"
    log = Log(path, use_chunking=chunked, index_types=IndexType.ALL if indexed else IndexType.NONE)
    topics = [write_channel(log, place, made) for place, made in enumerate(channels)]
    if extras:
        log.attach("calibration.yaml")
    log.finish()
    sent: set[str] = set()
    try:
        recording = replay.open_all([path])
        sent = arrived(by_row(events(recording=recording)), topics)
        said = recording.notes
    except UsageError as refused:  # nothing can be sent: then the message has all
        said = [str(refused)]
    silent = [t for t in topics if t not in sent and not re.search(rf"{t}\b", " ".join(said))]
    assert silent == []
    assert any("calibration.yaml" in note for note in said) == extras
