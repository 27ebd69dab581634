"""Recordings of wards in WFDB's format, written by wfdb."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb

from streamer.errors import UsageError
from streamer.events import TELEMETRY, TEXT, Telemetry
from streamer.feeds import replay
from tests.recordings import S_US, by_row, events, spans, texts
from tests.unit.feeds.test_replay_edf import channels, notes

Array = np.ndarray[Any, Any]


def written(folder: Path, name: str, rate_hz: float, signals: dict[str, Array], units: list[str], **more: Any) -> Path:
    signal_CN = np.column_stack(list(signals.values()))
    more = {"fmt": ["16"] * len(units), "p_signal": signal_CN, **more}
    wfdb.wrsamp(name, fs=rate_hz, units=units, sig_name=list(signals), write_dir=str(folder), **more)
    return folder / f"{name}.hea"


def ecg(count: int, step: float = 0.07) -> Array:
    return np.asarray(np.sin(np.arange(count) * step))


def values(path: Path) -> dict[str, Array]:
    """Channel -> second and value of each sample [N, 2]."""
    return {name: np.array(found) for name, found in channels(path).items()}


def test_twelve_leads_at_500_hz_are_sent_sample_by_sample(tmp_path: Path) -> None:
    leads = ["I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6"]
    path = written(
        tmp_path, "ecg", 500, {lead: ecg(5000, 0.01 * i + 0.01) for i, lead in enumerate(leads)}, ["mV"] * 12
    )
    found = values(path)
    stored = wfdb.rdrecord(str(path.with_suffix("")))
    assert list(found) == leads
    for i, lead in enumerate(leads):
        assert found[lead][:, 1].tolist() == stored.p_signal[:, i].tolist()
        assert found[lead][:, 0] == pytest.approx(np.arange(5000) / 500, abs=2e-6)
    blocks = by_row(events(path))[TELEMETRY]
    assert len(blocks) == 50
    for block in blocks:
        assert isinstance(block.body, Telemetry)
        assert block.body.rate_hz == 500
        assert {channel.unit for channel in block.body.channels.values()} == {"mV"}
    assert notes(path) == []


def test_invalid_samples_are_gaps(tmp_path: Path) -> None:
    pressure = 80 + ecg(1000)
    pressure[300:450] = np.nan
    path = written(tmp_path, "ward", 100, {"II": ecg(1000), "ABP": pressure}, ["mV", "mmHg"])
    found = values(path)
    assert len(found["II"]) == 1000
    assert found["ABP"][:, 0] == pytest.approx(np.flatnonzero(np.isfinite(pressure)) / 100, abs=2e-6)
    pressures = [
        e for e in by_row(events(path))[TELEMETRY] if isinstance(e.body, Telemetry) and "ABP" in e.body.channels
    ]
    assert not any(begin < 4.5 - 1e-6 and end > 3.0 + 1e-6 for begin, end in spans(pressures))


def test_signals_of_several_rates_in_one_record(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "ward",
        62.5,
        {"II": ecg(1000), "Pleth": ecg(1000)},
        ["mV", "NU"],
        p_signal=None,
        e_p_signal=[ecg(4000), ecg(1000)],
        samps_per_frame=[4, 1],
    )
    found = values(path)
    assert found["II"][:, 0] == pytest.approx(np.arange(4000) / 250, abs=2e-6)
    assert found["Pleth"][:, 0] == pytest.approx(np.arange(1000) / 62.5, abs=2e-6)
    assert found["II"][:, 1] == pytest.approx(ecg(4000), abs=1e-3)


def test_a_value_a_minute_has_a_time_and_no_length(tmp_path: Path) -> None:
    path = written(tmp_path, "numerics", 1 / 60, {"HR": 60 + np.arange(5.0)}, ["bpm"])
    assert values(path)["HR"] == pytest.approx(np.array([(i * 60, 60 + i) for i in range(5)]), abs=1e-3)
    assert all(begin == end for begin, end in spans(by_row(events(path))[TELEMETRY]))


def test_segments_are_joined_and_what_is_between_them_is_a_gap(tmp_path: Path) -> None:
    written(tmp_path, "one", 125, {"II": ecg(1000)}, ["mV"])
    written(tmp_path, "two", 125, {"II": ecg(500), "ABP": 80 + ecg(500)}, ["mV", "mmHg"])
    (tmp_path / "layout.hea").write_text("layout 2 125 0\n~ 0 200/mV 16 0 0 0 0 II\n~ 0 100/mmHg 16 0 0 0 0 ABP\n")
    path = tmp_path / "stay.hea"
    path.write_text("stay/4 2 125 2125 10:00:00 01/02/2020\nlayout 0\none 1000\n~ 625\ntwo 500\n")
    found = values(path)
    assert found["II"][:, 0] == pytest.approx(np.r_[np.arange(1000), np.arange(1625, 2125)] / 125, abs=2e-6)
    assert found["ABP"][:, 0] == pytest.approx(np.arange(1625, 2125) / 125, abs=2e-6)
    assert found["ABP"][:, 1] == pytest.approx(80 + ecg(500), abs=1e-3)
    assert replay.open_all([path]).length_us == 17 * S_US


def test_annotations_become_words(tmp_path: Path) -> None:
    path = written(tmp_path, "ward", 360, {"II": ecg(3600)}, ["mV"])
    wfdb.wrann(
        "ward",
        "atr",
        np.array([100, 500, 900, 1200]),
        symbol=["N", "V", "+", '"'],
        aux_note=["", "", "(AFIB", "moved the arm"],
        write_dir=str(tmp_path),
    )
    wfdb.wrann("ward", "qrs", np.array([101]), symbol=["N"], write_dir=str(tmp_path))
    found = by_row(events(path))[TEXT]
    assert list(zip(texts(found), (begin for begin, _ in spans(found)), strict=True)) == [
        ("Normal beat", pytest.approx(100 / 360, abs=1e-6)),
        ("Premature ventricular contraction", pytest.approx(500 / 360, abs=1e-6)),
        ("(AFIB", 2.5),
        ("moved the arm", pytest.approx(1200 / 360, abs=1e-6)),
    ]
    assert notes(path) == [f"{tmp_path / 'ward.qrs'} is left out, since the annotations of .atr are sent"]


def test_annotations_with_a_clock_of_their_own(tmp_path: Path) -> None:
    path = written(tmp_path, "ward", 125, {"II": ecg(1250)}, ["mV"])
    wfdb.wrann("ward", "atr", np.array([1500]), symbol=["N"], fs=1000, write_dir=str(tmp_path))
    assert spans(by_row(events(path))[TEXT]) == [(1.5, 1.5)]


def test_the_start_has_no_zone(tmp_path: Path) -> None:
    start = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    path = written(tmp_path, "ward", 100, {"II": ecg(100)}, ["mV"], base_time=start.time(), base_date=start.date())
    part = replay.open_all([path]).parts[0].part
    assert (part.utc_us, part.clock_us) == (None, round(start.timestamp() * S_US))


def test_a_header_may_leave_out_the_length(tmp_path: Path) -> None:
    path = written(tmp_path, "ward", 100, {"II": ecg(1000)}, ["mV"])
    path.write_text(path.read_text().replace("ward 1 100 1000", "ward 1 100"))
    assert len(values(path)["II"]) == 1000
    assert replay.open_all([path]).length_us == 10 * S_US


def test_signals_of_one_name_are_told_apart(tmp_path: Path) -> None:
    path = written(tmp_path, "ward", 100, {"a": ecg(100), "b": -ecg(100)}, ["mV", "mV"])
    path.write_text(path.read_text().replace(" b\n", " a\n"))
    found = values(path)
    assert found["a"][:, 1] == pytest.approx(-found["a.2"][:, 1], abs=1e-3)


def test_reading_in_pieces_yields_what_reading_at_once_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "ward", 100, {"a": ecg(1000), "b": ecg(1000)}, ["mV", "mV"])
    path.write_text(path.read_text().replace("ward.dat 16 ", "ward.dat 16:5 ", 1))  # the first signal is 5 samples late
    at_once = values(path)
    monkeypatch.setattr("streamer.feeds.replay.biosignals.wfdb.CHUNK_SAMPLES", 200)
    in_pieces = values(path)
    for name, found in at_once.items():
        assert np.array_equal(in_pieces[name], found)
    assert len(at_once["a"]) == 995
    assert len(at_once["b"]) == 1000


@pytest.mark.parametrize(
    "text", ["", "hello\n", "ward 1 100 1000\n", "ward 1 100 1000\nlost.dat 16 200/mV 16 0 0 0 0 II\n"]
)
def test_what_is_no_record_or_lacks_its_signals_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "ward.hea"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"ward\.hea") as refused:
        replay.open_all([path])
    assert "\n" not in str(refused.value)


def test_signals_without_a_description_are_called_by_their_number(tmp_path: Path) -> None:
    values_of = np.arange(200, dtype="<i2").reshape(100, 2)
    (tmp_path / "r.dat").write_bytes(values_of.tobytes())
    path = tmp_path / "r.hea"
    path.write_text("r 2 50 100\nr.dat 16 1(0)/mV\nr.dat 16 1(0)/mV\n")
    found = values(path)
    assert found.keys() == {"signal 0", "signal 1"}
