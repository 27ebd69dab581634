"""Waveforms -> tokens, one for each step of time. Shape suffixes: see ``inputs``."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, cast

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional

from streamer.errors import one_line
from streamer.model.nets.architecture import BuildError, Wav2Vec2
from streamer.model.nets.encoders import Tokens
from streamer.model.nets.layers import Backboned, Layers, conv2d, halved, positions
from streamer.model.nets.pretrained import load_weights


class AudioCnn(nn.Module):
    """Log-mel spectrogram on the device, then convolutions; a token for each remaining time step."""

    FFT_S, HOP_S = 0.032, 0.010  # analysis length and step, usual for speech and sound events
    FLOOR = 1e-6  # power below which sound is silence: -60 dB of full scale

    def __init__(self, rate_hz: int, mels: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.hop = round(rate_hz * self.HOP_S)
        fft = round(rate_hz * self.FFT_S)
        self.spectrogram = torchaudio.transforms.Spectrogram(fft, hop_length=self.hop, power=None)
        self.mel = torchaudio.transforms.MelScale(mels, rate_hz, n_stft=fft // 2 + 1)
        self.convolutions = conv2d((2, *channels))
        self.halvings = len(channels)
        bands = -(-mels // 2**self.halvings)
        self.project = nn.Linear(channels[-1] * bands, width)

    def forward(self, audio_BS: Tensor, mask_BS: Tensor) -> Tokens:
        with torch.autocast(audio_BS.device.type, enabled=False):  # powers of a spectrum need float32
            spectrum = self.spectrogram(torch.where(mask_BS, audio_BS.float(), 0.0))
            mel_BMT = self.mel(spectrum.real.square() + spectrum.imag.square())  # |z|² by abs() takes twice as long
            level_BMT = torch.log10(mel_BMT + self.FLOOR) * 0.5 + 1.0  # silence -2, a full-scale tone about 2
        mask_BT = self._steps(mask_BS, level_BMT.shape[-1])
        heard_BMT = mask_BT[:, None].expand_as(level_BMT)
        planes_BCMT = torch.stack([torch.where(heard_BMT, level_BMT, 0.0), heard_BMT.to(level_BMT.dtype)], dim=1)
        steps_BCMT = self.convolutions(planes_BCMT)
        tokens_BTD = self.project(steps_BCMT.flatten(1, 2).transpose(1, 2))
        mask_BT = halved(mask_BT, self.halvings)
        return self.in_time(tokens_BTD, mask_BT), mask_BT

    def in_time(self, tokens_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Relate the tokens to one another; here they only get their positions."""
        return tokens_BTD + positions(tokens_BTD.shape[1], tokens_BTD.shape[2], tokens_BTD.device)

    def _steps(self, mask_BS: Tensor, steps: int) -> Tensor:
        """A spectrogram step counts if half of the samples around its middle were heard."""
        half = self.hop // 2
        padded_B1S = functional.pad(mask_BS[:, None].float(), (half, steps * self.hop - mask_BS.shape[1]))
        return functional.avg_pool1d(padded_B1S, self.hop, stride=self.hop)[:, 0, :steps] >= 0.5


class AudioCrnn(AudioCnn):
    """Convolutions, then a GRU over time (CRNN, Çakır et al. 2017)."""

    def __init__(self, rate_hz: int, mels: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__(rate_hz, mels, channels, width)
        self.over_time = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

    def in_time(self, tokens_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Each token plus the GRU's output at it."""
        return tokens_BTD + cast(Tensor, self.over_time(tokens_BTD)[0])


class AudioTransformer(AudioCnn):
    """Convolutions, then a transformer over time."""

    def __init__(
        self, rate_hz: int, mels: int, channels: tuple[int, ...], layers: int, heads: int, width: int, dropout: float
    ) -> None:
        super().__init__(rate_hz, mels, channels, width)
        self.attend = Layers(width, heads, layers, dropout)

    def in_time(self, tokens_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """The tokens, with their positions, attend to those that were heard."""
        return cast(Tensor, self.attend(super().in_time(tokens_BTD, mask_BT), mask_BT))


class Wav2Vec2Encoder(Backboned):
    """wav2vec 2.0 (Baevski et al. 2020) or HuBERT (Hsu et al. 2021) on the waveform; a token for each 20 ms.

    Args:
        model: As torchaudio builds it, without a head.
        normalise: The model was trained on waveforms of mean 0 and variance 1.
    """

    RATE_HZ = 16_000  # at which all of them were trained
    AWAY = -10_000.0  # what torchaudio adds to the score of a masked step

    def __init__(self, model: torchaudio.models.Wav2Vec2Model, width: int, *, normalise: bool, frozen: bool) -> None:
        super().__init__(_Masked(model), frozen=frozen)
        self.normalise = normalise
        convolutions = [layer.conv for layer in model.feature_extractor.conv_layers]
        self.hop, self.field = 1, 1  # samples from one step to the next, and samples that a step sees
        for convolution in convolutions:
            self.field += (convolution.kernel_size[0] - 1) * self.hop
            self.hop *= convolution.stride[0]
        features = model.encoder.transformer.layer_norm.normalized_shape[0]
        self.project = nn.Linear(features, width)

    def forward(self, audio_BS: Tensor, mask_BS: Tensor) -> Tokens:
        short = max(0, self.field - audio_BS.shape[1])
        audio_BS, mask_BS = functional.pad(audio_BS, (0, short)), functional.pad(mask_BS, (0, short))
        audio_BS = torch.where(mask_BS, audio_BS.float(), 0.0)
        if self.normalise:
            audio_BS = _standardised(audio_BS, mask_BS)
        share_BT = functional.avg_pool1d(mask_BS[:, None].float(), self.field, stride=self.hop)[:, 0]
        mask_BT = share_BT >= 0.5
        return self.project(self.run(audio_BS, mask_BT)), mask_BT


class _Masked(nn.Module):
    """A Wav2Vec2Model whose transformer gives steps that were not heard no weight, wherever they are.

    torchaudio's ``forward`` can only mask the end of a waveform.
    """

    def __init__(self, model: torchaudio.models.Wav2Vec2Model) -> None:
        super().__init__()
        self.feature_extractor = model.feature_extractor
        self.encoder = model.encoder

    def forward(self, audio_BS: Tensor, mask_BT: Tensor) -> Tensor:
        features_BTC, _ = self.feature_extractor(audio_BS, None)
        features_BTC = torch.where(mask_BT[..., None], self.encoder.feature_projection(features_BTC), 0.0)
        steps = mask_BT.shape[1]
        away_B1TT = (~mask_BT[:, None, None, :]).to(features_BTC.dtype) * Wav2Vec2Encoder.AWAY
        transformed: Tensor = self.encoder.transformer(
            features_BTC, attention_mask=away_B1TT.expand(-1, 1, steps, steps)
        )
        return transformed


def _standardised(audio_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """Mean 0 and variance 1 over what was heard."""
    count_B1 = mask_BS.sum(1, keepdim=True).clamp_min(1)
    centred_BS = torch.where(mask_BS, audio_BS - audio_BS.sum(1, keepdim=True) / count_B1, 0.0)
    return centred_BS / torch.sqrt(centred_BS.square().sum(1, keepdim=True) / count_B1 + 1e-5)


def wav2vec2_encoder(options: Wav2Vec2, rate_hz: int, width: int, folder: Path, *, pretrained: bool) -> Wav2Vec2Encoder:
    """Build a network of torchaudio.

    Args:
        pretrained: Whether to load the weights that the options name.

    Raises:
        BuildError: torchaudio has no such network, it was trained at another rate, or the weights do not fit it.
    """
    factories = torchaudio.models
    known = [name for name in dir(factories) if name.startswith(("wav2vec2_", "hubert_")) and "pretrain" not in name]
    if options.of not in known:
        raise BuildError(f"torchaudio has no network {options.of!r}; it has {', '.join(known)}")
    if rate_hz != Wav2Vec2Encoder.RATE_HZ:
        raise BuildError(
            f"torchaudio:{options.of} hears {Wav2Vec2Encoder.RATE_HZ} Hz; inputs.audio.rate_hz = {rate_hz}"
        )
    arguments = {"aux_num_out": None, **options.config}
    try:
        model = getattr(factories, options.of)(**arguments)
    except Exception as error:  # the arguments are the user's
        wanted = ", ".join(inspect.signature(getattr(factories, options.of)).parameters)
        raise BuildError(f"torchaudio:{options.of} with its config: {one_line(error)}; it takes {wanted}") from error
    if pretrained and options.pretrained:
        load_weights(model, folder / options.pretrained, ignore=("aux.",))
    return Wav2Vec2Encoder(model, width, normalise=_is_large(model), frozen=options.frozen)


def _is_large(model: Any) -> bool:
    """Whether every convolution has a layer norm, as in networks trained on standardised waveforms."""
    return all(isinstance(layer.layer_norm, nn.LayerNorm) for layer in model.feature_extractor.conv_layers)
