"""The tensors that go into a model and come out of it. The shape suffixes of all of ``nets``:

B windows · F frames · H height · W width · S audio samples · C channels (3 colours, telemetry channels, features)
M mel bands · T text tokens, telemetry grid points or time steps · N tokens of an encoder · Q queries
D width of the common space · L labels
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Inputs(NamedTuple):
    """A batch of windows; None where the model has no such input.

    Where a mask is False the content means nothing and cannot change the output. A modality that a window lacks has
    no True in its mask.
    """

    image_BFCHW: Tensor | None = None  # uint8, RGB
    image_mask_BF: Tensor | None = None
    audio_BS: Tensor | None = None  # float32 in [-1, 1]
    audio_mask_BS: Tensor | None = None
    text_BT: Tensor | None = None  # int64 token numbers
    text_mask_BT: Tensor | None = None
    text_overlap_BT: Tensor | None = None  # float32: share of the token's transcript that lies in the window
    telemetry_BCT: Tensor | None = None  # float32 in the producer's units
    telemetry_mask_BCT: Tensor | None = None

    def without(self, modality: str) -> Inputs:
        """The same windows with one modality masked everywhere: ``image``, ``audio``, ``text`` or ``telemetry``."""
        masks = {
            name: torch.zeros_like(mask)
            for name, mask in self._asdict().items()
            if mask is not None and name.startswith(f"{modality}_mask_")
        }
        return self._replace(**masks)


class Outputs(NamedTuple):
    """What a model says about a batch of windows."""

    logits: dict[str, Tensor]  # head -> [B, L]
    embedding_BD: Tensor  # the fused vector in the common space, length 1
    parts: dict[str, tuple[Tensor, Tensor]]  # modality -> ([B, D] in the common space, length 1; [B] present)
