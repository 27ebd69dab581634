"""A query -> a vector in the model's common space.

A query is decoded and cut like a window that contains nothing else, as content of one sensor of the model. Its vector
is that sensor's own, not the fused vector of such a window: bench/retrieval.py measures both, docs/retrieval.md has the
result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soundfile
from numpy.typing import NDArray

from streamer.errors import ModelError, UsageError
from streamer.events import (
    AUDIO,
    IMAGE,
    KIND_NAMES,
    TEXT,
    ClosedBy,
    Event,
    EventType,
    Position,
    Record,
    Sensor,
    Sensors,
    Transcript,
    Window,
)
from streamer.model import pictures, sounds
from streamer.model.predictor import ModelFault, Predictor
from streamer.model.sample import Sample
from streamer.retrieval.indexes import MAX_FILE_BYTES, MAX_TEXT

MAX_AUDIO_US = 60_000_000  # the mean over a longer file would stand for no second of it


def vector(
    predictor: Predictor, kind: str, content: str | bytes, name: str, sensor: str | None = None
) -> NDArray[np.float32]:
    """The vector [D] of a query, length 1.

    Args:
        kind: ``text``, whose content is a string, ``image`` or ``audio``.
        name: Of the file, for messages.
        sensor: Whose content it is for the model; ``None``: the model's first input of this kind.

    Raises:
        UsageError: The content cannot be read, or is too long.
        ModelError: The model does not know this kind, or has no such sensor of it.
    """
    if isinstance(content, str):
        return text(predictor, content, sensor)
    return (image if kind == "image" else audio)(predictor, content, name, sensor)


def text(predictor: Predictor, words: str, sensor: str | None = None) -> NDArray[np.float32]:
    """The vector [D] of words; ``sensor`` as in :func:`vector`.

    Raises:
        UsageError: The query is empty or too long.
        ModelError: The model has no such text.
    """
    asked = _sensor(predictor, TEXT, sensor)
    words = " ".join(words.split())
    if not 0 < len(words) <= MAX_TEXT:
        raise UsageError(f"a query has 1 to {MAX_TEXT} characters, not {len(words)}")
    event = _event(TEXT, b"", "application/json", 1, Transcript(words))
    return _mean(predictor, asked, [_cut(predictor, event, 0, "the query", asked)])


def image(predictor: Predictor, content: bytes, name: str, sensor: str | None = None) -> NDArray[np.float32]:
    """The vector [D] of a picture: JPEG, PNG or WebP.

    Args:
        name: Of the file, for messages.
        sensor: As in :func:`vector`.

    Raises:
        UsageError: It cannot be read.
        ModelError: The model has no such images.
    """
    asked = _sensor(predictor, IMAGE, sensor)
    _check_size(content, name)
    media_type = pictures.media_type(content)
    if media_type is None:
        raise UsageError(f"{name} is no picture that can be read; it must be JPEG, PNG or WebP")
    event = _event(IMAGE, content, media_type, 0)
    return _mean(predictor, asked, [_cut(predictor, event, 0, name, asked)])


def audio(predictor: Predictor, content: bytes, name: str, sensor: str | None = None) -> NDArray[np.float32]:
    """The vector [D] of sound that libsndfile reads: WAV, FLAC, Ogg, MP3; of a longer one the mean of its windows.

    Args:
        name: Of the file, for messages.
        sensor: As in :func:`vector`.

    Raises:
        UsageError: It cannot be read, or is too long.
        ModelError: The model has no such audio.
    """
    asked = _sensor(predictor, AUDIO, sensor)
    _check_size(content, name)
    try:
        length_us = sounds.duration_us(content, MAX_AUDIO_US)
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError):
        raise UsageError(f"{name} is no sound that can be read; it must be WAV, FLAC, Ogg or MP3") from None
    if not 0 < length_us <= MAX_AUDIO_US:
        lasts = "holds no sound" if length_us == 0 else "is too long"
        raise UsageError(f"{name} {lasts}; it must last at most {MAX_AUDIO_US / 1e6:.0f} s")
    event = _event(AUDIO, content, "audio/wav", length_us)
    window_us = predictor.spec.window_ms * 1000
    starts_us = range(0, max(1, event.end_us - window_us // 2), window_us)  # less than half a window at the end is left
    return _mean(predictor, asked, [_cut(predictor, event, start_us, name, asked) for start_us in starts_us])


def _sensor(predictor: Predictor, row: int, wanted: str | None) -> Sensor:
    """The sensor of a kind whose content a query is."""
    kind, inputs = KIND_NAMES[row], predictor.spec.inputs
    of_kind = inputs.of_kind(kind)
    if not of_kind:
        raise ModelError(f"model {predictor.name} has no {kind}; it knows {', '.join(inputs.all)}")
    if wanted is not None and wanted not in of_kind:
        raise ModelError(f"model {predictor.name} reads no {kind} of a sensor {wanted}; it has {', '.join(of_kind)}")
    return Sensor(next(iter(of_kind)) if wanted is None else wanted, row)


def _check_size(content: bytes, name: str) -> None:
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(f"{name} has more than {MAX_FILE_BYTES >> 20} MiB")


def _event(row: int, content: bytes, media_type: str, length_us: int, body: Transcript | None = None) -> Event:
    record = Record(row, 0, 0, 0, None, content, ())
    return Event(record, "", EventType.DATA, 0, length_us, media_type, body=body, sensor=0)


def _cut(predictor: Predictor, event: Event, start_us: int, name: str, sensor: Sensor) -> Sample:
    """The sample of a window that has this event of a sensor, and no other sensor."""
    end_us = start_us + predictor.spec.window_ms * 1000
    position, alone = Position(0, 0, 0), Sensors.of([sensor])
    window = Window("", 0, start_us, end_us, ClosedBy.COMPLETE, position, ((event,),), (), alone)
    sample, rejects = predictor.decode(window)
    if rejects:
        raise UsageError(f"{name}: {rejects[0][1].detail}")
    return sample


def _mean(predictor: Predictor, sensor: Sensor, samples: Sequence[Sample]) -> NDArray[np.float32]:
    try:
        mean_D: NDArray[np.float32] = predictor.embed(samples, sensor.name).mean(axis=0)
    except ModelFault as error:
        raise ModelError(f"model {predictor.name} can make nothing of the query: {error}") from None
    length = float(np.linalg.norm(mean_D))
    return mean_D / max(length, 1e-12)
