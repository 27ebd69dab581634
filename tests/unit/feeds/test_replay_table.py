"""Telemetry tables as loggers, autopilots, phones and spreadsheets write them."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.errors import UsageError
from streamer.events import TELEMETRY
from streamer.feeds import replay
from tests.recordings import START_US, by_row, events, samples

EPOCH_S = 1_700_000_000  # 2023-11-14 22:13:20 UTC


def table(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_text(text, encoding=encoding)
    return path


def measured(path: Path) -> dict[str, list[tuple[float, float]]]:
    """Channel -> (second of the recording, value) of every sample."""
    found = samples(by_row(events(path))[TELEMETRY])
    return {name: [(round(moment, 6), value) for moment, value in pairs] for name, pairs in found.items()}


def values(path: Path) -> dict[str, list[float]]:
    return {name: [value for _, value in found] for name, found in measured(path).items()}


def units(path: Path) -> dict[str, str]:
    return {
        name: channel.unit
        for event in by_row(events(path))[TELEMETRY]
        for name, channel in event.body.channels.items()  # type: ignore[union-attr]  # telemetry has a parsed body
    }


def notes(path: Path) -> str:
    recording = replay.open_all([path])
    return " ".join(recording.notes)


def test_a_table_becomes_blocks_with_units(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "time_s,speed [m/s],on\n" + "".join(f"{i / 50},{i},true\n" for i in range(100)))
    found = by_row(events(path))[TELEMETRY]
    assert len(found) == 10
    measured = samples(found)
    assert [v for _, v in measured["speed"]] == list(range(100))
    assert np.allclose([t for t, _ in measured["speed"]], np.arange(100) / 50)
    assert {v for _, v in measured["on"]} == {1.0}
    assert found[0].body.channels["speed"].unit == "m/s"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("header", "times"),
    [
        ("t", ("0", "0.5")),
        ("Time [ms]", ("0", "500")),
        ("timestamp_us", ("1700000000000000", "1700000000500000")),
        ("time_ns", ("1700000000000000000", "1700000000500000000")),
        ("timestamp", ("1700000000.0", "1700000000.5")),
        ("timestamp", ("2024-05-01T12:00:00Z", "2024-05-01T14:00:00.5+02:00")),
        ("t", ("46408.5", "46409.0")),
    ],
)
def test_times_are_understood_in_many_forms(header: str, times: tuple[str, str], tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", f"speed;{header}\n1;{times[0]}\n2;{times[1]}\n")
    assert samples(by_row(events(path))[TELEMETRY]) == {"speed": [(0.0, 1.0), (0.5, 2.0)]}
    assert replay.open_all([path]).utc_us == {"1": 1_700_000_000_000_000, "2": 1_714_564_800_000_000}.get(
        times[0][0] if len(times[0]) > 9 else ""
    )


def test_an_empty_cell_is_no_measurement(tmp_path: Path) -> None:
    rows = "".join(f"{i / 100},{i},{i if i % 10 == 0 else ''},\n" for i in range(20))
    found = by_row(events(table(tmp_path / "a.csv", "t,fast,slow,never\n" + rows)))[TELEMETRY]
    assert len(found) == 2
    measured = samples(found)
    assert len(measured["fast"]) == 20
    assert measured["slow"] == [(0.0, 0.0), (0.1, 10.0)]
    assert "never" not in measured


def test_rows_of_the_same_time_are_one(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "t,a,b\n0,1,\n0,,2\n\n0.1,3,4\n")
    assert samples(by_row(events(path))[TELEMETRY]) == {"a": [(0.0, 1.0), (0.1, 3.0)], "b": [(0.0, 2.0), (0.1, 4.0)]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "header row"),
        ("speed,gear\n1,2\n", "column of times"),
        ("t\n1\n", "no channel"),
        ("t,a\n", "no rows"),
        ("t,a\n0,1\n0.1,fast\n", "line 3: 'fast' in column 'a'"),
        ("t,a\n0,1\n0.1\n0.2,2\n", "line 3 has 1 cells"),
        ("t,a\n0\n", "line 2 has 1 cells"),
        ("t,a\n0,1,2\n", "line 2 has 3 cells"),
        ("t,a\n0,1\n1,2\n0.5,3\n", "line 4 is earlier"),
        ("t,a\n0,1\nsoon,2\n", "line 3: 'soon' is no time"),
        ("t,a\n-1,1\n", "line 2"),
        ("time_s,a\n1700000000000,1\n", "time_ms"),
        ("t,a\n2024-13-01 12:00,1\n", "line 2: '2024-13-01 12:00' is no time"),
        ("t,a\n01-Mai-2024 12:00,1\n", "line 2: '01-Mai-2024 12:00' is no time"),
        ("t,a\n0,1 %\n1,2 %\n", "no column of numbers"),
        ("t,a\nsoon,fast\n", "no rows"),
        ("# made by hand\n\nt,a\n0,1\n0.1,fast\n", "line 5: 'fast' in column 'a'"),
    ],
)
def test_a_broken_table_is_refused_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", text)
    with pytest.raises(UsageError) as refused:
        replay.open_all([path])
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_tables_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"t,a\n0,1\n\xff\xfe\x00\n")
    with pytest.raises(UsageError, match="UTF-8"):
        replay.open_all([tmp_path / "a.csv"])


# what separates columns, and what else is in the file


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_columns_may_be_separated_by_commas_semicolons_tabs_or_bars(separator: str, tmp_path: Path) -> None:
    text = "t,a,b\n0,1,2\n0.5,3,4\n".replace(",", separator)
    assert values(table(tmp_path / "a.csv", text)) == {"a": [1, 3], "b": [2, 4]}


def test_numbers_may_have_decimal_commas_and_other_minus_signs(tmp_path: Path) -> None:
    text = "time;gFx;gFy;Gain\r\n0,10;0,1178;−0,5612;1.234,5\r\n0,20;0,1180;−0,5610;2\r\n"
    assert measured(table(tmp_path / "a.csv", text)) == {
        "gFx": [(0.1, 0.1178), (0.2, 0.118)],
        "gFy": [(0.1, -0.5612), (0.2, -0.561)],
        "Gain": [(0.1, 1234.5), (0.2, 2)],
    }


def test_a_comma_is_no_decimal_comma_where_it_separates_columns(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'1,5' in column 'a' is no number"):
        replay.open_all([table(tmp_path / "a.csv", 't,a\n0,1\n0.1,"1,5"\n')])


def test_comments_and_a_declared_separator_are_no_rows(tmp_path: Path) -> None:
    text = "# Time: 2024-04-21 15:54:46, Device: D4E9\n\nsep=;\nt;a\n0;1\n# pause\n\n0.5;2\n"
    path = table(tmp_path / "a.csv", text)
    assert values(path) == {"a": [1, 2]}
    assert notes(path) == ""


def test_other_lines_above_the_header_are_passed_over_and_noted(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv", "Driver,Ann\nDate,2024-05-01\nTime,12:30:00\n\nTime (s),speed (km/h)\n0,50\n0.5,60\n"
    )
    assert values(path) == {"speed": [50, 60]}
    assert "3 lines above the header row" in notes(path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_may_be_in_any_unicode(encoding: str, tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", 't,"accélération [m/s²]"\n0,1\n', encoding)
    assert units(path) == {"accélération": "m/s²"}
    assert notes(path) == ""


def test_text_in_windows_1252_is_read_and_noted(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "t,ACCELEROMETER X (m/s²)\n0,1\n", "cp1252")
    assert units(path) == {"ACCELEROMETER X": "m/s²"}
    assert "Windows-1252" in notes(path)


def test_a_log_that_ends_inside_a_line_is_sent_up_to_there(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "t,a,b\n0,1,2\n0.1,3,4\n0.2,5")
    assert values(path) == {"a": [1, 3], "b": [2, 4]}
    assert "ends inside line 4" in notes(path)


# columns


def test_brackets_with_an_index_or_an_axis_are_part_of_the_name(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "time_s,gyro_rad[0],gyro_rad[1],cell_v[0],G(x),p[1] [hPa]\n0,1,2,3.7,4,5\n")
    assert values(path) == {"gyro_rad[0]": [1], "gyro_rad[1]": [2], "cell_v[0]": [3.7], "G(x)": [4], "p[1]": [5]}
    assert units(path) == {"gyro_rad[0]": "", "gyro_rad[1]": "", "cell_v[0]": "", "G(x)": "", "p[1]": "hPa"}


def test_units_stand_in_brackets_or_are_a_quotient_at_the_end(tmp_path: Path) -> None:
    header = "t,speed (km/h),height [m],w_RS_S_x [rad s^-1],accel_x_m/s^2,q_RS_w [],power (W),n/a"
    assert units(table(tmp_path / "a.csv", f"{header}\n0,1,2,3,4,5,6,7\n")) == {
        "speed": "km/h",
        "height": "m",
        "w_RS_S_x": "rad s^-1",
        "accel_x_m/s^2": "m/s^2",
        "q_RS_w": "",
        "power": "W",
        "n/a": "",
    }


def test_columns_that_differ_in_their_unit_alone_keep_it_in_their_name(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "t,speed (km/h),speed (mph)\n0,100,62\n")
    assert values(path) == {"speed (km/h)": [100], "speed (mph)": [62]}
    assert units(path) == {"speed (km/h)": "km/h", "speed (mph)": "mph"}


def test_a_second_header_row_may_hold_the_units(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "Time,Speed,Gear,Temp [K]\nms,km/h,,\n0,50,3,300\n500,60,4,301\n")
    assert measured(path)["Speed"] == [(0, 50), (0.5, 60)]
    assert units(path) == {"Speed": "km/h", "Gear": "", "Temp": "K"}


def test_columns_of_one_name_are_told_apart_and_noted(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "t,a,a,b\n0,1,2,3\n")
    assert values(path) == {"a": [1], "a.2": [2], "b": [3]}
    assert "sent as a.2" in notes(path)


def test_every_column_that_is_not_sent_is_noted(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", ",t,provider,empty,a,\n0,0,gps,,1,\n1,0.1,gps,nan,2,\n")
    assert values(path) == {"a": [1, 2]}
    assert "texts were not sent: provider (gps)" in notes(path)
    assert "without a value were not sent: empty" in notes(path)
    assert "without a name were not sent: 1" in notes(path)


def test_numbers_in_a_column_that_begins_with_a_text_are_noted(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "t,lat,id,a\n0,No GPS,A,1\n0.1,47.1,B,2\n")
    assert values(path) == {"a": [1, 2]}
    assert "texts were not sent: lat (No GPS), id (A)" in notes(path)
    assert "column 'lat' begins with a text, but holds numbers too: empty the cells like 'No GPS'" in notes(path)
    assert "'id'" not in notes(path)


def test_truth_hexadecimal_numbers_and_missing_values_are_understood(tmp_path: Path) -> None:
    rows = "0,True,0x1A,NA\n0.1,FALSE,-0x01,1\n0.2,yes,,null\n0.3,off,0xff,-\n"
    assert values(table(tmp_path / "a.csv", f"t,on,id,some\n{rows}")) == {
        "on": [1, 0, 1, 0],
        "id": [26, -1, 255],
        "some": [1],
    }


# times


def test_microseconds_since_boot_without_a_unit_are_asked_for(tmp_path: Path) -> None:
    rows = "".join(f"{20_326_716 + 12_000 * i},{i}\n" for i in range(50))
    with pytest.raises(UsageError) as refused:
        replay.open_all([table(tmp_path / "px4.csv", f"timestamp,speed\n{rows}")])
    assert "timestamp_us" in str(refused.value)
    assert "a row each 12000" in str(refused.value)
    for name, text in {"a.csv": f"timestamp_us,speed\n{rows}", "b.csv": f"timestamp,speed\nus,m/s\n{rows}"}.items():
        assert replay.open_all([table(tmp_path / name, text)]).length_us == 588_000
        assert measured(tmp_path / name)["speed"][-1] == (0.588, 49)


@pytest.mark.parametrize("times", [(0, 10, 20), (5_000_000_000, 5_005_000_000), (46_408_000, 46_408_005)])
def test_whole_numbers_that_are_hardly_seconds_are_asked_for(times: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="write the unit into the header row: t_s, t_ms, t_us or t_ns"):
        replay.open_all([table(tmp_path / "a.csv", "t,a\n" + "".join(f"{time},1\n" for time in times))])


@pytest.mark.parametrize("times", [("0", "1"), ("3600", "3601"), ("0.0", "10.5"), ("46408.00", "46408.01"), ("7",)])
def test_numbers_that_can_be_seconds_are_seconds(times: tuple[str, ...], tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "t,a\n" + "".join(f"{time},1\n" for time in times))
    moments = [moment for moment, _ in measured(path)["a"]]
    assert moments[-1] - moments[0] == pytest.approx(float(times[-1]) - float(times[0]))
    assert notes(path) == ""


@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (f"{EPOCH_S}", f"{EPOCH_S}.5", ""),
        (f"{EPOCH_S}000", f"{EPOCH_S}500", "milliseconds since 1970: 2023-11-14 22:13:20 UTC"),
        (f"{EPOCH_S}000000", f"{EPOCH_S}500000", "microseconds since 1970"),
        (f"{EPOCH_S}000000000", f"{EPOCH_S}500000000", "nanoseconds since 1970"),
    ],
)
def test_times_since_the_epoch_are_known_by_their_size(first: str, second: str, said: str, tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", f"time,a\n{first},1\n{second},2\n")
    recording = replay.open_all([path])
    assert (recording.utc_us, recording.length_us) == (EPOCH_S * 10**6, 500_000)
    assert said in " ".join(recording.notes)
    assert bool(said) == bool(recording.notes)


def test_nanoseconds_are_rounded_to_microseconds_without_loss(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "time_ns,a\n1403636579758555392,1\n1403636579763555584,2\n")
    assert replay.open_all([path]).utc_us == 1_403_636_579_758_555
    assert replay.open_all([path]).length_us == 5_001


@pytest.mark.parametrize(
    ("first", "second", "utc_us"),
    [
        ("2024-05-01T12:00:00Z", "2024-05-01T12:00:00.500Z", 1_714_564_800_000_000),
        ("2024-05-01 12:00:00.0 +0200", "2024-05-01 12:00:00.5 +0200", 1_714_557_600_000_000),
        ("20240501T120000Z", "20240501T120000.5Z", 1_714_564_800_000_000),
        ("2024-05-01 12:00:00", "2024-05-01 12:00:00.5", None),
        ("2024/05/01 12:00:00,000", "2024/05/01 12:00:00,500", None),
        ("2019-11-08 09:20:26:236", "2019-11-08 09:20:26:736", None),
        ("01.05.2024 12:00:00.0", "01.05.2024 12:00:00.5", None),
        ("01-MAY-2024 10:00:00.10", "01-May-2024 10:00:00.6", None),
        ("5/31/2024 9:05:01.0 AM", "5/31/2024 9:05:01.5 AM", None),
        ("31/05/2024 9:05:01.0", "31/05/2024 9:05:01.5", None),
        ("12/31/2023 11:59:59.5 PM", "1/1/2024 12:00:00 AM", None),
        ("01-May-2024 12:00:00.0 GMT", "01-May-2024 12:00:00.5 GMT", 1_714_564_800_000_000),
        ("12:30:59.250", "12:30:59.750", None),
        ("0:00:01.25", "0:00:01.75", None),
    ],
)
def test_dates_and_times_of_day_are_understood(first: str, second: str, utc_us: int | None, tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", f"DateTime;a\n{first};1\n{second};2\n")
    (begin, _), (end, _) = measured(path)["a"]
    assert end - begin == pytest.approx(0.5)
    recording = replay.open_all([path])
    assert recording.utc_us == utc_us
    assert ("no time zone" in " ".join(recording.notes)) == (utc_us is None and len(first) > 15)


def test_a_column_of_dates_completes_times_of_day(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "Date,Time,a\n2024-05-01,23:59:59.5,1\n2024-05-02,00:00:00.0,2\n")
    assert measured(path) == {"a": [(0, 1), (0.5, 2)]}
    assert "no time zone" in notes(path)


def test_times_of_day_go_on_past_midnight(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "Time,a\n23:59:59.5,1\n00:00:00.0,2\n00:00:00.5,3\n")
    assert measured(path) == {"a": [(0, 1), (0.5, 2), (1.0, 3)]}


def test_a_date_beside_other_times_is_a_text_that_is_noted(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "Date,elapsed_s,a\n2024-05-01,0,1\n")
    assert values(path) == {"a": [1]}
    assert "Date (2024-05-01)" in notes(path)


def test_measurements_that_another_row_of_the_same_time_replaced_are_noted(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "t,a,b\n0,1,\n0,,5\n0,2,\n1,3,\n")
    assert values(path) == {"a": [2, 3], "b": [5]}
    assert "measurements were replaced 1 times by a row of the same time" in notes(path)


# exports of phones, autopilots and data sets, with their own header rows


def test_exports_of_sensor_logger(tmp_path: Path) -> None:
    rows = "".join(f"{1_767_620_467_350_470_700 + 10_000_000 * i},{0.143471 + i / 100},{i},2,3\n" for i in range(20))
    path = table(tmp_path / "Accelerometer.csv", f"time,seconds_elapsed,z,y,x\n{rows}")
    found = measured(path)
    assert set(found) == {"seconds_elapsed", "z", "y", "x"}
    assert found["z"] == [(i / 100, i) for i in range(20)]
    assert replay.open_all([path]).utc_us == 1_767_620_467_350_471


def test_exports_of_phyphox_with_decimal_commas(tmp_path: Path) -> None:
    header = '"Time (s)";"Acceleration x (m/s^2)";"Absolute acceleration (m/s^2)"'
    rows = "0,000000000E0;3,555450439E-1;1,006282043E1\n1,000000000E-2;3,094482422E-1;9,99E0\n"
    path = table(tmp_path / "Raw Data.csv", f"{header}\n{rows}")
    assert measured(path)["Acceleration x"] == [(0, 0.3555450439), (0.01, 0.3094482422)]
    assert units(path) == {"Acceleration x": "m/s^2", "Absolute acceleration": "m/s^2"}


def test_exports_of_androsensor(tmp_path: Path) -> None:
    header = "ACCELEROMETER X (m/s²);GPS SPEED (Kmh);Time since start in ms ;YYYY-MO-DD HH-MI-SS_SSS"
    rows = "0.1;36;12;2019-11-08 09:20:26:236\n0.2;37;512;2019-11-08 09:20:26:736\n"
    path = table(tmp_path / "a.csv", f"{header}\n{rows}", "cp1252")
    assert measured(path) == {
        "ACCELEROMETER X": [(0.012, 0.1), (0.512, 0.2)],
        "GPS SPEED": [(0.012, 36), (0.512, 37)],
    }
    assert units(path) == {"ACCELEROMETER X": "m/s²", "GPS SPEED": "Kmh"}
    assert "YYYY-MO-DD HH-MI-SS_SSS (2019-11-08 09:20:26:" in notes(path)


def test_exports_of_sensorlog(tmp_path: Path) -> None:
    header = "loggingTime(txt),loggingSample(N),identifierForVendor(txt),accelerometerAccelerationX(G)"
    rows = "2022-12-28 10:00:00.100 -0500,1,A-B,0.5\n2022-12-28 10:00:00.200 -0500,2,A-B,0.6\n"
    path = table(tmp_path / "a.csv", f"{header}\n{rows}")
    assert values(path) == {"loggingSample": [1, 2], "accelerometerAccelerationX": [0.5, 0.6]}
    assert replay.open_all([path]).utc_us == 1_672_239_600_100_000


def test_exports_of_physics_toolbox(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", "time;gFx;gFy;TgF\n0,004;0,1;0,2;1,0\n0,008;0,3;0,4;1,0\n")
    assert values(path) == {"gFx": [0.1, 0.3], "gFy": [0.2, 0.4], "TgF": [1, 1]}


def test_files_of_the_euroc_data_set(tmp_path: Path) -> None:
    header = "#timestamp [ns],w_RS_S_x [rad s^-1],a_RS_S_x [m s^-2]"
    rows = "1403636579758555392,-0.0991,8.1476\n1403636579763555584,-0.0990,8.1477\n"
    path = table(tmp_path / "data.csv", f"{header}\n{rows}")
    assert values(path) == {"w_RS_S_x": [-0.0991, -0.099], "a_RS_S_x": [8.1476, 8.1477]}
    assert units(path) == {"w_RS_S_x": "rad s^-1", "a_RS_S_x": "m s^-2"}


def test_exports_of_racechrono_with_words_above_and_below_the_header(tmp_path: Path) -> None:
    above = 'This file is created by RaceChrono v7.0.9.\nFormat,3\nSession title,"Lap 1"\nCreated,01/05/2024,10:00\n\n'
    header = "timestamp,lap_number,elapsed_time,speed,x_acc\nunix time,,s,m/s,G\n,,,gps,acc\n"
    rows = "1714564800.0,,0.0,3.3,0.1\n1714564800.1,,0.1,3.4,0.2\n"
    path = table(tmp_path / "a.csv", above + header + rows)
    assert measured(path)["speed"] == [(0, 3.3), (0.1, 3.4)]
    assert units(path) == {"elapsed_time": "s", "speed": "m/s", "x_acc": "G"}
    assert replay.open_all([path]).utc_us == 1_714_564_800_000_000


def test_exports_of_torque_whose_first_column_of_times_cannot_be_read(tmp_path: Path) -> None:
    header = "GPS Time,Device Time,Longitude, Latitude,GPS Speed (Meters/second),Engine RPM(rpm)"
    rows = (
        "Mon May 01 10:00:00 GMT+02:00 2024,01-May-2024 10:00:00.123,8.1,47.2,3.4,900\n"
        "-,01-May-2024 10:00:01.123,8.2,47.2,-,905\n"
    )
    path = table(tmp_path / "a.csv", f"{header}\n{rows}")
    assert measured(path)["Engine RPM"] == [(0, 900), (1, 905)]
    assert measured(path)["GPS Speed"] == [(0, 3.4)]
    assert "GPS Time (Mon May 01 10:00:00 )" in notes(path)


def test_dates_are_in_utc_if_the_header_says_so(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", '"Timestamp (UTC)";"Distance (m)"\n"01-MAY-2024 12:00:00.00";0,5\n')
    assert replay.open_all([path]).utc_us == 1_714_564_800_000_000
    assert notes(path) == ""


def test_topics_of_ros_as_text(tmp_path: Path) -> None:
    path = table(
        tmp_path / "a.csv", "%time,field.header.seq,field.x\n1700000000000000000,1,2\n1700000000100000000,2,3\n"
    )
    assert measured(path)["field.x"] == [(0, 2), (0.1, 3)]


def test_logs_of_ardupilot(tmp_path: Path) -> None:
    path = table(tmp_path / "IMU.csv", "TimeUS,I,GyrX\n93000000,0,0.1\n93002500,0,0.2\n")
    assert measured(path)["GyrX"] == [(0, 0.1), (0.0025, 0.2)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "a [m]", "a (s)", "cell[0]", "cell[1]", "", "time", "date", "x"]),
            st.sampled_from(["1", "", "gps", "true", "0x10", "2024-05-01", "nan"]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_each_column_is_sent_or_noted(columns: list[tuple[str, str]]) -> None:
    columns = [*columns, ("last", "7")]
    with TemporaryDirectory() as folder:
        names, cells = zip(*columns, strict=True)
        path = table(Path(folder) / "a.csv", f"t,{','.join(names)}\n0,{','.join(cells)}\n1,{','.join(cells)}\n")
        recording = replay.open_all([path])
        sent = len(samples(by_row(events(recording=recording))[TELEMETRY]))
        said = " ".join(recording.notes)
        texts = sum(cell in ("gps", "2024-05-01") and name != "" for name, cell in columns)
        empty = sum(cell in ("", "nan") and name != "" for name, cell in columns)
        nameless = sum(name == "" and cell != "" for name, cell in columns)
        assert sent + texts + empty == sum(name != "" for name, _ in columns)
        assert ("columns of texts were not sent" in said) == bool(texts)
        assert ("columns without a value were not sent" in said) == bool(empty)
        assert ("columns without a name were not sent" in said) == bool(nameless)


def test_tables_of_one_clock_keep_their_distance(data: Path, tmp_path: Path) -> None:
    folder = data / "comma2k19"
    clocks, counts = {}, {}
    for name, sensor in {
        "speed": "CAN/speed",
        "steer": "CAN/steering_angle",
        "acceleration": "IMU/accelerometer",
    }.items():
        times, values = np.load(folder / sensor / "t"), np.load(folder / sensor / "value")
        values = values.reshape(len(times), -1)
        header = ",".join(["t", *(f"{name}{i}" for i in range(values.shape[1]))])
        rows = [",".join(map(repr, map(float, (t, *v)))) for t, v in zip(times, values, strict=True)]
        table(tmp_path / f"{name}.csv", "\n".join([header, *rows]))
        clocks[f"{name}0"], counts[f"{name}0"] = times, len(times)
    measured = samples(by_row(events(*sorted(tmp_path.glob("*.csv"))))[TELEMETRY])
    assert {name: len(measured[name]) for name in counts} == counts
    begin = min(times[0] for times in clocks.values())
    for name, times in clocks.items():
        assert np.allclose([t for t, _ in measured[name]], times - begin, atol=1e-5)


def test_what_begins_at_the_session_start_begins_there(tmp_path: Path) -> None:
    assert events(table(tmp_path / "a.csv", "t,a\n1000000,1\n1000001,2\n"))[0].start_us == START_US
