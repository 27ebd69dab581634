"""JSON payloads: transcripts and telemetry blocks, parsed and checked, with their start and length.

Structure, types and bounds are those of ``schemas/transcript.json`` and ``schemas/telemetry.json``, held by the types
in ``events``. What they cannot express is checked here: times in order, words inside their transcript, channels of
equal length, times or a rate. JSON has no NaN, and msgspec refuses numbers that overflow a double, so every number that
gets here is finite.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple, TypeVar

import msgspec

from streamer.errors import BadRecord, Reason
from streamer.events import MAX_OFFSET_S, Telemetry, Transcript

WORD_SLACK_S = 0.001  # word times are rounded by recognisers

_Body = TypeVar("_Body", Transcript, Telemetry)
_transcripts: msgspec.json.Decoder[Transcript] = msgspec.json.Decoder(Transcript)
_telemetry: msgspec.json.Decoder[Telemetry] = msgspec.json.Decoder(Telemetry)


class Span(NamedTuple):
    """Start of a body's content relative to ``ce_time``, and its length, in microseconds."""

    start_us: int
    length_us: int


def transcript(payload: bytes) -> tuple[Transcript, Span]:
    """Parse a transcript. One without an end lasts to the end of its last word, one without words no time at all.

    Raises:
        BadRecord: BAD_JSON if it does not parse, BAD_PAYLOAD if it is no transcript.
    """
    body = _parsed(_transcripts, payload)
    end = max((word.end for word in body.words), default=body.start) if body.end is None else body.end
    span = _span(body.start, end, "transcript")
    for word in body.words:
        _span(word.start, word.end, "a word")
        if word.start < body.start - WORD_SLACK_S or word.end > end + WORD_SLACK_S:
            raise BadRecord(Reason.BAD_PAYLOAD, f"word {word.text[:40]!r} is outside the transcript")
    return body, span


def telemetry(payload: bytes) -> tuple[Telemetry, Span]:
    """Parse a telemetry block.

    A sample stands for the time until the next one: N samples at a rate last N periods; with sample times the last one
    lasts as long as the mean of the others, a lone one no time at all.

    Raises:
        BadRecord: BAD_JSON if it does not parse, BAD_PAYLOAD if it is no telemetry block.
    """
    body = _parsed(_telemetry, payload)
    if (body.times is None) == (body.rate_hz is None):
        raise BadRecord(Reason.BAD_PAYLOAD, "exactly one of times and rate_hz must be given")
    count, *others = {len(channel.values) for channel in body.channels.values()}
    if others:
        raise BadRecord(Reason.BAD_PAYLOAD, "channels must be equally long")
    if body.rate_hz is None:
        return body, _timed(body.times or (), count)
    return body, _span(body.start, body.start + count / body.rate_hz, "telemetry block")


def _timed(times: tuple[float, ...], count: int) -> Span:
    if len(times) != count:
        raise BadRecord(Reason.BAD_PAYLOAD, f"{len(times)} times for {count} samples")
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise BadRecord(Reason.BAD_PAYLOAD, "times must ascend")
    step = (times[-1] - times[0]) / (count - 1) if count > 1 else 0.0
    return _span(times[0], times[-1] + step, "telemetry block")


def _parsed(decoder: msgspec.json.Decoder[_Body], payload: bytes) -> _Body:
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise BadRecord(Reason.BAD_PAYLOAD, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(Reason.BAD_JSON, str(error)) from None


def _span(start: float, end: float, what: str) -> Span:
    if not -MAX_OFFSET_S < start <= end < MAX_OFFSET_S:
        raise BadRecord(Reason.BAD_PAYLOAD, f"{what}: start {start} and end {end} are no span of seconds")
    start_us = round(start * 1_000_000)
    return Span(start_us, round(end * 1_000_000) - start_us)
