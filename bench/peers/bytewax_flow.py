"""The job in Bytewax: one Kafka source of four topics, ``collect_window``, and a sink that runs the model.

Its ``EventClock`` takes a session's newest time for the time of all: of topics that are read apart, as after any
pause, the slow ones would be late. So the clock here is our own, by the interface that Bytewax documents for it: time
passes as far as the slowest topic. State and offsets are in the recovery store, an epoch a second.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import bytewax.operators as op
from bytewax.connectors.kafka import KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import Clock, ClockLogic, TumblingWindower, collect_window
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.run import cli_main

from bench.peers.common import CHECKPOINT_S, GRACE_MS, WINDOW_MS, WINDOW_US, Closed, Job, placed, state_folder
from streamer.events import KINDS, Record

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NEVER = datetime.min.replace(tzinfo=UTC)
FOREVER = datetime.max.replace(tzinfo=UTC)
GRACE = timedelta(milliseconds=GRACE_MS)
MICROSECOND = timedelta(microseconds=1)

Placed = tuple[datetime, Record]
Newest = tuple[datetime, ...]  # of each topic


class SlowestTopic(ClockLogic[Placed, Newest]):
    """A session's time: that of the topic that is furthest behind, minus the grace."""

    def __init__(self, newest: Newest) -> None:
        self._newest = list(newest)

    def before_batch(self) -> None:
        pass

    def on_item(self, value: Placed) -> tuple[datetime, datetime]:
        at, record = value
        self._newest[record.row] = max(self._newest[record.row], at)
        return at, self.on_notify()

    def on_notify(self) -> datetime:
        slowest = min(self._newest)
        return slowest - GRACE if slowest > NEVER else NEVER

    def on_eof(self) -> datetime:
        return FOREVER

    def to_system_utc(self, timestamp: datetime) -> datetime | None:
        return None  # nothing closes by the time of day

    def snapshot(self) -> Newest:
        return tuple(self._newest)


class SlowestTopicClock(Clock[Placed, Newest]):
    """Builds the clock of a session."""

    def build(self, resume_state: Newest | None) -> SlowestTopic:
        return SlowestTopic(resume_state or (NEVER,) * len(KINDS))


class ModelSink(DynamicSink[tuple[str, tuple[int, list[Placed]]]]):
    """Runs and writes the windows that close together."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def build(self, step_id: str, worker_index: int, worker_count: int) -> ModelPartition:
        return ModelPartition(self._job)


class ModelPartition(StatelessSinkPartition[tuple[str, tuple[int, list[Placed]]]]):
    """The sink of a worker."""

    def __init__(self, job: Job) -> None:
        self._job = job

    def write_batch(self, items: list[tuple[str, tuple[int, list[Placed]]]]) -> None:
        self._job.finish(
            [
                Closed(session, (number + 1) * WINDOW_US, [record for _, record in values])
                for session, (number, values) in items
            ]
        )


def flow(job: Job) -> Dataflow:
    settings = job.settings

    def split(message: KafkaSourceMessage[bytes, bytes]) -> Iterable[tuple[str, Placed]]:
        """A copy for each window that the record touches, keyed by session."""
        record = job.record(
            message.topic,
            message.partition,
            message.offset,
            message.timestamp[1],
            message.key,
            message.value,
            message.headers,
        )
        event = job.event(record)
        if event is not None:
            for at_us in placed(event):
                yield event.session, (EPOCH + at_us * MICROSECOND, record)

    dataflow = Dataflow("peers")
    messages = op.input("kafka", dataflow, KafkaSource(settings.kafka.split(","), list(settings.source_topics)))
    windows = collect_window(
        "window",
        op.flat_map("split", messages, split),
        SlowestTopicClock(),
        TumblingWindower(length=timedelta(milliseconds=WINDOW_MS), align_to=EPOCH),
        ordered=False,  # the order of members does not matter to us, and costs
    )
    op.output("model", windows.down, ModelSink(job))
    return dataflow


def recovery() -> RecoveryConfig:
    """The store of the last run, or a new one."""
    folder = state_folder()
    if not any(folder.glob("*.sqlite3")):
        folder.mkdir(parents=True, exist_ok=True)
        init_db_dir(folder, 1)
    return RecoveryConfig(folder)


def main() -> None:
    run: Any = cli_main
    run(
        flow(Job()),
        workers_per_process=1,
        epoch_interval=timedelta(seconds=CHECKPOINT_S),
        recovery_config=recovery(),
    )


if __name__ == "__main__":
    main()
