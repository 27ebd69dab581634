"""Late records and dead letters on their way to their topics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import aiokafka.errors
from faust.exceptions import ProducerSendError

from streamer.align.group import Rejected
from streamer.align.windows import Late
from streamer.backoff import Backoff
from streamer.broker import deadletters
from streamer.broker.deadletters import Letter
from streamer.errors import BadRecord
from streamer.events import TOPIC_DEADLETTER, TOPIC_LATE, Event, Record
from streamer.observe.health import Service
from streamer.observe.metrics import Metrics
from streamer.settings import Settings
from streamer.worker.ports import Group, Owner

MAX_LETTERS = 1000  # not yet acknowledged; a window with a broken member waits behind all of them
DRAIN_S = 1.0  # longest wait for them at a stop

log = logging.getLogger(__name__)


class Letters:
    """Sends what leaves alignment by itself, and tells its group once the broker has it.

    Args:
        send: Sends topic, key, value and headers, and waits for the broker's acknowledgement.
        guard: Runs work whose error must end the worker.
        on_done: Called after each letter that a group waited for.

    Attributes:
        nbytes: Payloads of letters on their way.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        kafka: Service,
        send: Callable[..., Awaitable[None]],
        guard: Callable[[Coroutine[Any, Any, None]], Coroutine[Any, Any, None]],
        on_done: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._topics = settings.worker_topics
        self._metrics = metrics
        self._kafka = kafka
        self._send = send
        self._guard = guard
        self._on_done = on_done
        self._tasks: set[asyncio.Task[None]] = set()
        self.nbytes = 0

    @property
    def full(self) -> bool:
        """Whether no more should come until some are acknowledged."""
        return len(self._tasks) >= MAX_LETTERS

    def put(self, group: Group[Any], item: Late | Rejected) -> None:
        """Send a record that left its group by itself; the group learns when the broker has it."""
        if isinstance(item, Late):
            record, topic = item.event.record, self._settings.topic(TOPIC_LATE)
            letter = deadletters.late(record, item.late_by_us, self._topics[record.row])
        else:
            record, topic = item.record, self._settings.topic(TOPIC_DEADLETTER)
            letter = self._dead_letter(record, item.error, self._topics[record.row])
        self.nbytes += len(letter.value)
        task = asyncio.create_task(self._guard(self._deliver(group, record, topic, letter)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, group: Group[Any], record: Record, topic: str, letter: Letter) -> None:
        await self.send(topic, letter)
        self.nbytes -= len(letter.value)
        self._on_done()
        if group.alive:
            group.record_done(record.position)

    async def dead_letter_member(self, owner: Owner, event: Event, error: BadRecord) -> None:
        """Send a member of a window whose payload cannot be opened, once; the window goes on without it."""
        if owner.first_death(event.position):
            letter = self._dead_letter(event.record, error, self._settings.source_topics[event.row])
            await self.send(self._settings.topic(TOPIC_DEADLETTER), letter)

    async def send(self, topic: str, letter: Letter, *, whole: bool = False) -> None:
        """Send and wait for the broker's acknowledgement; repeated until it comes.

        Args:
            whole: Never leave anything out, even if the broker refuses the record's size.
        """
        backoff, this = Backoff(), object()
        try:
            while True:
                try:
                    return await self._send(topic, letter.key, letter.value, letter.headers)
                except (ProducerSendError, aiokafka.errors.KafkaError) as error:
                    if not whole and _is_too_large(error) and (smaller := _smaller(letter)) != letter:
                        letter = smaller
                        continue
                    self._kafka.away(error, f"Kafka does not take a record for {topic}", this)
                    await backoff.pause()
        finally:
            self._kafka.answers(this)

    async def drain(self) -> None:
        """Wait a moment for letters on their way."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=DRAIN_S)

    def cancel(self) -> None:
        """Give up what is on its way: its record is not done, and comes again after the restart."""
        for task in self._tasks:
            task.cancel()

    def _dead_letter(self, record: Record, error: BadRecord, topic: str) -> Letter:
        self._metrics.dead_letters.labels(str(error.reason)).inc()
        log.warning("dead letter: %s partition %d offset %d: %s", topic, record.partition, record.offset, error)
        return deadletters.dead_letter(record, error.reason, error.detail, topic)


def _is_too_large(error: BaseException) -> bool:
    """Whether the broker refused a record's size, or our own client did, whose error Faust wraps."""
    too_large = aiokafka.errors.MessageSizeTooLargeError
    return isinstance(error, too_large) or isinstance(error.__cause__, too_large)


def _smaller(letter: Letter) -> Letter:
    """The letter with less in it; the same if there is nothing more to leave out."""
    return letter.without_value() if letter.value else letter.bare()
