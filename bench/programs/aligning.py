"""Decode, merge, align and ledger of one process without Kafka and Redis; takes its turns in ``bench.sensors``.

It imports the working tree in which it is started, which may be one from before the packages of ``streamer/``. For
each line that it reads it aligns its records from the beginning, and answers with one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

GC_THRESHOLDS = (50_000, 20, 50)  # a worker's
CHUNK = 256  # records between two turns of the merge, as the pump takes them
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
T0_US = 1_700_000_000_000_000
WAY_US = 20_000
# Of each kind: what a sensor of it sends. Payloads are small, since nothing opens them here.
PERIOD_US = {"image": 100_000, "audio": 250_000, "text": 2_000_000, "telemetry": 200_000}
CHANNELS = {name: {"unit": "m/s", "values": [13.9, 14.0, 14.1, 14.2]} for name in ("speed", "brake", "steer", "yaw")}
PAYLOADS = {
    "image": b"\xff\xd8" + bytes(400),
    "audio": bytes(4_000),
    "text": json.dumps({"text": "a cyclist on the right", "start": 0.0, "end": 1.0}).encode(),
    "telemetry": json.dumps({"rate_hz": 20.0, "channels": CHANNELS}).encode(),
}
LENGTH_US = {"image": 0, "audio": 250_000, "text": 1_000_000, "telemetry": 200_000}
CONTENT_TYPES = {"image": b"image/jpeg", "audio": b"audio/L16;rate=8000", "text": b"application/json"}


def of_tree(*names: str) -> Any:
    """The first of these modules that the tree has."""
    for name in names[:-1]:
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError:
            continue
    return importlib.import_module(names[-1])


class Forgetting:
    """A store without any session."""

    def __init__(self, stored: Any) -> None:
        self._stored = stored

    async def load(self, session: str, group: str) -> Any:
        return self._stored

    async def open_group(self, group: str) -> int:
        return 0

    async def note_group(self, group: str, lost_until_us: int) -> None:
        pass


def rfc3339(time_us: int) -> str:
    """As ``streamer.events`` writes it, which older trees have elsewhere."""
    return (EPOCH + timedelta(microseconds=time_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def sensed(sensors: Sequence[Sequence[str]], sessions: int, count: int) -> list[tuple[int, str, str, str]]:
    """The first events of all sessions, in order: when they end, session, sensor and kind."""
    per_s = sum(1_000_000 / PERIOD_US[kind] for _, kind in sensors) * sessions
    until_us = T0_US + round(1_000_000 * count / per_s) + 1
    found = []
    for number in range(sessions):
        for place, (name, kind) in enumerate(sensors):
            period_us = PERIOD_US[kind]
            first_us = T0_US + (number * 7919 + place * 3571) * 1000 % period_us  # not all at the same moment
            found += [(at, f"car-{number}", name, kind) for at in range(first_us, until_us, period_us)]
    return sorted(found)


def records(sensors: Sequence[Sequence[str]], sessions: int, count: int, named: bool, events: Any) -> Iterator[Any]:
    """What the topics hold; ``named``: every record has ``ce_sensor``."""
    table = events.KINDS if hasattr(events, "KINDS") else events.MODALITIES
    kinds, types = [kind.name for kind in table], [kind.ce_type.encode() for kind in table]
    offsets = [0] * len(kinds)
    for at_us, session, sensor, kind in sensed(sensors, sessions, count):
        row = kinds.index(kind)
        log_time_us = (at_us + WAY_US) // 1000 * 1000
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_type", types[row]),
            ("ce_source", f"{session}/{sensor}".encode()),
            ("ce_id", str(offsets[row]).encode()),
            ("ce_time", rfc3339(at_us - LENGTH_US[kind]).encode()),
            ("content-type", CONTENT_TYPES.get(kind, b"application/json")),
            ("ce_sequence", str(offsets[row]).encode()),
        ]
        if named:
            headers.append(("ce_sensor", sensor.encode()))
        yield events.Record(row, 0, offsets[row], log_time_us, session.encode(), PAYLOADS[kind], tuple(headers))
        offsets[row] += 1


async def align(group: Any, store: Forgetting, given: Sequence[Any]) -> int:
    """Take the records as the pump does; returns the number of windows, each of which counts as published at once."""
    windows, rows = 0, range(len(group.next_offset))
    for first in range(0, len(given), CHUNK):
        chunk = given[first : first + CHUNK]
        for record in chunk:
            group.receive(record)
        for row in rows:
            group.merge.advance(row, chunk[-1].log_time_us)  # what a silent topic's answers prove
        more = True
        while more:
            leaving, more = await group.advance(store, CHUNK)
            for item in leaving:
                group.window_done(item)  # a late or refused one would fail here: there is none
                windows += 1
        group.releasable()
    return windows


def main() -> None:
    """Make the records, then answer each line."""
    asked = json.loads(sys.argv[1])
    events, settings = of_tree("streamer.events"), of_tree("streamer.settings").Settings.load()
    decode = of_tree("streamer.align.decode", "streamer.decode")
    groups = of_tree("streamer.align.group", "streamer.group")
    rules = of_tree("streamer.align.windows", "streamer.align").Rules.from_settings(settings)
    metrics = of_tree("streamer.observe.metrics", "streamer.metrics").Metrics()
    given = list(records(**asked, events=events))
    store = Forgetting(events.Stored(None))
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    print(json.dumps({"events": len(given)}), flush=True)
    for _ in sys.stdin:
        decoder = decode.Decoder(settings, 1)
        began_s = time.process_time()
        for record in given:
            decoder.decode(record)
        decode_s = time.process_time() - began_s
        group = groups.PartitionGroup(
            0, decode.Decoder(settings, 1), rules, 1 << 40, metrics, name="bench", committed=False, max_ahead_us=10**9
        )
        gc.collect()
        began_s = time.process_time()
        windows = asyncio.run(align(group, store, given))
        align_s = time.process_time() - began_s
        answer = {"decode_us": 1e6 * decode_s / len(given), "all_us": 1e6 * align_s / len(given), "windows": windows}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
