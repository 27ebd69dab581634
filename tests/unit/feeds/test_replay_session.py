"""Several files as one session, a part of them, and readers of other packages."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import msgspec
import pytest

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT, Sensor
from streamer.feeds import replay
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay import readers, session
from streamer.feeds.replay.part import NO_SESSION, S_US, Options, Part, Thinned, frame
from streamer.feeds.replay.session import Stretch
from streamer.settings import Settings
from tests.recordings import START_US, by_row, events, film, pcm, samples, spans, texts, wav

ROOT = Path(__file__).parents[3]


def table(path: Path, first_s: float, count: int, name: str = "speed [m/s]") -> Path:
    rows = "".join(f"{first_s + i / 10:.1f},{i}\n" for i in range(count))
    path.write_text(f"time_s,{name}\n{rows}")
    return path


def sent(recording: replay.Recording) -> list[Outgoing]:
    return list(recording.outgoing("test", START_US))


# one file after another


def test_a_rotated_log_is_one_log_in_whatever_order_its_files_are_named(tmp_path: Path) -> None:
    first = table(tmp_path / "log_9.csv", 1_700_000_000.0, 10)
    second = table(tmp_path / "log_10.csv", 1_700_000_001.5, 10)
    for paths in ([first, second], [second, first]):
        recording = replay.open_all(paths)
        measured = samples(by_row(events(recording=recording))[TELEMETRY])
        assert [round(t, 3) for t, _ in measured["speed"]] == [
            round(i / 10 + (0.5 if i > 9 else 0), 3) for i in range(20)
        ]
        assert recording.utc_us == 1_700_000_000 * S_US
        assert recording.notes == ["log_9.csv, log_10.csv are sent one after the other"]


def test_chapters_of_a_film_follow_each_other(tmp_path: Path) -> None:
    names = ("GOPR0042.MP4", "GP010042.MP4", "GP020042.MP4")
    paths = [film(tmp_path / name, seconds=1) for name in names]
    rows = by_row(events(recording=replay.open_all([paths[2], paths[0], paths[1]])))
    assert [begin for begin, _ in spans(rows[IMAGE])] == [round(i / 10, 1) for i in range(30)]
    assert pcm(rows[AUDIO]).shape == (3 * 44_100, 1)


def test_logs_that_ran_at_the_same_time_do_not_follow_each_other(tmp_path: Path) -> None:
    one = table(tmp_path / "imu0.csv", 1_700_000_000.0, 10)
    other = table(tmp_path / "imu1.csv", 1_700_000_000.5, 10)
    measured = samples(by_row(events(recording=replay.open_all([one, other])))[TELEMETRY])
    assert measured["imu0.speed"][0] == (0.0, 0.0)
    assert measured["imu1.speed"][0] == (0.5, 0.0)


def test_tables_whose_times_count_from_the_start_begin_together(tmp_path: Path) -> None:
    paths = [table(tmp_path / f"imu{i}.csv", 0.0, 10) for i in (0, 1)]
    measured = samples(by_row(events(recording=replay.open_all(paths)))[TELEMETRY])
    assert measured.keys() == {"imu0.speed", "imu1.speed"}
    assert {values[0] for values in measured.values()} == {(0.0, 0.0)}


# side by side


def test_two_cameras_are_never_mixed(tmp_path: Path) -> None:
    front = film(tmp_path / "front.mp4", seconds=1, sound=False)
    rear = film(tmp_path / "rear.mp4", seconds=1)
    recording = replay.open_all([front, rear])
    rows = by_row(events(recording=recording))
    assert [e.record.value for e in rows[IMAGE]] == [e.record.value for e in by_row(events(front))[IMAGE]]
    assert len(pcm(rows[AUDIO])) == 44_100  # only the rear camera has a microphone
    assert [note for note in recording.notes if str(rear) in note and "pictures are left out" in note]


def test_of_two_microphones_the_first_that_is_named_is_sent(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=1)
    wav(tmp_path / "mic.wav", seconds=1, rate_hz=8_000)
    rows = by_row(events(recording=replay.open_all([tmp_path / "mic.wav", path])))
    assert {e.params["rate"] for e in rows[AUDIO]} == {"8000"}
    assert len(rows[IMAGE]) == 10


def test_words_of_two_files_are_never_mixed(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=2, cues=[(0.2, 0.9, "inside")])
    (tmp_path / "other.srt").write_text("1\n00:00:00,500 --> 00:00:01,000\nbeside\n")
    recording = replay.open_all([path, tmp_path / "other.srt"])
    assert texts(by_row(events(recording=recording))[TEXT]) == ["inside"]
    assert [note for note in recording.notes if "other.srt: its words are left out" in note]


def test_channels_of_one_name_in_two_tables_stay_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    paths = [table(tmp_path / name, 0.0, 3, "x [m/s²]") for name in ("a/log.csv", "b/log.csv")]
    recording = replay.open_all([*paths, table(tmp_path / "car.csv", 0.0, 3)])
    rows = by_row(events(recording=recording))
    assert samples(rows[TELEMETRY]).keys() == {"a.log.x", "b.log.x", "speed"}
    units = {name: c.unit for e in rows[TELEMETRY] for name, c in e.body.channels.items()}  # type: ignore[union-attr]  # telemetry has channels
    assert units == {"a.log.x": "m/s²", "b.log.x": "m/s²", "speed": "m/s"}


# a part of a recording


def test_a_part_of_a_recording_is_a_session_of_its_length(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=4)
    recording = replay.open_all([path], stretch=Stretch(1_000_000, 2_000_000))
    found = events(recording=recording)
    rows = by_row(found)
    assert recording.length_us == 2_000_000
    assert [begin for begin, _ in spans(rows[IMAGE])] == [round(i / 10, 1) for i in range(20)]
    assert [spans(rows[AUDIO])[0][0], spans(rows[AUDIO])[-1][1]] == [0.0, 2.0]
    whole = by_row(events(path))
    assert rows[IMAGE][0].record.value == whole[IMAGE][10].record.value
    assert (pcm(rows[AUDIO]) == pcm(whole[AUDIO])[44_100 : 3 * 44_100]).all()
    assert found[-1].record.log_time_us == START_US + 2_000_000


@pytest.mark.parametrize(("rate_hz", "wanted"), [(5.0, 10), (2.0, 4), (3.0, 6), (100.0, 20)])
def test_pictures_are_thinned_evenly(rate_hz: float, wanted: int, tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=2)
    rows = by_row(events(recording=replay.open_all([path], stretch=Stretch(rate_hz=rate_hz))))
    assert len(rows[IMAGE]) == wanted
    assert len(pcm(rows[AUDIO])) == 88_200


def test_times_rounded_down_do_not_thin_more(tmp_path: Path) -> None:
    thinned = Thinned(10.0)
    times_us = [i * S_US // 30 for i in range(300)]
    assert [t for t in times_us if thinned.keeps(t)] == times_us[::3]


def test_a_part_beyond_the_end_is_refused(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=1)
    with pytest.raises(UsageError, match="nothing to send"):
        sent(replay.open_all([path], stretch=Stretch(begin_us=5_000_000)))


def test_a_short_part_of_a_long_recording_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    def long(path: Path, options: Options) -> Part:
        def records(begin_us: int) -> Iterator[Outgoing]:
            for second in range(3600):
                read.append(second)
                yield frame(b"picture", second * S_US)

        return Part(path, 3600 * S_US, records, frozenset({IMAGE}))

    monkeypatch.setattr(session, "open_part", long)
    found = sent(replay.open_all([tmp_path / "a.shots"], stretch=Stretch(10 * S_US, 2 * S_US)))
    assert [record.time_us - START_US for record in found[:-1]] == [0, S_US]
    assert len(read) < 30


# what would be sent


def test_a_dry_run_says_what_would_be_sent(tmp_path: Path) -> None:
    path = film(tmp_path / "film.mp4", seconds=2, cues=[(0.2, 0.9, "first line")])
    recording = replay.open_all([path, table(tmp_path / "car.csv", 0.0, 15)])
    found = [json.loads(line) for line in replay.lines(Settings(), recording)]
    assert [line["due_s"] for line in found] == sorted(line["due_s"] for line in found)
    pictures = [line for line in found if line["sensor"] == "image"]
    assert len(pictures) == 20
    assert {(line["type"], line["time_s"] == line["end_s"]) for line in pictures} == {("image/jpeg", True)}
    [said] = [line for line in found if line["sensor"] == "text"]
    assert (said["text"], said["time_s"], said["end_s"]) == ("first line", 0.2, 0.9)
    assert {tuple(line["channels"].items()) for line in found if line["sensor"] == "telemetry"} == {(("speed", "m/s"),)}
    assert found[-1]["sensor"] == "end"
    sizes = [len(record.payload) for record in sent(recording)]
    assert [line.get("size_bytes", 0) for line in found] == sizes


# readers


def of_a_package(path: Path, options: Options) -> Part:
    """A reader as a user would write it."""

    def records(begin_us: int) -> Iterator[Outgoing]:
        yield frame(path.read_bytes(), 0, "image/png")
        yield Outgoing(TEXT, NO_SESSION, 0, msgspec.json.encode({"text": "seen"}), "application/json", 0)

    return Part(path, S_US, records, frozenset({IMAGE, TEXT}))


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = readers.known()
    mine = {name: EntryPoint(name, f"{__name__}:of_a_package", readers.GROUP) for name in ("shots", "folder:shots.txt")}
    monkeypatch.setattr(readers, "known", lambda: ours | mine)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["a.shots", "A.SHOTS", "a.b.shots"])
def test_a_reader_of_another_package_is_found_by_its_entry_point(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"picture")
    found = sent(replay.open_all([tmp_path / name]))
    assert [(record.row, record.payload) for record in found[:2]] == [(IMAGE, b"picture"), (TEXT, b'{"text":"seen"}')]


@pytest.mark.usefixtures("registered")
def test_a_folder_is_known_by_a_file_in_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"shots\.txt"):
        replay.open_all([tmp_path])
    (tmp_path / "shots.txt").touch()
    assert replay.open_all([tmp_path]).parts[0].part.path == tmp_path


def test_a_reader_that_lacks_a_package_is_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "known", lambda: {"odd": EntryPoint("odd", "no_such_package:part", readers.GROUP)})
    (tmp_path / "a.odd").touch()
    with pytest.raises(UsageError, match="no_such_package") as refused:
        replay.open_all([tmp_path / "a.odd"])
    assert "\n" not in str(refused.value)


def test_mapping_a_topic_where_there_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="/camera"):
        replay.open_all([table(tmp_path / "car.csv", 0.0, 3)], Options(sensors={"/camera": Sensor("image", IMAGE)}))


def test_the_page_on_recordings_lists_the_endings_that_are_known() -> None:
    table_of_formats = (ROOT / "docs" / "recordings.md").read_text().split("\n## ")[1]
    rows = [line.split("|")[1] for line in table_of_formats.splitlines() if line.startswith("| ")]
    listed = {word for row in rows for word in re.findall(r"(?<![\w`])\.[\w.]+|`[^`]+`", row)}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = project["entry-points"][readers.GROUP].keys() - {readers.ANY}
    wanted = {f"`{name.removeprefix(readers.FOLDER)}`" if ":" in name else f".{name}" for name in names}
    assert listed == wanted


def test_a_file_that_is_named_in_two_ways_is_sent_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("time_s,speed\n0,1\n1,2\n")
    recording = replay.open_all([Path("a.csv"), tmp_path / "a.csv", Path("./sub/../a.csv")])
    assert [placed.part.path for placed in recording.parts] == [Path("a.csv")]
    assert recording.notes == []


@pytest.mark.parametrize(
    ("names", "prefixes"),
    [
        (("drive.csv", "drive.tsv"), ("drive.csv", "drive.tsv")),
        (("a/drive.csv", "b/drive.csv"), ("a.drive", "b.drive")),
        (("a/x.csv", "a/y.csv"), ("x", "y")),
    ],
)
def test_channels_of_one_name_are_told_apart_whatever_the_files_are_called(
    names: tuple[str, str], prefixes: tuple[str, str], tmp_path: Path
) -> None:
    for place, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        sign = "\t" if name.endswith("tsv") else ","
        (tmp_path / name).write_text(f"time_s{sign}speed\n0{sign}{place}\n1{sign}{place}\n")
    found = samples(by_row(events(*(tmp_path / name for name in names)))[TELEMETRY])
    assert found == {f"{prefix}.speed": [(0.0, place), (1.0, place)] for place, prefix in enumerate(prefixes)}


def test_a_start_behind_the_end_is_refused_with_the_length(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", 0, 11)
    with pytest.raises(UsageError, match=r"from second 7\.5 on, for so long: it ends at second 1\.0"):
        sent(replay.open_all([path], stretch=Stretch(7_500_000)))


@pytest.mark.parametrize(
    ("name", "content", "library"),
    [
        ("a.srt", "1\n00:00:00,000 --> 00:00:01,000\nhello\n", "srt"),
        ("a.vtt", "WEBVTT\n\n00:00.000 --> 00:01.000\nhello\n", "webvtt"),
        ("a.ass", "[Events]\nFormat: Start, End, Text\nDialogue: 0:00:00.00,0:00:01.00,hello\n", "pysubs2"),
        ("a.TextGrid", 'File type = "ooTextFile"\n', "praatio"),
    ],
)
def test_a_library_that_is_not_installed_is_one_line_that_names_the_extra(
    name: str, content: str, library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for loaded in [module for module in sys.modules if module.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, loaded, None)
    monkeypatch.setitem(sys.modules, library, None)
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(UsageError, match=rf"{name} needs the package {library}.*: pip install .*\[feeds\]"):
        replay.open_all([path])
