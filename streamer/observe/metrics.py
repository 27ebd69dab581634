"""Every Prometheus metric of a worker; units in the names, labels of bounded cardinality only (never the session)."""

from __future__ import annotations

from functools import cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, Info

from streamer.errors import Reason
from streamer.events import ClosedBy
from streamer.observe.tally import Tally

STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SKEW_BOUNDS_US = tuple(
    round(bound_s * 1e6)
    for bound_s in (-1.0, -0.1, 0.0, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
)
BATCH_WINDOWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one worker; tests give each its own registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.events = Counter(
            "streamer_events_total",
            "Source records by sensor and outcome; repeated: their windows have the event already",
            ["sensor", "outcome"],
            registry=registry,
        )
        self.event_bytes = Counter(
            "streamer_event_bytes_total", "Bytes of payload read", ["sensor"], unit="bytes", registry=registry
        )
        self.skew = Tally(
            "streamer_skew_seconds",
            "Log time minus end of an event: what the sensor's clock is behind the broker's, and the event's way there",
            "sensor",
            SKEW_BOUNDS_US,
        )
        registry.register(self.skew)
        self.drift_ppm = Gauge(
            "streamer_clock_drift_ppm",
            "Largest drift of this sensor's clock against its session's other sensors, either way; 0: none drifts",
            ["sensor"],
            registry=registry,
        )
        self.drifting = Gauge(
            "streamer_drifting_sessions",
            "Sessions of this worker in which this sensor's clock drifts away from the others",
            ["sensor"],
            registry=registry,
        )
        self.dead_letters = Counter(
            "streamer_dead_letters_total", "Records sent to the dead-letter topic", ["reason"], registry=registry
        )
        self.windows = Counter(
            "streamer_windows_total", "Closed windows by closing reason", ["closed_by"], registry=registry
        )
        self.published = Counter(
            "streamer_results_total",
            "Results by outcome: ok, partial, failed, empty; duplicate: was already in Redis",
            ["status"],
            registry=registry,
        )
        self.first_result = Histogram(
            "streamer_first_result_seconds",
            "Time from when a window was due, in log time, to its first result in Redis, early or final",
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        self.early = Counter(
            "streamer_early_runs_total",
            "Early runs of windows that wait; again: the final result needed another run, since records had come; "
            "reused: it did not; dropped: the window closed before, or there was no room; failed: the model raised",
            ["outcome"],
            registry=registry,
        )
        self.early_changes = Counter(
            "streamer_early_changes_total",
            "Decisions that are another in the final result than in the early one, of windows that were run again",
            ["output"],
            registry=registry,
        )
        self.unsure = Counter(
            "streamer_unsure_outputs_total",
            "Outputs of published windows that are not to be acted on: a score below the model's threshold, or a "
            "sensor that is strange to it",
            ["model", "output"],
            registry=registry,
        )
        self.strange = Counter(
            "streamer_strange_windows_total",
            "Published windows in which a sensor shows what the model has not met (novelty above 1)",
            ["sensor"],
            registry=registry,
        )
        self.coverage = Histogram(
            "streamer_coverage_ratio",
            "Share of a published window that a sensor covers; absent sensors count as 0",
            ["sensor"],
            buckets=(0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0),
            registry=registry,
        )
        self.audio_lengths = Counter(
            "streamer_audio_length_mismatches_total",
            "Audio payloads that hold less (short) or more (long) than their ce_durationus, in windows where they end",
            ["kind"],
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "streamer_stage_seconds",
            "Time that a window spends in a stage; merge: its closing's delay after the log time that closed it",
            ["stage"],
            buckets=STAGE_SECONDS,
            registry=registry,
        )
        # Used a dozen times for each window: look each up by its label once.
        self.stage = cache(self.stage_seconds.labels)
        self.covered = cache(self.coverage.labels)
        self.window_records = Counter(
            "streamer_window_records_total",
            "Records of the windows topic; sent whole or bare (too large with payloads), received new or repeated; of "
            "windows that are run early, sent or received: early",
            ["outcome"],
            registry=registry,
        )
        self.refetched = Counter(
            "streamer_refetched_windows_total",
            "Windows whose payloads had to be fetched from the source topics",
            registry=registry,
        )
        self.batch_windows = Histogram(
            "streamer_batch_windows", "Windows in a model call", buckets=BATCH_WINDOWS, registry=registry
        )
        self.log_time_steps_back = Counter(
            "streamer_log_time_steps_back_total",
            "Records whose broker append time is below that of a record before them in their partition",
            registry=registry,
        )
        self.order_violations = Counter(
            "streamer_merge_order_violations_total",
            "Records that arrived below the released log clock: a replay would order them differently",
            registry=registry,
        )
        self.model_errors = Counter(
            "streamer_model_errors_total", "Windows that the model raised on, alone", ["error"], registry=registry
        )
        self.retries = Counter(
            "streamer_retries_total", "Calls repeated because a service did not answer", ["service"], registry=registry
        )
        self.log_clock_lag_seconds = Gauge(
            "streamer_log_clock_lag_seconds", "Wall clock minus the slowest released log clock", registry=registry
        )
        self.oldest_unreleased_seconds = Gauge(
            "streamer_oldest_unreleased_seconds", "Age in log time of the oldest record not yet done", registry=registry
        )
        self.consumer_lag_records = Gauge(
            "streamer_consumer_lag_records",
            "Records of this worker's partitions that can be read and are not done, by the last stable offsets of its "
            "last fetches: those of an open transaction are not counted",
            ["topic"],
            registry=registry,
        )
        self.buffer_bytes = Gauge(
            "streamer_buffer_bytes",
            "Bytes held, by place: merge, open windows, in flight",
            ["place"],
            registry=registry,
        )
        self.sessions = Gauge("streamer_sessions", "Sessions with state in this worker", registry=registry)
        self.partitions = Gauge("streamer_partition_groups", "Partition groups with state", registry=registry)
        self.ready = Gauge("streamer_ready", "1 while the worker can take and publish work", registry=registry)
        self.model = Info("streamer_model", "The model that is served", registry=registry)
        self.model_reloads = Counter(
            "streamer_model_reloads_total",
            "New versions found in the model's folder: loaded, or refused while the old one goes on",
            ["outcome"],
            registry=registry,
        )
        self.role = Gauge("streamer_role", "1 under what this worker does", ["role"], registry=registry)
        # A series that begins with its first event shows no increase, so these begin at 0.
        for counter, values in (
            (self.dead_letters, Reason),
            (self.windows, [reason for reason in ClosedBy if reason is not ClosedBy.OPEN]),
            (self.published, ("ok", "partial", "failed", "empty", "duplicate")),
            (self.early, ("again", "reused", "dropped", "failed")),
            (self.retries, ("kafka", "redis")),
            (self.model_reloads, ("loaded", "refused")),
            (self.audio_lengths, ("short", "long")),
            (self.window_records, ("whole", "bare", "new", "repeated", "early")),
        ):
            for value in values:
                counter.labels(str(value))
