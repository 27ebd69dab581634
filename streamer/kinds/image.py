"""Images: frames of a camera, which have a time and no length. Alignment never opens one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

from streamer.kinds.kind import Kind, KindOfInput, Read

if TYPE_CHECKING:
    from streamer.events import Event, Window

A_MOMENT = Read(None, 0, 0)


class ImageInput(KindOfInput, frozen=True, tag="image"):
    """Frames of a window: how many, evenly spread, and their size in pixels."""

    frames: int
    height: int
    width: int


class Image(Kind):
    """See the module."""

    name = "image"
    topic = "frames"
    ce_type = "streamer.frame.v1"
    content_types = ("image/jpeg", "image/png", "image/webp")
    input = ImageInput
    rules: ClassVar = {"expected_hz": 10.0}
    model = "streamer.model.kinds.image:Images"
    column = "streamer.training.data.columns:Images"

    def read(self, payload: bytes | None, media_type: str, params: Mapping[str, str], said_us: int | None) -> Read:
        return A_MOMENT

    def opened(self, window: Window, events: Sequence[Event], wanted: KindOfInput | None) -> tuple[bool, ...]:
        if not isinstance(wanted, ImageInput):
            return (False,) * len(events)
        frames = in_window(window, events)
        chosen = {frames[index].position for index in reading_order(len(frames), wanted.frames)[: wanted.frames]}
        return tuple(event.position in chosen for event in events)


def in_window(window: Window, frames: Iterable[Event]) -> list[Event]:
    """Frames taken inside the window's borders, in order of time."""
    return [event for event in frames if window.start_us <= event.start_us < window.end_us]


@lru_cache(maxsize=1024)  # a window's number of frames hardly changes
def reading_order(available: int, wanted: int) -> tuple[int, ...]:
    """Indices of frames in order of preference: evenly spread ones, then spares, nearest to a chosen one first."""
    chosen = sorted({(2 * k + 1) * available // (2 * wanted) for k in range(wanted)}) if available else []
    spares = [index for index in range(available) if index not in chosen]
    return (*chosen, *sorted(spares, key=lambda index: min(abs(index - taken) for taken in chosen)))
