"""Cues, something said or shown as text with its time, and the transcripts that are sent of them.

A live recogniser sends a phrase when it is said, and windows wait for text only a limited time. A subtitle is shown for
four seconds and more: sent whole at its end, it would be too late for the windows at its start. So long cues are cut
into pieces of whole words, each due at its end. Words without times are spread over the cue's time in proportion to
their letters; these estimates are not sent as word times.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from streamer.events import TEXT, Transcript, Word
from streamer.feeds.producer import JSON, Outgoing
from streamer.feeds.replay.part import NO_SESSION, S_US, Reorder

LONGEST_US = 1_500_000  # longest transcript; well within the 2 s that windows wait for text by default


class Spoken(NamedTuple):
    """A word with its time.

    Attributes:
        space: Whether a space divides it from the word before; Chinese and Japanese have none.
    """

    text: str
    start_us: int
    end_us: int
    space: bool = True


class Cue(NamedTuple):
    """Something said or shown as text in ``[start_us, end_us)``.

    Attributes:
        words: Empty if they have no times.
        language: BCP 47 tag.
        speaker: Label of who said it, as the file has it.
    """

    start_us: int
    end_us: int
    text: str
    words: tuple[Spoken, ...] = ()
    language: str | None = None
    speaker: str | None = None


def by_time(cue: Cue) -> tuple[int, int]:
    """Key for sorting."""
    return cue.start_us, cue.end_us


def joined(words: Iterable[Spoken]) -> str:
    """The text of words."""
    return "".join(f" {word.text}" if word.space else word.text for word in words).strip()


def transcripts(cues: Iterable[Cue], end_us: int) -> Iterator[Outgoing]:
    """Transcripts in due order, from cues in order of their start.

    Args:
        end_us: End of the recording; later text is cut off, since there is nothing to align it with.
    """
    waiting = Reorder()
    for cue in cues:
        if cue.start_us >= end_us:
            continue
        yield from waiting.until(cue.start_us)
        for piece in pieces(cue):
            if piece.start_us < end_us:
                waiting.push(_transcript(piece, end_us))
    yield from waiting.rest()


def pieces(cue: Cue) -> Iterator[Cue]:
    """Cut a cue that is longer than ``LONGEST_US`` into shorter pieces of whole words.

    A single word shown for longer, such as "[music]", is repeated for as long as it is shown.
    """
    if cue.end_us - cue.start_us <= LONGEST_US:
        yield cue
        return
    words = cue.words or spread(cue)
    group: list[Spoken] = []
    for word in words:
        if group and word.end_us - group[0].start_us > LONGEST_US:
            yield from _piece(cue, group)
            group = []
        group.append(word)
    yield from _piece(cue, group)


def spread(cue: Cue) -> list[Spoken]:
    """The words of a cue with times in proportion to their letters."""
    words = cue.text.split()
    letters = [len(word) + 1 for word in words]
    timed, before = [], 0
    for word, length in zip(words, letters, strict=True):
        span_us = cue.end_us - cue.start_us
        begin, end = (cue.start_us + span_us * part // sum(letters) for part in (before, before + length))
        timed.append(Spoken(word, begin, end))
        before += length
    return timed


def _piece(cue: Cue, group: Sequence[Spoken]) -> Iterator[Cue]:
    start_us, end_us = group[0].start_us, max(word.end_us for word in group)
    text = joined(group)
    parts = -(-(end_us - start_us) // LONGEST_US)
    if parts <= 1:
        yield cue._replace(start_us=start_us, end_us=end_us, text=text, words=tuple(group) if cue.words else ())
        return
    borders = [start_us + (end_us - start_us) * part // parts for part in range(parts + 1)]
    for begin, end in pairwise(borders):
        yield cue._replace(start_us=begin, end_us=end, text=text, words=())


def _transcript(cue: Cue, latest_us: int) -> Outgoing:
    end_us = min(cue.end_us, latest_us)
    body = Transcript(
        cue.text,
        end=(end_us - cue.start_us) / S_US,
        words=tuple(
            Word(word.text, (word.start_us - cue.start_us) / S_US, (min(word.end_us, end_us) - cue.start_us) / S_US)
            for word in cue.words
            if word.start_us < end_us
        ),
        language=cue.language,
        speaker=cue.speaker,
    )
    return Outgoing(TEXT, NO_SESSION, cue.start_us, msgspec.json.encode(body), JSON, end_us)
