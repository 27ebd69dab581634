"""A model of ready senses: pretrained networks of :mod:`streamer.senses` say what is in a window, without training.

Their findings become outputs, the outputs become words, and the words a vector. What a window lacks, its outputs lack:
without sound there are no sound events, rather than some with a score of zero.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.events import DEFAULT_SENSORS, KIND_NAMES, TEXT
from streamer.model import wording
from streamer.model.learned import LearnedOutputs, highest
from streamer.model.sample import Phrase, Sample, only
from streamer.model.senses import OBJECTS, PEOPLE, PERSON, SOUNDS, WORDS, Objects, Senses, Sounds
from streamer.model.spec import SCORE_DIGITS, VALUE_DIGITS, AudioInput, ImageInput, ModelSpec, TelemetryInput
from streamer.senses import files
from streamer.senses.objects import LABELS, Detection, Detector
from streamer.senses.sentences import SentenceEncoder
from streamer.senses.sounds import SoundEvents
from streamer.senses.table import rows
from streamer.settings import Settings

Tags = dict[str, Any]


class Sensing:
    """The senses that a ``model.toml`` names, on the CPU.

    Attributes:
        version: The spec's version and the first 8 hex digits of a hash of the spec and of all files of its senses.
    """

    def __init__(self, spec: ModelSpec, settings: Settings, folder: Path) -> None:
        """Load the senses, and what was learned on them from the model's folder.

        Raises:
            UsageError: A sense is not there, cannot be run, or does not know a label; says how to mend that.
        """
        assert spec.senses is not None
        self._spec, self._senses = spec, spec.senses
        senses = spec.senses
        _check_there(senses, settings)
        self._objects = Detector(settings) if senses.objects is not None else None
        self._sounds = SoundEvents(settings) if senses.sounds is not None else None
        self._sentences = SentenceEncoder(settings) if senses.sentences is not None else None
        self._learned = LearnedOutputs(folder, senses, settings) if senses.learned else None
        parts = (self._objects, self._sounds, self._sentences, self._learned)
        loaded = [sense.version for sense in parts if sense is not None]
        digest = hashlib.sha256(msgspec.json.encode([spec, loaded])).hexdigest()
        self.version = f"{spec.version}-{digest[:8]}"
        if senses.objects is not None:
            _check_known(senses.objects.labels, LABELS.values(), "COCO")
        if senses.sounds is not None and self._sounds is not None:
            classes = [name for names in senses.sounds.tags.values() for name in names]
            _check_known(classes, self._sounds.labels, "AudioSet")

    @property
    def embeds(self) -> bool:
        """Whether words become vectors."""
        return self._sentences is not None

    def judge(self, samples: Sequence[Sample]) -> list[tuple[dict[str, Any], NDArray[np.float32]]]:
        """The outputs of windows, and their vectors.

        Returns:
            For each sample its outputs as they are published, and a vector of length 1, or of no elements if there are
            no words: any other vector would be like that of some window.
        """
        outputs = self._outputs(samples)
        texts = [_words(output) for output in outputs]
        vectors_ND = self.vectors(texts)
        return [
            (output, vector_D if text else vector_D[:0])
            for output, text, vector_D in zip(outputs, texts, vectors_ND, strict=True)
        ]

    def words(self, samples: Sequence[Sample], sensor: str) -> list[str]:
        """What samples hold of one sensor, in words: transcripts as they are, else what its senses find."""
        if sensor in self._senses.sensors.text:
            return [" ".join(phrase.text for phrase in sample.of(sensor).text) for sample in samples]
        return [_words(output) for output in self._outputs([only(sample, [sensor]) for sample in samples])]

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A vector for each text: float32 [N, D], each of length 1, or zeros for an empty text."""
        different = sorted({text for text in texts if text})
        if self._sentences is None or not different:
            return np.zeros((len(texts), 0 if self._sentences is None else self._sentences.size), np.float32)
        found = dict(zip(different, self._sentences.encode(different), strict=True))
        nothing = np.zeros(self._sentences.size, np.float32)
        return np.stack([found.get(text, nothing) for text in texts])

    def plain(self) -> Sample:
        """Black pictures, silence and a word, to warm up with: an empty window would reach no network."""
        parts: dict[str, dict[str, Any]] = {}
        for name, wanted in self._spec.inputs.all.items():
            if isinstance(wanted, ImageInput):
                picture_FHW3 = np.zeros((1, wanted.height, wanted.width, 3), np.uint8)
                parts[name] = {"image_FHW3": picture_FHW3, "image_mask_F": np.ones(1, np.bool_)}
            elif isinstance(wanted, AudioInput):
                silence_S = np.zeros(wanted.rate_hz, np.float32)
                parts[name] = {"audio_S": silence_S, "audio_mask_S": np.ones(wanted.rate_hz, np.bool_)}
        plain = Sample.empty()
        for name, fields in parts.items():
            plain = _with(plain, name, fields)
        return _with(plain, next(iter(self._senses.sensors.text), KIND_NAMES[TEXT]), {"text": (Phrase("hello", 1.0),)})

    def _outputs(self, samples: Sequence[Sample]) -> list[dict[str, Any]]:
        seen = self._seen(samples)
        said = [self._said(sample, pictures) for sample, pictures in zip(samples, seen, strict=True)]
        if self._learned is None:
            return said
        return [{**outputs, **judged} for outputs, judged in zip(said, self._learned.judge(samples), strict=True)]

    def _seen(self, samples: Sequence[Sample]) -> list[list[list[Detection]]]:
        """For each sample the detections in each of its frames; one run of the network for all."""
        if self._objects is None:
            return [[] for _ in samples]
        frames = [self._senses.sensors.frames(sample) for sample in samples]
        detections = iter(self._objects.detect([frame for some in frames for frame in some]))
        return [[next(detections) for _ in some] for some in frames]

    def _said(self, sample: Sample, pictures: Sequence[Sequence[Detection]]) -> dict[str, Any]:
        """The outputs of a window, its words first."""
        outputs: dict[str, Any] = {}
        senses = self._senses
        if senses.objects is not None and pictures:
            tags = outputs[OBJECTS] = _objects(senses.objects, pictures)
            if PERSON in senses.objects.labels:
                outputs[PEOPLE] = {"value": float(tags["counts"].get(PERSON, 0)), "unit": ""}
        if senses.sounds is not None and (heard := self._heard(sample)) is not None:
            outputs[SOUNDS] = _sounds(senses.sounds, heard)
        measured = {name: value for name in senses.numbers if (value := self._mean(sample, name)) is not None}
        outputs |= {name: {"value": value, "unit": senses.numbers[name].unit} for name, value in measured.items()}
        text = wording.words(
            outputs.get(OBJECTS, {}).get("counts", {}),
            outputs.get(SOUNDS, {}).get("labels", ()),
            {name: (value, senses.numbers[name].unit) for name, value in measured.items()},
            senses.sensors.phrases(sample),
        )
        return {WORDS: {"text": text}, **outputs} if text else outputs

    def _heard(self, sample: Sample) -> dict[str, float] | None:
        return None if self._sounds is None else highest(self._sounds, self._senses.sensors.sounds(sample))

    def _mean(self, sample: Sample, name: str) -> float | None:
        for sensor in self._senses.sensors.telemetry:
            inputs, part = self._spec.inputs.all.get(sensor), sample.of(sensor)
            if not isinstance(inputs, TelemetryInput) or part.telemetry_CT is None or part.telemetry_mask_CT is None:
                continue
            row = inputs.channels.index(self._senses.numbers[name].channel)
            values_T = part.telemetry_CT[row][part.telemetry_mask_CT[row]]
            if values_T.size:
                return float(f"{values_T.mean(dtype=np.float64):.{VALUE_DIGITS}g}")
        return None


def _with(sample: Sample, sensor: str, content: dict[str, Any]) -> Sample:
    """The sample with content of a sensor."""
    if sensor in DEFAULT_SENSORS.numbers:
        return msgspec.structs.replace(sample, **content)
    return msgspec.structs.replace(sample, more={**sample.more, sensor: Sample((), (), **content)})


def _check_there(senses: Senses, settings: Settings) -> None:
    """Name all senses that are missing, not only the first, and one command that fetches them."""
    absent, errors = [], []
    for role in ("objects", "sounds", "sentences"):
        if getattr(senses, role) is not None:
            try:
                files.find(role, settings)
            except UsageError as error:
                row = rows(role)[0]
                if role in settings.senses or files.locate(row, settings.senses_dir) is not None:
                    errors.append(str(error))
                else:
                    absent.append(row.name)
    if absent:
        fetch = " ".join(f"--fetch {name}" for name in absent)
        errors.append(f"it needs {wording.listed(absent)}, which this machine lacks; run `streamer senses {fetch}`")
    if errors:
        raise UsageError("; ".join(errors))


def _check_known(wanted: Sequence[str], known: Any, which: str) -> None:
    there = set(known)
    if unknown := next((label for label in wanted if label not in there), None):
        raise UsageError(f"{unknown!r} is no label of {which}")


def _words(outputs: Mapping[str, Any]) -> str:
    text: str = outputs.get(WORDS, {}).get("text", "")
    return text


def _objects(spec: Objects, pictures: Sequence[Sequence[Detection]]) -> Tags:
    """The tags of one or more frames of a window: best score, and count in the frame that has the most."""
    best = {
        label: max((one.score for picture in pictures for one in picture if one.label == label), default=0.0)
        for label in spec.labels
    }
    tags = _tags(best, spec.threshold, spec.thresholds)
    counts = {}
    for label in tags["labels"]:
        least = spec.thresholds.get(label, spec.threshold)
        counts[label] = max(sum(one.label == label and one.score >= least for one in some) for some in pictures)
    return {**tags, "counts": counts}


def _sounds(spec: Sounds, heard: Mapping[str, float]) -> Tags:
    best = {tag: max(heard[name] for name in classes) for tag, classes in spec.tags.items()}
    return _tags(best, spec.threshold, spec.thresholds)


def _tags(scores: Mapping[str, float], threshold: float, thresholds: Mapping[str, float]) -> Tags:
    labels = [label for label, score in scores.items() if score >= thresholds.get(label, threshold)]
    return {"labels": labels, "scores": {label: round(score, SCORE_DIGITS) for label, score in scores.items()}}
