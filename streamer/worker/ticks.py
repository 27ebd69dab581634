"""Tick records: append times that every reader of the logs shares, on partitions that bring nothing else.

Alignment waits at an empty topic until nothing older can come there. By default brokers are asked whether it may go
on, and their clocks may differ from ours by ``merge_slack_ms``. With ticks no clock is compared: the bound of an idle
partition is the log time of its last record, and the partition's owner appends records that carry nothing but that
time. So the order of the merge follows from the logs alone, whatever the brokers' clocks say. The price: a window may
close up to ``merge_tick_ms`` and a round trip later, and the worker must be allowed to write to the source topics.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import aiokafka.errors
from faust.exceptions import ProducerSendError

from streamer.events import TICK_TYPE
from streamer.observe.health import Service
from streamer.worker.ports import Group


class Ticker:
    """Appends ticks to the partitions of this worker that its groups wait for.

    Args:
        rows: Full name of a source topic -> its row.
        groups: Those of now.
        send: Sends topic, key, value, headers and partition, and waits for the broker's acknowledgement.
    """

    def __init__(
        self,
        every_ms: int,
        rows: Mapping[str, int],
        groups: Callable[[], Iterable[Group[Any]]],
        send: Callable[..., Awaitable[None]],
        kafka: Service,
    ) -> None:
        self._every_s = every_ms / 1000
        self._rows = rows
        self._groups = groups
        self._send = send
        self._kafka = kafka
        self._sending: dict[tuple[str, int], asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Tick for ever."""
        try:
            while True:
                for group in self._groups():
                    if group.buffered_bytes or group.next_closing_us is not None:
                        self._tick(group)
                await asyncio.sleep(self._every_s)
        finally:
            for task in self._sending.values():
                task.cancel()

    def _tick(self, group: Group[Any]) -> None:
        for topic, row in self._rows.items():
            place = topic, group.partition
            if not group.held(row) and place not in self._sending:
                self._sending[place] = asyncio.create_task(self._append(*place))

    async def _append(self, topic: str, partition: int) -> None:
        headers = (
            ("ce_specversion", b"1.0"),
            ("ce_id", uuid.uuid4().hex.encode()),
            ("ce_source", b"/streamer/worker"),
            ("ce_type", TICK_TYPE.encode()),
        )
        try:
            await self._send(topic, None, b"", headers, partition)
        except (ProducerSendError, aiokafka.errors.KafkaError) as error:
            self._kafka.away(error, f"Kafka does not take a tick for {topic}")  # the next turn tries again
        else:
            self._kafka.answers()
        finally:
            del self._sending[topic, partition]
