"""Telemetry: blocks of named channels sampled together. Their time is inside, so alignment parses them."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import msgspec

from streamer.errors import BadRecord, Reason
from streamer.kinds.bodies import RateHz, Seconds, Span, TimedKind, parsed, spanned
from streamer.kinds.kind import KindOfInput


class TelemetryInput(KindOfInput, frozen=True, tag="telemetry"):
    """Named channels on a regular grid.

    Attributes:
        relative: Channels whose zero and scale mean nothing, such as an ECG of any lead and amplifier: each window of
            them is brought to mean 0 and deviation 1.
    """

    channels: tuple[str, ...]
    rate_hz: float
    relative: tuple[str, ...] = ()

    def problem(self) -> str | None:
        if not self.channels:
            return "channels is empty"
        if unknown := set(self.relative) - set(self.channels):
            return f"relative: {min(unknown)} is none of its channels"
        return None


class Channel(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One telemetry channel of a block: values with a unit, e.g. ``{"unit": "m/s", "values": [13.9, 14.0]}``."""

    values: Annotated[tuple[float, ...], msgspec.Meta(min_length=1)]
    unit: str = ""


class Telemetry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Payload of ``streamer.telemetry.v1``: named channels sampled together.

    Either ``times`` (seconds relative to ``ce_time``, one for each sample, ascending) or ``rate_hz`` with ``start``
    (seconds relative to ``ce_time``).
    """

    channels: Annotated[dict[str, Channel], msgspec.Meta(min_length=1)]
    times: Annotated[tuple[Seconds, ...], msgspec.Meta(min_length=1)] | None = None
    rate_hz: RateHz | None = None
    start: Seconds = 0.0


_blocks: msgspec.json.Decoder[Telemetry] = msgspec.json.Decoder(Telemetry)


def parse_telemetry(payload: bytes) -> tuple[Telemetry, Span]:
    """Parse a telemetry block.

    A sample stands for the time until the next one: N samples at a rate last N periods; with sample times the last one
    lasts as long as the mean of the others, a lone one no time at all.

    Raises:
        BadRecord: BAD_JSON if it does not parse, BAD_PAYLOAD if it is no telemetry block.
    """
    body = parsed(_blocks, payload)
    if (body.times is None) == (body.rate_hz is None):
        raise BadRecord(Reason.BAD_PAYLOAD, "exactly one of times and rate_hz must be given")
    count, *others = {len(channel.values) for channel in body.channels.values()}
    if others:
        raise BadRecord(Reason.BAD_PAYLOAD, "channels must be equally long")
    if body.rate_hz is None:
        return body, _timed(body.times or (), count)
    return body, spanned(body.start, body.start + count / body.rate_hz, "telemetry block")


def _timed(times: tuple[float, ...], count: int) -> Span:
    if len(times) != count:
        raise BadRecord(Reason.BAD_PAYLOAD, f"{len(times)} times for {count} samples")
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise BadRecord(Reason.BAD_PAYLOAD, "times must ascend")
    step = (times[-1] - times[0]) / (count - 1) if count > 1 else 0.0
    return spanned(times[0], times[-1] + step, "telemetry block")


class Measurements(TimedKind):
    """See the module."""

    name = "telemetry"
    topic = "telemetry"
    ce_type = "streamer.telemetry.v1"
    content_types = ("application/json",)
    input = TelemetryInput
    model = "streamer.model.kinds.telemetry:Grids"
    column = "streamer.training.data.columns:Measurements"
    parse = staticmethod(parse_telemetry)
