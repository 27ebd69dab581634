"""What a model sees of a window. Serving and training both cut their windows here, so they cannot diverge.

A window has whole events; the model sees only what is inside the window's borders. Shapes, by suffix:

    F frames · H height · W width · S audio samples · C telemetry channels · T telemetry grid points · 3 colours
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import torch
import torchaudio
from numpy.typing import NDArray

from streamer.errors import BadRecord, Reason
from streamer.events import AUDIO, DEFAULT_SENSORS, IMAGE, KIND_NAMES, TEXT, Event, Sensors, Window
from streamer.kinds.image import in_window, reading_order
from streamer.model import payloads
from streamer.model.sounds import sample_index
from streamer.model.spec import AudioInput, ImageInput, InputSpec, TelemetryInput
from streamer.settings import Settings

# The largest denominator of a resampling ratio. The sinc kernel has old × new / gcd² taps: 44,100 → 16,000 is
# 441 × 160, but 44,101 → 16,000 would be 706 million. The nearest simple ratio is off by less than 1 ms in a second.
MAX_RATIO_TERM = 500
LEAST_DEVIATION = 1e-6  # of a channel that a model takes relative to it: a flat line is 0, not noise of rounding

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
        said_us: Length of the event: its ``ce_durationus``.
        surplus_us: How much longer the payload is; below 0 if it is shorter.
    """

    partition: int
    offset: int
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
        more: Sensor that is not called like its kind -> its content, as a sample that has nothing else.
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
    more: dict[str, Sample] = {}
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
        return self if sensor in KIND_NAMES else self.more.get(sensor, NOTHING)

    @property
    def nbytes(self) -> int:
        """Bytes of its arrays."""
        arrays = (self.image_FHW3, self.audio_S, self.audio_mask_S, self.telemetry_CT, self.telemetry_mask_CT)
        own = sum(array.nbytes for array in arrays if array is not None)
        return own + sum(part.nbytes for part in self.more.values())


NOTHING = Sample((), ())


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


def cut(window: Window, spec: InputSpec, limits: Limits) -> tuple[Sample, list[Reject]]:
    """Cut a window's events to its borders and decode what the model needs; no other payload is opened.

    ``present`` and ``coverage`` are set for every sensor, from the events' spans where no payload is opened.

    Returns:
        The sample, and the events with a broken payload, each with its fault; the sample is made without these.

    Raises:
        LeftBehind: A needed payload did not come with the window: one that :func:`streamer.model.frames.opened` does
            not name, needed because a frame is broken; or any payload of a window that was too large to send whole.
    """
    rejects: list[Reject] = []
    present: list[bool] = []
    coverage: list[float] = []
    content: dict[str, Any] = {}
    more: dict[str, Sample] = {}
    mismatches: list[Mismatch] = []
    inputs = spec.all
    for sensor, events in zip(window.sensors.all, window.events, strict=True):
        wanted = inputs.get(sensor.name)
        found: dict[str, Any]
        if sensor.row == IMAGE:
            expected_hz = limits.expected_hz.get(sensor.name)
            image = wanted if isinstance(wanted, ImageInput) else None
            found, share = _cut_image(window, events, image, limits.max_image_pixels, expected_hz, rejects)
            here = share > 0
        elif sensor.row == AUDIO:
            audio = wanted if isinstance(wanted, AudioInput) else None
            found, share = _cut_audio(window, events, audio, rejects, mismatches)
            here = share > 0
        elif sensor.row == TEXT:
            phrases = _cut_text(window, events, rejects)
            found, here, share = {"text": phrases} if wanted else {}, bool(phrases), float(bool(phrases))
        else:
            blocks = _blocks(window, events, rejects)
            telemetry = wanted if isinstance(wanted, TelemetryInput) else None
            found, here = _cut_telemetry(window, telemetry, blocks), bool(blocks)
            share = _covered(window, [block.event for block in blocks])
        present.append(here)
        coverage.append(share)
        if sensor.name in KIND_NAMES:
            content |= found
        elif found:
            more[sensor.name] = Sample((), (), **found)
    sample = Sample(
        present=tuple(present),
        coverage=tuple(coverage),
        mismatches=tuple(mismatches),
        more=more,
        sensors=window.sensors,
        **content,
    )
    return sample, rejects


def _cut_image(
    window: Window,
    events: Sequence[Event],
    wanted: ImageInput | None,
    max_pixels: int,
    expected_hz: float | None,
    rejects: list[Reject],
) -> tuple[dict[str, Any], float]:
    frames = in_window(window, events)
    found: dict[int, NDArray[np.uint8]] = {}
    broken = 0
    if wanted is not None:
        for index in reading_order(len(frames), wanted.frames):
            if len(found) == wanted.frames:
                break
            try:
                found[index] = payloads.image(frames[index], wanted.height, wanted.width, max_pixels)
            except BadRecord as error:
                rejects.append((frames[index], error))
                broken += 1
    share = _image_share(len(frames) - broken, window, expected_hz)
    if wanted is None or not found:
        return {}, share
    image_FHW3 = np.zeros((wanted.frames, wanted.height, wanted.width, 3), np.uint8)
    for place, index in enumerate(sorted(found)):
        image_FHW3[place] = found[index]
    return {"image_FHW3": image_FHW3, "image_mask_F": np.arange(wanted.frames) < len(found)}, share


def _image_share(found: int, window: Window, expected_hz: float | None) -> float:
    if expected_hz is None:
        return float(found > 0)
    return min(1.0, found / max(1.0, expected_hz * (window.end_us - window.start_us) / 1e6))


def _cut_audio(
    window: Window,
    events: Sequence[Event],
    wanted: AudioInput | None,
    rejects: list[Reject],
    mismatches: list[Mismatch],
) -> tuple[dict[str, Any], float]:
    if wanted is None:
        return {}, _covered(window, events)
    size_us = window.end_us - window.start_us
    heard: dict[int, tuple[NDArray[np.float32], NDArray[np.bool_]]] = {}  # by rate: one resampling for all chunks
    for event in events:
        try:
            rate_hz, first, samples, surplus_us = payloads.audio(event, window.start_us, window.end_us)
        except BadRecord as error:
            rejects.append((event, error))
            continue
        if surplus_us:
            record, said_us = event.record, event.end_us - event.start_us
            mismatches.append(Mismatch(record.partition, record.offset, said_us, surplus_us))
        if len(samples):
            length = sample_index(size_us, rate_hz)
            audio_S, mask_S = heard.setdefault(rate_hz, (np.zeros(length, np.float32), np.zeros(length, np.bool_)))
            audio_S[first : first + len(samples)] = samples
            mask_S[first : first + len(samples)] = True
    if not heard:
        return {}, 0.0
    audio_S, mask_S = _one_rate(heard, wanted.rate_hz, sample_index(size_us, wanted.rate_hz))
    return {"audio_S": audio_S, "audio_mask_S": mask_S}, float(mask_S.mean())


def _one_rate(
    heard: dict[int, tuple[NDArray[np.float32], NDArray[np.bool_]]], rate_hz: int, length: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Resample every waveform to ``rate_hz`` and overlay them; where two have samples the last one counts."""
    audio_S, mask_S = np.zeros(length, np.float32), np.zeros(length, np.bool_)
    for own_hz, (own_S, own_mask_S) in heard.items():
        nearest_S = np.minimum((np.arange(length) * (own_hz / rate_hz)).astype(np.int64), len(own_S) - 1)
        valid_S = own_mask_S[nearest_S]
        resampled_S = own_S if own_hz == rate_hz else _resample(own_S, own_hz, rate_hz)
        count = min(length, len(resampled_S))
        np.copyto(audio_S[:count], resampled_S[:count], where=valid_S[:count])
        mask_S |= valid_S
    return audio_S, mask_S


def _resample(audio_S: NDArray[np.float32], own_hz: int, rate_hz: int) -> NDArray[np.float32]:
    ratio = Fraction(own_hz, rate_hz).limit_denominator(MAX_RATIO_TERM)
    resampled: NDArray[np.float32] = _resampler(ratio.numerator, ratio.denominator)(torch.from_numpy(audio_S)).numpy()
    return resampled


@lru_cache(maxsize=16)  # the kernel costs more than its use
def _resampler(own: int, target: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(own, target)


def _cut_text(window: Window, events: Sequence[Event], rejects: list[Reject]) -> tuple[Phrase, ...]:
    phrases = []
    for event in events:
        try:
            phrase = Phrase(*payloads.spoken(event, window.start_us, window.end_us))
        except BadRecord as error:
            rejects.append((event, error))
            continue
        if phrase.text and phrase.overlap > 0:
            phrases.append(phrase)
    return tuple(phrases)


class _Block(msgspec.Struct, frozen=True):
    """A telemetry event's samples in the window; times count from the window's start."""

    event: Event
    times_us: NDArray[np.float64]
    values: dict[str, NDArray[np.float64]]


def _blocks(window: Window, events: Sequence[Event], rejects: list[Reject]) -> list[_Block]:
    blocks = []
    for event in events:
        try:
            block = _block(event, window)
        except BadRecord as error:
            rejects.append((event, error))
            continue
        if block.times_us.size:
            blocks.append(block)
    return blocks


def _block(event: Event, window: Window) -> _Block:
    """The samples whose time is in ``[start, end)``."""
    body = payloads.telemetry(event)
    counts = {len(channel.values) for channel in body.channels.values()}
    if len(counts) > 1:
        raise BadRecord(Reason.BAD_PAYLOAD, "telemetry channels of one block differ in length")
    times_us = payloads.sample_times_us(event, body, window.start_us)
    inside = (times_us >= 0) & (times_us < window.end_us - window.start_us)
    values = {name: np.asarray(channel.values, np.float64)[inside] for name, channel in body.channels.items()}
    if not all(np.isfinite(row).all() for row in values.values()):
        raise BadRecord(Reason.BAD_PAYLOAD, "telemetry holds values that are not finite")
    return _Block(event, times_us[inside], values)


def _cut_telemetry(window: Window, wanted: TelemetryInput | None, blocks: list[_Block]) -> dict[str, Any]:
    """Interpolate linearly on the grid ``start + k / rate_hz``; the outermost samples' values extend outwards."""
    if wanted is None or not blocks:
        return {}
    length = sample_index(window.end_us - window.start_us, wanted.rate_hz)
    grid_us = np.arange(length, dtype=np.float64) * (1e6 / wanted.rate_hz)
    telemetry_CT = np.zeros((len(wanted.channels), length), np.float32)
    mask_CT = np.zeros((len(wanted.channels), length), np.bool_)
    for row, channel in enumerate(wanted.channels):
        carriers = [block for block in blocks if channel in block.values]
        if carriers:
            times_us = np.concatenate([block.times_us for block in carriers])
            values = np.concatenate([block.values[channel] for block in carriers])
            order = np.argsort(times_us, kind="stable")
            telemetry_CT[row] = np.interp(grid_us, times_us[order], values[order])
            mask_CT[row] = _within(grid_us, carriers, window)
            mask_CT[row, np.minimum((times_us * (wanted.rate_hz / 1e6)).astype(np.int64), length - 1)] = True
            if channel in wanted.relative:
                measured = telemetry_CT[row, mask_CT[row]]
                telemetry_CT[row] = (telemetry_CT[row] - measured.mean()) / max(measured.std(), LEAST_DEVIATION)
    return {"telemetry_CT": telemetry_CT, "telemetry_mask_CT": mask_CT}


def _within(grid_us: NDArray[np.float64], blocks: list[_Block], window: Window) -> NDArray[np.bool_]:
    """Which grid points are in the span of a block."""
    mask = np.zeros(len(grid_us), np.bool_)
    for block in blocks:
        start_us, end_us = block.event.start_us - window.start_us, block.event.end_us - window.start_us
        mask |= (grid_us >= start_us) & (grid_us < end_us)
    return mask


def _covered(window: Window, events: Iterable[Event]) -> float:
    """Share of the window that the union of the events' spans covers."""
    covered_us, reached_us = 0, window.start_us
    for event in sorted(events, key=lambda event: event.start_us):
        start_us, end_us = max(event.start_us, reached_us), min(event.end_us, window.end_us)
        covered_us += max(0, end_us - start_us)
        reached_us = max(reached_us, end_us)
    return covered_us / (window.end_us - window.start_us)
