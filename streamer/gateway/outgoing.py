"""Records on their way to Kafka: how many bytes of them there are, and what became of each."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Protocol

from streamer.broker.sending import Fault, Place, Told, Unsent
from streamer.errors import Reason
from streamer.gateway.metrics import ACKNOWLEDGED, REFUSED, UNAVAILABLE, GatewayMetrics
from streamer.gateway.problems import Problem
from streamer.gateway.quotas import BUSY_RETRY_S, Room
from streamer.gateway.records import NO_SENSOR, Named, Ready
from streamer.settings import Settings

log = logging.getLogger(__name__)

RECORD_BYTES = 2_000  # of the objects around a record, about: many small ones would take more than their payloads
SWEEP_S = 0.1  # between two looks at what has waited too long: a timer for each record would cost more than its send


class Sender(Protocol):
    """What sends: :class:`streamer.broker.sending.Sending`, or a test's."""

    def send(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: list[tuple[str, bytes]], told: Told
    ) -> None:
        """Put a record behind those of its partition."""


class Sent:
    """The records of one request that were given to Kafka. Their payloads are not held here.

    Attributes:
        records: All of the request.
        since_s: ``monotonic()`` when they came.
        outcomes: Of each record: its place, why it has none, or ``None`` while neither is known.
    """

    __slots__ = ("_missing", "_over", "outcomes", "records", "since_s")

    def __init__(self, records: Sequence[Named], over: Callable[[Sent], None]) -> None:
        self.records = records
        self.since_s = monotonic()
        self.outcomes: list[Place | Unsent | None] = [None] * len(records)
        self._missing = len(records)
        self._over: Callable[[Sent], None] | None = over

    @property
    def is_over(self) -> bool:
        """Whether each record has an outcome, or the time is over."""
        return self._over is None

    def end(self) -> None:
        """Wait no longer."""
        over, self._over = self._over, None
        if over is not None:
            over(self)

    def told(self, at: int, outcome: Place | Unsent) -> None:
        """Note what became of a record."""
        self.outcomes[at] = outcome
        self._missing -= 1
        if not self._missing:
            self.end()


class Outgoing:
    """Sends records and learns of their acknowledgement.

    Args:
        on_broken: Called with the reason if nothing can be sent any more; only a new process can.
    """

    def __init__(
        self,
        settings: Settings,
        sender: Sender,
        room: Room,
        metrics: GatewayMetrics,
        on_broken: Callable[[str], None],
    ) -> None:
        self._wait_s = settings.gateway_ack_ms / 1000
        self._sender = sender
        self._room = room
        self._metrics = metrics
        self._on_broken = on_broken
        self._waiting = 0
        self._away = False  # logged once
        self._moved_s = monotonic()  # when Kafka last acknowledged something, or nothing waited
        self._deadlines: deque[tuple[float, Sent]] = deque()
        # of each sensor: looking up a metric by its labels costs more than counting
        self._acknowledged = {
            name: (metrics.records.labels(name, ACKNOWLEDGED), metrics.payload_bytes.labels(name))
            for name in (*settings.sensor_set.names, NO_SENSOR)
        }

    def stuck_s(self) -> float:
        """For how long records have waited without any being acknowledged."""
        return monotonic() - self._moved_s if self._waiting else 0.0

    def send(self, records: Sequence[Ready], over: Callable[[Sent], None]) -> None:
        """Send records, in order. Their bytes take room until Kafka has them, or has refused them.

        Args:
            over: Called once: each record has an outcome, or the time is over. It may be called before this returns.
        """
        sent = Sent([record.named for record in records], over)
        if not records:
            sent.end()
            return
        if not self._waiting:
            self._moved_s = sent.since_s
        for at, record in enumerate(records):
            self._room.hold(record.named.payload_bytes + RECORD_BYTES)
            self._waiting += 1
            told = partial(self._told, sent, at)
            self._sender.send(record.named.topic, record.partition, record.key, record.value, record.headers, told)
        if sent.is_over:
            return
        if not self._deadlines:
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        self._deadlines.append((sent.since_s + self._wait_s, sent))

    def places(self, sent: Sent) -> list[Place]:
        """Where all records are.

        Raises:
            Problem: Kafka does not have all of them in time; ``accepted`` has the ids of those that it has.
        """
        places = [outcome for outcome in sent.outcomes if isinstance(outcome, Place)]
        if len(places) == len(sent.records):
            return places
        wrong = next(at for at, outcome in enumerate(sent.outcomes) if not isinstance(outcome, Place))
        problem = self._problem(sent.records[wrong], sent.outcomes[wrong])
        problem.members["accepted"] = [
            record.id for record, outcome in zip(sent.records, sent.outcomes, strict=True) if isinstance(outcome, Place)
        ]
        raise problem

    def _told(self, sent: Sent, at: int, outcome: Place | Unsent) -> None:
        record = sent.records[at]
        self._waiting -= 1
        self._room.give(record.payload_bytes + RECORD_BYTES)
        if isinstance(outcome, Unsent):
            label = REFUSED if outcome.fault is Fault.TOO_LARGE else UNAVAILABLE
            self._metrics.records.labels(record.sensor, label).inc()
        else:
            self._moved_s = monotonic()
            if self._away:
                self._away = False
                log.info("Kafka acknowledges records again")
            records, payload_bytes = self._acknowledged[record.sensor]
            records.inc()
            payload_bytes.inc(record.payload_bytes)
        sent.told(at, outcome)

    def _sweep(self) -> None:
        """End the waits whose time is over; all wait equally long, so that the first in line is over first."""
        now_s = monotonic()
        while self._deadlines and (self._deadlines[0][0] <= now_s or self._deadlines[0][1].is_over):
            self._deadlines.popleft()[1].end()
        if self._deadlines:
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _problem(self, record: Named, outcome: Place | Unsent | None) -> Problem:
        unsent = outcome if isinstance(outcome, Unsent) else Unsent(Fault.AWAY, f"no answer within {self._wait_s:g} s")
        if unsent.fault is Fault.TOO_LARGE:
            return Problem(413, f"Kafka refuses the record: {unsent.detail}", reason=str(Reason.TOO_LARGE))
        if unsent.fault is Fault.BROKEN:
            self._on_broken(unsent.detail)
        elif not self._away:
            self._away = True
            log.warning("Kafka does not acknowledge records for %s: %s", record.topic, unsent.detail)
        # It may have it all the same. A worker takes an event of the same id and source once.
        return Problem(
            503, "Kafka did not acknowledge it in time: send it again with the same id and source", BUSY_RETRY_S
        )
