"""What batching gives and what it costs: fill, throughput by size of the batches, latency over offered load.

    python -m bench.batching

*At saturation* a worker reads full topics: how full its batches are, and how many windows a second it makes with
batches of at most 1, 8, 32 and 64, on a device 128 and 256 too. *Open loop*: cars send in real time by a schedule
fixed in advance (``bench/programs/load.py``), a share of what the worker makes at saturation. Latency runs from when
the schedule has a window's end, not from when its records were really sent, to when a subscriber has its result: a
worker that stalls cannot make its own load look lighter. It includes 10 ms until the frame after the window's
end is there. Nobody waits for late transcripts (``max_delay_ms`` 0), which would hide everything else.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence

import msgspec
import numpy as np
import redis

from bench import rig
from bench.programs.load import S_US, phase_us
from bench.rig import Curve, Figure, Plot, Report, Rig, Spread
from streamer.errors import Stop
from streamer.local.worker import WorkerProcess, environment
from streamer.settings import Settings
from streamer.store.results import Keys

SIZES, QUICK_SIZES = (1, 8, 32, 64), (1, 32)
DEVICE_SIZES = (*SIZES, 128, 256)  # not on a CPU, which gains nothing beyond the default
GAIN = 3.0  # the aim, where a device gains from batches
SESSIONS, SECONDS, QUICK_SECONDS = 16, 50, 6
SHARES, QUICK_SHARES = (0.25, 0.5, 0.75, 0.9), (0.25,)  # of the throughput at saturation
OFFERED_S, QUICK_OFFERED_S = 10, 4
PLAN_S, PLAN_S_PER_S = 5, 0.3  # for the load to be made before it starts: always, and more for each second of it
SETTLED_S = 2  # windows before that, and the last of each car, which nothing follows, are not counted
QUIET_S = 3.0
NO_WAIT = {"text": {"max_delay_ms": 0}}


class Point(msgspec.Struct, frozen=True):
    """What came of an offered load, by window."""

    offered: float
    published: float
    latency_ms: Sequence[float]
    wait_ms: Sequence[float]
    behind_ms: float


class _Published(msgspec.Struct):
    session: str
    end_us: int
    latencies_us: dict[str, int]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run both parts and report."""
    options = rig.parse(rig.parser(__doc__, rounds=2), arguments)
    with Rig(options.device) as bench:
        speeds, fills = saturated(bench, options)
        settings = bench.settings(sensors=NO_WAIT)
        shares, seconds = (QUICK_SHARES, QUICK_OFFERED_S) if options.quick else (SHARES, OFFERED_S)
        best = Spread.of(speeds[settings.max_batch]).median
        with bench.worker_process(settings):
            points = [offer(bench, settings, max(1, round(best * share)), seconds) for share in shares]
    rig.finish(Report("batching", figures(settings, speeds, fills, shares, points), [], plots(points)), options)


def saturated(bench: Rig, options: argparse.Namespace) -> tuple[dict[int, list[float]], list[float]]:
    """Windows a second by ``max_batch``, and the mean fill at the default one, of each round."""
    load = bench.preload(SESSIONS, QUICK_SECONDS if options.quick else SECONDS)
    default = load.settings.max_batch
    sizes = QUICK_SIZES if options.quick else SIZES if options.device == "cpu" else DEVICE_SIZES
    speeds: dict[int, list[float]] = {size: [] for size in sizes}
    fills: list[float] = []

    def fill(worker: WorkerProcess) -> None:
        batches = worker.metric("streamer_batch_windows_count")
        fills.append(worker.metric("streamer_batch_windows_sum") / batches / default)

    for _ in rig.rounds(options):
        for size in sizes:
            settings = load.fresh().model_copy(update={"max_batch": size})
            run = bench.worker(load, settings, fill if size == default else lambda worker: None)
            speeds[size].append(run.windows_per_s)
            rig.console.log(f"max_batch {size}: {rig.described(run)}")
    return speeds, fills


def offer(bench: Rig, settings: Settings, sessions: int, seconds: int) -> Point:
    """Let this many cars send in real time; each makes one window a second."""
    name = f"load{time.monotonic_ns()}"
    start_us = (time.time_ns() // 1000 // S_US + PLAN_S + math.ceil(PLAN_S_PER_S * seconds)) * S_US
    command = [sys.executable, "-m", "bench.programs.load", str(sessions), str(seconds), str(start_us), name]
    log = bench.folder / "load.log"
    wanted = sessions * seconds
    latency_ms: list[float] = []
    wait_ms: list[float] = []
    received_s: list[float] = []
    with (
        redis.Redis.from_url(settings.redis) as client,
        client.pubsub(ignore_subscribe_messages=True) as channel,
    ):
        channel.subscribe(Keys(settings.key_prefix).channel)
        with rig.started(command, environment(settings), log, rig.SERVERS_CORE) as load:
            last_s = start_us / 1e6 + seconds
            while len(received_s) < wanted and time.time() < last_s + QUIET_S:
                message = channel.get_message(timeout=0.2)
                if message is None:
                    continue
                now_us = time.time_ns() // 1000
                result = msgspec.json.decode(message["data"], type=_Published)
                last_s = max(last_s, now_us / 1e6)
                received_s.append(now_us / 1e6)
                if start_us + SETTLED_S * S_US < result.end_us < start_us + seconds * S_US:
                    number = int(result.session.rsplit("-", 1)[1])
                    latency_ms.append((now_us - result.end_us - phase_us(number, sessions)) / 1000)
                    wait_ms.append(result.latencies_us["batch"] / 1000)
            behind_ms = float(load.wait_end(rig.DONE_WITHIN_S).splitlines()[-1])
    if not latency_ms:
        raise Stop(f"none of {wanted} windows can be counted")
    if len(received_s) < wanted:
        rig.console.log(f"only {len(received_s)} of {wanted} windows came")
    published = len(received_s) / (max(received_s) - min(received_s))
    rig.console.log(
        f"{sessions} windows/s offered, {published:.0f} published, p99 {np.percentile(latency_ms, 99):.0f} ms"
    )
    return Point(sessions, published, latency_ms, wait_ms, behind_ms)


def offer_to(
    worker: WorkerProcess, bench: Rig, settings: Settings, sessions: int, seconds: int, idle_cores: float
) -> tuple[Point, float]:
    """:func:`offer`, and CPU ms a window of the worker.

    Args:
        idle_cores: CPU of the idle worker (``rig.idle_cores``), which is subtracted for the time before the load starts
            and while the last windows are awaited.
    """
    began_s, spent_s = time.monotonic(), rig.cpu_s(worker)
    found = offer(bench, settings, sessions, seconds)
    idle_s = time.monotonic() - began_s - seconds
    return found, 1000 * (rig.cpu_s(worker) - spent_s - idle_cores * idle_s) / (sessions * seconds)


def figures(
    settings: Settings,
    speeds: dict[int, list[float]],
    fills: list[float],
    shares: Sequence[float],
    points: Sequence[Point],
) -> list[Figure]:
    """Fill, gain and wait, then the curves' points."""
    best = max(speeds, key=lambda size: Spread.of(speeds[size]).median)
    found = [
        Figure("fill of the batches at saturation", Spread.of(fills), better="higher", aim=0.75),
        Figure(
            f"windows a second, batches of at most {best} ÷ 1",
            rig.ratios(speeds[best], speeds[1]),
            better="higher",
            aim=None if settings.device == "cpu" else GAIN,
        ),
        Figure(
            f"wait for a batch, p99, at {shares[0]:.0%} of saturation",
            Spread.of([float(np.percentile(points[0].wait_ms, 99))]),
            "ms",
            aim=settings.max_wait_ms + 1,
        ),
    ]
    for size, speed in speeds.items():
        found.append(Figure(f"batches of at most {size}", Spread.of(speed), "windows/s", better="higher"))
    for share, point in zip(shares, points, strict=True):
        at = f"at {share:.0%}, {point.offered:.0f} windows/s offered"
        found.append(Figure(f"latency {at}", Spread.of(point.latency_ms), "ms"))
        found.append(Figure(f"latency p99 {at}", Spread.of([float(np.percentile(point.latency_ms, 99))]), "ms"))
        found.append(Figure(f"the load was behind its schedule, p99, {at}", Spread.of([point.behind_ms]), "ms"))
    return found


def plots(points: Sequence[Point]) -> list[Plot]:
    """Latency and throughput over offered load."""
    latency = [
        Curve(f"p{q}", [(point.offered, float(np.percentile(point.latency_ms, q))) for point in points])
        for q in (50, 99)
    ]
    published = [Curve("published", [(point.offered, point.published) for point in points])]
    x = "offered load, windows/s"
    return [Plot("latency-over-load", x, "latency, ms", latency), Plot("throughput", x, "windows/s", published)]


if __name__ == "__main__":
    rig.run(main)
