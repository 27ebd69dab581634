"""Voice activity against the times of words, and on sound without a voice."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.senses import Table
from bench.senses.films import mono
from streamer.senses import files
from streamer.senses.voice import FRAME_SAMPLES, RATE_HZ, VoiceActivity, VoiceNetwork
from streamer.settings import Settings

THRESHOLD = 0.5
PAUSE_S = 0.3  # shorter pauses between words belong to the speech

Floats = NDArray[np.float32]


def measure(settings: Settings, data: Path) -> Table:
    """Shares of 32 ms frames that are missed, and falsely found."""
    network = VoiceNetwork(files.find("voice", settings).files["model"])
    rows, long_s, spent_s = [], 0.0, 0.0
    for about, sounds in _sounds(data).items():
        said_N, found_N = [], []
        for samples_S, spans_s in sounds:
            began_s = time.process_time()
            voice = VoiceActivity(network)
            frames = len(samples_S) // FRAME_SAMPLES
            found = [voice.probability(samples_S[n * FRAME_SAMPLES : (n + 1) * FRAME_SAMPLES]) for n in range(frames)]
            spent_s += time.process_time() - began_s
            long_s += len(samples_S) / RATE_HZ
            middles_s = (np.arange(frames) + 0.5) * FRAME_SAMPLES / RATE_HZ
            said_N.append(
                np.any([(middles_s >= start) & (middles_s < end) for start, end in spans_s] or [middles_s < 0], axis=0)
            )
            found_N.append(np.array(found) >= THRESHOLD)
        said, voiced = np.concatenate(said_N), np.concatenate(found_N)
        missed = f"{(said & ~voiced).sum() / said.sum():.1%}" if said.any() else "–"
        false = f"{(~said & voiced).sum() / (~said).sum():.1%}" if (~said).any() else "–"
        rows.append((about, f"{len(said) * FRAME_SAMPLES / RATE_HZ:.0f} s", f"{said.mean():.0%}", missed, false))
    about = (
        f"Frames of 32 ms, found at a probability of {THRESHOLD} or more; {1000 * spent_s / long_s:.0f} ms of CPU for "
        "a second of sound. Speech are the words by the times that come with the recordings, and pauses below "
        f"{PAUSE_S} s between them."
    )
    return Table(about, ("recordings", "length", "of it speech", "speech missed", "other sound taken for speech"), rows)


def _sounds(data: Path) -> dict[str, list[tuple[Floats, list[tuple[float, float]]]]]:
    """Kind of recording -> sounds at 16 kHz, and from when to when there is speech, s."""
    novel = [(mono(path, RATE_HZ), _joined(_of_json(path))) for path in sorted((data / "librivox").glob("*.wav"))]
    aligned = [path for path in sorted((data / "grid").glob("*.mpg")) if path.with_suffix(".align").is_file()]
    return {
        "a novel, read (LibriVox)": novel,
        "short sentences (GRID)": [(mono(path, RATE_HZ), _joined(_of_align(path))) for path in aligned],
        "a walk with a camera, nobody speaks": [(mono(data / "gopro" / "max-heromode.mp4", RATE_HZ), [])],
        "digital silence": [(mono(data / "driving" / "solidWhiteRight.mp4", RATE_HZ), [])],
    }


def _of_json(sound: Path) -> list[tuple[float, float]]:
    words = json.loads(sound.with_suffix(".json").read_text("utf-8"))["w"]
    return [(word["b"], word["b"] + word["d"]) for word in words if word["t"] != "<sil>"]


def _of_align(film: Path) -> list[tuple[float, float]]:
    """Times of GRID are in 25,000ths of a second."""
    lines = [line.split() for line in film.with_suffix(".align").read_text("utf-8").splitlines()]
    return [(int(start) / 25_000, int(end) / 25_000) for start, end, word in lines if word != "sil"]


def _joined(words: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    spans: list[tuple[float, float]] = []
    for start, end in words:
        if spans and start - spans[-1][1] < PAUSE_S:
            spans[-1] = (spans[-1][0], end)
        else:
            spans.append((start, end))
    return spans
