"""What waits for Kafka: bounded in bytes; where Kafka is slow or away, the oldest that is not on its way is dropped."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from time import monotonic, time_ns
from typing import NamedTuple

from kafka.errors import AuthorizationError, KafkaError

from streamer.errors import UsageError, one_line
from streamer.events import IMAGE, RECORD_BYTES
from streamer.feeds.capture.metrics import BUFFER, DAMAGED, REFUSED, STOPPED, CaptureMetrics
from streamer.feeds.producer import Outgoing, Producer

log = logging.getLogger(__name__)

FLYING_PART = 4  # at most a quarter of the bytes is with the client, where nothing can be dropped any more
SLOW_S = 5.0  # an acknowledgement that takes longer is reported


class _Held(NamedTuple):
    """A record, whose it is, and its bytes."""

    outgoing: Outgoing
    sensor: str
    nbytes: int


class Outbox:
    """Sends records in the order in which they were put, from a thread of its own.

    Args:
        producer: Must try for ever, and not fail while Kafka is away.
        most_bytes: Of what waits and of what is on its way.
        on_refused: Called if Kafka does not let us write.
    """

    def __init__(
        self,
        producer: Producer,
        metrics: CaptureMetrics,
        most_bytes: int,
        on_refused: Callable[[KafkaError], None],
    ) -> None:
        self._producer = producer
        self._metrics = metrics
        self._most_bytes = most_bytes
        self._on_refused = on_refused
        self._waiting: deque[_Held] = deque()
        self._waiting_bytes = self._flying_bytes = 0
        self._flying: dict[int, float] = {}  # id of a record -> since when
        self._changed = threading.Condition()
        self._closing = self._warned = False
        self._thread = threading.Thread(target=self._run, name="to Kafka", daemon=True)
        self._thread.start()

    def put(self, outgoing: Outgoing, sensor: str) -> None:
        """Take a record; any thread may call it, and never waits."""
        held = _Held(outgoing, sensor, len(outgoing.payload) + RECORD_BYTES)
        self._metrics.captured.labels(sensor).inc()
        with self._changed:
            self._waiting.append(held)
            self._waiting_bytes += held.nbytes
            dropped = []
            while self._waiting and self._waiting_bytes + self._flying_bytes > self._most_bytes:
                dropped.append(self._next())
            self._changed.notify()
        for one in dropped:
            self._metrics.dropped.labels(one.sensor, BUFFER).inc()
        if dropped and not self._warned:
            self._warned = True
            log.warning("Kafka takes less than is captured: the oldest is dropped (STREAMER_CAPTURE_BUFFER_BYTES)")

    def damaged(self, sensor: str) -> None:
        """Count something that was captured and cannot be sent."""
        self._metrics.captured.labels(sensor).inc()
        self._metrics.dropped.labels(sensor, DAMAGED).inc()

    def waited_s(self) -> float:
        """For how long the oldest record has waited for Kafka's acknowledgement."""
        with self._changed:
            return max((monotonic() - since_s for since_s in self._flying.values()), default=0.0)

    @property
    def unsent_bytes(self) -> int:
        """What Kafka does not have yet."""
        return self._waiting_bytes + self._flying_bytes

    def close(self, within_s: float) -> None:
        """Send what waits, at most for so long; count what is left."""
        until_s = monotonic() + within_s
        with self._changed:
            self._closing = True
            self._changed.notify()
            self._changed.wait_for(lambda: not self._waiting and not self._flying, within_s)
            left = list(self._waiting)
            self._waiting.clear()
        for one in left:
            self._metrics.dropped.labels(one.sensor, STOPPED).inc()
        if left or self._flying:
            log.warning("%d records were not sent", len(left) + len(self._flying))
        self._thread.join(max(0.1, until_s - monotonic()))

    def _next(self) -> _Held:
        held = self._waiting.popleft()
        self._waiting_bytes -= held.nbytes
        return held

    def _may_send(self) -> bool:
        return bool(self._waiting) and self._flying_bytes < self._most_bytes // FLYING_PART

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._may_send() or (self._closing and not self._waiting))
                if not self._waiting:
                    return
                held = self._next()
                self._flying_bytes += held.nbytes
                self._flying[id(held)] = monotonic()
            try:
                sent = self._producer.begin(held.outgoing)
            except UsageError as error:
                self._refused(held, str(error))
                continue
            sent.add_callback(self._acknowledged, held)
            sent.add_errback(self._failed, held)

    def _landed(self, held: _Held) -> None:
        with self._changed:
            self._flying_bytes -= held.nbytes
            del self._flying[id(held)]
            self._changed.notify_all()

    def _acknowledged(self, held: _Held, _: object) -> None:
        """Kafka has a record (called in the producer's thread)."""
        outgoing, sensor = held.outgoing, held.sensor
        taken_us = outgoing.time_us if outgoing.row == IMAGE else outgoing.due_us
        self._metrics.delay_seconds.labels(sensor).observe(max(0.0, time_ns() / 1e9 - taken_us / 1e6))
        self._metrics.sent.labels(sensor).inc()
        self._landed(held)
        if self._warned and not self._waiting:
            self._warned = False
            log.info("Kafka takes all that is captured again")

    def _failed(self, held: _Held, error: BaseException) -> None:
        self._refused(held, one_line(error))
        if isinstance(error, AuthorizationError):
            self._on_refused(error)

    def _refused(self, held: _Held, reason: str) -> None:
        log.warning("a record of %s is not sent: %s", held.sensor, reason)
        self._metrics.dropped.labels(held.sensor, REFUSED).inc()
        self._landed(held)
