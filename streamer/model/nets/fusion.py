"""Tokens of all modalities -> one vector. Shape suffixes: see ``inputs``.

Every fusion takes the tokens and masks of each modality, in the same order in every call, and works with any of them
missing, or all. A missing modality is masked: it has no weight in any sum, whatever its tensors contain; if all are
missing, a learned vector, the model's prior, replaces them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from streamer.model.nets.layers import Block, masked_mean


class AttentionFusion(nn.Module):
    """Learned queries attend to the tokens of all modalities present (as in Perceiver, Jaegle et al. 2021)."""

    def __init__(self, width: int, heads: int, queries: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.queries_QD = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.always_D = nn.Parameter(torch.randn(width) * 0.02)
        self.read = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.think = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Fuse.

        Args:
            tokens: tokens_BND of each modality.
            masks: mask_BN of each modality.

        Returns:
            fused_BD.
        """
        mask_BN = torch.cat(list(masks), dim=1)
        batch = mask_BN.shape[0]
        tokens_BND = torch.where(mask_BN[..., None], torch.cat(list(tokens), dim=1), 0.0)  # no weight × NaN is NaN
        tokens_BND = torch.cat([self.always_D.expand(batch, 1, -1), tokens_BND], dim=1)
        mask_BN = torch.cat([mask_BN.new_ones(batch, 1), mask_BN], dim=1)
        x_BQD = self.queries_QD.expand(batch, -1, -1)
        all_BQ = mask_BN.new_ones(batch, x_BQD.shape[1])
        for read, think in zip(self.read, self.think, strict=True):
            x_BQD = think(read(x_BQD, mask_BN, tokens_BND), all_BQ)
        fused_BD: Tensor = self.norm(x_BQD.mean(1))
        return fused_BD


class BottleneckFusion(nn.Module):
    """Multimodal bottleneck transformer (Nagrani et al. 2021): modalities exchange through a few tokens only.

    In each layer the tokens of every modality attend to one another and to the bottleneck tokens, with separate weights
    per modality; the next bottleneck tokens are the mean over the modalities present. The output is the mean of the
    bottleneck tokens, where the paper reads a class token of each modality.
    """

    def __init__(self, modalities: int, width: int, heads: int, tokens: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.bottleneck_QD = nn.Parameter(torch.randn(tokens, width) * 0.02)
        self.layers = nn.ModuleList(
            nn.ModuleList(Block(width, heads, dropout) for _ in range(modalities)) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Fuse: see :meth:`AttentionFusion.forward`."""
        batch, count = masks[0].shape[0], self.bottleneck_QD.shape[0]
        own = [
            torch.where(mask_BN[..., None], tokens_BND, 0.0) for tokens_BND, mask_BN in zip(tokens, masks, strict=True)
        ]
        attended = [torch.cat([mask_BN.new_ones(batch, count), mask_BN], dim=1) for mask_BN in masks]
        here_BM = torch.stack([mask_BN.any(1) for mask_BN in masks], dim=1).to(own[0].dtype)
        share_BM = here_BM / here_BM.sum(1, keepdim=True).clamp_min(1)
        nobody_B11 = (here_BM.sum(1) == 0)[:, None, None]
        shared_BQD = self.bottleneck_QD.expand(batch, -1, -1)
        for blocks in self.layers:
            mixed = [
                block(torch.cat([shared_BQD, own_BND], dim=1), mask_BN)
                for block, own_BND, mask_BN in zip(blocks, own, attended, strict=True)  # type: ignore[call-overload]
            ]
            own = [mixed_BND[:, count:] for mixed_BND in mixed]
            said_BMQD = torch.stack([mixed_BND[:, :count] for mixed_BND in mixed], dim=1)
            mean_BQD = (said_BMQD * share_BM[..., None, None]).sum(1)
            shared_BQD = torch.where(nobody_B11, shared_BQD, mean_BQD)
        fused_BD: Tensor = self.norm(shared_BQD.mean(1))
        return fused_BD


class ConcatFusion(nn.Module):
    """Late concatenation: the mean of each modality's tokens, 0 where it is missing, and a flag of its presence."""

    def __init__(self, modalities: int, width: int, dropout: float) -> None:
        super().__init__()
        self.mix = nn.Sequential(
            nn.Linear(modalities * (width + 1), 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
            nn.LayerNorm(width),
        )

    def forward(self, tokens: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Fuse: see :meth:`AttentionFusion.forward`."""
        mean_BMD, here_BM = _means(tokens, masks)
        fused_BD: Tensor = self.mix(torch.cat([mean_BMD.flatten(1), here_BM.to(mean_BMD.dtype)], dim=1))
        return fused_BD


class GatedFusion(nn.Module):
    """Gated multimodal units (Arevalo et al. 2017): gates, which see all modalities, weight a vector of each.

    The gates are a softmax over the modalities present and the prior: their sum is 1 whatever is missing.
    """

    def __init__(self, modalities: int, width: int) -> None:
        super().__init__()
        self.vectors = nn.ModuleList(nn.Linear(width, width) for _ in range(modalities))
        self.gates = nn.Linear(modalities * (width + 1), modalities + 1)
        self.prior_D = nn.Parameter(torch.randn(width) * 0.02)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
        """Fuse: see :meth:`AttentionFusion.forward`."""
        mean_BMD, here_BM = _means(tokens, masks)
        seen_BX = torch.cat([mean_BMD.flatten(1), here_BM.to(mean_BMD.dtype)], dim=1)
        allowed_BM = torch.cat([here_BM, here_BM.new_ones(here_BM.shape[0], 1)], dim=1)
        gate_BM = self.gates(seen_BX).masked_fill(~allowed_BM, float("-inf")).softmax(1)
        vectors = [torch.tanh(layer(mean_BMD[:, m])) for m, layer in enumerate(self.vectors)]
        vector_BMD = torch.stack([*vectors, self.prior_D.expand_as(vectors[0])], dim=1)
        fused_BD: Tensor = self.norm((gate_BM[..., None] * vector_BMD).sum(1))
        return fused_BD


def _means(tokens: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean token of each modality, 0 where it is missing [B, M, D], and whether it is present [B, M]; M modalities."""
    means = [
        masked_mean(torch.where(mask_BN[..., None], tokens_BND, 0.0), mask_BN)
        for tokens_BND, mask_BN in zip(tokens, masks, strict=True)
    ]
    return torch.stack(means, dim=1), torch.stack([mask_BN.any(1) for mask_BN in masks], dim=1)
