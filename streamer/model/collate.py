"""Samples -> one batch of tensors, for serving and training. Shape suffixes: see ``nets/inputs.py``."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tokenizers import Tokenizer
from torch import Tensor

from streamer.model.handling import handling
from streamer.model.nets.inputs import Inputs
from streamer.model.sample import Sample
from streamer.model.spec import InputSpec


def collate(
    samples: Sequence[Sample], spec: InputSpec, tokenizer: Tokenizer | None, names: Collection[str] | None = None
) -> Inputs:
    """Stack samples; masks are False where a sample has no content, and over the padding to the batch's longest.

    Args:
        samples: At least one.
        tokenizer: Required if the spec has a text input.
        names: Of the sensors that are wanted; ``None``: all.
    """
    own: dict[str, Tensor] = {}
    more: dict[str, Inputs] = {}
    for name, wanted in spec.all.items():
        if names is not None and name not in names:
            continue
        tensors = handling(wanted.kind).collate([sample.of(name) for sample in samples], wanted, tokenizer)
        if name in spec.more:
            more[name] = Inputs.from_tensors(tensors)
        else:
            own |= tensors
    return Inputs.from_tensors(own)._replace(more=more or None)
