"""One encoder for each modality: tensors -> (tokens_BND, mask_BN) in one width D.

Every encoder first puts 0 where its mask is False and tells the network so, hence masked content, were it NaN, cannot
reach a token; a token over nothing but masked input is masked itself. Shape suffixes: see ``inputs``.
"""

from __future__ import annotations

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional

from streamer.nets.layers import Block, conv1d, conv2d, halved, positions

Tokens = tuple[Tensor, Tensor]


class ImageEncoder(nn.Module):
    """A convolutional network on each frame, its first layer on patches; a token for each frame.

    The network sees where in the frame each pixel lies (CoordConv, Liu et al. 2018), and of each feature the strongest
    place counts: a thing of a few pixels at the right place would drown in a mean over the frame.
    """

    def __init__(self, patch: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3 + 2, channels[0], patch + 1, stride=patch, padding=patch // 2)
        self.convolutions = conv2d(channels)
        self.project = nn.Linear(channels[-1], width)

    def forward(self, image_BFCHW: Tensor, mask_BF: Tensor) -> Tokens:
        pixels_BFCHW = torch.where(mask_BF[:, :, None, None, None], image_BFCHW, 0).float().div_(127.5).sub_(1.0)
        pixels_NCHW = pixels_BFCHW.flatten(0, 1)  # N: windows × frames
        count, _, rows, columns = pixels_NCHW.shape
        place_NCHW = _places(rows, columns, pixels_NCHW.device).expand(count, -1, -1, -1)
        cells_NCHW = self.convolutions(functional.relu(self.patches(torch.cat([pixels_NCHW, place_NCHW], dim=1))))
        tokens_BFD = self.project(cells_NCHW.amax((2, 3))).view(*mask_BF.shape, -1)
        return tokens_BFD + positions(tokens_BFD.shape[1], tokens_BFD.shape[2], tokens_BFD.device), mask_BF


class AudioEncoder(nn.Module):
    """Log-mel spectrogram on the device, convolutions, then a GRU over time; a token for each of its steps."""

    FFT_S, HOP_S = 0.032, 0.010  # analysis length and step, the usual ones of speech and sound events
    FLOOR = 1e-6  # power under which sound is silence: -60 dB of full scale

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
        self.over_time = nn.GRU(width, width // 2, batch_first=True, bidirectional=True)

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
        tokens_BTD = tokens_BTD + self.over_time(tokens_BTD)[0]
        return tokens_BTD, halved(mask_BT, self.halvings)

    def _steps(self, mask_BS: Tensor, steps: int) -> Tensor:
        """A spectrogram step counts if half of the samples around its middle were heard."""
        half = self.hop // 2
        padded_B1S = functional.pad(mask_BS[:, None].float(), (half, steps * self.hop - mask_BS.shape[1]))
        return functional.avg_pool1d(padded_B1S, self.hop, stride=self.hop)[:, 0, :steps] >= 0.5


class TextEncoder(nn.Module):
    """A small transformer over the window's words."""

    def __init__(self, vocabulary: int, layers: int, heads: int, width: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.missing = nn.Linear(1, width, bias=False)  # how much of the transcript lies outside the window
        self.layers = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.nothing = nn.Parameter(torch.zeros(1, 1, width))  # attended to by a window without words

    def forward(self, text_BT: Tensor, mask_BT: Tensor, overlap_BT: Tensor) -> Tokens:
        words_BTD = self.embed(torch.where(mask_BT, text_BT, 0))
        words_BTD = words_BTD + self.missing(torch.where(mask_BT, 1.0 - overlap_BT, 0.0)[..., None])
        words_BTD = words_BTD + positions(text_BT.shape[1], words_BTD.shape[-1], words_BTD.device)
        tokens_BND = torch.cat([self.nothing.expand(len(text_BT), -1, -1), words_BTD], dim=1)
        attended_BN = functional.pad(mask_BT, (1, 0), value=True)
        for layer in self.layers:
            tokens_BND = layer(tokens_BND, attended_BN)
        return tokens_BND[:, 1:], mask_BT


class TelemetryEncoder(nn.Module):
    """Convolutions over time on the standardised channels; a token for each step that is left."""

    mean_C1: Tensor
    deviation_C1: Tensor
    LIMIT = 8.0  # standard deviations: a broken sensor's huge value counts as a large one

    def __init__(self, inputs: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.register_buffer("mean_C1", torch.zeros(inputs, 1))  # of the training data, in the producer's units
        self.register_buffer("deviation_C1", torch.ones(inputs, 1))
        self.convolutions = conv1d((2 * inputs, *channels))
        self.halvings = len(channels)
        self.project = nn.Linear(channels[-1], width)

    def forward(self, telemetry_BCT: Tensor, mask_BCT: Tensor) -> Tokens:
        scaled_BCT = ((telemetry_BCT - self.mean_C1) / self.deviation_C1).clamp(-self.LIMIT, self.LIMIT)
        planes_BCT = torch.cat([torch.where(mask_BCT, scaled_BCT, 0.0), mask_BCT.to(scaled_BCT.dtype)], dim=1)
        tokens_BTD = self.project(self.convolutions(planes_BCT).transpose(1, 2))
        tokens_BTD = tokens_BTD + positions(tokens_BTD.shape[1], tokens_BTD.shape[2], tokens_BTD.device)
        return tokens_BTD, halved(mask_BCT.any(1), self.halvings)

    def standardise(self, telemetry_BCT: Tensor, mask_BCT: Tensor) -> None:
        """Set mean and deviation of each channel from what was measured; a channel that nobody sent keeps 0 and 1."""
        for channel in range(telemetry_BCT.shape[1]):
            measured = telemetry_BCT[:, channel][mask_BCT[:, channel]]
            if len(measured) > 1:
                self.mean_C1[channel] = measured.mean()
                self.deviation_C1[channel] = measured.std().clamp_min(1e-6)


def _places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Where each pixel lies, from -1 to 1: down the frame, then across.

    Returns:
        float32 [1, 2, rows, columns].
    """
    y_H = torch.linspace(-1.0, 1.0, rows, device=device)
    x_W = torch.linspace(-1.0, 1.0, columns, device=device)
    return torch.stack(torch.meshgrid(y_H, x_W, indexing="ij"))[None]
