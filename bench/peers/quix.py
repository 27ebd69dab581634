"""The job in Quix Streams: four topics concatenated, a tumbling window with grace, collected, and a sink.

``concat`` of several topics turns on the engine's alignment: of partitions with the same number the record with the
oldest Kafka timestamp goes first, and a topic that has more on the broker is waited for. State is RocksDB with a
changelog topic; a checkpoint flushes the sink, the changelog and the offsets, in this order.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from typing import Any

import msgspec
from quixstreams import Application, message_context
from quixstreams.dataframe.windows import Collect
from quixstreams.models import HeadersTuples
from quixstreams.sinks import BaseSink
from quixstreams.state.rocksdb import RocksDBOptions

from bench.peers.common import CHECKPOINT_S, GRACE_MS, SESSION_TIMEOUT_S, WINDOW_MS, Closed, Job, placed, state_folder
from streamer.events import Record


class ModelSink(BaseSink):
    """Holds closed windows until the checkpoint, which runs and writes them in batches."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job
        self._closed: list[Closed] = []

    def add(
        self,
        value: Any,
        key: Any,
        timestamp: int,
        headers: HeadersTuples,
        topic: str,
        partition: int,
        offset: int,
    ) -> None:
        records = [msgspec.convert(record, Record) for record in value["value"]]
        self._closed.append(Closed(key.decode(), value["end"] * 1000, records))

    def flush(self) -> None:
        try:
            self._job.finish(self._closed)
        finally:
            self._closed.clear()  # a checkpoint that fails is repeated from its records


def main() -> None:
    job = Job()
    settings = job.settings

    def split(value: bytes | None, key: bytes, timestamp_ms: int, headers: Any) -> Iterable[tuple[int, Record]]:
        """A copy for each window that the record touches, with its time in ms."""
        at = message_context()
        record = job.record(at.topic, at.partition, at.offset, timestamp_ms, key, value, headers)
        event = job.event(record)
        return [(at_us // 1000, record) for at_us in placed(event)] if event is not None else []

    app = Application(
        broker_address=settings.kafka,
        consumer_group=settings.group,
        auto_offset_reset="earliest",
        commit_interval=CHECKPOINT_S,
        state_dir=state_folder(),
        processing_guarantee="at-least-once",
        # records are bytes, which the default, JSON, cannot hold
        rocksdb_options=RocksDBOptions(dumps=msgspec.msgpack.encode, loads=msgspec.msgpack.decode),
        consumer_extra_config={
            "group.instance.id": settings.group,
            "session.timeout.ms": round(SESSION_TIMEOUT_S * 1000),
        },
        loglevel="WARNING",
    )
    topics = [app.topic(name, key_deserializer="bytes", value_deserializer="bytes") for name in settings.source_topics]
    frames = reduce(lambda one, other: one.concat(other), map(app.dataframe, topics))
    windows = (
        frames.apply(split, expand=True, metadata=True)
        .set_timestamp(lambda value, key, timestamp, headers: value[0])
        .apply(lambda value: value[1])
        .tumbling_window(duration_ms=WINDOW_MS, grace_ms=GRACE_MS)
        .agg(value=Collect())
        .final()
    )
    windows.sink(ModelSink(job))
    app.run()


if __name__ == "__main__":
    main()
