"""Records come in, offsets go out: Faust's app around our consumer."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import cached_property
from typing import Any, Protocol

import faust
from faust.sensors import Monitor
from faust.types import TP
from yarl import URL

from streamer.broker.consumer import Batch, Consumer
from streamer.broker.replicas import Brokers, Replicas
from streamer.broker.transport import NoTables, Transport, credentials
from streamer.clients import batches
from streamer.settings import Settings

SESSION_TIMEOUT_S = 6.0
SEND_S = 10.0  # longest wait for an acknowledgement; Faust waits 20 minutes for a broker whose machine is gone
POLL_RECORDS = 16 << 10  # at most 8 MiB of objects: a batch of tiny records may unpack to millions
STOP_S = 3.0  # longest wait for the consumer at a stop

log = logging.getLogger(__name__)


class QuietMonitor(Monitor):  # type: ignore[misc]
    """Faust's monitor without its per-event bookkeeping; the worker has its own metrics."""

    logger = logging.getLogger("faust.monitor")

    def track_tp_end_offset(self, tp: TP, offset: int) -> None:
        """Do nothing."""

    def on_tp_commit(self, tp_offsets: Any) -> None:
        """Do nothing."""


class Receiver(Protocol):
    """What an intake asks of its worker."""

    def receive(self, batch: Batch) -> None:
        """Take records; must not wait, since one drain loop of Faust serves all topics."""

    def proven(self) -> None:
        """Replicas of partitions have answered."""

    async def revoked(self, partitions: Collection[int]) -> None:
        """Partitions are taken away: release what is done, drop the rest."""

    def answered(self) -> None:
        """A fetch was answered."""

    def cuts(self) -> Any:
        """What a commit will cover, as of now."""

    def committed(self, cuts: Any) -> None:
        """Kafka has committed it."""

    def fail(self, error: BaseException) -> None:
        """Something that must not happen: end the process."""


class Intake:
    """The consumer of a worker's topics, and the producer beside it.

    Args:
        rows: Full name of a topic -> its row.

    Attributes:
        started: Whether the group has been joined.
        replicas: Proof that a partition is idle, where it is replicated.
    """

    def __init__(self, settings: Settings, rows: Mapping[str, int], receiver: Receiver) -> None:
        self._settings = settings
        self._rows = rows
        self._receiver = receiver
        self._app = self._new_app()
        self.replicas = Replicas(Brokers(settings, rows), receiver.proven)
        self.started = False

    @cached_property
    def consumer(self) -> Consumer:
        """Faust's consumer, which the app makes once; it takes five calls to find it."""
        consumer: Consumer = self._app.consumer
        return consumer

    @property
    def rebalancing(self) -> bool:
        """Whether partitions are being assigned."""
        return bool(self._app.rebalancing)

    @property
    def generation_id(self) -> int:
        """Of the present assignment; records of an earlier one are read again by their new owner."""
        generation_id: int = self._app.consumer_generation_id
        return generation_id

    @property
    def fetches(self) -> bool:
        """Whether anything is fetched: not while there are no partitions, or all of them are held."""
        return self.started and bool(self.consumer.assignment() - self.consumer.held)

    def has_commits(self, partition: int) -> bool:
        """Whether Kafka has committed offsets of a partition of any topic."""
        return any(self.consumer.committed(TP(topic, partition)) for topic in self._rows)

    def lags(self) -> dict[str, int]:
        """Records that are not done, by topic; after the start."""
        lags = dict.fromkeys(self._rows, 0)
        for tp in self.consumer.assignment():
            lags[tp.topic] += self.consumer.lag(tp)
        return lags

    def answered_us(self) -> dict[TP, int | None]:
        """When the last fetch left that was answered, for each partition that is fetched."""
        return self.consumer.answered_us()

    def open_transactions(self) -> dict[TP, int]:
        """Partitions with an open transaction, and the offset at which reading waits for its end."""
        return self.consumer.open_transactions()

    def leader(self, tp: TP) -> str | None:
        """Who leads a partition, for people; ``None`` if that is not known."""
        return self.replicas.leader(tp)

    def ask_replicas(self) -> None:
        """Ask the replicas of partitions that seem idle."""
        if self.started and self.replicas.needed:
            self.replicas.ask(self.consumer.seemingly_idle())

    def hold_all(self) -> None:
        """Fetch no more."""
        if self.started:
            for tp in self.consumer.assignment():
                self.consumer.hold(tp)

    async def send(
        self,
        topic: str,
        key: bytes | None,
        value: bytes,
        headers: Iterable[tuple[str, bytes]],
        partition: int | None = None,
    ) -> None:
        """Send a record and wait for the broker's acknowledgement; ``partition``: of the key, if ``None``.

        Raises:
            ProducerSendError, KafkaError: There is none.
        """
        await self._app.producer.send_and_wait(topic, key, value, partition, None, list(headers))

    async def run(self, stopping: Callable[[], bool]) -> None:
        """Join the group and read until the app ends.

        Args:
            stopping: Whether it may end.

        Raises:
            RuntimeError: It ended although it should not.
        """
        await self._app.start()
        self.consumer.pace.slack_us = self._settings.merge_slack_ms * 1000
        self.consumer.replicas = self.replicas
        self.consumer.on_answer = self._receiver.answered
        self.consumer.before_commit = self._receiver.cuts
        self.consumer.after_commit = self._receiver.committed
        self._app.sensors.remove(self._app.monitor)
        self.started = True
        settings = self._settings
        log.info("ready: role %s, group %r, topics %s", settings.role, settings.consumer_group, ", ".join(self._rows))
        await self._app.wait_until_stopped()
        if not stopping():
            raise RuntimeError(f"Kafka's consumer ended: {self._app.crash_reason!r}")

    async def stop(self) -> bool:
        """Leave the group, after the last commit; returns whether the consumer hangs or ended with an error."""
        # asyncio.wait_for(app.stop()) can hang for ever: it awaits the cancelled task. wait() does not.
        stopping = asyncio.create_task(self._app.stop())
        done, _ = await asyncio.wait({stopping}, timeout=STOP_S)
        shutil.rmtree(self._app.conf.datadir, ignore_errors=True)
        if not done:
            log.error("Kafka's consumer does not stop; leaving it")
            return True
        if stopping.exception() is not None:
            log.error("Kafka's consumer stopped with %r", stopping.exception())
            return True
        return False

    async def _on_revoked(self, app: faust.App, revoked: Iterable[TP], **kwargs: Any) -> None:
        await self._receiver.revoked({tp.partition for tp in revoked})

    def _new_app(self) -> faust.App:
        settings = self._settings
        brokers = [URL(f"kafka://{address}") for address in settings.brokers]
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
            broker_max_poll_records=POLL_RECORDS,
            consumer_auto_offset_reset="earliest",
            consumer_max_fetch_size=max(1 << 20, settings.max_message_bytes + (64 << 10)),
            consumer_group_instance_id=settings.instance_id,
            producer_max_request_size=settings.max_message_bytes + (256 << 10),
            producer_acks=-1,
            producer_request_timeout=SEND_S,
            cython_optimizations=True,
            Monitor=QuietMonitor,
            TableManager=NoTables,
        )
        app.transport = Transport(brokers, app, self._rows, batches.limit_bytes(settings))
        app.on_partitions_revoked.connect(self._on_revoked)
        topic = app.topic(*self._rows, key_serializer="raw", value_serializer="raw")

        @app.agent(topic, name=f"streamer.{settings.role}")  # type: ignore[untyped-decorator]
        async def feed(stream: Any) -> None:
            """Hand on what comes."""
            async for event in stream.noack().events():
                try:
                    self._receiver.receive(event.message)
                except BaseException as error:
                    self._receiver.fail(error)  # Faust would go on after the lost event
                    raise

        return app
