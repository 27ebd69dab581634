"""The fused model: masked content has no effect, and windows of a batch do not affect one another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from streamer.model import Inputs
from streamer.model.nets.architecture import Architecture
from streamer.model.nets.build import Data, build
from streamer.model.nets.encoders.text import Vocabulary
from streamer.model.nets.heads import Head
from streamer.model.nets.model import FusedModel
from tests.small_nets import there

WORDS = Vocabulary(tuple(f"word{n}" for n in range(50)))
DATA = Data(image_size=(36, 64), audio_rate_hz=8000, vocabulary=WORDS, max_tokens=7, telemetry_channels=3)
HEADS = {"action": Head(6), "weather": Head(2), "speed": Head(1, is_number=True)}
MODALITIES = ("image", "audio", "text", "telemetry")


@pytest.fixture(scope="module")
def model() -> FusedModel:
    torch.manual_seed(0)
    return build(Architecture(), DATA, HEADS, Path(), pretrained=True).eval()


def batch(windows: int = 4, seed: int = 0) -> Inputs:
    random = torch.Generator().manual_seed(seed)

    def mask(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random) < 0.7

    return Inputs(
        image_BFCHW=torch.randint(0, 256, (windows, 2, 3, 36, 64), dtype=torch.uint8, generator=random),
        image_mask_BF=mask(windows, 2),
        audio_BS=torch.rand(windows, 4000, generator=random) - 0.5,
        audio_mask_BS=mask(windows, 40).repeat_interleave(100, dim=1),
        text_BT=torch.randint(0, 50, (windows, 7), generator=random),
        text_mask_BT=mask(windows, 7),
        text_overlap_BT=torch.ones(windows, 7),
        telemetry_BCT=torch.randn(windows, 3, 20, generator=random),
        telemetry_mask_BCT=mask(windows, 3, 20),
    )


def answers(model: FusedModel, inputs: Inputs) -> Tensor:
    with torch.inference_mode():
        outputs = model(inputs)
    return torch.cat([*outputs.logits.values(), outputs.embedding_BD], dim=1)


def other_content_under_the_mask(inputs: Inputs) -> Inputs:
    other = batch(len(there(inputs.image_BFCHW)), seed=99)
    nan = torch.tensor(float("nan"))

    def hidden(mask: Tensor | None, content: Tensor | None, instead: Tensor | None) -> Tensor:
        mask, content = there(mask), there(content)
        return torch.where(mask.view(*mask.shape, *[1] * (content.ndim - mask.ndim)), content, there(instead))

    return inputs._replace(
        image_BFCHW=hidden(inputs.image_mask_BF, inputs.image_BFCHW, other.image_BFCHW),
        audio_BS=hidden(inputs.audio_mask_BS, inputs.audio_BS, nan),
        text_BT=hidden(inputs.text_mask_BT, inputs.text_BT, other.text_BT),
        text_overlap_BT=hidden(inputs.text_mask_BT, inputs.text_overlap_BT, nan),
        telemetry_BCT=hidden(inputs.telemetry_mask_BCT, inputs.telemetry_BCT, nan),
    )


def test_content_under_a_mask_cannot_change_the_output_not_even_nan(model: FusedModel) -> None:
    inputs = batch()
    assert torch.equal(answers(model, inputs), answers(model, other_content_under_the_mask(inputs)))


@pytest.mark.parametrize("modality", MODALITIES)
def test_content_of_a_missing_modality_cannot_change_the_output(model: FusedModel, modality: str) -> None:
    inputs = batch().without(modality)
    other = {
        name: part for name, part in batch(seed=7)._asdict().items() if name.startswith(modality) and "mask" not in name
    }
    assert torch.equal(answers(model, inputs), answers(model, inputs._replace(**other)))


@pytest.mark.parametrize("modality", MODALITIES)
def test_every_modality_matters_where_it_is_present(model: FusedModel, modality: str) -> None:
    assert not torch.allclose(answers(model, batch()), answers(model, batch().without(modality)), atol=1e-5)


def test_a_window_without_any_modality_has_a_finite_answer(model: FusedModel) -> None:
    inputs = batch()
    for modality in MODALITIES:
        inputs = inputs.without(modality)
    result = answers(model, inputs)
    assert torch.isfinite(result).all()
    assert torch.allclose(result, result[:1].expand_as(result))


def test_the_order_of_a_batch_is_the_order_of_the_answers(model: FusedModel) -> None:
    inputs, order = batch(), torch.tensor([2, 0, 3, 1])
    shuffled = inputs.each(lambda part: part[order])
    assert torch.allclose(answers(model, shuffled), answers(model, inputs)[order], atol=1e-5)


def test_padding_the_text_changes_nothing(model: FusedModel) -> None:
    inputs = batch()
    pad = torch.nn.functional.pad
    padded = inputs._replace(
        text_BT=pad(there(inputs.text_BT), (0, 5)),
        text_mask_BT=pad(there(inputs.text_mask_BT), (0, 5)),
        text_overlap_BT=pad(there(inputs.text_overlap_BT), (0, 5)),
    )
    assert torch.allclose(answers(model, inputs), answers(model, padded), atol=1e-5)


def test_a_model_may_have_any_subset_of_the_modalities() -> None:
    text_only = build(Architecture(), Data(vocabulary=WORDS), HEADS, Path(), pretrained=True).eval()
    assert set(text_only(batch()).parts) == {"text"}


def test_weights_that_were_saved_and_loaded_answer_the_same(model: FusedModel, tmp_path: Path) -> None:
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    again = build(Architecture(), DATA, HEADS, Path(), pretrained=True).eval()
    assert not torch.allclose(answers(again, batch()), answers(model, batch()))
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(answers(again, batch()), answers(model, batch()))


def test_the_small_model_is_small(model: FusedModel) -> None:
    assert sum(weight.numel() for weight in model.parameters()) < 1_000_000
