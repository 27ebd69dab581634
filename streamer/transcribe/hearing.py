"""The recogniser in a thread of its own, one utterance after the other."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic

from streamer.senses.speech import RATE_HZ, Heard, Recogniser
from streamer.transcribe.metrics import TranscribeMetrics
from streamer.transcribe.partition import Utterance

SLOWEST = 10  # times the length of an utterance: on a machine that has much else to do

log = logging.getLogger(__name__)


class Hearing:
    """Hears utterances in the order in which they came.

    Args:
        on_heard: Called in the thread for each utterance whose partition is still ours; what was heard is empty where
            the recogniser raised an error, since it would raise it again.
        on_crash: Called in the thread if it ends with an error.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        metrics: TranscribeMetrics,
        on_heard: Callable[[Utterance, Heard], None],
        on_crash: Callable[[BaseException], None],
    ) -> None:
        self._recogniser = recogniser
        self._metrics = metrics
        self._on_heard = on_heard
        self._on_crash = on_crash
        self._queue: SimpleQueue[Utterance | None] = SimpleQueue()
        self._put = self._taken = 0  # samples; each is written by one thread alone
        self._due_s: float | None = None
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="hearing", daemon=True)
        self._thread.start()

    @property
    def waiting_s(self) -> float:
        """Length of the utterances that are not heard yet."""
        return (self._put - self._taken) / RATE_HZ

    @property
    def overdue_s(self) -> float:
        """How long the recogniser is beyond ``SLOWEST`` times the length of its utterance; 0 if it is not."""
        due_s = self._due_s
        return 0.0 if due_s is None else max(0.0, monotonic() - due_s)

    def put(self, utterance: Utterance) -> None:
        """Hear an utterance when those before it are done."""
        self._put += len(utterance.speech.samples_S)
        self._queue.put(utterance)

    def stop(self, within_s: float) -> None:
        """End after the utterance that is being heard; what waits is heard after the restart."""
        self._stopping = True
        self._queue.put(None)
        self._thread.join(within_s)

    def _run(self) -> None:
        try:
            while (utterance := self._queue.get()) is not None and not self._stopping:
                if utterance.partition.alive:
                    self._hear(utterance)
                self._taken += len(utterance.speech.samples_S)
        except BaseException as error:  # noqa: BLE001 - whatever ends the thread ends the process
            self._on_crash(error)

    def _hear(self, utterance: Utterance) -> None:
        before_s = monotonic()
        self._due_s = before_s + SLOWEST * len(utterance.speech.samples_S) / RATE_HZ
        try:
            heard = self._recogniser.hear(utterance.speech.samples_S)
            outcome = "words" if heard.text else "empty"
        except Exception as error:  # noqa: BLE001 - recognisers have errors without a common root
            log.warning("%s at %d µs cannot be heard: %r", utterance.key, utterance.speech.start_us, error)
            heard, outcome = Heard(""), "failed"
        self._due_s = None
        self._metrics.hearing_seconds.observe(monotonic() - before_s)
        self._metrics.speech_seconds.inc(len(utterance.speech.samples_S) / RATE_HZ)
        self._metrics.utterances.labels(outcome).inc()
        if utterance.partition.alive:
            self._on_heard(utterance, heard)
