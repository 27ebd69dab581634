"""The worker: partition groups take the records that Faust delivers, and their windows go to the sink of its role.

    Kafka ─ intake ─► PartitionGroup (decode, merge, align, ledger) ─► Pipeline (batch, infer, publish) ─► Redis
                        │ late, dead letters ─► Kafka                          │
                        ◄───────────────── published: commit the ledger's head ┘

That is role all. With roles the two halves are separate processes, with the windows topic between them:

    Kafka ─ intake ─► PartitionGroup ─► Outbox ─► Kafka (windows) ─ intake ─► WindowGroup ─► Pipeline ─► Redis
                        ◄── emitted ───┘ └─► Redis (emissions)                 ◄── published ──┘

``roles`` joins the stages of each; this module joins them with Kafka, the same for all.

One process, one event loop. Alignment runs on it in a *pump*, which wakes at most every ``PUMP_EVERY_S``: waking for
each event would cost more than aligning it. Payload decode and the model run in threads.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from time import time_ns
from typing import Any

import redis.exceptions
from faust.types import TP

from streamer.align.group import Rejected
from streamer.align.windows import Late
from streamer.broker.consumer import Batch, Consumer, Released
from streamer.broker.deadletters import Letter
from streamer.errors import BadRecord, DeviceLost, Stalled, Stop
from streamer.events import Event
from streamer.observe import tracing
from streamer.observe.endpoints import Endpoints
from streamer.observe.health import Service
from streamer.observe.metrics import Metrics
from streamer.settings import Settings
from streamer.worker import gauges
from streamer.worker.health import Health
from streamer.worker.intake import Intake
from streamer.worker.letters import Letters
from streamer.worker.ports import Group, Host, Owner, Role
from streamer.worker.ticks import Ticker

PUMP_EVERY_S = 0.002
RELEASE_LIMIT = 256  # records a group may release before the others have their turn
WITHDRAW_S = 1.0  # longest wait for Redis in a rebalance or a stop, when nothing is lost without its answer

log = logging.getLogger(__name__)


class Worker:
    """One worker process, the :class:`streamer.worker.ports.Host` of its role. See the module's text for the flow.

    Args:
        new_role: Makes the role, see :func:`streamer.worker.roles.load`.
    """

    def __init__(self, settings: Settings, new_role: Callable[[Host], Role]) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.metrics.role.labels(settings.role).set(1)
        self.tracer = tracing.tracer(settings, "streamer-worker")
        self.groups: dict[int, Group[Any]] = {}
        self._rows = {topic: row for row, topic in enumerate(settings.worker_topics)}
        self._slack_us = settings.merge_slack_ms * 1000
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._health = Health(settings, self.metrics)
        self._intake = Intake(settings, self._rows, self)
        self._letters = Letters(
            settings, self.metrics, self._health.kafka, self._intake.send, self._guard, self._wake.set
        )
        # Role infer reads one topic: nothing waits for another.
        self._exact = settings.merge_proof == "ticks" and settings.role != "infer"
        self._role = new_role(self)
        self._sink = self._role.sink
        self._endpoints = Endpoints(self.metrics.registry, self.not_ready, self._health.degraded, self._observe)

    # what the role asks for: see ports.Host

    @property
    def redis(self) -> Service:
        """Whether Redis answers."""
        return self._health.redis

    @property
    def kafka(self) -> Service:
        """Whether Kafka answers."""
        return self._health.kafka

    async def send(self, topic: str, letter: Letter, *, whole: bool = False) -> None:
        """See :meth:`streamer.worker.letters.Letters.send`."""
        await self._letters.send(topic, letter, whole=whole)

    async def dead_letter_member(self, owner: Owner, event: Event, error: BadRecord) -> None:
        """See :meth:`streamer.worker.letters.Letters.dead_letter_member`."""
        await self._letters.dead_letter_member(owner, event, error)

    def progressed(self) -> None:
        """Windows have left the sink."""
        self._health.published()
        self._wake.set()

    # life

    def stop(self) -> None:
        """Ask for a graceful stop."""
        self._stop.set()

    def fail(self, error: BaseException) -> None:
        """Something that must not happen: end the process, so that its supervisor restarts it from the commit."""
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
        parts: dict[str, Coroutine[Any, Any, None]] = {
            "intake": self._intake.run(self._stop.is_set),
            "pump": self._pump(),
            "watchdog": self._health.watch(self._intake, self),
            "replicas": self._intake.replicas.run(),
            **({"ticks": self._ticker().run()} if self._exact else {}),
            **self._role.background(),
        }
        tasks = [asyncio.create_task(self._guard(work), name=name) for name, work in parts.items()]
        sink = asyncio.create_task(self._guard(self._sink.run()), name="sink")
        await self._stop.wait()
        if self._failure is None:
            log.info("stopping: finishing %d windows in flight", self._sink.inflight_windows)
            await self._finish(sink)
        else:
            log.error("crashed: %r", self._failure, exc_info=self._failure)
            # A window may be to blame for a stall or a lost device, so its mark stays; for another crash none is.
            if not isinstance(self._failure, (Stalled, DeviceLost)):
                await self._withdraw(None)
        hung = await self._intake.stop()
        self._letters.cancel()
        for task in (*tasks, sink):
            task.cancel()
        await asyncio.wait((*tasks, sink), timeout=1.0)
        await asyncio.wait({asyncio.create_task(self._role.close())}, timeout=1.0)
        await self._endpoints.stop()
        if self.tracer is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.tracer.close)
        if isinstance(self._failure, Stop):
            raise self._failure
        log.info("stopped")
        return hung or self._failure is not None

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - whatever ends a part of the worker ends the worker
            self.fail(error)

    async def _finish(self, sink: asyncio.Task[None]) -> None:
        """Publish what is closed, then let the consumer commit it; open windows are rebuilt after the restart."""
        self._intake.hold_all()
        self._sink.close()
        await asyncio.wait({sink}, timeout=self.settings.stop_after_ms / 1000)
        await self._letters.drain()
        self._commit_releasable()
        await self._withdraw(None)

    async def _withdraw(self, groups: Collection[Group[Any]] | None) -> None:
        """Take back the in-flight marks of unfinished windows, so that no later process suspects them."""
        try:
            async with asyncio.timeout(WITHDRAW_S):
                await self._sink.withdraw(None if groups is None else [own for group in groups for own in group.owners])
        except (redis.exceptions.RedisError, OSError) as error:
            log.warning("Redis does not answer (%r): the next owner will run each window in flight alone", error)

    # records in: see intake.Receiver

    @property
    def _consumer(self) -> Consumer:
        return self._intake.consumer

    def receive(self, batch: Batch) -> None:
        """Give a poll's records to their groups; never waits, since one drain loop of Faust serves all topics."""
        parts, batch.parts = batch.parts, []  # Faust keeps its message longer than the payloads are wanted
        if batch.generation_id != self._intake.generation_id:
            return  # from before a rebalance: its new owner reads it again
        for tp, records in parts:
            group = self.groups.get(tp.partition) or self._new_group(tp.partition)
            for record in records:
                group.receive(record)
            if group.full(self._rows[tp.topic]):
                self._consumer.hold(TP(tp.topic, tp.partition))
        self._wake.set()

    def _new_group(self, partition: int) -> Group[Any]:
        name = f"{self.settings.consumer_group}:{partition}"
        group = self.groups[partition] = self._role.new_group(partition, name, self._intake.has_commits(partition))
        group.live_from_us = time_ns() // 1000
        for topic, row in self._rows.items():
            group.resume(row, self._consumer.log_times_us.get(TP(topic, partition), 0))
        return group

    def answered(self) -> None:
        """A fetch was answered: bounds of idle partitions may have moved."""
        self._health.answered()
        if not self._exact:
            self._intake.ask_replicas()
        self._wake.set()

    def proven(self) -> None:
        """Replicas have answered: bounds of idle partitions may have moved."""
        self._wake.set()

    async def revoked(self, partitions: Collection[int]) -> None:
        """Partitions are taken away: commit what is done, drop the rest; the next owner rebuilds it."""
        self._commit_releasable()
        try:
            await self._consumer.commit()
        except Exception as error:  # noqa: BLE001 - whatever Kafka says, what follows must happen
            log.warning("no commit at the revocation (%r): the next owner repeats what was done since the last", error)
        dropped = [group for partition in partitions if (group := self.groups.pop(partition, None)) is not None]
        for group in dropped:
            group.alive = False
        await self._withdraw(dropped)

    def _ticker(self) -> Ticker:
        every_ms, rows = self.settings.merge_tick_ms, self._rows
        return Ticker(every_ms, rows, lambda: list(self.groups.values()), self._intake.send, self._health.kafka)

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
            self._consumer.pace.looked(began_us, min((at for at in closings if at is not None), default=None))
            await asyncio.sleep(PUMP_EVERY_S)

    async def _advance(self, group: Group[Any]) -> bool:
        """One turn of a group; returns whether it can go on at once."""
        if not group.alive or self._full or self._stop.is_set():
            return False
        if not self._exact:
            for topic, row in self._rows.items():  # the non-empty ones too: this turn may empty them
                since_us = self._consumer.idle_since_us(TP(topic, group.partition), group.next_offset[row])
                if since_us is not None:
                    group.bound(row, since_us - self._slack_us)
        held_bytes = group.open_bytes
        leaving, more = await group.advance(self._role.store, RELEASE_LIMIT)
        for item in leaving:
            self._send_on(group, item)
        if group.open_bytes > held_bytes:  # adding up over all groups costs, and most turns release nothing
            self._relieve()
        if more or leaving:
            self._health.aligned()
        for tp in [held for held in self._consumer.held if held.partition == group.partition]:
            if group.held(self._rows[tp.topic]) <= self.settings.fifo_bytes // 2:
                self._consumer.free(tp)
        return more

    @property
    def _full(self) -> bool:
        """Nothing more may leave alignment until some of what has left it is done."""
        too_many_bytes = self._inflight_bytes >= self.settings.max_inflight_bytes
        return too_many_bytes or self._letters.full or self._sink.ahead

    @property
    def _inflight_bytes(self) -> int:
        """What has left alignment and is not done: windows, and letters that the broker has not acknowledged."""
        return self._sink.inflight_bytes + self._letters.nbytes

    def _relieve(self) -> None:
        """The limit on open windows is the worker's: the group that holds the most closes its oldest window early."""
        while self.groups and sum(g.open_bytes for g in self.groups.values()) > self.settings.max_open_bytes:
            fullest = max(self.groups.values(), key=lambda g: g.open_bytes)
            for item in fullest.relieve():
                self._send_on(fullest, item)

    def _send_on(self, group: Group[Any], item: Any) -> None:
        if isinstance(item, (Late, Rejected)):
            self._letters.put(group, item)
        else:
            group.submit(item, self._sink)

    # offsets out

    def _commit_releasable(self) -> None:
        topics = self.settings.worker_topics
        for group in self.groups.values():
            grown = group.releasable()
            for row, topic in enumerate(topics if grown else ()):
                tp, newest = TP(topic, group.partition), grown.get(row)
                if newest is None:
                    self._consumer.release_gap(tp)
                else:
                    self._consumer.release(tp, Released(newest.offset + 1, newest.log_time_us))

    def cuts(self) -> dict[Group[Any], int]:
        """The cut of each group, as the next commit makes it."""
        return {group: group.cut_us for group in self.groups.values()}

    def committed(self, cuts: dict[Group[Any], int]) -> None:
        """Kafka has committed these cuts."""
        for group, cut_us in cuts.items():
            group.trim_below_us = cut_us

    # health: see health.Work

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop.is_set()

    @property
    def alignable(self) -> bool:
        """Whether alignment has records that wait for no open transaction, and may hand on windows."""
        if self._full:
            return False
        undecided = self._intake.open_transactions() if self._intake.started else {}
        waiting = {
            tp.partition
            for tp in undecided
            if (group := self.groups.get(tp.partition)) is not None and not group.held(self._rows[tp.topic])
        }
        return any(group.buffered_bytes for number, group in self.groups.items() if number not in waiting)

    @property
    def publishable(self) -> bool:
        """Whether windows are in flight."""
        return bool(self._sink.inflight_windows)

    def not_ready(self) -> list[str]:
        """Why the worker cannot take work now; empty when it can."""
        return self._health.not_ready(self._intake, self)

    def _observe(self) -> None:
        lags = self._intake.lags() if self._intake.started else {}
        gauges.update(self.metrics, self.groups.values(), lags, self._inflight_bytes, ready=not self.not_ready())
