"""Gauges of a worker, brought up to date for each scrape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import time
from typing import Any

from streamer.observe.metrics import Metrics
from streamer.worker.ports import Group


def update(
    metrics: Metrics, groups: Iterable[Group[Any]], lags: Mapping[str, int], inflight_bytes: int, *, ready: bool
) -> None:
    """Set them.

    Args:
        lags: Topic -> records that are not done; empty before the start.
        inflight_bytes: What has left alignment and is not done.
    """
    groups = list(groups)
    metrics.ready.set(ready)
    metrics.partitions.set(len(groups))
    metrics.sessions.set(sum(g.sessions for g in groups))
    metrics.buffer_bytes.labels("merge").set(sum(g.buffered_bytes for g in groups))
    metrics.buffer_bytes.labels("open").set(sum(g.open_bytes for g in groups))
    metrics.buffer_bytes.labels("inflight").set(inflight_bytes)
    for topic, records in lags.items():
        metrics.consumer_lag_records.labels(topic).set(records)
    now_us = time() * 1e6
    clocks = [g.clock_us for g in groups if g.clock_us]
    metrics.log_clock_lag_seconds.set((now_us - min(clocks)) / 1e6 if clocks else 0.0)
    oldest = [at for g in groups if (at := g.oldest_us) is not None]
    metrics.oldest_unreleased_seconds.set((now_us - min(oldest)) / 1e6 if oldest else 0.0)
