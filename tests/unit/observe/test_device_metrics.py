"""Metrics of the device: what NVML tells, and nothing where it tells nothing."""

from __future__ import annotations

from types import SimpleNamespace

import pynvml
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from streamer.observe.device import DeviceCollector


def scraped(monkeypatch: pytest.MonkeyPatch, **calls: object) -> str:
    for name, answer in calls.items():

        def call(*_: object, answer: object = answer) -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(pynvml, name, call)
    registry = CollectorRegistry()
    registry.register(DeviceCollector("GPU-1", "cuda:0"))
    return generate_latest(registry).decode()


NVML = {
    "nvmlInit": None,
    "nvmlDeviceGetHandleByUUID": "handle",
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(used=3, total=8),
    "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=25),
}


def test_utilisation_and_memory_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    text = scraped(monkeypatch, **NVML)
    assert 'streamer_device_utilization_ratio{device="cuda:0"} 0.25' in text
    assert 'streamer_device_memory_used_bytes{device="cuda:0"} 3.0' in text
    assert 'streamer_device_memory_total_bytes{device="cuda:0"} 8.0' in text


def test_without_a_driver_the_metrics_are_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    assert scraped(monkeypatch, nvmlInit=pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)) == ""


def test_what_a_device_does_not_tell_is_absent_and_the_rest_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = {"nvmlDeviceGetUtilizationRates": pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)}
    text = scraped(monkeypatch, **{**NVML, **unknown})
    assert "utilization" not in text
    assert 'streamer_device_memory_used_bytes{device="cuda:0"} 3.0' in text
