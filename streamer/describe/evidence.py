"""A window -> what was said in it, read from Kafka; for threads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from streamer.events import TEXT, Event
from streamer.model import payloads
from streamer.result import Result
from streamer.retrieval.contents import Gone, Records, readable

MAX_GAP = 1000  # records between those of two windows; more are not read through, but skipped by another read


class Words(msgspec.Struct, frozen=True):
    """What was said in a window.

    Attributes:
        phrases: In the order of their records; of those with times of words, the words inside the window.
        gone: There were more, which Kafka has deleted.
    """

    phrases: tuple[str, ...] = ()
    gone: bool = False


def words(records: Records, results: Sequence[Result]) -> list[Words]:
    """The words of consecutive windows of one session.

    They are read together, since windows that follow each other have records that do. Only if Kafka has deleted some
    of them is each window read for itself.

    Raises:
        Unavailable: Kafka does not answer in time.
    """
    found: list[Words] = []
    for group in _near(records, results):
        offsets = [range_ for result in group for range_ in records.ranges(result, TEXT)]
        if not offsets:
            found += [Words()] * len(group)
            continue
        try:
            events = records.events(group[0].session, TEXT, offsets)
        except Gone:
            found += [_alone(records, result) for result in group]
        else:
            found += [_said(records, result, events) for result in group]
    return found


def _near(records: Records, results: Sequence[Result]) -> Iterator[list[Result]]:
    """The windows in groups whose records of words lie near each other."""
    group: list[Result] = []
    last = None
    for result in results:
        ranges = records.ranges(result, TEXT)
        if ranges and last is not None and not -MAX_GAP < ranges[0][0] - last < MAX_GAP:
            yield group
            group = []
        group.append(result)
        last = ranges[-1][1] if ranges else last
    if group:
        yield group


def _alone(records: Records, result: Result) -> Words:
    ranges = records.ranges(result, TEXT)
    try:
        return _said(records, result, records.events(result.session, TEXT, ranges) if ranges else ())
    except Gone:
        return Words(gone=True)


def _said(records: Records, result: Result, events: Iterable[Event]) -> Words:
    ranges = records.ranges(result, TEXT)
    own = [event for event in events if any(first <= event.record.offset <= last for first, last in ranges)]
    spoken = readable(own, lambda event: payloads.spoken(event, result.start_us, result.end_us))
    phrases = tuple(" ".join(text.split()) for text, share in spoken if text and share > 0)
    return Words(phrases, gone=bool(ranges) and not own)
