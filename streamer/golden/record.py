"""Records a stretch of the source topics into a file, whose form ``recording`` describes.

Records are merged by log time as far as possible, so that readers of the file need little memory: a record waits for
each partition that is known to have more and has delivered nothing. Partitions that run ahead are paused.

Committed records are recorded, as the worker reads them. Where a transaction is open at the end, the recording is
complete up to the log time of its first record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from heapq import heappop, heappush
from pathlib import Path
from threading import Event
from time import monotonic, time_ns
from typing import Any

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError

from streamer.broker import topics
from streamer.clients import kafka as kafka_clients
from streamer.errors import UsageError
from streamer.events import KIND_NAMES
from streamer.golden.recording import About, Recorded, Writer
from streamer.settings import Settings

POLL_MS = 200
MAX_POLL_RECORDS = 2000
FIFO_BYTES = 2 << 20  # a partition with more waiting is paused
FLUSH_EVERY_S = 10.0  # a recording that is killed may lose this much
MS_US = 1000


class Stretch(msgspec.Struct, frozen=True):
    """What to record.

    Attributes:
        since_us: Log time at which it begins; ``None`` for now; 0 for the oldest record of the topics.
        seconds: Its length; ``None`` until it is stopped, or, with ``since_us``, up to the newest record there is now.
        sessions: Only records with these keys; empty for all.
    """

    since_us: int | None = None
    seconds: float | None = None
    sessions: tuple[str, ...] = ()


class Outcome(msgspec.Struct):
    """What has been recorded so far.

    Attributes:
        first_us, last_us: Log times of the first and the last record; 0 before the first.
        undecided_us: Log time from which records of transactions may be missing that were open at the end; 0: none was.
    """

    records: int = 0
    nbytes: int = 0
    first_us: int = 0
    last_us: int = 0
    undecided_us: int = 0

    def add(self, record: Recorded) -> None:
        """Count a record."""
        self.records += 1
        self.nbytes += len(record.value or b"")
        self.first_us = self.first_us or record.log_time_us
        self.last_us = max(self.last_us, record.log_time_us)


def record(
    settings: Settings,
    path: Path,
    stretch: Stretch = Stretch(),  # noqa: B008 - frozen
    *,
    force: bool = False,
    stop: Event | None = None,
    on_progress: Callable[[Outcome], None] = lambda outcome: None,
) -> Outcome:
    """Record until the stretch has ended or ``stop`` is set; in both cases the file is whole.

    Raises:
        UsageError: No Kafka answers, the topics do not fit, or the file cannot be written, or exists and ``force`` is
            not given.
    """
    partitions = topics.check(settings)
    with _consumer(settings) as consumer, _consumer(settings, isolation_level="read_uncommitted") as uncommitted:
        source = _Source(settings, partitions, consumer, uncommitted, stretch)
        about = source.begin()
        with Writer(path, about, force) as writer:
            outcome = Outcome()
            flushed_s = monotonic()
            for recorded in source.records(stop or Event()):
                if recorded is not None:
                    writer.write(recorded)
                    outcome.add(recorded)
                    continue
                on_progress(outcome)
                if monotonic() - flushed_s > FLUSH_EVERY_S:
                    writer.flush()
                    flushed_s = monotonic()
            writer.end(source.end_us)
            outcome.undecided_us = source.undecided_us
            on_progress(outcome)
    return outcome


@contextmanager
def _consumer(settings: Settings, **options: Any) -> Iterator[KafkaConsumer]:
    # Without a reset: kafka-python's would jump to the newest record, where Kafka has deleted what was to come next.
    fixed = {"max_poll_records": MAX_POLL_RECORDS, "auto_offset_reset": "none"}
    consumer = kafka_clients.consumer(settings, **{**fixed, **options})
    try:
        yield consumer
    except OffsetOutOfRangeError:
        raise UsageError(
            "Kafka has deleted records before they were recorded: the file ends before them; record a later "
            "stretch, or raise the topics' retention"
        ) from None
    except KafkaError as error:
        raise kafka_clients.refusal(settings, error) from None
    finally:
        consumer.close()


class _Source:
    """The source topics as one stream.

    Args:
        consumer: Reads committed records.
        uncommitted: Reads all.

    Attributes:
        end_us: Set when the stream has ended: it has every record from its beginning to this log time.
        undecided_us: As of :class:`Outcome`.
    """

    def __init__(
        self,
        settings: Settings,
        partitions: int,
        consumer: KafkaConsumer,
        uncommitted: KafkaConsumer,
        stretch: Stretch,
    ) -> None:
        self.end_us = self.undecided_us = 0
        self._settings = settings
        self._partitions = partitions
        self._consumer = consumer
        self._uncommitted = uncommitted
        self._stretch = stretch
        self._keys = {session.encode() for session in stretch.sessions}
        self._rows = {topic: row for row, topic in enumerate(settings.source_topics)}
        self._all = [TopicPartition(topic, p) for topic in self._rows for p in range(partitions)]
        self._waiting: dict[TopicPartition, deque[Any]] = {tp: deque() for tp in self._all}
        self._nbytes = dict.fromkeys(self._all, 0)
        self._heads: list[tuple[int, int, int, TopicPartition]] = []  # (log time ms, row, partition, …) of each FIFO
        self._over: set[TopicPartition] = set()  # past the stretch's end
        self._known: dict[TopicPartition, int] = {}  # end offsets at the beginning
        self._ends: dict[TopicPartition, int] | None = None  # offsets at which to stop
        now_us = time_ns() // 1000
        since_us = now_us if stretch.since_us is None else stretch.since_us
        self._since_ms = -(-since_us // MS_US)  # Kafka's log times are whole milliseconds
        self._until_ms = None if stretch.seconds is None else self._since_ms + round(stretch.seconds * 1000)
        self._released_ms = 0
        # The stretch reaches into the future, or up to what there is now.
        self._live = stretch.since_us is None or (self._until_ms is not None and self._until_ms * MS_US > now_us)

    def begin(self) -> About:
        """Find the first offsets and go there."""
        consumer = self._consumer
        consumer.assign(self._all)
        now_us = time_ns() // 1000
        # Ends before times: what is appended in between is recorded too, and nothing from the start on is left out.
        ends, begins = consumer.end_offsets(self._all), consumer.beginning_offsets(self._all)
        found = consumer.offsets_for_times(dict.fromkeys(self._all, self._since_ms))
        first = {tp: ends[tp] if found[tp] is None else found[tp].offset for tp in self._all}
        for tp, offset in first.items():
            consumer.seek(tp, offset)
        self._known = ends
        if not self._live:
            self._end(ends, now_us)
        start_us = [0] * self._partitions
        for tp in self._all:
            if first[tp] == 0:
                continue  # nothing of this topic is missing
            complete_us = self._since_ms * MS_US
            if first[tp] == begins[tp]:  # deleted ones may be as new as the first that is left
                complete_us = max(complete_us, now_us if found[tp] is None else (found[tp].timestamp + 1) * MS_US)
            start_us[tp.partition] = max(start_us[tp.partition], complete_us)
        return About(
            kinds=KIND_NAMES,
            topics=self._settings.source_topics,
            partitions=self._partitions,
            first_offsets=tuple(
                tuple(first[TopicPartition(topic, p)] for p in range(self._partitions)) for topic in self._rows
            ),
            start_us=tuple(start_us),
            sessions=self._stretch.sessions,
        )

    def records(self, stop: Event) -> Iterator[Recorded | None]:
        """The records, in order as far as it can be known; ``None`` after each poll of Kafka."""
        while not self._finished():
            if self._ends is None and (stop.is_set() or self._time_is_up()):
                now_us = time_ns() // 1000
                self._end(self._consumer.end_offsets(self._all), now_us)
            elif not self._live and stop.is_set():
                self.end_us = min(self.end_us, self._released_ms * MS_US)
                return
            self._poll()
            for message, row in self._release():
                if not self._keys or message.key in self._keys:
                    yield _recorded(message, row)
            yield None

    def _end(self, ends: dict[TopicPartition, int], now_us: int) -> None:
        """Stop at these offsets, which were asked for at ``now_us`` or later."""
        self._ends = ends
        # As the worker assumes: this clock and the broker's differ by merge_slack at most.
        self.end_us = self._until_us(now_us - self._slack_us)
        undecided_us = min(self._open_us(ends), default=self.end_us)
        if undecided_us < self.end_us:
            self.end_us = self.undecided_us = undecided_us

    def _open_us(self, stable: dict[TopicPartition, int]) -> Iterator[int]:
        """Log times from which records of open transactions may be missing.

        Args:
            stable: Offsets at which the open transactions of each partition begin, or its end.
        """
        reader = self._uncommitted
        ends = reader.end_offsets(self._all)
        left = {tp for tp in self._all if ends[tp] > stable[tp]}
        reader.assign(list(left))
        for tp in left:
            reader.seek(tp, stable[tp])
        while left:
            for tp, batch in reader.poll(timeout_ms=POLL_MS).items():
                if tp in left:
                    left.remove(tp)
                    yield batch[0].timestamp * MS_US
            left = {tp for tp in left if reader.position(tp) < ends[tp]}  # a marker brings no record

    @property
    def _slack_us(self) -> int:
        return self._settings.merge_slack_ms * 1000

    def _until_us(self, reached_us: int) -> int:
        return reached_us if self._until_ms is None else min(reached_us, self._until_ms * MS_US)

    def _time_is_up(self) -> bool:
        return self._until_ms is not None and time_ns() // 1000 - self._slack_us >= self._until_ms * MS_US

    def _finished(self) -> bool:
        return self._ends is not None and not any(self._waiting.values()) and not any(map(self._behind, self._all))

    def _behind(self, tp: TopicPartition) -> bool:
        """Whether the partition is known to have records that have not come yet."""
        if tp in self._over:
            return False
        end = self._ends[tp] if self._ends is not None else (self._consumer.highwater(tp) or self._known[tp])
        return bool(self._consumer.position(tp) < end)

    def _poll(self) -> None:
        for tp, batch in self._consumer.poll(timeout_ms=POLL_MS).items():
            fifo, row = self._waiting[tp], self._rows[tp.topic]
            if not fifo:
                heappush(self._heads, (batch[0].timestamp, row, tp.partition, tp))
            fifo.extend(batch)
            self._nbytes[tp] += sum(len(message.value or b"") for message in batch)
            if self._nbytes[tp] > FIFO_BYTES:
                self._consumer.pause(tp)

    def _release(self) -> Iterator[tuple[Any, int]]:
        """The oldest heads, as long as no partition without a head is behind."""
        if any(not fifo and self._behind(tp) for tp, fifo in self._waiting.items()):
            return
        while self._heads:
            _, row, partition, tp = heappop(self._heads)
            fifo = self._waiting[tp]
            message = fifo.popleft()
            self._nbytes[tp] -= len(message.value or b"")
            if self._until_ms is not None and message.timestamp >= self._until_ms:
                self._leave(tp)
                continue
            self._released_ms = message.timestamp
            yield message, row
            if fifo:
                heappush(self._heads, (fifo[0].timestamp, row, partition, tp))
            if self._nbytes[tp] < FIFO_BYTES // 2 and tp in self._consumer.paused():
                self._consumer.resume(tp)
            if not fifo and self._behind(tp):
                return

    def _leave(self, tp: TopicPartition) -> None:
        """Stop reading a partition: the rest of it comes after the stretch."""
        self._over.add(tp)
        self._waiting[tp].clear()
        self._consumer.pause(tp)


def _recorded(message: Any, row: int) -> Recorded:
    return Recorded(
        row=row,
        partition=message.partition,
        offset=message.offset,
        log_time_us=message.timestamp * MS_US,
        key=message.key,
        value=message.value,
        headers=tuple(message.headers),
    )
