"""How the cost of a window grows: with sessions, partitions, workers, the size of frames and the length of windows.

    python -m bench.growth                             # everything, 20 minutes on 2 cores
    python -m bench.growth --axes sessions             # this alone; the rest is taken from the last run in --out
    python -m bench.growth --record                    # writes the page, streamer/costs.json and k8s/README.md too

A worker reads full topics to their end, as in ``bench.pipeline``; several workers share one core, are measured from the
moment when all are ready, and their CPU time is added. *pace* is a load in real time (``bench/load.py``). *check*
is measured and not fitted. Payloads are those of a few drives under many names (``bench/feeds.py``).

The axes *frames*, *windows* and *decoded* run decoding and model alone as well (``bench/alone.py``); from
these points ``bench/fit.py`` fits the costs that ``streamer size`` reckons with.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np
import redis

from bench import batching, feeds, fit, rig
from bench.feeds import Feed, Sent
from bench.rig import Bare, Curve, Figure, Plot, Program, Report, Rig, Run, Spread
from streamer.events import IMAGE
from streamer.local.worker import environment
from streamer.operate.costs import Window
from streamer.settings import MIB, Settings
from streamer.store import results

MODEL = rig.ROOT / "models" / "driving"
FLAT = 1.1  # the aim: ten times, or a thousand times, as many cost as much a window
COUNTS = ("sessions", "partitions", "workers")  # of which more should cost no more
NEEDED = ("frames", "windows", "pace", "check")  # for the fit; without the others there is less to report
SHARES, QUICK_SHARES, OFFERED_S, QUICK_OFFERED_S = (0.25, 0.5), (0.25,), 10, 5


class Config(msgspec.Struct, frozen=True):
    """What is run.

    Attributes:
        name: In tables: the value that the axis varies.
        x: The same as a number.
        decoded: Frames that the model asks for.
    """

    name: str
    x: float
    feed: Feed
    partitions: int = rig.PARTITIONS
    workers: int = 1
    window_ms: int = 1000
    decoded: int = 2

    @property
    def windows(self) -> int:
        """Results that a reader of all of it owes."""
        return self.feed.sessions * self.feed.seconds * 1000 // self.window_ms


class Paced(msgspec.Struct, frozen=True):
    """A load in real time.

    Attributes:
        share: Of the windows a second at saturation.
        cpu_ms: Of a window, ms, what the worker does when idle included.
        behind_ms: How far the load was behind its schedule, p99; None: not kept.
        redis_bytes, stored_bytes: Of a result: sent to Redis, and taken there.
    """

    share: float
    windows_per_s: float
    cpu_ms: float
    saturated_ms: float
    latency_ms: tuple[float, float]
    idle_cores: float
    redis_bytes: float
    stored_bytes: float
    behind_ms: float | None = None


class Point(msgspec.Struct, frozen=True):
    """What came of a configuration.

    Attributes:
        runs: One a round.
        bare_ms, predict_ms: CPU of a window without Kafka and Redis, and of the model alone; None: not measured.
        at: When.
    """

    axis: str
    config: Config
    runs: tuple[Run, ...]
    sent: Sent
    at: str
    bare_ms: float | None = None
    predict_ms: float | None = None
    paced: tuple[Paced, ...] = ()

    @property
    def cpu_ms(self) -> Spread:
        return Spread.of([run.cpu_ms_per_window for run in self.runs])

    @property
    def peak_mib(self) -> float:
        return max(run.peak_bytes for run in self.runs) / MIB

    @property
    def window(self) -> Window:
        """The mean one."""
        share, frame_bytes = 1 / self.config.windows, self.sent.bytes[IMAGE] / self.sent.records[IMAGE]
        decoded = min(self.config.decoded, self.sent.records[IMAGE] * share)
        return Window(
            records=sum(self.sent.records) * share,
            payload_mb=sum(self.sent.bytes) * share / 1e6,
            frames_decoded=decoded,
            decoded_mb=decoded * frame_bytes / 1e6,
            seconds=self.config.window_ms / 1000,
        )


def axes(quick: bool) -> dict[str, list[Config]]:
    """What is varied, and what beside it."""
    usual = Feed(8, 10) if quick else Feed(16, 40)
    sessions = ((1, 80), (40, 2)) if quick else ((1, 1000), (50, 20), (1000, 1))
    frames = ((10, Feed(8, 5)), (100, Feed(8, 5)))
    windows = ((500, Feed(8, 5)), (2000, Feed(8, 10)))
    if not quick:
        frames = ((200, Feed(8, 10)), (1000, Feed(4, 10)))
        windows = ((100, Feed(16, 4)), (1000, Feed(16, 20)), (10_000, Feed(16, 40)))
    large = Feed(8, 5, frame_kb=100) if quick else Feed(8, 10, frame_kb=200)
    return {
        "windows": [Config(f"{ms / 1000:g} s", ms / 1000, feed, window_ms=ms) for ms, feed in windows],
        "frames": [Config(f"{kb:,} KB", kb, msgspec.structs.replace(feed, frame_kb=kb)) for kb, feed in frames],
        "sessions": [Config(f"{n:,}", n, Feed(n, s)) for n, s in sessions],
        "partitions": [
            Config(str(n), n, Feed(8, 10) if quick else Feed(64, 20), partitions=n)
            for n in ((1, 8) if quick else (1, 8, 64))
        ],
        "workers": [
            Config(str(n), n, Feed(8, 40) if quick else Feed(32, 60), partitions=8, workers=n)
            for n in ((1, 2) if quick else (1, 2, 4))
        ],
        "decoded": [Config(str(n), n, large, decoded=n) for n in (8,)],
        "pace": [Config("as simulated", 1, usual)],
        "check": [
            Config("5 frames a second of 100 KB, 2 s", 1, Feed(8, 20, 5, 100), window_ms=2000),
            Config("20 frames a second of 30 KB, 0.5 s", 2, Feed(8, 20, 20, 30), window_ms=500),
        ][: 1 if quick else 2],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the axes wanted, and report on all."""
    parser = rig.parser(__doc__, rounds=2)
    known = axes(quick=True)
    parser.add_argument(
        "--axes", nargs="*", choices=list(known), default=list(known), help="measure these; others: from --out"
    )
    options = rig.parse(parser, arguments)
    device = "" if options.device == "cpu" else f"-{options.device.replace(':', '-')}"
    path = options.out / f"growth{'-quick' if options.quick else ''}{device}.points.json"
    points = [point for point in kept(path) if point.axis not in options.axes]
    path.parent.mkdir(parents=True, exist_ok=True)
    if options.axes:
        with Rig(options.device) as bench:
            for axis in (axis for axis in known if axis in options.axes):
                points += measure(bench, axis, axes(options.quick)[axis], options)
                path.write_bytes(msgspec.json.encode(points))
    for index, point in enumerate(points):
        if point.axis in fit.AXES and point.bare_ms is None:
            points[index] = with_bare(point, options.device)
            path.write_bytes(msgspec.json.encode(points))
    by_axis = {axis: found for axis in known if (found := [point for point in points if point.axis == axis])}
    if missing := [axis for axis in NEEDED if axis not in by_axis]:
        rig.console.log(f"kept in {path}; a report needs {', '.join(missing)} too")
        return
    costs = fit.costs(by_axis, machine=f"{rig.machine()['cores']} × {rig.machine()['cpu']}", versions=rig.versions())
    rig.finish(report(by_axis, costs), options)
    if options.record and options.device == "cpu":  # what `streamer size` reckons with
        fit.record(costs)


def kept(path: Path) -> list[Point]:
    """Points of earlier runs."""
    return msgspec.json.decode(path.read_bytes(), type=list[Point]) if path.exists() else []


def measure(bench: Rig, axis: str, configs: Sequence[Config], options: argparse.Namespace) -> Iterator[Point]:
    """One axis, its configurations in turns."""
    loads = [preloaded(bench, config) for config in configs]
    found: list[list[Run]] = [[] for _ in configs]
    for number in rig.rounds(options):
        for config, (load, _), runs in zip(configs, loads, found, strict=True):
            runs.append(together(bench, load, config.workers) if axis == "workers" else bench.worker(load))
            rig.console.log(f"{axis} {config.name}, round {number}: {rig.described(runs[-1])}")
    for config, (_, sent), runs in zip(configs, loads, found, strict=True):
        at = time.strftime("%Y-%m-%dT%H:%MZ", time.gmtime())
        point = Point(axis, config, tuple(runs), sent, at)
        if axis == "pace":
            shares, seconds = (QUICK_SHARES, QUICK_OFFERED_S) if options.quick else (SHARES, OFFERED_S)
            point = msgspec.structs.replace(point, paced=tuple(paced(bench, point, shares, seconds)))
        yield point


def given(where: Path, config: Config) -> dict[str, object]:
    """Settings of a configuration, with a model for its windows in a folder."""
    folder = where / f"model-{config.window_ms}-{config.decoded}"
    if not folder.exists():
        shutil.copytree(MODEL, folder)
        spec = folder / "model.toml"
        text = re.sub(r"(?m)^window_ms = \d+$", f"window_ms = {config.window_ms}", spec.read_text())
        spec.write_text(re.sub(r"(?m)^frames = \d+$", f"frames = {config.decoded}", text))
    return {"model": folder, "window_ms": config.window_ms, "partitions": config.partitions}


def with_bare(point: Point, device: str) -> Point:
    """The point with what decoding and model cost of it alone."""
    config = point.config
    command = [sys.executable, "-m", "bench.alone", msgspec.json.encode(config.feed).decode()]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        settings = Settings.load(device=device, **given(folder, config))
        with Program(command, environment(settings), folder / "alone.log") as program:
            bare = msgspec.json.decode(program.wait_end().splitlines()[-1], type=Bare)
    if bare.windows != config.windows:
        raise RuntimeError(f"{bare.windows} windows were aligned in memory, {config.windows} were sent")
    rig.console.log(f"{point.axis} {config.name}: {rig.described(bare)} without Kafka and Redis")
    return msgspec.structs.replace(
        point, bare_ms=bare.cpu_ms_per_window, predict_ms=1000 * bare.predict_cpu_s / bare.windows
    )


def preloaded(bench: Rig, config: Config) -> tuple[rig.Load, Sent]:
    """Topics full of the feed of a configuration."""
    settings = bench.settings(**given(bench.folder, config))
    rig.console.log(f"preloading {config.feed}")
    sent = feeds.send(settings, config.feed, settings.hop_us)
    names = dict.fromkeys(feeds.session_names(config.feed))  # of the drives the rig needs the names alone
    load = rig.Load(settings, names, config.windows, sum(sent.records), sum(sent.bytes))  # type: ignore[arg-type]
    return load, sent


def together(bench: Rig, load: rig.Load, count: int) -> Run:
    """CPU and memory of several workers as if they were one."""
    runs = bench.together(load, [load.fresh()] * count)
    cpu_s, peak_bytes = sum(run.cpu_s for run in runs), sum(run.peak_bytes for run in runs)
    return msgspec.structs.replace(runs[0], cpu_s=cpu_s, peak_bytes=peak_bytes)


def paced(bench: Rig, saturated: Point, shares: Sequence[float], seconds: int) -> Iterator[Paced]:
    """Loads in real time, shares of what a worker makes at saturation."""
    best_per_s = Spread.of([run.windows_per_s for run in saturated.runs]).median
    settings = bench.settings(modalities=batching.NO_WAIT)
    with bench.worker_process(settings) as (program, _):
        idle_cores = rig.idle_cores(program.pid)
        for share in shares:
            sent_bytes, stored_bytes = to_redis(bench.redis), stored(bench.redis, settings)
            sessions = max(1, round(best_per_s * share))
            found, cpu_ms = batching.offer_to(program, bench, settings, sessions, seconds, idle_cores)
            windows = sessions * seconds
            yield Paced(
                share=share,
                windows_per_s=found.published,
                cpu_ms=cpu_ms,
                saturated_ms=saturated.cpu_ms.median,
                latency_ms=(float(np.percentile(found.latency_ms, 50)), float(np.percentile(found.latency_ms, 99))),
                idle_cores=idle_cores,
                redis_bytes=(to_redis(bench.redis) - sent_bytes) / windows,
                behind_ms=found.behind_ms,
                stored_bytes=(stored(bench.redis, settings) - stored_bytes) / windows,
            )


def to_redis(client: redis.Redis) -> int:
    """Bytes that Redis has received."""
    return int(client.info("stats")["total_net_input_bytes"])


def stored(client: redis.Redis, settings: Settings) -> int:
    """Bytes that the results and states of all sessions take in Redis."""
    with results.connected(settings) as (_, keys):
        sessions = results.sessions(client, keys)
        names = [name for s in sessions for name in (keys.results(s), keys.latest(s), keys.state(s), keys.closings(s))]
    return sum(client.memory_usage(name, samples=0) or 0 for name in names)


def report(by_axis: dict[str, list[Point]], costs: fit.Costs) -> Report:
    """Tables, ratios of the largest to the smallest, and one plot of what should be flat."""
    points = [point for found in by_axis.values() for point in found]
    absent = [axis for axis in COUNTS if axis not in by_axis]
    notes = [
        f"Measured {min(p.at for p in points)} to {max(p.at for p in points)}, rounds: "
        f"{min(len(p.runs) for p in points)}; CPU is that of the worker, ms a window."
        + (f" Not measured: {', '.join(absent)}." if absent else ""),
        "",
        table(by_axis),
        "",
        pace_table(by_axis["pace"][0]),
        "",
        fit.table(costs, by_axis["check"]),
    ]
    return Report("growth", figures(by_axis, costs), notes, [plot(by_axis)] if len(absent) < len(COUNTS) else [])


def figures(by_axis: dict[str, list[Point]], costs: fit.Costs) -> list[Figure]:
    """Ratios of the largest to the smallest, then how well the fit predicts."""
    made = []
    for axis in (axis for axis in COUNTS if axis in by_axis):
        first, last = by_axis[axis][0], by_axis[axis][-1]
        ratio = rig.ratios(*([run.cpu_ms_per_window for run in point.runs] for point in (last, first)))
        made.append(Figure(f"{axis} {last.config.name} ÷ {first.config.name}, CPU a window", ratio, aim=FLAT))
    check = Spread.of([costs.check.low, costs.check.high])
    made.append(Figure("predicted ÷ measured, of what was not fitted", check, better="higher"))
    return made


def table(by_axis: dict[str, list[Point]]) -> str:
    """Markdown: a configuration a row."""
    rows = [
        "| | | windows | records a window | KB a window | CPU, ms | of it decoding and model | windows/s | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for axis, points in by_axis.items():
        for point in points:
            bare = "" if point.bare_ms is None else f"{point.bare_ms:.3g}"
            rate = Spread.of([run.windows_per_s for run in point.runs])
            rows.append(
                f"| {axis} | {point.config.name} | {point.config.windows:,} | {point.window.records:.1f} "
                f"| {point.window.payload_mb * 1000:.0f} | {point.cpu_ms} | {bare} | {rate} | {point.peak_mib:.0f} |"
            )
    return "\n".join(rows)


def pace_table(point: Point) -> str:
    """Markdown: a load a row."""
    rows = [
        "| load, of saturation | offered, windows/s | published | CPU ms a window | latency p50, ms | p99, ms "
        "| the load was behind its schedule, p99, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    best_per_s = Spread.of([run.windows_per_s for run in point.runs]).median
    rows.append(f"| saturated | | {best_per_s:.0f} | {point.cpu_ms} | | | |")
    for one in point.paced:
        p50, p99 = one.latency_ms
        rows.append(
            f"| {one.share:.0%} | {best_per_s * one.share:.0f} | {one.windows_per_s:.0f} | {one.cpu_ms:.3g} "
            f"| {p50:.0f} | {p99:.0f} | {'not kept' if one.behind_ms is None else f'{one.behind_ms:.0f}'} |"
        )
    return "\n".join(rows)


def plot(by_axis: dict[str, list[Point]]) -> Plot:
    """CPU of a window over what should not matter."""
    curves = [
        Curve(axis, [(point.config.x, point.cpu_ms.median) for point in by_axis[axis]])
        for axis in COUNTS
        if axis in by_axis
    ]
    return Plot("growth", "number", "CPU of a window, ms", curves, "log")


if __name__ == "__main__":
    rig.run(main)
