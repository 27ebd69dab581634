"""What lies on the windows topic, read without the code under test: which windows, in which order, how many done.

With roles a source record is done when its windows are on the windows topic, and a record of that topic when its window
is in Redis. The verifier asks of a snapshot what was published at some moment; here that is what was handed over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from streamer.settings import Settings
from tests import harness
from tests.faults import verifier
from tests.faults.verifier import Snapshot
from tests.harness import wait_for


class Handover(NamedTuple):
    """A record of the windows topic."""

    partition: int
    offset: int
    session: str
    end_us: int
    members: frozenset[tuple[str, int]]  # modality and offset


def topic(settings: Settings) -> str:
    return f"{settings.topic_prefix}.windows"


def read(settings: Settings) -> list[Handover]:
    """All closed windows that were handed over, in the order of the log; early runs promise nothing."""
    records = harness.read_topic(settings, topic(settings))
    windows = [(record, msgspec.msgpack.decode(record.value)) for record in records]
    return [_handover(record, window) for record, window in windows if window["closed_by"] != "open"]


def _handover(record: Any, window: dict[str, Any]) -> Handover:
    members = frozenset((name, member["offset"]) for name, group in window["members"].items() for member in group)
    return Handover(record.partition, record.offset, record.key.decode(), window["end_us"], members)


def committed(settings: Settings) -> dict[int, int]:
    """Offsets that role infer has committed, by partition."""
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka, group_id=f"{settings.group}-infer", enable_auto_commit=False
    )
    try:
        name = topic(settings)
        return {p: consumer.committed(TopicPartition(name, p)) or 0 for p in consumer.partitions_for_topic(name) or ()}
    finally:
        consumer.close()


def snapshot(settings: Settings) -> Snapshot:
    """What is committed now, then what is done now; a commit of role infer past an unpublished window fails at once."""
    windows = committed(settings)
    whole = verifier.snapshot(settings)
    handed_over: dict[str, int] = {}
    for handover in read(settings):
        handed_over[handover.session] = max(handover.end_us, handed_over.get(handover.session, 0))
        if handover.offset < windows.get(handover.partition, 0):
            published_us = whole.published_end_us.get(handover.session, 0)
            assert handover.end_us <= published_us, f"{handover} is committed, but not published"
    return Snapshot(whole.committed, handed_over, whole.side_ends)


def wait_until_committed(settings: Settings, within_s: float, why: Callable[[], str]) -> None:
    """Role infer is done with everything that was handed over."""
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False)
    try:
        name = topic(settings)
        partitions = [TopicPartition(name, p) for p in consumer.partitions_for_topic(name) or ()]
        ends = {tp.partition: end for tp, end in consumer.end_offsets(partitions).items()}
    finally:
        consumer.close()

    def done() -> bool:
        try:
            found = committed(settings)
        except KafkaError:  # the broker has just come back
            return False
        return all(found.get(p, 0) >= end for p, end in ends.items())

    wait_for(done, within_s, why)


def repeated(handovers: Sequence[Handover]) -> int:
    """How many came again; each as it was, and none that is new after a newer one of its session.

    Raises:
        AssertionError: A repetition has other members, or a window came too late to be published.
    """
    first: dict[tuple[str, int], Handover] = {}
    newest: dict[str, int] = {}
    again = 0
    for handover in handovers:
        key = handover.session, handover.end_us
        if key in first:
            again += 1
            assert handover.members == first[key].members, f"{handover} is not {first[key]}"
            continue
        assert handover.end_us > newest.get(handover.session, 0), f"{handover} comes after a newer one"
        first[key] = handover
        newest[handover.session] = handover.end_us
    return again
