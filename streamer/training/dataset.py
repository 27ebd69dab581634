"""Examples for training: what a model sees of a window, and the right outputs.

Shape suffixes: see ``streamer.model.sample``; N counts windows.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.model.sample import Phrase, Sample

INT16 = 32768.0


Label = str | float | tuple[str, ...]  # for an output of kind classes, number or tags


class Example(msgspec.Struct, frozen=True):
    """A window's sample and its labels, by output of the model; outputs without a label learn nothing from it."""

    sample: Sample
    labels: dict[str, Label]


class _Facts(msgspec.Struct, frozen=True):
    """The parts of an example that are not arrays."""

    present: tuple[bool, ...]
    coverage: tuple[float, ...]
    text: tuple[Phrase, ...]
    labels: dict[str, Label]


def save(path: Path, examples: Sequence[Example]) -> None:
    """Write examples to one ``.npz``; waveforms are rounded to 16 bits. A reader never sees half a file."""
    samples = [example.sample for example in examples]
    audio_NS, audio_mask_NS = _stacked([s.audio_S for s in samples]), _stacked([s.audio_mask_S for s in samples])
    facts = [_Facts(e.sample.present, e.sample.coverage, e.sample.text, e.labels) for e in examples]
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.new")
    with beside.open("wb") as file:
        np.savez(
            file,
            image=_stacked([s.image_FHW3 for s in samples]),
            image_mask=_stacked([s.image_mask_F for s in samples]),
            audio=np.clip(np.round(audio_NS * INT16), -INT16, INT16 - 1).astype(np.int16),
            audio_mask=np.packbits(audio_mask_NS.astype(np.bool_), axis=-1),
            telemetry=_stacked([s.telemetry_CT for s in samples]),
            telemetry_mask=_stacked([s.telemetry_mask_CT for s in samples]),
            facts=np.frombuffer(msgspec.json.encode(facts), np.uint8),
        )
    beside.replace(path)


def load(path: Path) -> list[Example]:
    """Read what :func:`save` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        stored = {name: arrays[name] for name in arrays.files}
    facts = msgspec.json.decode(stored["facts"].tobytes(), type=list[_Facts])
    audio_NS = stored["audio"].astype(np.float32) / np.float32(INT16)
    audio_mask_NS = np.unpackbits(stored["audio_mask"], axis=-1, count=audio_NS.shape[-1]).astype(np.bool_)
    return [
        Example(
            Sample(
                present=fact.present,
                coverage=fact.coverage,
                text=fact.text,
                **_pair("image_FHW3", "image_mask_F", stored["image"][n], stored["image_mask"][n]),
                **_pair("audio_S", "audio_mask_S", audio_NS[n], audio_mask_NS[n]),
                **_pair("telemetry_CT", "telemetry_mask_CT", stored["telemetry"][n], stored["telemetry_mask"][n]),
            ),
            fact.labels,
        )
        for n, fact in enumerate(facts)
    ]


def _stacked(arrays: Sequence[NDArray[Any] | None]) -> NDArray[Any]:
    """All arrays in one, zeros for ``None``; with one empty column if all are ``None``."""
    like = next((array for array in arrays if array is not None), np.zeros(1, np.float32))
    return np.stack([np.zeros_like(like) if array is None else array for array in arrays])


def _pair(name: str, mask_name: str, content: NDArray[Any], mask: NDArray[Any]) -> dict[str, Any]:
    """Content and mask by name; empty if no row has content."""
    return {name: content, mask_name: mask.astype(np.bool_)} if mask.any() else {}
