"""What Kafka keeps of a session, in memory, and the window that had all of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from streamer.events import KINDS, Record, rfc3339
from streamer.result import Result, ranges
from streamer.retrieval.contents import Ranges

S_US = 1_000_000
START_US = 1_750_000_000 * S_US


class Log:
    """Partition 0 of every topic in memory; a record's offset is its place in its topic."""

    partitions = 1

    def __init__(self, *records: tuple[int, str | None, bytes, str]) -> None:
        self.topics: list[list[Record]] = [[] for _ in KINDS]
        self.reads: list[int] = []
        for row, sensor, payload, content_type in records:
            headers = {
                "ce_specversion": "1.0",
                "ce_id": "1",
                "ce_source": "/test",
                "ce_type": KINDS[row].ce_type,
                "ce_time": rfc3339(START_US),
                "content-type": content_type,
                **({} if sensor is None else {"ce_sensor": sensor}),
            }
            pairs = tuple((name, value.encode()) for name, value in headers.items())
            self.topics[row].append(Record(row, 0, len(self.topics[row]), START_US + S_US, b"car", payload, pairs))

    def read(self, row: int, partition: int, ranges: Ranges) -> list[Record]:
        found = [one for one in self.topics[row] if any(first <= one.offset <= last for first, last in ranges)]
        self.reads.append(len(found))
        return found

    def close(self) -> None:
        pass


def window(log: Log, present: Sequence[str], of: Sequence[str], **changed: Any) -> Result:
    """A window with all records of the log as members."""
    members = {
        f"streamer.{kind.topic}": ranges(range(len(records)))
        for kind, records in zip(KINDS, log.topics, strict=True)
        if records
    }
    coverage = {name: float(name in present) for name in of}
    made = Result(
        session="car",
        start_us=START_US,
        end_us=START_US + S_US,
        closed_by="deadline",
        present=tuple(present),
        coverage=coverage,
        members=members,
        outputs={},
        embedding=b"",
        model="m",
        version="1",
        status="ok",
        latencies_us={},
    )
    return msgspec.structs.replace(made, **changed)
