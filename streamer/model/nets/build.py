"""An architecture and the data's dimensions -> the model, with fresh weights or those of pretrained files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import nn

from streamer.model.nets import architecture as named
from streamer.model.nets.architecture import Architecture, BuildError, Sizes, either
from streamer.model.nets.encoders.audio import AudioCnn, AudioCrnn, AudioTransformer, wav2vec2_encoder
from streamer.model.nets.encoders.image import ImageEncoder, Pooled, timm_encoder
from streamer.model.nets.encoders.telemetry import TelemetryCnn, TelemetryGru, TelemetryTransformer
from streamer.model.nets.encoders.text import (
    TextEncoder,
    TextRecurrent,
    TextTransformer,
    Vocabulary,
    hugging_face_encoder,
)
from streamer.model.nets.fusion import AttentionFusion, BottleneckFusion, ConcatFusion, GatedFusion
from streamer.model.nets.heads import Head, new_head
from streamer.model.nets.layers import GROUPS
from streamer.model.nets.model import FusedModel
from streamer.model.nets.word_vectors import WordVectors


@dataclass(frozen=True)
class Data:
    """The data's dimensions; ``None`` where the model has no such input.

    Attributes:
        image_size: Height and width of the frames, pixels.
        max_tokens: Largest number of tokens of a text.
        more: Sensors that are not called like their kind: each with the dimensions of that kind alone.
        shared: Further sensors -> the one whose encoder reads them.
    """

    image_size: tuple[int, int] | None = None
    audio_rate_hz: int | None = None
    vocabulary: Vocabulary | None = None
    max_tokens: int = 0
    telemetry_channels: int | None = None
    more: Mapping[str, Data] = field(default_factory=dict)
    shared: Mapping[str, str] = field(default_factory=dict)

    def by_kind(self) -> dict[str, object]:
        """Kind -> what an encoder for it must know, for the kinds that are there."""
        known = {
            "image": self.image_size,
            "audio": self.audio_rate_hz,
            "text": self.vocabulary,
            "telemetry": self.telemetry_channels,
        }
        return {kind: given for kind, given in known.items() if given is not None}


@dataclass(frozen=True)
class _Plan:
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
    plan = _Plan(architecture, sizes, data, folder, pretrained)
    encoders = {kind: ENCODERS[kind](plan) for kind in data.by_kind()}
    for name, own in data.more.items():
        (kind,) = own.by_kind()
        encoders[name] = ENCODERS[kind](replace(plan, data=own))
    fusion = _fusion(architecture, len(encoders) + len(data.shared))
    new_heads = {name: new_head(head, sizes.width) for name, head in heads.items()}
    return FusedModel(encoders, fusion, new_heads, sizes.width, sizes.common, data.shared)


def _image(plan: _Plan) -> nn.Module:
    options, sizes = plan.architecture.options("image"), plan.sizes
    size = plan.data.image_size
    assert size is not None
    encoder: nn.Module
    match options:
        case named.Timm():
            encoder = timm_encoder(options, size, sizes.width, plan.folder, pretrained=plan.pretrained)
        case named.ImageCnn():
            channels = _grouped("image", either(options.channels, sizes.image))
            encoder = ImageEncoder(either(options.patch, sizes.patch), channels, sizes.width)
        case _:
            raise AssertionError(options)
    return Pooled(encoder, sizes.width, sizes.heads) if options.pool == "attention" else encoder


def _audio(plan: _Plan) -> nn.Module:
    options, sizes = plan.architecture.options("audio"), plan.sizes
    rate_hz = plan.data.audio_rate_hz
    assert rate_hz is not None
    if isinstance(options, named.Wav2Vec2):
        return wav2vec2_encoder(options, rate_hz, sizes.width, plan.folder, pretrained=plan.pretrained)
    assert isinstance(options, named.AudioCnn)
    mels, channels = either(options.mels, sizes.mels), _grouped("audio", either(options.channels, sizes.audio))
    match options:
        case named.AudioTransformer():
            layers = either(options.layers, sizes.encoder_layers)
            return AudioTransformer(rate_hz, mels, channels, layers, sizes.heads, sizes.width, sizes.dropout)
        case named.AudioCrnn():
            return AudioCrnn(rate_hz, mels, channels, sizes.width)
        case _:
            return AudioCnn(rate_hz, mels, channels, sizes.width)


def _text(plan: _Plan) -> nn.Module:
    options, sizes, vocabulary = plan.architecture.options("text"), plan.sizes, plan.data.vocabulary
    assert vocabulary is not None
    if isinstance(options, named.HuggingFace):
        return hugging_face_encoder(
            options, vocabulary, plan.data.max_tokens, sizes.width, plan.folder, pretrained=plan.pretrained
        )
    assert isinstance(options, named.Words)
    encoder = _words(options, len(vocabulary.tokens), sizes)
    if options.vectors and plan.pretrained:
        encoder.begin_with(WordVectors(plan.folder / options.vectors), vocabulary.tokens)
    return encoder


def _words(options: named.Words, tokens: int, sizes: Sizes) -> TextEncoder:
    width, size, frozen = sizes.width, options.dimensions, options.frozen
    match options:
        case named.TextTransformer():
            layers = either(options.layers, sizes.encoder_layers)
            return TextTransformer(tokens, layers, sizes.heads, width, sizes.dropout, size, frozen=frozen)
        case named.TextRnn():
            cells: dict[type[named.TextRnn], type[nn.RNN | nn.LSTM | nn.GRU]] = {
                named.TextRnn: nn.RNN,
                named.TextLstm: nn.LSTM,
                named.TextGru: nn.GRU,
            }
            layers = either(options.layers, sizes.encoder_layers)
            return TextRecurrent(cells[type(options)], tokens, layers, width, sizes.dropout, size, frozen=frozen)
        case _:
            return TextEncoder(tokens, width, size, frozen=frozen)


def _telemetry(plan: _Plan) -> nn.Module:
    options, sizes, inputs = plan.architecture.options("telemetry"), plan.sizes, plan.data.telemetry_channels
    assert inputs is not None
    match options:
        case named.TelemetryCnn():
            return TelemetryCnn(inputs, _grouped("telemetry", either(options.channels, sizes.telemetry)), sizes.width)
        case named.TelemetryGru():
            return TelemetryGru(inputs, either(options.layers, sizes.encoder_layers), sizes.width)
        case named.TelemetryTransformer():
            layers = either(options.layers, sizes.encoder_layers)
            return TelemetryTransformer(inputs, options.patch, layers, sizes.heads, sizes.width, sizes.dropout)
        case _:
            raise AssertionError(options)


ENCODERS: dict[str, Callable[[_Plan], nn.Module]] = {  # by kind
    "image": _image,
    "audio": _audio,
    "text": _text,
    "telemetry": _telemetry,
}


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


def _grouped(part: str, channels: tuple[int, ...]) -> tuple[int, ...]:
    odd = next((count for count in channels if count % GROUPS), None)
    if odd is not None:
        raise BuildError(f"architecture.{part}.channels: {odd} is no multiple of {GROUPS}")
    return channels
