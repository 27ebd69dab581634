"""Every Prometheus metric of `streamer describe`."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

OUTCOMES = ("ok", "refused", "busy", "error", "timeout", "connection", "misshapen")  # of a question
UNASKED = ("budget", "behind", "down")  # why a model was not asked although it was a window's turn
ANSWER_SECONDS = (0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)


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
        self.requests = Counter(
            "streamer_describe_requests_total",
            "Questions to the language model by outcome; all but ok and refused are repeated",
            ["outcome"],
            registry=registry,
        )
        self.request_seconds = Histogram(
            "streamer_describe_request_seconds", "Time until an answer", buckets=ANSWER_SECONDS, registry=registry
        )
        self.tokens = Counter(
            "streamer_describe_tokens_total",
            "Tokens of questions and answers as the language model counts them; estimated where it does not",
            ["kind"],
            registry=registry,
        )
        self.unasked = Counter(
            "streamer_describe_unasked_total",
            "Windows that the language model was not asked about in their turn; budget: of tokens; behind: too many "
            "windows wait; down: it has just failed",
            ["reason"],
            registry=registry,
        )
        for counter, values in (
            (self.descriptions, ("outputs", "model")),
            (self.retries, ("kafka", "redis")),
            (self.requests, OUTCOMES),
            (self.tokens, ("question", "answer", "estimated")),
            (self.unasked, UNASKED),
        ):
            for value in values:
                counter.labels(value)
