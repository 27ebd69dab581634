"""Which payloads of a window a model looks at. Aligners import this to send only those, so it imports no PyTorch."""

from __future__ import annotations

from streamer.events import KINDS, Window
from streamer.model.spec import InputSpec


def opened(window: Window, spec: InputSpec) -> tuple[tuple[bool, ...], ...]:
    """Which payloads :func:`streamer.model.sample.cut` opens if none of them is broken, by sensor and member."""
    inputs = spec.all
    return tuple(
        KINDS[sensor.row].opened(window, events, inputs.get(sensor.name))
        for sensor, events in zip(window.sensors.all, window.events, strict=True)
    )
