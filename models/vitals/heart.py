"""Synthetic hearts for ``generate.py``: when they beat, and what an electrode records of them. Not for clinical use.

Waves of a beat are bells on the ECG (as in McSharry et al. 2003, "A dynamical model for generating synthetic ECG
signals"); where the electrodes are decides how high each is, and which way it points.

Shape suffixes: N beats · K waves of beats · T samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Waves = tuple[
    tuple[float, float, float], ...
]  # seconds after the R peak at 60 beats a minute, width in s, height in mV

UNEVEN = 0.2  # intervals between beats that differ by more, relative to their mean, are an irregular rhythm
ADC_MV = 0.005  # a step of the recorder
BEFORE_S, AFTER_S = 1.0, 1.0  # beats around a window reach into it


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


class Beats(NamedTuple):
    """Beats in and around a window.

    Attributes:
        at_s: Times of the R peaks [N].
        before_s: Interval before each [N].
        ventricular: Which of them begin in a ventricle: wide, without a P wave [N].
    """

    at_s: Floats
    before_s: Floats
    ventricular: NDArray[np.bool_]


@dataclass(frozen=True)
class Heart:
    """How a heart beats.

    Attributes:
        beats_min: Mean rate, 1/min, without ectopic beats.
        fibrillates: The atria do: no P wave, and no two intervals alike.
        ectopic: Probability that a beat is followed by an early one; 0: it never is.
        every: An early beat follows each so many normal ones, as in bigeminy (1) and trigeminy (2); 0: at random.
        ventricular: Probability that an early beat begins in a ventricle, not in an atrium.
        breathes: By how much breathing changes the intervals, relative.
    """

    beats_min: float
    fibrillates: bool = False
    ectopic: float = 0.0
    every: int = 0
    ventricular: float = 0.0
    breathes: float = 0.0

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Heart:
        slow, normal, fast = (random.uniform(*span) for span in ((38, 58), (62, 98), (104, 165)))
        rate = float(random.choice([slow, normal, fast], p=[0.25, 0.4, 0.35]))
        match random.choice(["sinus", "fibrillation", "ectopic"], p=[0.5, 0.2, 0.3]):
            case "fibrillation":
                return cls(rate, fibrillates=True)
            case "ectopic":
                every = int(random.choice([0, 1, 2, 3], p=[0.6, 0.15, 0.15, 0.1]))
                chance = float(random.uniform(0.05, 0.4)) if not every else 1.0
                return cls(rate, ectopic=chance, every=every, ventricular=float(random.choice([0.0, 1.0, 0.5])))
            case _:
                return cls(rate, breathes=float(random.uniform(0, 0.06)))

    def beats(self, window_s: float, random: np.random.Generator) -> Beats:
        """Beats of a window that begins somewhere in the heart's course."""
        mean_s = 60 / self.beats_min
        at, ventricular = [-BEFORE_S - mean_s * (1 + 3 * random.random())], [False]
        since, phase = int(random.integers(4)), random.uniform(0, 6)
        while at[-1] < window_s + AFTER_S:
            if self.ectopic and since >= self.every and random.random() < self.ectopic:
                since = 0
                wide = bool(random.random() < self.ventricular)
                early_s = mean_s * random.uniform(0.5, 0.8)
                at.append(at[-1] + early_s)
                ventricular.append(wide)
                if random.random() < 0.15:  # a couplet
                    at.append(at[-1] + mean_s * random.uniform(0.5, 0.75))
                    ventricular.append(wide)
                # after a ventricular beat the sinus node goes on as if nothing had been; an atrial one sets it back
                rest_s = 2 * mean_s - early_s if wide else mean_s * random.uniform(0.95, 1.2)
            else:
                since += 1
                spread = 0.24 if self.fibrillates else 0.015
                swing = self.breathes * np.sin(1.5 * at[-1] + phase)
                rest_s = mean_s * float(np.clip(random.normal(1 + swing, spread), 0.45, 1.8))
            at.append(at[-1] + rest_s)
            ventricular.append(False)
        at_s = np.array(at)
        before_s = np.diff(at_s, prepend=at_s[0] - mean_s)
        return Beats(at_s, before_s, np.array(ventricular))


@dataclass(frozen=True)
class Lead:
    """What a pair of electrodes sees of a beat, and of all else.

    Attributes:
        waves, ectopic: Of a beat from the atria, P wave first, and of one from a ventricle.
        flutter_mv: Height of the waves of fibrillating atria.
        gain: Of the amplifier; inverted electrodes make it negative.
        noise_mv, mains_mv, mains_hz, wander_mv: Noise of the electrodes, hum of the mains, movement of the baseline.
    """

    waves: Waves
    ectopic: Waves
    flutter_mv: float
    gain: float
    noise_mv: float
    mains_mv: float
    mains_hz: float
    wander_mv: float

    @classmethod
    def drawn(cls, random: np.random.Generator) -> Lead:
        def some(low: float, high: float) -> float:
            return float(random.uniform(low, high))

        r, q, s, wide = {
            "tall": (some(0.5, 1.8), -some(0, 0.25), -some(0, 0.6), 1.0),
            "deep": (some(0.05, 0.5), 0.0, -some(0.5, 1.6), 1.0),
            "down": (-some(0.5, 1.4), some(0, 0.2), some(0, 0.3), 1.0),
            "block": (some(0.5, 1.4), -some(0, 0.1), -some(0.1, 0.8), 1.9),  # of a bundle branch
        }[str(random.choice(["tall", "deep", "down", "block"], p=[0.6, 0.2, 0.08, 0.12]))]
        width_s = 0.011 * some(0.7, 1.4) * wide
        t = some(0.08, 0.6) if random.random() < 0.78 else -some(0.03, 0.4)
        way = float(random.choice([-1, 1]))
        early = some(0.9, 2.2) * way
        return cls(
            waves=(
                (-some(0.14, 0.19), some(0.02, 0.03), some(0.03, 0.22) * float(random.choice([1, 1, 1, -1]))),
                (-2.6 * width_s, width_s, q),
                (0.0, width_s, r),
                (2.8 * width_s, width_s * some(0.9, 1.4), s),
                (some(0.22, 0.3), some(0.035, 0.06), t),
            ),
            ectopic=(
                (0.0, some(0.025, 0.045), early),
                (some(0.08, 0.12), some(0.02, 0.04), -early * some(0.1, 0.8)),
                (some(0.28, 0.36), some(0.05, 0.08), -early * some(0.2, 0.5)),
            ),
            flutter_mv=some(0.02, 0.12),
            gain=float(np.exp(random.uniform(np.log(0.3), np.log(3)))),
            noise_mv=some(0.005, 0.1),
            mains_mv=some(0.01, 0.15) if random.random() < 0.4 else 0.0,
            mains_hz=float(random.choice([50, 60])),
            wander_mv=some(0.02, 0.4),
        )

    def recorded(self, beats: Beats, fibrillates: bool, time_T: Floats, random: np.random.Generator) -> Floats:
        """The ECG in mV [T]; NaN where a gap is."""
        ecg_T = bells(time_T, beats, self.waves[1:] if fibrillates else self.waves, ~beats.ventricular)
        ecg_T += bells(time_T, beats, self.ectopic, beats.ventricular)
        if fibrillates:
            ecg_T += self.flutter_mv * np.sin(2 * np.pi * random.uniform(4, 9) * time_T + random.uniform(0, 6))
        ecg_T += self._disturbed(time_T, random)
        return np.round(self.gain * ecg_T / ADC_MV) * ADC_MV

    def _disturbed(self, time_T: Floats, random: np.random.Generator) -> Floats:
        """What is not of the heart: a baseline that moves, hum, noise, bursts of muscles, movement."""
        count, length_s = len(time_T), time_T[-1]
        noise_T = np.full(count, self.noise_mv)
        if random.random() < 0.15:  # a muscle
            noise_T[abs(time_T - random.uniform(0, length_s)) < random.uniform(0.2, 1)] *= 4
        other_T = random.normal(0, 1, count) * noise_T
        other_T += self.mains_mv * np.sin(2 * np.pi * self.mains_hz * time_T + random.uniform(0, 6))
        worse = 4 if random.random() < 0.1 else 1
        for hz in random.uniform(0.05, 0.6, 3):
            other_T += worse * self.wander_mv / 2 * np.sin(2 * np.pi * hz * time_T + random.uniform(0, 6))
        if random.random() < 0.08:  # the electrode moves
            since_T = time_T - random.uniform(0, length_s)
            jump_mv = random.normal(0, 1.5)
            other_T += np.where(since_T > 0, jump_mv * np.exp(-np.clip(since_T, 0, None) / random.uniform(0.1, 1)), 0)
        return other_T


def bells(
    time_T: Floats, beats: Beats, waves: Waves, which: NDArray[np.bool_], strength: Floats | None = None
) -> Floats:
    """A sum of bells at some of the beats [T]; waves are closer to the beat where the interval before it was short.

    Args:
        strength: Height of each beat's waves, relative [N].
    """
    after_W, width_W, height_W = np.array(waves).T
    near_N = which & (beats.at_s > time_T[0] - BEFORE_S) & (beats.at_s < time_T[-1] + AFTER_S)
    stretch_N1 = np.sqrt(np.clip(beats.before_s[near_N], 0.35, 1.6))[:, None]
    # what belongs to the same spike keeps its shape
    centre_NW = beats.at_s[near_N][:, None] + np.where(abs(after_W) > 0.1, after_W * stretch_N1, after_W)
    height_NW = np.broadcast_to(height_W, centre_NW.shape)
    if strength is not None:
        height_NW = height_NW * strength[near_N][:, None]
    lag_KT = (time_T - centre_NW.reshape(-1, 1)) / np.broadcast_to(width_W, centre_NW.shape).reshape(-1, 1)
    return np.asarray(height_NW.reshape(-1) @ np.exp(-0.5 * lag_KT**2))
