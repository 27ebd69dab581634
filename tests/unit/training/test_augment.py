"""Varying training batches: only what may change does change."""

from __future__ import annotations

import pytest
import torch
import torchaudio
from torch import Tensor

from streamer.model import Inputs
from streamer.model.nets.encoders.audio import AudioCrnn
from streamer.training.augment import band_masks, vary, vary_images
from streamer.training.recipe import Augment


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def picture() -> Tensor:
    """Darker to the left, in two frames of each of eight windows."""
    return torch.arange(0, 250, 25, dtype=torch.uint8).expand(8, 2, 3, 6, 10).clone()


def test_nothing_is_varied_unless_asked_for() -> None:
    inputs = Inputs(image_BFCHW=picture(), audio_mask_BS=torch.ones(8, 100, dtype=torch.bool))
    varied = vary(inputs, Augment())
    assert varied.image_BFCHW is not None
    assert torch.equal(varied.image_BFCHW, picture())
    assert varied.audio_mask_BS is not None
    assert varied.audio_mask_BS.all()


def test_flipping_mirrors_some_windows_and_both_frames_of_each() -> None:
    flipped = vary_images(picture(), Augment(image_flip=True))
    mirrored = [torch.equal(window, picture()[0].flip(-1)) for window in flipped]
    assert all(torch.equal(window[0], window[1]) for window in flipped)
    assert any(mirrored)
    assert all(m or torch.equal(window, picture()[0]) for m, window in zip(mirrored, flipped, strict=True))


def test_crops_are_enlarged_pieces_and_no_mirror_images() -> None:
    cropped = vary_images(picture(), Augment(image_crop=0.3)).int()
    assert cropped.shape == picture().shape
    assert (cropped.diff(dim=-1) >= 0).all()
    assert (cropped[..., -1] - cropped[..., 0] < 225).any()
    assert all(torch.equal(window[0], window[1]) for window in cropped)


def test_jitter_changes_colours_within_their_range() -> None:
    jittered = vary_images(picture(), Augment(image_jitter=0.4))
    assert not torch.equal(jittered, picture())
    assert jittered.dtype == torch.uint8
    assert len({window.float().mean().item() for window in jittered}) > 4


def test_time_masks_take_one_piece_of_limited_length_and_never_all() -> None:
    heard = torch.ones(64, 1000, dtype=torch.bool)
    heard[0] = False
    heard[0, 500:510] = True  # little was heard, so it is not masked completely
    inputs = Inputs(audio_BS=torch.zeros(64, 1000), audio_mask_BS=heard)
    masked = vary(inputs, Augment(audio_time_mask=0.3)).audio_mask_BS
    assert masked is not None
    assert (~masked[1:]).sum(1).max() <= 300
    assert (~masked[1:]).sum(1).float().mean() > 100
    assert (masked[1:].int().diff(dim=1) == -1).sum(1).max() <= 1
    assert masked.any(1).all()


def test_text_drop_masks_tokens_by_chance_but_leaves_one() -> None:
    mask = torch.ones(200, 5, dtype=torch.bool)
    mask[:100, 1:] = False
    kept = vary(Inputs(text_BT=torch.ones(200, 5), text_mask_BT=mask), Augment(text_drop=0.5)).text_mask_BT
    assert kept is not None
    assert kept[:100, 0].all()
    assert 0.4 < kept[100:].float().mean() < 0.65
    assert not (kept & ~mask).any()


def test_mel_bands_are_silenced_while_training_only() -> None:
    encoder = AudioCrnn(4000, 16, (4, 8), 8)
    scale = next(part for part in encoder.modules() if isinstance(part, torchaudio.transforms.MelScale))
    power = torch.ones(32, 65, 10)
    with band_masks(encoder, 0.5):
        heard = scale(power)
        silent = (heard == 0).all(-1).sum(1)  # bands of each window
        assert silent.max() <= 8
        assert len(silent.unique()) > 2
        encoder.eval()
        assert (scale(power) == scale(power)[0]).all()
        encoder.train()
    assert (scale(power) == scale(power)[0]).all()
