"""Pictures as features that tell them apart, by a network of the role ``backbone``.

EfficientNet-Lite0, trained on ImageNet (Tan and Le 2019; its lite form has no squeeze-and-excitation, and ReLU6).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from streamer.errors import UsageError, extra
from streamer.senses import files
from streamer.senses.sessions import files_of
from streamer.settings import Settings

ROLE = "backbone"
ARCHITECTURE = "tf_efficientnet_lite0"  # as timm calls it
SIZE_PX = 224
MIDDLE, HALF = 127.0, 128.0
BATCH = 8  # pictures of one run

Picture = NDArray[np.uint8]


class PictureFeatures:
    """EfficientNet-Lite0 without its classes; the version is that of its file.

    Attributes:
        size: Of a picture's features.
    """

    size = 1280

    def __init__(self, settings: Settings) -> None:
        """Load the network.

        Raises:
            UsageError: It is not there, or cannot be run; says how to get it.
        """
        sense = files.find(ROLE, settings)
        self.version = sense.version
        self._network = network(files_of(sense)["weights"])

    def features(self, pictures: Sequence[Picture]) -> NDArray[np.float32]:
        """What the network makes of pictures, before it decides on a class.

        Args:
            pictures: uint8 [H, W, 3], RGB, of any size.

        Returns:
            float32 [N, 1280].
        """
        found_ND = np.zeros((len(pictures), self.size), np.float32)
        for start in range(0, len(pictures), BATCH):
            batch_NHWC = np.stack([_scaled(picture) for picture in pictures[start : start + BATCH]])
            scaled_NCHW = torch.from_numpy((batch_NHWC.astype(np.float32) - MIDDLE) / HALF).permute(0, 3, 1, 2)
            with torch.inference_mode():
                found_ND[start : start + BATCH] = self._network(scaled_NCHW).numpy()
        return found_ND


def network(weights: Path) -> nn.Module:
    """The network of a file of weights, [N, 3, 224, 224] -> [N, 1280].

    Args:
        weights: A PyTorch state dict of efficientnet-lite-pytorch, whose parts are in timm's order under other names.

    Raises:
        UsageError: timm is not installed, or the file is of another network.
    """
    with extra("backbones", "running the picture backbone"):
        import timm
    module: Any = timm.create_model(ARCHITECTURE, pretrained=False)
    wanted = module.state_dict()
    try:
        given = torch.load(weights, map_location="cpu", weights_only=True)  # tensors alone; no code of a pickle is run
    except (OSError, RuntimeError, UnpicklingError) as error:
        raise UsageError(f"{weights} is no PyTorch file of weights: {error}") from None
    if [tensor.shape for tensor in given.values()] != [tensor.shape for tensor in wanted.values()]:
        raise UsageError(f"{weights} has not the weights of {ARCHITECTURE}")
    module.load_state_dict(dict(zip(wanted, given.values(), strict=True)))
    module.reset_classifier(0)
    network: nn.Module = module.eval()
    return network


def _scaled(picture: Picture) -> Picture:
    return np.asarray(Image.fromarray(picture).resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR))
