"""Every Prometheus metric of `streamer describe`."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge


class Metrics:
    """The metrics of one reader; tests give each its own registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.descriptions = Counter(
            "streamer_descriptions_total",
            "Windows described, by who made the sentence: outputs (from the result and the words) or model",
            ["by"],
            registry=registry,
        )
        self.overtaken = Counter(
            "streamer_descriptions_overtaken_total",
            "Stretches of a session whose results may have been trimmed before they were described",
            registry=registry,
        )
        self.behind_seconds = Gauge(
            "streamer_descriptions_behind_seconds",
            "Event time by which the newest description of a session trails its newest result, the furthest of all",
            registry=registry,
        )
        self.retries = Counter(
            "streamer_retries_total", "Calls repeated because a service did not answer", ["service"], registry=registry
        )
        for counter, values in ((self.descriptions, ("outputs", "model")), (self.retries, ("kafka", "redis"))):
            for value in values:
                counter.labels(value)
