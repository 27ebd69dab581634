"""``[severity]`` of a ``model.toml``: how much what an output says matters to people on duty."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamer.errors import ModelError
from streamer.model import repository
from streamer.model.predictor import Network
from streamer.model.sample import Sample
from streamer.model.spec import NORMAL, SEVERITIES, ModelSpec, read_spec
from streamer.settings import Settings

ROOT = Path(__file__).parents[3]
TOML = """
name = "ward"
version = "1"
window_ms = 1000
[inputs.telemetry]
channels = ["pulse"]
rate_hz = 10
[outputs.state]
labels = ["calm", "restless", "fallen"]
[outputs.condition]
kind = "tags"
labels = ["cough", "apnoea", "wheeze"]
[outputs.mood]
labels = ["good", "bad"]
[outputs.pulse]
kind = "number"
[architecture]
size = "tiny"
[severity.state]
restless = "notice"
fallen = "alarm"
[severity.condition]
wheeze = "notice"
apnoea = "alarm"
"""


@pytest.fixture
def spec(tmp_path: Path) -> ModelSpec:
    (tmp_path / "model.toml").write_text(TOML)
    return read_spec(tmp_path)


def test_an_output_is_as_severe_as_its_most_severe_label_and_what_is_not_listed_is_normal(spec: ModelSpec) -> None:
    said = {label: spec.severity_of("state", {"label": label}) for label in spec.outputs["state"].labels}
    assert said == {"calm": NORMAL, "restless": "notice", "fallen": "alarm"}
    assert spec.severity_of("condition", {"labels": ["cough", "apnoea", "wheeze"]}) == "alarm"
    assert spec.severity_of("condition", {"labels": []}) == NORMAL
    assert spec.severity_of("mood", {"label": "bad"}) is None  # the model says nothing of it
    assert spec.severity_of("pulse", {"value": 80.0}) is None


def test_each_result_of_a_graded_output_carries_its_severity(spec: ModelSpec, tmp_path: Path) -> None:
    repository.write(tmp_path, repository.new_module(spec, tmp_path, None), None, {})
    [one] = Network.load(tmp_path, "cpu", Settings.load(), threads=1).predict([Sample.empty()])
    assert one.outputs["state"]["severity"] == spec.severity_of("state", one.outputs["state"])
    assert one.outputs["condition"]["severity"] in SEVERITIES
    assert ["severity" in one.outputs[name] for name in ("mood", "pulse")] == [False, False]


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        ('[severity.moods]\nbad = "alarm"', "severity.moods is not one of the outputs that have labels"),
        ('[severity.pulse]\nfast = "alarm"', "severity.pulse is not one of the outputs that have labels"),
        (
            '[severity.mood]\nugly = "alarm"',
            "severity.mood.ugly is not a label of outputs.mood, which are good, bad",
        ),
        ('[severity.mood]\nbad = "deadly"', "Invalid enum value 'deadly'"),
        ('[severity]\nmood = "alarm"', "Expected `object`, got `str`"),
    ],
)
def test_a_wrong_severity_is_refused_in_one_line(table: str, problem: str, tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text(TOML + table)
    with pytest.raises(ModelError) as refused:
        read_spec(tmp_path)
    assert problem in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_models_of_this_repository_grade_what_they_decide() -> None:
    for folder in (ROOT / "models").iterdir():
        assert read_spec(folder).severity, folder.name
    assert read_spec(ROOT / "models" / "driving").severity["action"]["emergency_stop"] == "alarm"
