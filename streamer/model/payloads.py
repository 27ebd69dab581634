"""Payload bytes -> arrays: the only code that opens frames, audio and claim checks.

Any fault of a payload raises ``BadRecord`` for that one record. Sizes are read from headers and checked before a pixel
or a sample is decoded, so that a small record cannot demand a large buffer.
"""

from __future__ import annotations

import io
import re

import fsspec
import msgspec
import numpy as np
import simplejpeg
import soundfile
from numpy.typing import NDArray
from PIL import Image

from streamer.align import bodies
from streamer.errors import BadRecord, LeftBehind, Reason, one_line
from streamer.events import Event, Telemetry, Transcript

MAX_DATAREF_BYTES = 64 << 20  # a claim check is for payloads too large for a record, not for files of any size
MIN_AUDIO_RATE_HZ, MAX_AUDIO_RATE_HZ = 1_000, 384_000  # what microphones give; a buffer's size follows from it
MAX_AUDIO_CHANNELS = 64
MAX_AUDIO_VALUES = 32 << 20  # largest number of samples, over all channels, of one window: 128 MiB as float32
MAX_JSON_BYTES = 8 << 20
INT16_SCALE = 1.0 / 32768.0  # full scale of 16-bit samples -> [-1, 1)
BUFFER = re.compile(r"<_io\.BytesIO object at 0x[0-9a-f]+>")
PILLOW_FORMATS = {"image/png": "PNG", "image/webp": "WEBP", "image/jpeg": "JPEG"}


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
    return event.body if isinstance(event.body, Transcript) else bodies.transcript(_json(event))[0]


def telemetry(event: Event) -> Telemetry:
    """The event's telemetry block; parsed here only if it came by claim check or in a window record."""
    return event.body if isinstance(event.body, Telemetry) else bodies.telemetry(_json(event))[0]


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
    """Decode one frame to RGB of exactly ``height`` × ``width``; the aspect ratio is not kept.

    JPEG is scaled in the DCT domain by libjpeg-turbo to the smallest size not below the wanted one.

    Returns:
        uint8 [height, width, 3].

    Raises:
        BadRecord: IMAGE_BOMB if the header says more than ``max_pixels``, BAD_PAYLOAD if it does not decode.
    """
    content = payload(event)
    try:
        decode = _jpeg if event.media_type == "image/jpeg" else _pillow
        frame_HW3 = decode(content, event.media_type, height, width, max_pixels)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRecord(Reason.IMAGE_BOMB, _line(error)) from error
    except (ValueError, OSError, SyntaxError, MemoryError) as error:  # SyntaxError: Pillow's error for a broken PNG
        raise BadRecord(Reason.BAD_PAYLOAD, f"{event.media_type} does not decode: {_line(error)}") from error
    if frame_HW3.shape[:2] != (height, width):
        frame_HW3 = np.asarray(Image.fromarray(frame_HW3).resize((width, height), Image.Resampling.BOX))
    return frame_HW3


def _jpeg(content: bytes, media_type: str, height: int, width: int, max_pixels: int) -> NDArray[np.uint8]:
    rows, columns, colour, _ = simplejpeg.decode_jpeg_header(content)
    _check_pixels(rows, columns, max_pixels)
    if colour not in ("RGB", "YCbCr", "Gray"):  # CMYK and YCCK: libjpeg cannot convert them to RGB, Pillow can
        return _pillow(content, media_type, height, width, max_pixels)
    frame_HW3: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        content, "RGB", fastdct=True, min_height=height, min_width=width
    )
    return frame_HW3


def _pillow(content: bytes, media_type: str, height: int, width: int, max_pixels: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content), formats=[PILLOW_FORMATS[media_type]]) as opened:
        _check_pixels(opened.height, opened.width, max_pixels)
        if opened.mode.startswith("I"):  # 16-bit grey: convert() would make every value above 255 white
            return np.asarray(Image.fromarray((np.asarray(opened, np.uint16) >> 8).astype(np.uint8)).convert("RGB"))
        return np.asarray(opened.convert("RGB"))


def _check_pixels(rows: int, columns: int, max_pixels: int) -> None:
    if rows * columns > max_pixels:
        raise BadRecord(Reason.IMAGE_BOMB, f"{columns} × {rows} pixels, more than {max_pixels}")


def audio(event: Event, start_us: int, end_us: int) -> tuple[int, int, NDArray[np.float32]]:
    """Decode the part of an audio chunk in ``[start_us, end_us)``, mixed to mono; the rest is not decoded.

    Sample i of a chunk is at ``event.start_us + i / rate``.

    Returns:
        (rate in Hz, index of the first sample counted from ``start_us`` at that rate, float32 [samples] in [-1, 1]).

    Raises:
        BadRecord: BAD_PAYLOAD if it does not decode or its rate is out of range.
    """
    content = payload(event)
    if event.media_type == "audio/l16":
        return _l16(event, content, start_us, end_us)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            span = _span(event, file.samplerate, file.channels, file.frames, start_us, end_us)
            file.seek(span.skip)
            samples = file.read(span.count, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError, ValueError, OSError) as error:
        raise BadRecord(Reason.BAD_PAYLOAD, f"{event.media_type} does not decode: {_line(error)}") from error
    if not np.isfinite(samples).all():  # float WAV may hold anything
        raise BadRecord(Reason.BAD_PAYLOAD, "audio holds samples that are not finite")
    return file.samplerate, span.first, np.clip(samples, -1.0, 1.0).mean(axis=1, dtype=np.float32)


def _l16(event: Event, content: bytes, start_us: int, end_us: int) -> tuple[int, int, NDArray[np.float32]]:
    """Raw 16-bit big-endian samples, channels interleaved (RFC 2586)."""
    try:
        rate_hz, channels = int(event.params.get("rate", "")), int(event.params.get("channels", "1"))
    except ValueError as error:
        raise BadRecord(Reason.BAD_PAYLOAD, f"audio/L16 needs an integer rate and channels: {_line(error)}") from error
    if channels < 1 or len(content) % (2 * channels):
        raise BadRecord(Reason.BAD_PAYLOAD, f"{len(content)} bytes are no whole number of {channels}-channel samples")
    span = _span(event, rate_hz, channels, len(content) // (2 * channels), start_us, end_us)
    raw = np.frombuffer(content, ">i2", span.count * channels, offset=2 * channels * span.skip)
    mono = raw if channels == 1 else raw.reshape(-1, channels).mean(axis=1)
    return rate_hz, span.first, mono.astype(np.float32) * np.float32(INT16_SCALE)


class _Span(msgspec.Struct, frozen=True):
    """Which samples of a chunk are in a window: ``count`` after the first ``skip``, put at index ``first``."""

    skip: int
    count: int
    first: int


def _span(event: Event, rate_hz: int, channels: int, samples: int, start_us: int, end_us: int) -> _Span:
    if not MIN_AUDIO_RATE_HZ <= rate_hz <= MAX_AUDIO_RATE_HZ:
        raise BadRecord(
            Reason.BAD_PAYLOAD, f"sample rate {rate_hz} Hz is outside {MIN_AUDIO_RATE_HZ}–{MAX_AUDIO_RATE_HZ}"
        )
    if channels > MAX_AUDIO_CHANNELS:
        raise BadRecord(Reason.BAD_PAYLOAD, f"{channels} channels, more than {MAX_AUDIO_CHANNELS}")
    first = sample_index(event.start_us - start_us, rate_hz)
    stop = min(first + samples, sample_index(min(end_us, event.end_us) - start_us, rate_hz))
    skip = min(max(0, -first), samples)  # a payload may be shorter than its ce_durationus
    count = max(0, stop - first - skip)
    if count * channels > MAX_AUDIO_VALUES:  # minutes of silence on many channels compress to a few bytes
        raise BadRecord(Reason.BAD_PAYLOAD, f"{count} samples of {channels} channels, more than {MAX_AUDIO_VALUES}")
    return _Span(skip=skip, count=count, first=max(0, first))


def sample_index(offset_us: int, rate_hz: float) -> int:
    """Index of the sample nearest to an offset, so that chunks whose times were rounded to 1 µs join without a gap."""
    return round(offset_us * rate_hz / 1_000_000)


def _line(error: BaseException) -> str:
    """An error as one line, without the address of the buffer that libraries put into it."""
    return BUFFER.sub("the payload", one_line(error))
