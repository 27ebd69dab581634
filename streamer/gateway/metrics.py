"""Prometheus metrics of ``streamer gateway``."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

ACK_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ACKNOWLEDGED, REFUSED, QUOTA, UNAVAILABLE = OUTCOMES = "acknowledged", "refused", "quota", "unavailable"
# Of requests that never became records; a status has few values.
STATUSES = (400, 401, 403, 404, 408, 413, 415, 422, 429, 503)


class GatewayMetrics:
    """The metrics of one process; tests give each its own registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.records = Counter(
            "streamer_gateway_records_total",
            "Events by sensor and outcome; refused: by a rule; quota: by its token's rate; unavailable: Kafka or room",
            ["sensor", "outcome"],
            registry=registry,
        )
        self.payload_bytes = Counter(
            "streamer_gateway_payload_bytes_total",
            "Payload that Kafka has acknowledged",
            ["sensor"],
            registry=registry,
        )
        self.problems = Counter(
            "streamer_gateway_problems_total", "Answers that are no success, by status", ["status"], registry=registry
        )
        self.ack_seconds = Histogram(
            "streamer_gateway_ack_seconds",
            "From an event that has come whole until Kafka has acknowledged it",
            buckets=ACK_SECONDS,
            registry=registry,
        )
        self.inflight_bytes = Gauge(
            "streamer_gateway_inflight_bytes", "Bodies that are read or wait for Kafka", registry=registry
        )
        self.connections = Gauge("streamer_gateway_connections", "Open connections", registry=registry)
        self.streams = Gauge("streamer_gateway_streams", "Open WebSockets", registry=registry)
        self.ready = Gauge("streamer_gateway_ready", "1 while events can be taken", registry=registry)
        # A series that begins with its first event shows no increase, so these begin at 0.
        for status in STATUSES:
            self.problems.labels(status)
