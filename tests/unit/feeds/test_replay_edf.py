"""Recordings of sleep laboratories and wards: EDF, EDF+ and BDF, written by edfio."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import edfio
import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.events import TELEMETRY, TEXT, Telemetry
from streamer.feeds import replay
from tests.recordings import S_US, by_row, events, samples, spans, texts

START = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
Files = dict[str, tuple[type[Any], type[Any], Any]]
KINDS: Files = {
    ".edf": (edfio.Edf, edfio.EdfSignal, edfio.read_edf),
    ".bdf": (edfio.Bdf, edfio.BdfSignal, edfio.read_bdf),
}


def written(
    path: Path,
    signals: list[tuple[str, float, np.ndarray[Any, Any], str]],
    labels: Sequence[tuple[float, float | None, str]] | None = None,
    **more: Any,
) -> Path:
    """A recording of signals (name, rate, values, unit) that begins at ``START``."""
    kind, signal, _ = KINDS[path.suffix]
    kind(
        [signal(values, rate, label=name, physical_dimension=unit) for name, rate, values, unit in signals],
        recording=edfio.Recording(startdate=START.date()),
        starttime=START.time(),
        annotations=None if labels is None else [edfio.EdfAnnotation(*label) for label in labels],
        **more,
    ).write(path)
    return path


def wave(seconds: float, rate_hz: float, scale: float = 1.0) -> np.ndarray[Any, Any]:
    return scale * np.sin(np.arange(round(seconds * rate_hz)) / rate_hz * 7)


def interrupted(path: Path, starts_s: list[float]) -> Path:
    """The continuous recording as one whose records begin at other times."""
    raw = bytearray(path.read_bytes())
    kind = {".edf": b"EDF", ".bdf": b"BDF"}[path.suffix]
    raw[192:197] = kind + b"+D"
    for record, start_s in enumerate(starts_s):
        kept = re.compile(rb"\+%d\x14\x14\x00" % record).search(raw, int(raw[184:192]))
        assert kept is not None
        stamp = b"+%g\x14\x14\x00" % start_s
        if record:  # the first one has an annotation behind its stamp
            raw[kept.start() : kept.start() + len(stamp)] = stamp
    path.write_bytes(raw)
    return path


def channels(*paths: Path) -> dict[str, list[tuple[float, float]]]:
    """Channel -> second and value of each sample; blocks have a rate."""
    found: dict[str, list[tuple[float, float]]] = {}
    for event in by_row(events(*paths))[TELEMETRY]:
        assert isinstance(event.body, Telemetry)
        begin_s = spans([event])[0][0]
        if event.body.rate_hz is None:
            for name, values in samples([event]).items():
                found.setdefault(name, []).extend(values)
        else:
            for name, channel in event.body.channels.items():
                seconds = begin_s + np.arange(len(channel.values)) / event.body.rate_hz
                found.setdefault(name, []).extend(zip(seconds.tolist(), channel.values, strict=True))
    return found


def notes(*paths: Path) -> list[str]:
    recording = replay.open_all(paths)
    events(recording=recording)
    return recording.notes


@pytest.mark.parametrize("ending", KINDS)
def test_signals_of_several_rates_keep_their_values_rates_and_units(tmp_path: Path, ending: str) -> None:
    signals = [
        ("EEG Fpz-Cz", 500.0, wave(20, 500, 90), "uV"),
        ("EEG Pz-Oz", 500.0, wave(20, 500, 30), "uV"),
        ("SaO2", 1.0, 95 + wave(20, 1), "%"),
        ("Resp", 25.0, wave(20, 25), "l/min"),
    ]
    path = written(tmp_path / f"night{ending}", signals)
    found = channels(path)
    assert found.keys() == {name for name, *_ in signals}
    for signal in KINDS[ending][2](path).signals:
        rate_hz = signal.sampling_frequency
        assert [value for _, value in found[signal.label]] == signal.data.tolist()
        seconds = [second for second, _ in found[signal.label]]
        assert seconds == pytest.approx((np.arange(20 * rate_hz) / rate_hz).tolist(), abs=2e-6)
    bodies = [event.body for event in by_row(events(path))[TELEMETRY]]
    units = {name: c.unit for body in bodies if isinstance(body, Telemetry) for name, c in body.channels.items()}
    assert units == {name: unit for name, _, _, unit in signals}
    assert notes(path) == []


def test_the_start_has_no_zone_and_keeps_two_recordings_of_one_clock_apart(tmp_path: Path) -> None:
    path = written(tmp_path / "night.edf", [("ECG", 100.0, wave(10, 100), "mV")])
    part = replay.open_all([path]).parts[0].part
    assert part.utc_us is None
    assert part.clock_us == round(START.timestamp() * S_US)
    assert part.length_us == 10 * S_US
    assert part.channels == {"ECG"}


@pytest.mark.parametrize("ending", KINDS)
def test_where_the_records_are_apart_nothing_is_sent(tmp_path: Path, ending: str) -> None:
    values = wave(6, 100, 50)
    labels = [(0.5, None, "makes place for longer stamps")]
    path = written(tmp_path / f"night{ending}", [("ECG", 100.0, values, "mV")], labels, data_record_duration=1)
    data = KINDS[ending][2](path).signals[0].data
    starts_s = [0, 1, 2, 12, 13, 40.5]
    found = channels(interrupted(path, starts_s))["ECG"]
    assert [value for _, value in found] == data.tolist()
    wanted = [start_s + i / 100 for start_s in starts_s for i in range(100)]
    assert [second for second, _ in found] == pytest.approx(wanted, abs=2e-6)
    blocks = spans(by_row(events(path))[TELEMETRY])
    assert not any(begin < 3.3 and end > 3.01 for begin, end in blocks)
    assert max(end - begin for begin, end in blocks) <= 0.2 + 1e-6
    assert notes(path) == [f"{path}: it was interrupted 2 times; nothing is sent for these gaps"]
    assert replay.open_all([path]).length_us == 41_500_000


@pytest.mark.parametrize("ending", KINDS)
def test_annotations_become_words_at_their_times(tmp_path: Path, ending: str) -> None:
    labels = [(0.5, None, "Lights off"), (2.25, 1.0, "Apnée"), (2.5, 4.0, "Sleep stage N2"), (9.9, 5.0, "Awake")]
    path = written(tmp_path / f"night{ending}", [("ECG", 100.0, wave(10, 100), "mV")], labels)
    found = by_row(events(path))[TEXT]
    said = list(zip(texts(found), spans(found), strict=True))
    assert [one for one in said if one[0] in ("Lights off", "Apnée")] == [
        ("Lights off", (0.5, 0.5)),
        ("Apnée", (2.25, 3.25)),
    ]
    stages = [span for text, span in said if text == "Sleep stage N2"]  # repeated, for windows do not wait for 4 s
    assert stages[0][0] == 2.5
    assert stages[-1][1] == 6.5
    assert all(end - begin <= 1.5 for begin, end in stages)
    assert all(end == begin for (_, end), (begin, _) in pairwise(stages))


def test_a_hypnogram_has_annotations_alone(tmp_path: Path) -> None:
    path = tmp_path / "hypnogram.edf"
    stages = [edfio.EdfAnnotation(i * 30, 30, f"Sleep stage {stage}") for i, stage in enumerate("W123R")]
    edfio.Edf([], annotations=stages, starttime=START.time()).write(path)
    found = by_row(events(path))
    assert not found[TELEMETRY]
    assert {text: spans([e])[0][0] // 30 for e, text in zip(found[TEXT], texts(found[TEXT]), strict=True)} == {
        f"Sleep stage {stage}": i for i, stage in enumerate("W123R")
    }
    assert spans(found[TEXT])[-1][1] == 150.0


def test_signals_of_one_name_are_told_apart(tmp_path: Path) -> None:
    path = written(tmp_path / "night.edf", [("ECG", 10.0, wave(2, 10), "mV"), ("ECG", 10.0, -wave(2, 10), "mV")])
    found = channels(path)
    assert [a + b for (_, a), (_, b) in zip(found["ECG"], found["ECG.2"], strict=True)] == pytest.approx(
        [0] * 20, abs=1e-3
    )


def test_a_signal_without_a_scale_is_left_out_with_a_note(tmp_path: Path) -> None:
    path = written(tmp_path / "night.edf", [("ECG", 10.0, wave(2, 10), "mV"), ("Flat", 10.0, wave(2, 10), "mV")])
    raw = bytearray(path.read_bytes())
    for place in (0, 1):  # physical minimum and maximum of the second signal
        begin = 256 + 2 * (16 + 80 + 8 + 8 * place) + 8
        raw[begin : begin + 8] = b"5       "
    path.write_bytes(raw)
    assert channels(path).keys() == {"ECG"}
    assert notes(path) == [f"{path}: Flat is left out, since its header gives no scale"]


@pytest.mark.parametrize("ending", KINDS)
def test_a_recording_that_is_cut_off_is_sent_as_far_as_it_goes(tmp_path: Path, ending: str) -> None:
    path = written(tmp_path / f"night{ending}", [("ECG", 100.0, wave(10, 100), "mV")], data_record_duration=1)
    path.write_bytes(path.read_bytes()[:-250])
    width = 2 if ending == ".edf" else 3
    there = 10 - -(-250 // (100 * width))
    assert len(channels(path)["ECG"]) == there * 100
    assert notes(path) == [f"{path} ends early: {there} of 10 records are there"]


def test_a_recorder_that_could_not_count_its_records_is_read_to_the_end(tmp_path: Path) -> None:
    path = written(tmp_path / "night.edf", [("ECG", 100.0, wave(10, 100), "mV")])
    raw = bytearray(path.read_bytes())
    raw[236:244] = b"-1      "
    path.write_bytes(raw)
    assert len(channels(path)["ECG"]) == 1000
    assert notes(path) == []


def test_units_in_latin_1_are_read(tmp_path: Path) -> None:
    path = written(tmp_path / "night.edf", [("EEG", 10.0, wave(2, 10), "uV")])
    path.write_bytes(path.read_bytes().replace(b"uV", b"\xb5V", 1))
    body = by_row(events(path))[TELEMETRY][0].body
    assert isinstance(body, Telemetry)
    assert body.channels["EEG"].unit == "µV"


def test_reading_may_begin_in_the_middle(tmp_path: Path) -> None:
    path = written(tmp_path / "night.edf", [("EEG", 500.0, wave(3600, 500), "uV")])
    times_us = [record.time_us for record in replay.open_all([path]).parts[0].part.records(3000 * S_US)]
    assert 2000 * S_US < times_us[0] <= 3000 * S_US
    assert times_us[-1] == 3_599_800_000


@pytest.mark.parametrize("content", [b"", b"0" * 100, b"hello\n" * 400, bytes(range(256)) * 8])
@pytest.mark.parametrize("ending", KINDS)
def test_what_is_no_recording_is_refused_in_one_line(tmp_path: Path, content: bytes, ending: str) -> None:
    path = tmp_path / f"night{ending}"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="night") as refused:
        replay.open_all([path])
    assert "\n" not in str(refused.value)
