"""Logs of CAN buses, written by python-can and asammdf, decoded by a database."""

from __future__ import annotations

import gc
import struct
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asammdf
import can
import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.events import TELEMETRY, Telemetry
from streamer.feeds import replay
from tests.recordings import S_US, by_row, events, samples

BEGIN_S = 1_767_323_045.25  # 2026-01-02 03:04:05.25 UTC
DATABASE = """VERSION ""

NS_ :

BS_:

BU_: Gateway Engine

BO_ 291 Motion: 8 Gateway
 SG_ Speed : 0|16@1+ (0.01,0) [0|655.35] "km/h" Engine
 SG_ Angle : 23|16@0- (0.1,-5) [-3000|3000] "deg" Engine
 SG_ Gear : 32|4@1+ (1,0) [0|15] "" Engine

BO_ 512 Doors: 4 Gateway
 SG_ Which M : 0|8@1+ (1,0) [0|0] "" Engine
 SG_ Front m0 : 8|8@1+ (1,0) [0|0] "" Engine
 SG_ Rear m1 : 8|16@1+ (0.5,0) [0|0] "%" Engine

BO_ 2147484419 Wide: 64 Gateway
 SG_ Last : 504|8@1+ (2,0) [0|0] "V" Engine

VAL_ 291 Gear 0 "park" 3 "drive" ;
"""
J1939 = """VERSION ""

NS_ :

BS_:

BU_: Engine

BO_ 2364540158 EEC1: 8 Engine
 SG_ EngSpeed : 24|16@1+ (0.125,0) [0|8031.875] "rpm" Vector__XXX
 SG_ Torque : 8|8@1+ (1,-125) [-125|125] "%" Vector__XXX

BA_DEF_ BO_ "VFrameFormat" ENUM "StandardCAN","ExtendedCAN","reserved","J1939PG";
BA_DEF_DEF_ "VFrameFormat" "J1939PG";
BA_ "VFrameFormat" BO_ 2364540158 3;
"""
ENDINGS = [".log", ".asc", ".blf", ".trc", ".mf4"]


@pytest.fixture
def dbc(tmp_path: Path) -> Path:
    path = tmp_path / "car.dbc"
    path.write_text(DATABASE)
    return path


def frame(second: float, frame_id: int, data: bytes, **more: Any) -> can.Message:
    more = {"is_extended_id": frame_id > 0x7FF, "channel": 0, **more}
    return can.Message(timestamp=BEGIN_S + second, arbitration_id=frame_id, data=data, **more)


def motion(second: float, speed: int, angle: int = 0, gear: int = 3, **more: Any) -> can.Message:
    data = speed.to_bytes(2, "little") + angle.to_bytes(2, "big", signed=True) + bytes([gear, 0, 0, 0])
    return frame(second, 291, data, **more)


def written(path: Path, frames: Iterable[can.Message]) -> Path:
    with can.Logger(path) as logger:
        for one in frames:
            logger.on_message_received(one)
    return path


def channels(*paths: Path) -> dict[str, list[tuple[float, float]]]:
    return samples(by_row(events(*paths))[TELEMETRY])


def units(*paths: Path) -> dict[str, str]:
    bodies = [event.body for event in by_row(events(*paths))[TELEMETRY]]
    return {name: c.unit for body in bodies if isinstance(body, Telemetry) for name, c in body.channels.items()}


def notes(*paths: Path) -> list[str]:
    recording = replay.open_all(paths)
    events(recording=recording)
    return recording.notes


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_kind_of_log_yields_the_same_signals(tmp_path: Path, dbc: Path, ending: str) -> None:
    log = written(tmp_path / f"drive{ending}", [motion(i * 0.01, 100 * i, -i) for i in range(500)])
    found = channels(log, dbc)
    assert found.keys() == {"Motion.Speed", "Motion.Angle", "Motion.Gear"}
    seconds, speeds = zip(*found["Motion.Speed"], strict=True)
    assert speeds == pytest.approx(list(range(500)))
    assert seconds == pytest.approx([i * 0.01 for i in range(500)], abs=2e-6)
    assert [value for _, value in found["Motion.Angle"]] == pytest.approx([-0.1 * i - 5 for i in range(500)])
    assert {value for _, value in found["Motion.Gear"]} == {3.0}  # an enumeration keeps its numbers
    assert units(log, dbc) == {"Motion.Speed": "km/h", "Motion.Angle": "deg", "Motion.Gear": ""}
    assert notes(log, dbc) == []


@pytest.mark.parametrize("ending", ENDINGS)
def test_what_the_database_does_not_know_and_what_is_no_data_is_counted(tmp_path: Path, dbc: Path, ending: str) -> None:
    frames = [
        motion(0.0, 1),
        *(frame(0.1 + i / 100, 0x7A0, b"\x01") for i in range(3)),
        frame(0.2, 0x18FEF100, b"\x02"),
    ]
    more = [
        frame(0.3, 291, b"", is_remote_frame=True, dlc=8),
        can.Message(timestamp=BEGIN_S + 0.4, is_error_frame=True, channel=0),
        motion(0.5, 2),
    ]
    log = written(tmp_path / f"drive{ending}", frames + (more if ending != ".trc" else more[::2]))
    assert [value for _, value in channels(log, dbc)["Motion.Speed"]] == [0.01, 0.02]
    told = notes(log, dbc)
    assert told[0] == f"{log}: 4 frames are left out, {dbc} does not know them: 7A0 (3), 18FEF100 (1)"
    if ending != ".trc":  # python-can writes neither of them there
        assert set(told[1:]) == {f"{log}: 1 remote frames are left out", f"{log}: 1 error frames are left out"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_buses_are_told_apart_by_their_names_in_the_log(tmp_path: Path, dbc: Path, ending: str) -> None:
    log = written(tmp_path / f"drive{ending}", [motion(i / 10, 100 * i, channel=i % 2) for i in range(20)])
    found = channels(log, dbc)
    first, second = {".log": (0, 1), ".mf4": (0, 1)}.get(ending, (1, 2))  # Vector and PEAK count from 1
    assert [value for _, value in found[f"can{first}.Motion.Speed"]] == [float(i) for i in range(0, 20, 2)]
    assert [value for _, value in found[f"can{second}.Motion.Speed"]] == [float(i) for i in range(1, 20, 2)]


@pytest.mark.parametrize("ending", [".log", ".asc", ".blf", ".mf4"])
def test_frames_of_can_fd_are_decoded_to_their_last_byte(tmp_path: Path, dbc: Path, ending: str) -> None:
    data = bytes(63) + b"\x07"
    wide = [frame(i / 10, 771, data, is_fd=True, bitrate_switch=True, is_extended_id=True) for i in range(3)]
    found = channels(written(tmp_path / f"drive{ending}", wide), dbc)
    assert found.keys() == {"Wide.Last"}
    assert np.array(found["Wide.Last"]) == pytest.approx(np.array([(i / 10, 14.0) for i in range(3)]), abs=2e-6)


def test_a_standard_id_is_not_the_extended_id_of_its_number(tmp_path: Path, dbc: Path) -> None:
    log = written(tmp_path / "drive.blf", [motion(0, 100), motion(0.1, 900, is_extended_id=True)])
    assert [value for _, value in channels(log, dbc)["Motion.Speed"]] == [1.0]
    assert notes(log, dbc) == [f"{log}: 1 frames are left out, {dbc} does not know them: 00000123 (1)"]


def test_multiplexed_signals_have_values_only_where_they_are_sent(tmp_path: Path, dbc: Path) -> None:
    doors = [frame(0.0, 512, b"\x00\x2a\x00\x00"), frame(0.0, 512, b"\x01\x09\x00\x00"), frame(0.1, 512, b"\x00\x2b")]
    log = written(tmp_path / "drive.log", [*doors, frame(0.2, 512, b"\x07\x00\x00\x00")])
    found = channels(log, dbc)
    assert found["Doors.Front"] == [(0.0, 42.0), (pytest.approx(0.1), 43.0)]
    assert [value for _, value in found["Doors.Rear"]] == [4.5]
    assert [value for _, value in found["Doors.Which"]] == [0.0, 1.0, 0.0]  # both of the first time: 1 µs apart
    assert [note.partition(": ")[2] for note in notes(log, dbc)] == [
        "1 frames of Doors are shorter than in the database: signals behind their end are left out",
        "1 frames are left out, which cannot be decoded: those of Doors (expected multiplexer id 0 or 1, but got 7)",
    ]


def test_a_block_holds_a_message_and_a_slice_of_time(tmp_path: Path, dbc: Path) -> None:
    frames = [motion(i / 100, i) if i % 2 else frame(i / 100, 512, b"\x00\x01\x00\x00") for i in range(100)]
    blocks = by_row(events(written(tmp_path / "drive.blf", frames), dbc))[TELEMETRY]
    assert len(blocks) == 10
    for block in blocks:
        assert isinstance(block.body, Telemetry)
        assert len({name.split(".")[0] for name in block.body.channels}) == 1
        assert block.end_us - block.start_us <= 200_000


# clocks


def test_stamps_since_the_epoch_say_when_it_was_and_those_from_zero_do_not(tmp_path: Path, dbc: Path) -> None:
    absolute = tmp_path / "absolute.log"
    absolute.write_text(
        "(1767323045.250000) can0 123#6400000000000000\n(1767323046.500001) can0 123#C800000000000000 T\n"
    )
    zero = tmp_path / "zero.log"
    zero.write_text("(000.000000) can0 123#6400000000000000\n(001.250001) can0 123#C800000000000000\n")
    for log, began_us in ((absolute, 1_767_323_045_250_000), (zero, None)):
        recording = replay.open_all([log, dbc])
        assert recording.utc_us == began_us
        assert recording.length_us == 1_250_001
        assert channels(log, dbc)["Motion.Speed"] == [(0.0, 1.0), (1.250001, 2.0)]


@pytest.mark.parametrize("ending", [".asc", ".blf", ".trc"])
def test_a_start_without_a_zone_orders_logs_and_claims_no_time(tmp_path: Path, dbc: Path, ending: str) -> None:
    later = written(tmp_path / f"drive_1{ending}", [motion(60 + i / 10, i) for i in range(10)])
    first = written(tmp_path / f"drive_2{ending}", [motion(i / 10, 100 + i) for i in range(10)])
    recording = replay.open_all([later, first, dbc])
    assert recording.utc_us is None
    found = samples(by_row(events(recording=recording))[TELEMETRY])["Motion.Speed"]
    assert [round(value * 100) for _, value in found] == [*range(100, 110), *range(10)]
    assert found[10][0] == pytest.approx(60.0, abs=2e-3)


def test_stamps_of_asc_that_are_relative_to_the_line_before_are_added_up(tmp_path: Path, dbc: Path) -> None:
    log = tmp_path / "drive.asc"
    lines = [
        "date Die M\u00e4r 3 09:10:11.500 2026",
        "base hex  timestamps relative",
        "no internal events logged",
        "   0.500000 1  123             Rx   d 8 64 00 00 00 00 00 00 00",
        "   0.250000 1  Statistic: D 1 R 0 XD 0 XR 0 E 0 O 0 B 0.1%",
        "   0.250000 1  123             Rx   d 8 C8 00 00 00 00 00 00 00",
    ]
    log.write_text("\n".join(lines), encoding="cp1252")
    assert channels(log, dbc)["Motion.Speed"] == [(0.5, 1.0), (1.0, 2.0)]
    assert replay.open_all([log, dbc]).parts[0].part.clock_us == round(
        datetime(2026, 3, 3, 9, 10, 11, 500_000, UTC).timestamp() * S_US
    )


def test_stamps_of_blf_before_the_start_of_the_measurement_come_first(tmp_path: Path, dbc: Path) -> None:
    log = tmp_path / "drive.blf"
    with can.BLFWriter(log, compression_level=0) as writer:
        for second in range(3):
            writer.on_message_received(motion(second, 100 * second))
    raw = log.read_bytes()
    first = raw.index(b"LOBJ", raw.index(b"LOBJ") + 4)  # in the container, which is an object too
    log.write_bytes(raw[: first + 24] + struct.pack("<q", -500_000_000) + raw[first + 32 :])
    assert channels(log, dbc)["Motion.Speed"] == [(0.0, 0.0), (1.5, 1.0), (2.5, 2.0)]


# candump as the kernel writes it


def test_error_frames_of_all_classes_and_codes_behind_data_are_no_signals(tmp_path: Path, dbc: Path) -> None:
    log = tmp_path / "drive.log"
    lines = [
        "(1767323045.000000) can0 20000123#0004000000000000",  # an error of class "controller" and others
        "(1767323045.100000) can0 123#6400000000000000_B",  # 8 bytes with the length code 11
        "(1767323045.200000) can0 123#R8",
        "",
        "candump was here",
        "(1767323045.300000) can0 123#C800000000000000",
    ]
    log.write_text("\n".join(lines))
    assert [value for _, value in channels(log, dbc)["Motion.Speed"]] == [1.0, 2.0]
    assert set(notes(log, dbc)) == {
        f"{log}: 1 error frames are left out",
        f"{log}: 1 remote frames are left out",
        f"{log}: 1 lines that are no frames are left out",
    }


# J1939


def test_j1939_messages_are_known_by_their_group_and_told_apart_by_their_source(tmp_path: Path) -> None:
    dbc = tmp_path / "truck.dbc"
    dbc.write_text(J1939)
    speed = bytes([0, 200, 0, 0x00, 0x20, 0, 0, 0])
    unknown = bytes([0, 0xFF, 0, 0xFF, 0xFF, 0, 0, 0])
    one = written(tmp_path / "one.blf", [frame(0, 0x0CF00400, speed), frame(0.1, 0x18F00400, unknown)])
    assert channels(one, dbc) == {"EEC1.EngSpeed": [(0.0, 1024.0)], "EEC1.Torque": [(0.0, 75.0)]}
    two = written(tmp_path / "two.blf", [frame(0, 0x0CF00400, speed), frame(0.1, 0x0CF00403, speed)])
    assert channels(two, dbc).keys() == {
        f"EEC1@{source}.{signal}" for source in (0, 3) for signal in ("EngSpeed", "Torque")
    }


# the database


def test_the_database_beside_a_log_is_found_by_its_name(tmp_path: Path) -> None:
    log = written(tmp_path / "drive.blf", [motion(0, 100)])
    with pytest.raises(UsageError, match="no database that says what is in them: name it too"):
        replay.open_all([log])
    (tmp_path / "drive.dbc").write_text(DATABASE)
    assert [value for _, value in channels(log)["Motion.Speed"]] == [1.0]


def test_a_database_alone_is_no_recording(dbc: Path) -> None:
    with pytest.raises(UsageError, match="can only explain a recording"):
        replay.open_all([dbc])


def test_units_in_utf_8_and_in_the_code_page_of_windows_are_read(tmp_path: Path) -> None:
    log = written(tmp_path / "drive.log", [motion(0, 100)])
    for encoding in ("utf-8", "cp1252"):
        (tmp_path / "car.dbc").write_text(DATABASE.replace('"deg"', '"°C"'), encoding=encoding)
        assert units(log, tmp_path / "car.dbc")["Motion.Angle"] == "°C"


def test_several_databases_go_together(tmp_path: Path, dbc: Path) -> None:
    (tmp_path / "more.dbc").write_text(
        DATABASE.replace("BO_ 291 Motion", "BO_ 1952 More").replace("VAL_ 291", "VAL_ 1952")
    )
    log = written(tmp_path / "drive.log", [motion(0, 100), frame(0.1, 0x7A0, bytes(8))])
    assert channels(log, dbc, tmp_path / "more.dbc").keys() >= {"Motion.Speed", "More.Speed"}


@pytest.mark.parametrize("text", ["", "hello", DATABASE.replace("SG_ Speed :", "SG_ Speed")])
def test_a_broken_or_foreign_database_is_refused(tmp_path: Path, text: str) -> None:
    log = written(tmp_path / "drive.log", [motion(0, 100)])
    (tmp_path / "drive.dbc").write_text(text)
    with pytest.raises(UsageError, match=r"drive\.(dbc|log)") as refused:
        replay.open_all([log])
    assert "\n" not in str(refused.value)


# broken logs


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"hello\nworld\n", bytes(range(256)) * 8])
def test_what_is_no_log_is_refused_in_one_line(tmp_path: Path, dbc: Path, ending: str, content: bytes) -> None:
    log = tmp_path / f"drive{ending}"
    log.write_bytes(content)
    with pytest.raises(UsageError, match=f"drive{ending}") as refused:
        replay.open_all([log, dbc])
    assert "\n" not in str(refused.value)


def test_a_log_that_is_cut_off_is_sent_as_far_as_it_goes(tmp_path: Path, dbc: Path) -> None:
    log = written(tmp_path / "drive.blf", [motion(i / 100, i % 60_000) for i in range(40_000)])
    whole = log.read_bytes()
    log.write_bytes(whole[: len(whole) // 2])
    assert 1000 < len(channels(log, dbc)["Motion.Speed"]) < 39_000
    assert any("could not be read to its end" in note for note in notes(log, dbc))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_an_mf4_that_is_cut_off_is_refused_in_one_line(tmp_path: Path, dbc: Path, share: float) -> None:
    log = written(tmp_path / "drive.mf4", [motion(i / 100, i) for i in range(1000)])
    whole = log.read_bytes()
    log.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UsageError, match=r"drive\.mf4 is no MDF 4 file, or broken") as refused:
        replay.open_all([log, dbc])
    assert "\n" not in str(refused.value)
    gc.collect()  # asammdf's half-made objects have nothing to add


@pytest.mark.parametrize(
    ("name", "library", "wanted"),
    [
        ("drive.blf", "can", "can"),
        ("drive.mf4", "asammdf", "can"),
        ("car.edf", "edfio", "biosignals"),
        ("ward.hea", "wfdb", "biosignals"),
        ("rlog", "capnp", "openpilot"),
    ],
)
def test_a_missing_library_is_a_line_that_names_its_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, library: str, wanted: str
) -> None:
    (tmp_path / name).touch()
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UsageError, match=rf"needs {library}: pip install 'streamer-multimodal\[{wanted}\]'"):
        replay.open_all([tmp_path / name])


# signals in MF4


def measured(path: Path, groups: Sequence[tuple[str, Sequence[asammdf.Signal]]], start: datetime | None = None) -> Path:
    with asammdf.MDF(version="4.10") as file:
        file.header.start_time = start or datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
        for name, signals in groups:
            file.append(list(signals), acq_name=name)
        file.save(path)
    return path


def test_signals_that_a_recorder_decoded_need_no_database(tmp_path: Path) -> None:
    seconds = np.arange(10_000) / 100
    valid = np.arange(10_000) % 7 != 3
    texts = {"val_0": 0, "val_1": 1, "text_0": "park", "text_1": "drive"}
    log = measured(
        tmp_path / "drive.mf4",
        [
            (
                "fast",
                [
                    asammdf.Signal(np.sin(seconds), seconds, name="speed", unit="m/s", invalidation_bits=~valid),
                    asammdf.Signal((seconds * 2).astype("i2"), seconds, "°C", "heat", {"a": 0.5, "b": -40.0}),
                    asammdf.Signal(np.array([b"note"] * 10_000), seconds, name="words", encoding="utf-8"),
                ],
            ),
            ("slow", [asammdf.Signal(np.array([1, 0], "u1"), np.array([0.005, 99.0]), name="gear", conversion=texts)]),
            ("rear", [asammdf.Signal(np.array([5.0]), np.array([50.0]), name="speed", unit="mph")]),
        ],
    )
    found = channels(log)
    assert found.keys() == {"fast.speed", "heat", "gear", "rear.speed"}
    assert np.array(found["fast.speed"]) == pytest.approx(
        np.column_stack([seconds, np.sin(seconds)])[valid], rel=0, abs=1e-6
    )
    assert [value for _, value in found["heat"]] == [s * 0.5 - 40 for s in (seconds * 2).astype("i2")]
    assert found["gear"] == [(0.005, 1.0), (99.0, 0.0)]
    assert found["rear.speed"] == [(50.0, 5.0)]
    assert units(log) == {"fast.speed": "m/s", "heat": "°C", "gear": "", "rear.speed": "mph"}
    assert notes(log) == [f"{log}: words (is no number) are left out"]
    assert replay.open_all([log]).utc_us == round(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp() * S_US)


def test_a_start_in_local_time_claims_no_utc(tmp_path: Path) -> None:
    signal = asammdf.Signal(np.arange(3.0), np.arange(3) / 10, name="speed")
    log = measured(tmp_path / "drive.mf4", [("g", [signal])], datetime(2026, 1, 2, 3, 4, 5))
    recording = replay.open_all([log])
    assert recording.utc_us is None
    assert recording.parts[0].part.clock_us == round(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp() * S_US)


def test_only_what_begins_after_the_wanted_start_is_decoded(tmp_path: Path, dbc: Path) -> None:
    log = written(tmp_path / "drive.log", [motion(i / 100, i) for i in range(1000)])
    made = replay.open_all([log, dbc]).parts[0].part
    times_us = [record.time_us for record in made.records(5 * S_US)]
    assert 4_700_000 < min(times_us) <= 5_000_000
    assert max(times_us) == pytest.approx(9_800_000, abs=200_000)


def test_messages_without_signals_are_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "car.dbc").write_text('VERSION ""\n\nNS_ :\n\nBS_:\n\nBU_: Gateway\n\nBO_ 291 Motion: 7 Gateway\n')
    log = written(tmp_path / "drive.log", [motion(0, 100)])
    with pytest.raises(UsageError, match=r"drive\.log: the messages in it have no signals, by .*car\.dbc$"):
        replay.open_all([log, tmp_path / "car.dbc"])


def test_lines_that_no_frame_can_be_read_from_are_counted_and_printed_by_no_library(
    tmp_path: Path, dbc: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = written(tmp_path / "drive.trc", [motion(i * 0.01, 100 * i) for i in range(100)])
    text = whole.read_text().rstrip()
    cut = tmp_path / "cut.trc"
    cut.write_text(text[: text.rindex("DT") + 5])  # the recorder lost power while it wrote the last line
    assert [value for _, value in channels(cut, dbc)["Motion.Speed"]] == [float(i) for i in range(99)]
    assert notes(cut, dbc) == [f"{cut}: 1 lines that are no frames are left out"]
    assert caplog.records == []


def test_a_damaged_line_of_candump_is_left_out_and_the_rest_is_read(tmp_path: Path, dbc: Path) -> None:
    log = written(tmp_path / "drive.log", [motion(i * 0.01, 100 * i) for i in range(5)])
    lines = log.read_text().splitlines()
    lines[1] = lines[1].replace("123#6400", "123#64#0")
    lines[3] = lines[3].replace("123#2C01", "123#2C1", 1)
    log.write_text("\n".join(lines))
    assert [value for _, value in channels(log, dbc)["Motion.Speed"]] == [0.0, 2.0, 4.0]
    assert notes(log, dbc) == [f"{log}: 2 lines that are no frames are left out"]
