"""Outputs learned from few windows, on the features that frozen senses find in them.

Pictures become features of the backbone, sound the scores of its events, words a vector. A head is linear in what a
window has; what it lacks adds nothing, as if it were average. Shapes: N windows, D features, L labels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from streamer.errors import UsageError, one_line
from streamer.model.sample import Sample
from streamer.model.senses import Learned, Senses
from streamer.model.spec import decided
from streamer.senses.backbone import PictureFeatures
from streamer.senses.sentences import SentenceEncoder
from streamer.senses.sounds import SoundEvents
from streamer.settings import Settings

LEARNED_FILE = "learned.safetensors"
LEAST_SCORE = 1e-4  # of a sound event, before its logarithm: the network's scores are no finer

Floats = NDArray[np.float32]
Blocks = dict[str, tuple[Floats, NDArray[np.bool_]]]  # sense -> features [N, D], and which windows have any [N]


class Features:
    """The frozen senses that heads are learned on.

    Attributes:
        versions: Sense -> the version of its files: features of others mean something else.
    """

    def __init__(self, senses: Senses, settings: Settings) -> None:
        """Load the senses that something is to be learned on, some of ``FEATURES``.

        Raises:
            UsageError: One is not there, or cannot be run; says how to get it.
        """
        self._sensors = senses.sensors
        self._pictures = PictureFeatures(settings) if senses.judged_by("pictures") else None
        self._sounds = SoundEvents(settings) if senses.judged_by("sounds") else None
        self._words = SentenceEncoder(settings) if senses.judged_by("words") else None
        loaded = {"pictures": self._pictures, "sounds": self._sounds, "words": self._words}
        self.versions = {name: sense.version for name, sense in loaded.items() if sense is not None}

    def of(self, samples: Sequence[Sample]) -> Blocks:
        """The features of windows, by sense."""
        found: dict[str, list[Floats | None]] = {}
        if self._pictures is not None:
            found["pictures"] = _seen(self._pictures, [self._sensors.frames(sample) for sample in samples])
        if self._sounds is not None:
            found["sounds"] = [_heard(self._sounds, self._sensors.sounds(sample)) for sample in samples]
        if self._words is not None:
            found["words"] = _said(self._words, [" ".join(self._sensors.phrases(sample)) for sample in samples])
        return {name: _stacked(rows) for name, rows in found.items()}


class Head(NamedTuple):
    """A linear classifier on blocks of features.

    Attributes:
        labels: L of them.
        bias_L: Of the labels.
        blocks: Sense -> the mean of its features [D], and weights [L, D].
    """

    labels: tuple[str, ...]
    bias_L: Floats
    blocks: dict[str, tuple[Floats, Floats]]

    def scores(self, blocks: Blocks) -> tuple[Floats, NDArray[np.bool_]]:
        """Probabilities [N, L], and which windows have anything to judge by [N]."""
        count = len(next(iter(blocks.values()))[1])
        logits_NL = np.repeat(self.bias_L[None].astype(np.float64), count, axis=0)
        known_N = np.zeros(count, np.bool_)
        for name, (mean_D, weights_LD) in self.blocks.items():
            features_ND, present_N = blocks[name]
            logits_NL += np.where(present_N[:, None], (features_ND - mean_D) @ weights_LD.T, 0.0)
            known_N |= present_N
        raised_NL = np.exp(logits_NL - logits_NL.max(axis=1, keepdims=True))
        scores_NL: Floats = (raised_NL / raised_NL.sum(axis=1, keepdims=True)).astype(np.float32)
        return scores_NL, known_N


class LearnedOutputs:
    """The heads of a model folder and the senses that they were learned on.

    Attributes:
        version: Changes with the heads, and so with the senses.
    """

    def __init__(self, folder: Path, senses: Senses, settings: Settings) -> None:
        """Read the heads and load the senses.

        Raises:
            UsageError: The file is missing, broken, or was learned for other labels or on other senses.
        """
        self._features = Features(senses, settings)
        self._heads = read(folder, senses.learned, self._features.versions)
        self.version = hashlib.sha256((folder / LEARNED_FILE).read_bytes()).hexdigest()

    def judge(self, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        """For each window its outputs as they are published; none where it has nothing to judge by."""
        if not samples:
            return []
        blocks = self._features.of(samples)
        outputs: list[dict[str, Any]] = [{} for _ in samples]
        for name, head in self._heads.items():
            scores_NL, known_N = head.scores(blocks)
            for row in np.flatnonzero(known_N).tolist():
                outputs[row][name] = decided(head.labels, scores_NL[row])
        return outputs


def write(folder: Path, heads: Mapping[str, Head], versions: Mapping[str, str]) -> None:
    """Write the heads of a model folder; a reader never sees half a file."""
    tensors, labels = {}, {}
    for output, head in heads.items():
        labels[output] = head.labels
        tensors[f"{output}/bias"] = head.bias_L
        for name, (mean_D, weights_LD) in head.blocks.items():
            tensors |= {f"{output}/{name}/mean": mean_D, f"{output}/{name}/weights": weights_LD}
    beside = folder / f"{LEARNED_FILE}.new"
    save_file(tensors, beside, {"labels": json.dumps(labels), "senses": json.dumps(dict(versions))})
    beside.chmod(0o644)  # safetensors makes files that only their owner may read
    beside.replace(folder / LEARNED_FILE)


def read(folder: Path, learned: Mapping[str, Learned], versions: Mapping[str, str]) -> dict[str, Head]:
    """Read what :func:`write` wrote, and check that it is for these outputs and senses."""
    path = folder / LEARNED_FILE
    again = f"run `streamer learn {folder} --data …`"
    if not path.is_file():
        raise UsageError(f"{path} is not a file; {again}, which makes it")
    try:
        with safe_open(path, framework="np") as file:
            about = {key: json.loads(text) for key, text in (file.metadata() or {}).items()}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        heads = {name: _head(name, one, tensors) for name, one in learned.items()}
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is truncated, or learned for other outputs: {one_line(error)}; {again}") from error
    for name, one in learned.items():
        if tuple(about.get("labels", {}).get(name, ())) != one.labels:
            raise UsageError(f"{path} was learned for other labels of {name} than model.toml has; {again}")
    if about.get("senses") != dict(versions):
        raise UsageError(f"{path} was learned on other senses than are here; {again}")
    return heads


def _head(output: str, learned: Learned, tensors: Mapping[str, Floats]) -> Head:
    blocks = {name: (tensors[f"{output}/{name}/mean"], tensors[f"{output}/{name}/weights"]) for name in learned.senses}
    return Head(learned.labels, tensors[f"{output}/bias"], blocks)


def highest(sounds: SoundEvents, parts: Sequence[tuple[Floats, NDArray[np.bool_]]]) -> dict[str, float] | None:
    """The highest score of each event in what several microphones heard; ``None`` if none of them heard enough."""
    found = [scores for samples_S, heard_S in parts if (scores := sounds.scores(samples_S, heard_S)) is not None]
    return {name: max(scores[name] for scores in found) for name in found[0]} if found else None


def _seen(pictures: PictureFeatures, frames: Sequence[Sequence[NDArray[np.uint8]]]) -> list[Floats | None]:
    """The mean over the frames of each window."""
    found = iter(pictures.features([frame for some in frames for frame in some]))
    return [np.mean([next(found) for _ in some], axis=0, dtype=np.float32) if some else None for some in frames]


def _heard(sounds: SoundEvents, parts: Sequence[tuple[Floats, NDArray[np.bool_]]]) -> Floats | None:
    """Log-odds of each event."""
    scores = highest(sounds, parts)
    if scores is None:
        return None
    chance_D = np.clip(np.array([*scores.values()], np.float32), LEAST_SCORE, 1 - LEAST_SCORE)
    odds_D: Floats = np.log(chance_D / (1 - chance_D))
    return odds_D


def _said(words: SentenceEncoder, texts: Sequence[str]) -> list[Floats | None]:
    spoken = [text for text in texts if text]
    found = iter(words.encode(spoken)) if spoken else iter(())
    return [next(found) if text else None for text in texts]


def _stacked(rows: Sequence[Floats | None]) -> tuple[Floats, NDArray[np.bool_]]:
    size = next((len(row) for row in rows if row is not None), 1)
    present_N = np.array([row is not None for row in rows], np.bool_)
    return np.stack([np.zeros(size, np.float32) if row is None else row for row in rows]), present_N
