"""A query -> a vector in the model's common space.

A query is decoded and cut like a window that contains nothing else. Its vector is the modality's own, not the fused
vector of such a window: bench/retrieval.py measures both, docs/retrieval.md has the result.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import soundfile
from numpy.typing import NDArray

from streamer.errors import ModelError, UsageError
from streamer.events import AUDIO, IMAGE, KIND_NAMES, TEXT, ClosedBy, Event, EventType, Position, Record, Window
from streamer.model import pictures, sounds
from streamer.model.predictor import ModelFault, Predictor
from streamer.model.sample import Phrase, Sample
from streamer.retrieval.indexes import MAX_FILE_BYTES, MAX_TEXT

MAX_AUDIO_US = 60_000_000  # the mean over a longer file would stand for no second of it


def vector(predictor: Predictor, kind: str, content: str | bytes, name: str) -> NDArray[np.float32]:
    """The vector [D] of a query, length 1.

    Args:
        kind: ``text``, whose content is a string, ``image`` or ``audio``.
        name: Of the file, for messages.

    Raises:
        UsageError: The content cannot be read, or is too long.
        ModelError: The model does not know this modality.
    """
    if isinstance(content, str):
        return text(predictor, content)
    return (image if kind == "image" else audio)(predictor, content, name)


def text(predictor: Predictor, words: str) -> NDArray[np.float32]:
    """The vector [D] of words.

    Raises:
        UsageError: The query is empty or too long.
        ModelError: The model has no text.
    """
    _check_model(predictor, TEXT)
    words = " ".join(words.split())
    if not 0 < len(words) <= MAX_TEXT:
        raise UsageError(f"a query has 1 to {MAX_TEXT} characters, not {len(words)}")
    sample = Sample(present=_only(TEXT), coverage=(0.0,) * len(KIND_NAMES), text=(Phrase(words, 1.0),))
    return _mean(predictor, TEXT, [sample])


def image(predictor: Predictor, content: bytes, name: str) -> NDArray[np.float32]:
    """The vector [D] of a picture: JPEG, PNG or WebP.

    Args:
        name: Of the file, for messages.

    Raises:
        UsageError: It cannot be read.
        ModelError: The model has no images.
    """
    _check_model(predictor, IMAGE)
    _check_size(content, name)
    media_type = pictures.media_type(content)
    if media_type is None:
        raise UsageError(f"{name} is no picture that can be read; it must be JPEG, PNG or WebP")
    event = _event(IMAGE, content, media_type, 0)
    return _mean(predictor, IMAGE, [_cut(predictor, event, 0, name)])


def audio(predictor: Predictor, content: bytes, name: str) -> NDArray[np.float32]:
    """The vector [D] of sound that libsndfile reads: WAV, FLAC, Ogg, MP3; of a longer one the mean of its windows.

    Args:
        name: Of the file, for messages.

    Raises:
        UsageError: It cannot be read, or is too long.
        ModelError: The model has no audio.
    """
    _check_model(predictor, AUDIO)
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
    return _mean(predictor, AUDIO, [_cut(predictor, event, start_us, name) for start_us in starts_us])


def _check_model(predictor: Predictor, row: int) -> None:
    name = KIND_NAMES[row]
    if getattr(predictor.spec.inputs, name) is None:
        known = [m for m in KIND_NAMES if getattr(predictor.spec.inputs, m) is not None]
        raise ModelError(f"model {predictor.name} has no {name}; it knows {', '.join(known)}")


def _check_size(content: bytes, name: str) -> None:
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(f"{name} has more than {MAX_FILE_BYTES >> 20} MiB")


def _only(row: int) -> tuple[bool, ...]:
    return tuple(row == other for other in range(len(KIND_NAMES)))


def _event(row: int, content: bytes, media_type: str, length_us: int) -> Event:
    return Event(Record(row, 0, 0, 0, None, content, ()), "", EventType.DATA, 0, length_us, media_type)


def _cut(predictor: Predictor, event: Event, start_us: int, name: str) -> Sample:
    """The sample of a window that has this event and nothing else."""
    events = tuple((event,) if here else () for here in _only(event.row))
    end_us = start_us + predictor.spec.window_ms * 1000
    window = Window("", 0, start_us, end_us, ClosedBy.COMPLETE, Position(0, 0, 0), events, ())
    sample, rejects = predictor.decode(window)
    if rejects:
        raise UsageError(f"{name}: {rejects[0][1].detail}")
    return sample


def _mean(predictor: Predictor, row: int, samples: Sequence[Sample]) -> NDArray[np.float32]:
    try:
        mean_D: NDArray[np.float32] = predictor.embed(samples, KIND_NAMES[row]).mean(axis=0)
    except ModelFault as error:
        raise ModelError(f"model {predictor.name} can make nothing of the query: {error}") from None
    length = float(np.linalg.norm(mean_D))
    return mean_D / max(length, 1e-12)
