"""Role align: source topics ─► PartitionGroup ─► Outbox ─► windows topic, Redis (emissions). Imports no PyTorch."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

import redis.asyncio

from streamer.align.decode import Decoder
from streamer.align.group import PartitionGroup
from streamer.align.windows import Rules
from streamer.broker.deadletters import Letter
from streamer.events import TOPIC_WINDOWS
from streamer.model.spec import check_sensors, read_spec
from streamer.store.emissions import Emissions
from streamer.store.results import Keys
from streamer.worker.clocks import Clocks
from streamer.worker.handover import Headers
from streamer.worker.outbox import Outbox
from streamer.worker.ports import Group, Host


class FromSources:
    """Reads the source topics: roles all and align."""

    def __init__(self, host: Host, partitions: int) -> None:
        self._host = host
        self._decoder = Decoder(host.settings, partitions)
        self._rules = Rules.from_settings(host.settings)
        self._clocks = Clocks(self._rules.sensors.names, host.metrics)

    def new_group(self, partition: int, name: str, committed: bool) -> Group[Any]:
        settings = self._host.settings
        group = PartitionGroup(
            partition,
            self._decoder,
            self._rules,
            settings.fifo_bytes,
            self._host.metrics,
            name=name,
            committed=committed,
            max_ahead_us=settings.max_ahead_ms * 1000,
        )
        self._clocks.watch(group)
        return group

    def reporting(self, client: redis.asyncio.Redis) -> dict[str, Coroutine[Any, Any, None]]:
        """Reports on the clocks of its sensors: runs in the background."""
        return {"clocks": self._clocks.run(client, Keys(self._host.settings.key_prefix))}

    def background(self) -> dict[str, Coroutine[Any, Any, None]]:
        """Nothing runs beside the sink."""
        return {}

    async def close(self) -> None:
        """Nothing is open."""


class Align(FromSources):
    """Up to closed windows; needs the model's ``model.toml``, no weights.

    Raises:
        ModelError: There is none, something is wrong in it, or it reads a sensor that is not declared.
    """

    def __init__(self, host: Host, partitions: int, client: redis.asyncio.Redis) -> None:
        super().__init__(host, partitions)
        self._client = client
        settings = host.settings
        self.store = Emissions(client, Keys(settings.key_prefix), host.redis)
        spec = read_spec(settings.model)
        check_sensors(spec, settings.sensor_set)
        self.sink = Outbox(
            spec.inputs,
            settings.max_message_bytes,
            self.store,
            host.metrics,
            self._send,
            host.dead_letter_member,
            host.progressed,
        )

    def background(self) -> dict[str, Coroutine[Any, Any, None]]:
        """See :meth:`FromSources.reporting`."""
        return self.reporting(self._client)

    async def _send(self, key: bytes, value: bytes, headers: Headers) -> None:
        await self._host.send(self._host.settings.topic(TOPIC_WINDOWS), Letter(key, value, headers), whole=True)
