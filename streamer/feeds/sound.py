"""Sounds in a car, synthesised: engine and road, sirens, horns and voices."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RATE_HZ = 16_000
FULL_SCALE = 32_767.0
Samples = NDArray[np.float64]

# A siren's pitch swings between two frequencies: (low Hz, high Hz, swings a second). Slow: wail, fast: yelp; the last
# is the two-tone horn of European services.
SIRENS = ((620.0, 1450.0, 0.3), (650.0, 1500.0, 3.2), (435.0, 580.0, 0.8))


class Heard(NamedTuple):
    """What there is to hear in one second."""

    speed_mps: float
    siren: bool


class Microphone:
    """A drive's sound track, second after second; phases run on from one second to the next."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng((seed, 10))
        self._engine_phase = 0.0
        self._siren_phase = 0.0
        self._swing = 0.0
        self._siren = 0
        self._was_siren = False
        self._gain = float(self._rng.uniform(0.6, 1.0))

    def second(self, heard: Heard) -> NDArray[np.int16]:
        """One second of samples [RATE_HZ]."""
        sound = self._engine(heard.speed_mps) + self._road(heard.speed_mps)
        if heard.siren:
            if not self._was_siren:
                self._siren = int(self._rng.integers(len(SIRENS)))
            sound += self._siren_second() * self._rng.uniform(0.16, 0.34)
        self._was_siren = heard.siren
        chance = self._rng.random()
        if chance < 0.08:
            sound += self._horn()
        elif chance < 0.3:
            sound += self._voice()
        sound += self._rng.normal(0, 0.006, RATE_HZ)
        return (np.clip(sound * self._gain, -1, 1) * FULL_SCALE).astype(np.int16)

    def _engine(self, speed_mps: float) -> Samples:
        """Harmonics of the firing frequency, which rises with the speed."""
        pitch_hz = (38.0 + 3.2 * speed_mps) * (1 + 0.02 * self._rng.standard_normal())
        phase = self._engine_phase + 2 * np.pi * pitch_hz * np.arange(1, RATE_HZ + 1) / RATE_HZ
        self._engine_phase = float(phase[-1] % (2 * np.pi))
        tones = sum(np.sin(k * phase) / k**0.8 for k in (1, 2, 3, 4, 6))
        return np.asarray(tones) * (0.05 + 0.002 * speed_mps)

    def _road(self, speed_mps: float) -> Samples:
        """Tyres and wind: noise without its highs, louder with the speed."""
        noise = self._rng.standard_normal(RATE_HZ + 8)
        smooth = np.convolve(noise, np.full(9, 1 / 9), mode="valid")
        return smooth * (0.01 + 0.006 * speed_mps)

    def _siren_second(self) -> Samples:
        low_hz, high_hz, swings = SIRENS[self._siren]
        swing = self._swing + swings * np.arange(1, RATE_HZ + 1) / RATE_HZ
        self._swing = float(swing[-1] % 1)
        shape = 0.5 - 0.5 * np.cos(2 * np.pi * swing)
        if self._siren == 2:
            shape = np.round(shape)
        pitch_hz = low_hz + (high_hz - low_hz) * shape
        phase = self._siren_phase + 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
        self._siren_phase = float(phase[-1] % (2 * np.pi))
        return np.asarray(np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase))

    def _horn(self) -> Samples:
        """A honk: two steady tones, which a siren never has."""
        sound = np.zeros(RATE_HZ)
        begin = int(self._rng.integers(0, RATE_HZ // 2))
        length = int(self._rng.integers(RATE_HZ // 6, RATE_HZ // 2))
        t = np.arange(length) / RATE_HZ
        sound[begin : begin + length] = sum(np.sign(np.sin(2 * np.pi * f * t)) for f in (370.0, 466.0)) * 0.06
        return sound

    def _voice(self) -> Samples:
        """Speech-like: glottal pulses through three formants that change with each syllable."""
        pitch_hz = self._rng.uniform(95, 210)
        sound = np.zeros(RATE_HZ)
        for begin in range(0, RATE_HZ - 3200, 3200):
            t = np.arange(2600) / RATE_HZ
            pulse = (t * pitch_hz) % 1
            formants = self._rng.uniform((280, 850, 2100), (780, 2000, 2900))
            tone = sum(np.sin(2 * np.pi * f * t) * np.exp(-5 * pulse) for f in formants)
            sound[begin : begin + 2600] = tone * np.hanning(2600) * 0.05
        return sound


def l16(samples: NDArray[np.int16]) -> bytes:
    """Samples as ``audio/L16`` wants them: 16 bits, big-endian (RFC 2586)."""
    return samples.astype(">i2").tobytes()
