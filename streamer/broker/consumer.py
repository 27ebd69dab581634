"""Faust's Kafka consumer with changes. Each names the fault that it fixes; tests show that stock Faust has it.

1. *Commits*: Faust commits past records that were never acknowledged (``Consumer._new_offset``; upstream #606). Here
   only what our ledger released is committed: :meth:`Consumer.release`.
2. *Holding a partition*: ``pause_partitions`` in mid-drain loses records. :meth:`Consumer.hold` uses the buffer-full
   path, which loses none, and keeps Faust's own queue drain from freeing what we hold.
3. *Waking*: with every partition full the stock consumer sleeps 1 s; here freeing one wakes it, and a poll that waits
   for records never delays a freed partition by more than ``POLL_CAP_S``.
4. *Cost*: Faust makes a message, an event and four asyncio tasks of each record, to be able to abandon it. Here the
   records that one poll brought travel together, :class:`Batch`, and a delivery that does not block takes no task.
   The client makes our record of what it has parsed, instead of its own first: ``record``. ``fetch`` reads answers.
5. *Knowing that a partition is drained*: :meth:`Consumer.idle_since_us`, the bound of the merge. The consumer's
   position runs ahead of what was delivered, so neither position nor high watermark alone proves it. Records are read
   as committed: those of an open transaction lie between last stable offset and high watermark, so the partition is not
   drained before the transaction has ended.
6. *Fetch wait*: ``fetch_max_wait_ms`` is hard-coded to 1500 in Faust; bounds of idle partitions would be that old.
   Here each fetch waits at the broker until merging can use the next one: :class:`FetchPace`.
7. *Livelock detector*: it compares monotonic with wall-clock time (``_verify_aiokafka_event_path``) and logs
   meaningless errors; the worker has its own watchdog.
8. *Memory*: a broker's answer may have 50 MiB, which Faust has no setting for. Memory for answers of 4 MiB is reused;
   50 MiB are allocated again for each answer, and the kernel clears them each time: ``FETCH_MAX_BYTES``.
9. *Batches*: the client unpacks a batch without a limit and stops at one that it cannot read, and a worker dies of
   that again after each restart. It is given ours, see :mod:`streamer.clients.batches`.
10. *Start*: Faust waits a second for tables to be declared before it joins the group; ours has none: see
   ``transport.NoTables``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from time import time_ns
from typing import Any, NamedTuple

import aiokafka
from faust.types import TP
from faust.types.tuples import ConsumerMessage

from streamer.broker import internals
from streamer.broker.fetch import AnswerReader, FetchPace
from streamer.broker.replicas import Replicas
from streamer.clients.batches import Reading
from streamer.events import Record
from streamer.settings import MIB

# Faust's services log under their class's module: keep their starts and stops out of the worker's log.
logger, visible = logging.getLogger("faust.streamer"), logging.getLogger(__name__)

POLL_CAP_S = 0.05
LOG_TIME = "log_time_us="
BATCH_RECORDS = 256  # in one event of Faust: about 5 ms of the event loop
FETCH_MAX_BYTES = 4 * MIB  # a record that is larger comes alone


class Released(NamedTuple):
    """Records of a partition that are done.

    Attributes:
        offset: After the last of them.
        log_time_us: Its log time. It is committed as the offset's metadata, since log time must not step back in the
            records after it, see :class:`streamer.align.merged.MergedLog`.
    """

    offset: int
    log_time_us: int


class Answer(NamedTuple):
    """The broker's newest answer about a partition.

    Attributes:
        sent_us: When the request left, by our clock.
        highwater: Offset after the newest record that all in-sync replicas have.
        stable: Last stable offset, up to which records can be read: below the high watermark exactly while a
            transaction is open.
    """

    sent_us: int
    fetch_offset: int
    highwater: int
    stable: int


Part = tuple[TP, list[Record]]  # records of a partition, in order


class Batch(ConsumerMessage):  # type: ignore[misc]
    """Records of one poll, as one message of Faust; it counts as one of the first partition.

    Attributes:
        parts: At most ``BATCH_RECORDS`` records; the consumer of the batch empties the list.
    """

    __slots__ = ("parts",)

    def __init__(self, parts: list[Part], generation_id: int) -> None:
        tp, records = parts[0]
        last = records[-1]
        super().__init__(
            tp.topic,
            tp.partition,
            last.offset,
            last.log_time_us / 1e6,
            None,
            (),
            None,
            None,
            None,
            tp=tp,
            generation_id=generation_id,
        )
        self.parts = parts


def _cut(parts: Iterable[Part]) -> Iterator[list[Part]]:
    """Cut into portions of ``BATCH_RECORDS`` records; the last may have fewer."""
    portion: list[Part] = []
    room = BATCH_RECORDS
    for tp, records in parts:
        while records:
            portion.append((tp, records[:room]))
            records, room = records[room:], room - len(portion[-1][1])
            if not room:
                yield portion
                portion, room = [], BATCH_RECORDS
    if portion:
        yield portion


@types.coroutine
def _resume(coroutine: Coroutine[Any, Any, Any], pending: Any) -> Generator[Any, Any, Any]:
    """Continue a coroutine that was started by hand and has yielded ``pending``."""
    while True:
        error: BaseException | None = None
        sent: Any = None
        try:
            sent = yield pending
        except BaseException as raised:  # noqa: BLE001 - handed on to the coroutine just below, cancellation too
            error = raised
        try:
            pending = coroutine.send(sent) if error is None else coroutine.throw(error)
        except StopIteration as done:
            return done.value


async def _finish(coroutine: Coroutine[Any, Any, Any], pending: Any) -> Any:
    return await _resume(coroutine, pending)


class ConsumerThread(internals.OpenThread):
    """The thread that fetches, with a watch on what was asked, answered and returned."""

    consumer: Consumer
    logger = logger
    fetch_max_bytes = FETCH_MAX_BYTES

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._fetches: dict[int, internals.Fetch] = {}  # those under way, by the identity of their requests
        self._reading = Reading(self.consumer.transport.batch_limit_bytes)

    def plan(self, plan: Callable[[Any], Any], assignment: Any) -> Any:
        """What the client would send now, less the fetches that should not leave yet."""
        requests, resets, timeout_s, *others = plan(assignment)
        leaving, pace = [], self.consumer.pace
        for node_id, request in requests:
            now_us = time_ns() // 1000
            if hold_us := pace.hold_us(node_id, now_us):
                timeout_s = min(timeout_s, hold_us / 1e6)  # then the client asks again
                continue
            internals.wait_at_broker(request, pace.wait_ms(node_id, now_us))
            pace.left(node_id, now_us)
            leaving.append((node_id, request))
        return leaving, resets, timeout_s, *others

    async def fetch(self, fetcher: Any, fetch: Callable[..., Any], assignment: Any, node_id: int, request: Any) -> bool:
        """Fetch, then note what the answer proves and who makes its records."""
        sent_us = time_ns() // 1000
        with internals.under_way(self._fetches, assignment, request) as asked:
            needs_wakeup: bool = await fetch(assignment, node_id, request)
        applied = asked.answered(partial(Answer, sent_us))
        for tp, offset in asked.deleted:
            visible.warning("%s %d: Kafka has deleted records from offset %d on before they were read", *tp, offset)
        budget = self._reading.budget()
        for tp in applied:
            if records := asked.records[tp]:
                made = partial(internals.batches_of, records, tp, self._reading, budget)
                internals.read_batches(fetcher, tp, made, self.record)
        if applied:
            self.consumer.pace.answered(node_id, sent_us, needs_wakeup, time_ns() // 1000)
            self.consumer.answered()
        return needs_wakeup

    async def send(self, client: Any, send: Callable[..., Any], node_id: int, request: Any, **options: Any) -> Any:
        """Send a request; take a fetch's answer, which the client applies before anything else runs."""
        if not internals.is_fetch(request):
            return await send(node_id, request, **options)
        AnswerReader.take_over(await internals.connection_to(client, node_id))
        self._fetches[id(request)].arrived(response := await send(node_id, request, **options))
        return response

    def record(self, tp: aiokafka.TopicPartition, record: Any) -> Record:
        """Our record, from what the client has parsed."""
        return Record(
            row=self.consumer.transport.rows[tp.topic],
            partition=tp.partition,
            offset=record.offset,
            log_time_us=record.timestamp * 1000,
            key=record.key,
            value=record.value or b"",
            headers=tuple(record.headers),
        )

    def returned(self, records: Mapping[aiokafka.TopicPartition, Sequence[Record]]) -> None:
        """Remember how far each partition was returned."""
        for tp, batch in records.items():
            if batch:
                self.consumer.returned[tp] = batch[-1].offset + 1

    def leader(self, tp: TP) -> int | None:
        """The leader that the replicas name."""
        replicas = self.consumer.replicas
        return None if replicas is None else replicas.node(tp)

    def note(self, tp: aiokafka.TopicPartition, offset: int) -> str:
        """Commit log times with offsets."""
        return self.consumer.note(TP(*tp), offset)

    def noted(self, tp: aiokafka.TopicPartition, metadata: str) -> None:
        """Read them back."""
        self.consumer.noted(TP(*tp), metadata)

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Skip the check, see change 7 of this module."""


class Consumer(internals.OpenConsumer):
    """Faust's consumer with the changes that this module's text lists."""

    logger = logger

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.held: set[TP] = set()
        self.returned: dict[TP, int] = {}  # next offset after what the client handed on, by partition
        self.pace = FetchPace()
        self.replicas: Replicas | None = None  # where an empty answer alone does not prove that a partition is idle
        self.log_times_us: dict[TP, int] = {}  # of the committed offsets: see Released
        self.on_answer: Callable[[], None] | None = None
        self.before_commit: Callable[[], Any] | None = None
        self.after_commit: Callable[[Any], None] | None = None
        self._released: dict[TP, Released] = {}
        self._planned: dict[TP, Released] = {}  # what the next commit was asked to carry
        self._freed = asyncio.Event()
        super().__init__(*args, **kwargs)

    thread: ConsumerThread

    def new_thread(self) -> ConsumerThread:
        """Make the thread that fetches."""
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    # 1: commits

    def release(self, tp: TP, released: Released) -> None:
        """Everything below the offset is done: it goes out with the next commit."""
        self._released[tp] = released

    def release_gap(self, tp: TP) -> None:
        """Commit past offsets that bring no record, also where nothing was released yet.

        To be called after the group's first release: before a group's first commit it must be known to Redis.
        """
        self._released.setdefault(tp, Released(self.committed(tp) or 0, self.log_times_us.get(tp, 0)))

    def ack(self, message: Any) -> bool:
        """Ignore acknowledgements: those that Faust makes itself, in a rebalance, must never be committed."""
        return False

    def to_commit(self) -> Iterable[TP]:
        """Partitions of which something was released."""
        return self._released

    def offset_to_commit(self, tp: TP) -> int | None:
        """What was released, whatever was acknowledged."""
        released = self._released.get(tp)
        if released is None:
            return None
        planned = self._planned[tp] = Released(self._past_gap(tp, released.offset), released.log_time_us)
        return planned.offset or None

    def _past_gap(self, tp: TP, done: int) -> int:
        """The offset from which on something may still come, where everything below ``done`` is done.

        Offsets that bring no record may follow: of a transaction's marker, of aborted, compacted or deleted records.
        """
        answer: Answer | None = self.thread.answer(tp)  # before what was returned, as in idle_since_us
        if answer is None or self.returned.get(tp, 0) > done:
            return done
        return max(done, answer.fetch_offset)

    def note(self, tp: TP, offset: int) -> str:
        """The metadata of a committed offset (called in the consumer's thread)."""
        planned = self._planned.get(tp)
        return f"{LOG_TIME}{planned.log_time_us}" if planned is not None and planned.offset == offset else ""

    def noted(self, tp: TP, metadata: str) -> None:
        """See the metadata of an offset that was committed before (called in the consumer's thread)."""
        if metadata.startswith(LOG_TIME):
            self.log_times_us[tp] = int(metadata.removeprefix(LOG_TIME))

    async def commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:
        """Commit what was released, then call ``after_commit`` with what ``before_commit`` returned."""
        noted = self.before_commit() if self.before_commit is not None else None
        did_commit: bool = await super().commit(topics, start_new_transaction=start_new_transaction)
        if did_commit and self.after_commit is not None:
            self.after_commit(noted)
        return did_commit

    def lag(self, tp: TP) -> int:
        """Offsets of a partition that can be read and are not done, by the last answer about it; 0 before the first."""
        answer: Answer | None = self.thread.answer(tp)
        released = self._released.get(tp)
        done = released.offset if released is not None else self.committed(tp) or 0
        return 0 if answer is None else max(0, answer.stable - self._past_gap(tp, done))

    def open_transactions(self) -> dict[TP, int]:
        """Partitions with an open transaction by their last answer, and the offset at which reading waits for it."""
        answers = ((tp, self.thread.answer(tp)) for tp in self.assignment())
        return {tp: answer.stable for tp, answer in answers if answer is not None and answer.stable < answer.highwater}

    # 2: holding a partition

    def hold(self, tp: TP) -> None:
        """Stop fetching this partition until :meth:`free`; what is on its way (one poll) still arrives."""
        self.held.add(tp)
        self.on_buffer_full(tp)

    def free(self, tp: TP) -> None:
        """Fetch this partition again."""
        self.held.discard(tp)
        self.on_buffer_drop(tp)

    def on_buffer_drop(self, tp: TP) -> None:
        """Free a partition whose queue in Faust has drained, unless we hold it."""
        if tp not in self.held:
            super().on_buffer_drop(tp)
            self._freed.set()

    # 3: waking

    async def next_records(self, timeout_s: float) -> tuple[Any, set[TP]]:
        """Wait for records, or for a partition to be freed where all are held."""
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        active = self.active()
        if active:
            return await self.poll(active, min(timeout_s, POLL_CAP_S)), active
        self._freed.clear()
        with contextlib.suppress(TimeoutError):  # nothing was freed: the caller looks at its stop flags and asks again
            await asyncio.wait_for(self._freed.wait(), timeout_s)
        return {}, active

    # 4: cost

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Batch]]:  # noqa: ASYNC109 - Faust's signature
        """The records of one poll, in as few batches as possible."""
        fetched, active = await self.next_records(timeout)
        if self.should_stop:
            return
        if not self.flow_active:  # a rebalance: all that was fetched will be fetched again
            try:
                await self.perform_seek()
            except Exception as error:  # noqa: BLE001 - as in Faust: the assignment that follows seeks again
                logger.warning("cannot go back to the committed offsets: %r", error)
            return
        generation_id = self.app.consumer_generation_id
        full = self.full()
        ours = [(tp, records) for tp, records in fetched.items() if tp in active or tp in full]
        for parts in _cut(ours):
            if not self.flow_active or self.app.consumer_generation_id != generation_id:
                return
            yield parts[0][0], Batch(parts, generation_id)
            await asyncio.sleep(0)  # let the agent and the pump run

    async def wait_first(self, *coros: Any, timeout: Any = None) -> Any:  # noqa: ASYNC109 - Faust's signature
        """As in ``mode``, but a delivery that completes at once takes no task."""
        if len(coros) != 2 or timeout is not None or not asyncio.iscoroutine(coros[0]):
            return await super().wait_first(*coros, timeout=timeout)
        delivery, suspended = coros
        try:
            pending = delivery.send(None)
        except StopIteration:
            suspended.close()
            return None
        except BaseException:
            suspended.close()
            raise
        return await super().wait_first(_finish(delivery, pending), suspended, timeout=timeout)

    # 5: knowing that a partition is drained

    def answered(self) -> None:
        """Report an answered fetch to ``on_answer``; called in the consumer's thread."""
        if self.on_answer is not None:
            self.loop.call_soon_threadsafe(self.on_answer)

    def idle_since_us(self, tp: TP, delivered: int) -> int | None:
        """When the fetch left that showed no record from ``delivered`` on; ``None`` if none has shown that.

        No record that the broker appended before that time will still arrive on this partition.

        Args:
            delivered: The offset after the newest record that was delivered.
        """
        # Read the answer first: what was returned since can only make it prove less.
        answer: Answer | None = self.thread.answer(tp)
        returned = self.returned.get(tp, 0)
        if answer is None or returned > delivered:
            return None
        held = max(answer.fetch_offset, delivered)
        if answer.highwater > held:
            return None
        return answer.sent_us if self.replicas is None else self.replicas.idle_since_us(tp, held, answer.sent_us)

    def answered_us(self) -> dict[TP, int | None]:
        """When the last fetch left that was answered, for each partition that is fetched; ``None``: none was yet."""
        answers = {tp: self.thread.answer(tp) for tp in self.assignment() - self.held}
        return {tp: None if answer is None else answer.sent_us for tp, answer in answers.items()}

    def seemingly_idle(self) -> list[TP]:
        """Partitions of which the last answer brought nothing."""
        answers = ((tp, self.thread.answer(tp)) for tp in self.assignment() - self.held)
        return [tp for tp, answer in answers if answer is not None and answer.highwater <= answer.fetch_offset]

    async def on_partitions_revoked(self, revoked: Iterable[TP]) -> None:
        """Forget everything about partitions that are no longer ours."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self.held.discard(tp)
            self.returned.pop(tp, None)
            self._released.pop(tp, None)
            self._planned.pop(tp, None)
            self.log_times_us.pop(tp, None)
