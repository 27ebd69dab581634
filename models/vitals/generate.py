"""Synthetic patients for ``models/vitals``: a manifest of windows of four seconds. Not for clinical use.

    python models/vitals/generate.py runs/vitals
    streamer train models/vitals --data runs/vitals

Every patient has a heart rate, a rhythm, a saturation and lungs, drawn at random; every window of the patient is what
a monitor (ECG, pulse oximeter, respiration belt), a stethoscope and a nurse would make of them, and may lack some. What
is drawn is the truth, and so the labels. The same seed gives the same bytes.

Shape suffixes: T telemetry samples · S audio samples.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.progress import track

WINDOW_S = 4.0
RATE_HZ = 125  # of the monitor
AUDIO_HZ = 4000  # heart and breath sounds are below 2 kHz
WINDOWS_A_PATIENT = 6
TACHYCARDIA_BPM, BRADYCARDIA_BPM, HYPOXIA_PERCENT = 100, 60, 90  # adult thresholds at rest: above, below, below

UNEVEN = 0.2  # intervals between beats that differ by more, relative to their mean, are an irregular rhythm

TIME_T = np.arange(round(WINDOW_S * RATE_HZ)) / RATE_HZ
TIME_S = np.arange(round(WINDOW_S * AUDIO_HZ)) / AUDIO_HZ

# Waves of a beat as bells on the ECG (as in McSharry et al. 2003, "A dynamical model for generating synthetic ECG
# signals"): seconds after the R peak at 60 beats a minute, width in seconds, height in mV.
P_WAVE = (-0.17, 0.025, 0.15)
WAVES = ((-0.03, 0.010, -0.12), (0.0, 0.012, 1.0), (0.03, 0.010, -0.22), (0.27, 0.045, 0.3))
# Pulse at the finger: the systolic wave and the dicrotic one, seconds after the R peak, width, height.
PULSES = ((0.24, 0.07, 1.0), (0.50, 0.09, 0.35))

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Patient:
    """What is true of a patient, and how the sensors see it.

    Attributes:
        beats_min, breaths_min: Heart and breathing rate, 1/min.
        spo2: Oxygen saturation, percent.
        irregular: Atrial fibrillation: no P wave, and no two intervals alike.
    """

    beats_min: float
    breaths_min: float
    spo2: float
    irregular: bool
    wheeze: bool
    ecg_gain: float
    noise: float
    pitch_hz: float

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Patient:
        slow, normal, fast = (random.uniform(*span) for span in ((38, 58), (62, 98), (104, 165)))
        spo2 = random.uniform(76, 89) if random.random() < 0.3 else random.uniform(91.5, 99)
        wheeze = bool(random.random() < 0.3)
        return cls(
            beats_min=float(random.choice([slow, normal, fast], p=[0.25, 0.4, 0.35])),
            breaths_min=float(random.uniform(18, 30) if spo2 < HYPOXIA_PERCENT or wheeze else random.uniform(11, 20)),
            spo2=float(spo2),
            irregular=bool(random.random() < 0.3),
            wheeze=wheeze,
            ecg_gain=float(random.uniform(0.6, 1.4)),
            noise=float(random.uniform(0.02, 0.12)),
            pitch_hz=float(random.uniform(250, 700)),
        )

    @property
    def conditions(self) -> list[str]:
        found = {
            "tachycardia": self.beats_min > TACHYCARDIA_BPM,
            "bradycardia": self.beats_min < BRADYCARDIA_BPM,
            "hypoxia": self.spo2 < HYPOXIA_PERCENT,
            "irregular_rhythm": self.irregular,
            "wheeze": self.wheeze,
        }
        return [name for name, here in found.items() if here]


def beats(patient: Patient, random: np.random.Generator) -> Floats:
    """Times of the R peaks in a window and just around it, s."""
    mean_s = 60 / patient.beats_min
    spread = 0.24 if patient.irregular else 0.02  # of the intervals, relative: fibrillation against sinus rhythm
    intervals = mean_s * np.clip(random.normal(1, spread, 40), 0.45, 1.8)
    peaks = np.cumsum(intervals) - 2 - mean_s * random.random()
    return peaks[(peaks > -1) & (peaks < WINDOW_S + 1)]


def rhythm(beats_s: Floats) -> tuple[float, bool] | None:
    """Heart rate, 1/min, and whether the rhythm is irregular, by the times of the beats in a window, s.

    Irregular: the longest interval between two beats is longer than the shortest by more than a fifth of their mean.
    ``None``: too few beats.
    """
    intervals = np.diff(beats_s)
    if len(intervals) < 2:
        return None
    mean_s = float(intervals.mean())
    return 60 / mean_s, bool(intervals.max() - intervals.min() > UNEVEN * mean_s)


def bells(time: Floats, at: Floats, waves: tuple[tuple[float, float, float], ...], stretch: float) -> Floats:
    """A sum of bells after each of the times; later ones come sooner when the heart is fast."""
    total = np.zeros_like(time)
    for after, width, height in waves:
        lag = time[None] - at[:, None] - after * stretch
        total += height * np.exp(-0.5 * (lag / width) ** 2).sum(0)
    return total


def telemetry(patient: Patient, peaks: Floats, random: np.random.Generator) -> dict[str, Floats]:
    """What the monitor records, by channel [T]: ECG in mV, pleth and respiration without a unit, SpO2 in percent."""
    stretch = float(np.sqrt(60 / patient.beats_min))
    waves = WAVES if patient.irregular else (P_WAVE, *WAVES)
    phase = 2 * np.pi * (patient.breaths_min / 60 * TIME_T + random.random())
    ecg = patient.ecg_gain * bells(TIME_T, peaks, waves, stretch)
    if patient.irregular:  # the fibrillating atria
        ecg += 0.05 * np.sin(2 * np.pi * random.uniform(5, 8) * TIME_T + random.uniform(0, 6))
    ecg += 0.1 * np.sin(phase + 1) + random.normal(0, patient.noise, len(TIME_T))  # the baseline moves with breathing
    pleth = bells(TIME_T, peaks, PULSES, stretch) * (1 + 0.1 * np.sin(phase)) + random.normal(0, 0.05, len(TIME_T))
    resp = np.sin(phase) + 0.25 * np.sin(2 * phase) * patient.wheeze + random.normal(0, 0.08, len(TIME_T))
    shown = np.round(np.clip(patient.spo2 + random.normal(0, 0.7), 60, 100))
    return {"ecg": ecg, "pleth": pleth, "resp": resp, "spo2": np.full(len(TIME_T), shown)}


def stethoscope(patient: Patient, peaks: Floats, random: np.random.Generator) -> Floats:
    """Heart sounds S1 and S2 of every beat, breath, and the tone of a wheeze while the patient breathes out [S]."""
    stretch = float(np.sqrt(60 / patient.beats_min))
    first = bells(TIME_S, peaks, ((0.05, 0.02, 1.0),), 1.0) * np.sin(2 * np.pi * 45 * TIME_S)
    second = bells(TIME_S, peaks, ((0.33, 0.015, 0.7),), stretch) * np.sin(2 * np.pi * 70 * TIME_S)
    phase = 2 * np.pi * (patient.breaths_min / 60 * TIME_S + random.random())
    hiss = np.convolve(random.normal(0, 1, len(TIME_S)), np.hanning(9) / 4, "same")
    sound = 0.3 * (first + second) + 0.03 * (1 + np.sin(phase)) * hiss
    if patient.wheeze:
        out = np.clip(-np.sin(phase), 0, 1)
        tone = np.sin(2 * np.pi * patient.pitch_hz * TIME_S + 3 * np.sin(phase))
        sound += random.uniform(0.04, 0.12) * out * (tone + 0.3 * np.sin(2 * np.pi * 2 * patient.pitch_hz * TIME_S))
    loudness = random.uniform(0.5, 1.2)
    return np.clip(loudness * sound + random.normal(0, 0.01, len(TIME_S)), -1, 1)


SAID = {
    "tachycardia": ("heart racing", "pulse is fast", "complains of palpitations", "tachycardic"),
    "bradycardia": ("slow pulse", "heart rate low", "dizzy and bradycardic", "pulse is slow"),
    "hypoxia": ("lips look blue", "desaturating on room air", "needs more oxygen", "sats have dropped"),
    "irregular_rhythm": ("pulse irregularly irregular", "known atrial fibrillation", "skipping beats", "rhythm uneven"),
    "wheeze": ("wheezing on expiration", "audible wheeze", "gave salbutamol for the wheeze", "asthma again"),
}
ASIDES = ("resting in bed", "family at the bedside", "ate half of lunch", "line flushed", "repositioned", "no pain")


def note(patient: Patient, random: np.random.Generator) -> str:
    """A nurse's note: most of the visible signs, and a remark without information."""
    seen = [str(random.choice(SAID[name])) for name in patient.conditions if random.random() < 0.75]
    if not seen and not patient.conditions:
        seen = ["obs stable"]
    seen.append(str(random.choice(ASIDES)))
    return ", ".join(seen[k] for k in random.permutation(len(seen)))


def windows(out: Path, number: int, seed: int) -> list[dict[str, Any]]:
    """The lines of one patient; writes the sounds."""
    random = np.random.default_rng([seed, number])
    patient = Patient.drawn(random)
    lines = []
    for count in range(WINDOWS_A_PATIENT):
        peaks = beats(patient, random)
        monitor = telemetry(patient, peaks, random)
        heard, written = stethoscope(patient, peaks, random), note(patient, random)
        has_monitor, has_sound, has_note, has_ecg = random.random(4) < (0.92, 0.8, 0.6, 0.95)
        labels = {"condition": patient.conditions, "heart_rate": round(patient.beats_min, 1)}
        line: dict[str, Any] = {"group": f"patient-{number}", "labels": labels}
        if has_monitor or not (has_sound or has_note):
            kept = {name: values for name, values in monitor.items() if has_ecg or name != "ecg"}
            line["telemetry"] = {"rate_hz": RATE_HZ} | {k: [round(float(x), 3) for x in v] for k, v in kept.items()}
        if has_sound:
            path = f"sounds/{number}-{count}.flac"
            soundfile.write(out / path, heard, AUDIO_HZ, subtype="PCM_16")
            line["audio"] = path
        if has_note:
            line["text"] = written
        lines.append(line)
    return lines


def main() -> None:
    """Write a manifest and its sounds."""
    parser = argparse.ArgumentParser(description="Synthetic patients for models/vitals. Not for clinical use.")
    parser.add_argument("out", type=Path, help="folder for manifest.jsonl and sounds/")
    parser.add_argument("--patients", type=int, default=400, help=f"each has {WINDOWS_A_PATIENT} windows (default 400)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the patients (default 0)")
    wanted = parser.parse_args()
    if wanted.patients < 1 or wanted.seed < 0:
        parser.error("--patients must be above 0 and --seed not negative")
    (wanted.out / "sounds").mkdir(parents=True, exist_ok=True)
    beside = wanted.out / "manifest.jsonl.new"  # a manifest with its final name is complete
    with beside.open("w", encoding="utf-8") as file:
        for number in track(range(wanted.patients), "drawing patients"):
            file.writelines(json.dumps(line) + "\n" for line in windows(wanted.out, number, wanted.seed))
    beside.replace(wanted.out / "manifest.jsonl")


if __name__ == "__main__":
    main()
