"""Payload bytes -> arrays: the only code that opens frames, audio and claim checks, with ``pictures`` and ``sounds``.

Any fault of a payload raises ``BadRecord`` for that one record. Sizes are read from headers and checked before a pixel
or a sample is decoded, so that a small record cannot demand a large buffer.
"""

from __future__ import annotations

import re

import fsspec
import numpy as np
import soundfile
from numpy.typing import NDArray
from PIL import Image

from streamer.errors import BadRecord, LeftBehind, Reason, one_line
from streamer.events import Event, Telemetry, Transcript
from streamer.kinds.telemetry import parse_telemetry
from streamer.kinds.text import parse_transcript
from streamer.model import pictures, sounds
from streamer.model.sounds import Excerpt

MAX_DATAREF_BYTES = 64 << 20  # a claim check is for payloads too large for a record, not for files of any size
MAX_JSON_BYTES = 8 << 20
BUFFER = re.compile(r"<_io\.BytesIO object at 0x[0-9a-f]+>")


def payload(event: Event) -> bytes:
    """The event's payload: the record's value, or what its ``dataref`` points to (decode has checked the prefix).

    Raises:
        BadRecord: The reference cannot be fetched, is larger than MAX_DATAREF_BYTES or leaves its prefix.
        LeftBehind: The payload is still in its source topic.
    """
    if event.left_behind:
        raise LeftBehind(f"row {event.row} offset {event.record.offset}")
    if event.lost:
        raise BadRecord(Reason.BAD_PAYLOAD, "its source topic no longer had the record when its window needed it")
    if event.dataref is None:
        return event.record.value
    url = event.dataref
    if "::" in url or ".." in url.split("/"):  # fsspec chains protocols at "::"; both would escape the allowed prefix
        raise BadRecord(Reason.DATAREF_REFUSED, f"dataref {url!r} must be a plain URL without '..' or '::'")
    try:
        with fsspec.open(url, "rb", **_options(url)) as file:
            content: bytes = file.read(MAX_DATAREF_BYTES + 1)
    except Exception as error:  # every fsspec backend has its own errors, without a common root
        raise BadRecord(Reason.BAD_PAYLOAD, f"dataref {url!r} cannot be read: {_line(error)}") from error
    if len(content) > MAX_DATAREF_BYTES:
        raise BadRecord(Reason.BAD_PAYLOAD, f"dataref {url!r} is larger than {MAX_DATAREF_BYTES} bytes")
    return content


def _options(url: str) -> dict[str, int]:
    """Options that forbid redirects, which could leave the allowed prefix; aiohttp counts the first response too."""
    return {"max_redirects": 1} if url.startswith(("http://", "https://")) else {}


def _json(event: Event) -> bytes:
    """A body that came by claim check; limited, since a parsed number takes many times the memory of its text."""
    content = payload(event)
    if len(content) > MAX_JSON_BYTES:
        raise BadRecord(Reason.BAD_PAYLOAD, f"dataref {event.dataref!r} holds more than {MAX_JSON_BYTES} bytes of JSON")
    return content


def transcript(event: Event) -> Transcript:
    """The event's transcript; parsed here only if it came by claim check or in a window record."""
    return event.body if isinstance(event.body, Transcript) else parse_transcript(_json(event))[0]


def spoken(event: Event, start_us: int, end_us: int) -> tuple[str, float]:
    """What of a transcript was said in ``[start_us, end_us)``, and how much of its text that is: a share, 0 to 1.

    Words with times belong where their middle is, so that each is in one window; without times, all of the text is
    given, with the share of its time.
    """
    body = transcript(event)
    if body.words:
        begin_us = origin_us(event, body.start)
        middles_us = (begin_us + round((word.start + word.end) * 0.5e6) for word in body.words)
        inside = (word.text.strip() for word, at in zip(body.words, middles_us, strict=True) if start_us <= at < end_us)
        return " ".join(inside).strip(), 1.0
    shared_us = min(event.end_us, end_us) - max(event.start_us, start_us)
    overlap = shared_us / (event.end_us - event.start_us) if event.end_us > event.start_us else 1.0
    return body.text.strip(), overlap


def telemetry(event: Event) -> Telemetry:
    """The event's telemetry block; parsed here only if it came by claim check or in a window record."""
    return event.body if isinstance(event.body, Telemetry) else parse_telemetry(_json(event))[0]


def sample_times_us(event: Event, body: Telemetry, since_us: int) -> NDArray[np.float64]:
    """When each sample of a telemetry block was taken, in microseconds after ``since_us``.

    Returns:
        float64 [samples].

    Raises:
        BadRecord: Times and values do not belong together.
    """
    count = max((len(channel.values) for channel in body.channels.values()), default=0)
    times_s = _times_s(body, count)
    return times_s * 1e6 + (origin_us(event, times_s[0] if times_s.size else 0.0) - since_us)


def _times_s(body: Telemetry, count: int) -> NDArray[np.float64]:
    """Times of a block's samples, relative to its ``ce_time``."""
    if body.times is not None:
        if len(body.times) != count:
            raise BadRecord(Reason.BAD_PAYLOAD, f"telemetry has {len(body.times)} times for {count} samples")
        return np.array(body.times, np.float64)
    if body.rate_hz is None or body.rate_hz <= 0:
        raise BadRecord(Reason.BAD_PAYLOAD, "telemetry needs times or a rate_hz above 0")
    return body.start + np.arange(count, dtype=np.float64) / body.rate_hz


def origin_us(event: Event, first_s: float) -> int:
    """The event's ``ce_time``, to which the times in its body are relative.

    Decoding moved the event's start to the body's first time, except for a claim check, whose body it did not have.
    """
    return event.start_us if event.dataref is not None else event.start_us - round(first_s * 1e6)


def image(event: Event, height: int, width: int, max_pixels: int) -> NDArray[np.uint8]:
    """Decode one frame to RGB of exactly ``height`` × ``width``, upright; the aspect ratio is not kept.

    Returns:
        uint8 [height, width, 3].

    Raises:
        BadRecord: IMAGE_BOMB if the header says more than ``max_pixels``, BAD_PAYLOAD if it does not decode, or not the
            whole of it.
    """
    content = payload(event)
    try:
        return pictures.decode(content, event.media_type, height, width, max_pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRecord(Reason.IMAGE_BOMB, _line(error)) from error
    except (ValueError, OSError, SyntaxError, MemoryError) as error:  # SyntaxError: Pillow's error for a broken PNG
        raise BadRecord(Reason.BAD_PAYLOAD, f"{event.media_type} does not decode: {_line(error)}") from error


def audio(event: Event, start_us: int, end_us: int) -> Excerpt:
    """Decode the part of an audio chunk in ``[start_us, end_us)``, mixed to mono; the rest is not decoded.

    Sample i of a chunk is at ``event.start_us + i / rate``. What a payload has beyond its event's end is left out.

    Raises:
        BadRecord: BAD_PAYLOAD if it does not decode, holds no samples although the event has a length, or its rate is
            out of range.
    """
    content = payload(event)
    try:
        return sounds.excerpt(event, content, start_us, end_us)
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        raise BadRecord(Reason.BAD_PAYLOAD, f"{event.media_type} does not decode: {_line(error)}") from error


def _line(error: BaseException) -> str:
    """An error as one line, without the address of the buffer that libraries put into it."""
    return BUFFER.sub("the payload", one_line(error))
