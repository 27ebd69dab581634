"""Results on the topic ``streamer.results``, each once, for readers of committed records.

A transaction holds results and, on a compacted topic of the sink's own, the cursors behind them (key: session, value:
end of the newest window, µs). So both are there or neither, and Kafka alone says where the sink is: Redis has no part
in a transaction of Kafka. Offsets of a consumer group would not do, since there is one cursor for each session.

A start, or a lost connection, begins with ``init_transactions``: Kafka ends what a predecessor of the same
transactional id has begun, and takes nothing more from it. The cursors that are read then are complete.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any, NamedTuple

from kafka import KafkaProducer, TopicPartition
from kafka.errors import AuthorizationError, KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from streamer.broker import topics
from streamer.clients import kafka as kafka_clients
from streamer.errors import Stop, Unavailable, UsageError, one_line
from streamer.events import TOPIC_RESULTS
from streamer.result import Result
from streamer.sinks import events
from streamer.sinks.sink import Given, Sink
from streamer.store.readers import Cursor, Page

WITHIN_S = 10.0  # of every call to Kafka, shorter than the transaction's own time
TRANSACTION_MS = 30_000

log = logging.getLogger(__name__)


class _Step(NamedTuple):
    """The next results of a session, and where its cursor is before and after them."""

    session: str
    before: Cursor
    after: Cursor
    results: Sequence[Result]


class KafkaSink(Sink):
    """Writes to Kafka. Pages that come while a transaction is under way share the next one."""

    service = "Kafka"
    at_once = 16  # a transaction has to end in time

    def __init__(self, given: Given) -> None:
        super().__init__(given)
        self.places = self
        self._thread = ThreadPoolExecutor(1, "kafka-sink")  # a producer has one transaction at a time
        self._turn = asyncio.Lock()
        self._waiting: list[tuple[_Step, asyncio.Future[bool]]] = []
        self._producer: KafkaProducer | None = None
        self._ends_us: dict[str, int] = {}  # session -> end of its newest window in Kafka

    async def open(self) -> None:
        await self._in_thread(self._prepare)

    async def close(self) -> None:
        await self._in_thread(self._drop)
        self._thread.shutdown()

    async def read(self, session: str) -> Cursor:
        """Where the sink is; what an outage has made uncertain is known before the next results are sent."""
        return Cursor(self._ends_us.get(session))

    async def move(self, session: str, before: Cursor, after: Cursor) -> bool:
        """Pass over results; see :class:`streamer.store.readers.Places`."""
        return await self._put(_Step(session, before, after, ()))

    async def take(self, page: Page) -> int | None:
        """Send a page and its cursor.

        Raises:
            Unavailable: Kafka does not answer; nothing of the page can be read there, or all.
            Stop: Kafka refuses us.
        """
        after = Cursor(page.results[-1].end_us)
        return after.end_us if await self._put(_Step(page.session, page.cursor, after, page.results)) else None

    async def _put(self, step: _Step) -> bool:
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((step, future))
        async with self._turn:
            if not future.done():  # whose turn it is takes all that wait
                waiting, self._waiting = self._waiting, []
                try:
                    moved = await self._in_thread(self._commit, [step for step, _ in waiting])
                except (Unavailable, Stop) as error:
                    for _, other in waiting:
                        if not other.done():  # cancelled, as the process ends
                            other.set_exception(error)
                else:
                    for (_, other), has in zip(waiting, moved, strict=True):
                        if not other.done():
                            other.set_result(has)
        return await future

    async def _in_thread(self, call: Callable[..., Any], *arguments: object) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    # in the thread

    def _prepare(self) -> None:
        settings = self.given.settings
        self._topic = topics.ensure(settings, TOPIC_RESULTS)
        self._cursors = topics.ensure(settings, f"sink.{self.given.name}", compacted=True)
        self._connect()

    def _connect(self) -> None:
        """Take over from a predecessor, and learn where it was.

        Raises:
            UsageError: Kafka does not answer, or refuses us.
        """
        settings = self.given.settings
        self._producer = kafka_clients.producer(
            settings,
            transactional_id=f"{settings.topic_prefix}.sink.{self.given.name}",
            transaction_timeout_ms=TRANSACTION_MS,
            max_block_ms=int(WITHIN_S * 1000),
            max_request_size=settings.max_message_bytes,
        )
        try:
            self._producer.init_transactions()
            self._ends_us = self._read_cursors()
        except KafkaError as error:
            self._drop()
            raise kafka_clients.refusal(settings, error) from None

    def _read_cursors(self) -> dict[str, int]:
        consumer = kafka_clients.consumer(self.given.settings)
        try:
            numbers = consumer.partitions_for_topic(self._cursors) or ()
            partitions = [TopicPartition(self._cursors, number) for number in numbers]
            consumer.assign(partitions)
            consumer.seek_to_beginning()
            ends = consumer.end_offsets(partitions)
            found: dict[str, int] = {}
            while any(consumer.position(partition) < ends[partition] for partition in partitions):
                for batch in consumer.poll(timeout_ms=500).values():
                    found |= {record.key.decode(): int(record.value) for record in batch}
            return found
        finally:
            consumer.close()

    def _commit(self, steps: Sequence[_Step]) -> list[bool]:
        """Results and cursors of those steps that begin where the cursor is, in one transaction.

        Raises:
            Unavailable, Stop: As :meth:`take`.
        """
        if self._producer is None:
            try:
                self._connect()
            except UsageError as error:
                raise Unavailable(str(error)) from None
        moves = [self._ends_us.get(step.session) == step.before.end_us for step in steps]
        due = [step for step, moves_on in zip(steps, moves, strict=True) if moves_on]
        if not due:
            return moves
        try:
            sent = self._transact(due)
        except AuthorizationError as error:
            self._drop()
            raise Stop(str(kafka_clients.refusal(self.given.settings, error))) from None
        except KafkaError as error:
            self._drop()  # what became of the transaction is known once the next producer is there
            raise Unavailable(f"it took no results: {one_line(error)}") from error
        self._ends_us |= {step.session: step.after.end_us for step in due if step.after.end_us is not None}
        self.given.metrics.sent.inc(sent)
        return moves

    def _transact(self, steps: Sequence[_Step]) -> int:
        producer = self._producer
        assert producer is not None
        producer.begin_transaction()
        sent = []
        for step in steps:
            key = step.session.encode()
            for result in step.results:
                value = result.to_json(embedding=True)
                try:
                    sent.append(producer.send(self._topic, key=key, value=value, headers=events.headers(result)))
                except MessageSizeTooLargeError as error:
                    log.error("%s cannot be sent to Kafka: %s; raise STREAMER_MAX_MESSAGE_BYTES", result.id, error)
                    self.given.metrics.failed.inc()
        marks = [
            producer.send(self._cursors, key=s.session.encode(), value=str(s.after.end_us).encode()) for s in steps
        ]
        for future in (*sent, *marks):
            future.get(timeout=WITHIN_S)
        _within(producer.commit_transaction)
        return len(sent)

    def _drop(self) -> None:
        if self._producer is not None:
            self._producer.close(timeout=1)
            self._producer = None


def _within(call: Callable[[], object]) -> None:
    """Call what may wait for ever; its thread is then left to itself.

    Raises:
        KafkaError: As the call does, or it has taken too long.
    """
    errors: list[KafkaError] = []

    def run() -> None:
        try:
            call()
        except KafkaError as error:
            errors.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    thread.join(WITHIN_S)
    if thread.is_alive():
        raise KafkaTimeoutError(f"no answer within {WITHIN_S:.0f} s")
    if errors:
        raise errors[0]
