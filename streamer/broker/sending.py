"""A producer for programs on an event loop: each record is told Kafka's acknowledgement, or why there is none.

By confluent-kafka, librdkafka's client: a send of 20 KB costs it a third of the CPU time that it costs aiokafka, which
copies each batch about six times (``bench.gateway``, docs/gateway.md). Its deliveries are fetched on the loop, once a
millisecond while records wait: a thread that did so would take turns with the loop's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum, auto
from functools import partial
from typing import Any, NamedTuple

from streamer.errors import UsageError, extra
from streamer.settings import Settings

BATCH_BYTES = 1 << 20
LINGER_MS = 2
LOOK_S = 0.001  # between two looks for deliveries: half of it is added to each acknowledgement's time
CONNECT_S = 10.0
MAX_BACKOFF_MS = 1000  # between attempts to connect: the library's own 10 s would be how long a return goes unseen
ENVELOPE_BYTES = 1 << 10  # around a record: the library counts its frame to a message's size
NO_LIMIT_KIB = 2**31 - 1  # of its queue: who sends bounds what waits


class Place(NamedTuple):
    """Where a record is."""

    partition: int
    offset: int


class Fault(Enum):
    """What an error of sending means."""

    AWAY = auto()  # Kafka does not acknowledge it now
    TOO_LARGE = auto()  # and never will, by its size
    BROKEN = auto()  # the producer has ended: only a new one can send


class Unsent(NamedTuple):
    """Why Kafka has not acknowledged a record. It may have it all the same, unless it is too large."""

    fault: Fault
    detail: str


Told = Callable[[Place | Unsent], None]


class Sending:
    """Sends records, with all replicas' acknowledgement, once each and in the order of their partition.

    Args:
        ack_ms: Longest time from :meth:`send` until a record's outcome, ms.

    Raises:
        UsageError: The library is not installed.
    """

    def __init__(self, settings: Settings, ack_ms: int) -> None:
        with extra("gateway", "streamer gateway"):
            import confluent_kafka
        self._kafka = settings.kafka
        self._lib = confluent_kafka
        self._waiting = 0
        self._looking = False
        self._empty = asyncio.Event()
        self._producer = confluent_kafka.Producer(_options(settings, ack_ms))

    async def start(self) -> None:
        """Connect.

        Raises:
            UsageError: No Kafka answers, or it refuses us.
        """
        self._loop = asyncio.get_running_loop()
        try:
            await self._loop.run_in_executor(None, partial(self._producer.list_topics, timeout=CONNECT_S))
        except self._lib.KafkaException as error:
            raise UsageError(f"Kafka at {self._kafka}: {_words(error.args[0])}") from None

    def send(
        self, topic: str, partition: int, key: bytes, value: bytes, headers: list[tuple[str, bytes]], told: Told
    ) -> None:
        """Put a record behind those of its partition; the library has its own copy.

        Args:
            told: Called once on the event loop, perhaps before this returns.
        """
        self._waiting += 1
        try:
            on_delivery = partial(self._delivered, told)
            self._producer.produce(topic, value, key, partition, on_delivery, headers=headers)  # type: ignore[arg-type]
        except self._lib.KafkaException as error:
            self._delivered(told, error.args[0], None)
        if not self._looking:
            self._looking = True
            self._loop.call_later(LOOK_S, self._look)

    async def stop(self, within_s: float) -> bool:
        """Wait for what is on its way; whether Kafka has all of it."""
        self._empty.clear()
        if self._waiting:
            try:
                async with asyncio.timeout(within_s):
                    await self._empty.wait()
            except TimeoutError:
                return False
        return True

    def _look(self) -> None:
        try:
            self._producer.poll(0)
        finally:
            self._looking = bool(self._waiting)
            if self._looking:
                self._loop.call_later(LOOK_S, self._look)
            else:
                self._empty.set()

    def _delivered(self, told: Told, error: Any, message: Any) -> None:
        self._waiting -= 1
        if error is None:
            told(Place(message.partition(), message.offset()))
        else:
            told(Unsent(self._fault(error), _words(error)))

    def _fault(self, error: Any) -> Fault:
        if error.code() == self._lib.KafkaError.MSG_SIZE_TOO_LARGE:
            return Fault.TOO_LARGE
        return Fault.BROKEN if error.fatal() else Fault.AWAY


def _words(error: Any) -> str:
    return " ".join(error.str().split())[:200]


def _options(settings: Settings, ack_ms: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap.servers": settings.kafka,
        "security.protocol": settings.kafka_security_protocol,
        "enable.idempotence": True,  # a request that is repeated writes its records once
        # a broker answers the requests of a connection one after the other, and with more the library waits actively
        "max.in.flight": 1,
        "message.timeout.ms": ack_ms,
        "request.timeout.ms": ack_ms,
        "linger.ms": LINGER_MS,
        "batch.size": min(BATCH_BYTES, settings.max_message_bytes),
        "message.max.bytes": settings.max_message_bytes + ENVELOPE_BYTES,
        "queue.buffering.max.kbytes": NO_LIMIT_KIB,
        "queue.buffering.max.messages": 0,
        "reconnect.backoff.max.ms": MAX_BACKOFF_MS,
        "log_level": 7 if settings.log_level == "debug" else 0,  # syslog's; we report what matters
    }
    if settings.kafka_ca_file is not None:
        options["ssl.ca.location"] = str(settings.kafka_ca_file)
    if settings.kafka_password is not None:
        options |= {
            "sasl.mechanism": settings.kafka_sasl_mechanism,
            "sasl.username": settings.kafka_user,
            "sasl.password": settings.kafka_password.get_secret_value(),
        }
    return options
