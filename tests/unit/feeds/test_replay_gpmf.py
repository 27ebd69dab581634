"""GoPro's telemetry: what a payload holds, and when its samples were taken."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamer.events import TELEMETRY, Telemetry
from streamer.feeds import replay
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.media import gpmf, gpmftrack
from tests.recordings import by_row, events, samples

S_US = 1_000_000
NAN = float("nan")


def klv(key: str, kind: str, size: int, value: bytes) -> bytes:
    raw = struct.pack(">4sBBH", key.encode(), ord(kind), size, len(value) // size) + value
    return raw + b"\0" * (-len(raw) % 4)


def nest(key: str, *inside: bytes) -> bytes:
    return klv(key, "\0", 1, b"".join(inside))


def shorts(*values: int) -> bytes:
    return struct.pack(f">{len(values)}h", *values)


def payload(*streams: bytes, device: int = 1) -> bytes:
    return nest("DEVC", klv("DVID", "L", 4, struct.pack(">I", device)), klv("DVNM", "c", 1, b"Camera"), *streams)


def sensor(key: str, count: int, stamp_us: int | None = None, first: int = 0) -> bytes:
    """A stream of one channel that counts up."""
    stamp = b"" if stamp_us is None else klv("STMP", "J", 8, struct.pack(">Q", stamp_us))
    return nest("STRM", stamp, klv(key, "s", 2, shorts(*range(first, first + count))))


def read(raw: bytes) -> gpmf.Stream:
    (found,) = gpmf.read(raw).streams
    return found


def sent(*payloads: bytes, length_us: int = S_US) -> dict[str, list[tuple[float, float]]]:
    """Channel -> (second of the film, value) of every sample."""
    track = gpmftrack.Track()
    records = [r for i, raw in enumerate(payloads) for r in track.add(raw, i * length_us, length_us)]
    records += track.rest()
    assert all(a.due_us <= b.due_us for a, b in pairwise(records))
    return measured(records)


def measured(records: Iterable[Outgoing]) -> dict[str, list[tuple[float, float]]]:
    channels: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        block = msgspec.json.decode(record.payload, type=Telemetry)
        assert block.times is not None
        for name, channel in block.channels.items():
            times = [round(record.time_us / S_US + time, 6) for time in block.times]
            channels.setdefault(name, []).extend(zip(times, channel.values, strict=True))
    return channels


def notes(*payloads: bytes) -> str:
    track = gpmftrack.Track()
    for i, raw in enumerate(payloads):
        list(track.add(raw, i * S_US, S_US))
    return " ".join(track.notes())


# what a payload holds


def test_a_sensor_is_scaled_and_its_axes_point_forwards() -> None:
    accelerometer = nest(
        "STRM",
        klv("STNM", "c", 1, b"Accelerometer"),
        klv("ORIN", "c", 1, b"YxZ"),
        klv("SIUN", "c", 4, b"m/s\xb2"),
        klv("SCAL", "s", 2, shorts(100)),
        klv("ACCL", "s", 6, shorts(100, 200, 300, 400, 500, 600)),
    )
    found = read(payload(accelerometer))
    assert found.names == ("ACCL.y", "ACCL.x", "ACCL.z")
    assert found.units == ("m/s²",) * 3
    assert found.values_NC.tolist() == [[1.0, -2.0, 3.0], [4.0, -5.0, 6.0]]


def test_names_of_axes_are_read_from_the_description_of_older_cameras() -> None:
    gyroscope = nest("STRM", klv("STNM", "c", 1, b"Gyro (z, x,y)"), klv("GYRO", "s", 6, shorts(1, 2, 3)))
    assert read(payload(gyroscope)).names == ("GYRO.z", "GYRO.x", "GYRO.y")


def test_fields_of_a_structure_that_are_no_numbers_are_passed_over() -> None:
    mixed = nest(
        "STRM", klv("TYPE", "c", 1, b"Ff[2]S"), klv("myDD", "?", 14, b"ABCD" + struct.pack(">ffH", 1.5, 2.5, 7))
    )
    found = read(payload(mixed))
    assert np.array_equal(found.values_NC, [[NAN, 1.5, 2.5, 7.0]], equal_nan=True)
    assert sent(payload(mixed)) == {"myDD.1": [(0, 1.5)], "myDD.2": [(0, 2.5)], "myDD.3": [(0, 7)]}


def test_scenes_are_a_channel_for_each_class() -> None:
    def scene(**classes: float) -> bytes:
        return klv("SCEN", "?", 8, b"".join(struct.pack(">4sf", n.encode(), p) for n, p in classes.items()))

    found = sent(payload(nest("STRM", klv("TYPE", "c", 1, b"Ff"), scene(SNOW=0.5, WATR=0.25), scene(SNOW=1.0))))
    assert found == {"SCEN.SNOW": [(0, 0.5), (0.5, 1.0)], "SCEN.WATR": [(0, 0.25)]}


def test_lists_and_texts_are_no_channels_and_noted() -> None:
    faces = nest("STRM", klv("TYPE", "c", 1, b"Lffff"), *(klv("FACE", "?", 20, bytes(20 * n)) for n in (1, 1)))
    hues = nest("STRM", klv("TYPE", "c", 1, b"BB"), *(klv("HUES", "?", 2, bytes(6)) for _ in range(3)))
    texts = nest("STRM", klv("FWVS", "c", 1, b"1.1.11.0"))
    unscaled = nest("STRM", klv("SCAL", "s", 2, shorts(0)), klv("WNDM", "B", 1, b"\1\2"))
    one = payload(faces, hues, texts, unscaled)
    assert gpmf.read(one).streams == []
    assert notes(one, one) == "telemetry that is no numbers over time was not sent: FACE, FWVS, HUES, WNDM"


def test_streams_without_samples_are_nothing_that_is_left_out() -> None:
    named = nest("STRM", klv("STNM", "c", 1, b"3A STATS"))
    empty = nest("STRM", klv("EMPT", "L", 4, bytes(4)), klv("TYPE", "c", 1, b"Lf"), klv("BPOS", "?", 8, b""))
    assert gpmf.read(payload(named, empty, nest("STRM"))) == gpmf.Payload([], [])
    assert notes(payload(named, empty)) == ""


def test_two_sensors_of_one_kind_are_two_channels() -> None:
    camera, strap = payload(sensor("HRAT", 2)), payload(sensor("HRAT", 2, first=100), device=7)
    twice = payload(sensor("ISOE", 1), sensor("ISOE", 1, first=50))
    assert sent(camera + strap + twice) == {
        "HRAT": [(0, 0), (0.5, 1)],
        "HRAT_2": [(0, 100), (0.5, 101)],
        "ISOE": [(0, 0)],
        "ISOE_2": [(0, 50)],
    }


# positions


GPS5 = klv("GPS5", "l", 20, struct.pack(">5i", 331_268_000, -1_173_273_000, 21_500, 1500, 160))
GPS_SCALE = klv("SCAL", "l", 4, struct.pack(">5i", 10_000_000, 10_000_000, 1000, 1000, 100))
GPS_UNITS = klv("UNIT", "c", 3, b"degdegm\0\0m/sm/s")
PLACE = ("GPS5.lat", "GPS5.lon", "GPS5.alt", "GPS5.speed_2d", "GPS5.speed_3d")


def gps(fix: int, precision: int | None = None, moment: bytes = b"240501120000.250") -> bytes:
    state = klv("GPSF", "L", 4, struct.pack(">I", fix)) + klv("GPSU", "U", 16, moment)
    state += b"" if precision is None else klv("GPSP", "S", 2, struct.pack(">H", precision))
    return payload(nest("STRM", state, GPS_UNITS, GPS_SCALE, GPS5))


def gps9(*rows: tuple[int, float, float], seconds: float = 43_200) -> bytes:
    """Latitude in degrees, fix, dilution of precision of each row; ten rows a second."""
    raw = b"".join(
        struct.pack(">7iHH", place * 10**7, 0, 0, 0, 0, 8887, round(seconds * 1000) + 100 * i, round(dop * 100), fix)
        for i, (fix, place, dop) in enumerate((fix, int(place), dop) for place, fix, dop in rows)
    )
    scale = klv("SCAL", "l", 4, struct.pack(">9i", 10**7, 10**7, 1000, 1000, 100, 1, 1000, 100, 1))
    return payload(nest("STRM", klv("TYPE", "c", 1, b"lllllllSS"), scale, klv("GPS9", "?", 32, raw)))


def test_positions_have_a_scale_and_a_unit_for_each_field_and_the_time_of_gps() -> None:
    found = read(gps(fix=3, precision=154))
    assert found.names == (*PLACE, "GPS5.dop", "GPS5.fix")
    assert found.units == ("deg", "deg", "m", "m/s", "m/s", "", "")
    assert np.allclose(found.values_NC, [[33.1268, -117.3273, 21.5, 1.5, 1.6, 1.54, 3]])
    assert found.utc == (0, datetime(2024, 5, 1, 12, 0, 0, 250_000, UTC))


@pytest.mark.parametrize(("fix", "precision"), [(0, 9999), (0, 154), (3, 1001), (2, 9999)])
def test_without_a_fix_or_precision_there_is_no_position(fix: int, precision: int) -> None:
    assert sent(gps(fix, precision)) == {"GPS5.dop": [(0, precision / 100)], "GPS5.fix": [(0, fix)]}
    assert notes(gps(fix, precision), gps(3, 1000)).startswith("1 of 2 GPS positions were left out")
    assert (read(gps(fix, precision)).utc is None) == (fix == 0)


def test_rows_without_a_fix_keep_their_place() -> None:
    one = gps9((1, 0, 99.99), (2, 3, 1.2), (3, 3, 12.5), (4, 2, 1.2))
    found = sent(one)
    assert found["GPS9.lat"] == [(0.25, 2), (0.75, 4)]
    assert found["GPS9.fix"] == [(0, 0), (0.25, 3), (0.5, 3), (0.75, 2)]
    assert [dop for _, dop in found["GPS9.dop"]] == [99.99, 1.2, 12.5, 1.2]
    assert notes(one).startswith("2 of 4 GPS positions were left out")


def test_the_start_is_reckoned_from_the_row_that_has_the_time() -> None:
    """8887 days and 12 h after 2000 is the start; the first row has no fix, and a time of its own that is wrong."""
    raw = gps9(*[(0, 0, 99.99)] * 4, *[(1, 3, 1.0)] * 6)
    assert gpmftrack.utc_us([(raw, 0, S_US)]) == 1_714_564_800_000_000
    assert gpmftrack.utc_us([(raw, 5 * S_US, S_US)]) == 1_714_564_795_000_000


def test_the_start_is_the_middle_of_several_readings() -> None:
    moments = [b"240501115959.000", b"240501120001.470", b"240501120002.460", b"240501120003.450"]
    payloads = [(gps(3, moment=moment), i * S_US, S_US) for i, moment in enumerate(moments)]
    assert gpmftrack.utc_us(payloads) == 1_714_564_800_450_000


def test_a_fix_is_waited_for_only_where_there_is_a_receiver() -> None:
    taken: list[int] = []

    def film(searching: bytes) -> Iterator[gpmftrack.Timed]:
        for i in range(100):
            taken.append(i)
            fixed = gps(3, moment=f"2405011200{i % 10:02}.250".encode())
            yield (searching if i < 90 else fixed), i * S_US, S_US

    assert gpmftrack.utc_us(film(gps(0))) == 1_714_564_710_250_000
    assert len(taken) == 100
    taken.clear()
    assert gpmftrack.utc_us(film(payload(sensor("ACCL", 2)))) is None
    assert len(taken) < 40


@pytest.mark.parametrize("moment", [b"5509100082240400", b"000106000011.000", b"\0" * 16])
def test_a_date_that_the_receiver_never_heard_is_none(moment: bytes) -> None:
    assert gpmftrack.utc_us([(gps(3, moment=moment), 0, S_US), (b"broken!!", S_US, S_US)]) is None


# times


def test_samples_without_stamps_are_evenly_spaced() -> None:
    assert sent(payload(sensor("ACCL", 4)), payload(sensor("ACCL", 2, first=4)))["ACCL"] == [
        (0, 0),
        (0.25, 1),
        (0.5, 2),
        (0.75, 3),
        (1, 4),
        (1.5, 5),
    ]


def test_stamps_say_how_much_later_or_earlier_than_the_frames_a_stream_was_taken() -> None:
    first = payload(sensor("ACCL", 2, 70_000), sensor("GPS", 2, 200_000), sensor("SHUT", 2, 100_000))
    second = payload(sensor("ACCL", 2, 1_070_000), sensor("GPS", 2, 1_150_000), sensor("SHUT", 2, 1_100_000))
    found = sent(first, second)
    assert [time for time, _ in found["SHUT"]] == [0, 0.5, 1, 1.5]
    assert [time for time, _ in found["ACCL"]] == [0, 0.485, 0.97, 1.47]  # nothing is before the film
    assert [time for time, _ in found["GPS"]] == [0.1, 0.6, 1.1, 1.575]  # nor before what was sent


def test_stamps_of_another_clock_are_passed_over() -> None:
    found = sent(payload(sensor("ACCL", 2, 81_978_859_000), sensor("SHUT", 2, 100_000)))
    assert [time for time, _ in found["ACCL"]] == [0, 0.5]


def test_what_was_stored_late_is_put_back() -> None:
    late = nest("STRM", klv("TIMO", "f", 4, struct.pack(">f", 0.25)), klv("YAVG", "B", 1, b"\1\2"))
    assert sent(payload(), payload(late))["YAVG"] == [(0.75, 1), (1.25, 2)]


# broken data


@pytest.mark.parametrize("cut", [9, 30, 70])
def test_a_payload_that_is_cut_off_is_refused_and_noted(cut: int) -> None:
    with pytest.raises(ValueError, match="cut off"):
        gpmf.read(gps(fix=3)[:cut])
    assert notes(gps(fix=3)[:cut], gps(fix=3)) == "1 broken telemetry payloads were left out"


@pytest.mark.parametrize("seed", range(50))
def test_bytes_of_chance_never_do_more_than_raise_a_value_error(seed: int) -> None:
    rng = np.random.default_rng(seed)
    raw = bytearray(gps(fix=3, precision=154) + gps9((1, 3, 1.0)) + payload(sensor("ACCL", 3, 5)))
    for at in rng.integers(8, len(raw), 9):
        raw[at] = rng.integers(256)
    with suppress(ValueError):
        gpmf.read(bytes(raw))
    list(gpmftrack.Track().add(bytes(raw), 0, S_US))
    gpmftrack.utc_us([(bytes(raw), 0, S_US)])


# a real film


def test_all_of_a_max_is_sent_but_the_hues(data: Path) -> None:
    path = data / "gopro" / "max-heromode.mp4"
    recording = replay.open_all([path])
    found = samples(by_row(events(recording=recording))[TELEMETRY])
    assert {name.split(".")[0] for name in found} == {
        "ACCL", "CORI", "GPS5", "GRAV", "GYRO", "IORI", "ISOE", "MAGN", "SCEN", "SHUT", "UNIF", "WBAL", "WRGB", "YAVG",
    }  # fmt: skip
    assert f"{path}: telemetry that is no numbers over time was not sent: HUES" in recording.notes
    assert recording.utc_us == 1_574_120_715_458_413  # the first of its eleven readings is 1.5 s old
    times = [time for time, _ in found["SHUT"]]
    assert len(times) == 316
    assert max(later - earlier for earlier, later in pairwise(times)) < 0.0335
    begin, latitude = found["GPS5.lat"][0]
    assert (round(begin, 6), latitude) == (0.016386, 33.12677)  # its stamp is that much behind the frames'
    assert found["YAVG"][-1][0] == pytest.approx(10.353942)


def test_sensors_of_two_cameras_are_never_one_channel(data: Path, tmp_path: Path) -> None:
    path = data / "gopro" / "max-heromode.mp4"
    (tmp_path / "left.mp4").symlink_to(path)
    (tmp_path / "right.mp4").symlink_to(path)
    found = samples(by_row(events(tmp_path / "left.mp4", tmp_path / "right.mp4"))[TELEMETRY])
    assert len(found["left.ACCL.x"]) == len(found["right.ACCL.x"]) == 2082
    assert {name.split(".")[0] for name in found} == {"left", "right"}
