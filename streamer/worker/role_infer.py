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

    def pipeline(self, host: Host, publisher: Publisher, refetch: Refetch | None = None) -> Pipeline:
        """The pipeline that runs it; from now on the metrics show model and device."""
        predictor = self.predictor
        host.metrics.model.info({"name": predictor.name, "version": predictor.version})
        for output in predictor.spec.outputs:
            host.metrics.early_changes.labels(output)
            host.metrics.unsure.labels(predictor.name, output)
        for sensor in predictor.judged:
            host.metrics.strange.labels(sensor)
        if (uuid := device_uuid(predictor.device)) is not None:
            host.metrics.registry.register(DeviceCollector(uuid, str(predictor.device)))
        return Pipeline(
            host.settings,
            predictor,
            publisher,
            host.metrics,
            host.dead_letter_member,
            host.progressed,
            refetch,
            host.tracer,
        )

    def watch(self, host: Host, pipeline: Pipeline) -> dict[str, Coroutine[Any, Any, None]]:
        """Watch the model's folder for the pipeline: what a role that infers runs in the background."""
        reloader = reload.Reloader(host.settings, self.predictor, self._state, host.metrics, pipeline.swap)
        return {"reload": reloader.run()}


class All(FromSources):
    """Everything in one process."""

    def __init__(self, host: Host, partitions: int, served: Served, client: redis.asyncio.Redis) -> None:
        super().__init__(host, partitions)
        self._client = client
        self._served = served
        self.store = _publisher(host, client)
        self.sink = served.pipeline(host, self.store)

    def background(self) -> dict[str, Coroutine[Any, Any, None]]:
        """See :meth:`Served.watch` and :meth:`FromSources.reporting`."""
        return self._served.watch(self._host, self.sink) | self.reporting(self._client)


class Infer:
    """From closed windows on."""

    def __init__(self, host: Host, partitions: int, served: Served, client: redis.asyncio.Redis) -> None:
        self._host = host
        self._served = served
        self._refetch = Refetch(host.settings, host.kafka)
        self.store = _publisher(host, client)
        self.sink = served.pipeline(host, self.store, self._refetch)

    def new_group(self, partition: int, name: str, committed: bool) -> Group[Any]:
        return WindowGroup(partition, self._host.settings.fifo_bytes, self._host.metrics, name=name)

    def background(self) -> dict[str, Coroutine[Any, Any, None]]:
        """See :meth:`Served.watch`."""
        return self._served.watch(self._host, self.sink)

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
