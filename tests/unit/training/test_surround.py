"""Drives for models/surround, which reads sensors of its own and has outputs that one of them alone shows."""

from __future__ import annotations

import io
import tomllib
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from streamer.errors import ModelError
from streamer.model import repository
from streamer.model.spec import Output, check_sensors, read_spec
from streamer.settings import Settings
from streamer.training import simulated

FOLDER = Path(__file__).parents[3] / "models" / "surround"
SPEC = read_spec(FOLDER)


def test_drives_send_the_sensors_that_the_model_reads_and_no_others() -> None:
    examples = list(simulated.drive_examples(3, 3, SPEC, frame_hz=1))
    assert len(examples) == 3
    for example in examples:
        assert set(example.sample.sensors.names) == set(SPEC.inputs.all)
        assert all(example.sample.present)
        assert set(example.labels) == set(SPEC.outputs)


def test_a_model_learns_only_the_outputs_that_it_has() -> None:
    without = msgspec.structs.replace(SPEC, outputs={"behind": SPEC.outputs["behind"]})
    assert [set(example.labels) for example in simulated.drive_examples(3, 2, without, frame_hz=1)] == [{"behind"}] * 2


@pytest.mark.parametrize(
    ("name", "labels"), [("weather", ("rain", "sun")), ("behind", ("nothing", "car")), ("action", ("go", "stop"))]
)
def test_an_output_that_drives_do_not_teach_is_refused_in_one_line(
    name: str, labels: tuple[str, ...], tmp_path: Path
) -> None:
    other = msgspec.structs.replace(SPEC, outputs={name: Output(labels)})
    with pytest.raises(ModelError, match=f"do not teach the output '{name}'") as refused:
        simulated.examples([1], 2, other, tmp_path, Console(file=io.StringIO()))
    assert "\n" not in str(refused.value)


def test_the_settings_that_come_with_the_model_declare_what_it_reads_and_nothing_else() -> None:
    settings = Settings.model_validate(tomllib.loads((FOLDER / "streamer.toml").read_text("utf-8")))
    check_sensors(SPEC, settings.sensor_set)
    assert set(settings.sensor_set.names) == set(SPEC.inputs.all)
    assert (FOLDER.parents[1] / settings.model).samefile(FOLDER)


def test_both_cameras_are_read_by_the_same_weights() -> None:
    module = repository.new_module(SPEC, FOLDER, None)
    parameters = [name for name, _ in module.named_parameters()]
    assert any(name.startswith("encoders.camera_front.") for name in parameters)
    assert not any(name.startswith("encoders.camera_rear.") for name in parameters)
