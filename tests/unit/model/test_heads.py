"""Classes, tags and numbers: from the network to what is published, shown and compared."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.nn import functional

from streamer.errors import ModelError
from streamer.golden.compare import differences
from streamer.model import Outputs, repository
from streamer.model.nets.heads import Head
from streamer.model.nets.model import FusedModel
from streamer.model.predictor import ModelFault, Network, Predictor
from streamer.model.sample import Limits, Sample
from streamer.model.spec import read_spec
from streamer.result import Result, decision
from streamer.terminal import tables
from tests import small_nets

HEADS = {"action": Head(2), "sounds": Head(3), "distance": Head(1, is_number=True)}
TOML = """
name = "toy"
version = "1"
window_ms = 1000
[inputs.telemetry]
channels = ["speed", "angle"]
rate_hz = 20
[outputs.action]
labels = ["go", "stop"]
[outputs.sounds]
kind = "tags"
labels = ["horn", "siren", "rain"]
[outputs.distance]
kind = "number"
unit = "m"
[architecture]
size = "tiny"
"""


def targets(label_B: Tensor) -> tuple[Tensor, Tensor]:
    """Tags: the first is the label, the second its opposite, the third always true; the number: 900 m, or 1100 m."""
    stop_B = label_B.float()
    return torch.stack([stop_B, 1 - stop_B, torch.ones_like(stop_B)], dim=1), 900 + 200 * stop_B


def test_one_model_learns_classes_tags_and_a_number_together() -> None:
    module = small_nets.model(("telemetry",), heads=HEADS)
    _, label_B = small_nets.windows(64, seed=1)
    module.standardise_targets("distance", targets(label_B)[1])

    def loss_of(logits: dict[str, Tensor], label_B: Tensor) -> Tensor:
        tag_BL, value_B = targets(label_B)
        off_B = (logits["distance"][:, 0] - value_B) / 100
        tags = functional.binary_cross_entropy_with_logits(logits["sounds"], tag_BL)
        return small_nets.cross_entropy(logits, label_B) + tags + off_B.square().mean()

    small_nets.train(module, loss_of, steps=60)
    inputs, label_B = small_nets.windows(64, seed=2)
    tag_BL, value_B = targets(label_B)
    with torch.inference_mode():
        logits = module(inputs).logits
    assert (logits["action"].argmax(1) == label_B).float().mean() >= 0.95
    assert ((logits["sounds"] > 0) == tag_BL.bool()).float().mean() >= 0.95
    assert (logits["distance"][:, 0] - value_B).abs().mean() < 30  # of values that are 100 away from their mean


def test_a_number_begins_at_the_mean_of_its_targets_in_their_unit() -> None:
    module = small_nets.model(("telemetry",), heads=HEADS)
    module.standardise_targets("distance", [900.0, 1100.0, 1000.0])
    head: Any = module.heads["distance"]
    assert (float(head.mean), float(head.deviation)) == pytest.approx((1000, math.sqrt(20000 / 3)))
    value_B = module(small_nets.windows(32)[0]).logits["distance"]
    assert value_B.shape == (32, 1)
    assert abs(value_B.mean().item() - 1000) < 200
    assert "heads.distance.mean" in module.state_dict()


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("action", [1.0], "no number"),
        ("distance", [], "at least one"),
        ("distance", [float("nan")], "finite"),
    ],
)
def test_targets_that_are_none_are_refused(name: str, values: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small_nets.model(("telemetry",), heads=HEADS).standardise_targets(name, values)


def test_targets_that_are_all_the_same_do_not_divide_by_zero() -> None:
    module = small_nets.model(("telemetry",), heads=HEADS)
    module.standardise_targets("distance", [5.0, 5.0])
    head: Any = module.heads["distance"]
    assert float(head.deviation) == 1.0


class Says(nn.Module):
    """Gives the same answer for every window."""

    def __init__(self, **logits: list[float]) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, inputs: Any) -> Outputs:
        count = len(inputs.telemetry_BCT)
        logits = {name: torch.tensor([row] * count) for name, row in self.logits.items()}
        return Outputs(logits, torch.ones(count, 4) / 2, {})


def predictor(folder: Path, module: nn.Module) -> Predictor:
    (folder / "model.toml").write_text(TOML)
    model = repository.Model(read_spec(folder), module, None, "1-00000000")
    return Network(model, torch.device("cpu"), Limits())


SAMPLE = Sample(
    present=(False, False, False, True),
    coverage=(0.0, 0.0, 0.0, 1.0),
    telemetry_CT=np.ones((2, 20), np.float32),
    telemetry_mask_CT=np.ones((2, 20), np.bool_),
)


def test_a_prediction_says_of_each_kind_what_it_is(tmp_path: Path) -> None:
    says = Says(action=[0.0, math.log(3)], sounds=[5.0, 0.0, -5.0], distance=[23.456789])
    outputs = predictor(tmp_path, says).predict([SAMPLE])[0].outputs
    assert outputs["action"] == {"label": "stop", "score": 0.75, "scores": {"go": 0.25, "stop": 0.75}}
    assert outputs["sounds"] == {"labels": ["horn", "siren"], "scores": {"horn": 0.9933, "siren": 0.5, "rain": 0.0067}}
    assert outputs["distance"] == {"value": 23.4568, "unit": "m"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"sounds": [1.0, 2.0]},
        {"distance": [1.0, 2.0]},
        {"distance": [float("inf")]},
        {"sounds": [float("nan")] * 3},
    ],
)
def test_an_answer_of_another_shape_or_that_is_not_finite_is_a_fault(wrong: dict[str, Any], tmp_path: Path) -> None:
    says = Says(**{"action": [0.0, 1.0], "sounds": [0.0] * 3, "distance": [1.0], **wrong})
    with pytest.raises(ModelFault, match=next(iter(wrong))):
        predictor(tmp_path, says).predict([SAMPLE])


def test_a_model_of_three_kinds_is_written_and_read_whole(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(TOML)
    module = repository.new_module(read_spec(tmp_path), tmp_path, None)
    assert isinstance(module, FusedModel)
    module.standardise_targets("distance", [900.0, 1100.0])
    repository.write(tmp_path, module, None, {})
    loaded = Predictor.load(tmp_path, device="cpu")
    first, second = loaded.predict([SAMPLE, SAMPLE])
    assert first.outputs == second.outputs
    assert set(first.outputs) == {"action", "sounds", "distance"}
    assert abs(first.outputs["distance"]["value"] - 1000) < 500


# ---- what is published


def result(outputs: dict[str, Any]) -> Result:
    return Result(
        session="car",
        start_us=0,
        end_us=1_000_000,
        closed_by="complete",
        present=("telemetry",),
        coverage={},
        members={},
        outputs=outputs,
        embedding=b"",
        model="toy",
        version="1",
        status="ok",
        latencies_us={},
    )


@pytest.mark.parametrize(
    ("output", "said", "score"),
    [
        ({"label": "stop", "score": 0.75, "scores": {}}, "stop", 0.75),
        ({"labels": ["horn", "rain"], "scores": {}}, "horn, rain", None),
        ({"labels": [], "scores": {}}, "–", None),
        ({"value": 23.456789, "unit": "m"}, "23.457 m", None),
        ({"value": -3.0, "unit": ""}, "-3", None),
    ],
)
def test_the_watcher_shows_every_kind(output: dict[str, Any], said: str, score: float | None) -> None:
    shown = result({"first": output})
    assert decision(shown) == (said, score)
    console = Console(file=(told := io.StringIO()), width=80, color_system=None)
    console.print(tables.listing([shown]))
    assert said in told.getvalue()


def tags(horn: float, siren: float) -> dict[str, Any]:
    scores = {"horn": horn, "siren": siren}
    return {"first": {"labels": [name for name, score in scores.items() if score >= 0.5], "scores": scores}}


def number(value: float, unit: str = "m") -> dict[str, Any]:
    return {"first": {"value": value, "unit": unit}}


@pytest.mark.parametrize(
    ("before", "now", "kinds"),
    [
        (tags(0.9, 0.1), tags(0.9, 0.1), []),
        (tags(0.9, 0.1), tags(0.9004, 0.1), []),
        (tags(0.9, 0.1), tags(0.8, 0.1), ["score"]),
        (tags(0.9, 0.1), tags(0.9, 0.6), ["label", "score"]),
        (number(5.0), number(5.0), []),
        (number(5.0), number(5.004), []),
        (number(5.0), number(5.006), ["value"]),
        (number(0.0), number(0.0009), []),
        (number(0.0), number(0.0011), ["value"]),
        (number(5.0), number(5.0, "km"), ["unit"]),
        (number(5.0), tags(0.9, 0.1), ["label", "outputs", "unit", "value"]),
    ],
)
def test_results_of_every_kind_are_compared(before: dict[str, Any], now: dict[str, Any], kinds: list[str]) -> None:
    assert sorted(found.kind for found in differences(result(before), result(now), tolerance=1e-3)) == kinds


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ('kind = "number"\nlabels = ["a"]', "is a number and has no labels"),
        ('kind = "tags"', "needs 1 or more"),
        ('kind = "classes"\nlabels = ["a"]', "needs 2 or more"),
        ('labels = ["a", "b"]\nunit = "m"', "is for outputs of kind number"),
        ('kind = "rank"', "Invalid enum value 'rank'"),
    ],
)
def test_a_head_that_makes_no_sense_is_one_line(head: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(TOML.replace("[architecture]", f"[outputs.odd]\n{head}\n[architecture]"))
    with pytest.raises(ModelError, match=said):
        read_spec(tmp_path)
