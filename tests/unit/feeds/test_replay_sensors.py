"""Recordings sent as named sensors: several files, several topics, several tracks."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from streamer.align.decode import Decoder
from streamer.cli.feeds import _files, _mapped
from streamer.errors import UsageError
from streamer.events import Event, EventType, Record
from streamer.feeds import replay
from streamer.feeds.producer import headers
from streamer.settings import Settings
from tests.harness import jpeg
from tests.recordings import START_US, Log, film, pcm, samples, wav

CAMERAS = ("front", "front_left", "front_right", "rear", "rear_left", "rear_right")
SETTINGS = Settings.load(
    sensors={
        **{f"camera_{name}": {"kind": "image"} for name in CAMERAS},
        "cabin_mic": {"kind": "audio"},
        "imu": {"kind": "telemetry"},
    }
)


def opened(paths: Sequence[Path], maps: Sequence[str] = (), files: Sequence[str] = ()) -> replay.Recording:
    sensors, names = _mapped(maps, SETTINGS)
    return replay.open_all(paths, replay.Options(sensors=sensors, names=names, files=_files(files, paths, SETTINGS)))


def by_sensor(recording: replay.Recording) -> dict[str, list[Event]]:
    decoder = Decoder(SETTINGS, partitions=1)
    found: dict[str, list[Event]] = {}
    for i, sent in enumerate(recording.outgoing("test", START_US)):
        event = decoder.decode(Record(sent.row, 0, i, sent.due_us, b"test", sent.payload, tuple(headers(sent))))
        if event.type is EventType.DATA:
            found.setdefault(SETTINGS.sensor_set.names[event.sensor], []).append(event)
    return found


def two_tracks(path: Path, levels: Sequence[int]) -> Path:
    """A film with a video track for each level of grey, 10 pictures each."""
    with av.open(str(path), "w") as container:
        tracks: list[Any] = [container.add_stream("mpeg4", rate=10) for _ in levels]
        for track in tracks:
            track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            for track, level in zip(tracks, levels, strict=True):
                picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), level, np.uint8), "rgb24")
                picture.pts, picture.time_base = number, Fraction(1, 10)
                container.mux(track.encode(picture))
        for track in tracks:
            container.mux(track.encode())
    return path


def test_two_films_of_one_drive_are_two_cameras_of_a_session(tmp_path: Path) -> None:
    front, rear = film(tmp_path / "front.mp4", seconds=1), film(tmp_path / "rear.mp4", seconds=1)
    recording = opened([front, rear], files=["rear.mp4=camera_rear"])
    found = by_sensor(recording)
    assert {name: len(events) for name, events in found.items() if name != "audio"} == {"image": 10, "camera_rear": 10}
    assert [e.start_us for e in found["image"]] == [e.start_us for e in found["camera_rear"]]
    assert [e.sequence for e in found["camera_rear"]] == list(range(10))
    assert len(pcm(found["audio"])) == 44_100  # of one of them
    assert [note for note in recording.notes if str(rear) in note and "sound is left out" in note]


def test_a_file_is_two_sensors_of_two_kinds(tmp_path: Path) -> None:
    front, rear = film(tmp_path / "front.mp4", seconds=1), film(tmp_path / "rear.mp4", seconds=1)
    found = by_sensor(opened([front, rear], files=[f"{rear}=camera_rear", f"{rear}=cabin_mic"]))
    assert set(found) == {"image", "audio", "camera_rear", "cabin_mic"}
    assert len(pcm(found["cabin_mic"])) == len(pcm(found["audio"])) == 44_100


def test_films_whose_names_differ_in_a_number_do_not_follow_each_other_as_two_cameras(tmp_path: Path) -> None:
    paths = [film(tmp_path / f"cam{i}.mp4", seconds=1, sound=False) for i in (1, 2)]
    found = by_sensor(opened(paths, files=["cam1.mp4=camera_front", "cam2.mp4=camera_rear"]))
    assert {name: events[-1].start_us - START_US for name, events in found.items()} == {
        "camera_front": 900_000,
        "camera_rear": 900_000,
    }


def test_tables_of_two_sensors_keep_the_names_of_their_channels(tmp_path: Path) -> None:
    for name in ("can", "imu"):
        (tmp_path / f"{name}.csv").write_text("time_s,x [m/s²]\n0.0,1\n0.1,2\n")
    found = by_sensor(opened([tmp_path / "can.csv", tmp_path / "imu.csv"], files=["imu.csv=imu"]))
    assert set(samples(found["imu"])) == set(samples(found["telemetry"])) == {"x"}


def test_the_topics_of_six_cameras_are_six_sensors(tmp_path: Path) -> None:
    log = Log(tmp_path / "scene.mcap")
    imu = log.channel("/imu")
    for i in range(4):
        for number, name in enumerate(CAMERAS):
            log.picture(i / 4, jpeg(10 * i + number), f"/CAM_{name.upper()}/image_rect_compressed")
        log.add(imu, i / 4, {"a": i})
        log.add(log.channel("/odom"), i / 4, {"speed": i})
    maps = [f"/CAM_{name.upper()}/image_rect_compressed=camera_{name}" for name in CAMERAS]
    found = by_sensor(opened([log.finish()], [*maps, "/imu=imu"]))
    for number, name in enumerate(CAMERAS):
        assert [e.record.value for e in found[f"camera_{name}"]] == [jpeg(10 * i + number) for i in range(4)]
    assert set(samples(found["imu"])) == {"imu.a"}
    assert "image" not in found


def test_the_tracks_of_a_film_are_sensors(tmp_path: Path) -> None:
    path = two_tracks(tmp_path / "dash.mkv", [40, 200])
    found = by_sensor(opened([path], ["0=camera_front", "1=camera_rear"]))
    assert {name: len(events) for name, events in found.items()} == {"camera_front": 10, "camera_rear": 10}
    assert len({e.record.value for e in found["camera_front"]} & {e.record.value for e in found["camera_rear"]}) == 0
    assert [e.start_us for e in found["camera_front"]] == [e.start_us for e in found["camera_rear"]]
    only = by_sensor(opened([path], ["1=camera_rear"]))
    assert set(only) == {"camera_rear"}
    assert [e.record.value for e in only["camera_rear"]] == [e.record.value for e in found["camera_rear"]]


@pytest.mark.parametrize(
    ("maps", "files", "said"),
    [
        (["0=cabin_mic"], [], "track 0 is image, and cabin_mic a sensor of kind audio"),
        (["0=camera_rear", "1=camera_rear"], [], "cannot be one sensor"),
        ([], ["dash.mkv=imu"], "nothing of kind telemetry that could be imu"),
        ([], ["dash.mkv=camera_up"], "there is no sensor camera_up"),
        ([], ["other.mkv=camera_rear"], "other.mkv is none of the recordings"),
        ([], ["dash.mkv=camera_rear", "dash.mkv=camera_front"], "two sensors of kind image"),
        (["9=camera_rear"], [], "there is no topic 9 to map; there are: 0, 1"),
    ],
)
def test_what_cannot_be_that_sensor_is_refused(maps: list[str], files: list[str], said: str, tmp_path: Path) -> None:
    path = two_tracks(tmp_path / "dash.mkv", [40, 200])
    with pytest.raises(UsageError, match=said):
        opened([path], maps, files)


def test_a_microphone_is_mapped_beside_a_film(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=1)
    wav(tmp_path / "cabin.wav", seconds=1, rate_hz=8_000)
    found = by_sensor(opened([path, tmp_path / "cabin.wav"], files=["cabin.wav=cabin_mic"]))
    assert {e.params["rate"] for e in found["cabin_mic"]} == {"8000"}
    assert {e.params["rate"] for e in found["audio"]} == {"44100"}
