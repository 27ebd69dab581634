"""An open-loop load, run by ``bench.batching``: ``python -m bench.programs.load SESSIONS SECONDS START_US NAME``.

Sends simulated drives by a schedule that is fixed before it begins, whatever becomes of the results, and prints as
one line of JSON how far it was behind at its worst moments. Cars' clocks are spread evenly over a second, so that
windows do not all end at once: the clock of car i is ``phase_us(i, sessions)`` behind.
"""

from __future__ import annotations

import json
import sys
import time
from typing import NamedTuple

import numpy as np

from bench import rig
from streamer.clients import kafka as kafka_clients
from streamer.feeds import simulate
from streamer.feeds.producer import headers
from streamer.settings import Settings

S_US = simulate.S_US


def phase_us(number: int, sessions: int) -> int:
    """How far a car's clock is behind, µs."""
    return number * S_US // sessions


class Planned(NamedTuple):
    """A record as Kafka's client takes it; made in advance, so that sending costs little beside the broker.

    Attributes:
        at_us: When to send it, microseconds since the epoch.
    """

    at_us: int
    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def schedule(settings: Settings, sessions: int, seconds: int, start_us: int, name: str) -> list[Planned]:
    """All records, ascending in time."""
    distinct = simulate.fleet(min(rig.DRIVES, sessions), seconds, 11, start_us, "load")
    records = [[(outgoing, headers(outgoing)) for outgoing in drive.outgoing()] for drive in distinct]
    planned = [
        Planned(
            outgoing.due_us + phase_us(number, sessions),
            settings.source_topics[outgoing.row],
            f"{name}-{number}".encode(),
            outgoing.payload,
            found,
        )
        for number in range(sessions)
        for outgoing, found in records[number % len(records)]
    ]
    return sorted(planned, key=lambda record: record.at_us)


def main() -> None:
    """Plan, wait for the start, send."""
    sessions, seconds, start_us = map(int, sys.argv[1:4])
    settings = Settings.load()
    planned = schedule(settings, sessions, seconds, start_us, sys.argv[4])
    producer = kafka_clients.producer(settings, acks="all", linger_ms=5, batch_size=256 << 10)  # as ``feeds.Producer``
    if time.time_ns() // 1000 > start_us:
        sys.exit("the schedule took longer to make than there was time until its start")
    behind_us = []
    failed: list[Exception] = []
    for record in planned:
        wait_us = record.at_us - time.time_ns() // 1000
        if wait_us > 0:
            time.sleep(wait_us / 1e6)
        behind_us.append(time.time_ns() // 1000 - record.at_us)
        sent = producer.send(record.topic, key=record.key, value=record.value, headers=record.headers)
        sent.add_errback(failed.append)
    producer.flush()
    producer.close()
    if failed:
        sys.exit(f"Kafka did not take {len(failed)} of {len(planned)} records: {failed[0]!r}")
    print(json.dumps(float(np.percentile(behind_us, 99)) / 1000))


if __name__ == "__main__":
    main()
