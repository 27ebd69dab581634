"""Records on their way to Kafka: how many bytes of them there are, and what became of each."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic
from typing import Protocol

from streamer.broker.sending import Fault, KafkaError, Place, fault
from streamer.errors import Reason, one_line
from streamer.gateway.metrics import ACKNOWLEDGED, REFUSED, UNAVAILABLE, GatewayMetrics
from streamer.gateway.problems import Problem
from streamer.gateway.quotas import BUSY_RETRY_S, Room
from streamer.gateway.records import NO_SENSOR, Ready
from streamer.settings import Settings

log = logging.getLogger(__name__)

RECORD_BYTES = 2_000  # of the objects around a record, about: many small ones would take more than their payloads
SWEEP_S = 0.1  # between two looks at what has waited too long: a timer for each record would cost more than its send


class Sender(Protocol):
    """What sends: :class:`streamer.broker.sending.Sending`, or a test's."""

    async def send(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[Place]:
        """Put a record behind those of its partition."""


class Sent:
    """The records of one request that were given to Kafka.

    Attributes:
        records: All of the request.
        since_s: ``monotonic()`` when they came.
        over: Done when each record has an outcome, or the time is over.
        outcomes: Of each record: its place, an error, or ``None`` while there is none.
    """

    __slots__ = ("_missing", "outcomes", "over", "records", "since_s")

    def __init__(self, records: Sequence[Ready]) -> None:
        self.records = records
        self.since_s = monotonic()
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.outcomes: list[Place | BaseException | None] = [None] * len(records)
        self._missing = len(records)
        if not records:
            self.over.set_result(None)

    def told(self, at: int, outcome: Place | BaseException) -> None:
        """Note what became of a record."""
        self.outcomes[at] = outcome
        self._missing -= 1
        if not self._missing and not self.over.done():
            self.over.set_result(None)


class Outgoing:
    """Sends records and learns of their acknowledgement.

    Args:
        on_broken: Called if nothing can be sent any more; only a new process can.
    """

    def __init__(
        self,
        settings: Settings,
        sender: Sender,
        room: Room,
        metrics: GatewayMetrics,
        on_broken: Callable[[BaseException], None],
    ) -> None:
        self._wait_s = settings.gateway_ack_ms / 1000
        self._sender = sender
        self._room = room
        self._metrics = metrics
        self._on_broken = on_broken
        self._waiting = 0
        self._away = False  # logged once
        self._moved_s = monotonic()  # when Kafka last acknowledged something, or nothing waited
        self._deadlines: deque[tuple[float, asyncio.Future[None]]] = deque()
        # of each sensor: looking up a metric by its labels costs more than counting
        self._acknowledged = {
            name: (metrics.records.labels(name, ACKNOWLEDGED), metrics.payload_bytes.labels(name))
            for name in (*settings.sensor_set.names, NO_SENSOR)
        }

    def stuck_s(self) -> float:
        """For how long records have waited without any being acknowledged."""
        return monotonic() - self._moved_s if self._waiting else 0.0

    async def send(self, records: Sequence[Ready]) -> Sent:
        """Send records, in order. Their bytes take room until Kafka has them, or has refused them.

        Waits while too much waits for their partition; after an error the rest is not sent.
        """
        sent = Sent(records)
        if not self._waiting:
            self._moved_s = sent.since_s
        for at, record in enumerate(records):
            nbytes = len(record.value) + RECORD_BYTES
            self._room.hold(nbytes)
            self._waiting += 1
            try:
                future = await self._sender.send(
                    record.topic, record.partition, record.key, record.value, record.headers
                )
            except KafkaError as error:
                for rest in range(at, len(records)):
                    self._failed(sent, rest, error)
                self._gone(nbytes)
                break
            except BaseException:  # cancelled
                self._gone(nbytes)
                raise
            future.add_done_callback(partial(self._told, sent, at, nbytes))
        if not self._deadlines:
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        self._deadlines.append((sent.since_s + self._wait_s, sent.over))
        return sent

    async def acknowledged(self, sent: Sent) -> list[Place]:
        """Wait until Kafka has all records.

        Raises:
            Problem: It does not have all of them in time; ``accepted`` has the ids of those that it has.
        """
        if not sent.over.done():
            await asyncio.shield(sent.over)
        places = [outcome for outcome in sent.outcomes if isinstance(outcome, Place)]
        if len(places) == len(sent.records):
            return places
        wrong = next(at for at, outcome in enumerate(sent.outcomes) if not isinstance(outcome, Place))
        problem = self._problem(sent.records[wrong], sent.outcomes[wrong])
        problem.members["accepted"] = [
            record.id for record, outcome in zip(sent.records, sent.outcomes, strict=True) if isinstance(outcome, Place)
        ]
        raise problem

    def _told(self, sent: Sent, at: int, nbytes: int, done: asyncio.Future[Place]) -> None:
        self._gone(nbytes)
        error = done.exception()
        if error is not None:
            self._failed(sent, at, error)
            return
        self._moved_s = monotonic()
        if self._away:
            self._away = False
            log.info("Kafka acknowledges records again")
        record = sent.records[at]
        records, payload_bytes = self._acknowledged[record.sensor]
        records.inc()
        payload_bytes.inc(len(record.value))
        place = done.result()
        sent.told(at, Place(place.partition, place.offset))

    def _failed(self, sent: Sent, at: int, error: BaseException) -> None:
        outcome = REFUSED if fault(error) is Fault.TOO_LARGE else UNAVAILABLE
        self._metrics.records.labels(sent.records[at].sensor, outcome).inc()
        sent.told(at, error)

    def _gone(self, nbytes: int) -> None:
        self._waiting -= 1
        self._room.give(nbytes)

    def _sweep(self) -> None:
        """End the waits whose time is over; all wait equally long, so that the first in line is over first."""
        now_s = monotonic()
        while self._deadlines and (self._deadlines[0][0] <= now_s or self._deadlines[0][1].done()):
            _, over = self._deadlines.popleft()
            if not over.done():
                over.set_result(None)
        if self._deadlines:
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _problem(self, record: Ready, error: Place | BaseException | None) -> Problem:
        kind = fault(error) if isinstance(error, BaseException) else Fault.AWAY
        if isinstance(error, BaseException) and kind is Fault.TOO_LARGE:
            return Problem(413, f"Kafka refuses the record: {one_line(error)}", reason=str(Reason.TOO_LARGE))
        if isinstance(error, BaseException) and kind is Fault.BROKEN:
            self._on_broken(error)
        elif not self._away:
            self._away = True
            why = one_line(error) if isinstance(error, BaseException) else f"no answer within {self._wait_s:g} s"
            log.warning("Kafka does not acknowledge records for %s: %s", record.topic, why)
        # It may have it all the same. A worker takes an event of the same id and source once.
        return Problem(
            503, "Kafka did not acknowledge it in time: send it again with the same id and source", BUSY_RETRY_S
        )
