"""Every Prometheus metric of `streamer speak`."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from streamer.speak.sentences import Severity

SYNTHESIS_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """The metrics of one speaker; tests give each its own registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.utterances = Counter(
            "streamer_utterances_total",
            "Sentences said aloud, by severity; silent: the voice has no sound for the words",
            ["severity"],
            registry=registry,
        )
        self.cut_off = Counter(
            "streamer_utterances_cut_off_total",
            "Sentences that a more severe one cut off while they were being said",
            registry=registry,
        )
        self.synthesis_seconds = Histogram(
            "streamer_synthesis_seconds",
            "Time to make the sound of a sentence that is not in memory",
            buckets=SYNTHESIS_SECONDS,
            registry=registry,
        )
        self.behind_seconds = Gauge(
            "streamer_utterances_behind_seconds",
            "Event time by which the speaker trails the newest result of a session, the furthest of all",
            registry=registry,
        )
        self.overtaken = Counter(
            "streamer_utterances_overtaken_total",
            "Stretches of a session whose results may have been trimmed before they were read",
            registry=registry,
        )
        self.retries = Counter(
            "streamer_retries_total", "Calls repeated because a service did not answer", ["service"], registry=registry
        )
        severities = (*(severity.name.lower() for severity in Severity), "silent")
        for counter, values in ((self.utterances, severities), (self.retries, ("kafka", "redis"))):
            for value in values:
                counter.labels(value)
