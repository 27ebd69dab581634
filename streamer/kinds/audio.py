"""Audio: chunks of a microphone. How long raw samples last is counted; compressed ones are not opened by alignment."""

from __future__ import annotations

from collections.abc import Mapping

from streamer.errors import BadRecord, Reason
from streamer.kinds.kind import Kind, KindOfInput, Read

L16_BYTES = 2  # RFC 2586: 16-bit signed samples, big-endian, channels interleaved
MIN_RATE_HZ, MAX_RATE_HZ = 1_000, 384_000
MAX_CHANNELS = 64


class AudioInput(KindOfInput, frozen=True, tag="audio"):
    """The window's mono waveform."""

    rate_hz: int


class Audio(Kind):
    """See the module."""

    name = "audio"
    topic = "audio"
    ce_type = "streamer.audio.v1"
    content_types = ("audio/l16", "audio/wav", "audio/flac", "audio/ogg")
    input = AudioInput
    model = "streamer.model.kinds.audio:Sounds"
    column = "streamer.training.data.columns:Sounds"

    def read(self, payload: bytes | None, media_type: str, params: Mapping[str, str], said_us: int | None) -> Read:
        if payload is not None and media_type == "audio/l16":
            return Read(None, 0, _l16_duration_us(payload, params))
        return Read(None, 0, said_us)


def _l16_duration_us(payload: bytes, params: Mapping[str, str]) -> int:
    rate_hz = _param(params, "rate", None, MIN_RATE_HZ, MAX_RATE_HZ)
    channels = _param(params, "channels", 1, 1, MAX_CHANNELS)
    samples, odd = divmod(len(payload), L16_BYTES * channels)
    if odd:
        raise BadRecord(Reason.BAD_PAYLOAD, f"{len(payload)} bytes are no whole number of {channels}-channel samples")
    return samples * 1_000_000 // rate_hz


def _param(params: Mapping[str, str], name: str, default: int | None, least: int, most: int) -> int:
    text = params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdigit() and least <= int(text[:9]) <= most and len(text) < 9):
        raise BadRecord(Reason.BAD_CONTENT_TYPE, f"audio/L16 needs {name} between {least} and {most}, not {text!r}")
    return int(text)
