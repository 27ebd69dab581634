"""Which frames of a window a model looks at. Aligners import this to send only those, so it imports no PyTorch."""

from __future__ import annotations

from streamer.events import AUDIO, IMAGE, Event, Window
from streamer.model.spec import InputSpec


def opened(window: Window, spec: InputSpec) -> tuple[tuple[bool, ...], ...]:
    """Which payloads :func:`streamer.model.sample.cut` opens if none of them is broken, by modality and member."""
    flags = [[True] * len(events) for events in window.events]
    if spec.audio is None:
        flags[AUDIO] = [False] * len(flags[AUDIO])
    frames = in_window(window)
    count = spec.image.frames if spec.image is not None else 0
    chosen = {frames[index].position for index in reading_order(len(frames), count)[:count]} if count else set()
    flags[IMAGE] = [event.position in chosen for event in window.events[IMAGE]]
    return tuple(map(tuple, flags))


def in_window(window: Window) -> list[Event]:
    """Frames taken inside the window's borders, in order of time."""
    return [event for event in window.events[IMAGE] if window.start_us <= event.start_us < window.end_us]


def reading_order(available: int, wanted: int) -> list[int]:
    """Indices of frames in order of preference: evenly spread ones, then spares, nearest to a chosen one first."""
    chosen = sorted({(2 * k + 1) * available // (2 * wanted) for k in range(wanted)}) if available else []
    spares = [index for index in range(available) if index not in chosen]
    return chosen + sorted(spares, key=lambda index: min(abs(index - taken) for taken in chosen))
