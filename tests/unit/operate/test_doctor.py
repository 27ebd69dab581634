"""What the doctor reports if no server answers, and about this machine."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest

from streamer.events import Drift
from streamer.local.process import free_port
from streamer.operate import doctor
from streamer.operate.findings import Finding, Status
from streamer.settings import Settings


def found(settings: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in doctor.examine(settings)}


@pytest.fixture
def settings(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setattr("streamer.clients.kafka.TIMEOUT_MS", 300)
    return Settings.load(
        kafka=f"127.0.0.1:{free_port()}",
        redis=f"redis://:secret@127.0.0.1:{free_port()}/0",
        port=free_port(),
        device="cpu",
        model=model_folder,
    )


def test_what_does_not_answer_fails_and_the_rest_is_looked_at_all_the_same(settings: Settings) -> None:
    findings = found(settings)
    assert {name: str(finding.status) for name, finding in findings.items()} == {
        "codecs": "ok",
        "kafka": "FAIL",
        "redis": "FAIL",
        "model": "ok",
        "device": "ok",
        "port": "ok",
        "disk": "ok",
    }
    assert findings["kafka"].remedy == "set STREAMER_KAFKA to where one does, or unset it and run `streamer up`"
    assert "secret" not in repr(findings)


def test_a_codec_that_cannot_be_read_fails(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(settings)["codecs"].found == "record batches can be read with gzip, snappy, lz4, zstd"
    monkeypatch.setitem(sys.modules, "cramjam", None)
    finding = found(settings)["codecs"]
    assert finding.status is Status.FAIL
    assert "compressed with snappy cannot be read" in finding.found
    assert finding.remedy == "run `pip install cramjam`"


def test_a_model_of_other_windows_is_a_warning_and_none_at_all_a_failure(settings: Settings) -> None:
    other = found(settings.model_copy(update={"window_ms": 2000}))["model"]
    assert other.status is Status.WARN
    assert "set STREAMER_WINDOW_MS=1000" in other.remedy
    assert found(settings.model_copy(update={"model": Path("nowhere")}))["model"].status is Status.FAIL


def test_a_model_that_reads_a_sensor_which_is_not_declared_fails(settings: Settings) -> None:
    model = found(settings.model_copy(update={"model": Path("models/surround")}))["model"]
    assert model.status is Status.FAIL
    assert "reads the sensor camera_front, which is not declared: add [sensors.camera_front]" in model.found


def test_a_device_that_is_not_there_fails(settings: Settings) -> None:
    device = found(settings.model_copy(update={"device": "cuda:99"}))["device"]
    assert device.status is Status.FAIL
    assert "STREAMER_DEVICE=auto" in device.remedy


def test_a_port_that_is_taken_is_a_warning(settings: Settings) -> None:
    with socket.create_server((settings.host, settings.port)):
        port = found(settings)["port"]
    assert port.status is Status.WARN
    assert "STREAMER_PORT" in port.remedy


def test_a_drifting_clock_is_a_warning_that_says_whose_how_fast_and_how_long_it_goes_well() -> None:
    imu, mic = Drift("imu", 200.4, 31.0, 700.0), Drift("roof_mic", -4000.0, -90.0, 0.0)
    mic_finding, imu_finding = doctor.clock_drifts({"car-1": (imu,), "car-2": (mic,)})
    assert {mic_finding.status, imu_finding.status} == {Status.WARN}
    assert imu_finding.found == (
        "car-1: the clock of imu is slow by 200 ppm, 12 ms a minute, against the other sensors; "
        "in 12 min its windows lose members"
    )
    assert "NTP or PTP" in imu_finding.remedy
    assert "offset_ms" in imu_finding.remedy
    assert "roof_mic is fast by 4,000 ppm, 240 ms a minute" in mic_finding.found
    assert mic_finding.found.endswith("its windows lose members now")
    assert "wrong rate" in mic_finding.remedy


def test_of_many_drifting_clocks_the_most_urgent_are_named_and_the_rest_counted() -> None:
    found = {f"car-{number}": (Drift("imu", 200.0, 0.0, 1000.0 - number),) for number in range(100)}
    *named, rest = doctor.clock_drifts(found)
    assert [finding.found.partition(":")[0] for finding in named] == [f"car-{99 - number}" for number in range(8)]
    assert rest.found == "the clocks of 92 more sensors drift"
    (none,) = doctor.clock_drifts({})
    assert none.status is Status.OK
