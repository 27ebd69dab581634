"""Synthetic patients for ``models/vitals``: a manifest of windows of four seconds. Not for clinical use.

    python models/vitals/generate.py runs/vitals
    streamer train models/vitals --data runs/vitals

Every patient has a heart, a saturation and lungs, drawn at random, and electrodes somewhere on the chest; every window
of the patient is what a monitor (ECG, pulse oximeter, respiration belt), a stethoscope and a nurse would make of them,
and may lack some. Labels are what is true of the window: by the times of its beats, and by what was drawn. The same
seed gives the same bytes.

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
from heart import Beats, Floats, Heart, Lead, bells, rhythm
from rich.progress import track

WINDOW_S = 4.0
RATE_HZ = 125  # of the monitor
AUDIO_HZ = 4000  # heart and breath sounds are below 2 kHz
WINDOWS_A_PATIENT = 6
TACHYCARDIA_BPM, BRADYCARDIA_BPM, HYPOXIA_PERCENT = 100, 60, 90  # adult thresholds at rest: above, below, below

TIME_T = np.arange(round(WINDOW_S * RATE_HZ)) / RATE_HZ
TIME_S = np.arange(round(WINDOW_S * AUDIO_HZ)) / AUDIO_HZ
CHANNELS = ("ecg", "pleth", "resp", "spo2")

# Pulse at the finger: the systolic wave and the dicrotic one, seconds after the R peak, width, height.
PULSES = ((0.24, 0.07, 1.0), (0.50, 0.09, 0.35))


@dataclass(frozen=True)
class Patient:
    """What is true of a patient, and how the sensors see it.

    Attributes:
        heart: How it beats.
        breaths_min: 1/min.
        spo2: Oxygen saturation, percent.
        lead: Where the ECG's electrodes are.
        monitor: The channels that the monitor has.
    """

    heart: Heart
    breaths_min: float
    spo2: float
    wheeze: bool
    lead: Lead
    monitor: tuple[str, ...]
    pitch_hz: float

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Patient:
        spo2 = random.uniform(76, 89) if random.random() < 0.3 else random.uniform(91.5, 99)
        wheeze = bool(random.random() < 0.3)
        kept = random.random(len(CHANNELS)) < (0.9, 0.7, 0.7, 0.7)
        some = tuple(name for name, here in zip(CHANNELS, kept, strict=True) if here) or CHANNELS
        return cls(
            heart=Heart.drawn(random),
            breaths_min=float(random.uniform(18, 30) if spo2 < HYPOXIA_PERCENT or wheeze else random.uniform(11, 20)),
            spo2=float(spo2),
            wheeze=wheeze,
            lead=Lead.drawn(random),
            # a whole monitor, an ECG alone as of a Holter recorder, or something between
            monitor=[CHANNELS, ("ecg",), some][int(random.choice(3, p=[0.4, 0.35, 0.25]))],
            pitch_hz=float(random.uniform(250, 700)),
        )

    def conditions(self, beats_min: float, irregular: bool) -> list[str]:
        """Names of what is true in a window."""
        found = {
            "tachycardia": beats_min > TACHYCARDIA_BPM,
            "bradycardia": beats_min < BRADYCARDIA_BPM,
            "hypoxia": self.spo2 < HYPOXIA_PERCENT,
            "irregular_rhythm": irregular,
            "wheeze": self.wheeze,
        }
        return [name for name, here in found.items() if here]


def telemetry(patient: Patient, beats: Beats, random: np.random.Generator) -> dict[str, Floats]:
    """What the monitor records, by channel [T]: ECG in mV, pleth and respiration without a unit, SpO2 in percent.

    NaN where it records nothing: in a gap, and between the readings of an oximeter that gives one a second.
    """
    phase_T = 2 * np.pi * (patient.breaths_min / 60 * TIME_T + random.random())
    all_N = np.ones(len(beats.at_s), np.bool_)
    filled_N = np.clip(beats.before_s / beats.before_s.mean(), 0.2, 1.3)  # an early beat finds the heart half empty
    ecg_T = patient.lead.recorded(beats, patient.heart.fibrillates, TIME_T, random)
    pleth_T = bells(TIME_T, beats, PULSES, all_N, filled_N) * (1 + 0.1 * np.sin(phase_T))
    pleth_T += random.normal(0, random.choice([0.03, 0.06, 0.3], p=[0.5, 0.4, 0.1]), len(TIME_T))
    resp_T = np.sin(phase_T) + 0.25 * np.sin(2 * phase_T) * patient.wheeze + random.normal(0, 0.08, len(TIME_T))
    spo2_T = np.full(len(TIME_T), np.round(np.clip(patient.spo2 + random.normal(0, 0.7), 60, 100)))
    found = {"ecg": ecg_T, "pleth": pleth_T, "resp": resp_T, "spo2": spo2_T}
    if random.random() < 0.12:
        begin_s = random.uniform(0, WINDOW_S)
        gap_T = (begin_s <= TIME_T) & (begin_s + random.uniform(0.2, 1.5) > TIME_T)
        found = {name: np.where(gap_T, np.nan, values_T) for name, values_T in found.items()}
        spo2_T[np.arange(len(TIME_T)) % RATE_HZ != 0] = np.nan
        found["spo2"] = spo2_T
    return {name: found[name] for name in patient.monitor}


def stethoscope(patient: Patient, beats: Beats, random: np.random.Generator) -> Floats:
    """Heart sounds S1 and S2 of every beat, breath, and the tone of a wheeze while the patient breathes out [S]."""
    all_N = np.ones(len(beats.at_s), np.bool_)
    first_S = bells(TIME_S, beats, ((0.05, 0.02, 1.0),), all_N) * np.sin(2 * np.pi * 45 * TIME_S)
    second_S = bells(TIME_S, beats, ((0.33, 0.015, 0.7),), all_N) * np.sin(2 * np.pi * 70 * TIME_S)
    phase_S = 2 * np.pi * (patient.breaths_min / 60 * TIME_S + random.random())
    hiss_S = np.convolve(random.normal(0, 1, len(TIME_S)), np.hanning(9) / 4, "same")
    sound_S = 0.3 * (first_S + second_S) + 0.03 * (1 + np.sin(phase_S)) * hiss_S
    if patient.wheeze:
        out_S = np.clip(-np.sin(phase_S), 0, 1)
        tone_S = np.sin(2 * np.pi * patient.pitch_hz * TIME_S + 3 * np.sin(phase_S))
        tone_S += 0.3 * np.sin(2 * np.pi * 2 * patient.pitch_hz * TIME_S)
        sound_S += random.uniform(0.04, 0.12) * out_S * tone_S
    loudness = random.uniform(0.5, 1.2)
    return np.clip(loudness * sound_S + random.normal(0, 0.01, len(TIME_S)), -1, 1)


SAID = {
    "tachycardia": ("heart racing", "pulse is fast", "complains of palpitations", "tachycardic"),
    "bradycardia": ("slow pulse", "heart rate low", "dizzy and bradycardic", "pulse is slow"),
    "hypoxia": ("lips look blue", "desaturating on room air", "needs more oxygen", "sats have dropped"),
    "irregular_rhythm": ("pulse irregularly irregular", "known atrial fibrillation", "skipping beats", "extra beats"),
    "wheeze": ("wheezing on expiration", "audible wheeze", "gave salbutamol for the wheeze", "asthma again"),
}
ASIDES = ("resting in bed", "family at the bedside", "ate half of lunch", "line flushed", "repositioned", "no pain")


def note(conditions: list[str], random: np.random.Generator) -> str:
    """A nurse's note: most of the visible signs, and a remark without information."""
    seen = [str(random.choice(SAID[name])) for name in conditions if random.random() < 0.75]
    if not seen and not conditions:
        seen = ["obs stable"]
    seen.append(str(random.choice(ASIDES)))
    return ", ".join(seen[k] for k in random.permutation(len(seen)))


def windows(out: Path, number: int, seed: int) -> list[dict[str, Any]]:
    """The lines of one patient; writes the sounds, and the tables of monitors that record with gaps."""
    random = np.random.default_rng([seed, number])
    patient = Patient.drawn(random)
    lines = []
    for count in range(WINDOWS_A_PATIENT):
        beats = patient.heart.beats(WINDOW_S, random)
        inside_s = beats.at_s[(beats.at_s >= 0) & (beats.at_s < WINDOW_S)]
        beats_min, irregular = rhythm(inside_s) or (patient.heart.beats_min, False)
        conditions = patient.conditions(beats_min, irregular)
        monitor = telemetry(patient, beats, random)
        heard, written = stethoscope(patient, beats, random), note(conditions, random)
        has_monitor, has_sound, has_note = random.random(3) < (0.92, 0.7, 0.5)
        labels = {"condition": conditions, "heart_rate": round(beats_min, 1)}
        line: dict[str, Any] = {"group": f"patient-{number}", "labels": labels}
        if has_monitor or not (has_sound or has_note):
            line["telemetry"] = recorded(out, f"monitors/{number}-{count}.csv", monitor)
        if has_sound:
            path = f"sounds/{number}-{count}.flac"
            soundfile.write(out / path, heard, AUDIO_HZ, subtype="PCM_16")
            line["audio"] = path
        if has_note:
            line["text"] = written
        lines.append(line)
    return lines


def recorded(out: Path, path: str, monitor: dict[str, Floats]) -> dict[str, Any] | str:
    """A monitor's channels for the manifest: as they are, or the path of a table if some values are missing."""
    rounded = {name: [round(float(value), 3) for value in values] for name, values in monitor.items()}
    if not any(np.isnan(values).any() for values in monitor.values()):
        return {"rate_hz": RATE_HZ} | rounded
    rows = (
        ",".join("" if np.isnan(value) else f"{value:g}" for value in row)
        for row in zip(*rounded.values(), strict=True)
    )
    lines = [f"{time_s:.3f},{row}" for time_s, row in zip(TIME_T, rows, strict=True) if row.strip(",")]
    (out / path).write_text("\n".join([",".join(["time_s", *rounded]), *lines, ""]))
    return path


def main() -> None:
    """Write a manifest and its sounds."""
    parser = argparse.ArgumentParser(description="Synthetic patients for models/vitals. Not for clinical use.")
    parser.add_argument("out", type=Path, help="folder for manifest.jsonl, sounds/ and monitors/")
    parser.add_argument("--patients", type=int, default=700, help=f"each has {WINDOWS_A_PATIENT} windows (default 700)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the patients (default 0)")
    wanted = parser.parse_args()
    if wanted.patients < 1 or wanted.seed < 0:
        parser.error("--patients must be above 0 and --seed not negative")
    for folder in ("sounds", "monitors"):
        (wanted.out / folder).mkdir(parents=True, exist_ok=True)
    beside = wanted.out / "manifest.jsonl.new"  # a manifest with its final name is complete
    with beside.open("w", encoding="utf-8") as file:
        for number in track(range(wanted.patients), "drawing patients"):
            file.writelines(json.dumps(line) + "\n" for line in windows(wanted.out, number, wanted.seed))
    beside.replace(wanted.out / "manifest.jsonl")


if __name__ == "__main__":
    main()
