"""The worker: a Faust agent feeds partition groups, whose windows go through the pipeline to Redis.

    Kafka ─ agent ─► PartitionGroup (decode, merge, align, ledger) ─► Pipeline (batch, infer, publish) ─► Redis
                        │ late, dead letters ─► Kafka                          │
                        ◄───────────────── published: commit the ledger's head ┘

That is role all. With roles the two halves are processes of their own, with the windows topic between them:

    Kafka ─ agent ─► PartitionGroup ─► Outbox ─► Kafka (windows) ─ agent ─► WindowGroup ─► Pipeline ─► Redis
                        ◄── emitted ───┘ └─► Redis (emissions)                 ◄── published ──┘

``roles`` joins the stages of each; this module is the process around them, which is the same for all.

One process, one event loop. Alignment runs on it in a *pump*, which wakes at most every ``PUMP_EVERY_S``: waking for
each event would cost more than aligning it. Payload decode and the model run in threads.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import logging
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from time import monotonic, time, time_ns
from typing import Any

import aiokafka.errors
import faust
import redis.asyncio
import redis.asyncio.retry
import redis.backoff
import redis.exceptions
import uvloop
from faust.exceptions import ProducerSendError
from faust.sensors import Monitor
from faust.types import TP
from yarl import URL

from streamer import clients
from streamer.align.group import Rejected
from streamer.align.windows import Late
from streamer.backoff import Backoff
from streamer.broker import deadletters, topics
from streamer.broker.consumer import Batch, Consumer, NoTables, Transport, credentials
from streamer.errors import BadRecord, DeviceLost, Stop
from streamer.events import TOPIC_DEADLETTER, TOPIC_LATE, Event, Position, Record
from streamer.observe import tracing
from streamer.observe.metrics import Metrics
from streamer.settings import Settings
from streamer.worker import roles
from streamer.worker.endpoints import Endpoints
from streamer.worker.ports import Group, Host, Owner, Role

PUMP_EVERY_S = 0.002
GC_THRESHOLDS = (50_000, 20, 50)  # a record is a dozen objects: 700, the default, is a look every 60 records
M_ARENA_MAX = -8  # mallopt(3)
RELEASE_LIMIT = 256  # records a group may release before the others have their turn
MAX_LETTERS = 1000  # on their way: a letter for a window's member, which the window waits for, comes after them
SESSION_TIMEOUT_S = 6.0
WITHDRAW_S = 1.0  # longest wait for Redis in a rebalance or a stop, when nothing is lost without its answer
REDIS_START_S = 10.0

log = logging.getLogger(__name__)


def _is_too_large(error: BaseException) -> bool:
    """Whether the broker refused a record's size, or our own client did, whose word Faust wraps."""
    too_large = aiokafka.errors.MessageSizeTooLargeError
    return isinstance(error, too_large) or isinstance(error.__cause__, too_large)


def _smaller(letter: deadletters.Letter) -> deadletters.Letter:
    """The letter with less in it; the same if there is nothing more to leave out."""
    return letter.without_value() if letter.value else letter.bare()


def _spare_the_collector() -> None:
    """What the start has made lives as long as the process: do not look through it for cycles again and again.

    Without this a full collection walks over all of PyTorch, while nothing else runs. Reference counts free records,
    windows and tensors as before; cycles among what comes from now on are found too, only less often. ``streamer
    worker`` has turned the collector off while it imported; the last look at it all, 0.3 s, is spared as well: in
    cycles that nobody uses lie 9,000 of its 260,000 objects.
    """
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    gc.enable()


def _share_a_heap() -> None:
    """One heap for all threads, so that what one has freed serves another.

    glibc gives each thread a heap of its own. Payloads are made in the consumer's thread and freed in others, tensors
    come and go in the device's, and each heap keeps what it once needed. Without glibc nothing is changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)


class Stalled(RuntimeError):
    """Nothing gets done although there is work: a stuck consumer, or a window that the model does not finish."""


class QuietMonitor(Monitor):  # type: ignore[misc]
    """Faust's monitor without its per-event bookkeeping; the worker has metrics of its own."""

    logger = logging.getLogger("faust.monitor")

    def track_tp_end_offset(self, tp: TP, offset: int) -> None:
        """Nothing."""

    def on_tp_commit(self, tp_offsets: Any) -> None:
        """Nothing."""


def run(settings: Settings) -> None:
    """Run a worker until SIGTERM or SIGINT.

    Raises:
        Stop: It cannot start or go on, with the reason. Else the process ends here, with exit code 1 after a crash.
    """
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
    if settings.log_level != "debug":
        for noisy in ("faust", "mode", "aiokafka"):
            logging.getLogger(noisy).setLevel(logging.ERROR)
        logging.getLogger("kafka").setLevel(logging.CRITICAL)  # asked before the start alone; we say what it raises
    _share_a_heap()
    uvloop.install()  # not uvloop.run alone: Faust's fetch thread makes a loop of its own by the policy
    crashed = uvloop.run(_main(settings))
    # Not by returning: a crashed fetcher, or a model that does not finish a window, leaves a thread behind that the
    # interpreter would wait for.
    logging.shutdown()
    os._exit(1 if crashed else 0)


async def _main(settings: Settings) -> bool:
    loop = asyncio.get_running_loop()
    partitions = await loop.run_in_executor(None, topics.check_for_worker, settings)
    client = await _connect(settings)
    worker = Worker(settings, await loop.run_in_executor(None, roles.load, settings, partitions, client))
    _spare_the_collector()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, worker.stop)
    try:
        return await worker.run()
    finally:
        await client.aclose()


async def _connect(settings: Settings) -> redis.asyncio.Redis:
    """A client that answers.

    Raises:
        UsageError: Nothing answers at the address, or it refuses us.
    """
    client = clients.async_redis_client(
        settings,
        socket_timeout=10.0,
        health_check_interval=15,
        # Publisher repeats calls itself, visibly; the client's own retries would hide an outage from readiness.
        retry=redis.asyncio.retry.Retry(redis.backoff.NoBackoff(), 0),
    )
    deadline = monotonic() + REDIS_START_S
    while True:
        try:
            await client.ping()
        except (redis.exceptions.RedisError, OSError) as error:
            refused = isinstance(error, redis.exceptions.AuthenticationError | redis.exceptions.NoPermissionError)
            if refused or monotonic() > deadline:
                await client.aclose()
                raise clients.redis_refusal(settings, error) from None
            await asyncio.sleep(0.2)
        else:
            return client


class Worker:
    """One worker process, the :class:`streamer.worker.ports.Host` of its role. See the module's text for the flow.

    Args:
        new_role: Makes the role, see :func:`streamer.worker.roles.load`.
    """

    def __init__(self, settings: Settings, new_role: Callable[[Host], Role]) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.metrics.role.labels(settings.role).set(1)
        self.groups: dict[int, Group[Any]] = {}
        self.tracer = tracing.tracer(settings, "streamer-worker")
        self._role = new_role(self)
        self._sink = self._role.sink
        self._topics = settings.worker_topics
        self._rows = {topic: row for row, topic in enumerate(self._topics)}
        self._slack_us = settings.merge_slack_ms * 1000
        self._endpoints = Endpoints(self.metrics.registry, self.not_ready, self._observe)
        self._app = self._new_app()
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._side: set[asyncio.Task[None]] = set()
        self._side_bytes = 0  # payloads of letters on their way
        self._started = False
        self._redis_error: str | None = None
        self._kafka_error: str | None = None
        self._stalled = False
        self._released_at = self._published_at = self._answered_at = monotonic()

    @cached_property
    def consumer(self) -> Consumer:
        """Faust's consumer, which the app makes once; it takes five calls to find it."""
        consumer: Consumer = self._app.consumer
        return consumer

    # life

    def stop(self) -> None:
        """Ask for a graceful stop."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """Something that must not be: end the process, so that its supervisor starts it afresh from the commit."""
        if self._failure is None:
            self._failure = error
        self._stop.set()

    async def run(self) -> bool:
        """Work until :meth:`stop`.

        Returns:
            Whether it ended by a crash.
        """
        await self._endpoints.start(self.settings.host, self.settings.port)
        log.info("metrics and probes on http://%s:%d", self.settings.host, self._endpoints.port)
        parts = {"app": self._run_app(), "pump": self._pump(), "watchdog": self._watchdog()}
        parts |= self._role.background()
        tasks = [asyncio.create_task(self._guard(work), name=name) for name, work in parts.items()]
        sink = asyncio.create_task(self._guard(self._sink.run()), name="sink")
        await self._stop.wait()
        if self._failure is None:
            log.info("stopping: finishing %d windows in flight", self._sink.inflight_windows)
            await self._finish(sink)
        else:
            log.error("crashed: %r", self._failure, exc_info=self._failure)
            if not isinstance(self._failure, (Stalled, DeviceLost)):
                await self._withdraw(None)  # no window is to blame; of these two crashes one may be
        hung = await self._stop_app()
        for task in (*tasks, sink, *self._side):
            task.cancel()
        await asyncio.wait((*tasks, sink), timeout=1.0)
        await asyncio.wait({asyncio.create_task(self._role.close())}, timeout=1.0)
        await self._endpoints.stop()
        shutil.rmtree(self._app.conf.datadir, ignore_errors=True)
        if self.tracer is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.tracer.close)
        if isinstance(self._failure, Stop):
            raise self._failure
        log.info("stopped")
        return hung or self._failure is not None

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever ends a part of the worker ends the worker
            self.fail(error)

    async def _finish(self, sink: asyncio.Task[None]) -> None:
        """Publish what is closed, then let the consumer commit it; open windows are rebuilt after the restart."""
        if self._started:
            for tp in self.consumer.assignment():
                self.consumer.hold(tp)
        self._sink.close()
        await asyncio.wait({sink}, timeout=self.settings.stop_after_ms / 1000)
        if self._side:
            await asyncio.wait(set(self._side), timeout=1.0)
        self._commit_releasable()
        await self._withdraw(None)

    async def _withdraw(self, groups: Collection[Group[Any]] | None) -> None:
        """Windows that are not finished here, or not by this process, have killed nobody."""
        try:
            async with asyncio.timeout(WITHDRAW_S):
                await self._sink.withdraw(None if groups is None else [own for group in groups for own in group.owners])
        except (redis.exceptions.RedisError, OSError) as error:
            log.warning("Redis does not answer (%r): windows in flight will be run alone by whoever goes on", error)

    async def _stop_app(self) -> bool:
        # asyncio.wait_for(app.stop()) can hang for ever: it awaits the cancelled task. wait() does not.
        stopping = asyncio.create_task(self._app.stop())
        done, _ = await asyncio.wait({stopping}, timeout=3.0)
        if not done:
            log.error("Kafka's consumer does not stop; leaving it")
            return True
        if stopping.exception() is not None:
            log.error("Kafka's consumer stopped with %r", stopping.exception())
            return True
        return False

    def _new_app(self) -> faust.App:
        settings = self.settings
        brokers = [URL(f"kafka://{address}") for address in clients.brokers(settings)]
        app = faust.App(
            settings.consumer_group,
            broker=brokers,
            broker_credentials=credentials(settings),
            store="memory://",
            datadir=tempfile.mkdtemp(prefix="streamer-faust-"),  # made, and left empty
            autodiscover=False,
            web_enabled=False,
            redirect_stdouts=False,
            topic_disable_leader=True,
            topic_allow_declare=False,
            stream_wait_empty=False,
            stream_buffer_maxsize=4096,
            table_standby_replicas=1,  # 0 would choose an assignor that breaks co-partitioning
            broker_commit_interval=0.2,
            broker_session_timeout=SESSION_TIMEOUT_S,
            broker_heartbeat_interval=1.0,
            broker_rebalance_timeout=20.0,
            broker_max_poll_interval=600.0,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=max(1 << 20, settings.max_message_bytes + (64 << 10)),
            consumer_group_instance_id=settings.instance_id,
            producer_max_request_size=settings.max_message_bytes + (256 << 10),
            producer_acks=-1,
            cython_optimizations=True,
            Monitor=QuietMonitor,
            TableManager=NoTables,
        )
        app.transport = Transport(brokers, app, self._rows)
        app.on_partitions_revoked.connect(self._on_revoked)
        topic = app.topic(*self._topics, key_serializer="raw", value_serializer="raw")

        @app.agent(topic, name=f"streamer.{settings.role}")  # type: ignore[untyped-decorator]
        async def feed(stream: Any) -> None:
            """Feed the groups; never waits, since one drain loop of Faust serves all topics."""
            async for event in stream.noack().events():
                try:
                    self._receive(event.message)
                except BaseException as error:
                    self.fail(error)  # Faust would go on after the lost event
                    raise

        return app

    async def _run_app(self) -> None:
        await self._app.start()
        self.consumer.pace.slack_us = self._slack_us
        self.consumer.on_answer = self._answered
        self.consumer.before_commit = self._cuts
        self.consumer.after_commit = self._committed
        self._app.sensors.remove(self._app.monitor)
        self._started = True
        log.info(
            "ready: role %s, group %r, topics %s",
            self.settings.role,
            self.settings.consumer_group,
            ", ".join(self._topics),
        )
        await self._app.wait_until_stopped()
        if not self._stop.is_set():
            raise RuntimeError(f"Kafka's consumer ended: {self._app.crash_reason!r}")

    # records in

    def _receive(self, batch: Batch) -> None:
        parts, batch.parts = batch.parts, []  # Faust keeps its message longer than the payloads are wanted
        if batch.generation_id != self._app.consumer_generation_id:
            return  # from before a rebalance: its new owner reads it again
        for tp, records in parts:
            group = self.groups.get(tp.partition) or self._new_group(tp.partition)
            for record in records:
                group.receive(record)
            if group.full(self._rows[tp.topic]):
                self.consumer.hold(TP(tp.topic, tp.partition))
        self._wake.set()

    def _new_group(self, partition: int) -> Group[Any]:
        committed = any(self.consumer.committed(TP(topic, partition)) for topic in self._rows)
        name = f"{self.settings.consumer_group}:{partition}"
        group = self.groups[partition] = self._role.new_group(partition, name, committed)
        return group

    async def _on_revoked(self, app: faust.App, revoked: Iterable[TP], **kwargs: Any) -> None:
        """Partitions are taken away: commit what is done, drop the rest; the next owner rebuilds it."""
        self._commit_releasable()
        try:
            await self.consumer.commit()
        except Exception as error:  # noqa: BLE001 - whatever Kafka says, what follows must happen
            log.warning("no commit at the revocation (%r): the next owner repeats what was done since the last", error)
        dropped = [g for p in {tp.partition for tp in revoked} if (g := self.groups.pop(p, None)) is not None]
        for group in dropped:
            group.alive = False
        await self._withdraw(dropped)

    # the pump

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            began_us = time_ns() // 1000
            more = True
            while more:
                more = False
                for group in list(self.groups.values()):
                    more |= await self._advance(group)
                self._commit_releasable()
                await asyncio.sleep(0)
            closings = (group.next_closing_us for group in self.groups.values())
            self.consumer.pace.looked(began_us, min((at for at in closings if at is not None), default=None))
            await asyncio.sleep(PUMP_EVERY_S)

    async def _advance(self, group: Group[Any]) -> bool:
        """One turn of a group; returns whether it can go on at once."""
        if not group.alive or self._full or self._stop.is_set():
            return False
        for topic, row in self._rows.items():  # the non-empty ones too: this turn may empty them
            since_us = self.consumer.idle_since_us(TP(topic, group.partition), group.next_offset[row])
            if since_us is not None:
                group.bound(row, since_us - self._slack_us)
        held_bytes = group.open_bytes
        leaving, more = await group.advance(self._role.store, RELEASE_LIMIT)
        for item in leaving:
            self._send_on(group, item)
        if group.open_bytes > held_bytes:  # adding up over all groups costs, and most turns release nothing
            self._relieve()
        if more or leaving:
            self._released_at = monotonic()
        for tp in [held for held in self.consumer.held if held.partition == group.partition]:
            if group.held(self._rows[tp.topic]) <= self.settings.fifo_bytes // 2:
                self.consumer.free(tp)
        return more

    @property
    def _full(self) -> bool:
        """Nothing more may leave alignment until some of what has left it is done."""
        return self._inflight_bytes >= self.settings.max_inflight_bytes or len(self._side) >= MAX_LETTERS

    @property
    def _inflight_bytes(self) -> int:
        """What has left alignment and is not done: windows, and letters that the broker has not acknowledged."""
        return self._sink.inflight_bytes + self._side_bytes

    def _relieve(self) -> None:
        """The limit on open windows is the worker's: the group that holds the most closes its oldest window early."""
        while self.groups and sum(g.open_bytes for g in self.groups.values()) > self.settings.max_open_bytes:
            fullest = max(self.groups.values(), key=lambda g: g.open_bytes)
            for item in fullest.relieve():
                self._send_on(fullest, item)

    def _send_on(self, group: Group[Any], item: Any) -> None:
        if isinstance(item, Late):
            record, topic = item.event.record, self.settings.topic(TOPIC_LATE)
            letter = deadletters.late(record, item.late_by_us, self._topics[record.row])
        elif isinstance(item, Rejected):
            record, topic = item.record, self.settings.topic(TOPIC_DEADLETTER)
            letter = self._dead_letter(record, item.error, self._topics[record.row])
        else:
            group.submit(item, self._sink)
            return
        self._side_bytes += len(letter.value)
        task = asyncio.create_task(self._guard(self._send_side(group, record.position, topic, letter)))
        self._side.add(task)
        task.add_done_callback(self._side.discard)

    async def _send_side(self, group: Group[Any], position: Position, topic: str, letter: deadletters.Letter) -> None:
        await self.send(topic, letter)
        self._side_bytes -= len(letter.value)
        self._wake.set()
        if group.alive:
            group.record_done(position)

    async def dead_letter_member(self, owner: Owner, event: Event, error: BadRecord) -> None:
        """A member of a window could not be opened; the window goes on without it."""
        if owner.first_death(event.position):
            letter = self._dead_letter(event.record, error, self.settings.source_topics[event.row])
            await self.send(self.settings.topic(TOPIC_DEADLETTER), letter)

    async def send(self, topic: str, letter: deadletters.Letter, *, whole: bool = False) -> None:
        """Send and wait for the broker's word; repeated until it comes.

        Args:
            whole: Never leave anything out, whatever the broker says of its size.
        """
        backoff = Backoff()
        while True:
            try:
                await self._app.producer.send_and_wait(
                    topic, letter.key, letter.value, None, None, list(letter.headers)
                )
            except (ProducerSendError, aiokafka.errors.KafkaError) as error:
                if not whole and _is_too_large(error) and (smaller := _smaller(letter)) != letter:
                    letter = smaller
                    continue
                self.kafka_away(error, f"Kafka does not take a record for {topic}")
                await backoff.pause()
            else:
                self.kafka_answers()
                return

    def _dead_letter(self, record: Record, error: BadRecord, topic: str) -> deadletters.Letter:
        self.metrics.dead_letters.labels(str(error.reason)).inc()
        log.warning("dead letter: %s partition %d offset %d: %s", topic, record.partition, record.offset, error)
        return deadletters.dead_letter(record, error.reason, error.detail, topic)

    # results out

    def progressed(self) -> None:
        """Windows have left the sink."""
        self._published_at = monotonic()
        self._wake.set()

    def _commit_releasable(self) -> None:
        for group in self.groups.values():
            for row, next_offset in group.releasable().items():
                self.consumer.release(TP(self._topics[row], group.partition), next_offset)

    def _cuts(self) -> dict[Group[Any], int]:
        return {group: group.cut_us for group in self.groups.values()}

    def _committed(self, cuts: dict[Group[Any], int]) -> None:
        for group, cut_us in cuts.items():
            group.trim_below_us = cut_us

    # health

    def _answered(self) -> None:
        self._answered_at = monotonic()
        self._wake.set()

    def kafka_away(self, error: Exception, what: str = "Kafka does not answer") -> None:
        """A call to Kafka will be repeated."""
        self._kafka_error = f"{what}: {error}"
        self.metrics.retries.labels("kafka").inc()

    def kafka_answers(self) -> None:
        """A call to Kafka was answered."""
        self._kafka_error = None

    def redis_away(self, error: Exception) -> None:
        """A call to Redis will be repeated."""
        if self._redis_error is None:
            log.warning("Redis does not answer (%s); holding %d windows", error, self._sink.inflight_windows)
        self._redis_error = f"Redis does not answer: {error}"
        self.metrics.retries.labels("redis").inc()

    def redis_answers(self) -> None:
        """A call to Redis was answered."""
        if self._redis_error is not None:
            log.info("Redis answers again")
        self._redis_error = None

    def not_ready(self) -> list[str]:
        """Why the worker cannot take work now; empty when it can."""
        reasons = [error for error in (self._redis_error, self._kafka_error) if error is not None]
        if not self._started:
            reasons.append("starting")
        elif self._app.rebalancing:
            reasons.append("partitions are being assigned")
        elif not self._stop.is_set() and self._silent(self.settings.stall_after_ms / 1000 / 2):
            reasons.append("Kafka does not answer")
        if self._stop.is_set():
            reasons.append("stopping")
        if self._stalled:
            reasons.append("stalled")
        return reasons

    def _asks(self) -> bool:
        """Whether anything is fetched: not while there are no partitions, or all of them are held."""
        return self._started and bool(self.consumer.assignment() - self.consumer.held)

    def _silent(self, for_s: float) -> bool:
        return self._asks() and monotonic() - self._answered_at > for_s

    async def _watchdog(self) -> None:
        """End a worker that has work, whose services answer, and that gets nothing done: consumers do stick.

        Alignment and the pipeline are watched apart: one goes on while the other stands still.
        """
        stall_after_s = self.settings.stall_after_ms / 1000
        while True:
            await asyncio.sleep(1.0)
            now = monotonic()
            away = not self._started or self._redis_error is not None or self._kafka_error is not None
            if not self._asks():
                self._answered_at = now
            if self._silent(stall_after_s):
                if not away and await self._broker_listens():
                    self._stalled = True
                    raise Stalled(f"no fetch was answered for {stall_after_s:.0f} s although the broker listens")
                away = True
            if away or self._full or not any(group.buffered_bytes for group in self.groups.values()):
                self._released_at = now
            if away or not self._sink.inflight_windows:
                self._published_at = now
            for what, at in (("aligned", self._released_at), ("published", self._published_at)):
                if monotonic() - at > stall_after_s:
                    self._stalled = True
                    raise Stalled(f"nothing was {what} for {stall_after_s:.0f} s although there is work")

    async def _broker_listens(self) -> bool:
        """Whether any of the brokers takes a connection."""
        for address in clients.brokers(self.settings):
            host, _, port = address.rpartition(":")
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 2.0)
            except (OSError, TimeoutError):
                continue
            writer.close()
            return True
        return False

    def _observe(self) -> None:
        metrics, groups = self.metrics, list(self.groups.values())
        metrics.ready.set(not self.not_ready())
        metrics.partitions.set(len(groups))
        metrics.sessions.set(sum(g.sessions for g in groups))
        metrics.buffer_bytes.labels("merge").set(sum(g.buffered_bytes for g in groups))
        metrics.buffer_bytes.labels("open").set(sum(g.open_bytes for g in groups))
        metrics.buffer_bytes.labels("inflight").set(self._inflight_bytes)
        if self._started:
            lags = dict.fromkeys(self._rows, 0)
            for tp in self.consumer.assignment():
                lags[tp.topic] += self.consumer.lag(tp)
            for topic, records in lags.items():
                metrics.consumer_lag_records.labels(topic).set(records)
        now_us = time() * 1e6
        clocks = [g.clock_us for g in groups if g.clock_us]  # 0: nothing is known of the group yet
        metrics.log_clock_lag_seconds.set((now_us - min(clocks)) / 1e6 if clocks else 0.0)
        oldest = [at for g in groups if (at := g.oldest_us) is not None]
        metrics.oldest_unreleased_seconds.set((now_us - min(oldest)) / 1e6 if oldest else 0.0)
