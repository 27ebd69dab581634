"""What the job must produce, derived from the topics alone, and how an engine's results compare with it.

In a feed without loss nothing is later than every engine waits, so a window's right members are simply all records of
the session that touch it. The last seconds of a session are its run-out: they move event time on, so that engines whose
windows close by it alone can close all before, and are not judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from kafka import TopicPartition

from bench.peers.common import placed, window_end_us
from streamer.align.decode import Decoder
from streamer.clients import kafka as kafka_clients
from streamer.events import EventType, Record
from streamer.settings import Settings
from streamer.store import results

RUN_OUT_US = 5_000_000  # more than GRACE_US and a transcript's length
POLL_MS = 500

Identity = tuple[str, int]  # session, window's end in µs
Members = frozenset[tuple[int, int]]  # (row, offset)


class Verdict(msgspec.Struct, frozen=True):
    """An engine's results against the reference.

    Attributes:
        expected: Windows that are judged.
        lost: Of those, never published.
        doubled: Published more than once.
        wrong: Published with other members than the reference's, at least once.
        right: Published once, with the reference's members.
        unknown: Windows that were published and do not exist.
    """

    expected: int
    lost: int
    doubled: int
    wrong: int
    right: int
    unknown: int


def judge(
    expected: Mapping[Identity, Members], known: set[Identity], found: Mapping[Identity, Sequence[Members]]
) -> Verdict:
    """Hold results to the reference.

    Args:
        known: Windows that exist, those of the run-out too.
        found: For each published window the members of each of its publications.
    """
    return Verdict(
        expected=len(expected),
        lost=sum(window not in found for window in expected),
        doubled=sum(len(found.get(window, ())) > 1 for window in expected),
        wrong=sum(any(said != right for said in found.get(window, ())) for window, right in expected.items()),
        right=sum([*found.get(window, ())] == [right] for window, right in expected.items()),
        unknown=len(found.keys() - known),
    )


def cells(verdicts: Sequence[Verdict]) -> list[str]:
    """Judged, right, lost, doubled, wrong and, if there are any, unknown windows, summed up, for a row of a table."""
    names = ("expected", "right", "lost", "doubled", "wrong")
    sums = [sum(getattr(verdict, name) for verdict in verdicts) for name in names]
    unknown = sum(verdict.unknown for verdict in verdicts)
    said = [f"{count:,}" for count in sums]
    return [*said[:-1], f"{said[-1]}, and {unknown} that do not exist"] if unknown else said


def windows(settings: Settings) -> dict[Identity, Members]:
    """All windows of the topics with their members."""
    decoder = Decoder(settings, settings.partitions)
    found: dict[Identity, set[tuple[int, int]]] = defaultdict(set)
    for record in _records(settings):
        event = decoder.decode(record)
        if event.type is EventType.DATA:
            for at_us in placed(event):
                found[event.session, window_end_us(at_us)].add((record.row, record.offset))
    return {window: frozenset(members) for window, members in found.items()}


def judged(all_windows: Mapping[Identity, Members]) -> dict[Identity, Members]:
    """Those that are not in a session's run-out."""
    last_us: dict[str, int] = defaultdict(int)
    for session, end_us in all_windows:
        last_us[session] = max(last_us[session], end_us)
    return {
        (session, end_us): members
        for (session, end_us), members in all_windows.items()
        if end_us <= last_us[session] - RUN_OUT_US
    }


def published(settings: Settings, sessions: Sequence[str]) -> dict[Identity, list[Members]]:
    """What the sessions' streams in Redis hold."""
    rows = {topic: row for row, topic in enumerate(settings.source_topics)}
    found: dict[Identity, list[Members]] = defaultdict(list)
    with results.connected(settings) as (client, keys):
        for session in sessions:
            for result in results.results(client, keys, session):
                members = (
                    (rows[topic], offset)
                    for topic, spans in result.members.items()
                    for first, last in spans
                    for offset in range(first, last + 1)
                )
                found[session, result.end_us].append(frozenset(members))
    return dict(found)


def _records(settings: Settings) -> Iterator[Record]:
    consumer: Any = kafka_clients.consumer(settings, max_poll_records=2000)
    try:
        places = [TopicPartition(t, p) for t in settings.source_topics for p in range(settings.partitions)]
        rows = {topic: row for row, topic in enumerate(settings.source_topics)}
        consumer.assign(places)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < ends[place] for place in places):
            for batch in consumer.poll(timeout_ms=POLL_MS).values():
                for m in batch:
                    yield Record(
                        rows[m.topic],
                        m.partition,
                        m.offset,
                        m.timestamp * 1000,
                        m.key,
                        m.value or b"",
                        tuple(m.headers),
                    )
    finally:
        consumer.close()
