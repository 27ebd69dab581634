"""What a worker does with the records that it reads: one class a role, each joins the stages that it has.

    all     source topics ─► PartitionGroup ─► Pipeline ─► Redis (results)
    align   source topics ─► PartitionGroup ─► Outbox ─► windows topic, Redis (emissions)
    infer   windows topic ─► WindowGroup ─► Pipeline ─► Redis (results)

The worker knows topics, groups and a sink, whatever the role.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import redis.asyncio

from streamer import repository
from streamer.align import Rules
from streamer.arrivals import Arrival, WindowGroup
from streamer.deadletters import Letter
from streamer.decode import Decoder
from streamer.emissions import Emissions
from streamer.errors import BadRecord
from streamer.events import TOPIC_WINDOWS, Event, Window
from streamer.group import PartitionGroup, Store
from streamer.handover import Headers
from streamer.infer import Predictor
from streamer.metrics import Metrics
from streamer.outbox import Outbox
from streamer.pipeline import Owner, Pipeline
from streamer.publish import Publisher
from streamer.refetch import Refetch
from streamer.results import Keys
from streamer.settings import Settings
from streamer.tracing import Tracer

Group = PartitionGroup | WindowGroup


class Sink(Protocol):
    """Where windows leave to: see :class:`streamer.pipeline.Pipeline`."""

    inflight_bytes: int

    @property
    def inflight_windows(self) -> int:
        """Windows that came and are not yet done."""

    def close(self) -> None:
        """No more windows."""

    async def run(self) -> None:
        """Work until closed and empty."""

    async def withdraw(self, owners: Collection[Owner] | None = None) -> None:
        """Nobody is to blame for windows that are not finished."""


class Host(Protocol):
    """What a role asks of its worker."""

    settings: Settings
    metrics: Metrics
    tracer: Tracer | None

    async def send(self, topic: str, letter: Letter, *, whole: bool = False) -> None:
        """Send a record to Kafka and wait until the broker has it."""

    async def dead_letter_member(self, owner: Owner, event: Event, error: BadRecord) -> None:
        """Send a member of a window to the dead-letter topic, once."""

    def progressed(self) -> None:
        """Windows are done."""

    def redis_away(self, error: Exception) -> None:
        """Redis does not answer; the call will be repeated."""

    def redis_answers(self) -> None:
        """Redis answers."""

    def kafka_away(self, error: Exception) -> None:
        """Kafka does not answer; the call will be repeated."""

    def kafka_answers(self) -> None:
        """Kafka answers."""


class Role(Protocol):
    """What a worker runs."""

    @property
    def store(self) -> Store:
        """What its groups ask about sessions."""

    @property
    def sink(self) -> Sink:
        """Where its windows go."""

    def new_group(self, partition: int, name: str, committed: bool) -> Group:
        """A group for a partition that was assigned."""

    def submit(self, group: Group, item: Window | Arrival) -> None:
        """Hand a window that left its group to the sink."""

    async def close(self) -> None:
        """Leave what only this role has opened."""


class _FromSources:
    """The side of the source topics: roles all and align."""

    sink: Pipeline | Outbox

    def __init__(self, host: Host, partitions: int) -> None:
        self._host = host
        self._decoder = Decoder(host.settings, partitions)
        self._rules = Rules.from_settings(host.settings)

    def new_group(self, partition: int, name: str, committed: bool) -> Group:
        settings = self._host.settings
        return PartitionGroup(
            partition,
            self._decoder,
            self._rules,
            settings.fifo_bytes,
            self._host.metrics,
            name=name,
            committed=committed,
            max_ahead_us=settings.max_ahead_ms * 1000,
        )

    def submit(self, group: Group, item: Window | Arrival) -> None:
        """See :class:`Role`."""
        assert isinstance(group, PartitionGroup)  # as new_group made it, and what leaves one is a window
        assert isinstance(item, Window)
        self.sink.submit(group, item)

    async def close(self) -> None:
        """Nothing."""


class All(_FromSources):
    """Everything in one process."""

    def __init__(self, host: Host, partitions: int, predictor: Predictor, client: redis.asyncio.Redis) -> None:
        super().__init__(host, partitions)
        self.store = _publisher(host, client)
        self.sink = Pipeline(
            host.settings,
            predictor,
            self.store,
            host.metrics,
            host.dead_letter_member,
            host.progressed,
            tracer=host.tracer,
        )


class Align(_FromSources):
    """Up to closed windows; needs the model's ``model.toml``, no weights.

    Raises:
        ModelError: There is none, or something is wrong in it.
    """

    def __init__(self, host: Host, partitions: int, client: redis.asyncio.Redis) -> None:
        super().__init__(host, partitions)
        settings = host.settings
        self.store = Emissions(
            client, Keys(settings.key_prefix), on_retry=host.redis_away, on_success=host.redis_answers
        )
        self.sink = Outbox(
            repository.read_spec(settings.model).inputs,
            settings.max_message_bytes,
            self.store,
            host.metrics,
            self._send,
            host.dead_letter_member,
            host.progressed,
        )

    async def _send(self, key: bytes, value: bytes, headers: Headers) -> None:
        await self._host.send(self._host.settings.topic(TOPIC_WINDOWS), Letter(key, value, headers), whole=True)


class Infer:
    """From closed windows on."""

    def __init__(self, host: Host, predictor: Predictor, client: redis.asyncio.Redis) -> None:
        settings = host.settings
        self.store = _publisher(host, client)
        self._host = host
        self._refetch = Refetch(settings, host.kafka_away, host.kafka_answers)
        self.sink = Pipeline(
            settings,
            predictor,
            self.store,
            host.metrics,
            host.dead_letter_member,
            host.progressed,
            self._refetch,
            host.tracer,
        )

    def new_group(self, partition: int, name: str, committed: bool) -> Group:
        return WindowGroup(partition, self._host.settings.fifo_bytes, self._host.metrics, name=name)

    def submit(self, group: Group, item: Window | Arrival) -> None:
        assert isinstance(item, Arrival)  # what leaves a WindowGroup
        self.sink.submit(item, item.window, item.facts.closed_us)

    async def close(self) -> None:
        await self._refetch.close()


def _publisher(host: Host, client: redis.asyncio.Redis) -> Publisher:
    settings = host.settings
    return Publisher(
        client,
        Keys(settings.key_prefix),
        maxlen=settings.results_maxlen,
        wait_replicas=settings.publish_wait_replicas,
        wait_ms=settings.publish_wait_ms,
        on_retry=host.redis_away,
        on_success=host.redis_answers,
    )


def make(host: Host, partitions: int, predictor: Predictor | None, client: redis.asyncio.Redis) -> Role:
    """The role that the settings name.

    Args:
        partitions: Of every topic that is read.
        predictor: None for role align alone.
    """
    if predictor is None:
        return Align(host, partitions, client)
    if host.settings.role == "infer":
        return Infer(host, predictor, client)
    return All(host, partitions, predictor, client)
