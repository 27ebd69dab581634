"""Prometheus metrics of ``streamer transcribe``."""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from streamer.errors import Reason

HEARING_SECONDS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
CHUNKS = ("heard", "late", "replayed", "bad", "control")
UTTERANCES = ("words", "empty", "failed")


class TranscribeMetrics:
    """The metrics of one process; tests give each its own registry."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.registry = registry
        self.chunks = Counter(
            "streamer_transcribe_chunks_total",
            "Records of the audio topic by outcome; late: behind what was heard; replayed: done before the restart",
            ["outcome"],
            registry=registry,
        )
        self.bad_chunks = Counter(
            "streamer_transcribe_bad_chunks_total",
            "Records that cannot be heard, by the reason that the worker's dead letter has; they are skipped here",
            ["reason"],
            registry=registry,
        )
        self.sound_seconds = Counter(
            "streamer_transcribe_sound_seconds_total", "Length of the sound that was looked at", registry=registry
        )
        self.speech_seconds = Counter(
            "streamer_transcribe_speech_seconds_total", "Length of the utterances in it", registry=registry
        )
        self.utterances = Counter(
            "streamer_transcribe_utterances_total",
            "Utterances by outcome; empty: no words were heard; failed: the recogniser raised an error",
            ["outcome"],
            registry=registry,
        )
        self.hearing_seconds = Histogram(
            "streamer_transcribe_hearing_seconds",
            "Time of the recogniser for an utterance",
            buckets=HEARING_SECONDS,
            registry=registry,
        )
        self.delay_seconds = Histogram(
            "streamer_transcribe_delay_seconds",
            "From the end of the voice, by the sender's clock, until Kafka has the words",
            buckets=HEARING_SECONDS,
            registry=registry,
        )
        self.waiting_seconds = Gauge(
            "streamer_transcribe_waiting_seconds", "Length of the utterances that are not yet heard", registry=registry
        )
        self.held = Gauge(
            "streamer_transcribe_held", "1 while nothing is read, since the recogniser is behind", registry=registry
        )
        self.lag_records = Gauge(
            "streamer_transcribe_lag_records",
            "Records of this process's partitions that are not taken, by the high watermarks of its last fetches",
            registry=registry,
        )
        self.sounds = Gauge("streamer_transcribe_sounds", "Sounds that go on", registry=registry)
        self.ready = Gauge("streamer_transcribe_ready", "1 while words can be heard and sent", registry=registry)
        # A series that begins with its first event shows no increase, so these begin at 0.
        for counter, values in (
            (self.chunks, CHUNKS),
            (self.bad_chunks, tuple(str(reason) for reason in Reason)),
            (self.utterances, UTTERANCES),
        ):
            for value in values:
                counter.labels(value)
