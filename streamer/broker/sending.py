"""A producer for programs on an event loop: each record has a future that ends with Kafka's acknowledgement.

aiokafka's, since a future for each record costs kafka-python three changes of thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordTooLargeError

from streamer.clients.kafka import kafka_options
from streamer.errors import UsageError, one_line
from streamer.settings import Settings

__all__ = ["Fault", "KafkaError", "Place", "Sending", "fault"]

BATCH_BYTES = 1 << 20
LINGER_MS = 2


class Place(NamedTuple):
    """Where a record is."""

    partition: int
    offset: int


class Fault(Enum):
    """What an error of sending means."""

    AWAY = auto()  # Kafka does not acknowledge it now
    TOO_LARGE = auto()  # and never will, by its size
    BROKEN = auto()  # the producer's own task has ended: only a new one can send


def fault(error: BaseException) -> Fault:
    """What an error of :meth:`Sending.send`, or of its future, means."""
    if isinstance(error, MessageSizeTooLargeError | RecordTooLargeError):
        return Fault.TOO_LARGE
    # aiokafka fails all that waits, and all that comes, with the bare class when its sender has crashed
    return Fault.BROKEN if type(error) is KafkaError else Fault.AWAY


class Sending:
    """Sends records, with all replicas' acknowledgement.

    Args:
        ack_ms: Longest time that a record may wait here to be sent, and that a request waits for its answer, ms.
    """

    def __init__(self, settings: Settings, ack_ms: int) -> None:
        self._kafka = settings.kafka
        self._producer = AIOKafkaProducer(
            **kafka_options(settings),
            acks="all",
            request_timeout_ms=ack_ms,
            max_batch_size=min(BATCH_BYTES, settings.max_message_bytes),
            max_request_size=settings.max_message_bytes,
            linger_ms=LINGER_MS,
        )

    async def start(self) -> None:
        """Connect.

        Raises:
            UsageError: No Kafka answers, or it refuses us.
        """
        try:
            await self._producer.start()
        except (KafkaError, OSError) as error:
            await self._producer.stop()
            raise UsageError(f"Kafka at {self._kafka}: {one_line(error)}") from None

    async def send(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: Sequence[tuple[str, bytes]]
    ) -> asyncio.Future[Place]:
        """Put a record behind those of its partition; waits while too much waits there.

        Raises:
            KafkaError: It cannot be sent; :func:`fault` says what that means.
        """
        future: asyncio.Future[Place] = await self._producer.send(
            topic, value=value, key=key, partition=partition, headers=headers
        )
        return future

    async def stop(self, within_s: float) -> bool:
        """Wait for what is on its way, then disconnect; whether Kafka has all of it."""
        try:
            async with asyncio.timeout(within_s):
                await self._producer.stop()
        except TimeoutError:
            return False
        return True
