"""Annotations of a recording, such as beats, sleep stages and remarks of a nurse, as words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.speech import LONGEST_US, Cue, Spoken, transcripts


class Label(NamedTuple):
    """A text that belongs to the stretch ``[start_us, end_us)`` of a recording, or to a moment of it."""

    start_us: int
    end_us: int
    text: str


def words(labels: Iterable[Label], end_us: int) -> Iterator[Outgoing]:
    """Transcripts in due order; a label that is longer than windows wait for text is repeated for as long as it holds.

    Args:
        labels: In order of their start.
        end_us: End of the recording; what is later is cut off.
    """
    return transcripts((_cue(label) for label in labels), end_us)


def _cue(label: Label) -> Cue:
    whole = (Spoken(label.text, label.start_us, label.end_us),)  # one word: it is repeated, and not cut
    return Cue(*label, whole if label.end_us - label.start_us > LONGEST_US else ())
