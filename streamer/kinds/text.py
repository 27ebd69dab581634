"""Text: transcripts, of what was said or written. Their time is inside, so alignment parses them."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from streamer.errors import BadRecord, Reason
from streamer.kinds.bodies import Seconds, Share, Span, TimedKind, parsed, spanned
from streamer.kinds.kind import KindOfInput

WORD_SLACK_S = 0.001  # word times are rounded by recognisers


class TextInput(KindOfInput, frozen=True, tag="text"):
    """The words of the window, at most ``max_tokens``."""

    max_tokens: int


class Word(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A word of a transcript; times in seconds relative to the transcript's ``ce_time``."""

    text: str
    start: Seconds
    end: Seconds


class Transcript(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Payload of ``streamer.transcript.v1``; times in seconds relative to ``ce_time``."""

    text: str
    start: Seconds = 0.0
    end: Seconds | None = None
    words: tuple[Word, ...] = ()
    language: str | None = None
    confidence: Share | None = None
    speaker: str | None = None


_transcripts: msgspec.json.Decoder[Transcript] = msgspec.json.Decoder(Transcript)


def parse_transcript(payload: bytes) -> tuple[Transcript, Span]:
    """Parse a transcript. One without an end lasts to the end of its last word, one without words no time at all.

    Raises:
        BadRecord: BAD_JSON if it does not parse, BAD_PAYLOAD if it is no transcript.
    """
    body = parsed(_transcripts, payload)
    end = max((word.end for word in body.words), default=body.start) if body.end is None else body.end
    span = spanned(body.start, end, "transcript")
    for word in body.words:
        spanned(word.start, word.end, "a word")
        if word.start < body.start - WORD_SLACK_S or word.end > end + WORD_SLACK_S:
            raise BadRecord(Reason.BAD_PAYLOAD, f"word {word.text[:40]!r} is outside the transcript")
    return body, span


class Text(TimedKind):
    """See the module."""

    name = "text"
    topic = "transcripts"
    ce_type = "streamer.transcript.v1"
    content_types = ("application/json",)
    input = TextInput
    rules: ClassVar = {"max_delay_ms": 2000, "idle_after_ms": None}  # speech recognition is late, and people pause
    model = "streamer.model.kinds.text:Words"
    column = "streamer.training.data.columns:Texts"
    parse = staticmethod(parse_transcript)
