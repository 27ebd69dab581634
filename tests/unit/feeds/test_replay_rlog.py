"""Logs of openpilot, written by pycapnp with openpilot's schema."""

from __future__ import annotations

import bz2
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from openpilot_logging.cereal import log as schema

from streamer.errors import UsageError
from streamer.events import TELEMETRY
from streamer.feeds import replay
from tests.recordings import by_row, events, samples
from tests.unit.feeds.test_replay_can import DATABASE

BOOT_NS = 5_000_000_000_000
WALL_NS = 1_767_323_045_000_000_000
PACKED: dict[str, Callable[[bytes], bytes]] = {
    "rlog": bytes,
    "rlog.bz2": bz2.compress,
    "qlog.zst": lambda raw: zstandard.compress(raw[:100]) + zstandard.compress(raw[100:]),
}


def message(second: float, kind: str, **fields: Any) -> bytes:
    event = schema.Event.new_message(logMonoTime=BOOT_NS + round(second * 1e9), valid=True)
    body = event.init(kind)
    for name, value in fields.items():
        setattr(body, name, value)
    written: bytes = event.to_bytes()
    return written


def sensor(second: float, values: list[float]) -> bytes:
    event = schema.Event.new_message(logMonoTime=BOOT_NS + round(second * 1e9), valid=True)
    event.init("accelerometer").init("acceleration").v = values
    written: bytes = event.to_bytes()
    return written


def frame(second: float, address: int, data: bytes, bus: int = 0) -> bytes:
    event = schema.Event.new_message(logMonoTime=BOOT_NS + round(second * 1e9), valid=True)
    (one,) = event.init("can", 1)
    one.address, one.dat, one.src = address, data, bus
    written: bytes = event.to_bytes()
    return written


def channels(*paths: Path) -> dict[str, list[tuple[float, float]]]:
    return samples(by_row(events(*paths))[TELEMETRY])


def notes(*paths: Path) -> list[str]:
    recording = replay.open_all(paths)
    events(recording=recording)
    return recording.notes


@pytest.mark.parametrize("name", PACKED)
def test_numbers_become_channels_however_the_log_is_packed(tmp_path: Path, name: str) -> None:
    raw = message(-60, "initData", wallTimeNanos=WALL_NS - 60 * 10**9)
    for i in range(100):
        raw += message(i / 100, "carState", vEgo=float(i), steeringAngleDeg=-float(i), gasPressed=bool(i % 2))
        raw += sensor(i / 100 + 0.002, [1.0, 2.0, float(i)])
    path = tmp_path / name
    path.write_bytes(PACKED[name](raw))
    found = channels(path)
    assert np.array(found["carState.vEgo"]) == pytest.approx(np.array([(i / 100, i) for i in range(100)]), abs=2e-6)
    assert [value for _, value in found["carState.steeringAngleDeg"]] == [-float(i) for i in range(100)]
    assert [value for _, value in found["carState.gasPressed"]] == [float(i % 2) for i in range(100)]
    assert found["accelerometer.acceleration.v.2"][50] == pytest.approx((0.502, 50.0), abs=2e-6)
    assert not any("DEPRECATED" in channel for channel in found)
    part = replay.open_all([path]).parts[0].part
    assert (part.clock_us, part.length_us) == (BOOT_NS // 1000, 992_000)
    assert part.utc_us == WALL_NS // 1000
    assert notes(path) == []


def test_frames_of_the_buses_need_a_database(tmp_path: Path) -> None:
    path, database = tmp_path / "rlog", tmp_path / "car.dbc"
    raw = message(0, "carState", vEgo=1.0)
    raw += frame(0.5, 291, (1234).to_bytes(2, "little") + bytes(6)) + frame(0.6, 0x7A0, b"\x01")
    path.write_bytes(raw)
    database.write_text(DATABASE)
    assert not any(name.startswith("Motion") for name in channels(path))
    assert notes(path) == [
        f"{path}: the frames of its buses are left out, since no database says what is in them; name a .dbc"
    ]
    assert channels(path, database)["Motion.Speed"] == [(0.5, 12.34)]
    assert channels(path, database)["carState.vEgo"] == [(0.0, 1.0)]
    assert notes(path, database) == [f"{path}: 1 frames are left out, {database} does not know them: 7A0 (1)"]


def test_what_has_no_numbers_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rlog"
    event = schema.Event.new_message(logMonoTime=BOOT_NS, valid=True)
    event.logMessage = "started"
    path.write_bytes(event.to_bytes() + message(1, "carState", vEgo=1.0))
    assert channels(path)["carState.vEgo"] == [(1.0, 1.0)]
    assert notes(path) == [f"{path}: messages without numbers are left out: logMessage"]


@pytest.mark.parametrize("name", PACKED)
def test_a_log_that_is_cut_off_is_sent_as_far_as_it_goes(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(1)
    raw = b""
    for i in range(3000):
        raw += message(i / 100, "carState", vEgo=float(i)) + message(i / 100, "thumbnail", thumbnail=noise.bytes(1000))
    packed = PACKED[name](raw)
    path = tmp_path / name
    path.write_bytes(packed[: len(packed) * 2 // 3 // 8 * 8 + 4])
    speeds = [value for _, value in channels(path)["carState.vEgo"]]
    assert speeds == [float(i) for i in range(len(speeds))]
    assert 500 < len(speeds) < 3000
    assert any("could not be read to its end" in note for note in notes(path))


@pytest.mark.parametrize("name", PACKED)
@pytest.mark.parametrize("content", [b"", b"hello\nworld\n", bytes(range(256)) * 8])
def test_what_is_no_log_is_refused_in_one_line(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UsageError, match=name) as refused:
        replay.open_all([path])
    assert "\n" not in str(refused.value)


def test_messages_of_a_newer_openpilot_are_counted_and_stop_nothing(tmp_path: Path) -> None:
    newer = bytearray(message(0.5, "carState", vEgo=9.0))
    begin = 8 + 8 + 8  # behind the head, the root pointer and logMonoTime
    newer[begin : begin + 2] = (999).to_bytes(2, "little")  # which of the kinds it is
    path = tmp_path / "rlog"
    path.write_bytes(message(0, "carState", vEgo=1.0) + newer + message(1, "carState", vEgo=2.0))
    assert channels(path)["carState.vEgo"] == [(0.0, 1.0), (1.0, 2.0)]
    assert notes(path) == [
        f"{path}: 1 messages of kinds that the package openpilot-logging does not know are left out; "
        "they are newer, or damaged"
    ]
