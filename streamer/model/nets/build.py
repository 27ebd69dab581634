"""An architecture and the data's dimensions -> the model, with fresh weights or those of pretrained files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from streamer.model.handling import handling
from streamer.model.nets import architecture as named
from streamer.model.nets.architecture import Architecture, BuildError, Sizes, either
from streamer.model.nets.encoders.text import Vocabulary
from streamer.model.nets.fusion import AttentionFusion, BottleneckFusion, ConcatFusion, GatedFusion
from streamer.model.nets.heads import Head, new_head
from streamer.model.nets.layers import GROUPS
from streamer.model.nets.model import FusedModel


@dataclass(frozen=True)
class Data:
    """The data's dimensions; ``None`` where the model has no such input.

    Attributes:
        image_size: Height and width of the frames, pixels.
        max_tokens: Largest number of tokens of a text.
        more: Sensors that are not called like their kind: each with the dimensions of that kind alone.
        shared: Further sensors -> the one whose encoder reads them.
        others: Kind that has no field here -> what its encoder must know.
    """

    image_size: tuple[int, int] | None = None
    audio_rate_hz: int | None = None
    vocabulary: Vocabulary | None = None
    max_tokens: int = 0
    telemetry_channels: int | None = None
    more: Mapping[str, Data] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)
    others: Mapping[str, Any] = field(default_factory=dict)

    def by_kind(self) -> dict[str, object]:
        """Kind -> what an encoder for it must know, for the kinds that are there."""
        known = {
            "image": self.image_size,
            "audio": self.audio_rate_hz,
            "text": self.vocabulary,
            "telemetry": self.telemetry_channels,
        }
        return {kind: given for kind, given in known.items() if given is not None} | dict(self.others)


@dataclass(frozen=True)
class Plan:
    """What every part is built from."""

    architecture: Architecture
    sizes: Sizes
    data: Data
    folder: Path
    pretrained: bool


def build(
    architecture: Architecture, data: Data, heads: Mapping[str, Head], folder: Path, *, pretrained: bool
) -> FusedModel:
    """Build the model.

    Args:
        heads: Name of an output -> its head.
        folder: The model's folder; paths in the architecture are relative to it.
        pretrained: Whether to load the weights that the architecture names; if not, weights are random, to be replaced
            by the model's, and these files need not exist.

    Raises:
        BuildError: The architecture is unknown or impossible, or a file that it names is broken.
    """
    sizes = architecture.sizes
    plan = Plan(architecture, sizes, data, folder, pretrained)
    encoders = {kind: handling(kind).encoder(plan) for kind in data.by_kind()}
    for name, own in data.more.items():
        (kind,) = own.by_kind()
        encoders[name] = handling(kind).encoder(replace(plan, data=own))
    fusion = _fusion(architecture, len(encoders) + len(data.shared))
    new_heads = {name: new_head(head, sizes.width) for name, head in heads.items()}
    return FusedModel(encoders, fusion, new_heads, sizes.width, sizes.common, data.shared)


def _fusion(architecture: Architecture, modalities: int) -> nn.Module:
    options, sizes = architecture.options("fusion"), architecture.sizes
    width, heads, dropout = sizes.width, sizes.heads, sizes.dropout
    match options:
        case named.AttentionFusion():
            queries, layers = either(options.queries, sizes.queries), either(options.layers, sizes.fusion_layers)
            return AttentionFusion(width, heads, queries, layers, dropout)
        case named.Bottleneck():
            tokens, layers = either(options.tokens, sizes.queries), either(options.layers, sizes.fusion_layers)
            return BottleneckFusion(modalities, width, heads, tokens, layers, dropout)
        case named.Concat():
            return ConcatFusion(modalities, width, dropout)
        case named.Gated():
            return GatedFusion(modalities, width)
        case _:
            raise AssertionError(options)


def grouped(part: str, channels: tuple[int, ...]) -> tuple[int, ...]:
    """Numbers of channels, if they can be divided into groups.

    Raises:
        BuildError: One cannot.
    """
    odd = next((count for count in channels if count % GROUPS), None)
    if odd is not None:
        raise BuildError(f"architecture.{part}.channels: {odd} is no multiple of {GROUPS}")
    return channels
