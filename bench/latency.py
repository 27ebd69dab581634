"""How long results take at the feeds' own pace: ``python bench/latency.py --sessions 4 --seconds 60``.

Starts a Kafka, a Redis and a worker of its own, sends simulated drives in real time, and prints, as a Markdown table or
with ``--json``, median, 99th percentile and maximum over all windows of

    merge      from the log time at which a window closed to its closing: the delay that one order of four topics adds
    delivery   from its closing to the call that publishes it: batch, decode, infer
    batch      of that, waiting for other windows (``max_wait_ms``)
    infer      of that, the model
    publish    the call to Redis, up to its answer; from the worker's histogram, hence the upper bounds of its buckets

Windows that closed at a deadline are in ``merge`` with the delay after that deadline.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from streamer import results, topics
from streamer.child import WorkerProcess
from streamer.feeds import simulate
from streamer.local import Stack
from streamer.results import Result
from streamer.settings import Settings

ROOT = Path(__file__).parents[1]
PATIENCE_S = 20.0  # without a new result once the feed has ended
STAGES = ("merge", "delivery", "batch", "infer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=4, help="cars")
    parser.add_argument("--seconds", type=int, default=60, help="length of their drives, s")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Stack(Path(folder), 8 << 20) as stack:
        settings = Settings.load(
            kafka=stack.kafka_address, redis=stack.redis_url, model=ROOT / "models" / "driving", partitions=4
        )
        topics.create(settings)
        with WorkerProcess(settings, Path(folder) / "worker.log") as worker:
            worker.wait_ready()
            found = list(run(settings, options.sessions, options.seconds))
            publish = histogram(worker.port, "publish")
    report = {
        "windows": len(found),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "ms": {stage: percentiles([times(result)[stage] for result in found]) for stage in STAGES},
        "publish_ms_at_most": {f"p{share * 100:.0f}": bound(publish, share) * 1000 for share in (0.5, 0.99)},
    }
    print(json.dumps(report, indent=2) if options.json else table(report))


def run(settings: Settings, sessions: int, seconds: int) -> Iterator[Result]:
    """Send drives in real time; yield the results as they come."""
    feed = threading.Thread(
        target=simulate.run,
        args=(settings,),
        kwargs={"sessions": sessions, "seconds": seconds, "speed": 1.0, "seed": 5, "name": "latency"},
    )
    with results.connected(settings) as (client, keys):
        fresh = results.follow(client, keys)
        feed.start()
        count, last_s = 0, time.monotonic()
        while count < sessions * seconds and (feed.is_alive() or time.monotonic() - last_s < PATIENCE_S):
            result = next(fresh)
            if result is not None:
                count, last_s = count + 1, time.monotonic()
                yield result
        feed.join()


def times(result: Result) -> dict[str, float]:
    """Stage -> ms of one window."""
    ms = {stage: us / 1000 for stage, us in result.latencies_us.items()}
    return {**ms, "delivery": sum(ms.get(stage, 0.0) for stage in ("batch", "decode", "infer"))}


def percentiles(values_ms: Sequence[float]) -> dict[str, float]:
    p50, p99, most = np.percentile(values_ms, (50, 99, 100))
    return {"p50": round(float(p50), 1), "p99": round(float(p99), 1), "max": round(float(most), 1)}


def histogram(port: int, stage: str) -> list[tuple[float, float]]:
    """(upper bound in s, windows up to it), of ``streamer_stage_seconds``."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    buckets = [line for line in lines if line.startswith("streamer_stage_seconds_bucket") and f'"{stage}"' in line]
    return [(float(line.split('le="')[1].split('"')[0]), float(line.rsplit(" ", 1)[1])) for line in buckets]


def bound(buckets: Sequence[tuple[float, float]], share: float) -> float:
    """Upper bound in s of the bucket that holds this percentile."""
    return next(upper for upper, count in buckets if count >= share * buckets[-1][1])


def table(report: dict[str, object]) -> str:
    ms, publish = report["ms"], report["publish_ms_at_most"]
    assert isinstance(ms, dict)
    assert isinstance(publish, dict)
    rows = [f"| {stage} | {row['p50']} | {row['p99']} | {row['max']} |" for stage, row in ms.items()]
    rows.append(f"| publish | ≤ {publish['p50']:g} | ≤ {publish['p99']:g} | |")
    head = f"{report['windows']} windows, {report['cpus']} CPUs, Python {report['python']}"
    return "\n".join([head, "", "| ms | p50 | p99 | max |", "|---|---|---|---|", *rows])


if __name__ == "__main__":
    main()
