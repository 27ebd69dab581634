"""Records on their way to Kafka: how many bytes of them there are, and what became of each."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from streamer.broker.sending import Fault, KafkaError, Place, fault
from streamer.errors import Reason, one_line
from streamer.gateway.metrics import ACKNOWLEDGED, REFUSED, UNAVAILABLE, GatewayMetrics
from streamer.gateway.problems import Problem
from streamer.gateway.quotas import BUSY_RETRY_S, Room
from streamer.gateway.records import Ready
from streamer.settings import Settings

log = logging.getLogger(__name__)

RECORD_BYTES = 2_000  # of the objects around a record, about: many small ones would take more than their payloads


class Sender(Protocol):
    """What sends: :class:`streamer.broker.sending.Sending`, or a test's."""

    async def send(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[Place]:
        """Put a record behind those of its partition."""


class Outgoing:
    """Sends records and waits for their acknowledgement.

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

    def stuck_s(self) -> float:
        """For how long records have waited without any being acknowledged."""
        return monotonic() - self._moved_s if self._waiting else 0.0

    async def send(self, record: Ready) -> asyncio.Future[Place]:
        """Send a record; its future ends when Kafka has it. Its bytes take room until then.

        Raises:
            Problem: It cannot be sent now, or not at all.
        """
        if not self._waiting:
            self._moved_s = monotonic()
        nbytes = len(record.value) + RECORD_BYTES
        self._room.hold(nbytes)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                future = await self._sender.send(
                    record.topic, record.partition, record.key, record.value, record.headers
                )
        except BaseException as error:
            self._gone(nbytes)
            if not isinstance(error, KafkaError | TimeoutError):
                raise
            self._count(record, error)
            raise self._problem(record, error) from None
        future.add_done_callback(lambda done: self._told(done, record, nbytes))
        return future

    async def acknowledged(self, records: Sequence[Ready], futures: Sequence[asyncio.Future[Place]]) -> list[Place]:
        """Wait until Kafka has all records.

        Raises:
            Problem: It does not have all of them in time; ``accepted`` has the ids of those that it has.
        """
        if not all(future.done() for future in futures):
            await asyncio.wait(futures, timeout=self._wait_s)  # never cancels: they are on their way
        if all(future.done() and not future.cancelled() and future.exception() is None for future in futures):
            return [future.result() for future in futures]
        problem: Problem | None = None
        accepted = []
        for record, future in zip(records, futures, strict=True):
            if future.done() and not future.cancelled():
                error = future.exception()
                if error is None:
                    accepted.append(record.id)
                    continue
            else:
                error = TimeoutError()
            problem = problem or self._problem(record, error)
        assert problem is not None
        problem.members["accepted"] = accepted
        raise problem

    def _told(self, done: asyncio.Future[Place], record: Ready, nbytes: int) -> None:
        self._gone(nbytes)
        error = None if done.cancelled() else done.exception()
        if error is None:
            self._moved_s = monotonic()
            if self._away:
                self._away = False
                log.info("Kafka acknowledges records again")
            self._metrics.records.labels(record.sensor, ACKNOWLEDGED).inc()
            self._metrics.payload_bytes.labels(record.sensor).inc(len(record.value))
        else:
            self._count(record, error)

    def _count(self, record: Ready, error: BaseException) -> None:
        outcome = REFUSED if fault(error) is Fault.TOO_LARGE else UNAVAILABLE
        self._metrics.records.labels(record.sensor, outcome).inc()

    def _gone(self, nbytes: int) -> None:
        self._waiting -= 1
        self._room.give(nbytes)

    def _problem(self, record: Ready, error: BaseException) -> Problem:
        kind = Fault.AWAY if isinstance(error, TimeoutError) else fault(error)
        if kind is Fault.TOO_LARGE:
            return Problem(413, f"Kafka refuses the record: {one_line(error)}", reason=str(Reason.TOO_LARGE))
        if kind is Fault.BROKEN:
            self._on_broken(error)
        elif not self._away:
            self._away = True
            log.warning("Kafka does not acknowledge records for %s: %s", record.topic, one_line(error))
        # It may have it all the same. A worker takes an event of the same id and source once.
        return Problem(
            503, "Kafka did not acknowledge it in time: send it again with the same id and source", BUSY_RETRY_S
        )
