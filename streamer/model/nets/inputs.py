"""The tensors that go into a model and come out of it. The shape suffixes of all of ``nets``:

B windows · F frames · H height · W width · S audio samples · C channels (3 colours, telemetry channels, features)
M mel bands · T text tokens, telemetry grid points or time steps · N tokens of an encoder · Q queries
D width of the common embedding space · L labels
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, cast

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """A batch of windows; ``None`` where the model has no such input.

    Where a mask is False the content is undefined and cannot affect the output. A modality that a window lacks has no
    True in its mask.
    """

    image_BFCHW: Tensor | None = None  # uint8, RGB
    image_mask_BF: Tensor | None = None
    audio_BS: Tensor | None = None  # float32 in [-1, 1]
    audio_mask_BS: Tensor | None = None
    text_BT: Tensor | None = None  # int64 token numbers
    text_mask_BT: Tensor | None = None
    text_overlap_BT: Tensor | None = None  # float32: share of the token's transcript that is in the window
    telemetry_BCT: Tensor | None = None  # float32 in the producer's units
    telemetry_mask_BCT: Tensor | None = None

    def mask(self, modality: str) -> Tensor | None:
        """The mask of ``image``, ``audio``, ``text`` or ``telemetry``; ``None`` if there is no such input."""
        mask: Tensor | None = getattr(self, _mask_field(modality))
        return mask

    def has(self, modality: str) -> Tensor:
        """Which windows have any content of a modality, bool [B]; the model must have the input."""
        return cast(Tensor, self.mask(modality)).flatten(1).any(1)

    def shown_in(self, shown: Mapping[str, Tensor]) -> Inputs:
        """The same windows with modalities masked.

        Args:
            shown: Modality -> in which windows it stays, bool [B]; modalities not named stay in all.
        """
        masks = {}
        for modality, shown_B in shown.items():
            mask = cast(Tensor, self.mask(modality))
            masks[_mask_field(modality)] = mask & shown_B.view(-1, *[1] * (mask.ndim - 1))
        return self._replace(**masks)

    def without(self, modality: str) -> Inputs:
        """The same windows with one modality masked everywhere; the model must have the input."""
        return self.shown_in({modality: torch.zeros_like(self.has(modality))})


def _mask_field(modality: str) -> str:
    return next(field for field in Inputs._fields if field.startswith(f"{modality}_mask_"))


class Outputs(NamedTuple):
    """A model's outputs for a batch of windows."""

    logits: dict[str, Tensor]  # head -> [B, L]
    embedding_BD: Tensor  # the fused vector in the common embedding space, length 1
    parts: dict[str, tuple[Tensor, Tensor]]  # modality -> ([B, D] in that space, length 1; [B] present)
