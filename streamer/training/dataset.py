"""Examples for training: what a model sees of a window, and the right outputs.

Shape suffixes: see ``streamer.model.sample``; N counts windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.events import Sensors
from streamer.model.nets.inputs import JOINT
from streamer.model.sample import Phrase, Sample

INT16 = 32768.0
ARRAYS = ("image", "image_mask", "audio", "audio_mask", "telemetry", "telemetry_mask")


Label = str | float | tuple[str, ...]  # for an output of kind classes, number or tags


class Example(msgspec.Struct, frozen=True):
    """A window's sample and its labels, by output of the model; outputs without a label learn nothing from it."""

    sample: Sample
    labels: dict[str, Label]


class _Facts(msgspec.Struct, frozen=True):
    """The parts of an example that are not arrays.

    ``texts`` has the words of sensors that are not called like their kind, ``sensors`` what ``present`` lists.
    """

    present: tuple[bool, ...]
    coverage: tuple[float, ...]
    text: tuple[Phrase, ...]
    labels: dict[str, Label]
    texts: dict[str, tuple[Phrase, ...]]
    sensors: Sensors


def save(path: Path, examples: Sequence[Example]) -> None:
    """Write examples to one ``.npz``; waveforms are rounded to 16 bits. A reader never sees half a file."""
    samples = [example.sample for example in examples]
    more = sorted({name for sample in samples for name in sample.more})
    facts = [
        _Facts(s.present, s.coverage, s.text, e.labels, {name: s.of(name).text for name in s.more}, s.sensors)
        for e, s in ((example, example.sample) for example in examples)
    ]
    arrays = _arrays(samples, "")
    for name in more:
        arrays |= _arrays([sample.of(name) for sample in samples], f"{name}{JOINT}")
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        np.savez(file, facts=np.frombuffer(msgspec.json.encode(facts), np.uint8), **arrays)
    beside.replace(path)


def _arrays(samples: Sequence[Sample], before: str) -> dict[str, Any]:
    """All arrays of the samples by name, which begins with ``before``."""
    audio_NS, audio_mask_NS = _stacked([s.audio_S for s in samples]), _stacked([s.audio_mask_S for s in samples])
    arrays = {
        "image": _stacked([s.image_FHW3 for s in samples]),
        "image_mask": _stacked([s.image_mask_F for s in samples]),
        "audio": np.clip(np.round(audio_NS * INT16), -INT16, INT16 - 1).astype(np.int16),
        "audio_mask": np.packbits(audio_mask_NS.astype(np.bool_), axis=-1),
        "telemetry": _stacked([s.telemetry_CT for s in samples]),
        "telemetry_mask": _stacked([s.telemetry_mask_CT for s in samples]),
    }
    return {before + name: array for name, array in arrays.items()}


def load(path: Path) -> list[Example]:
    """Read what :func:`save` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in arrays.files}
    facts = msgspec.json.decode(stored["facts"].tobytes(), type=list[_Facts])
    own = _contents(stored, "", len(facts))
    more = {
        name.removesuffix(f"{JOINT}image"): _contents(stored, name.removesuffix("image"), len(facts))
        for name in stored
        if name.endswith(f"{JOINT}image")
    }
    return [
        Example(
            Sample(
                present=fact.present,
                coverage=fact.coverage,
                text=fact.text,
                more={
                    name: Sample((), (), text=fact.texts.get(name, ()), **contents[n])
                    for name, contents in more.items()
                    if name in fact.texts
                },
                sensors=fact.sensors,
                **own[n],
            ),
            fact.labels,
        )
        for n, fact in enumerate(facts)
    ]


def _contents(stored: Mapping[str, NDArray[Any]], before: str, count: int) -> list[dict[str, Any]]:
    """The arrays of each of ``count`` samples by field."""
    image, image_mask, audio, audio_mask, telemetry, telemetry_mask = (stored[before + name] for name in ARRAYS)
    audio_NS = audio.astype(np.float32) / np.float32(INT16)
    audio_mask_NS = np.unpackbits(audio_mask, axis=-1, count=audio_NS.shape[-1]).astype(np.bool_)
    return [
        {
            **_pair("image_FHW3", "image_mask_F", image[n], image_mask[n]),
            **_pair("audio_S", "audio_mask_S", audio_NS[n], audio_mask_NS[n]),
            **_pair("telemetry_CT", "telemetry_mask_CT", telemetry[n], telemetry_mask[n]),
        }
        for n in range(count)
    ]


def _stacked(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any]:
    """All arrays in one, zeros for ``None``; with one empty column if all are ``None``."""
    like = next((array for array in arrays if array is not None), np.zeros(1, np.float32))
    return np.stack([np.zeros_like(like) if array is None else array for array in arrays])


def _pair(name: str, mask_name: str, content: NDArray[Any], mask: NDArray[Any]) -> dict[str, Any]:
    """Content and mask by name; empty if no row has content."""
    return {name: content, mask_name: mask.astype(np.bool_)} if mask.any() else {}
