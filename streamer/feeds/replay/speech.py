"""Transcripts from subtitles and word timings.

A live recogniser sends a phrase when it is said, and windows wait for text only a limited time. A subtitle is shown for
four seconds and more: sent whole at its end, it would be too late for the windows at its start. So long subtitles are
cut into pieces of whole words, each due at its end. Words without times are spread over the subtitle's time in
proportion to their letters; these estimates are not sent as word times.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import msgspec

from streamer.errors import UsageError
from streamer.events import TEXT, Transcript, Word
from streamer.feeds.producer import JSON, Outgoing
from streamer.feeds.replay.part import NO_SESSION, S_US, Options, Part, Reorder

LONGEST_US = 1_500_000  # longest transcript; well within the 2 s that windows wait for text by default
SUFFIXES = (".srt", ".vtt")
WORD_SUFFIX = ".json"
# <i>, <font color=…>, <v Mary>, <00:01.500> and {\an8}
MARKUP = re.compile(r"</?[A-Za-z0-9][^<>]*>|\{\\[^{}]*\}")
DRAWING = re.compile(r"\{[^{}]*\\p[1-9][^{}]*\}")  # Advanced SubStation: what follows are vectors, not words
FILLER = re.compile(r"<.*>|\[.*\]|\+\+.*\+\+")  # what recognisers write for silence and noise
VARIANT = re.compile(r"(?<=.)\(\d+\)$")  # "read(2)": the second pronunciation of a dictionary


class Spoken(NamedTuple):
    """A word with its time."""

    text: str
    start_us: int
    end_us: int


class Cue(NamedTuple):
    """Something said or shown as text in ``[start_us, end_us)``.

    Attributes:
        words: Empty if they have no times.
    """

    start_us: int
    end_us: int
    text: str
    words: tuple[Spoken, ...] = ()
    language: str | None = None


class _Timing(msgspec.Struct):
    """One utterance or word in PocketSphinx's JSON: begin and duration in seconds, text, words."""

    b: float
    d: float
    t: str
    w: tuple[_Timing, ...] = ()


def plain(text: str) -> str:
    """Text of a subtitle without its markup, on one line."""
    if DRAWING.search(text):
        return ""
    text = text.replace("\\N", "\n").replace("\\n", "\n").replace("\\h", " ")
    return " ".join(html.unescape(MARKUP.sub("", text)).split())


def sidecar(path: Path, suffixes: Sequence[str]) -> Path | None:
    """The file beside a recording that has its name and one of these suffixes."""
    for suffix in suffixes:
        beside = path.with_suffix(suffix)
        if beside != path and beside.is_file():
            return beside
    return None


def part(path: Path, options: Options) -> Part:
    """Open subtitles alone, without their film.

    Raises:
        UsageError: The file cannot be read or is not what its name says.
    """
    cues = read(path)
    length_us = max((cue.end_us for cue in cues), default=0)
    return Part(path, length_us, lambda _: transcripts(cues, length_us + 1), frozenset({TEXT}))


def read(path: Path) -> list[Cue]:
    """The cues of a ``.srt``, ``.vtt`` or ``.json`` (word timings) file in order of their start.

    Raises:
        UsageError: The file cannot be read or is not what its name says.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text: convert it, e.g. with iconv") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    reader = {".srt": _srt, ".vtt": _vtt, WORD_SUFFIX: _timings}[path.suffix.lower()]
    cues = [cue for cue in reader(path, text) if cue.text]
    for cue in cues:
        if not 0 <= cue.start_us <= cue.end_us:
            raise UsageError(f"{path}: {cue.text[:40]!r} ends before it begins ({cue.start_us} to {cue.end_us} µs)")
    return sorted(cues)


def _srt(path: Path, text: str) -> Iterator[Cue]:
    import srt

    try:
        for found in srt.parse(text):
            yield Cue(_us(found.start.total_seconds()), _us(found.end.total_seconds()), plain(found.content))
    except srt.SRTParseError as error:
        line = text.count("\n", 0, error.expected_start) + 1
        raise UsageError(f"{path} line {line} is no SubRip subtitle (number, times, text, empty line)") from None


def _vtt(path: Path, text: str) -> Iterator[Cue]:
    import webvtt

    try:
        for found in webvtt.from_buffer(io.StringIO(text)).captions:
            yield Cue(_clock_us(found.start), _clock_us(found.end), plain(found.raw_text))
    except (webvtt.errors.MalformedFileError, webvtt.errors.MalformedCaptionError, ValueError) as error:
        raise UsageError(f"{path} is no WebVTT file: {error}") from None


def _clock_us(text: str) -> int:
    hours, minutes, seconds = text.split(":")
    return _us(int(hours) * 3600 + int(minutes) * 60 + float(seconds))


def _timings(path: Path, text: str) -> Iterator[Cue]:
    """Read an utterance, a list of utterances or words, or one utterance or word a line."""
    try:
        try:
            found = msgspec.json.decode(text, type=_Timing | list[_Timing])
        except msgspec.ValidationError:
            raise
        except msgspec.DecodeError:
            found = [msgspec.json.decode(line, type=_Timing) for line in text.splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise UsageError(
            f'{path} holds no word timings like {{"b": 0.2, "d": 0.3, "t": "word", "w": […]}} in seconds: {error}'
        ) from None
    utterances = found if isinstance(found, list) else [found]
    if utterances and not any(one.w for one in utterances):  # a list of words
        yield _utterance(utterances)
        return
    for one in utterances:
        yield _utterance(one.w or (one,))


def _utterance(timings: Sequence[_Timing]) -> Cue:
    words = []
    for timing in timings:
        word = VARIANT.sub("", timing.t.strip())
        if word and not FILLER.fullmatch(word):
            words.append(Spoken(word, _us(timing.b), _us(timing.b + timing.d)))
    if not words:
        return Cue(0, 0, "")
    words.sort(key=lambda word: word.start_us)
    last_us = max(word.end_us for word in words)
    return Cue(words[0].start_us, last_us, " ".join(word.text for word in words), tuple(words))


def _us(seconds: float) -> int:
    return round(seconds * S_US)


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
    words = cue.words or _spread(cue)
    group: list[Spoken] = []
    for word in words:
        if group and word.end_us - group[0].start_us > LONGEST_US:
            yield from _piece(cue, group)
            group = []
        group.append(word)
    yield from _piece(cue, group)


def _spread(cue: Cue) -> list[Spoken]:
    words = cue.text.split()
    letters = [len(word) + 1 for word in words]
    spread, before = [], 0
    for word, length in zip(words, letters, strict=True):
        span_us = cue.end_us - cue.start_us
        begin, end = (cue.start_us + span_us * part // sum(letters) for part in (before, before + length))
        spread.append(Spoken(word, begin, end))
        before += length
    return spread


def _piece(cue: Cue, group: Sequence[Spoken]) -> Iterator[Cue]:
    start_us, end_us = group[0].start_us, max(word.end_us for word in group)
    text = " ".join(word.text for word in group)
    parts = -(-(end_us - start_us) // LONGEST_US)
    if parts <= 1:
        yield Cue(start_us, end_us, text, tuple(group) if cue.words else (), cue.language)
        return
    borders = [start_us + (end_us - start_us) * part // parts for part in range(parts + 1)]
    for begin, end in pairwise(borders):
        yield Cue(begin, end, text, language=cue.language)


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
    )
    return Outgoing(TEXT, NO_SESSION, cue.start_us, msgspec.json.encode(body), JSON, end_us)
