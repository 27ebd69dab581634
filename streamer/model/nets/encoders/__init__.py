"""Encoders of each modality: tensors -> (tokens_BND, mask_BN) in one width D. Shape suffixes: see ``inputs``.

Every encoder first sets its input to 0 where its mask is False and gives the network the mask, so masked content, even
NaN, cannot reach a token. A token whose input is all masked is itself masked.
"""

from __future__ import annotations

from torch import Tensor

Tokens = tuple[Tensor, Tensor]
