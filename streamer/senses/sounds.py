"""Events in sound, such as engines, sirens and speech, by a network of the role ``sounds``.

YAMNet (Hershey et al. 2017, "CNN architectures for large-scale audio classification", with MobileNet v1): a patch of
0.96 s as a log-mel spectrogram -> a probability for each of AudioSet's 521 classes, each for itself.
"""

from __future__ import annotations

import csv
import io
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.senses import files
from streamer.senses.sessions import files_of, session
from streamer.settings import Settings

ROLE = "sounds"
RATE_HZ = 16_000
FRAME, HOP, FFT = 400, 160, 512  # samples: 25 ms, 10 ms, and the next power of two
BANDS, LOWEST_HZ, HIGHEST_HZ = 64, 125.0, 7500.0
OFFSET = 0.001  # added to a magnitude before its logarithm, as in training
PATCH = 96  # frames
PATCH_SAMPLES = FRAME + (PATCH - 1) * HOP  # 0.975 s
PATCH_HOP_SAMPLES = PATCH // 2 * HOP
LEAST_HEARD = 0.5  # share of a patch
# The network is quantised: real = scale × (integer - zero).
INPUT_SCALE, INPUT_ZERO = 0.047938, 144
LOGIT_SCALE, LOGIT_ZERO = 0.7565, 190

Floats = NDArray[np.float32]


class SoundEvents:
    """YAMNet with weights and activations of 8 bits; the version is that of its file.

    Attributes:
        labels: AudioSet's names of the classes.
    """

    def __init__(self, settings: Settings) -> None:
        """Load the network.

        Raises:
            UsageError: It is not there, or cannot be run; says how to get it.
        """
        sense = files.find(ROLE, settings)
        self.version = sense.version
        located = files_of(sense)
        self.labels = _labels(located["classes"])
        with _opened(located["model"]) as archive:
            content = {Path(name).name: archive.read(name) for name in archive.namelist() if not name.endswith("/")}
        self._session = session(content.pop("model.onnx", b""), content, name=sense.name)

    def scores(self, samples_S: Floats, heard_S: NDArray[np.bool_] | None = None) -> dict[str, float] | None:
        """What is heard in a stretch of sound: for each class its highest score in any patch.

        Args:
            samples_S: float32 in [-1, 1] at 16 kHz, mono.
            heard_S: Where there was sound, silence included; the rest counts as silence. ``None``: everywhere.

        Returns:
            AudioSet's label -> probability; ``None`` if less than half of every patch was heard.
        """
        if heard_S is None:
            heard_S = np.ones(len(samples_S), np.bool_)
        samples_S = np.where(heard_S, samples_S, np.float32(0))
        if not len(samples_S):
            return None
        patches = [
            samples_S[start : start + PATCH_SAMPLES]
            for start in _starts(len(samples_S))
            if heard_S[start : start + PATCH_SAMPLES].sum() >= LEAST_HEARD * min(PATCH_SAMPLES, len(samples_S))
        ]
        if not patches:
            return None
        highest_C = np.max([self._patch(patch_S) for patch_S in patches], axis=0)
        return dict(zip(self.labels, highest_C.tolist(), strict=True))

    def _patch(self, samples_S: Floats) -> Floats:
        levels_TB = log_mel(np.pad(samples_S, (0, max(0, PATCH_SAMPLES - len(samples_S)))))
        levels = np.clip(np.round(levels_TB / INPUT_SCALE) + INPUT_ZERO, 0, 255).astype(np.uint8)
        (said_1C,) = self._session.run(None, {"audio": levels[None, None]})
        logits_C = LOGIT_SCALE * (said_1C[0].astype(np.float32) - LOGIT_ZERO)
        scores_C: Floats = 0.5 + 0.5 * np.tanh(logits_C / 2)  # the logistic function, without overflow
        return scores_C


def log_mel(samples_S: Floats) -> Floats:
    """The spectrogram that YAMNet sees of a patch.

    Args:
        samples_S: float32 at 16 kHz.

    Returns:
        float32 [frames, 64]: log(mel + 0.001) of magnitudes.
    """
    count = 1 + (len(samples_S) - FRAME) // HOP
    frames_TF = np.lib.stride_tricks.sliding_window_view(samples_S, FRAME)[::HOP][:count]
    magnitudes_TF = np.abs(np.fft.rfft(frames_TF * _window(), FFT, axis=1)).astype(np.float32)
    levels_TB: Floats = np.log(magnitudes_TF @ _mel_bands() + OFFSET)
    return levels_TB


def _starts(length: int) -> range:
    """Where patches begin: at the end, less than half a hop is left out; a stretch shorter than a patch is one."""
    more = round((length - PATCH_SAMPLES) / PATCH_HOP_SAMPLES)
    return range(0, (max(0, more) + 1) * PATCH_HOP_SAMPLES, PATCH_HOP_SAMPLES)


@cache
def _window() -> Floats:
    """Periodic Hann, as TensorFlow's ``stft`` has it."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FRAME) / FRAME)).astype(np.float32)


@cache
def _mel_bands() -> Floats:
    """Triangles on the mel scale of HTK [FFT // 2 + 1, BANDS], as TensorFlow's ``linear_to_mel_weight_matrix``."""

    def mel(hz: NDArray[np.float64]) -> NDArray[np.float64]:
        return 1127.0 * np.log1p(hz / 700.0)

    bins_F1 = mel(np.linspace(0, RATE_HZ / 2, FFT // 2 + 1))[:, None]
    low, high = mel(np.array([LOWEST_HZ, HIGHEST_HZ]))
    edges = np.linspace(low, high, BANDS + 2)
    rising = (bins_F1 - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins_F1) / (edges[2:] - edges[1:-1])
    bands_FB = np.maximum(0, np.minimum(rising, falling))
    bands_FB[0] = 0  # the constant part
    bands: Floats = bands_FB.astype(np.float32)
    return bands


def _labels(path: Path) -> tuple[str, ...]:
    rows = csv.DictReader(io.StringIO(path.read_text("utf-8")))
    try:
        return tuple(row["display_name"] for row in rows)
    except KeyError:
        raise UsageError(f"{path} has no column display_name, as YAMNet's list of classes has") from None


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError) as error:
        raise UsageError(f"{path} is no zip file: {error}") from None
