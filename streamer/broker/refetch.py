"""Fetches payloads that were left behind from the source topics, see ``worker.handover``.

Role align has committed past these records, but they stay in the log as long as Kafka's retention keeps them.
"""

from __future__ import annotations

import asyncio
import logging

import aiokafka
import aiokafka.errors
import msgspec

from streamer.backoff import Backoff
from streamer.broker import internals
from streamer.clients import kafka as kafka_clients
from streamer.clients.batches import Reading, limit_bytes, unreadable
from streamer.events import Event, Window
from streamer.observe.health import Service
from streamer.settings import Settings

POLL_MS = 1000
POLL_RECORDS = 16 << 10
TIMEOUT_S = 30.0

log = logging.getLogger(__name__)

Found = dict[tuple[int, int], "aiokafka.ConsumerRecord[bytes, bytes]"]  # by row and offset


class Refetch:
    """Reads single records of the source topics, with a separate consumer that commits nothing.

    Args:
        service: Learns whether Kafka answers.
    """

    def __init__(self, settings: Settings, service: Service) -> None:
        self._settings = settings
        self._service = service
        self._consumer: aiokafka.AIOKafkaConsumer[bytes, bytes] | None = None

    async def __call__(self, window: Window) -> Window:
        """The window with everything that was left behind; repeated until Kafka answers.

        A record that Kafka no longer keeps is marked as lost; the window goes on without it.
        """
        backoff = Backoff()
        while True:
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    found = await self._read(window)
            except (aiokafka.errors.KafkaError, OSError) as error:  # the latter: not within the time, too
                self._service.away(error)
                await self.close()
                await backoff.pause()
            else:
                self._service.answers()
                return _filled(window, found)

    async def close(self) -> None:
        """Leave Kafka."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def _read(self, window: Window) -> Found:
        """Read each topic from its first to its last wanted record."""
        topics = self._settings.source_topics
        wanted: dict[aiokafka.TopicPartition, tuple[int, set[int]]] = {}
        for row, events in zip(window.sensors.rows, window.events, strict=True):
            if offsets := {event.record.offset for event in events if event.left_behind}:
                tp = aiokafka.TopicPartition(topics[row], window.partition)
                wanted.setdefault(tp, (row, set()))[1].update(offsets)
        consumer = await self._started()
        consumer.assign(list(wanted))
        for tp, (_, offsets) in wanted.items():
            consumer.seek(tp, min(offsets))
        found: Found = {}
        ends = await consumer.end_offsets(list(wanted))
        left = set(wanted)
        while left:
            for tp, records in (await consumer.getmany(*left, timeout_ms=POLL_MS, max_records=POLL_RECORDS)).items():
                row, offsets = wanted[tp]
                found |= {
                    (row, record.offset): record
                    for record in records
                    if record.offset in offsets and unreadable(record.headers) is None
                }
            # By position, not by record: at the end of a log there may only be a transaction's marker.
            left = {tp for tp in left if await consumer.position(tp) < min(max(wanted[tp][1]) + 1, ends[tp])}
        consumer.pause(*wanted)  # else it would go on fetching
        return found

    async def _started(self) -> aiokafka.AIOKafkaConsumer[bytes, bytes]:
        if self._consumer is None:
            consumer = aiokafka.AIOKafkaConsumer(
                **kafka_clients.kafka_options(self._settings),
                group_id=None,
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=self._settings.max_message_bytes + (64 << 10),
            )
            self._consumer = consumer
            await consumer.start()
            internals.read_all_batches(consumer, Reading(limit_bytes(self._settings)))
        return self._consumer


def _filled(window: Window, found: Found) -> Window:
    lost = 0

    def fill(event: Event) -> Event:
        nonlocal lost
        if not event.left_behind:
            return event
        record = found.get((event.row, event.record.offset))
        if record is None:
            lost += 1
            return msgspec.structs.replace(event, left_behind=False, lost=True)
        source = msgspec.structs.replace(
            event.record, value=record.value or b"", headers=tuple(record.headers), key=record.key
        )
        return msgspec.structs.replace(event, record=source, left_behind=False)

    events = tuple(tuple(map(fill, own)) for own in window.events)
    if lost:
        log.error("window %s: %d of its records are no longer in Kafka; it goes on without them", window.id, lost)
    return msgspec.structs.replace(window, events=events)
