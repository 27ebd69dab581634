"""Every fusion that a model.toml can name learns from any subset of the modalities, and respects masks."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from streamer.model import Inputs, repository
from streamer.model.nets.architecture import KINDS
from tests import small_nets

FUSIONS = tuple(KINDS["fusion"])
SUBSETS = [set(chosen) for count in range(5) for chosen in itertools.combinations(small_nets.MODALITIES, count)]
ENCODERS: dict[str, Any] = {"audio": "cnn", "text": "embedding"}  # the fastest
every_fusion = pytest.mark.parametrize("fusion", FUSIONS)


def showing(inputs: Inputs, names: set[str]) -> Inputs:
    for name in set(small_nets.MODALITIES) - names:
        inputs = inputs.without(name)
    return inputs


@every_fusion
def test_it_learns_from_all_and_then_knows_by_each_alone(fusion: str) -> None:
    module = small_nets.model(fusion=fusion, **ENCODERS)
    small_nets.train(module, small_nets.cross_entropy, steps=60, solo=True)
    inputs, label_B = small_nets.windows(32, seed=2)
    for names in SUBSETS[1:]:
        with torch.inference_mode():
            right_B = module(showing(inputs, names)).logits["action"].argmax(1) == label_B
        assert right_B.float().mean() >= 0.9, names


@every_fusion
def test_every_subset_has_a_finite_answer_of_its_own(fusion: str) -> None:
    module = small_nets.model(fusion=fusion, **ENCODERS)
    inputs = small_nets.windows(3)[0]
    told = [small_nets.answers(module, showing(inputs, names)) for names in SUBSETS]
    assert all(torch.isfinite(one).all() for one in told)
    assert all(not torch.allclose(one, other, atol=1e-6) for one, other in itertools.combinations(told, 2))
    nothing = told[0]  # the same for all windows but for the last bit: kernels may sum rows of a batch differently
    assert torch.allclose(nothing, nothing[:1].expand_as(nothing), rtol=0, atol=1e-6)


@every_fusion
def test_what_a_mask_hides_cannot_change_answer_or_gradient(fusion: str) -> None:
    module = small_nets.model(fusion=fusion, **ENCODERS)
    gappy = small_nets.with_gaps(small_nets.windows(6)[0])
    told = small_nets.answers(module, gappy)
    assert torch.equal(told, small_nets.answers(module, small_nets.scrambled(gappy)))
    gradients = []
    for inputs in (gappy, small_nets.scrambled(gappy)):
        module.zero_grad()
        module(inputs).logits["action"].sum().backward()
        gradients.append([p.grad.clone() for p in module.parameters() if p.grad is not None])
    assert gradients[0]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


@every_fusion
def test_windows_of_a_batch_do_not_touch_one_another(fusion: str) -> None:
    module = small_nets.model(fusion=fusion, **ENCODERS)
    inputs, order = small_nets.with_gaps(small_nets.windows(6)[0]), torch.tensor([4, 2, 0, 5, 3, 1])
    together = small_nets.answers(module, inputs)
    assert torch.allclose(small_nets.answers(module, small_nets.rows(inputs, order)), together[order], atol=1e-5)
    assert torch.allclose(small_nets.answers(module, small_nets.rows(inputs, slice(2, 3))), together[2], atol=1e-5)


@every_fusion
def test_weights_that_were_saved_and_loaded_answer_the_same(fusion: str, tmp_path: Path) -> None:
    module = small_nets.model(fusion=fusion, **ENCODERS)
    small_nets.train(module, small_nets.cross_entropy, steps=2)
    save_file(module.state_dict(), tmp_path / "w.safetensors")
    again, inputs = small_nets.model(fusion=fusion, **ENCODERS), small_nets.windows(4)[0]
    assert not torch.allclose(small_nets.answers(again, inputs), small_nets.answers(module, inputs), atol=1e-5)
    again.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert torch.equal(small_nets.answers(again, inputs), small_nets.answers(module, inputs))


def test_modalities_of_a_bottleneck_exchange_through_its_tokens_only() -> None:
    module = small_nets.model(("image", "text"), fusion={"name": "bottleneck", "layers": 2, "tokens": 3})
    tokens = [torch.randn(1, 2, 32), torch.randn(1, 4, 32)]
    masks = [torch.ones(1, part.shape[1], dtype=torch.bool) for part in tokens]
    seen: list[int] = []
    layers: Any = module.fusion.layers
    for blocks in layers:
        for block in blocks:
            block.attention.register_forward_hook(lambda _, given, __: seen.append(given[0].shape[1]))
    module.fusion(tokens, masks)
    assert seen == [3 + 2, 3 + 4] * 2


def driving_inputs() -> Inputs:
    random = torch.Generator().manual_seed(5)
    return Inputs(
        image_BFCHW=torch.randint(0, 256, (3, 2, 3, 90, 160), dtype=torch.uint8, generator=random),
        image_mask_BF=torch.tensor([[True, True], [True, False], [False, False]]),
        audio_BS=(torch.rand(3, 16000, generator=random) - 0.5) * 0.2,
        audio_mask_BS=torch.tensor([[True], [False], [True]]).expand(3, 16000),
        text_BT=torch.randint(0, 300, (3, 6), generator=random),
        text_mask_BT=torch.tensor([[True] * 6, [True] * 3 + [False] * 3, [False] * 6]),
        text_overlap_BT=torch.ones(3, 6),
        telemetry_BCT=torch.randn(3, 3, 20, generator=random) * 5,
        telemetry_mask_BCT=torch.tensor([[True], [True], [False]])[..., None].expand(3, 3, 20),
    )


def test_the_driving_model_answers_as_when_it_was_trained() -> None:
    """Users' weights keep giving the same answers when the code changes."""
    model = repository.read(Path("models/driving"))
    assert model.version == "1-c1847de2"
    with torch.inference_mode():
        outputs = model.module(driving_inputs())
    action_BL = torch.tensor(
        [
            [1.658985, -6.092100, -3.361264, 2.483550, 6.529006, -1.489350],
            [3.013037, -2.385170, 2.719648, -4.705662, 0.071838, -2.373713],
            [-0.576393, -2.972994, -1.245949, 1.918247, 2.878891, 2.464896],
        ]
    )
    embedding_BD = torch.tensor(
        [
            [-0.079251, -0.137337, 0.010473, -0.025393],
            [-0.067216, -0.033804, 0.024234, 0.042176],
            [0.060115, 0.027414, -0.050461, -0.080368],
        ]
    )
    assert torch.allclose(outputs.logits["action"], action_BL, atol=1e-4)
    assert torch.allclose(outputs.embedding_BD[:, :4], embedding_BD, atol=1e-5)
