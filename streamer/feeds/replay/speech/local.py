"""JSON of recognisers that run on one's own machine."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from streamer.feeds.replay.part import MS_US
from streamer.feeds.replay.speech.cue import Cue
from streamer.feeds.replay.speech.phrase import Number, Timed, converted, has, label, listed, maybe_us, phrase, us

VARIANT = re.compile(r"(?<=.)\(\d+\)$")  # PocketSphinx: "read(2)", the second pronunciation of a dictionary
SPECIAL = re.compile(r"\[_.*\]|<\|.*\|>|\s*\[SPEAKER_TURN\]")  # tokens of whisper.cpp that are no text
UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uff66-\uff9f]")  # Japanese, Chinese: every token is a word


# PocketSphinx


class _Sphinx(msgspec.Struct):
    """An utterance or word: begin and duration in seconds, text, words."""

    b: Number
    d: Number
    t: str
    w: tuple[_Sphinx, ...] = ()


def is_pocketsphinx(document: Any) -> bool:
    """Whether it is of PocketSphinx."""
    return all(has(one, "b", "d", "t") for one in listed(document))


def pocketsphinx(document: Any) -> Iterator[Cue]:
    """An utterance, a list of utterances or of words."""
    found: list[_Sphinx] = converted(listed(document), list[_Sphinx])
    if not any(one.w for one in found):
        yield from phrase("", [_sphinx_word(one) for one in found])
        return
    for one in found:
        yield from phrase("", [_sphinx_word(word) for word in one.w or (one,)])


def _sphinx_word(one: _Sphinx) -> Timed:
    return Timed(VARIANT.sub("", one.t.strip()), us(one.b), us(one.b + one.d))


# Whisper, faster-whisper, WhisperX


class _WhisperWord(msgspec.Struct):
    word: str
    start: Number | None = None
    end: Number | None = None
    speaker: str | int | None = None


class _WhisperSegment(msgspec.Struct):
    start: Number
    end: Number
    text: str
    words: list[_WhisperWord] | None = None
    speaker: str | int | None = None


class _Whisper(msgspec.Struct):
    segments: list[_WhisperSegment] = []
    words: list[_WhisperWord] | None = None
    text: str = ""
    language: str | None = None


def is_whisper(document: Any) -> bool:
    """Whether it is of Whisper or a relative: an object with segments or words, or a list of segments."""
    if isinstance(document, list):
        return all(has(one, "start", "end", "text") for one in document)
    if has(document, "segments"):
        return bool(document["segments"] == []) or is_whisper(document["segments"])
    return has(document, "text", "words") and all(has(one, "word", "start", "end") for one in listed(document["words"]))


def whisper(document: Any) -> Iterator[Cue]:
    """Segments, with words if they were asked for."""
    found: _Whisper = converted({"segments": document} if isinstance(document, list) else document, _Whisper)
    if found.words and not any(segment.words for segment in found.segments):
        yield from phrase(found.text, [_whisper_word(word) for word in found.words], language=found.language)
        return
    for segment in found.segments:
        words = [_whisper_word(word) for word in segment.words or ()]
        span_us = (us(segment.start), us(segment.end))
        yield from phrase(segment.text, words, span_us, found.language, label(segment.speaker))


def _whisper_word(word: _WhisperWord) -> Timed:
    return Timed(word.word, maybe_us(word.start), maybe_us(word.end), label(word.speaker))


# whisper.cpp


class _Offsets(msgspec.Struct):
    start: Number = msgspec.field(name="from")
    end: Number = msgspec.field(name="to")


class _CppToken(msgspec.Struct):
    text: str
    offsets: _Offsets | None = None


class _CppSegment(msgspec.Struct):
    offsets: _Offsets
    text: str
    tokens: list[_CppToken] = []
    speaker: str | None = None


class _CppResult(msgspec.Struct):
    language: str | None = None


class _Cpp(msgspec.Struct):
    transcription: list[_CppSegment]
    result: _CppResult = msgspec.field(default_factory=_CppResult)


def is_whisper_cpp(document: Any) -> bool:
    """Whether it is of whisper.cpp."""
    return has(document, "transcription") and all(
        has(one, "offsets", "text") for one in listed(document["transcription"])
    )


def whisper_cpp(document: Any) -> Iterator[Cue]:
    """Segments; in the full form with their tokens."""
    found: _Cpp = converted(document, _Cpp)
    for segment in found.transcription:
        span_us = (round(segment.offsets.start * MS_US), round(segment.offsets.end * MS_US))
        speaker = segment.speaker if segment.speaker != "?" else None
        text = SPECIAL.sub("", segment.text)
        yield from phrase(text, _cpp_words(segment.tokens), span_us, found.result.language, label(speaker))


def _cpp_words(tokens: Sequence[_CppToken]) -> list[Timed]:
    """Tokens are parts of words; a word begins with a space."""
    words: list[Timed] = []
    for token in tokens:
        if SPECIAL.fullmatch(token.text) or token.offsets is None:
            continue
        start_us, end_us = round(token.offsets.start * MS_US), round(token.offsets.end * MS_US)
        if not words or token.text[:1].isspace() or UNSPACED.match(token.text):
            words.append(Timed(token.text, start_us, end_us))
        else:
            words[-1] = words[-1]._replace(text=words[-1].text + token.text, end_us=end_us)
    return words


# Vosk


class _VoskWord(msgspec.Struct):
    word: str
    start: Number
    end: Number


class _VoskResult(msgspec.Struct):
    text: str = ""
    result: list[_VoskWord] = []


class _Vosk(_VoskResult):
    alternatives: list[_VoskResult] = []


def vosk(document: Any) -> Iterator[Cue]:
    """Results; those that are only partial have another field."""
    for found in converted(listed(document), list[_Vosk]):
        best = found.alternatives[0] if found.alternatives else found
        yield from phrase(best.text, [Timed(word.word, us(word.start), us(word.end)) for word in best.result])


def is_vosk(document: Any) -> bool:
    """Whether it is of Vosk: results, final or partial."""
    return all(
        has(one, "result", "text") or has(one, "alternatives") or has(one, "partial") or one == {"text": ""}
        for one in listed(document)
    )


# words alone


class _Word(msgspec.Struct):
    word: str
    start: Number
    end: Number
    speaker: str | int | None = None


def is_word_list(document: Any) -> bool:
    """Whether it is a list of words with times: what Vosk, WhisperX and others have inside their results."""
    return isinstance(document, list) and all(has(one, "word", "start", "end") for one in document)


def word_list(document: Any) -> Iterator[Cue]:
    """One phrase, cut where the speaker changes."""
    words: list[_Word] = converted(document, list[_Word])
    yield from phrase("", [Timed(word.word, us(word.start), us(word.end), label(word.speaker)) for word in words])
