"""Late records and dead letters, counted by reason since the page's server started.

Workers count them too (see their /metrics), but the page does not know the workers, so it reads the two topics.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from time import time_ns
from typing import Any

import msgspec
from kafka import TopicPartition

from streamer.broker.deadletters import DETAIL, LATE_BY, ORIGIN, REASON
from streamer.clients import kafka as kafka_clients
from streamer.dashboard.reading import Reader
from streamer.errors import Reason
from streamer.events import TOPIC_DEADLETTER, TOPIC_LATE
from streamer.settings import Settings

POLL_MS = 500
NEWEST = 10


class Fault(msgspec.Struct, frozen=True):
    """A record that was set aside.

    Attributes:
        reason: Of a dead letter; ``late`` for a late record.
        origin: ``topic/partition/offset`` of the record.
    """

    time_us: int
    session: str
    reason: str
    detail: str
    origin: str


class Faults(msgspec.Struct, frozen=True):
    """The counts.

    Attributes:
        since_us: When counting began.
        kept: Late records and dead letters that Kafka already held then.
        late: Source topic -> late records.
        dead: Reason -> dead letters.
    """

    since_us: int
    kept: dict[str, int]
    late: dict[str, int]
    dead: dict[str, int]
    newest: list[Fault]


class Watch(Reader):
    """Counts in its own thread.

    Args:
        on_change: Called in that thread after each change.

    Attributes:
        seen: The counts so far; replaced, never modified.

    Raises:
        UsageError: Kafka does not answer.
    """

    def __init__(self, settings: Settings, on_change: Callable[[Faults], None]) -> None:
        super().__init__("faults", "late records and dead letters")
        self._topics = {settings.topic(TOPIC_LATE): "late", settings.topic(TOPIC_DEADLETTER): "dead"}
        self._sources = frozenset(settings.source_topics)
        self._on_change = on_change
        self._counts = {kind: Counter[str]() for kind in self._topics.values()}
        self._newest: deque[Fault] = deque(maxlen=NEWEST)
        self._since_us = time_ns() // 1000
        self._kept = dict.fromkeys(self._topics.values(), 0)
        self._consumer = kafka_clients.consumer(settings)
        self._place()
        self.seen = self._snapshot()

    def _place(self) -> None:
        partitions = [
            TopicPartition(topic, number)
            for topic in self._topics
            for number in self._consumer.partitions_for_topic(topic) or ()
        ]
        self._consumer.assign(partitions)
        begins, ends = self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions)
        for place in partitions:
            self._consumer.seek(place, ends[place])
            self._kept[self._topics[place.topic]] += ends[place] - begins[place]

    def _snapshot(self) -> Faults:
        counts = {kind: dict(counter) for kind, counter in self._counts.items()}
        return Faults(self._since_us, self._kept, counts["late"], counts["dead"], list(self._newest))

    def step(self) -> None:
        found = self._consumer.poll(timeout_ms=POLL_MS)
        for place, messages in found.items():
            for message in messages:
                self._count(self._topics[place.topic], message)
        if found:
            self.seen = self._snapshot()
            self._on_change(self.seen)

    def release(self) -> None:
        self._consumer.close()

    def _count(self, kind: str, message: Any) -> None:
        headers = {name: (value or b"").decode("utf-8", "replace") for name, value in message.headers}
        topic, _, place = headers.get(ORIGIN, "").partition("/")
        if kind == "late":
            # anybody may write there: unknown topics must not add names without limit
            self._counts[kind][topic if topic in self._sources else "other"] += 1
            reason, detail = "late", f"{headers.get(LATE_BY, '?')} µs after its windows had closed"
        else:
            reason = headers.get(REASON, "")
            reason = reason if reason in set(Reason) else "other"
            self._counts[kind][reason] += 1
            detail = headers.get(DETAIL, "")
        session = (message.key or b"").decode("utf-8", "replace")
        origin = f"{topic}/{place.rpartition('/')[0]}"
        self._newest.append(Fault(message.timestamp * 1000, session, reason, detail, origin))
