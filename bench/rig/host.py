"""What figures depend on: machine, versions and pinned cores; and how busy a device is."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pynvml

from streamer import __version__
from streamer.errors import Stop
from streamer.local import kafka

ROOT = Path(__file__).parents[2]
UTILIZATION_EVERY_S = 0.1
LIBRARIES = ("torch", "faust-streaming", "aiokafka", "kafka-python", "redis", "numpy", "simplejpeg")


def machine(device: str = "cpu") -> dict[str, Any]:
    """What the figures depend on: CPU model, cores that this process may use, whether programs are pinned; a device."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line[:10] == "model name"]
        cpu = models[0] if models else cpu
    cores = own_cores()
    return {
        "cpu": cpu,
        "cores": len(cores),
        "pinned": f"cores {cores[0]} and {cores[-1]}" if can_pin() else "not pinned",
    } | ({} if device == "cpu" else {"device": device_name(device)})


def device_name(device: str) -> str | None:
    """The vendor's name of a CUDA device; ``None`` if there is no such device."""
    import torch

    try:
        return torch.cuda.get_device_name(device)
    except (AssertionError, RuntimeError, ValueError):  # PyTorch without CUDA, no driver or device, no device's name
        return None


def versions() -> dict[str, str]:
    """Of the code, Python, Kafka and the libraries that matter."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "streamer": commit.stdout.strip() or __version__,
        "Python": platform.python_version(),
        "Kafka": kafka.VERSION,
        **{name: importlib.metadata.version(name) for name in LIBRARIES},
    }


class Utilization:
    """The share of a block's time in which a CUDA device was busy, as NVML samples it.

    Attributes:
        mean: Of the samples, 0 to 1; ``None`` on a CPU, and before the end of the block.
    """

    def __init__(self, device: str) -> None:
        self.mean: float | None = None
        self._device = device
        self._end = threading.Event()
        self._percent: list[int] = []
        self._error: pynvml.NVMLError | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Utilization:
        if self._device != "cpu":
            import torch

            from streamer.model.predictor import device_uuid

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(device_uuid(torch.device(self._device)))
            self._thread = threading.Thread(target=self._sample, args=(handle,))
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            if self._error is not None:
                raise Stop(f"NVML does not report how busy {self._device} is: {self._error}")
            self.mean = float(np.mean(self._percent)) / 100

    def _sample(self, handle: Any) -> None:
        try:
            while not self._percent or not self._end.wait(UTILIZATION_EVERY_S):
                self._percent.append(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
        except pynvml.NVMLError as error:
            self._error = error


def can_pin() -> bool:
    """Whether this system lets a process choose its cores."""
    return hasattr(os, "sched_setaffinity")


def own_cores() -> list[int]:
    """Numbers of the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if can_pin() else list(range(os.cpu_count() or 1))


SERVERS_CORE, PROGRAM_CORE = own_cores()[0], own_cores()[-1]


def pin(pid: int, core: int) -> None:
    """Let all threads of a process run on one core alone; those that it starts later inherit that."""
    if can_pin():
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):  # a thread that has just ended
                os.sched_setaffinity(int(task.name), {core})
