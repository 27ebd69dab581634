"""How large a deployment must be: arithmetic on the measured costs of a window. Imports no PyTorch and starts nothing.

Each number comes with its basis: a measurement (``costs.json``, by ``python -m bench.growth --record``) or arithmetic
on settings. ``warnings`` names what is outside the measured range.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from streamer.errors import UsageError
from streamer.events import EVENT_BYTES, HEADER_BYTES, IMAGE, KIND_NAMES, KINDS, RECORD_BYTES
from streamer.model.spec import ImageInput, read_spec
from streamer.operate.costs import MB, MEASURED, Costs, Others, Window
from streamer.settings import MIB, Settings

BUSY = (
    0.7  # share of its core that a worker may use; the rest is for catching up and for taking over from a dead worker
)
USUAL_PARTITIONS, MOST_PARTITIONS = 12, 1000  # the setting's default and its limit
STEP = 6  # above the usual partitions, workers are a multiple of this, so that fewer can share evenly too
MEMORY_MARGIN = 1.25  # times the largest resident memory that was measured
OBJECT_BYTES = RECORD_BYTES + EVENT_BYTES + 7 * HEADER_BYTES  # of a record with its usual headers, see events.py
FEEDS = (12, 60, 120, 240, 720)  # of the table in k8s/README.md


class Sending(msgspec.Struct, frozen=True):
    """What sensors of a feed send that are alike.

    Attributes:
        kind: Of the table of kinds.
        hz: Records a second of each.
        kb: Size of a record, 1,000 bytes.
        count: How many sensors.
    """

    kind: str
    hz: float
    kb: float
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Sending:
        """``KIND:HZ:KB`` or ``KIND:HZ:KB:COUNT``.

        Raises:
            UsageError: It is something else.
        """
        kind, *rest = text.split(":")
        try:
            hz, kb, count = float(rest[0]), float(rest[1]), int(rest[2]) if len(rest) > 2 else 1
        except (IndexError, ValueError):
            hz = kb = count = 0
        right = len(rest) <= 3 and 0 < hz < math.inf and 0 < kb < math.inf and count > 0
        if kind not in KIND_NAMES or not right:
            raise UsageError(
                f"--sensor is KIND:HZ:KB or KIND:HZ:KB:COUNT with one of {', '.join(KIND_NAMES)} and numbers above 0, "
                f"e.g. image:10:60:6 for six cameras, not {text!r}"
            )
        return cls(kind, hz, kb, count)

    @property
    def records_per_s(self) -> float:
        return self.count * self.hz

    @property
    def bytes_per_s(self) -> float:
        return self.records_per_s * self.kb * 1000


class Demand(msgspec.Struct, frozen=True):
    """What is to be processed.

    Attributes:
        fps: Frames a second of a feed, of all its cameras.
        frame_kb: Mean size of a frame, 1,000 bytes.
        decoded: Frames of a window that the model uses.
        model_cpu_ms: CPU ms of the model a window; ``None``: as measured for ``models/driving``.
        model_gpu_ms: GPU time of a window, ms; ``None`` if unknown.
        sensors: All that a feed sends, where it is known; else it sends, beside its frames, what ``streamer simulate``
            sends.
    """

    feeds: int
    fps: float
    frame_kb: float
    window_ms: int
    decoded: int = 2
    model_cpu_ms: float | None = None
    model_gpu_ms: float | None = None
    sensors: tuple[Sending, ...] = ()

    @classmethod
    def of(cls, feeds: int, sensors: Sequence[Sending], window_ms: int, **more: Any) -> Demand:
        """The demand of feeds with these sensors, and no others."""
        cameras = [one for one in sensors if one.kind == KIND_NAMES[IMAGE]]
        fps = sum(one.records_per_s for one in cameras)
        frame_kb = sum(one.bytes_per_s for one in cameras) / 1000 / fps if cameras else 0
        return cls(feeds, fps, frame_kb, window_ms, **more, sensors=tuple(sensors))

    def others(self, costs: Costs) -> Others:
        """What a feed sends beside its frames."""
        if not self.sensors:
            return costs.others
        rest = [one for one in self.sensors if one.kind != KIND_NAMES[IMAGE]]
        return Others(sum(one.records_per_s for one in rest), sum(one.bytes_per_s for one in rest))

    def __post_init__(self) -> None:
        limits = {"feeds": 1, "window-ms": 10, "fps": 0, "frame-kb": 0, "frames": 0, "cpu-ms": 0, "gpu-ms": 0}
        shape = (self.feeds, self.window_ms, self.fps, self.frame_kb, self.decoded)
        values = (*shape, self.model_cpu_ms or 0, self.model_gpu_ms or 0)
        for (name, least), value in zip(limits.items(), values, strict=True):
            if not math.isfinite(value) or value < least:
                raise UsageError(f"--{name} is a finite number of at least {least}, not {value:g}")
        if (self.fps > 0) != (self.frame_kb > 0):
            raise UsageError("--fps and --frame-kb go together: both above 0, or both 0 for feeds without frames")


class Line(msgspec.Struct, frozen=True):
    """One number of a size.

    Attributes:
        name: What it is, with its unit.
        value: ``None`` if unknown.
        basis: The measurement or arithmetic behind it.
    """

    name: str
    value: float | None
    basis: str


class Size(msgspec.Struct, frozen=True):
    """What a demand needs.

    Attributes:
        sensors: What those of each kind send, where the demand says it.
        warnings: What was not measured, and which setting is too small.
    """

    sensors: tuple[Line, ...]
    records_per_s: Line
    windows_per_s: Line
    cpu_ms_per_window: Line
    cpu_cores: Line
    workers: Line
    partitions: Line
    memory_mib: Line
    open_mib: Line
    kafka_in_mb_per_s: Line
    redis_in_mb_per_s: Line
    redis_memory_mib: Line
    batch_windows: Line
    gpu_share: Line
    warnings: tuple[str, ...]

    def lines(self) -> list[Line]:
        """All numbers, in order."""
        return [*self.sensors, *(value for value in msgspec.structs.astuple(self) if isinstance(value, Line))]


def of_model(folder: Path, *, cost_given: bool = False) -> tuple[int, int]:
    """Window length in ms and frames a window, of all cameras, of a model folder; reads only ``model.toml``.

    Raises:
        ModelError: There is no ``model.toml``, or it is invalid.
        UsageError: Nothing is known of the model's cost, and none is given.
    """
    spec = read_spec(folder)
    if spec.senses is not None and not cost_given:
        raise UsageError(
            f"{folder} is made of ready senses, whose cost is not that of models/driving: give it as --cpu-ms "
            "(docs/benchmarks.md has what was measured)"
        )
    return spec.window_ms, sum(one.frames for one in spec.inputs.all.values() if isinstance(one, ImageInput))


def window_of(demand: Demand, costs: Costs) -> Window:
    """The mean window of a demand."""
    seconds = demand.window_ms / 1000
    frames = demand.fps * seconds
    decoded = min(demand.decoded, frames)
    others = demand.others(costs)
    return Window(
        records=frames + others.records * seconds,
        payload_mb=(frames * demand.frame_kb * 1000 + others.payload_bytes * seconds) / MB,
        frames_decoded=decoded,
        decoded_mb=decoded * demand.frame_kb * 1000 / MB,
        seconds=seconds,
    )


def size(demand: Demand, costs: Costs, settings: Settings) -> Size:
    """What a demand needs.

    Raises:
        UsageError: More than :data:`MOST_PARTITIONS` workers would be needed, or a frame exceeds a message.
    """
    largest_kb = max((demand.frame_kb, *(one.kb for one in demand.sensors)))
    if largest_kb * 1000 > settings.max_message_bytes:
        raise UsageError(
            f"a record of {largest_kb:g} KB exceeds the largest message, {settings.max_message_bytes} bytes "
            "(STREAMER_MAX_MESSAGE_BYTES)"
        )
    window, c = window_of(demand, costs), costs.coefficients
    per_s = demand.feeds / window.seconds
    model_ms = c.model_ms(window) if demand.model_cpu_ms is None else demand.model_cpu_ms
    transport_ms, decode_ms = c.transport_ms(window), c.decode_ms(window)
    margin = max(1.0, 1 / costs.check.low)
    cpu_ms = (transport_ms + decode_ms + model_ms) * costs.paced * margin
    cores = per_s * cpu_ms / 1000
    workers, partitions = shared(cores)
    each = math.ceil(partitions / workers)
    in_bytes = per_s * (window.payload_mb * MB + window.records * costs.header_bytes)
    batch = min(settings.max_batch, max(1.0, per_s / workers * settings.max_wait_ms / 1000))
    records_per_s = per_s * window.records
    model_basis = "measured for models/driving" if demand.model_cpu_ms is None else "--cpu-ms"
    open_s = window.seconds + settings.longest_delay_ms / 1000
    held_bytes = window.payload_mb * MB + window.records * (costs.header_bytes + OBJECT_BYTES)
    open_bytes = per_s / workers * held_bytes * open_s
    return Size(
        sensors=tuple(_sensor_line(one, demand.feeds) for one in demand.sensors),
        records_per_s=Line(
            "records, 1/s",
            records_per_s,
            f"feeds × (--fps + {costs.others.records:.3g} of audio, text and telemetry, as `streamer simulate` sends)"
            if not demand.sensors
            else "feeds × records of all sensors",
        ),
        windows_per_s=Line("windows, 1/s", per_s, "feeds ÷ --window-ms"),
        cpu_ms_per_window=Line(
            "CPU of a window, ms",
            cpu_ms,
            f"fitted: ({transport_ms:.3g} Kafka to Redis + {decode_ms:.3g} decoding + {model_ms:.3g} model, "
            f"{model_basis}) × {costs.paced:.3g} for batches that are less full, "
            f"measured at {costs.paced_share:.0%} of saturation, × {margin:.3g} by which the fit fell short of "
            "what was not fitted",
        ),
        cpu_cores=Line("CPU, cores", cores, "windows a second × CPU of a window"),
        workers=Line(
            "workers",
            workers,
            f"a worker was measured on one core, of which it may use {BUSY:.0%}; a divisor of the partitions",
        ),
        partitions=Line(
            "partitions of each source topic",
            partitions,
            f"arithmetic: {USUAL_PARTITIONS}, or two for each worker if there are more workers, for room to grow",
        ),
        memory_mib=Line(
            "memory limit of a worker, MiB",
            costs.worker_mib * MEMORY_MARGIN + bounds_mib(each, settings),
            f"{costs.worker_mib:.0f} measured at most × {MEMORY_MARGIN}, and what settings allow to be held on "
            f"{each} partitions",
        ),
        open_mib=Line(
            "open windows of a worker, MiB",
            open_bytes / MIB,
            f"what its feeds send in {open_s:.3g} s: a window, and the longest that it waits for a sensor",
        ),
        kafka_in_mb_per_s=Line(
            "Kafka in, and out to workers, MB/s",
            in_bytes / MB,
            f"payloads, and {costs.header_bytes:.0f} bytes of key and headers a record, measured; "
            "times the replicas on the brokers' disks",
        ),
        redis_in_mb_per_s=Line(
            "Redis in, MB/s", per_s * costs.redis_bytes / MB, f"{costs.redis_bytes:.0f} bytes a result, measured"
        ),
        redis_memory_mib=Line(
            "Redis memory once full, MiB",
            demand.feeds * settings.results_maxlen * costs.redis_stored_bytes / MIB,
            f"{costs.redis_stored_bytes:.0f} bytes a result, measured × {settings.results_maxlen:,} results a feed "
            "(STREAMER_RESULTS_MAXLEN)",
        ),
        batch_windows=Line(
            "windows in a batch",
            batch,
            f"arithmetic: windows a second of a worker × STREAMER_MAX_WAIT_MS, 1 to {settings.max_batch}; if ends of "
            "windows are spread evenly",
        ),
        gpu_share=Line(
            "GPUs kept busy",
            None if demand.model_gpu_ms is None else per_s * demand.model_gpu_ms / 1000,
            "no GPU was measured: give --gpu-ms, streamer_stage_seconds of stage infer ÷ windows"
            if demand.model_gpu_ms is None
            else "windows a second × --gpu-ms",
        ),
        warnings=(*_warnings(demand, costs, workers, each), *_too_small(open_bytes, settings)),
    )


def _sensor_line(one: Sending, feeds: int) -> Line:
    each = f"{one.count} sensors × " if one.count > 1 else ""
    return Line(f"{one.kind}, MB/s", feeds * one.bytes_per_s / MB, f"feeds × {each}{one.hz:g} Hz × {one.kb:g} KB")


def _too_small(open_bytes: float, settings: Settings) -> Iterator[str]:
    if open_bytes > settings.max_open_bytes:
        yield (
            f"windows would close early for lack of memory: STREAMER_MAX_OPEN_BYTES is {settings.max_open_bytes}, set "
            f"it to {math.ceil(MEMORY_MARGIN * open_bytes / MIB) * MIB}"
        )


def shared(cores: float) -> tuple[int, int]:
    """Workers for this many cores, and partitions that they share evenly.

    Raises:
        UsageError: There would be more partitions than a topic may have.
    """
    wanted = max(1, math.ceil(cores / BUSY))
    if wanted <= USUAL_PARTITIONS:
        return next(n for n in range(wanted, USUAL_PARTITIONS + 1) if USUAL_PARTITIONS % n == 0), USUAL_PARTITIONS
    workers = STEP * math.ceil(wanted / STEP)
    if 2 * workers > MOST_PARTITIONS:
        raise UsageError(
            f"this takes {workers:,} workers, and a topic has at most {MOST_PARTITIONS} partitions, two for each: "
            "split the feeds over several deployments with separate topics"
        )
    return workers, 2 * workers


def bounds_mib(partitions: int, settings: Settings) -> float:
    """What settings allow a worker with this many partitions to hold, MiB: FIFOs plus a message each, and windows."""
    fifos = len(KINDS) * partitions * (settings.fifo_bytes + settings.max_message_bytes)
    return (fifos + settings.max_open_bytes + settings.max_inflight_bytes) / MIB


def _warnings(demand: Demand, costs: Costs, workers: int, partitions_each: int) -> list[str]:
    frames = demand.fps * demand.window_ms / 1000
    values = {
        "frame_kb": demand.frame_kb,
        "frames_per_window": frames,
        "window_ms": demand.window_ms,
        "frames_decoded": min(demand.decoded, frames),
        "sessions": demand.feeds / workers,
        "partitions": partitions_each,
        "workers": workers,
    }
    found = []
    for name, (what, unit) in MEASURED.items():
        span = costs.measured[name]
        if values[name] not in span:
            asked = f"{values[name]:.4g} {unit}".strip()
            found.append(f"{what}: {asked}, measured {span.low:.4g} to {span.high:.4g}: extrapolated")
    return found


# the table of k8s/README.md


def feeds_table(costs: Costs) -> str:
    """Markdown: sizes for several numbers of feeds as ``streamer simulate`` sends them, with the default settings."""
    settings = Settings.model_construct()
    usual = Demand(1, costs.usual_fps, round(costs.usual_frame_kb, 1), settings.window_ms)
    command = f"streamer size --feeds N --fps {usual.fps:g} --frame-kb {usual.frame_kb:g} --window-ms {usual.window_ms}"
    rows = [
        f"`{command}`, measured by `{costs.command}`, {costs.at}, {costs.machine}:",
        "",
        "| feeds | records/s | cores | workers | partitions | memory limit of a worker, MiB | Kafka in, MB/s |",
        "|---|---|---|---|---|---|---|",
    ]
    for feeds in FEEDS:
        found = size(msgspec.structs.replace(usual, feeds=feeds), costs, settings)
        cells = [found.records_per_s, found.cpu_cores, found.workers, found.partitions, found.memory_mib]
        rows.append(f"| {feeds} | {' | '.join(shown(cell) for cell in [*cells, found.kafka_in_mb_per_s])} |")
    return "\n".join(rows)


def shown(line: Line) -> str:
    """The number as text: whole if it is a count or large, else three digits."""
    if line.value is None:
        return "unknown"
    return f"{line.value:,.0f}" if line.value == int(line.value) or line.value >= 100 else f"{line.value:.3g}"
