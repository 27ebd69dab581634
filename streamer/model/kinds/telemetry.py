"""What models do with telemetry: named channels on a regular grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor, nn

from streamer.errors import BadRecord, Reason
from streamer.events import Event, Window
from streamer.kinds.telemetry import TelemetryInput
from streamer.model import payloads
from streamer.model.handling import Cut, Cutting, Handling, covered
from streamer.model.kinds.stacking import masks, stacked
from streamer.model.nets import architecture as named
from streamer.model.nets.architecture import either
from streamer.model.nets.build import Plan, grouped
from streamer.model.nets.encoders.telemetry import TelemetryCnn, TelemetryGru, TelemetryTransformer
from streamer.model.sample import Sample
from streamer.model.sounds import sample_index

LEAST_DEVIATION = 1e-6  # of a channel that a model takes relative to it: a flat line is 0, not noise of rounding


class Grids(Handling[TelemetryInput]):
    """See the module."""

    fields = ("telemetry_BCT", "telemetry_mask_BCT")

    def cut(self, sensor: str, events: Sequence[Event], wanted: TelemetryInput | None, cutting: Cutting) -> Cut:
        window = cutting.window
        blocks = []
        for event in events:
            try:
                block = _block(event, window)
            except BadRecord as error:
                cutting.rejects.append((event, error))
                continue
            if block.times_us.size:
                blocks.append(block)
        return Cut(_gridded(window, wanted, blocks), bool(blocks), covered(window, [block.event for block in blocks]))

    def collate(
        self, samples: Sequence[Sample], wanted: TelemetryInput, tokenizer: Tokenizer | None
    ) -> dict[str, Tensor]:
        steps = max((s.telemetry_CT.shape[1] for s in samples if s.telemetry_CT is not None), default=0)
        shape = (len(wanted.channels), steps or round(wanted.rate_hz) or 1)
        telemetry_BCT = stacked([sample.telemetry_CT for sample in samples], shape, np.float32)
        return {
            "telemetry_BCT": torch.from_numpy(telemetry_BCT),
            "telemetry_mask_BCT": masks([sample.telemetry_mask_CT for sample in samples], shape),
        }

    def lengths(self, wanted: TelemetryInput, window_ms: int) -> dict[str, int]:
        return dict.fromkeys(self.fields, int(window_ms * wanted.rate_hz / 1000))

    def dimensions(self, wanted: TelemetryInput, tokenizer: Tokenizer | None) -> dict[str, object]:
        return {"telemetry_channels": len(wanted.channels)}

    def encoder(self, plan: Plan) -> nn.Module:
        options, sizes, inputs = plan.architecture.options("telemetry"), plan.sizes, plan.data.telemetry_channels
        assert inputs is not None
        match options:
            case named.TelemetryCnn():
                return TelemetryCnn(
                    inputs, grouped("telemetry", either(options.channels, sizes.telemetry)), sizes.width
                )
            case named.TelemetryGru():
                return TelemetryGru(inputs, either(options.layers, sizes.encoder_layers), sizes.width)
            case named.TelemetryTransformer():
                layers = either(options.layers, sizes.encoder_layers)
                return TelemetryTransformer(inputs, options.patch, layers, sizes.heads, sizes.width, sizes.dropout)
            case _:
                raise AssertionError(options)


class _Block(msgspec.Struct, frozen=True):
    """A telemetry event's samples in the window; times count from the window's start."""

    event: Event
    times_us: NDArray[np.float64]
    values: dict[str, NDArray[np.float64]]


def _block(event: Event, window: Window) -> _Block:
    """The samples whose time is in ``[start, end)``."""
    body = payloads.telemetry(event)
    counts = {len(channel.values) for channel in body.channels.values()}
    if len(counts) > 1:
        raise BadRecord(Reason.BAD_PAYLOAD, "telemetry channels of one block differ in length")
    times_us = payloads.sample_times_us(event, body, window.start_us)
    inside = (times_us >= 0) & (times_us < window.end_us - window.start_us)
    values_CT = np.array([channel.values for channel in body.channels.values()], np.float64)
    if not inside.all():
        times_us, values_CT = times_us[inside], values_CT[..., inside]
    if not np.isfinite(values_CT).all():
        raise BadRecord(Reason.BAD_PAYLOAD, "telemetry holds values that are not finite")
    return _Block(event, times_us, dict(zip(body.channels, values_CT, strict=True)))


def _gridded(window: Window, wanted: TelemetryInput | None, blocks: list[_Block]) -> dict[str, Any]:
    """Interpolate linearly on the grid ``start + k / rate_hz``; the outermost samples' values extend outwards."""
    if wanted is None or not blocks:
        return {}
    length = sample_index(window.end_us - window.start_us, wanted.rate_hz)
    grid_us = np.arange(length, dtype=np.float64) * (1e6 / wanted.rate_hz)
    telemetry_CT = np.zeros((len(wanted.channels), length), np.float32)
    mask_CT = np.zeros((len(wanted.channels), length), np.bool_)
    sampled: dict[tuple[int, ...], _Sampled] = {}  # by the blocks that have a channel: most have the same
    for row, channel in enumerate(wanted.channels):
        numbers = tuple(number for number, block in enumerate(blocks) if channel in block.values)
        if numbers:
            carriers = [blocks[number] for number in numbers]
            if numbers not in sampled:
                sampled[numbers] = _sampled(grid_us, carriers, window, wanted.rate_hz)
            times_us, order, mask_CT[row] = sampled[numbers]
            values = np.concatenate([block.values[channel] for block in carriers])
            telemetry_CT[row] = np.interp(grid_us, times_us, values[order])
            if channel in wanted.relative:
                measured = telemetry_CT[row, mask_CT[row]]
                telemetry_CT[row] = (telemetry_CT[row] - measured.mean()) / max(measured.std(), LEAST_DEVIATION)
    return {"telemetry_CT": telemetry_CT, "telemetry_mask_CT": mask_CT}


class _Sampled(NamedTuple):
    """When a channel was sampled.

    Attributes:
        times_us: Ascending.
        order: Of the blocks' values.
        mask: The grid points in the span of a block, or nearest before a sample.
    """

    times_us: NDArray[np.float64]
    order: NDArray[np.int64]
    mask: NDArray[np.bool_]


def _sampled(grid_us: NDArray[np.float64], blocks: list[_Block], window: Window, rate_hz: float) -> _Sampled:
    times_us = np.concatenate([block.times_us for block in blocks])
    order = np.argsort(times_us, kind="stable")
    mask = np.zeros(len(grid_us), np.bool_)
    for block in blocks:
        spans_us = block.event.start_us - window.start_us, block.event.end_us - window.start_us
        first, last = np.searchsorted(grid_us, spans_us)
        mask[first:last] = True
    mask[np.minimum((times_us * (rate_hz / 1e6)).astype(np.int64), len(grid_us) - 1)] = True
    return _Sampled(times_us[order], order, mask)
