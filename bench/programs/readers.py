"""Three readers of the same records, run by ``bench.transport``: ``python -m bench.programs.readers NAME COUNT``.

    streamer   the worker as far as alignment, ``bench/programs/align_only.py``
    faust      a Faust agent as its documentation shows it, which counts events
    aiokafka   a plain consumer's loop, which counts records

Each prints, as one line of JSON, how many CPU seconds its process took from the first fetch to the last of COUNT
records.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import aiokafka
import faust
import uvloop

from bench.programs.clock import Clock
from streamer.settings import Settings


async def read_as_faust(settings: Settings, count: int) -> None:
    clock = Clock()
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
        seen = 0
        async for _ in stream.events():
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
    clock, seen = Clock(), 0
    await consumer.start()
    async for _ in consumer:
        seen += 1
        if seen == count:
            clock.end()


def main() -> None:
    """Read as the first argument says."""
    name, count = sys.argv[1], int(sys.argv[2])
    settings = Settings.load()
    match name:
        case "streamer":
            from bench.programs import align_only  # not before: PyTorch comes with it, which the others have no use for

            uvloop.install()  # as the worker does
            uvloop.run(align_only.read(settings, count))
        case "faust":
            asyncio.run(read_as_faust(settings, count))
        case "aiokafka":
            asyncio.run(read_as_aiokafka(settings, count))
        case _:
            sys.exit(f"no reader is called {name!r}")


if __name__ == "__main__":
    main()
