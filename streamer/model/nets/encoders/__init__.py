"""One encoder for each modality: tensors -> (tokens_BND, mask_BN) in one width D. Shape suffixes: see ``inputs``.

Every encoder first puts 0 where its mask is False and tells the network so, hence masked content, were it NaN, cannot
reach a token; a token over nothing but masked input is masked itself.
"""

from __future__ import annotations

from torch import Tensor

Tokens = tuple[Tensor, Tensor]
