"""How long results take at the feeds' own pace: ``python -m bench.latency --sessions 4 --seconds 60``.

Starts Kafka, Redis and a worker, sends simulated drives in real time, and reports median and quartiles, 99th percentile
and maximum over all windows of

    merge      from the log time at which a window closed to its closing: the delay that one order of four topics adds
    delivery   from its closing to the call that publishes it: batch, decode, infer
    batch      of that, waiting for other windows (``max_wait_ms``)
    infer      of that, the model
    publish    the call to Redis, up to its answer; from the worker's histogram, hence the upper bounds of its buckets

Windows that closed at a deadline are in ``merge`` with the delay after that deadline.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence

import numpy as np

from bench import rig
from bench.rig import Figure, Report, Rig, Spread
from streamer.feeds import simulate
from streamer.local.worker import WorkerProcess
from streamer.result import Result
from streamer.settings import Settings
from streamer.store import results

PATIENCE_S = 20.0  # without a new result once the feed has ended
STAGES = ("merge", "delivery", "batch", "infer")
USUAL_S, QUICK_S = 30, 4


def main(arguments: Sequence[str] | None = None) -> None:
    """Send, collect, report."""
    parser = rig.parser(__doc__, rounds=1)
    parser.add_argument("--sessions", type=int, default=4, help="cars")
    parser.add_argument("--seconds", type=int, help=f"length of their drives, s ({USUAL_S}; with --quick {QUICK_S})")
    options = rig.parse(parser, arguments)
    seconds = options.seconds or (QUICK_S if options.quick else USUAL_S)
    with Rig(options.device) as bench:
        settings = bench.settings()
        with bench.worker_process(settings) as worker:
            found = list(run(settings, options.sessions, seconds))
            publish = histogram(worker, "publish")
    note = f"{len(found)} windows of {options.sessions} cars in real time."
    rig.finish(Report("latency", figures(found, publish), [note]), options)


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


def figures(found: Sequence[Result], publish: Sequence[tuple[float, float]]) -> list[Figure]:
    """Of each stage the spread over the windows, the 99th percentile and the maximum, ms."""
    made = []
    for stage in STAGES:
        ms = [times(result)[stage] for result in found]
        p99, most = np.percentile(ms, (99, 100))
        made.append(Figure(stage, Spread.of(ms), "ms"))
        made.append(Figure(f"{stage}, p99", Spread.of([float(p99)]), "ms"))
        made.append(Figure(f"{stage}, maximum", Spread.of([float(most)]), "ms"))
    for share in (0.5, 0.99):
        made.append(Figure(f"publish, p{share * 100:.0f}, at most", Spread.of([bound(publish, share) * 1000]), "ms"))
    return made


def times(result: Result) -> dict[str, float]:
    """Stage -> ms of one window."""
    ms = {stage: us / 1000 for stage, us in result.latencies_us.items()}
    return {**ms, "delivery": sum(ms.get(stage, 0.0) for stage in ("batch", "decode", "infer"))}


def histogram(worker: WorkerProcess, stage: str) -> list[tuple[float, float]]:
    """(upper bound in s, windows up to it), of ``streamer_stage_seconds``."""
    lines = worker.get("/metrics")[1].splitlines()
    buckets = [line for line in lines if line.startswith("streamer_stage_seconds_bucket") and f'"{stage}"' in line]
    return [(float(line.split('le="')[1].split('"')[0]), float(line.rsplit(" ", 1)[1])) for line in buckets]


def bound(buckets: Sequence[tuple[float, float]], share: float) -> float:
    """Upper bound in s of the bucket that holds this percentile."""
    return next(upper for upper, count in buckets if count >= share * buckets[-1][1])


if __name__ == "__main__":
    rig.run(main)
