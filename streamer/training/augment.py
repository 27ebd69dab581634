"""Varying and hiding parts of a training batch. Shape suffixes: see ``model/nets/inputs.py``.

All random numbers come from PyTorch's generator on the CPU, so a seed gives the same on every device.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torchaudio
from torch import Tensor, nn
from torch.nn import functional

from streamer.events import DEFAULT_NAMES
from streamer.model.nets.inputs import Inputs
from streamer.training.recipe import Augment


def gaps(inputs: Inputs, chance: float, solo: float = 0.0) -> dict[str, Tensor]:
    """Dropout of sensors: a share ``solo`` of windows keeps one; in the rest, each is hidden with ``chance``.

    A window that would be left with no sensor keeps all.

    Returns:
        Sensor -> which windows show it, bool [B].
    """
    names = [name for name in (*DEFAULT_NAMES, *(inputs.more or {})) if inputs.mask(name) is not None]
    windows = len(inputs.has(names[0]))
    keep_BM = torch.rand(windows, len(names)) >= chance
    there_BM = torch.stack([inputs.has(name) for name in names], dim=1)
    one_B = torch.rand(windows, len(names)).masked_fill(~there_BM, -1.0).argmax(1)
    alone_BM = functional.one_hot(one_B, len(names)).bool()
    keep_BM = torch.where(torch.rand(windows, 1) < solo, alone_BM, keep_BM)
    keep_BM |= ~(keep_BM & there_BM).any(1, keepdim=True)
    return dict(zip(names, keep_BM.unbind(1), strict=True))


def hide(inputs: Inputs, chance: float, solo: float = 0.0) -> Inputs:
    """The windows with randomly drawn :func:`gaps`."""
    return inputs.shown_in(gaps(inputs, chance, solo))


def vary(inputs: Inputs, augment: Augment) -> Inputs:
    """A batch with all variations that apply to its tensors; for mel bands see :func:`band_masks`."""
    if inputs.image_BFCHW is not None:
        inputs = inputs._replace(image_BFCHW=vary_images(inputs.image_BFCHW, augment))
    if inputs.audio_mask_BS is not None and augment.audio_time_mask:
        masked_BS = _spans(len(inputs.audio_mask_BS), inputs.audio_mask_BS.shape[1], augment.audio_time_mask)
        inputs = inputs._replace(audio_mask_BS=_keep_something(inputs.audio_mask_BS & ~masked_BS, inputs.audio_mask_BS))
    if inputs.text_mask_BT is not None and augment.text_drop:
        kept_BT = inputs.text_mask_BT & (torch.rand(inputs.text_mask_BT.shape) >= augment.text_drop)
        inputs = inputs._replace(text_mask_BT=_keep_something(kept_BT, inputs.text_mask_BT))
    if inputs.more is not None:
        inputs = inputs._replace(more={name: vary(part, augment) for name, part in inputs.more.items()})
    return inputs


def vary_images(image_BFCHW: Tensor, augment: Augment) -> Tensor:
    """Crop, mirror and recolour, all frames of a window in the same way.

    Returns:
        uint8, of the same shape.
    """
    if augment.image_crop < 1.0 or augment.image_flip:
        image_BFCHW = _moved(image_BFCHW, augment)
    if augment.image_jitter:
        image_BFCHW = _recoloured(image_BFCHW, augment.image_jitter)
    return image_BFCHW


def _moved(image_BFCHW: Tensor, augment: Augment) -> Tensor:
    count, frames, channels, rows, columns = image_BFCHW.shape
    side_B = torch.empty(count).uniform_(augment.image_crop, 1.0).sqrt()  # side of a crop with that share of the area
    mirror_B = torch.where(torch.rand(count) < 0.5 * augment.image_flip, -1.0, 1.0)
    shift_B2 = (torch.rand(count, 2) * 2 - 1) * (1 - side_B)[:, None]
    affine_B23 = torch.zeros(count, 2, 3)
    affine_B23[:, 0, 0], affine_B23[:, 1, 1], affine_B23[:, :, 2] = side_B * mirror_B, side_B, shift_B2
    flat_BCHW = image_BFCHW.reshape(count, frames * channels, rows, columns).float()
    grid_BHW2 = functional.affine_grid(affine_B23, [*flat_BCHW.shape], align_corners=False)
    moved_BCHW = functional.grid_sample(flat_BCHW, grid_BHW2, padding_mode="border", align_corners=False)
    return moved_BCHW.round().to(torch.uint8).view_as(image_BFCHW)


def _recoloured(image_BFCHW: Tensor, most: float) -> Tensor:
    brightness, contrast, saturation = (1 + most * (torch.rand(3, len(image_BFCHW), 1, 1, 1, 1) * 2 - 1)).unbind(0)
    pixels_BFCHW = image_BFCHW.float() * brightness
    middle_B1 = pixels_BFCHW.mean((1, 2, 3, 4), keepdim=True)
    pixels_BFCHW = middle_B1 + (pixels_BFCHW - middle_B1) * contrast
    gray_BF1HW = pixels_BFCHW.mean(2, keepdim=True)
    pixels_BFCHW = gray_BF1HW + (pixels_BFCHW - gray_BF1HW) * saturation
    return pixels_BFCHW.clamp(0, 255).round().to(torch.uint8)


def _spans(rows: int, length: int, most: float) -> Tensor:
    """One piece of each row, of a random length up to a share of the row, at a random place.

    Returns:
        bool [rows, length].
    """
    long_R1 = (torch.rand(rows, 1) * most * length).round()
    begin_R1 = (torch.rand(rows, 1) * (length - long_R1 + 1)).floor()
    at_L = torch.arange(length)
    return (at_L >= begin_R1) & (at_L < begin_R1 + long_R1)


def _keep_something(kept_BX: Tensor, before_BX: Tensor) -> Tensor:
    """Undo the masking of rows that it would hide completely: it may vary a sensor's content but not remove it."""
    return torch.where(kept_BX.any(1, keepdim=True), kept_BX, before_BX)


@contextmanager
def band_masks(module: nn.Module, most: float) -> Iterator[None]:
    """Silence one piece of the mel bands of each window while the module trains (SpecAugment, Park et al. 2019).

    Args:
        module: Affected is every ``torchaudio.transforms.MelScale`` in it.
        most: Up to this share of the bands.
    """

    def silence(scale: nn.Module, _: object, mel_BMT: Tensor) -> Tensor:
        if not scale.training:
            return mel_BMT
        silent_BM = _spans(len(mel_BMT), mel_BMT.shape[-2], most).to(mel_BMT.device)
        return mel_BMT.masked_fill(silent_BM[:, :, None], 0.0)

    scales = [part for part in module.modules() if isinstance(part, torchaudio.transforms.MelScale)]
    hooks = [scale.register_forward_hook(silence) for scale in scales if most]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
