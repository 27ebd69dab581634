"""Sounds of a car, synthesised: engine, road and rain, sirens, horns and voices, what sounds beside the road, and those
in the cabin.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamer.feeds.scenario import OCCUPANTS, ROADSIDES

RATE_HZ = 16_000
FULL_SCALE = 32_767.0
Samples = NDArray[np.float64]

# A siren's pitch swings between two frequencies: (low Hz, high Hz, swings a second). Slow: wail, fast: yelp; the last
# is the two-tone horn of European services. In the order of scenario.SIRENS.
SWINGS = ((620.0, 1450.0, 0.3), (650.0, 1500.0, 3.2), (435.0, 580.0, 0.8))

THROUGH_BODY = np.full(9, 0.12 / 9)  # what the cabin hears of outside: an eighth, with fewer highs

DROP = np.exp(-np.arange(160) / 20) * np.sin(np.arange(160) * 1.9)  # the sound of one drop on the roof


class Heard(NamedTuple):
    """What can be heard in one second.

    Attributes:
        siren: An index of ``scenario.SIRENS``; ``None`` if there is no siren.
        roadside: An index of ``scenario.ROADSIDES``.
    """

    speed_mps: float
    siren: int | None = None
    roadside: int = 0
    rain: bool = False


class Microphone:
    """A drive's sound track, second after second; phases run on from one second to the next."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng((seed, 10))
        self._engine_phase = 0.0
        self._siren_phase = 0.0
        self._swing = 0.0
        self._gain = float(self._rng.uniform(0.6, 1.0))

    def second(self, heard: Heard) -> NDArray[np.int16]:
        """One second of samples [RATE_HZ]."""
        sound = self._engine(heard.speed_mps) + self._road(heard.speed_mps)
        if heard.siren is not None:
            sound += self._siren_second(heard.siren) * self._rng.uniform(0.16, 0.34)
        sound += self._roadside(ROADSIDES[heard.roadside]) * self._rng.uniform(0.7, 1.3)
        if heard.rain:
            sound += self._rain()
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

    def _siren_second(self, vehicle: int) -> Samples:
        low_hz, high_hz, swings = SWINGS[vehicle]
        swing = self._swing + swings * np.arange(1, RATE_HZ + 1) / RATE_HZ
        self._swing = float(swing[-1] % 1)
        shape = 0.5 - 0.5 * np.cos(2 * np.pi * swing)
        if vehicle == 2:
            shape = np.round(shape)
        pitch_hz = low_hz + (high_hz - low_hz) * shape
        phase = self._siren_phase + 2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ
        self._siren_phase = float(phase[-1] % (2 * np.pi))
        return np.asarray(np.sin(phase) + 0.4 * np.sin(2 * phase) + 0.2 * np.sin(3 * phase))

    def _rain(self) -> Samples:
        """Drops on the roof: a hiss of the highs, and single knocks."""
        noise = self._rng.standard_normal(RATE_HZ + 1)
        knocks = (self._rng.random(RATE_HZ) < 40 / RATE_HZ) * self._rng.uniform(0.1, 0.4, RATE_HZ)
        return np.diff(noise) * 0.02 + np.convolve(knocks, DROP, mode="same")

    def _roadside(self, what: str) -> Samples:
        t = np.arange(RATE_HZ) / RATE_HZ
        match what:
            case "bells":  # struck twice a second; a bell's partials are not harmonics
                struck = t % 0.5
                return sum(np.sin(2 * np.pi * f * struck) for f in (523.0, 1071.0, 1559.0, 2110.0)) * (
                    0.04 * np.exp(-5 * struck)
                )
            case "drill":  # a jackhammer: bursts of noise, 22 a second
                return self._rng.standard_normal(RATE_HZ) * 0.12 * np.exp(-60 * (t % (1 / 22)))
            case "dog":  # three barks a second, each falling in pitch
                since = t % (1 / 3)
                pitch_hz = 900 * np.exp(-5 * since) + 300
                bark = np.sign(np.sin(2 * np.pi * np.cumsum(pitch_hz) / RATE_HZ))
                return bark * 0.08 * np.exp(-14 * since)
            case "train":  # a rumble, and wheels over the joints of the rails
                rumble = np.convolve(self._rng.standard_normal(RATE_HZ), np.full(65, 1 / 65), mode="same")
                joints = np.exp(-90 * (t % 0.25)) + np.exp(-90 * ((t + 0.18) % 0.25))
                return rumble * 0.25 + joints * np.sin(2 * np.pi * 180 * t) * 0.25
            case "music":  # three notes, four beats
                beats = 1 - 0.6 * (t % 0.25) / 0.25
                return sum(np.sin(2 * np.pi * f * t) for f in (1046.5, 1318.5, 1568.0)) * 0.035 * beats
            case _:
                return np.zeros(RATE_HZ)

    def _horn(self) -> Samples:
        """A honk: two steady tones, which a siren never has."""
        sound = np.zeros(RATE_HZ)
        begin = int(self._rng.integers(0, RATE_HZ // 2))
        length = int(self._rng.integers(RATE_HZ // 6, RATE_HZ // 2))
        t = np.arange(length) / RATE_HZ
        sound[begin : begin + length] = sum(np.sign(np.sin(2 * np.pi * f * t)) for f in (370.0, 466.0)) * 0.06
        return sound

    def _voice(self) -> Samples:
        return voice(self._rng, self._rng.uniform(95, 210))


class CabinMicrophone:
    """A drive's sound in the cabin: those who are in the car, and little of what is outside.

    Args:
        outside: Of the same drive, for this microphone alone.
    """

    def __init__(self, seed: int, outside: Microphone) -> None:
        self._rng = np.random.default_rng((seed, 70))
        self._outside = outside
        self._pitch_hz = float(self._rng.uniform(95, 210))

    def second(self, heard: Heard, occupants: int) -> NDArray[np.int16]:
        """One second of samples [RATE_HZ].

        Args:
            occupants: An index of ``scenario.OCCUPANTS``.
        """
        sound = np.convolve(self._outside.second(heard) / FULL_SCALE, THROUGH_BODY, mode="same")
        loudness = self._rng.uniform(1.2, 2.4)
        match OCCUPANTS[occupants]:
            case "talking":
                sound += voice(self._rng, self._pitch_hz * self._rng.uniform(0.9, 1.1)) * loudness
            case "crying":
                sound += self._crying() * loudness / 2  # it is loud by itself
        sound += self._rng.normal(0, 0.003, RATE_HZ)
        return (np.clip(sound, -1, 1) * FULL_SCALE).astype(np.int16)

    def _crying(self) -> Samples:
        """A child: two long cries a second, each rising and falling around 450 Hz, with a breath between."""
        t = np.arange(RATE_HZ // 2) / RATE_HZ
        cry = np.sin(np.pi * np.clip(t / 0.4, 0, 1))
        top_hz = self._rng.uniform(400, 520)
        phase = 2 * np.pi * np.cumsum(top_hz * (0.8 + 0.2 * cry)) / RATE_HZ
        return np.tile(sum(np.sin(k * phase) / k for k in range(1, 6)) * cry * 0.06, 2)


def voice(rng: np.random.Generator, pitch_hz: float) -> Samples:
    """A second that is like speech: glottal pulses through three formants that change with each syllable."""
    sound = np.zeros(RATE_HZ)
    for begin in range(0, RATE_HZ - 3200, 3200):
        t = np.arange(2600) / RATE_HZ
        pulse = (t * pitch_hz) % 1
        formants = rng.uniform((280, 850, 2100), (780, 2000, 2900))
        tone = sum(np.sin(2 * np.pi * f * t) * np.exp(-5 * pulse) for f in formants)
        sound[begin : begin + 2600] = tone * np.hanning(2600) * 0.05
    return sound


def l16(samples: NDArray[np.int16]) -> bytes:
    """Samples as ``audio/L16`` wants them: 16 bits, big-endian (RFC 2586)."""
    return samples.astype(">i2").tobytes()
