"""Channels on a grid of time -> tokens. Shape suffixes: see ``inputs``."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamer.model.nets.encoders import Tokens
from streamer.model.nets.layers import Layers, conv1d, halved, positions


class TelemetryEncoder(nn.Module):
    """Base class: standardised channels stacked with their masks, and positions added to the resulting tokens."""

    mean_C1: Tensor
    deviation_C1: Tensor
    LIMIT = 8.0  # standard deviations: a broken sensor's huge value counts as a large one

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.register_buffer("mean_C1", torch.zeros(inputs, 1))  # of the training data, in the producer's units
        self.register_buffer("deviation_C1", torch.ones(inputs, 1))

    def forward(self, telemetry_BCT: Tensor, mask_BCT: Tensor) -> Tokens:
        scaled_BCT = ((telemetry_BCT - self.mean_C1) / self.deviation_C1).clamp(-self.LIMIT, self.LIMIT)
        planes_BCT = torch.cat([torch.where(mask_BCT, scaled_BCT, 0.0), mask_BCT.to(scaled_BCT.dtype)], dim=1)
        return self.encode(planes_BCT, mask_BCT.any(1))

    def encode(self, planes_BCT: Tensor, mask_BT: Tensor) -> Tokens:
        """Channels and their masks [B, 2 C, T] -> tokens."""
        raise NotImplementedError

    def standardise(self, telemetry_BCT: Tensor, mask_BCT: Tensor) -> None:
        """Set mean and deviation of each channel from its measurements; a channel without any keeps 0 and 1."""
        for channel in range(telemetry_BCT.shape[1]):
            measured = telemetry_BCT[:, channel][mask_BCT[:, channel]]
            if len(measured) > 1:
                self.mean_C1[channel] = measured.mean()
                self.deviation_C1[channel] = measured.std().clamp_min(1e-6)


class TelemetryCnn(TelemetryEncoder):
    """Convolutions over time; a token for each remaining step."""

    def __init__(self, inputs: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__(inputs)
        self.convolutions = conv1d((2 * inputs, *channels))
        self.halvings = len(channels)
        self.project = nn.Linear(channels[-1], width)

    def encode(self, planes_BCT: Tensor, mask_BT: Tensor) -> Tokens:
        tokens_BTD = self.project(self.convolutions(planes_BCT).transpose(1, 2))
        tokens_BTD = tokens_BTD + positions(tokens_BTD.shape[1], tokens_BTD.shape[2], tokens_BTD.device)
        return tokens_BTD, halved(mask_BT, self.halvings)


class TelemetryGru(TelemetryEncoder):
    """A GRU over the grid points, in both directions; a token for each."""

    def __init__(self, inputs: int, layers: int, width: int) -> None:
        super().__init__(inputs)
        self.over_time = nn.GRU(2 * inputs, width // 2, layers, batch_first=True, bidirectional=True)

    def encode(self, planes_BCT: Tensor, mask_BT: Tensor) -> Tokens:
        return self.over_time(planes_BCT.transpose(1, 2))[0], mask_BT


class TelemetryTransformer(TelemetryEncoder):
    """A transformer over patches of grid points (PatchTST, Nie et al. 2023); a token for each patch."""

    def __init__(self, inputs: int, patch: int, layers: int, heads: int, width: int, dropout: float) -> None:
        super().__init__(inputs)
        self.patch = patch
        self.patches = nn.Conv1d(2 * inputs, width, patch, stride=patch)
        self.attend = Layers(width, heads, layers, dropout)

    def encode(self, planes_BCT: Tensor, mask_BT: Tensor) -> Tokens:
        pad = -planes_BCT.shape[-1] % self.patch
        tokens_BTD = self.patches(functional.pad(planes_BCT, (0, pad))).transpose(1, 2)
        tokens_BTD = tokens_BTD + positions(tokens_BTD.shape[1], tokens_BTD.shape[2], tokens_BTD.device)
        mask_BP = functional.pad(mask_BT, (0, pad)).view(mask_BT.shape[0], -1, self.patch).any(-1)
        return self.attend(tokens_BTD, mask_BP), mask_BP
