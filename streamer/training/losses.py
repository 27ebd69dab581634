"""What a model is trained for beside its task. Shape suffixes: see ``nets/inputs.py``; P counts present windows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TEMPERATURE = 0.1


def contrastive(parts: dict[str, tuple[Tensor, Tensor]], fused_BD: Tensor, label_B: Tensor) -> Tensor:
    """Pull each modality's vector to the fused one of its own window, and away from other windows'.

    Symmetric InfoNCE (CLIP, Radford et al. 2021), with the fused vector as the one that binds them all, as images do in
    ImageBind (Girdhar et al. 2023). Windows of the same label are no negatives of one another: they may look alike.

    Args:
        parts: Modality -> (vectors [B, D] of length 1, present [B]).

    Returns:
        The mean over modalities, a scalar; 0 where nothing can be compared.
    """
    losses = []
    for own_BD, present_B in parts.values():
        if int(present_B.sum()) < 2:
            continue
        label_P = label_B[present_B]
        similarity_PP = own_BD[present_B] @ fused_BD[present_B].T / TEMPERATURE
        alike_PP = (label_P[:, None] == label_P) & ~torch.eye(len(label_P), dtype=torch.bool, device=label_P.device)
        similarity_PP = similarity_PP.masked_fill(alike_PP, float("-inf"))
        own_P = torch.arange(len(label_P), device=label_P.device)
        losses.append(functional.cross_entropy(similarity_PP, own_P))
        losses.append(functional.cross_entropy(similarity_PP.T, own_P))
    return torch.stack(losses).mean() if losses else fused_BD.sum() * 0.0
