"""Recordings with labels by time: windows are the same as in serving, and have the labels at their middle."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.events import IMAGE, KIND_NAMES, KINDS
from streamer.feeds import simulate
from streamer.feeds.producer import Outgoing, headers
from streamer.golden.recording import About, Recorded, Writer
from streamer.model.spec import AudioInput, ImageInput, InputSpec, ModelSpec, Output, TelemetryInput, TextInput
from streamer.training.data import open_data
from streamer.training.dataset import Example
from streamer.training.simulated import START_US, drive_examples
from tests.small_nets import there

S_US = 1_000_000
SECONDS = 6
INPUTS = InputSpec(
    image=ImageInput(frames=1, height=9, width=16),
    audio=AudioInput(rate_hz=8000),
    text=TextInput(max_tokens=16),
    telemetry=TelemetryInput(channels=("speed",), rate_hz=20),
)
ACTION = {"action": Output(tuple(simulate.LABELS))}
HALVES = {
    "half": Output(("first", "second")),
    "seen": Output(("cars", "rain"), kind="tags"),
    "speed": Output(kind="number", unit="m/s"),
}


def spec(outputs: dict[str, Output], inputs: InputSpec = INPUTS) -> ModelSpec:
    return ModelSpec(name="toy", version="1", window_ms=1000, inputs=inputs, outputs=outputs)


def record(path: Path, sent: Iterable[Outgoing]) -> Path:
    """The file that ``streamer record`` writes if each record is sent when it is due."""
    about = About(
        kinds=KIND_NAMES,
        topics=tuple(f"streamer.{m.topic}" for m in KINDS),
        partitions=1,
        first_offsets=((0,),) * 4,
        start_us=(0,),
    )
    offsets: Counter[int] = Counter()
    with Writer(path, about) as writer:
        for o in sorted(sent, key=lambda o: o.due_us):
            key, named = o.session.encode(), tuple(headers(o))
            writer.write(Recorded(o.row, 0, offsets[o.row], o.due_us, key, o.payload, named))
            offsets[o.row] += 1
        writer.end(START_US + 3600 * S_US)
    return path


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A recording of four drives of a few seconds."""
    sent = [o for seed in range(4) for o in simulate.Drive(seed, f"drive-{seed}", START_US, SECONDS).outgoing()]
    return record(tmp_path_factory.mktemp("drives") / "drives.mcap", sent).read_bytes()


@pytest.fixture
def recording(drives: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "day.mcap"
    path.write_bytes(drives)
    return path


Label = Callable[[str], Path]


@pytest.fixture
def labelled(recording: Path) -> Label:
    """Writes the labels beside the recording."""

    def write(table: str) -> Path:
        recording.with_suffix(".labels.csv").write_text(table, "utf-8")
        return recording

    return write


def at(second: float) -> str:
    return datetime.fromtimestamp(START_US / S_US + second, UTC).isoformat()


def table(header: str, *rows: str) -> str:
    return "\n".join((header, *rows)) + "\n"


def all_day(label: str) -> list[str]:
    return [f"drive-{seed},{at(0)},{at(SECONDS)},{label}" for seed in range(4)]


def examples(path: Path, own: ModelSpec) -> Iterator[Example]:
    data = open_data(path, own, refuse_bad=False)
    for part in (data.training, data.validation, data.test):
        yield from (part[n] for n in range(len(part)))


def test_the_windows_are_those_of_serving(labelled: Label) -> None:
    path = labelled(table("session,start,end,label", *all_day("brake")))
    found = {key(example): example for example in examples(path, spec(ACTION))}
    served = [e for seed in range(4) for e in drive_examples(seed, SECONDS, spec(ACTION))]
    assert len(served) == len(found) == 4 * SECONDS
    for wanted in served:
        example = found[key(wanted)]
        assert example.labels == {"action": "brake"}
        assert example.sample.present == wanted.sample.present
        assert example.sample.text == wanted.sample.text
        np.testing.assert_array_equal(there(example.sample.image_FHW3), there(wanted.sample.image_FHW3))
        np.testing.assert_array_equal(there(example.sample.telemetry_CT), there(wanted.sample.telemetry_CT))


def key(example: Example) -> bytes:
    assert example.sample.audio_S is not None
    return example.sample.audio_S.tobytes()


def test_a_session_is_in_one_part_and_may_be_told_which(labelled: Label) -> None:
    rows = [f"drive-{seed},{at(0)},{at(3)},hold,{part}" for seed, part in enumerate(("test", "train", "val", ""))]
    data = open_data(labelled(table("session,start,end,label,split", *rows)), spec(ACTION))
    assert [len(part) for part in (data.training, data.validation, data.test)] == [6, 3, 3]
    drawn = open_data(labelled(table("session,start,end,label", *all_day("hold"))), spec(ACTION))
    assert [len(part) for part in (drawn.training, drawn.validation, drawn.test)] == [12, 6, 6]


def test_one_session_may_be_divided_by_who_names_the_parts(labelled: Label) -> None:
    rows = [f"drive-0,{at(2 * k)},{at(2 * k + 2)},hold,{part}" for k, part in enumerate(("train", "val", "test"))]
    data = open_data(labelled(table("session,start,end,label,split", *rows)), spec(ACTION))
    assert [len(part) for part in (data.training, data.validation, data.test)] == [2, 2, 2]


def test_a_window_has_the_labels_of_the_stretches_that_its_middle_lies_in(labelled: Label) -> None:
    rows = [
        f"drive-0,{at(0)},{at(2.4)},first,cars,3.5,",  # the middle of the third window is at 2.5
        f"drive-0,{START_US / S_US + 2.4},{START_US / S_US + 5},second,,,",
        f"drive-0,{at(1)},{at(3)},,rain; cars,,",
        f"drive-1,{at(0)},{at(1)},,,7,test",
        f"drive-2,{at(0)},{at(1)},,,7,val",
    ]
    data = open_data(labelled(table("session,start,end,half,seen,speed,split", *rows)), spec(HALVES))
    assert [data.training[n].labels for n in range(len(data.training))] == [
        {"half": "first", "seen": ("cars",), "speed": 3.5},
        {"half": "first", "seen": ("cars", "rain"), "speed": 3.5},
        {"half": "second", "seen": ("cars", "rain")},
        {"half": "second"},
        {"half": "second"},
    ]


def test_labels_may_be_json_lines(recording: Path) -> None:
    lines = [
        {"session": f"drive-{n}", "start": at(0), "end": START_US / S_US + 2, "labels": {"speed": n}, "split": part}
        for n, part in enumerate(("train", "val", "test"))
    ]
    recording.with_suffix(".labels.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    data = open_data(recording, spec(HALVES))
    assert [data.test[n].labels for n in range(len(data.test))] == [{"speed": 2.0}] * 2


def test_a_folder_of_recordings_is_all_of_them(labelled: Label, tmp_path: Path) -> None:
    labelled(table("session,start,end,label", *all_day("brake")))
    assert len(list(examples(tmp_path, spec(ACTION)))) == 4 * SECONDS


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("drive-0,yesterday,2026-05-01T12:00:00Z,brake", "'yesterday' is no time"),
        ("drive-0,2026-05-01T12:00:00,2026-05-01T12:00:00Z,brake", "has no offset from UTC"),
        ("drive-0,20,10,brake", "start 20 is not before end 10"),
        ("drive-0,10,20,swim", "'swim' is no label of action"),
        ("drive-0,10,20", "has 3 cells, the header has 4"),
        ("drive-0,10,20,brake", "no window of the recording has its middle in this interval"),
        ("drive-9,{0},{6},brake", "no window of the recording has its middle in this interval"),
        ("drive-0,nan,20,brake", "'nan' is no time"),
    ],
)
def test_a_bad_label_is_named_with_its_line(labelled: Label, row: str, reason: str) -> None:
    times = [at(second) for second in range(7)]
    path = labelled(table("session,start,end,label", *all_day("brake"), row.format(*times)))
    (bad,) = open_data(path, spec(ACTION), refuse_bad=False).bad
    assert bad.where == "day.labels.csv line 6"
    assert reason in bad.reason


def test_stretches_that_contradict_one_another_make_bad_rows_of_their_windows(labelled: Label) -> None:
    extra = f"drive-0,{at(2)},{at(3)},hold"
    data = open_data(
        labelled(table("session,start,end,label", *all_day("brake"), extra)), spec(ACTION), refuse_bad=False
    )
    (bad,) = data.bad
    assert bad.where == f"day.mcap window drive-0/{START_US + 3 * S_US}"
    assert bad.reason == "action is brake and hold by day.labels.csv line 2 and day.labels.csv line 6"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("session,start,label", "wanted are session, start, end, and label or some of action"),
        ("session,start,end,label,mood", "has the columns session, start, end, label, mood"),
        ("session,start,end,label,label", "has the columns"),
        ("", "has the columns none"),
    ],
)
def test_a_table_with_other_columns_is_refused(labelled: Label, header: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_data(labelled(table(header)), spec(ACTION))


def test_a_label_column_is_refused_where_the_model_has_several_outputs(labelled: Label) -> None:
    data = table("session,start,end,label,half", *all_day(",first"), f"drive-0,{at(0)},{at(1)},x,")
    (bad,) = open_data(labelled(data), spec(HALVES), refuse_bad=False).bad
    assert str(bad) == "day.labels.csv line 6: label names no output: have columns called half, seen, speed"


def test_a_recording_without_labels_or_with_two_files_of_them_is_refused(labelled: Label, recording: Path) -> None:
    with pytest.raises(UsageError, match=r"has no labels: day.labels.csv or day.labels.jsonl is wanted beside it"):
        open_data(recording, spec(ACTION))
    labelled(table("session,start,end,label"))
    recording.with_suffix(".labels.jsonl").write_text("")
    with pytest.raises(UsageError, match="has two files of labels"):
        open_data(recording, spec(ACTION))


def test_another_mcap_file_is_no_recording(tmp_path: Path) -> None:
    (tmp_path / "day.mcap").write_bytes(b"\x89MCAP0\r\n")
    (tmp_path / "day.labels.csv").write_text("session,start,end,label\n")
    with pytest.raises(UsageError, match="is no recording of `streamer record`"):
        open_data(tmp_path / "day.mcap", spec(ACTION))


def test_broken_records_are_listed_and_missing_in_their_windows(tmp_path: Path) -> None:
    sent = [o for seed in range(3) for o in simulate.Drive(seed, f"drive-{seed}", START_US, 2).outgoing()]
    frames = [n for n, o in enumerate(sent) if o.row == IMAGE and o.session == "drive-1"]
    for n in frames[:10]:  # all of the first second
        sent[n] = msgspec.structs.replace(sent[n], payload=b"\xff\xd8\xff no picture")
    sent[-2] = msgspec.structs.replace(sent[-2], content_type="application/x-nothing")
    path = record(tmp_path / "day.mcap", sent)
    (tmp_path / "day.labels.csv").write_text(table("session,start,end,label", *all_day("hold")[:3]))
    data = open_data(path, spec(ACTION), refuse_bad=False)
    assert [bad.where.split(" offset ")[0] for bad in data.bad] == ["day.mcap image partition 0"] * 10 + ["day.mcap"]
    assert data.bad[-1].reason == "1 records are refused as bad_content_type"
    windows = [part[n] for part in (data.training, data.validation, data.test) for n in range(len(part))]
    assert sum(not example.sample.present[IMAGE] for example in windows) == 1
    assert len(windows) == 6
