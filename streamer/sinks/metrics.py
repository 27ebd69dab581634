"""Every Prometheus metric of `streamer sink`."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge

OUTCOMES = ("read", "sent", "failed")


class Metrics:
    """The metrics of one sink; tests give each its own registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.results = Counter(
            "streamer_sink_results_total",
            "Results by what became of them; read: from Redis, again after a failure; failed: refused for good",
            ["outcome"],
            registry=registry,
        )
        self.behind_seconds = Gauge(
            "streamer_sink_behind_seconds",
            "Event time by which the sink trails the newest result of a session, the furthest of all",
            registry=registry,
        )
        self.held = Gauge(
            "streamer_sink_held_results", "Results that were read and are not yet delivered", registry=registry
        )
        self.waiting_sessions = Gauge(
            "streamer_sink_waiting_sessions",
            "Sessions whose next attempt waits, after one that failed",
            registry=registry,
        )
        self.overtaken = Counter(
            "streamer_sink_overtaken_total",
            "Stretches of a session whose results may have been trimmed before they were read",
            registry=registry,
        )
        self.overtaken_seconds = Counter(
            "streamer_sink_overtaken_seconds_total", "Event time in these stretches", registry=registry
        )
        self.retries = Counter(
            "streamer_retries_total", "Calls repeated because a service did not answer", ["service"], registry=registry
        )
        self.read, self.sent, self.failed = map(self.results.labels, OUTCOMES)
        self.retries.labels("redis")
