"""What a window costs: the model of costs that ``make bench-growth`` fits to its measurements. Pure arithmetic.

    CPU ms a window = window + record · records + megabyte · MB of payload              Kafka to Redis
                    + frame · frames decoded + megabyte decoded · MB of frames decoded   decoding
                    + model + model second · seconds in a window                         models/driving on a CPU

The coefficients are in ``costs.json``, which only ``python -m bench.growth --record`` writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import NamedTuple

import msgspec

MB = 1_000_000


class Window(msgspec.Struct, frozen=True):
    """A window, as far as its costs depend on it.

    Attributes:
        records: Its Kafka records, of all sensors.
        payload_mb: Their payloads, 10^6 bytes.
        frames_decoded: Frames that the model uses.
        decoded_mb: The bytes of these frames, 10^6 bytes.
        seconds: Its length.
    """

    records: float
    payload_mb: float
    frames_decoded: float
    decoded_mb: float
    seconds: float


class Coefficients(msgspec.Struct, frozen=True):
    """CPU ms of each thing in a window."""

    window: float
    record: float
    megabyte: float
    frame: float
    megabyte_decoded: float
    model: float
    model_second: float

    def transport_ms(self, window: Window) -> float:
        """CPU ms of a window from Kafka to Redis, without decoding and model."""
        return self.window + self.record * window.records + self.megabyte * window.payload_mb

    def decode_ms(self, window: Window) -> float:
        """CPU ms of decoding its payloads."""
        return self.frame * window.frames_decoded + self.megabyte_decoded * window.decoded_mb

    def model_ms(self, window: Window) -> float:
        """CPU ms of ``models/driving``, in batches of 32."""
        return self.model + self.model_second * window.seconds

    def window_ms(self, window: Window) -> float:
        """CPU ms of all of it."""
        return self.transport_ms(window) + self.decode_ms(window) + self.model_ms(window)


class Span(msgspec.Struct, frozen=True):
    """The range of what was measured; a value up to a tenth beyond it counts as in it."""

    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Span:
        """Of at least one value."""
        return cls(min(values), max(values))

    def __contains__(self, value: float) -> bool:
        return self.low / 1.1 <= value <= self.high * 1.1


class Others(msgspec.Struct, frozen=True):
    """What a simulated feed sends a second beside its frames: audio, text, telemetry."""

    records: float
    payload_bytes: float


class Costs(msgspec.Struct, frozen=True):
    """``costs.json``.

    Attributes:
        command, at, machine, versions: Where the figures come from.
        coefficients: Fitted.
        fit_error: Largest relative difference of prediction and measurement among the points of the fit.
        check: Predicted ÷ measured of points that were not in the fit.
        paced: CPU time of a window at the feeds' own pace ÷ at saturation, where batches are full; the most of several.
        paced_share: At which share of saturation that was.
        worker_mib: The most memory that a worker ever had resident, in the usual run, MiB.
        header_bytes: Key and headers of a record.
        redis_bytes: What a result sends to Redis.
        redis_stored_bytes: What a result takes in Redis' memory.
        usual_fps, usual_frame_kb: Frames of a simulated feed.
        others: What it sends beside them.
        measured: Spans beyond which a prediction extrapolates.
    """

    command: str
    at: str
    machine: str
    versions: dict[str, str]
    coefficients: Coefficients
    fit_error: float
    check: Span
    paced: float
    paced_share: float
    worker_mib: float
    header_bytes: float
    redis_bytes: float
    redis_stored_bytes: float
    usual_fps: float
    usual_frame_kb: float
    others: Others
    measured: dict[str, Span]


class Fact(NamedTuple):
    """One line of ``measured``: its name for people, and its unit."""

    name: str
    unit: str


MEASURED = {
    "frame_kb": Fact("frames", "KB"),
    "frames_per_window": Fact("frames in a window", ""),
    "window_ms": Fact("windows", "ms"),
    "frames_decoded": Fact("frames decoded a window", ""),
    "sessions": Fact("feeds of a worker", ""),
    "partitions": Fact("partitions of a worker", ""),
    "workers": Fact("workers", ""),
}


def load() -> Costs:
    """The recorded costs."""
    return msgspec.json.decode(files("streamer.operate").joinpath("costs.json").read_bytes(), type=Costs)
