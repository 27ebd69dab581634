"""A car with eleven sensors, from the simulator through Kafka and a worker."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from streamer.events import KIND_NAMES
from streamer.feeds import car, simulate
from streamer.settings import Settings
from tests.harness import ROOT, results, running_worker, wait_for

pytestmark = pytest.mark.integration

ALL = car.SETS["all"]
SECONDS, SEED = 6, 5
NO_DEFAULTS = {name: {"enabled": False} for name in KIND_NAMES}
PATIENT = {"max_delay_ms": 3000}  # as tests.conftest has it for the default sensors


def test_windows_have_six_cameras_two_microphones_words_can_bus_and_inertial_unit(
    topics: Settings, tmp_path: Path
) -> None:
    kinds = {name: KIND_NAMES[car.SENSORS[name].row] for name in ALL}
    sensors = {name: {"kind": kind, **PATIENT} for name, kind in kinds.items()}
    own = {"model": ROOT / "models" / "surround", "sensors": sensors | NO_DEFAULTS}
    settings = Settings.model_validate(topics.model_dump(exclude_unset=True) | own)
    options = simulate.Options(frame_hz=2, sensors=simulate.sensors_of(settings, "all"))
    with running_worker(settings, tmp_path / "worker.log"):
        simulate.run(settings, sessions=1, seconds=SECONDS, speed=0, seed=SEED, name="all", options=options)
        wait_for(lambda: len(results(settings.redis, settings, "sim-all-0")) == SECONDS, 60.0)
    found = results(settings.redis, settings, "sim-all-0")
    assert [set(result["present"].decode().split(",")) for result in found] == [set(ALL)] * SECONDS
    coverages = [json.loads(result["coverage"]) for result in found]
    assert all(coverage[name] == 1.0 for coverage in coverages for name, kind in kinds.items() if kind != "image")
