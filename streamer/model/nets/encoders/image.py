"""Frames -> tokens, one for each frame or one for all. Shape suffixes: see ``inputs``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from streamer.errors import one_line
from streamer.model.nets.architecture import BuildError, Timm
from streamer.model.nets.encoders import Tokens
from streamer.model.nets.layers import GROUPS, Attention, Backboned, conv2d, positions
from streamer.model.nets.pretrained import load_weights

HUB = "hub"
EFFICIENTNET_PYTORCH = "_conv_stem.weight"  # a name in that layout alone


class ImageEncoder(nn.Module):
    """A convolutional network on each frame, its first layer on patches; a token for each frame.

    The network sees the position of each pixel in the frame (CoordConv, Liu et al. 2018). Each feature is pooled by its
    maximum, since a mean over the frame would hide a thing of a few pixels, and by its mean, through which every place
    gets a gradient from the start.
    """

    def __init__(self, patch: int, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3 + 2, channels[0], patch + 1, stride=patch, padding=patch // 2)
        self.norm = nn.GroupNorm(GROUPS, channels[0])
        self.convolutions = conv2d(channels)
        self.project = nn.Linear(2 * channels[-1], width)

    def forward(self, image_BFCHW: Tensor, mask_BF: Tensor) -> Tokens:
        patches_NCHW = self.norm(self._patches(image_BFCHW.flatten(0, 1), mask_BF.flatten()))
        cells_NCHW = self.convolutions(functional.relu(patches_NCHW))
        features_NC = torch.cat([cells_NCHW.amax((2, 3)), cells_NCHW.mean((2, 3))], dim=1)
        tokens_BFD = self.project(features_NC).view(*mask_BF.shape, -1)
        return tokens_BFD + positions(tokens_BFD.shape[1], tokens_BFD.shape[2], tokens_BFD.device), mask_BF

    def _patches(self, image_NCHW: Tensor, mask_N: Tensor) -> Tensor:
        """The first convolution, over pixels from -1 to 1 and their positions; a masked frame is black.

        It is linear: the part that is the same in all frames (positions, and -1 for black) is convolved once, and
        pixels go in as they are, 0 to 255. Scaling and stacking five channels took a fifth of the encoder's time.

        Args:
            image_NCHW: N is windows × frames.
        """
        weight, bias = self.patches.weight, self.patches.bias
        stride, padding = self.patches.stride, self.patches.padding
        _, _, rows, columns = image_NCHW.shape
        place_1CHW = _places(rows, columns, weight.device)
        black_1CHW = torch.cat([place_1CHW.new_full((1, 3, rows, columns), -1.0), place_1CHW], dim=1)
        black_1CHW = functional.conv2d(black_1CHW, weight, bias, stride, padding)
        pixels_NCHW = image_NCHW.to(torch.float32, memory_format=torch.contiguous_format)
        light_NCHW = functional.conv2d(pixels_NCHW, weight[:, :3] / 127.5, None, stride, padding)
        return torch.where(mask_N[:, None, None, None], light_NCHW, 0.0) + black_1CHW


class TimmEncoder(Backboned):
    """A backbone of timm on each frame, normalised as in the backbone's training; a token for each frame."""

    mean_C11: Tensor
    deviation_C11: Tensor

    def __init__(self, backbone: nn.Module, features: int, width: int, *, frozen: bool) -> None:
        super().__init__(backbone, frozen=frozen)
        config: dict[str, Any] = cast(Any, backbone).pretrained_cfg
        for name, key in (("mean_C11", "mean"), ("deviation_C11", "std")):  # of pixels from 0 to 1
            self.register_buffer(name, torch.tensor(config[key]).view(3, 1, 1))
        self.project = nn.Linear(features, width)

    def forward(self, image_BFCHW: Tensor, mask_BF: Tensor) -> Tokens:
        pixels_BFCHW = torch.where(mask_BF[:, :, None, None, None], image_BFCHW, 0).float() / 255.0
        pixels_NCHW = ((pixels_BFCHW - self.mean_C11) / self.deviation_C11).flatten(0, 1)
        tokens_BFD = self.project(self._features(pixels_NCHW, mask_BF.flatten())).view(*mask_BF.shape, -1)
        return tokens_BFD + positions(tokens_BFD.shape[1], tokens_BFD.shape[2], tokens_BFD.device), mask_BF

    def _features(self, pixels_NCHW: Tensor, mask_N: Tensor) -> Tensor:
        """Features of each frame; in training a missing frame must not enter the batch statistics."""
        if not self.training or self.frozen:
            return self.run(pixels_NCHW)
        seen_NCHW = pixels_NCHW[mask_N]
        self.backbone.train(len(seen_NCHW) > 1)  # one frame has no batch statistics: use the running ones
        features_NC = pixels_NCHW.new_zeros(len(pixels_NCHW), self.project.in_features)
        if len(seen_NCHW):
            features_NC = features_NC.masked_scatter(mask_N[:, None], self.run(seen_NCHW).to(features_NC.dtype))
        return features_NC


def timm_encoder(options: Timm, size: tuple[int, int], width: int, folder: Path, *, pretrained: bool) -> TimmEncoder:
    """Build a backbone and try it on a frame.

    Args:
        size: Height and width of the frames, pixels.
        pretrained: Whether to load the weights that the options name.

    Raises:
        BuildError: timm is not installed or lacks the backbone, the weights do not fit it, or it cannot read frames of
            this size.
    """
    try:
        import timm
    except ImportError:
        raise BuildError("encoder 'timm:…' needs timm: pip install 'streamer-multimodal[backbones]'") from None
    if not timm.is_model(options.of):
        near = ", ".join(timm.list_models(f"*{options.of.rstrip('0123456789')}*")[:8])
        raise BuildError(f"timm has no backbone {options.of!r}{f'; it has {near}' if near else ''}")
    hub = pretrained and options.pretrained == HUB
    try:
        backbone = _create(timm, options.of, size, hub)
        features = _features_of(backbone, size)
    except Exception as error:  # hundreds of networks and the hub may raise anything
        raise BuildError(
            f"timm:{options.of} cannot be built for frames of {size[0]} × {size[1]} pixels"
            f"{' from its hub' if hub else ''}: {one_line(error)}"
        ) from error
    if pretrained and options.pretrained and not hub:
        load_weights(backbone, folder / options.pretrained, _heads(backbone), lambda given: _converted(given, backbone))
    return TimmEncoder(backbone, features, width, frozen=options.frozen)


def _create(timm: Any, name: str, size: tuple[int, int], hub: bool) -> nn.Module:
    """Create a backbone without its classifier; one of fixed image size is built for ours."""
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    sized = {"img_size": size} if fixed else {}
    return cast(nn.Module, timm.create_model(name, pretrained=hub, num_classes=0, **sized))


def _converted(given: dict[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Weights of another layout, by the names of timm.

    EfficientNet-PyTorch and its kin have timm's layers in timm's order, and call them otherwise. Of each other network
    timm knows the older layouts.
    """
    if EFFICIENTNET_PYTORCH in given:
        layers = [weight for name, weight in given.items() if not name.startswith("_fc.")]
        return dict(zip(backbone.state_dict(), layers, strict=True))
    convert = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)  # timm's convention
    return given if convert is None else cast(dict[str, Tensor], convert(given, backbone))


def _features_of(backbone: nn.Module, size: tuple[int, int]) -> int:
    with torch.no_grad():
        answer: Tensor = backbone.eval()(torch.zeros(1, 3, *size))
    if answer.ndim != 2:
        raise BuildError(f"it gives {list(answer.shape)} instead of one vector for each frame")
    return answer.shape[1]


def _heads(backbone: nn.Module) -> tuple[str, ...]:
    """Prefixes of weights that are not needed: those of the classifier, and of Inception's auxiliary head."""
    classifier = cast(Any, backbone).pretrained_cfg.get("classifier") or ()
    names = (classifier,) if isinstance(classifier, str) else classifier
    return (*(f"{name}." for name in names), "AuxLogits.")


class Pooled(nn.Module):
    """The frames of a window as one token: their sum, weighted by a learned query's attention (Ilse et al. 2018)."""

    def __init__(self, encoder: nn.Module, width: int, heads: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.query_D = nn.Parameter(torch.randn(width) * 0.02)
        self.nothing_D = nn.Parameter(torch.zeros(width))  # attended to by a window without frames
        self.attention = Attention(width, heads)

    def forward(self, image_BFCHW: Tensor, mask_BF: Tensor) -> Tokens:
        tokens_BFD, _ = self.encoder(image_BFCHW, mask_BF)
        tokens_BFD = torch.where(mask_BF[..., None], tokens_BFD, 0.0)
        batch = tokens_BFD.shape[0]
        tokens_BND = torch.cat([self.nothing_D.expand(batch, 1, -1), tokens_BFD], dim=1)
        attended_BN = functional.pad(mask_BF, (1, 0), value=True)
        return self.attention(self.query_D.expand(batch, 1, -1), tokens_BND, attended_BN), mask_BF.any(1, keepdim=True)


def _places(rows: int, columns: int, device: torch.device) -> Tensor:
    """Position of each pixel, from -1 to 1: down the frame, then across.

    Returns:
        float32 [1, 2, rows, columns].
    """
    y_H = torch.linspace(-1.0, 1.0, rows, device=device)
    x_W = torch.linspace(-1.0, 1.0, columns, device=device)
    return torch.stack(torch.meshgrid(y_H, x_W, indexing="ij"))[None]
