"""The training loop: recipes, interruptions, several processes, little data, frozen encoders."""

from __future__ import annotations

import importlib
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from torch import nn

from streamer.errors import UsageError
from streamer.model.spec import ModelSpec
from streamer.training import checkpoint
from streamer.training.batches import few, in_order, shuffled
from streamer.training.checkpoint import CHECKPOINT_FILE
from streamer.training.dataset import Example
from streamer.training.fit import Fitted, Where, fit
from streamer.training.recipe import Augment, Recipe, read_recipe
from tests.toy import FEW, QUIET, SPEC, TRAINING, VALIDATION, example, fitted


def assert_same_weights(one: nn.Module, other: nn.Module) -> None:
    for (name, a), b in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_all_kinds_of_heads_are_learnt_though_labels_are_missing(tmp_path: Path) -> None:
    recipe = Recipe(epochs=8, batch=8, seed=1, drop=0.0, solo=0.0, contrast=0.0, patience=8, learning_rate=5e-3)
    data = [example(seed) for seed in range(96)]
    last = min(fit(tmp_path, SPEC, data, VALIDATION, recipe, QUIET).epochs, key=lambda epoch: epoch.validation_loss)
    assert last.scores["action"] == 1.0
    assert last.scores["signs"] > 0.9
    assert last.scores["speed"] < 12  # m/s; guessing the mean is off by 25


class Stopped(Exception):
    pass


class _StopsInEpoch2:
    """A data set that interrupts the second epoch half-way."""

    def __init__(self) -> None:
        self.reads = 0

    def __len__(self) -> int:
        return len(TRAINING)

    def __getitem__(self, index: int, /) -> Example:
        self.reads += 1
        if self.reads > 2.5 * len(TRAINING):  # the survey reads all once, an epoch too
            raise Stopped
        return TRAINING[index]


def test_a_run_that_was_interrupted_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    whole = fitted(tmp_path)
    with pytest.raises(Stopped):
        fit(tmp_path, SPEC, _StopsInEpoch2(), VALIDATION, FEW, QUIET, Where(run_dir=tmp_path))
    assert (tmp_path / CHECKPOINT_FILE).is_file()
    resumed = fitted(tmp_path, run_dir=tmp_path, resume=True)
    assert resumed.epochs == whole.epochs
    assert_same_weights(resumed.module, whole.module)


def test_resuming_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run was interrupted"):
        fitted(tmp_path, run_dir=tmp_path, resume=True)


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(tmp_path: Path) -> None:
    fitted(tmp_path, run_dir=tmp_path)
    with pytest.raises(UsageError, match=r"another recipe\.epochs: 2, now 4; train without"):
        fitted(tmp_path, msgspec.structs.replace(FEW, epochs=4), run_dir=tmp_path, resume=True)


@pytest.mark.parametrize("content", [b"", b"\x10" * 200, b"\x80\x04."])
def test_a_broken_checkpoint_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CHECKPOINT_FILE).write_bytes(content)
    with pytest.raises(UsageError, match="is no checkpoint"):
        checkpoint.load(tmp_path / CHECKPOINT_FILE, {})


def test_tensorboard_has_the_losses_of_each_epoch(tmp_path: Path) -> None:
    accumulator: Any = importlib.import_module("tensorboard.backend.event_processing.event_accumulator")

    epochs = fitted(tmp_path, run_dir=tmp_path).epochs
    log = accumulator.EventAccumulator(str(tmp_path))
    log.Reload()
    assert [event.value for event in log.Scalars("loss/validation")] == pytest.approx(
        [epoch.validation_loss for epoch in epochs]
    )


def test_accumulated_small_batches_descend_as_one_large_batch(tmp_path: Path) -> None:
    # no random choices, classes only: the mean over equal batches is the mean over all
    spec = msgspec.structs.replace(SPEC, outputs={"action": SPEC.outputs["action"]})
    data = [Example(e.sample, {"action": e.labels.get("action", "go")}) for e in TRAINING]
    plain = Recipe(epochs=1, batch=24, drop=0.0, solo=0.0, contrast=0.0)
    losses = []
    for recipe in (plain, msgspec.structs.replace(plain, batch=8, accumulate=3)):
        done = _without_dropout(tmp_path, spec, data, recipe)
        losses.append(done.epochs[0].validation_loss)
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def _without_dropout(folder: Path, spec: ModelSpec, data: list[Example], recipe: Recipe) -> Fitted:
    (folder / "model.py").write_text(MODEL)
    return fit(folder, spec, data, data, recipe, QUIET)


MODEL = """
import torch
from torch import nn
from streamer.model import Inputs, Outputs

class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.frozen = nn.Linear(10, 8)
        self.frozen.requires_grad_(False)
        self.words = nn.Embedding(1000, 8)
        self.heads = nn.ModuleDict({name: nn.Linear(16, output.size) for name, output in outputs.items()})

    def forward(self, inputs: Inputs) -> Outputs:
        telemetry = torch.where(inputs.telemetry_mask_BCT, inputs.telemetry_BCT / 100, 0.0).flatten(1)
        words = (self.words(inputs.text_BT) * inputs.text_mask_BT[..., None]).sum(1)
        x = torch.cat([self.frozen(telemetry), words], dim=1)
        return Outputs({name: head(x) for name, head in self.heads.items()}, nn.functional.normalize(x, dim=-1), {})

def build(spec):
    return Net(spec.outputs)
"""


def test_frozen_parameters_stay_as_they_were_and_a_model_of_ones_own_is_trained(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL)
    few_steps, more = (fitted(tmp_path, msgspec.structs.replace(FEW, epochs=n)).module for n in (1, 3))
    assert torch.equal(few_steps.state_dict()["frozen.weight"], more.state_dict()["frozen.weight"])
    assert not torch.equal(few_steps.state_dict()["words.weight"], more.state_dict()["words.weight"])


def test_a_model_that_is_frozen_altogether_is_refused(tmp_path: Path) -> None:
    frozen = MODEL.replace("return Net(spec.outputs)", "return Net(spec.outputs).requires_grad_(False)")
    (tmp_path / "model.py").write_text(frozen)
    with pytest.raises(UsageError, match="every parameter of the model is frozen"):
        fitted(tmp_path, msgspec.structs.replace(FEW, contrast=0.0))


def test_bfloat16_trains_on_a_cpu_too(tmp_path: Path) -> None:
    one = fitted(tmp_path, msgspec.structs.replace(FEW, precision="bfloat16"))
    assert np.isfinite(one.epochs[-1].training_loss)
    assert one.epochs != fitted(tmp_path).epochs
    assert {weight.dtype for weight in one.module.parameters()} == {torch.float32}


def test_workers_that_load_ahead_change_nothing(tmp_path: Path) -> None:
    one = msgspec.structs.replace(FEW, epochs=1)
    assert_same_weights(fitted(tmp_path, one).module, fitted(tmp_path, msgspec.structs.replace(one, workers=1)).module)


def test_an_epoch_shows_everything_once_in_an_order_of_its_seed() -> None:
    batches = shuffled(10, 4, seed=1)
    assert [len(batch) for batch in batches] == [4, 4, 2]
    assert sorted(chain(*batches)) == [*range(10)]
    assert batches == shuffled(10, 4, seed=1) != shuffled(10, 4, seed=2)


def test_processes_share_an_epoch_in_equal_parts() -> None:
    parts = [[*chain(*shuffled(10, 2, 1, rank, 4))] for rank in range(4)]
    assert {len(part) for part in parts} == {3}
    assert set(chain(*parts)) == set(range(10))
    assert sorted(chain(*(chain(*in_order(10, 2, rank, 4)) for rank in range(4)))) == [*range(10)]


def test_few_shots_take_so_many_examples_of_each_label() -> None:
    spec = msgspec.structs.replace(SPEC, outputs={"action": SPEC.outputs["action"]})
    data = [Example(e.sample, {"action": "stop" if n % 8 == 0 else "go"}) for n, e in enumerate(TRAINING)]
    chosen = few(data, spec, 3, seed=1)
    labels = [chosen[n].labels["action"] for n in range(len(chosen))]
    assert sorted(labels) == ["go"] * 3 + ["stop"] * 3
    with pytest.raises(UsageError, match="'stop' of output 'action' has 3 examples, shots = 4"):
        few(data, spec, 4, seed=1)


def test_shots_without_labels_are_refused() -> None:
    with pytest.raises(UsageError, match="no output of this model has labels"):
        few(TRAINING, msgspec.structs.replace(SPEC, outputs={"speed": SPEC.outputs["speed"]}), 1, seed=0)


def test_a_loss_that_is_not_finite_ends_the_run_with_advice(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not finite: lower the learning rate"):
        fitted(tmp_path, msgspec.structs.replace(FEW, learning_rate=1e30, weight_decay=0.0))


def test_examples_without_labels_teach_the_common_space_alone(tmp_path: Path) -> None:
    bare = [Example(e.sample, {}) for e in TRAINING]
    epochs = fit(tmp_path, SPEC, bare, bare, msgspec.structs.replace(FEW, epochs=4), QUIET).epochs
    assert epochs[-1].validation_loss < epochs[0].validation_loss


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one to validate with"):
        fit(tmp_path, SPEC, TRAINING, [], FEW, QUIET)


def test_the_folders_recipe_counts_and_what_is_asked_for_counts_more(tmp_path: Path) -> None:
    (tmp_path / "train.toml").write_text("epochs = 7\ndrop = 0.5\n[augment]\nimage_flip = true\n")
    recipe = read_recipe(tmp_path, epochs=2, batch=None)
    assert recipe == Recipe(epochs=2, drop=0.5, augment=Augment(image_flip=True))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("epoch = 7", "unknown field `epoch`"),
        ("epochs = 0", "epochs = 0 must be above 0"),
        ("drop = 1.5", "drop = 1.5 must be from 0 to below 1"),
        ("precision = 'float16'", "precision"),
        ("learning_rate = nan", "learning_rate = nan must be above 0"),
        ("[augment]\nimage_crop = 0.0", "image_crop = 0.0 must be above 0"),
        ("epochs = ", "train.toml"),
    ],
)
def test_a_wrong_recipe_is_refused_with_what_is_wrong(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "train.toml").write_text(content)
    with pytest.raises(UsageError, match=said):
        read_recipe(tmp_path)
