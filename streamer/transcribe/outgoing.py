"""Transcripts on their way to Kafka."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue
from time import monotonic, time_ns

from streamer.clients import kafka as kafka_clients
from streamer.senses.speech import Heard
from streamer.settings import Settings
from streamer.transcribe import records
from streamer.transcribe.metrics import TranscribeMetrics
from streamer.transcribe.partition import Utterance

NEVER_MS = 2**31 - 1  # the producer tries until it is closed


class Outgoing:
    """Sends transcripts, and knows which utterances Kafka has.

    Args:
        topic: Of the transcripts.
        version: Of the recogniser.
        on_refused: Called if Kafka refuses a record or us; while it is away, sending is repeated.

    Raises:
        UsageError: No Kafka answers, or it refuses us.
    """

    def __init__(
        self,
        settings: Settings,
        topic: str,
        version: str,
        metrics: TranscribeMetrics,
        on_refused: Callable[[BaseException], None],
    ) -> None:
        self._producer = kafka_clients.producer(settings, acks="all", delivery_timeout_ms=NEVER_MS)
        self._topic = topic
        self._version = version
        self._metrics = metrics
        self._on_refused = on_refused
        self._unsent: dict[int, float] = {}  # when each was given to the producer
        self._done: SimpleQueue[Utterance] = SimpleQueue()

    def say(self, utterance: Utterance, heard: Heard) -> None:
        """Send what was heard; an utterance without words is done at once. Any thread may call it."""
        if not heard.text:
            self._done.put(utterance)
            return
        said = records.transcript(utterance, heard, self._version)
        self._unsent[id(utterance)] = monotonic()
        sent = self._producer.send(
            self._topic, key=said.key, value=said.value, headers=said.headers, partition=said.partition
        )
        sent.add_callback(self._told, utterance)
        sent.add_errback(self._on_refused)

    def done(self) -> Iterator[Utterance]:
        """Utterances that are done since the last call."""
        while not self._done.empty():
            yield self._done.get()

    def waited_s(self) -> float:
        """For how long the oldest transcript has waited for Kafka's acknowledgement."""
        return max((monotonic() - since_s for since_s in list(self._unsent.values())), default=0.0)

    def flush(self, within_s: float) -> None:
        """Wait until Kafka has everything.

        Raises:
            KafkaTimeoutError: It has not.
        """
        self._producer.flush(timeout=within_s)

    def close(self) -> None:
        """Give up what is on its way: it is said again after the restart."""
        self._producer.close(timeout=1)

    def _told(self, utterance: Utterance, _: object) -> None:
        """Kafka has an utterance's words (called in the producer's thread)."""
        self._metrics.delay_seconds.observe(max(0.0, time_ns() / 1e9 - utterance.speech.voice_end_us / 1e6))
        del self._unsent[id(utterance)]
        self._done.put(utterance)
