"""Payloads that are JSON: parsed and checked, with their start and length.

Structure, types and bounds are those of ``schemas/transcript.json`` and ``schemas/telemetry.json``, held by the types
in ``text`` and ``telemetry``, so that schemas and decoding cannot drift apart. They are checked when a payload is
decoded, not when a struct is made in Python. JSON has no NaN, and msgspec refuses numbers that overflow a double, so
every number that gets through is finite.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar

import msgspec

from streamer.errors import BadRecord, Reason
from streamer.kinds.kind import Kind, KindOfInput, Read

if TYPE_CHECKING:
    from streamer.events import Event, Window

MAX_OFFSET_S = 1e9  # seconds from ce_time; more is a mistake, and microseconds stay exact in a double
Seconds = Annotated[float, msgspec.Meta(gt=-MAX_OFFSET_S, lt=MAX_OFFSET_S)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
RateHz = Annotated[float, msgspec.Meta(gt=0)]

_Body = TypeVar("_Body")


class Span(NamedTuple):
    """Start of a body's content relative to ``ce_time``, and its length, in microseconds."""

    start_us: int
    length_us: int


def parsed(decoder: msgspec.json.Decoder[_Body], payload: bytes) -> _Body:
    """A body.

    Raises:
        BadRecord: BAD_JSON if it does not parse, BAD_PAYLOAD if it is not of the decoder's type.
    """
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise BadRecord(Reason.BAD_PAYLOAD, str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadRecord(Reason.BAD_JSON, str(error)) from None


def spanned(start: float, end: float, what: str) -> Span:
    """The span between two times in seconds.

    Raises:
        BadRecord: They are none.
    """
    if not -MAX_OFFSET_S < start <= end < MAX_OFFSET_S:
        raise BadRecord(Reason.BAD_PAYLOAD, f"{what}: start {start} and end {end} are no span of seconds")
    start_us = round(start * 1_000_000)
    return Span(start_us, round(end * 1_000_000) - start_us)


class TimedKind(Kind):
    """A kind whose payloads are bodies that tell their own time, so alignment parses them."""

    @staticmethod
    @abstractmethod
    def parse(payload: bytes) -> tuple[Any, Span]:
        """A body and when its content is.

        Raises:
            BadRecord: It is none.
        """

    def read(self, payload: bytes | None, media_type: str, params: Mapping[str, str], said_us: int | None) -> Read:
        if payload is None:
            return Read(None, 0, said_us)
        body, span = self.parse(payload)
        return Read(body, span.start_us, span.length_us if said_us is None else said_us)

    def opened(self, window: Window, events: Sequence[Event], wanted: KindOfInput | None) -> tuple[bool, ...]:
        return (True,) * len(events)  # what is in the body alone tells whether any of it is in the window
