"""Roles that run a model.

all     source topics ─► PartitionGroup ─► Pipeline ─► Redis (results)
infer   windows topic ─► WindowGroup ─► Pipeline ─► Redis (results)
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import redis.asyncio

from streamer.broker.refetch import Refetch
from streamer.model import reload
from streamer.model.predictor import Predictor, device_uuid
from streamer.observe.device import DeviceCollector
from streamer.settings import Settings
from streamer.store.publish import Publisher
from streamer.store.results import Keys
from streamer.worker.arrivals import WindowGroup
from streamer.worker.pipeline import Pipeline
from streamer.worker.ports import Group, Host, Role
from streamer.worker.role_align import FromSources


class Served:
    """The model of a worker, which takes over new versions from its folder.

    Args:
        state: Of the folder before ``predictor`` was loaded.
    """

    def __init__(self, predictor: Predictor, state: reload.State) -> None:
        self.predictor = predictor
        self._state = state

    @classmethod
    def load(cls, settings: Settings) -> Served:
        """Load and warm up the model of the settings; takes seconds.

        Raises:
            ModelError: It cannot be loaded, or fails on an empty window.
            UsageError: There is no such device.
        """
        state = reload.state_of(settings.model)
        return cls(reload.load(settings), state)

    def describe(self, host: Host) -> None:
        """Show model and device in the metrics."""
        predictor = self.predictor
        host.metrics.model.info({"name": predictor.name, "version": predictor.version})
        if (uuid := device_uuid(predictor.device)) is not None:
            host.metrics.registry.register(DeviceCollector(uuid, str(predictor.device)))

    def reloader(self, host: Host, pipeline: Pipeline) -> reload.Reloader:
        """Watches the folder for the pipeline."""
        return reload.Reloader(host.settings, self.predictor, self._state, host.metrics, pipeline.swap)


class All(FromSources):
    """Everything in one process."""

    def __init__(self, host: Host, partitions: int, served: Served, client: redis.asyncio.Redis) -> None:
        super().__init__(host, partitions)
        self.store = _publisher(host, client)
        self.sink = Pipeline(
            host.settings,
            served.predictor,
            self.store,
            host.metrics,
            host.dead_letter_member,
            host.progressed,
            tracer=host.tracer,
        )
        served.describe(host)
        self._reloader = served.reloader(host, self.sink)

    def background(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Watch the model's folder."""
        return {"reload": self._reloader.run()}


class Infer:
    """From closed windows on."""

    def __init__(self, host: Host, partitions: int, served: Served, client: redis.asyncio.Redis) -> None:
        settings = host.settings
        self.store = _publisher(host, client)
        self._host = host
        self._refetch = Refetch(settings, host.kafka)
        self.sink = Pipeline(
            settings,
            served.predictor,
            self.store,
            host.metrics,
            host.dead_letter_member,
            host.progressed,
            self._refetch,
            host.tracer,
        )
        served.describe(host)
        self._reloader = served.reloader(host, self.sink)

    def new_group(self, partition: int, name: str, committed: bool) -> Group[Any]:
        return WindowGroup(partition, self._host.settings.fifo_bytes, self._host.metrics, name=name)

    def background(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Watch the model's folder."""
        return {"reload": self._reloader.run()}

    async def close(self) -> None:
        await self._refetch.close()


def _publisher(host: Host, client: redis.asyncio.Redis) -> Publisher:
    settings = host.settings
    return Publisher(
        client,
        Keys(settings.key_prefix),
        host.redis,
        maxlen=settings.results_maxlen,
        wait_replicas=settings.publish_wait_replicas,
        wait_ms=settings.publish_wait_ms,
    )


def load(settings: Settings, partitions: int, client: redis.asyncio.Redis) -> Callable[[Host], Role]:
    """See :func:`streamer.worker.roles.load`."""
    return partial(
        Infer if settings.role == "infer" else All, partitions=partitions, served=Served.load(settings), client=client
    )
