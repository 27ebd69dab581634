"""Sound payloads -> the samples that are in a window."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import soundfile
from numpy.typing import NDArray

from streamer.errors import BadRecord, Reason
from streamer.events import Event
from streamer.model import soundfiles

MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000  # what microphones give; a buffer's size follows from it
MAX_CHANNELS = 64
MAX_VALUES = 32 << 20  # largest number of samples, over all channels, of one window: 128 MiB as float32
BLOCK_VALUES = 1 << 16  # decoded at once where the length is unknown; libsndfile clears what it does not fill
MAX_SAMPLES = 1 << 36  # of a channel; FLAC can note no more, and a larger number is libsndfile's for an unknown one
INT16_SCALE = 1.0 / 32768.0  # full scale of 16-bit samples -> [-1, 1)
LENGTH_TOLERANCE_US = 1_000  # producers round durations to milliseconds


class Excerpt(NamedTuple):
    """The part of a sound that is in a window, mixed to mono.

    Attributes:
        first: Index of the first sample, counted from the window's start.
        samples_S: float32, in [-1, 1].
        surplus_us: How much longer the payload is than its event; below 0 if it is shorter. 0 where the two agree
            within LENGTH_TOLERANCE_US, and in windows in which the event does not end. A longer one is not decoded to
            its end: then it is longer by at least this.
    """

    rate_hz: int
    first: int
    samples_S: NDArray[np.float32]
    surplus_us: int = 0


def excerpt(event: Event, content: bytes, start_us: int, end_us: int) -> Excerpt:
    """Decode the part of an audio chunk in ``[start_us, end_us)``; see :func:`streamer.model.payloads.audio`.

    Headers are believed where they say no less than the event. Otherwise the payload is decoded from its beginning, up
    to the window's or the event's end, in blocks.

    Raises:
        BadRecord: Rate, channels or length are out of range, or samples are not finite.
        SoundFileError, RuntimeError, ValueError, OSError: It does not decode.
    """
    if event.media_type == "audio/l16":
        return _l16(event, content, start_us, end_us)
    links = soundfiles.links(content)
    found = _by_header(event, links[0], start_us, end_us) if len(links) == 1 else None
    return found if found is not None else _by_blocks(event, content, start_us, end_us)


def duration_us(content: bytes, most_us: int) -> int:
    """How long a sound file is, by its samples; counting stops above ``most_us``.

    Raises:
        SoundFileError, RuntimeError, ValueError, OSError: It does not decode.
    """
    found_us = samples = 0
    for rate_hz, block_SN in _blocks(content):
        samples += len(block_SN)
        found_us = samples * 1_000_000 // rate_hz
        if found_us > most_us:
            break
    return found_us


def sample_index(offset_us: int, rate_hz: float) -> int:
    """Index of the sample nearest to an offset, so that chunks whose times were rounded to 1 µs join without a gap."""
    return round(offset_us * rate_hz / 1_000_000)


class _File(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A file whose reads end where its samples end.

    A seekable one is asked for its length before each read and put to its end after it, which fails if the header says
    too much, or nothing.
    """

    def seekable(self) -> bool:
        return False


def _by_header(event: Event, content: bytes, start_us: int, end_us: int) -> Excerpt | None:
    """Go to the samples by the header's word; ``None`` where that is not enough."""
    ends = _ends_in(event, start_us, end_us)
    try:
        with _File(io.BytesIO(content)) as file:
            said = sample_index(event.end_us - event.start_us, file.samplerate)
            known = file.frames <= MAX_SAMPLES
            surplus_us = _surplus_us(file.frames, said, file.samplerate) if known else 0
            if surplus_us < 0 or (ends and not known):
                return None
            span = _span(event, file.samplerate, file.channels, file.frames, start_us, end_us)
            if span.skip and file.subtype == "VORBIS":  # in the last page libsndfile seeks up to a packet too far
                return None
            file.seek(span.skip)
            samples_SN = file.read(span.count, dtype="float32", always_2d=True)
            if len(samples_SN) < span.count:
                return None
            if ends and surplus_us and not _has(file, file.frames - 1):
                return None  # the header says too much
    except (soundfile.SoundFileError, RuntimeError):
        return None
    return Excerpt(file.samplerate, span.first, _mono(samples_SN), surplus_us if ends else 0)


def _has(file: _File, index: int) -> bool:
    file.seek(index)
    return len(file.read(1, always_2d=True)) == 1


def _by_blocks(event: Event, content: bytes, start_us: int, end_us: int) -> Excerpt:
    """Decode from the beginning and keep what is in the window."""
    parts: list[NDArray[np.float32]] = []
    position = 0
    for rate_hz, block_SN in _blocks(content):
        span = _span(event, rate_hz, block_SN.shape[1], MAX_SAMPLES, start_us, end_us)
        said = sample_index(event.end_us - event.start_us, rate_hz)
        parts.append(_mono(block_SN[max(0, span.skip - position) : max(0, span.skip + span.count - position)]))
        position += len(block_SN)
        if _ends_in(event, start_us, end_us):
            enough = _surplus_us(position, said, rate_hz) > 0
        else:
            enough = position >= span.skip + span.count
        if enough:
            break
    if position == 0 and said > 0:
        raise ValueError("it holds no samples")
    surplus_us = _surplus_us(position, said, rate_hz) if _ends_in(event, start_us, end_us) else 0
    return Excerpt(rate_hz, span.first, np.concatenate(parts), surplus_us)


def _blocks(content: bytes) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Rate and samples [S, N channels] from the beginning to the end; of each part at least one block, maybe empty."""
    first_hz = None
    for part in soundfiles.parts(content):
        with _File(io.BytesIO(part)) as file:
            rate_hz: int = file.samplerate
            if first_hz not in (None, rate_hz):
                raise ValueError(f"its parts have rates of {first_hz} and {rate_hz} Hz")
            first_hz = rate_hz
            while True:
                block_SN = file.read(BLOCK_VALUES // file.channels, dtype="float32", always_2d=True)
                yield rate_hz, block_SN
                if not len(block_SN):
                    break


def _mono(samples_SN: NDArray[np.float32]) -> NDArray[np.float32]:
    if not np.isfinite(samples_SN).all():  # float WAV may hold anything
        raise BadRecord(Reason.BAD_PAYLOAD, "audio holds samples that are not finite")
    mono_S: NDArray[np.float32] = np.clip(samples_SN, -1.0, 1.0).mean(axis=1, dtype=np.float32)
    return mono_S


def _l16(event: Event, content: bytes, start_us: int, end_us: int) -> Excerpt:
    """Raw 16-bit big-endian samples, channels interleaved (RFC 2586)."""
    try:
        rate_hz, channels = int(event.params.get("rate", "")), int(event.params.get("channels", "1"))
    except ValueError as error:
        raise BadRecord(Reason.BAD_PAYLOAD, f"audio/L16 needs an integer rate and channels: {error}") from error
    if channels < 1 or len(content) % (2 * channels):
        raise BadRecord(Reason.BAD_PAYLOAD, f"{len(content)} bytes are no whole number of {channels}-channel samples")
    samples = len(content) // (2 * channels)
    span = _span(event, rate_hz, channels, samples, start_us, end_us)
    raw = np.frombuffer(content, ">i2", span.count * channels, offset=2 * channels * span.skip)
    mono = raw if channels == 1 else raw.reshape(-1, channels).mean(axis=1)
    said = sample_index(event.end_us - event.start_us, rate_hz)
    surplus_us = _surplus_us(samples, said, rate_hz) if _ends_in(event, start_us, end_us) else 0
    return Excerpt(rate_hz, span.first, mono.astype(np.float32) * np.float32(INT16_SCALE), surplus_us)


def _ends_in(event: Event, start_us: int, end_us: int) -> bool:
    return start_us < event.end_us <= end_us


def _surplus_us(samples: int, said: int, rate_hz: int) -> int:
    """How much more there is than was said; 0 within the tolerance."""
    surplus_us = (samples - said) * 1_000_000 // rate_hz
    return surplus_us if abs(surplus_us) > LENGTH_TOLERANCE_US else 0


class _Span(msgspec.Struct, frozen=True):
    """Which samples of a chunk are in a window: ``count`` after the first ``skip``, put at index ``first``."""

    skip: int
    count: int
    first: int


def _span(event: Event, rate_hz: int, channels: int, samples: int, start_us: int, end_us: int) -> _Span:
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise BadRecord(Reason.BAD_PAYLOAD, f"sample rate {rate_hz} Hz is outside {MIN_RATE_HZ}–{MAX_RATE_HZ}")
    if channels > MAX_CHANNELS:
        raise BadRecord(Reason.BAD_PAYLOAD, f"{channels} channels, more than {MAX_CHANNELS}")
    first = sample_index(event.start_us - start_us, rate_hz)
    stop = min(first + samples, sample_index(min(end_us, event.end_us) - start_us, rate_hz))
    skip = min(max(0, -first), samples)  # a payload may be shorter than its ce_durationus
    count = max(0, stop - first - skip)
    if count * channels > MAX_VALUES:  # minutes of silence on many channels compress to a few bytes
        raise BadRecord(Reason.BAD_PAYLOAD, f"{count} samples of {channels} channels, more than {MAX_VALUES}")
    return _Span(skip=skip, count=count, first=max(0, first))
