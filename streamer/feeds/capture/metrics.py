"""Prometheus metrics of ``streamer capture``."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from streamer.events import TimeSource

DELAY_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BUFFER, DAMAGED, REFUSED, STOPPED = DROPS = ("buffer", "damaged", "refused", "stopped")


class CaptureMetrics:
    """The metrics of one process; tests give each its own registry.

    Args:
        sources: Names of the sources.
        sensors: Names of the sensors.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, sources: Iterable[str] = (), sensors: Iterable[str] = ()
    ) -> None:
        self.registry = registry
        self.captured = Counter(
            "streamer_capture_captured_total",
            "Pictures and chunks of sound that were chosen to be sent: sent, dropped, or still on their way",
            ["sensor"],
            registry=registry,
        )
        self.sent = Counter(
            "streamer_capture_sent_total", "Of these, those that Kafka has", ["sensor"], registry=registry
        )
        self.dropped = Counter(
            "streamer_capture_dropped_total",
            "Of these, those that are lost. buffer: Kafka was slow or away; damaged: parts of a picture did not come; "
            "refused: Kafka does not take it; stopped: unsent at the end",
            ["sensor", "reason"],
            registry=registry,
        )
        self.connected = Gauge("streamer_capture_connected", "1 while a source is there", ["source"], registry=registry)
        self.connections = Counter(
            "streamer_capture_connections_total", "How often a source was opened", ["source"], registry=registry
        )
        self.time_source = Gauge(
            "streamer_capture_time_source",
            "1 for the clock that tells a sensor's time now: rtcp, device or arrival",
            ["sensor", "clock"],
            registry=registry,
        )
        self.unsent_bytes = Gauge(
            "streamer_capture_unsent_bytes", "What Kafka does not have yet, bytes of payload", registry=registry
        )
        self.delay_seconds = Histogram(
            "streamer_capture_delay_seconds",
            "From the time of a picture, or the end of a chunk of sound, until Kafka has it",
            ["sensor"],
            buckets=DELAY_SECONDS,
            registry=registry,
        )
        # A series that begins with its first event shows no increase, so these begin at 0.
        for source in sources:
            self.connected.labels(source).set(0)
            self.connections.labels(source)
        for sensor in sensors:
            self.captured.labels(sensor)
            self.sent.labels(sensor)
            self.delay_seconds.labels(sensor)
            self.clock(sensor, None)
            for reason in DROPS:
                self.dropped.labels(sensor, reason)

    def clock(self, sensor: str, told_by: TimeSource | None) -> None:
        """Note which clock tells a sensor's time; ``None``: none, since it has no stream now."""
        for one in TimeSource:
            self.time_source.labels(sensor, str(one)).set(one is told_by)
