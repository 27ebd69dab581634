"""Sending a feed at the pace of its due times, faster, or as fast as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from time import monotonic, sleep, time_ns
from typing import TypeVar

from streamer.events import END_TYPE
from streamer.feeds.producer import Outgoing, Producer

# At full speed topics fill independently: one modality may be seconds ahead of another in Kafka, and alignment, which
# waits in broker append time, would find the other late. A flush this often (in due time) keeps them close.
BARRIER_US = 200_000

Sent = TypeVar("Sent")


def paced(
    stream: Iterable[Sent], due_us: Callable[[Sent], int], *, speed: float, flush: Callable[[], None]
) -> Iterator[Sent]:
    """Yield each record when it is due.

    Args:
        stream: Records in ascending order of ``due_us``.
        due_us: When a record should be sent.
        speed: 1: as recorded, 2: twice as fast; 0: as fast as possible.
        flush: Waits until Kafka has everything that was sent.
    """
    first_us: int | None = None
    barrier_us = 0
    began_s = monotonic()
    for record in stream:
        at_us = due_us(record)
        if first_us is None:
            first_us = barrier_us = at_us
        if speed > 0:
            wait_s = began_s + (at_us - first_us) / 1e6 / speed - monotonic()
            if wait_s > 0:
                sleep(wait_s)
        elif at_us - barrier_us >= BARRIER_US:
            flush()
            barrier_us = at_us
        yield record


def send(
    stream: Iterable[Outgoing],
    producer: Producer,
    *,
    speed: float,
    on_sent: Callable[[Outgoing], None] | None = None,
) -> int:
    """Send records in the given order, each when it is due; see :func:`paced`.

    Returns:
        The number of records sent; Kafka has all of them.
    """
    count = 0
    for outgoing in paced(stream, lambda outgoing: outgoing.due_us, speed=speed, flush=producer.flush):
        if outgoing.ce_type == END_TYPE:
            producer.flush()  # an end must come after everything that it ends
        producer.send(outgoing)
        count += 1
        if on_sent is not None:
            on_sent(outgoing)
    producer.flush()
    return count


def start_us(speed: float, length_us: int, hop_us: int) -> int:
    """Event time at which a feed of this length should begin, on a window border.

    In real time or slower it begins at the next border from now. A faster feed's event times would run ahead of the
    broker's clock and be refused (``max_ahead_ms``), so it is placed in the past, to end before now.
    """
    now_us = time_ns() // 1000
    if 0 < speed <= 1:
        return -(-now_us // hop_us) * hop_us
    return (now_us - length_us) // hop_us * hop_us
