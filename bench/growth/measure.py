"""Measure configurations: send their feeds, let workers read them, and run decoding and model alone."""

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

from bench import batching, rig
from bench.growth import feeds
from bench.growth.feeds import Sent
from bench.growth.points import Config, Paced, Point
from bench.rig import Bare, Rig, Run, Spread
from streamer.local.worker import environment
from streamer.settings import Settings
from streamer.store import results

MODEL = rig.ROOT / "models" / "driving"
SHARES, QUICK_SHARES, OFFERED_S, QUICK_OFFERED_S = (0.25, 0.5), (0.25,), 10, 5


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
    command = [sys.executable, "-m", "bench.growth.alone", msgspec.json.encode(config.feed).decode()]
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        folder = Path(name)
        settings = Settings.load(device=device, **given(folder, config))
        with rig.started(command, environment(settings), folder / "alone.log") as program:
            bare = msgspec.json.decode(program.wait_end(rig.DONE_WITHIN_S).splitlines()[-1], type=Bare)
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
    settings = bench.settings(sensors=batching.NO_WAIT)
    with bench.worker_process(settings) as worker:
        idle_cores = rig.idle_cores(worker)
        for share in shares:
            sent_bytes, stored_bytes = to_redis(bench.redis), stored(bench.redis, settings)
            sessions = max(1, round(best_per_s * share))
            found, cpu_ms = batching.offer_to(worker, bench, settings, sessions, seconds, idle_cores)
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
