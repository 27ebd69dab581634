"""Channels of a recording get the names that the model takes, or that the user asks for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamer.errors import UsageError
from streamer.events import TELEMETRY, Channel, Telemetry
from streamer.feeds import replay
from streamer.feeds.replay.biosignals.signals import measured
from tests.recordings import by_row, events
from tests.unit.feeds.test_replay_wfdb import ecg, written

VITALS = ("ecg", "pleth", "resp", "spo2")


def sent(recording: replay.Recording) -> dict[str, Channel]:
    """The first values of each channel."""
    found: dict[str, Channel] = {}
    for event in by_row(events(recording=recording))[TELEMETRY]:
        assert isinstance(event.body, Telemetry)
        found = {**event.body.channels, **found}
    return found


def ward(folder: Path, name: str = "ward", **units: str) -> Path:
    signals = {label: 0.5 + ecg(500, 0.01 * (place + 1)) for place, label in enumerate(units)}
    return written(folder, name, 250, signals, list(units.values()))


@pytest.mark.parametrize(
    ("units", "taken"),
    [
        ({"V5": "mV", "MLII": "mV"}, {"ecg": "MLII"}),
        ({"I": "mV", "V": "mV", "ABP": "mmHg"}, {"ecg": "I"}),
        ({"MCL1": "mV", "RESP": "mV", "PLETH": "mV"}, {"ecg": "MCL1", "resp": "RESP", "pleth": "PLETH"}),
        (
            {"ECG LA-RA": "uV", "Resp chest": "", "SaO2": "%"},
            {"ecg": "ECG LA-RA", "resp": "Resp chest", "spo2": "SaO2"},
        ),
        ({"EKG1": "mV", "Abdomen": "", "Thorax": "", "SpO2": ""}, {"ecg": "EKG1", "resp": "Thorax", "spo2": "SpO2"}),
        ({"HR": "bpm", "RESP": "bpm", "EEG Fpz-Cz": "uV", "ABP": "mmHg", "PLETH": "1/min"}, {}),
    ],
)
def test_signals_of_a_ward_are_known_by_their_labels_and_units(units: dict[str, str], taken: dict[str, str]) -> None:
    found = measured(units)
    best = {name: next((label for label, what in found.items() if what.name == name), None) for name in VITALS}
    assert {name: label for name, label in best.items() if label is not None} == taken


def test_the_best_lead_is_sent_as_what_the_model_takes_and_the_rest_keeps_its_name(tmp_path: Path) -> None:
    path = ward(tmp_path, V5="mV", MLII="mV", RESP="mV")
    recording = replay.open_all([path], replay.Options(taken=VITALS))
    assert list(sent(recording)) == ["V5", "ecg", "resp"]
    assert recording.notes == [
        f"{path}: MLII is sent as ecg, which the model takes",
        f"{path}: RESP is sent as resp, which the model takes",
        "no channel is known as pleth, spo2, which the model takes; --map CHANNEL=NAME names one",
    ]


def test_microvolts_become_millivolts_and_an_unknown_model_changes_nothing(tmp_path: Path) -> None:
    path = ward(tmp_path, ECG="uV")
    before = sent(replay.open_all([path]))["ECG"]
    after = sent(replay.open_all([path], replay.Options(taken=VITALS)))["ecg"]
    assert (before.unit, after.unit) == ("uV", "mV")
    assert after.values == pytest.approx(np.array(before.values) / 1000)


def test_the_user_s_names_come_first_and_are_converted_too(tmp_path: Path) -> None:
    path = ward(tmp_path, MLII="uV", V5="uV")
    recording = replay.open_all([path], replay.Options(taken=VITALS, names={"V5": "ecg", "MLII": "other"}))
    found = sent(recording)
    assert {name: channel.unit for name, channel in found.items()} == {"other": "uV", "ecg": "mV"}
    assert not any("is sent as" in note for note in recording.notes)


def test_of_two_recordings_the_first_has_the_name_and_the_other_its_own(tmp_path: Path) -> None:
    first, second = (ward(tmp_path, name, II="mV", PLETH=unit) for name, unit in (("a", "NU"), ("b", "1/min")))
    recording = replay.open_all([first, second], replay.Options(taken=("ecg", "pleth")))
    found = sent(recording)
    assert set(found) == {"ecg", "pleth", "b.II", "b.PLETH"}


def test_a_channel_with_the_model_s_name_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("time_s,ecg,speed\n0,1,2\n0.1,1,2\n")
    recording = replay.open_all([path], replay.Options(taken=VITALS))
    assert set(sent(recording)) == {"ecg", "speed"}
    assert recording.notes == []


def test_any_channel_can_be_renamed(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("time_s,v [km/h],x\n0,1,2\n0.1,1,2\n")
    assert sent(replay.open_all([path], replay.Options(names={"v": "speed"})))["speed"].unit == "km/h"


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ({"III": "ecg"}, "no channel III to map; there are: MLII, V5"),
        ({"MLII": "ecg", "V5": "ecg"}, "--map calls a second channel ecg"),
        ({"MLII": "V5"}, "--map calls a second channel V5"),
    ],
)
def test_names_that_cannot_be_are_refused(tmp_path: Path, names: dict[str, str], says: str) -> None:
    path = ward(tmp_path, MLII="mV", V5="mV")
    with pytest.raises(UsageError, match=says):
        replay.open_all([path], replay.Options(names=names))
