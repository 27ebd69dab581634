"""Every size of the built-in model, and the only place that knows them all."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from streamer.nets.encoders import AudioEncoder, ImageEncoder, TelemetryEncoder, TextEncoder
from streamer.nets.fusion import Fusion
from streamer.nets.model import FusedModel


@dataclass(frozen=True)
class Data:
    """What the data dictates; None or 0: the model has no such input."""

    image: bool = False
    audio_rate_hz: int | None = None
    text_vocabulary: int | None = None
    telemetry_channels: int | None = None


@dataclass(frozen=True)
class Sizes:
    """What the designer chooses. Channels: one number for each convolution."""

    width: int  # of tokens
    common: int  # of the common space
    heads: int
    dropout: float
    patch: int  # pixels, both ways
    image: tuple[int, ...]
    mels: int
    audio: tuple[int, ...]
    text_layers: int
    telemetry: tuple[int, ...]
    queries: int
    fusion_layers: int


SIZES: dict[str, Sizes] = {
    "small": Sizes(
        width=96,
        common=128,
        heads=4,
        dropout=0.1,
        patch=4,
        image=(24, 48, 96),
        mels=48,
        audio=(16, 32, 64),
        text_layers=1,
        telemetry=(32, 64),
        queries=4,
        fusion_layers=2,
    ),
}


def build(size: str, data: Data, heads: dict[str, int]) -> FusedModel:
    """Build the model with fresh weights.

    Args:
        size: A key of SIZES.
        heads: Name of an output -> number of its labels.
    """
    sizes = SIZES[size]
    encoders: dict[str, nn.Module] = {}
    if data.image:
        encoders["image"] = ImageEncoder(sizes.patch, sizes.image, sizes.width)
    if data.audio_rate_hz is not None:
        encoders["audio"] = AudioEncoder(data.audio_rate_hz, sizes.mels, sizes.audio, sizes.width)
    if data.text_vocabulary is not None:
        encoders["text"] = TextEncoder(data.text_vocabulary, sizes.text_layers, sizes.heads, sizes.width, sizes.dropout)
    if data.telemetry_channels is not None:
        encoders["telemetry"] = TelemetryEncoder(data.telemetry_channels, sizes.telemetry, sizes.width)
    fusion = Fusion(sizes.width, sizes.heads, sizes.queries, sizes.fusion_layers, sizes.dropout)
    return FusedModel(encoders, fusion, heads, sizes.width, sizes.common)
