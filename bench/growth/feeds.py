"""Feeds of any number, length, frame rate and frame size out of a few simulated drives, cheap to make.

A session repeats a drive of at most ``BASE_S`` with times and sequence numbers moved on; frames of another size are a
few of the drive's, drawn again with more pixels and grain, and take turns.
"""

from __future__ import annotations

import functools
import heapq
import io
import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
from PIL import Image

from bench import rig
from streamer.events import END_TYPE, IMAGE, KINDS
from streamer.feeds import pace, simulate
from streamer.feeds.producer import Outgoing, Producer, end_record, headers
from streamer.settings import Settings

BASE_S, DISTINCT_S = 10, 20  # longest drive that is repeated; length of all distinct ones together, at least
REDRAWN = 2  # frames of another size that take turns
BYTES_A_PIXEL = 0.24  # of a camera's JPEG at 1080p, about 500 KB: what frames of a given size have as resolution
GRAIN = 8.0  # standard deviation of a sensor's noise, grey levels of 255
NEAR = 0.05  # how near a redrawn frame comes to its wanted size, relative
QUALITIES = (5, 98)  # of JPEG
BARRIER_RECORDS = 100  # fewer since the last barrier (``pace.BARRIER_US``) take less time than alignment waits for


class Feed(msgspec.Struct, frozen=True):
    """What is sent.

    Attributes:
        seconds: Length of each session, s.
        frame_hz: Frames a second.
        frame_kb: Size of a frame, 1,000 bytes; ``None`` for frames as simulated.
    """

    sessions: int
    seconds: int
    frame_hz: int = 10
    frame_kb: int | None = None


class Sent(msgspec.Struct, frozen=True):
    """What the topics hold.

    Attributes:
        records, bytes: By modality, in the order of the table; bytes are of payloads.
        header_bytes: Of all keys and headers.
    """

    records: tuple[int, ...]
    bytes: tuple[int, ...]
    header_bytes: int


def drives(feed: Feed) -> list[list[Outgoing]]:
    """The records of each distinct drive without its end, in the order in which they are due; times begin at 0."""
    length_s = min(feed.seconds, BASE_S)
    count = min(feed.sessions, max(rig.DRIVES, DISTINCT_S // length_s))
    found = _drawn(count, length_s, feed.frame_hz)
    return found if feed.frame_kb is None else resized(found, feed.frame_kb * 1000)


@functools.cache
def _drawn(count: int, length_s: int, frame_hz: int) -> list[list[Outgoing]]:
    made = simulate.fleet(count, length_s, 7, 0, "growth", simulate.Options(frame_hz=frame_hz))
    return [[record for record in drive.outgoing() if record.ce_type is None] for drive in made]


def resized(found: Sequence[Sequence[Outgoing]], wanted_bytes: int) -> list[list[Outgoing]]:
    """The same records with frames of another size."""
    frames = [record.payload for record in itertools.chain(*found) if record.row == IMAGE]
    pictures = itertools.cycle([redrawn(frame, wanted_bytes) for frame in frames[:: max(1, len(frames) // REDRAWN)]])
    return [
        [msgspec.structs.replace(r, payload=next(pictures)) if r.row == IMAGE else r for r in records]
        for records in found
    ]


def redrawn(frame: bytes, wanted_bytes: int) -> bytes:
    """A JPEG of about that many bytes that shows the same, with the resolution and the grain of such a camera.

    Raises:
        ValueError: No quality gives that size.
    """
    with Image.open(io.BytesIO(frame)) as small:
        scale = (wanted_bytes / BYTES_A_PIXEL / (small.width * small.height)) ** 0.5
        large = small.resize((round(small.width * scale), round(small.height * scale)), Image.Resampling.BICUBIC)
    noise = GRAIN * np.random.default_rng(3).standard_normal((large.height, large.width, 1), np.float32)
    picture = Image.fromarray(np.clip(np.asarray(large, np.float32) + noise, 0, 255).astype(np.uint8))
    low, high = QUALITIES
    while low <= high:
        quality = (low + high) // 2
        out = io.BytesIO()
        picture.save(out, "JPEG", quality=quality)
        size = out.tell()
        if abs(size / wanted_bytes - 1) <= NEAR:
            return out.getvalue()
        low, high = (quality + 1, high) if size < wanted_bytes else (low, quality - 1)
    raise ValueError(f"no JPEG quality gives {wanted_bytes} bytes")


def stream(feed: Feed, start_us: int) -> Iterator[Outgoing]:
    """All records of all sessions, ends included, in the order in which they are due."""
    bases = drives(feed)
    names = session_names(feed)
    owners = [names[number :: len(bases)] for number in range(len(bases))]
    lines = (_repeated(base, start_us, feed.seconds, own) for base, own in zip(bases, owners, strict=True))
    last_us = start_us
    for outgoing in heapq.merge(*lines, key=lambda outgoing: outgoing.due_us):
        last_us = max(last_us, outgoing.due_us)
        yield outgoing
    for name in names:
        yield end_record(name, start_us + feed.seconds * simulate.S_US, last_us)


def session_names(feed: Feed) -> list[str]:
    """One for each session."""
    return [f"car-{number}" for number in range(feed.sessions)]


def _repeated(base: Sequence[Outgoing], start_us: int, seconds: int, names: Sequence[str]) -> Iterator[Outgoing]:
    """A drive, repeated up to a length, under each of the names; in the order of due times."""
    length_s = min(seconds, BASE_S)
    if seconds % length_s:
        raise ValueError(f"{seconds} s is not a multiple of the {length_s} s of a drive")
    counts = Counter(record.row for record in base)
    moved = (
        [
            msgspec.structs.replace(
                record,
                time_us=record.time_us + start_us + turn * length_s * simulate.S_US,
                due_us=record.due_us + start_us + turn * length_s * simulate.S_US,
                sequence=(record.sequence or 0) + turn * counts[record.row],
            )
            for record in base
        ]
        for turn in range(seconds // length_s)
    )
    # a transcript may be due after the first records of the next turn
    for record in heapq.merge(*moved, key=lambda record: record.due_us):
        for name in names:
            yield msgspec.structs.replace(record, session=name)


def send(settings: Settings, feed: Feed, hop_us: int) -> Sent:
    """Send a feed as fast as Kafka takes it, with times in the past; returns when Kafka has all of it."""
    start_us = pace.start_us(0, feed.seconds * simulate.S_US, hop_us)
    records, sizes, header_bytes = [0] * len(KINDS), [0] * len(KINDS), 0

    def count(outgoing: Outgoing) -> None:
        nonlocal header_bytes
        if outgoing.ce_type is None:
            records[outgoing.row] += 1
            sizes[outgoing.row] += len(outgoing.payload)
        header_bytes += len(outgoing.session) + sum(len(name) + len(value) for name, value in headers(outgoing))

    with Producer(settings) as producer:
        pending = 0

        def flush() -> None:
            nonlocal pending
            if pending >= BARRIER_RECORDS:
                producer.flush()
                pending = 0

        for outgoing in pace.paced(stream(feed, start_us), lambda outgoing: outgoing.due_us, speed=0, flush=flush):
            if outgoing.ce_type == END_TYPE and pending:
                producer.flush()  # ends come last, after everything that they end
                pending = 0
            producer.send(outgoing)
            pending += outgoing.ce_type != END_TYPE
            count(outgoing)
    return Sent(tuple(records), tuple(sizes), header_bytes)
