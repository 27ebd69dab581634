"""Losses: hand-computed values, missing labels, the common embedding space."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from streamer.errors import UsageError
from streamer.model import Inputs
from streamer.model.spec import Output
from streamer.training.losses import Contrast, Probes, same_content, task_loss
from streamer.training.targets import labelled, targets_of

OUTPUTS = {
    "action": Output(("go", "stop")),
    "signs": Output(("rain", "night", "fog"), kind="tags"),
    "speed": Output(kind="number", unit="m/s"),
}
LOGITS = {
    "action": torch.tensor([[2.0, 0.0], [0.0, 0.0]]),
    "signs": torch.zeros(2, 3),
    "speed": torch.tensor([[13.0], [0.0]]),
}


def loss_of(*rows: dict[str, object]) -> float:
    targets = targets_of(rows, OUTPUTS)  # type: ignore[arg-type]
    return task_loss(LOGITS, targets, OUTPUTS, {"speed": 2.0}).item()


def test_each_kind_of_head_has_its_loss_and_they_add_up() -> None:
    classes = math.log(1 + math.exp(-2))
    tags = math.log(2)
    number = 1.5 - 0.5  # Huber of (13 - 10) / 2 deviations
    row = {"action": "go", "signs": ("fog",), "speed": 10.0}
    assert loss_of({"action": "go"}, {}) == pytest.approx(classes, abs=1e-5)
    assert loss_of({"signs": ("fog",)}, {}) == pytest.approx(tags, abs=1e-5)
    assert loss_of({"speed": 10.0}, {}) == pytest.approx(number, abs=1e-5)
    assert loss_of(row, {}) == pytest.approx(classes + tags + number, abs=1e-5)


def test_a_label_that_is_missing_neither_adds_to_the_loss_nor_thins_it() -> None:
    assert loss_of({}, {}) == 0
    both = loss_of({"action": "go"}, {"action": "stop"})
    assert both == pytest.approx((math.log(1 + math.exp(-2)) + math.log(2)) / 2, abs=1e-5)


def test_a_missing_label_sends_no_gradient_and_no_nan() -> None:
    logits = {name: value.clone().requires_grad_() for name, value in LOGITS.items()}
    targets = targets_of([{}, {"signs": ()}], OUTPUTS)
    task_loss(logits, targets, OUTPUTS, {}).backward()  # type: ignore[no-untyped-call]  # torch has no types here
    assert all(torch.isfinite(value.grad).all() for value in logits.values() if value.grad is not None)
    assert logits["signs"].grad is not None
    assert logits["signs"].grad[0].abs().sum() == 0
    assert logits["signs"].grad[1].abs().sum() > 0
    assert not labelled(targets["speed"]).any()


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"action": "fly"}, "output 'action' has no label 'fly'; it has: go, stop"),
        ({"action": 3.0}, "output 'action' has no label 3.0"),
        ({"signs": ("fog", "snow")}, "output 'signs' has no tag 'snow'; it has: rain, night, fog"),
        ({"signs": "fog"}, "output 'signs' has no tag 'fog'"),
        ({"speed": "fast"}, "output 'speed' is a number, not 'fast'"),
    ],
)
def test_a_label_that_the_model_does_not_have_is_named(labels: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match="^" + said.replace("(", r"\(")):
        targets_of([labels], OUTPUTS)  # type: ignore[list-item]


NONE_ALIKE = torch.eye(4, dtype=torch.bool)
HERE, NOWHERE = torch.ones(4, dtype=torch.bool), torch.zeros(4, dtype=torch.bool)


def test_contrast_is_low_where_vectors_of_a_window_agree_and_high_where_they_are_swapped() -> None:
    vectors, contrast = torch.eye(4), Contrast()
    assert contrast({"image": (vectors, HERE)}, vectors, NONE_ALIKE) < 0.01
    assert contrast({"image": (vectors.flip(0), HERE)}, vectors, NONE_ALIKE) > 5


def test_contrast_compares_modalities_with_one_another_too() -> None:
    one = torch.eye(4, requires_grad=True)
    Contrast()(
        {"image": (one, HERE), "text": (torch.eye(4).flip(0), HERE)}, torch.ones(4, 4) / 2, NONE_ALIKE
    ).backward()
    assert one.grad is not None
    assert (one.grad.diagonal() > 0).all()  # away from the text of another window


def test_contrast_ignores_absent_modalities_and_windows_of_the_same_content() -> None:
    vectors, contrast = torch.eye(4), Contrast()
    assert contrast({"image": (vectors, NOWHERE)}, vectors, NONE_ALIKE) == 0
    same = torch.ones(4, 4, dtype=torch.bool)
    assert contrast({"image": (vectors.flip(0), HERE)}, vectors, same).item() == pytest.approx(0, abs=1e-6)


def test_the_temperature_is_learned_and_stays_above_its_least() -> None:
    contrast = Contrast()
    contrast({"image": (torch.eye(4).flip(0), HERE)}, torch.eye(4), NONE_ALIKE).backward()
    assert contrast.log_temperature.grad is not None
    assert contrast.log_temperature.grad < 0  # warmer where the space is wrong
    with torch.no_grad():
        contrast.log_temperature.fill_(-100.0)
    assert torch.isfinite(contrast({"image": (torch.eye(4).flip(0), HERE)}, torch.eye(4), NONE_ALIKE))


def test_probes_teach_each_modality_by_itself_where_it_is_there() -> None:
    torch.manual_seed(0)
    vectors = {name: torch.eye(4).requires_grad_() for name in ("image", "audio")}
    probes = Probes({"image": 4, "audio": 4}, OUTPUTS, {"speed": (10.0, 2.0)})
    with torch.no_grad():
        for weight in probes.parameters():
            weight.zero_()
    parts = {"image": (vectors["image"], HERE), "audio": (vectors["audio"], NOWHERE)}
    targets = targets_of([{"action": "go", "speed": 14.0}, *[{}] * 3], OUTPUTS)
    loss = probes(parts, targets)
    # image: even odds, and 2 deviations off the mean; audio: nothing to learn from
    assert loss.item() == pytest.approx((math.log(2) + 1.5) / 2, abs=1e-5)
    loss.backward()
    layers: Any = probes.probes
    assert layers["image"]["action"].weight.grad.abs().sum() > 0
    assert layers["audio"]["action"].weight.grad.abs().sum() == 0


def test_windows_are_the_same_by_their_words_and_without_these_by_the_labels_that_both_have() -> None:
    rows = [
        {"action": "go"},
        {"action": "go", "signs": ("fog",)},
        {"action": "go", "signs": ()},
        {},
        {"action": "stop"},
        {"action": "go"},
    ]
    words = torch.tensor([[0, 0], [1, 2], [1, 2], [1, 3], [0, 0], [7, 9]])
    mask = torch.tensor([[False] * 2, [True] * 2, [True] * 2, [True] * 2, [False] * 2, [True, False]])
    targets = targets_of(rows, OUTPUTS)  # type: ignore[arg-type]
    same = same_content(targets, OUTPUTS, Inputs(text_BT=words, text_mask_BT=mask))
    pairs = {(0, 1), (0, 2), (0, 5), (1, 2)}  # of 1 and 5 the labels are the same, and the words are not
    for one in range(6):
        for other in range(one + 1, 6):
            assert bool(same[one, other]) == bool(same[other, one]) == ((one, other) in pairs), (one, other)


def test_windows_without_words_are_not_the_same() -> None:
    nothing = Inputs(text_BT=torch.zeros(2, 1, dtype=torch.int64), text_mask_BT=torch.zeros(2, 1, dtype=torch.bool))
    assert not same_content({}, {}, nothing).any()
