"""What recognisers have in common: words with times in seconds and with speakers, a text that reads better."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Annotated, Any, NamedTuple

import msgspec

from streamer.feeds.replay.part import S_US
from streamer.feeds.replay.speech.cue import Cue, Spoken, joined

FILLER = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+")  # what recognisers write for silence and noise
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:-[A-Za-z0-9]{2,8})*")  # BCP 47; others write "english"
PUNCTUATION = 8  # letters of the text that may lie between two words
LATEST = 1e9  # seconds or milliseconds; later is no time in a recording

Number = Annotated[float, msgspec.Meta(ge=0, le=LATEST)]


class Timed(NamedTuple):
    """A word of a recogniser, with who said it; without times if it could not tell."""

    text: str
    start_us: int | None
    end_us: int | None
    speaker: str | None = None


def phrase(
    text: str,
    words: Sequence[Timed],
    span_us: tuple[int, int] | None = None,
    language: str | None = None,
    speaker: str | None = None,
) -> Iterator[Cue]:
    """Cues of something said, one for each turn of a speaker.

    Args:
        text: As it is to be read; "": the words one after the other.
        words: Empty, or in order.
        span_us: Start and end, where the recogniser says so apart from its words.
    """
    text = " ".join(text.split())
    words = [word._replace(text=word.text.strip()) for word in words if word.text.strip()]
    words = [word for word in words if not FILLER.fullmatch(word.text)]
    language = language if language and LANGUAGE.fullmatch(language) else None
    if any(word.start_us is None or word.end_us is None for word in words):
        words = _between(words, span_us)
    if words:
        yield from _turns(text, words, language, speaker)
    elif text and span_us is not None and not FILLER.fullmatch(text):
        yield Cue(*span_us, text, (), language, speaker)


def _between(words: Sequence[Timed], span_us: tuple[int, int] | None) -> list[Timed]:
    """Words without times take those that their neighbours leave: WhisperX gives none to numbers."""
    filled: list[Timed] = []
    starts = [word.start_us for word in words if word.start_us is not None and word.end_us is not None]
    if not starts and span_us is None:
        return []
    last_us = starts[0] if span_us is None else span_us[0]
    next_us: list[int] = []  # of each word: where the next one with a time begins
    until_us = span_us[1] if span_us else max(word.end_us for word in words if word.end_us is not None)
    for word in reversed(words):
        next_us.append(until_us)
        until_us = until_us if word.start_us is None else word.start_us
    for word, later_us in zip(words, reversed(next_us), strict=True):
        if word.start_us is None or word.end_us is None:
            word = word._replace(start_us=last_us, end_us=max(last_us, later_us))
        filled.append(word)
        last_us = max(last_us, word.end_us or 0)
    return filled


def _turns(text: str, words: Sequence[Timed], language: str | None, speaker: str | None) -> Iterator[Cue]:
    tokens = text.split()
    if len(tokens) == len(words):  # with the capitals and the punctuation of the text
        words = [word._replace(text=token) for word, token in zip(words, tokens, strict=True)]
    place = 0
    for label, turn in groupby(words, key=lambda word: word.speaker or speaker):
        spoken = []
        for word in turn:
            found = text.find(word.text, place, place + len(word.text) + PUNCTUATION)
            space = found < 1 or text[found - 1].isspace()
            place = found + len(word.text) if found >= 0 else place
            start_us = word.start_us or 0
            spoken.append(Spoken(word.text, start_us, max(start_us, word.end_us or 0), space))
        spoken.sort(key=lambda word: word.start_us)
        last_us = max(word.end_us for word in spoken)
        whole = text if len(spoken) == len(words) and text else joined(spoken)
        yield Cue(spoken[0].start_us, last_us, whole, tuple(spoken), language, label)


def us(seconds: float) -> int:
    """Seconds in microseconds."""
    return round(seconds * S_US)


def maybe_us(seconds: float | None) -> int | None:
    """Seconds in microseconds, if there are any."""
    return None if seconds is None else us(seconds)


def label(speaker: str | int | None) -> str | None:
    """A speaker's label as text."""
    return None if speaker is None or speaker == "" else str(speaker)


def converted(document: Any, kind: Any) -> Any:
    """A document as this type; numbers may be written as text.

    Raises:
        msgspec.ValidationError: It has another form.
    """
    return msgspec.convert(document, kind, strict=False)


def has(document: Any, *names: str) -> bool:
    """Whether it is an object with these fields."""
    return isinstance(document, dict) and all(name in document for name in names)


def listed(document: Any) -> list[Any]:
    """A document, or a list of them, as a list."""
    return document if isinstance(document, list) else [document]
