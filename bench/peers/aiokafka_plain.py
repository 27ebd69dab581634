"""The job as a plain asyncio program with aiokafka, which is what people write who want no engine.

Everything that an engine would do is here by hand: event time passes in a partition as far as the slowest of its topics
that is not silent; offsets are committed up to the first record that an open window holds; and because a restart then
reads records of finished windows again, windows up to the session's newest one in Redis are passed over.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

import uvloop
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

from bench.peers.common import CHECKPOINT_S, GRACE_US, SESSION_TIMEOUT_S, Closed, Job, placed, window_end_us
from streamer.events import Record

IDLE_AFTER_S = 3.0  # after which a silent topic no longer holds up the others
POLL_MS = 100
MAX_RECORDS = 500


class Windows:
    """Open windows of all sessions, and what they hold of the log."""

    def __init__(self, job: Job, topics: tuple[str, ...]) -> None:
        self._job = job
        self._topics = topics
        self._published_us = job.published_end_us()
        self._open: dict[int, dict[tuple[int, str], list[Record]]] = defaultdict(dict)  # partition -> (end, session)
        self._newest_us: dict[TopicPartition, int] = {}
        self._heard_s: dict[TopicPartition, float] = {}
        self._next: dict[TopicPartition, int] = {}  # offset after the last one that was read

    def add(self, message: ConsumerRecord) -> None:
        """Put a record into its windows."""
        tp = TopicPartition(message.topic, message.partition)
        self._next[tp] = message.offset + 1
        record = self._job.record(
            message.topic,
            message.partition,
            message.offset,
            message.timestamp,
            message.key,
            message.value,
            message.headers,
        )
        event = self._job.event(record)
        if event is None:
            return
        self._newest_us[tp] = max(self._newest_us.get(tp, 0), event.start_us)
        self._heard_s[tp] = time.monotonic()
        for at_us in placed(event):
            end_us = window_end_us(at_us)
            if end_us > self._published_us.get(event.session, 0):
                self._open[tp.partition].setdefault((end_us, event.session), []).append(record)

    def close(self) -> list[Closed]:
        """Take out the windows that event time has passed, oldest first."""
        closed = []
        for partition, windows in self._open.items():
            passed_us = self._watermark_us(partition)
            for end_us, session in sorted(key for key in windows if key[0] <= passed_us):
                closed.append(Closed(session, end_us, windows.pop((end_us, session))))
                self._published_us[session] = end_us
        return closed

    def _watermark_us(self, partition: int) -> int:
        silent_s = time.monotonic() - IDLE_AFTER_S
        topics = [TopicPartition(topic, partition) for topic in self._topics]
        if any(tp not in self._newest_us for tp in topics):
            return 0  # nothing is known of it since the start: it may be silent, or about to be read
        live = [self._newest_us[tp] for tp in topics if self._heard_s[tp] > silent_s]
        return min(live, default=0) - GRACE_US

    def offsets(self) -> dict[TopicPartition, int]:
        """What may be committed: up to the first record that an open window holds."""
        found = dict(self._next)
        for partition, windows in self._open.items():
            for records in windows.values():
                for record in records:
                    tp = TopicPartition(self._topics[record.row], partition)
                    found[tp] = min(found[tp], record.offset)
        return found


async def main() -> None:
    job = Job()
    settings = job.settings
    consumer = AIOKafkaConsumer(
        *settings.source_topics,
        bootstrap_servers=settings.kafka,
        group_id=settings.group,
        group_instance_id=settings.group,
        session_timeout_ms=round(SESSION_TIMEOUT_S * 1000),
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    windows = Windows(job, settings.source_topics)
    committed_s = time.monotonic()
    while True:
        for messages in (await consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)).values():
            for message in messages:
                windows.add(message)
        if closed := windows.close():
            await asyncio.to_thread(job.finish, closed)
        if time.monotonic() - committed_s >= CHECKPOINT_S:
            await consumer.commit(windows.offsets())
            committed_s = time.monotonic()


if __name__ == "__main__":
    uvloop.run(main())
