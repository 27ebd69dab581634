"""Three programs that read the same records, run by ``bench.transport``: ``python -m bench.readers NAME COUNT``.

    streamer   the worker with a sink that calls every window published at once: transport, decode, merge, align, ledger
    faust      a Faust agent as its documentation shows it, which counts events
    aiokafka   a plain consumer's loop, which counts records

Each prints how many CPU seconds its process took from the first of COUNT records to the last, as one line of JSON.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Collection
from typing import Any

import aiokafka
import faust
import msgspec
import uvloop

from bench.transport import Reading
from streamer import reload, roles, topics, worker
from streamer.arrivals import Arrival
from streamer.events import Stored, Window
from streamer.group import PartitionGroup
from streamer.pipeline import Owner
from streamer.settings import Settings
from streamer.transport import Batch

POLL_S = 0.02


class Clock:
    """From the first record to the last."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()
        self._wall_s = time.perf_counter()

    def end(self) -> None:
        """Print, and end the process without a goodbye."""
        reading = Reading(time.process_time() - self._cpu_s, time.perf_counter() - self._wall_s)
        print(msgspec.json.encode(reading).decode(), flush=True)
        os._exit(0)


class Forgetting:
    """A Redis that knows nothing of any session."""

    async def load(self, session: str, group: str) -> Stored:
        return Stored(None)

    async def open_group(self, group: str) -> int | None:
        return 0

    async def note_group(self, group: str, lost_until_us: int) -> None:
        pass


class Void:
    """A sink in which every window is published at once."""

    inflight_bytes = 0
    inflight_windows = 0

    def close(self) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def withdraw(self, owners: Collection[Owner] | None = None) -> None:
        pass


class AlignOnly(roles._FromSources):
    """A role that ends at closed windows."""

    store = Forgetting()
    sink: Any = Void()

    def submit(self, group: roles.Group, item: Window | Arrival) -> None:
        assert isinstance(group, PartitionGroup)
        assert isinstance(item, Window)
        group.window_done(item)


class Worker(worker.Worker):
    """A worker that stops the clock when it has aligned so many records."""

    def __init__(self, settings: Settings, partitions: int, count: int) -> None:
        super().__init__(settings, partitions, None, None, reload.state_of(settings.model))
        self.clock: Clock | None = None
        self._count = count

    def _receive(self, batch: Batch) -> None:
        if self.clock is None:
            self.clock = Clock()
        super()._receive(batch)

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            groups = list(self.groups.values())
            received = sum(sum(group.next_offset) for group in groups)
            if self.clock is not None and received >= self._count and not any(g.merge.nbytes_total for g in groups):
                self.clock.end()


async def read_as_worker(settings: Settings, count: int) -> None:
    roles.make = lambda host, partitions, predictor, client: AlignOnly(host, partitions)
    reader = Worker(settings, topics.check_for_worker(settings), count)
    watching = asyncio.create_task(reader.watch())
    await reader.run()
    await watching


async def read_as_faust(settings: Settings, count: int) -> None:
    app = faust.App(
        settings.group,
        broker=f"kafka://{settings.kafka}",
        store="memory://",
        autodiscover=False,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
    )
    topic = app.topic(*settings.source_topics, key_serializer="raw", value_serializer="raw")

    @app.agent(topic)  # type: ignore[untyped-decorator]
    async def read(stream: Any) -> None:
        clock, seen = None, 0
        async for _ in stream.events():
            clock = clock or Clock()
            seen += 1
            if seen == count:
                clock.end()

    await app.start()
    await app.wait_until_stopped()


async def read_as_aiokafka(settings: Settings, count: int) -> None:
    consumer = aiokafka.AIOKafkaConsumer(
        *settings.source_topics,
        bootstrap_servers=settings.kafka,
        group_id=settings.group,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=max(1 << 20, settings.max_message_bytes),
    )
    await consumer.start()
    clock, seen = None, 0
    async for _ in consumer:
        clock = clock or Clock()
        seen += 1
        if seen == count:
            clock.end()


def main() -> None:
    """Read as the first argument says."""
    name, count = sys.argv[1], int(sys.argv[2])
    settings = Settings.load()
    match name:
        case "streamer":
            uvloop.install()  # as the worker does
            uvloop.run(read_as_worker(settings, count))
        case "faust":
            asyncio.run(read_as_faust(settings, count))
        case "aiokafka":
            asyncio.run(read_as_aiokafka(settings, count))
        case _:
            sys.exit(f"no reader is called {name!r}")


if __name__ == "__main__":
    main()
