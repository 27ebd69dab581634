"""What a network knows of its limits: how sure it may be, and what its sensors have shown in training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from streamer.errors import ModelError
from streamer.model import Outputs, calibration, repository
from streamer.model.calibration import Calibration, Familiar, Temperature
from streamer.model.predictor import Network, Prediction, Predictor
from streamer.model.sample import Limits, Sample, only
from streamer.model.spec import read_spec
from streamer.result import Result, decision, strange

TOML = """
name = "toy"
version = "1"
window_ms = 1000
[inputs.text]
max_tokens = 4
[inputs.telemetry]
channels = ["speed"]
rate_hz = 20
[outputs.action]
labels = ["go", "stop"]
[outputs.distance]
kind = "number"
[unsure_below]
action = 0.7
"""
NEAR = Familiar(np.array([1.0, 0.0], np.float32), np.array([[2.0, 0.0], [0.0, 1.0]], np.float32), 4.0)
ALL = frozenset({"text", "telemetry"})
SAMPLE = Sample(
    present=(False, False, True, True),
    coverage=(0.0, 0.0, 1.0, 1.0),
    telemetry_CT=np.ones((1, 20), np.float32),
    telemetry_mask_CT=np.ones((1, 20), np.bool_),
)


class Says(nn.Module):
    """Always "stop", three times as probable as "go"; each window's telemetry has the same vector."""

    def __init__(self, vector_D: tuple[float, float]) -> None:
        super().__init__()
        self._vector_D = torch.tensor(vector_D)

    def forward(self, inputs: Any) -> Outputs:
        count = len(inputs.telemetry_BCT)
        logits = {"action": torch.tensor([[0.0, math.log(3)]] * count), "distance": torch.ones(count, 1)}
        parts = {"telemetry": (self._vector_D.expand(count, 2), inputs.has("telemetry"))}
        return Outputs(logits, torch.ones(count, 4) / 2, parts)


def predicted(
    folder: Path, calibrated: Calibration, vector_D: tuple[float, float] = (1.0, 0.0), toml: str = TOML
) -> Prediction:
    (folder / "model.toml").write_text(toml.replace("[inputs.text]\nmax_tokens = 4\n", ""))
    model = repository.Model(read_spec(folder), Says(vector_D), None, "1-00000000")
    return Network(model, torch.device("cpu"), Limits(), calibrated).predict([SAMPLE])[0]


def test_logits_are_divided_by_the_temperature_of_the_sensors_that_are_there(tmp_path: Path) -> None:
    cold = Calibration({"action": Temperature(math.log(0.5))})
    assert predicted(tmp_path, cold).outputs["action"]["score"] == 0.9  # 3² : 1
    assert predicted(tmp_path, Calibration()).outputs["action"]["score"] == 0.75
    both = Temperature(0.5, {"text": 0.25, "telemetry": 1.0}, {"telemetry": 2.0})
    found = both.of([ALL, frozenset({"telemetry"}), frozenset({"text"}), frozenset(), frozenset({"other"})])
    assert np.log(found).tolist() == pytest.approx([0.5, 2.75, 1.5, 1.75, 1.75])


def test_novelty_is_the_distance_in_units_of_what_is_familiar(tmp_path: Path) -> None:
    assert NEAR.novelty(np.array([[1, 0], [3, 3], [1, 4]], np.float32)).tolist() == pytest.approx([0, 1.25, 1])
    calibrated = Calibration({}, {"telemetry": NEAR})
    assert predicted(tmp_path, calibrated).novelty == {"telemetry": 0.0}
    assert predicted(tmp_path, calibrated, (3.0, 3.0)).novelty == {"telemetry": 1.25}
    assert predicted(tmp_path, Calibration(), (3.0, 3.0)).novelty == {}
    parts = {"telemetry": (np.zeros((2, 2), np.float32), np.array([True, False]))}
    assert calibrated.novelties(parts, 2) == [{"telemetry": 0.5}, {}]


def test_an_output_is_unsure_below_the_models_threshold_and_all_are_where_a_sensor_is_strange(tmp_path: Path) -> None:
    sure = predicted(tmp_path, Calibration()).outputs
    assert all("unsure" not in output for output in sure.values())
    hot = predicted(tmp_path, Calibration({"action": Temperature(math.log(2))})).outputs
    assert hot["action"] == {"label": "stop", "score": 0.634, "scores": {"go": 0.366, "stop": 0.634}, "unsure": True}
    assert "unsure" not in hot["distance"]
    odd = predicted(tmp_path, Calibration({}, {"telemetry": NEAR}), (3.0, 3.0)).outputs
    assert odd["action"]["score"] == 0.75
    assert [output["unsure"] for output in odd.values()] == [True, True]


def test_what_is_unsure_or_strange_is_in_the_result_and_is_told(tmp_path: Path) -> None:
    said = predicted(tmp_path, Calibration({}, {"telemetry": NEAR}), (3.0, 3.0))
    result = Result(
        session="car",
        start_us=0,
        end_us=1_000_000,
        closed_by="complete",
        present=("telemetry",),
        coverage={},
        members={},
        outputs=said.outputs,
        embedding=b"",
        model="toy",
        version="1",
        status="ok",
        latencies_us={},
        novelty=said.novelty,
    )
    again = Result.from_fields({name.encode(): value for name, value in result.to_fields().items()})
    assert again == result
    assert decision(again) == ("stop?", 0.75)
    assert strange(again) == ("telemetry",)
    before = {name.encode(): value for name, value in result.to_fields().items() if name != "novelty"}
    assert Result.from_fields(before).novelty == {}


@pytest.mark.parametrize("name", ["nothing", "distance"])
def test_a_threshold_of_what_is_no_output_of_classes_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(TOML.replace("action = 0.7", f"{name} = 0.7"))
    with pytest.raises(ModelError, match=f"unsure_below.{name} is not one of the outputs of kind classes"):
        read_spec(tmp_path)


def test_a_calibration_is_written_and_read_whole_and_belongs_to_its_weights(tmp_path: Path) -> None:
    assert calibration.read(tmp_path, "abc") == Calibration()
    whole = Calibration(
        {"action": Temperature(0.5, {"text": 0.25, "telemetry": 1.0}, {"text": 2.0, "telemetry": 0.0})},
        {"telemetry": NEAR},
    )
    path = calibration.write(tmp_path, whole, "abc")
    found = calibration.read(tmp_path, "abc")
    assert found.temperatures == whole.temperatures
    assert len(found.version) == 4
    near = found.sensors["telemetry"]
    assert (near.mean_D.tolist(), near.whitening_DD.tolist(), near.far) == ([1, 0], [[2, 0], [0, 1]], 4.0)
    with pytest.raises(ModelError, match="other weights than the ones beside it; make it with `streamer calibrate"):
        calibration.read(tmp_path, "other")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match="truncated or no safetensors file"):
        calibration.read(tmp_path, "abc")


def test_the_driving_model_is_calibrated_and_knows_noise_from_what_it_has_seen() -> None:
    network = Predictor.load(Path("models/driving"), device="cpu")
    assert network.version.count(".") == 1
    rng = np.random.default_rng(1)
    noise = Sample(
        present=(True, False, False, False),
        coverage=(1.0, 0.0, 0.0, 0.0),
        image_FHW3=rng.integers(0, 256, (2, 90, 160, 3), np.uint8),
        image_mask_F=np.ones(2, np.bool_),
    )
    [said] = network.predict([only(noise, ["image"])])
    assert said.novelty["image"] > 1
    assert said.outputs["action"]["unsure"] is True
