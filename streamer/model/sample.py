"""What a model sees of a window. Serving and training both cut their windows here, so they cannot diverge.

A window has whole events; the model sees only what is inside the window's borders. Shapes, by suffix:

    F frames · H height · W width · S audio samples · C telemetry channels · T telemetry grid points · 3 colours
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.errors import BadRecord
from streamer.events import DEFAULT_NAMES, DEFAULT_SENSORS, KINDS, Event, Position, Sensors, Window
from streamer.model.handling import Cutting, handling
from streamer.model.spec import InputSpec
from streamer.settings import Settings

Reject = tuple[Event, BadRecord]


class Limits(msgspec.Struct, frozen=True):
    """The settings that cutting needs.

    Attributes:
        max_image_pixels: Larger frames are refused before they are decoded.
        expected_hz: Sensor -> frames a second of a complete window; of one that is not named one frame covers a window.
    """

    max_image_pixels: int = 40_000_000
    expected_hz: dict[str, float] = {}

    @classmethod
    def of(cls, settings: Settings) -> Limits:
        given = {name: one.expected_hz for name, one in settings.sensors.items()}
        return cls(settings.max_image_pixels, {name: rate for name, rate in given.items() if rate is not None})


class Phrase(msgspec.Struct, frozen=True):
    """Words of one transcript that are spoken in the window.

    Attributes:
        overlap: Share of the text that is in the window: 1 if words have times, since then only those inside are
            kept; else the share of the transcript's time.
    """

    text: str
    overlap: float


class Mismatch(msgspec.Struct, frozen=True):
    """An audio payload that is not as long as its event.

    Attributes:
        partition, offset: Of its record in the audio topic.
        sensor: Number of its sensor.
        said_us: Length of the event: its ``ce_durationus``.
        surplus_us: How much longer the payload is; below 0 if it is shorter.
    """

    partition: int
    offset: int
    sensor: int
    said_us: int
    surplus_us: int


class Sample(msgspec.Struct, frozen=True):
    """A window cut to its borders and decoded. Where a mask is False the content is undefined.

    Attributes:
        present: For each sensor of the window whether the window has any content of it.
        coverage: For each sensor the share of the window in [0, 1]: time covered for audio (by samples if the model
            takes it, else by events) and telemetry, frames found ÷ expected, 1 for text.
        image_FHW3: uint8, frames in order of time; ``None`` if absent, or if the model has no such input (so for all
            below).
        image_mask_F: False where the window has fewer frames than the model wants.
        audio_S: float32 in [-1, 1].
        audio_mask_S: Where the waveform was heard; silence that was heard is True.
        telemetry_CT: float32 in the producer's units.
        telemetry_mask_CT: Where a block with this channel covers the grid point.
        mismatches: Of the audio chunks that end in the window and were opened.
        arrays: Content of a kind that has no fields here.
        more: Sensor that is not called like its kind -> its content, as a sample that has nothing else.
        encoded: Sensor -> what the encoder of a network has made of its content before, which is absent then: tokens
            [N, D] and mask [N]. Empty unless the window was run before.
        sensors: What ``present`` and ``coverage`` list.
    """

    present: tuple[bool, ...]
    coverage: tuple[float, ...]
    image_FHW3: NDArray[np.uint8] | None = None
    image_mask_F: NDArray[np.bool_] | None = None
    audio_S: NDArray[np.float32] | None = None
    audio_mask_S: NDArray[np.bool_] | None = None
    text: tuple[Phrase, ...] = ()
    telemetry_CT: NDArray[np.float32] | None = None
    telemetry_mask_CT: NDArray[np.bool_] | None = None
    mismatches: tuple[Mismatch, ...] = ()
    arrays: dict[str, NDArray[Any]] = {}
    more: dict[str, Sample] = {}
    encoded: dict[str, tuple[Any, Any]] = {}
    sensors: Sensors = DEFAULT_SENSORS

    @classmethod
    def empty(cls, sensors: Sensors = DEFAULT_SENSORS) -> Sample:
        """A sample of a window without any content."""
        return cls(present=(False,) * len(sensors.all), coverage=(0.0,) * len(sensors.all), sensors=sensors)

    @property
    def frames(self) -> list[NDArray[np.uint8]]:
        """The frames that are there, each [H, W, 3]."""
        if self.image_FHW3 is None or self.image_mask_F is None:
            return []
        return [*self.image_FHW3[self.image_mask_F]]

    def of(self, sensor: str) -> Sample:
        """What has the content of a sensor: this sample for one that is called like its kind."""
        return self if sensor in DEFAULT_NAMES else self.more.get(sensor, NOTHING)

    def content(self, name: str) -> dict[str, Any]:
        """The fields with the content of a sensor that is called like its kind."""
        return {field: getattr(self, field) for field in self.__struct_fields__ if field.split("_")[0] == name}

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays and tokens."""
        named = (self.image_FHW3, self.audio_S, self.audio_mask_S, self.telemetry_CT, self.telemetry_mask_CT)
        arrays = (*named, *self.arrays.values())
        own = sum(array.nbytes for array in arrays if array is not None)
        tokens: int = sum(tensor.nbytes for pair in self.encoded.values() for tensor in pair)
        return own + tokens + sum(part.nbytes for part in self.more.values())


NOTHING = Sample((), ())


def remembered(sample: Sample, encoded: dict[str, tuple[Any, Any]]) -> Sample:
    """A sample to run the window from again: tokens take the place of the content that they were made of."""
    rest = only(sample, [name for name in sample.sensors.names if name not in encoded])
    return msgspec.structs.replace(
        rest, present=sample.present, coverage=sample.coverage, mismatches=sample.mismatches, encoded=encoded
    )


class Known(msgspec.Struct, frozen=True):
    """What :func:`cut` found in a window before: of a sensor with the same members no payload is opened again.

    Attributes:
        members: The window's records at that time, by sensor.
    """

    members: tuple[tuple[Position, ...], ...]
    sample: Sample
    rejects: list[Reject]

    def unchanged(self, window: Window) -> frozenset[int]:
        """Numbers of the sensors of which nothing has come since."""
        if self.sample.sensors != window.sensors:
            return frozenset()
        now = enumerate(members(window))
        return frozenset(number for number, own in now if own == self.members[number])


def members(window: Window) -> tuple[tuple[Position, ...], ...]:
    """The window's records, by sensor."""
    return tuple(tuple(event.position for event in events) for events in window.events)


def only(sample: Sample, names: Sequence[str]) -> Sample:
    """The sample as if the other sensors had never sent anything."""
    sensors = sample.sensors
    kept = {
        field: value
        for field, value in msgspec.structs.asdict(sample).items()
        if field == "sensors" or field.split("_")[0] in names
    }
    kept["present"] = tuple(p and n in names for p, n in zip(sample.present, sensors.names, strict=True))
    kept["coverage"] = tuple(c if n in names else 0.0 for c, n in zip(sample.coverage, sensors.names, strict=True))
    kept["more"] = {name: part for name, part in sample.more.items() if name in names}
    return Sample(**kept)


def cut(window: Window, spec: InputSpec, limits: Limits, known: Known | None = None) -> tuple[Sample, list[Reject]]:
    """Cut a window's events to its borders and decode what the model needs; no other payload is opened.

    ``present`` and ``coverage`` are set for every sensor, from the events' spans where no payload is opened.

    Args:
        known: Found before in this window, with the same spec and limits. It saves time and changes nothing.

    Returns:
        The sample, and the events with a broken payload, each with its fault; the sample is made without these.

    Raises:
        LeftBehind: A needed payload did not come with the window: one that :func:`streamer.model.frames.opened` does
            not name, needed because a frame is broken; or any payload of a window that was too large to send whole.
    """
    rejects: list[Reject] = []
    mismatches: list[Mismatch] = []
    cutting = Cutting(window, limits, rejects, mismatches)
    present: list[bool] = []
    coverage: list[float] = []
    content: dict[str, Any] = {}
    more: dict[str, Sample] = {}
    encoded: dict[str, tuple[Any, Any]] = {}
    inputs = spec.all
    unchanged = known.unchanged(window) if known is not None else frozenset()
    for number, (sensor, events) in enumerate(zip(window.sensors.all, window.events, strict=True)):
        if known is not None and number in unchanged:
            before = known.sample
            present.append(before.present[number])
            coverage.append(before.coverage[number])
            rejects += [reject for reject in known.rejects if reject[0].sensor == number]
            mismatches += [mismatch for mismatch in before.mismatches if mismatch.sensor == number]
            if sensor.name in before.encoded:
                encoded[sensor.name] = before.encoded[sensor.name]
            elif sensor.name in DEFAULT_NAMES:
                content |= before.content(sensor.name)
            elif sensor.name in before.more:
                more[sensor.name] = before.more[sensor.name]
            continue
        kind, wanted = KINDS[sensor.row], inputs.get(sensor.name)
        own = wanted if isinstance(wanted, kind.input) else None
        found, here, share = handling(kind.name).cut(sensor.name, events, own, cutting)
        present.append(here)
        coverage.append(share)
        if sensor.name in DEFAULT_NAMES:
            content |= found
        elif found:
            more[sensor.name] = Sample((), (), **found)
    sample = Sample(
        present=tuple(present),
        coverage=tuple(coverage),
        mismatches=tuple(mismatches),
        more=more,
        encoded=encoded,
        sensors=window.sensors,
        **content,
    )
    return sample, rejects
