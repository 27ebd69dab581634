"""Drones' logs in the form of subtitles."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from streamer.events import IMAGE, TELEMETRY, TEXT, Telemetry
from streamer.feeds import replay
from streamer.feeds.replay.speech import dronelog
from tests.recordings import by_row, events, film, samples, texts

KEYED = (
    '<font size="28">FrameCnt: {n}, DiffTime: 33ms\n2023-06-28 18:43:5{n}.810\n'
    "[iso: 170] [shutter: 1/100.0] [fnum: 4.4] [ev: 0] [color_md : default] [focal_len: 40.00] [dzoom_ratio: 1.00], "
    "[latitude: -37.99609{n}] [longitude: 177.035704] [rel_alt: 75.645 abs_alt: 227.888] "
    "[gb_yaw: 76.8 gb_pitch: -49.1 gb_roll: 0.0] </font>"
)
OLDER = (
    '<font size="36">SrtCnt : {n}, DiffTime : 33ms\n2023-01-13 12:52:0{n},349,060\n'
    "[iso : 100] [shutter : 1/400.0] [fnum : 280] [ct : 5623] [dzoom_ratio: 10000, delta:0],[latitude: 39.674253] "
    "[longtitude: 118.162311] [altitude: 143.076004] [Drone: Yaw:90.4, Pitch:0.8, Roll:-1.6] </font>"
)
COMPACT = (
    "F/2.8, SS 206.14, ISO 100, EV -0.7, DZOOM 1.000, GPS (-121.7458, 48.0771, 17), D 221.21m, H 200.70m, "
    "H.S 1.50m/s, V.S -0.30m/s, F.PRY (-1.1°, 2.0°, 3.0°), G.PRY (0.0°, -90.0°, 4.0°)"
)
PHANTOM = (
    "HOME(149.0251,-20.2532) 2017.08.05 14:11:5{n}\nGPS(149.0251,-20.2533,16) BAROMETER:1.9\n"
    "ISO:100 Shutter:60 EV: Fnum:F2.2"
)
MATRICE = "2022.06.21 16:06:1{n}\nGPS(36.6146,-6.1120,12.5M) BAROMETER:0.3M"
GOGGLES = "signal:4 ch:1 flightTime:45 uavBat:15.5V glsBat:7.6V uavBatCells:4 delay:28ms bitrate:26.6Mbps rcSignal:0"
DIALECTS = {
    "keyed": KEYED,
    "older": OLDER,
    "compact": COMPACT,
    "phantom": PHANTOM,
    "matrice": MATRICE,
    "goggles": GOGGLES,
}


def log(path: Path, entry: str, count: int = 3) -> Path:
    text = "".join(
        f"{n + 1}\n00:00:0{n},000 --> 00:00:0{n + 1},000\n{entry.replace('{n}', str(n))}\n\n" for n in range(count)
    )
    path.write_text(text)
    return path


def test_a_log_alone_is_telemetry_and_no_speech(tmp_path: Path) -> None:
    found = by_row(events(log(tmp_path / "DJI_0001.SRT", KEYED)))
    assert set(found) == {TELEMETRY}
    channels = samples(found[TELEMETRY])
    assert channels["latitude"] == [(0.0, -37.99609), (1.0, -37.996091), (2.0, -37.996092)]
    assert channels["shutter"] == [(0.0, 0.01), (1.0, 0.01), (2.0, 0.01)]
    assert channels["abs_alt"] == [(0.0, 227.888), (1.0, 227.888), (2.0, 227.888)]
    recording = replay.open_all([tmp_path / "DJI_0001.SRT"])
    assert recording.utc_us is None  # local time of no known place
    assert recording.notes == [f"{tmp_path / 'DJI_0001.SRT'}: fields that hold no number are not sent: color_md"]
    assert recording.parts[0].part.channels == set(channels)


@pytest.mark.parametrize(
    ("dialect", "measured"),
    [
        ("keyed", {"rel_alt": (75.645, "m"), "gb_pitch": (-49.1, "deg"), "iso": (170, ""), "focal_len": (40, "")}),
        ("older", {"longitude": (118.162311, "deg"), "altitude": (143.076004, "m"), "Roll": (-1.6, "deg"),
                   "ct": (5623, "K")}),
        ("compact", {"longitude": (-121.7458, "deg"), "latitude": (48.0771, "deg"), "GPS.3": (17, ""), "F": (2.8, ""),
                     "D": (221.21, "m"), "H.S": (1.5, "m/s"), "V.S": (-0.3, "m/s"), "G.PRY.roll": (-90, "deg"),
                     "F.PRY.pitch": (-1.1, "deg"), "EV": (-0.7, "")}),
        ("phantom", {"HOME.longitude": (149.0251, "deg"), "latitude": (-20.2533, "deg"), "BAROMETER": (1.9, "m"),
                     "Fnum": (2.2, ""), "Shutter": (60, "")}),
        ("matrice", {"latitude": (36.6146, "deg"), "longitude": (-6.112, "deg"), "altitude": (12.5, "m"),
                     "BAROMETER": (0.3, "m")}),
        ("goggles", {"uavBat": (15.5, "V"), "delay": (28, "ms"), "bitrate": (26.6, "Mbps"), "flightTime": (45, "")}),
    ],
)  # fmt: skip
def test_every_dialect_has_its_channels_with_their_units(
    dialect: str, measured: dict[str, tuple[float, str]], tmp_path: Path
) -> None:
    found = by_row(events(log(tmp_path / "a.srt", DIALECTS[dialect])))
    assert set(found) == {TELEMETRY}
    body = found[TELEMETRY][0].body
    assert isinstance(body, Telemetry)
    there = {name: (channel.values[0], channel.unit) for name, channel in body.channels.items()}
    assert measured.items() <= there.items()
    assert not {"FrameCnt", "SrtCnt", "DiffTime", "longtitude", "EV:"} & there.keys()


def test_a_position_whose_order_nothing_proves_is_noted(tmp_path: Path) -> None:
    recording = replay.open_all([log(tmp_path / "a.srt", COMPACT.replace("-121.7458", "8.6"))])
    assert "GPS(…) is taken as longitude, latitude" in recording.notes[0]
    assert replay.open_all([log(tmp_path / "b.srt", COMPACT)]).notes == []


def test_0_0_is_no_position(tmp_path: Path) -> None:
    entry = "[iso: 100] [shutter: 1/50.0] [latitude: 0.000000] [longitude: 0.000000] [rel_alt: 1.0 abs_alt: 0.0]"
    channels = samples(by_row(events(log(tmp_path / "a.srt", entry)))[TELEMETRY])
    assert sorted(channels) == ["abs_alt", "iso", "rel_alt", "shutter"]


def test_a_date_with_a_zone_tells_when_it_was(tmp_path: Path) -> None:
    began = datetime(2022, 6, 21, 14, 6, 10, tzinfo=UTC).timestamp() * 1e6
    for zone, hour in (("Z", "14"), ("+02:00", "16")):
        entry = MATRICE.replace("2022.06.21 16", f"2022-06-21T{hour}").replace("{n}\n", "{n}" + zone + "\n")
        assert replay.open_all([log(tmp_path / "a.srt", entry)]).utc_us == began


def test_a_log_beside_its_film_goes_with_it(tmp_path: Path) -> None:
    film(tmp_path / "DJI_0001.MP4", cues=[(0.5, 1.0, "hello")])
    log(tmp_path / "DJI_0001.SRT", KEYED)
    for paths in ([tmp_path / "DJI_0001.MP4"], sorted(tmp_path.iterdir())):
        recording = replay.open_all(paths)
        found = by_row(events(recording=recording))
        assert texts(found[TEXT]) == ["hello"]
        assert [at for at, _ in samples(found[TELEMETRY])["latitude"]] == [0.0, 1.0]
        assert "1 of its entries lie after the end of the recording: left out" in recording.notes[-1]


def test_a_log_as_a_track_of_a_film_is_telemetry(tmp_path: Path) -> None:
    entries = [(n * 0.5, n * 0.5 + 0.5, KEYED.replace("{n}", str(n))) for n in range(4)]
    recording = replay.open_all([film(tmp_path / "a.mp4", cues=entries)])
    assert TEXT not in recording.parts[0].part.sends
    assert TELEMETRY in recording.parts[0].part.sends
    found = by_row(events(recording=recording))
    assert TEXT not in found
    assert len(found[IMAGE]) == 20
    expected = [(0.0, -37.99609), (0.5, -37.996091), (1.0, -37.996092), (1.5, -37.996093)]
    assert samples(found[TELEMETRY])["latitude"] == expected


@pytest.mark.parametrize(
    "text",
    [
        "Meet me at 10:30, bring 3 apples: 2 red 1 green",
        "Room 5, floor 3. Gate: 7 is closed, so please go on",
        "Score: 3, time: 5",
        "[music]",
        "1, 2, 3, go",
        "On 2023-06-28 18:43:56 we landed",
    ],
)
def test_speech_with_numbers_is_no_log(text: str) -> None:
    assert not dronelog.is_log([text])


def test_a_log_with_a_remark_in_it_is_still_one() -> None:
    assert dronelog.is_log([*[COMPACT] * 9, "Recording started"])
    assert not dronelog.is_log([COMPACT, "hello there", "how are you"])
    assert not dronelog.is_log([])
