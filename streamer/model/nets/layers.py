"""Attention and convolution blocks; the shape suffixes are explained in ``inputs``."""

from __future__ import annotations

from itertools import pairwise
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

GROUPS = 4  # of channels, each normalised separately


class Attention(nn.Module):
    """Multi-head attention of queries to tokens (Vaswani et al. 2017); masked tokens have no weight."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, queries_BQD: Tensor, tokens_BND: Tensor, mask_BN: Tensor) -> Tensor:
        """Mix tokens into queries; each row needs at least one True in its mask.

        Returns:
            [B, Q, D].
        """
        query = self._split(self.query(queries_BQD))
        key, value = (self._split(part) for part in self.key_value(tokens_BND).chunk(2, dim=-1))
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask_BN[:, None, None, :])
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out

    def _split(self, x_BND: Tensor) -> Tensor:
        """[B, N, D] -> [B, heads, N, D / heads]."""
        batch, steps, width = x_BND.shape
        return x_BND.view(batch, steps, self.heads, width // self.heads).transpose(1, 2)


class Feedforward(nn.Sequential):
    """Two linear layers with GELU between."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__(nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * width, width))


class Block(nn.Module):
    """Pre-norm transformer layer: tokens attend to one another, or queries to tokens if these are given."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_feedforward = nn.LayerNorm(width)
        self.feedforward = Feedforward(width, dropout)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BQD: Tensor, mask_BN: Tensor, tokens_BND: Tensor | None = None) -> Tensor:
        normed_BQD = self.norm_attention(x_BQD)
        tokens_BND = normed_BQD if tokens_BND is None else tokens_BND
        x_BQD = x_BQD + self.dropout(self.attention(normed_BQD, tokens_BND, mask_BN))
        out: Tensor = x_BQD + self.dropout(self.feedforward(self.norm_feedforward(x_BQD)))
        return out


def conv2d(channels: tuple[int, ...]) -> nn.Sequential:
    """3 × 3 convolutions, each halving height and width; channels from the first to the last number given."""
    layers: list[nn.Module] = []
    for own, after in pairwise(channels):
        layers += [nn.Conv2d(own, after, 3, stride=2, padding=1), nn.GroupNorm(GROUPS, after), nn.ReLU()]
    return nn.Sequential(*layers)


def conv1d(channels: tuple[int, ...]) -> nn.Sequential:
    """Convolutions over 5 steps, each halving the time; channels from the first to the last number given."""
    layers: list[nn.Module] = []
    for own, after in pairwise(channels):
        layers += [nn.Conv1d(own, after, 5, stride=2, padding=2), nn.GroupNorm(GROUPS, after), nn.ReLU()]
    return nn.Sequential(*layers)


def halved(mask_BT: Tensor, times: int) -> Tensor:
    """The mask after ``times`` convolutions of stride 2: a step counts if any step under it does."""
    steps_B1T = mask_BT[:, None].float()
    for _ in range(times):
        steps_B1T = functional.max_pool1d(steps_B1T, 3, stride=2, padding=1)
    return steps_B1T[:, 0] > 0.5


def masked_mean(tokens_BND: Tensor, mask_BN: Tensor) -> Tensor:
    """Mean over the tokens that are not masked; 0 if all are.

    Returns:
        [B, D].
    """
    weight_BN1 = mask_BN[..., None].to(tokens_BND.dtype)
    return (tokens_BND * weight_BN1).sum(1) / weight_BN1.sum(1).clamp_min(1)


def positions(steps: int, width: int, device: torch.device) -> Tensor:
    """Sinusoidal positions (Vaswani et al. 2017, section 3.5), so that no length is built in.

    Returns:
        float32 [steps, width].
    """
    at_T1 = torch.arange(steps, device=device, dtype=torch.float32)[:, None]
    rate_D = torch.exp(torch.arange(0, width, 2, device=device) * (-9.21034 / width))  # 10,000 ** (-2 i / width)
    return torch.cat([torch.sin(at_T1 * rate_D), torch.cos(at_T1 * rate_D)], dim=-1)


class Layers(nn.Module):
    """Transformer layers over tokens, some or all of which may be masked."""

    def __init__(self, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.nothing_D = nn.Parameter(torch.zeros(width))  # attended to if all are masked

    def forward(self, tokens_BND: Tensor, mask_BN: Tensor) -> Tensor:
        """Returns [B, N, D], undefined at masked tokens."""
        tokens_BND = torch.where(mask_BN[..., None], tokens_BND, 0.0)
        tokens_BND = torch.cat([self.nothing_D.expand(tokens_BND.shape[0], 1, -1), tokens_BND], dim=1)
        attended_BN = functional.pad(mask_BN, (1, 0), value=True)
        for block in self.blocks:
            tokens_BND = block(tokens_BND, attended_BN)
        return tokens_BND[:, 1:]


class Backboned(nn.Module):
    """An encoder around another project's network, which is trained with it or used unchanged.

    Args:
        frozen: No gradients, and evaluation mode even while the model is trained, so that batch statistics and dropout
            do not change it.
    """

    def __init__(self, backbone: nn.Module, *, frozen: bool) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(not frozen)
        self.frozen = frozen

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            self.backbone.eval()
        return self

    def run(self, *inputs: Tensor) -> Tensor:
        """The backbone's output."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            answer: Tensor = self.backbone(*inputs)
        return answer


class Recurrent(nn.Module):
    """Recurrent layers over the first tokens of each row, in both directions; the padding has no effect.

    The backward direction is a forward pass over each row reversed within its length, so that padding stays at the end
    and no packing is needed.

    Args:
        cell: ``nn.RNN``, ``nn.LSTM`` or ``nn.GRU``.
    """

    def __init__(self, cell: type[nn.RNN | nn.LSTM | nn.GRU], width: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.there = nn.ModuleList(cell(width, width // 2, batch_first=True) for _ in range(layers))
        self.back = nn.ModuleList(cell(width, width // 2, batch_first=True) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Returns [B, T, D], undefined after the last token that is not masked."""
        at_T = torch.arange(mask_BT.shape[1], device=mask_BT.device)
        length_B1 = ((at_T + 1) * mask_BT).amax(1, keepdim=True)
        turned_BT = torch.where(at_T < length_B1, length_B1 - 1 - at_T, at_T)  # its own inverse
        for there, back in zip(self.there, self.back, strict=True):
            turned_BTD = turned_BT[..., None].expand_as(tokens_BTD)
            back_BTC = back(tokens_BTD.gather(1, turned_BTD))[0]
            back_BTC = back_BTC.gather(1, turned_BT[..., None].expand_as(back_BTC))
            tokens_BTD = tokens_BTD + self.dropout(torch.cat([there(tokens_BTD)[0], back_BTC], dim=-1))
        return tokens_BTD
