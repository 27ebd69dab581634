"""Samples -> one batch of tensors, for serving and training. Shape suffixes: see ``nets/inputs.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from streamer.model.nets.inputs import Inputs
from streamer.model.sample import Sample
from streamer.model.spec import Input, InputSpec

Scalar = TypeVar("Scalar", bound=np.generic)


def collate(samples: Sequence[Sample], spec: InputSpec, tokenizer: Tokenizer | None) -> Inputs:
    """Stack samples; masks are False where a sample has no content, and over the padding to the batch's longest.

    Args:
        samples: At least one.
        tokenizer: Required if the spec has a text input.
    """
    more = {
        name: _collate([s.of(name) for s in samples], _alone(wanted), tokenizer) for name, wanted in spec.more.items()
    }
    return _collate(samples, spec, tokenizer)._replace(more=more or None)


def _alone(wanted: Input) -> InputSpec:
    """An input as that of the sensor that is called like its kind."""
    return InputSpec(**{wanted.kind: wanted})  # type: ignore[arg-type]  # the kind is that of the field


def _collate(samples: Sequence[Sample], spec: InputSpec, tokenizer: Tokenizer | None) -> Inputs:
    tensors: dict[str, Tensor] = {}
    shape: tuple[int, ...]
    if spec.image:
        shape = (spec.image.frames, spec.image.height, spec.image.width, 3)
        image_BFHW3 = _stack([sample.image_FHW3 for sample in samples], shape, np.uint8)
        tensors["image_BFCHW"] = torch.from_numpy(image_BFHW3).permute(0, 1, 4, 2, 3)
        tensors["image_mask_BF"] = _mask([sample.image_mask_F for sample in samples], shape[:1])
    if spec.audio:
        audio_S = max((len(sample.audio_S) for sample in samples if sample.audio_S is not None), default=0)
        shape = (audio_S or spec.audio.rate_hz,)  # no sample has audio: any length will do, all of it is masked
        tensors["audio_BS"] = torch.from_numpy(_stack([sample.audio_S for sample in samples], shape, np.float32))
        tensors["audio_mask_BS"] = _mask([sample.audio_mask_S for sample in samples], shape)
    if spec.text and tokenizer is not None:
        tensors |= _text(samples, tokenizer, spec.text.max_tokens)
    if spec.telemetry:
        steps = max((s.telemetry_CT.shape[1] for s in samples if s.telemetry_CT is not None), default=0)
        shape = (len(spec.telemetry.channels), steps or round(spec.telemetry.rate_hz) or 1)
        telemetry_BCT = _stack([sample.telemetry_CT for sample in samples], shape, np.float32)
        tensors["telemetry_BCT"] = torch.from_numpy(telemetry_BCT)
        tensors["telemetry_mask_BCT"] = _mask([sample.telemetry_mask_CT for sample in samples], shape)
    return Inputs.from_tensors(tensors)


def _stack(arrays: Sequence[NDArray[Scalar] | None], shape: tuple[int, ...], kind: type[Scalar]) -> NDArray[Scalar]:
    """Arrays as a batch of the given shape, with 0 where one is ``None`` or shorter."""
    batch = np.zeros((len(arrays), *shape), kind)
    for row, array in zip(batch, arrays, strict=True):
        if array is not None:
            row[tuple(slice(size) for size in array.shape)] = array
    return batch


def _mask(arrays: Sequence[NDArray[np.bool_] | None], shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(_stack(arrays, shape, np.bool_))


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """Token ids without special tokens around the text: an encoder that needs those adds them around all phrases."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _text(samples: Sequence[Sample], tokenizer: Tokenizer, max_tokens: int) -> dict[str, Tensor]:
    """Tokens of all phrases of a window, one after another; of more than ``max_tokens`` only the newest are kept."""
    rows = [
        [(token, phrase.overlap) for phrase in sample.text for token in _ids(tokenizer, phrase.text)][-max_tokens:]
        for sample in samples
    ]
    width = max(1, *(len(row) for row in rows))
    text_BT = np.zeros((len(rows), width), np.int64)
    overlap_BT = np.zeros((len(rows), width), np.float32)
    mask_BT = np.zeros((len(rows), width), np.bool_)
    for index, row in enumerate(rows):
        text_BT[index, : len(row)] = [token for token, _ in row]
        overlap_BT[index, : len(row)] = [overlap for _, overlap in row]
        mask_BT[index, : len(row)] = True
    return {
        "text_BT": torch.from_numpy(text_BT),
        "text_mask_BT": torch.from_numpy(mask_BT),
        "text_overlap_BT": torch.from_numpy(overlap_BT),
    }
