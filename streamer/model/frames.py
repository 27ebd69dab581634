"""Which frames of a window a model looks at. Aligners import this to send only those, so it imports no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable

from streamer.events import AUDIO, IMAGE, Event, Window
from streamer.model.spec import ImageInput, InputSpec


def opened(window: Window, spec: InputSpec) -> tuple[tuple[bool, ...], ...]:
    """Which payloads :func:`streamer.model.sample.cut` opens if none of them is broken, by sensor and member."""
    flags: list[tuple[bool, ...]] = []
    inputs = spec.all
    for sensor, events in zip(window.sensors.all, window.events, strict=True):
        wanted = inputs.get(sensor.name)
        if isinstance(wanted, ImageInput):
            frames = in_window(window, events)
            chosen = {frames[index].position for index in reading_order(len(frames), wanted.frames)[: wanted.frames]}
            flags.append(tuple(event.position in chosen for event in events))
        else:
            flags.append((wanted is not None or sensor.row not in (IMAGE, AUDIO),) * len(events))
    return tuple(flags)


def in_window(window: Window, frames: Iterable[Event]) -> list[Event]:
    """Frames taken inside the window's borders, in order of time."""
    return [event for event in frames if window.start_us <= event.start_us < window.end_us]


def reading_order(available: int, wanted: int) -> list[int]:
    """Indices of frames in order of preference: evenly spread ones, then spares, nearest to a chosen one first."""
    chosen = sorted({(2 * k + 1) * available // (2 * wanted) for k in range(wanted)}) if available else []
    spares = [index for index in range(available) if index not in chosen]
    return chosen + sorted(spares, key=lambda index: min(abs(index - taken) for taken in chosen))
