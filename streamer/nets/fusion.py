"""Tokens of all modalities -> one vector. Shape suffixes: see ``inputs``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from streamer.nets.layers import Block


class Fusion(nn.Module):
    """Learned queries attend to the tokens of whatever modalities are there (as in Perceiver, Jaegle et al. 2021).

    A missing modality is a masked one: it has no weight in any sum, whatever its tensors hold. One learned token is
    always there, so a window without anything still has an answer: the model's prior.
    """

    def __init__(self, width: int, heads: int, queries: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.queries_QD = nn.Parameter(torch.randn(queries, width) * 0.02)
        self.always_D = nn.Parameter(torch.randn(width) * 0.02)
        self.read = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.think = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BND: Tensor, mask_BN: Tensor) -> Tensor:
        """Fuse.

        Returns:
            fused_BD.
        """
        batch = len(tokens_BND)
        tokens_BND = torch.where(mask_BN[..., None], tokens_BND, 0.0)  # no weight × NaN would still be NaN
        tokens_BND = torch.cat([self.always_D.expand(batch, 1, -1), tokens_BND], dim=1)
        mask_BN = torch.cat([mask_BN.new_ones(batch, 1), mask_BN], dim=1)
        x_BQD = self.queries_QD.expand(batch, -1, -1)
        all_BQ = mask_BN.new_ones(batch, x_BQD.shape[1])
        for read, think in zip(self.read, self.think, strict=True):
            x_BQD = think(read(x_BQD, mask_BN, tokens_BND), all_BQ)
        fused_BD: Tensor = self.norm(x_BQD.mean(1))
        return fused_BD
