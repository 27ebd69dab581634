"""Models that read sensors by name: what is opened for them, how they are built, and that their forms agree."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from streamer.errors import ModelError
from streamer.events import (
    DEFAULT_SENSORS,
    IMAGE,
    KINDS,
    TELEMETRY,
    ClosedBy,
    Event,
    EventType,
    Position,
    Record,
    Sensor,
    Sensors,
    Window,
)
from streamer.model import frames, repository
from streamer.model.collate import collate
from streamer.model.forms import archive, exported
from streamer.model.handling import handling
from streamer.model.nets.inputs import Inputs
from streamer.model.predictor import Network, result_of
from streamer.model.sample import Known, Limits, Sample, cut, members, only
from streamer.model.spec import check_sensors, read_spec, with_sensors
from streamer.settings import Settings
from streamer.training import dataset
from streamer.training.augment import gaps
from tests.harness import jpeg

S_US = 1_000_000
SPEC = """
name = "surround"
version = "1"
window_ms = 1000

[inputs.camera_front]
kind = "image"
frames = 2
height = 32
width = 32

[inputs.camera_rear]
kind = "image"
frames = 2
height = 32
width = 32
share = "camera_front"

[inputs.telemetry]
channels = ["speed"]
rate_hz = 10.0

[inputs.imu]
kind = "telemetry"
channels = ["roll", "pitch"]
rate_hz = 20.0

[outputs.action]
labels = ["go", "stop"]

[architecture]
size = "small"
"""
SENSORS = Sensors.of(
    [
        *DEFAULT_SENSORS.all,
        Sensor("camera_front", IMAGE),
        Sensor("camera_left", IMAGE),
        Sensor("camera_rear", IMAGE),
        Sensor("imu", TELEMETRY),
    ]
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.toml").write_text(SPEC)
    return tmp_path


def event(sensor: str, at_us: int, value: bytes, media_type: str, length_us: int = 0) -> Event:
    number = SENSORS.numbers[sensor]
    record = Record(SENSORS.rows[number], 0, at_us, at_us, b"car", value, ())
    return Event(record, "car", EventType.DATA, at_us, at_us + length_us, media_type, sensor=number)


def block(sensor: str, channels: str) -> Event:
    return event(sensor, 0, f'{{"channels": {{{channels}}}, "rate_hz": 2}}'.encode(), "application/json", S_US)


def window(*events: Event) -> Window:
    own = tuple(tuple(e for e in events if e.sensor == number) for number in range(len(SENSORS.all)))
    at = Position(0, 0, 0)
    return Window("car", 0, 0, S_US, ClosedBy.COMPLETE, at, own, (0,) * len(SENSORS.all), SENSORS)


FULL = (
    event("camera_front", 100_000, jpeg(1), "image/jpeg"),
    event("camera_rear", 200_000, jpeg(2), "image/jpeg"),
    event("camera_rear", 300_000, jpeg(3), "image/jpeg"),
    event("camera_left", 400_000, b"no picture at all", "image/jpeg"),
    event("image", 500_000, b"nor this", "image/jpeg"),
    block("telemetry", '"speed": {"values": [10, 20]}'),
    block("imu", '"roll": {"values": [1, 1]}, "pitch": {"values": [2, 3]}'),
)


BROKEN = (event("camera_rear", 700_000, b"no picture", "image/jpeg"),)


def test_a_window_that_is_cut_again_opens_payloads_of_changed_sensors_alone_and_finds_the_same(folder: Path) -> None:
    spec = read_spec(folder)
    early = window(*(one for one in FULL if one.sensor != SENSORS.numbers["imu"]), *BROKEN)
    known = Known(members(early), *cut(early, spec.inputs, Limits()))
    whole = window(*FULL, *BROKEN)
    sample, rejects = cut(whole, spec.inputs, Limits())
    assert len(rejects) == len(BROKEN)
    unopened = {SENSORS.numbers[name] for name in ("camera_front", "camera_rear", "telemetry")}
    gone = window(*(emptied(one) if one.sensor in unopened else one for one in (*FULL, *BROKEN)))
    again, again_rejects = cut(gone, spec.inputs, Limits(), known)
    assert [(event.position, error.reason) for event, error in again_rejects] == [
        (event.position, error.reason) for event, error in rejects
    ]
    assert sample.more.keys() == again.more.keys() >= {"camera_front", "imu"}
    for name in ("image", "telemetry", *sample.more):
        assert_same(again.of(name), sample.of(name))
    assert (again.present, again.coverage, again.mismatches) == (sample.present, sample.coverage, sample.mismatches)


def test_what_was_found_of_other_sensors_is_not_used(folder: Path) -> None:
    spec, whole = read_spec(folder), window(*FULL)
    sample, rejects = cut(whole, spec.inputs, Limits())
    known = Known(members(whole), msgspec.structs.replace(sample, sensors=DEFAULT_SENSORS), rejects)
    assert known.unchanged(whole) == frozenset()


def emptied(one: Event) -> Event:
    """The event, without a payload that could be opened."""
    return msgspec.structs.replace(one, record=msgspec.structs.replace(one.record, value=b""))


def assert_same(own: Sample, other: Sample) -> None:
    for field in ("image_FHW3", "image_mask_F", "telemetry_CT", "telemetry_mask_CT"):
        np.testing.assert_array_equal(getattr(own, field), getattr(other, field))


def test_what_no_input_asks_for_is_not_opened_and_still_counted(folder: Path) -> None:
    spec, whole = read_spec(folder), window(*FULL)
    sample, rejects = cut(whole, spec.inputs, Limits())
    assert rejects == []
    result = result_of(whole, sample, None, topics=("f", "a", "t", "m"), model="m", version="1")
    assert result.present == ("image", "camera_front", "camera_left", "camera_rear", "telemetry", "imu")
    assert set(result.coverage) == set(SENSORS.names)
    assert result.members["f"] == ((100_000, 100_000), *((n, n) for n in (200_000, 300_000, 400_000, 500_000)))
    sent = dict(zip(SENSORS.names, frames.opened(whole, spec.inputs), strict=True))
    assert sent["camera_rear"] == (True, True)
    assert sent["camera_left"] == sent["image"] == (False,)


def test_each_sensor_fills_its_own_input(folder: Path) -> None:
    spec = read_spec(folder)
    sample, _ = cut(window(*FULL), spec.inputs, Limits())
    inputs = collate([sample, Sample.empty(SENSORS)], spec.inputs, None)
    assert inputs.image_BFCHW is None
    assert inputs.more is not None
    assert list(inputs.more) == ["camera_front", "camera_rear", "imu"]
    assert inputs.more["camera_front"].image_mask_BF.tolist() == [[True, False], [False, False]]  # type: ignore[union-attr]
    assert inputs.more["camera_rear"].image_mask_BF.tolist() == [[True, True], [False, False]]  # type: ignore[union-attr]
    assert inputs.telemetry_BCT is not None
    assert inputs.telemetry_BCT.shape == (2, 1, 10)
    assert inputs.of("imu")["telemetry_BCT"].shape == (2, 2, 20)
    assert inputs.of("imu")["telemetry_BCT"][0, 0].tolist() == [1.0] * 20
    again = Inputs.from_tensors(inputs.tensors())
    assert again.tensors().keys() == inputs.tensors().keys()
    assert {"camera_rear__image_BFCHW", "imu__telemetry_mask_BCT", "telemetry_BCT"} < inputs.tensors().keys()


def network(folder: Path) -> Network:
    spec = read_spec(folder)
    torch.manual_seed(0)
    module = repository.new_module(spec, folder, None).eval()
    return Network(repository.Model(spec, module, None, "1-x"), torch.device("cpu"), Limits())


def test_cameras_that_share_an_encoder_are_told_apart_and_each_matters(folder: Path) -> None:
    predictor = network(folder)
    names = set(predictor._module.state_dict())
    assert not any(name.startswith("encoders.camera_rear") for name in names)
    assert {"kind.camera_rear", "kind.camera_front", "norms.camera_rear.weight", "common.imu.weight"} < names
    picture = (
        event("camera_front", 100_000, jpeg(1), "image/jpeg"),
        event("camera_rear", 100_000, jpeg(1), "image/jpeg"),
    )
    spec = predictor.spec
    front, rear = (cut(window(one), spec.inputs, Limits())[0] for one in picture)
    (front_BL, rear_BL), _ = predictor.answer([front, rear])[0]["action"], None
    assert not np.allclose(front_BL, rear_BL)
    vectors, _ = predictor.vectors([front, rear])
    assert list(vectors) == ["telemetry", "camera_front", "imu", "camera_rear"]
    assert vectors["camera_rear"][1].tolist() == [False, True]
    assert predictor.embed([rear], "camera_rear").shape == (1, vectors["camera_rear"][0].shape[1])


def test_a_sample_with_fewer_sensors_keeps_those_alone(folder: Path) -> None:
    sample, _ = cut(window(*FULL), read_spec(folder).inputs, Limits())
    kept = only(sample, ["camera_rear", "telemetry"])
    assert list(kept.more) == ["camera_rear"]
    assert [name for name, here in zip(SENSORS.names, kept.present, strict=True) if here] == [
        "camera_rear",
        "telemetry",
    ]
    assert kept.telemetry_CT is not None


def test_gaps_are_by_sensor(folder: Path) -> None:
    spec = read_spec(folder)
    sample, _ = cut(window(*FULL), spec.inputs, Limits())
    inputs = collate([sample] * 64, spec.inputs, None)
    shown = gaps(inputs, 0.5)
    assert list(shown) == ["telemetry", "camera_front", "camera_rear", "imu"]
    hidden = inputs.shown_in(shown)
    assert (hidden.has("camera_rear") == shown["camera_rear"]).all()
    assert (hidden.has("telemetry") == shown["telemetry"]).all()
    assert 0 < int(shown["camera_rear"].sum()) < 64
    assert not inputs.without("imu").has("imu").any()


def test_examples_keep_what_each_sensor_had(folder: Path, tmp_path: Path) -> None:
    sample, _ = cut(window(*FULL), read_spec(folder).inputs, Limits())
    empty = Sample.empty(SENSORS)
    path = tmp_path / "kept.npz"
    dataset.save(path, [dataset.Example(sample, {"action": "go"}), dataset.Example(empty, {})])
    first, second = dataset.load(path)
    assert first.sample.sensors == SENSORS
    assert first.sample.more.keys() == sample.more.keys()
    for name, field in (("camera_rear", "image_FHW3"), ("imu", "telemetry_CT")):
        assert np.array_equal(getattr(first.sample.more[name], field), getattr(sample.more[name], field))
    assert second.sample == empty


def test_a_loaded_model_has_imported_what_it_does_with_every_kind(folder: Path) -> None:
    handling.cache_clear()
    network(folder)
    assert handling.cache_info().currsize == len(KINDS)


def test_an_exported_form_takes_the_named_inputs(folder: Path) -> None:
    predictor = network(folder)
    model = repository.Model(predictor.spec, predictor._module, None, "1-x")
    assert set(archive.example(model)) == set(archive.names_of(predictor.spec.inputs))
    form = exported.Exported(exported.traced(model))
    sample, _ = cut(window(*FULL), predictor.spec.inputs, Limits())
    inputs = collate([sample, Sample.empty(SENSORS), sample], predictor.spec.inputs, None)
    with torch.inference_mode():
        wanted, found = predictor._module(inputs), form(inputs)
    assert torch.allclose(found.logits["action"], wanted.logits["action"], atol=1e-5)


def test_a_sensor_that_is_not_declared_is_refused_in_one_line(folder: Path) -> None:
    spec = read_spec(folder)
    with pytest.raises(ModelError, match=r"camera_front, which is not declared: add \[sensors.camera_front\]"):
        check_sensors(spec, Settings.load().sensor_set)
    declared = with_sensors(spec, Settings.load(sensors={"imu": {"kind": "telemetry", "max_delay_ms": 7}}))
    check_sensors(spec, declared.sensor_set)
    assert declared.sensors["imu"].max_delay_ms == 7
    kinds = {"camera_front": "image", "camera_rear": "image", "imu": "audio"}
    other = Settings.load(sensors={name: {"kind": kind} for name, kind in kinds.items()}).sensor_set
    with pytest.raises(ModelError, match="reads imu as telemetry, and the settings declare it as audio"):
        check_sensors(spec, other)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ('kind = "image"\n', "inputs.camera_front needs its kind: one of image, audio, text, telemetry"),
        ("rate_hz = 20.0", "inputs.imu.share names camera_front, which is no other input of the same kind and shape"),
        ("[inputs.imu]", "inputs.Imu: a sensor's name has 1 to 40 small letters"),
        ('["roll", "pitch"]', "inputs.imu.channels is empty"),
    ],
)
def test_inputs_that_cannot_be_are_refused(folder: Path, wrong: str, says: str) -> None:
    better = {
        "rate_hz = 20.0": 'rate_hz = 20.0\nshare = "camera_front"',
        "[inputs.imu]": "[inputs.Imu]",
        '["roll", "pitch"]': "[]",
    }
    (folder / "model.toml").write_text(SPEC.replace(wrong, better.get(wrong, ""), 1))
    with pytest.raises(ModelError) as caught:
        read_spec(folder)
    assert says in str(caught.value)


def test_archives_of_models_without_named_inputs_stay_valid() -> None:
    spec = read_spec(Path("models/driving"))
    before = "8b8fd718db5d147dc22ce31278fe28162620b3d326d656443e5e7f1c340a04cf"  # as it was when inputs had no names
    assert archive._network(Path("nowhere"), msgspec.structs.replace(spec, version="1")) == before
