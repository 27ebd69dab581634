"""The job in Faust out of the box: an agent, a tumbling table and ``on_window_close``, as its tutorial has it.

A window is a value of the table, to which each record is added; the table is its own changelog topic. When a window has
expired Faust calls ``on_window_close`` for one window after another, so the model runs them one by one.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import faust
import msgspec

from bench.peers.common import CHECKPOINT_S, GRACE_MS, SESSION_TIMEOUT_S, WINDOW_MS, Closed, Job, placed, window_end_us
from streamer.events import Record

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(list[Record]).decode


def build(job: Job) -> faust.App:
    settings = job.settings
    app = faust.App(
        settings.group,
        broker=f"kafka://{settings.kafka}",
        topic_partitions=settings.partitions,
        table_cleanup_interval=CHECKPOINT_S,
        broker_commit_interval=CHECKPOINT_S,
        broker_session_timeout=SESSION_TIMEOUT_S,
        broker_heartbeat_interval=1.0,
        consumer_auto_offset_reset="earliest",
        consumer_group_instance_id=settings.group,
        stream_wait_empty=False,
        web_enabled=False,
    )
    source = app.topic(*settings.source_topics, key_serializer="raw", value_serializer="raw")

    async def publish(key: tuple[str, tuple[float, float]], value: bytes) -> None:
        session, (start_s, _) = key
        closed = Closed(session, window_end_us(round(start_s * 1_000_000)), _decode(value))
        await asyncio.to_thread(job.finish, [closed])

    table = app.Table("windows", key_type=None, value_type=bytes, default=lambda: _encode([]), on_window_close=publish)
    windows: Any = table.tumbling(WINDOW_MS / 1000, expires=GRACE_MS / 1000)

    @app.agent(source)  # type: ignore[untyped-decorator]
    async def collect(stream: Any) -> None:
        async for event in stream.events():
            message = event.message
            record = job.record(
                message.topic,
                message.partition,
                message.offset,
                round(message.timestamp * 1000),
                message.key,
                message.value,
                message.headers,
            )
            found = job.event(record)
            if found is None:
                continue
            for at_us in placed(found):
                window = windows[found.session]
                range_s = table.window.current(at_us / 1_000_000)
                window[range_s] = _encode([*_decode(window[range_s]), record])

    return app


def main() -> None:
    app = build(Job())
    sys.argv = [sys.argv[0], "worker", "--loglevel=warn"]
    app.main()


if __name__ == "__main__":
    main()
