"""Utilisation and memory of an NVIDIA device, as Prometheus metrics."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pynvml
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

log = logging.getLogger(__name__)


class DeviceCollector(Collector):
    """Utilisation and memory of an NVIDIA device, by NVML, asked at each scrape.

    What NVML does not report (no driver; a MIG instance has no utilisation) is absent, not 0.

    Args:
        uuid: Of the device, as NVML writes it: ``GPU-…``; indices differ from PyTorch's under CUDA_VISIBLE_DEVICES.
        name: For the label, as PyTorch names the device.
    """

    def __init__(self, uuid: str, name: str) -> None:
        self._name = name
        self._handle = None
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        except pynvml.NVMLError as error:
            log.warning("no metrics of device %s: NVML says %s", name, error)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The present values."""
        if self._handle is None:
            return
        try:
            memory = pynvml.nvmlDeviceGetMemoryInfo(self._handle)
            yield self._gauge("memory_used_bytes", "Memory in use on the device, by all processes", memory.used)
            yield self._gauge("memory_total_bytes", "Memory of the device", memory.total)
            rates = pynvml.nvmlDeviceGetUtilizationRates(self._handle)
            yield self._gauge("utilization_ratio", "Share of the last moments in which the device ran", rates.gpu / 100)
        except pynvml.NVMLError as error:
            log.debug("NVML does not report all of device %s: %s", self._name, error)

    def _gauge(self, what: str, text: str, value: float) -> GaugeMetricFamily:
        family = GaugeMetricFamily(f"streamer_device_{what}", text, labels=["device"])
        family.add_metric([self._name], value)
        return family
