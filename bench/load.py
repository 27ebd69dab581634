"""An open-loop load, run by ``bench.batching``: ``python -m bench.load SESSIONS SECONDS START_US NAME``.

Sends simulated drives by a schedule that is fixed before it begins, whatever becomes of the results, and says as one
line of JSON how far it was behind at its worst moments. Cars' clocks are spread evenly over a second, so that windows
do not all end at once: the clock of car i is ``phase_us(i, sessions)`` behind.
"""

from __future__ import annotations

import sys
import time

import msgspec
import numpy as np

from bench import rig
from streamer.feeds import simulate
from streamer.feeds.producer import Outgoing, Producer
from streamer.settings import Settings

S_US = simulate.S_US


def phase_us(number: int, sessions: int) -> int:
    """How far a car's clock is behind."""
    return number * S_US // sessions


def schedule(sessions: int, seconds: int, start_us: int, name: str) -> list[tuple[int, Outgoing]]:
    """(time to send, µs since the epoch; record), ascending."""
    distinct = simulate.fleet(min(rig.DRIVES, sessions), seconds, 11, start_us, "load")
    records = [list(drive.outgoing()) for drive in distinct]
    planned = [
        (outgoing.due_us + phase_us(number, sessions), msgspec.structs.replace(outgoing, session=f"{name}-{number}"))
        for number in range(sessions)
        for outgoing in records[number % len(records)]
    ]
    return sorted(planned, key=lambda planned: planned[0])


def main() -> None:
    """Plan, wait for the start, send."""
    sessions, seconds, start_us = map(int, sys.argv[1:4])
    planned = schedule(sessions, seconds, start_us, sys.argv[4])
    if time.time_ns() // 1000 > start_us:
        sys.exit("the schedule took longer to make than there was time until its start")
    behind_us = []
    with Producer(Settings.load()) as producer:
        for at_us, outgoing in planned:
            wait_us = at_us - time.time_ns() // 1000
            if wait_us > 0:
                time.sleep(wait_us / 1e6)
            behind_us.append(time.time_ns() // 1000 - at_us)
            producer.send(outgoing)
    print(msgspec.json.encode(float(np.percentile(behind_us, 99)) / 1000).decode())


if __name__ == "__main__":
    main()
