"""The smallest network of your own: the mean colour of a frame, and a linear layer."""

import torch
from torch import nn
from torch.nn import functional

from streamer.model import Inputs, ModelSpec, Outputs


class Lights(nn.Module):
    """B windows, F frames, C colours, H and W pixels, D = 8."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.colour = nn.Linear(3, 8)
        self.light = nn.Linear(8, labels)

    def forward(self, inputs: Inputs) -> Outputs:
        """What is masked is taken out first: a window without a frame is black."""
        assert inputs.image_BFCHW is not None, "model.toml asks for frames"
        assert inputs.image_mask_BF is not None
        seen_BF111 = inputs.image_mask_BF[:, :, None, None, None]
        frames_BFCHW = torch.where(seen_BF111, inputs.image_BFCHW, 0) / 255
        image_BD = self.colour(frames_BFCHW.mean((1, 3, 4)))
        embedding_BD = functional.normalize(image_BD, dim=-1)
        parts = {"image": (embedding_BD, inputs.image_mask_BF.any(1))}
        return Outputs({"light": self.light(image_BD)}, embedding_BD, parts)


def build(spec: ModelSpec) -> nn.Module:
    """Called with what model.toml says."""
    return Lights(len(spec.outputs["light"].labels))
