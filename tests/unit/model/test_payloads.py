"""Opening payloads: exact sizes and samples, or a reason for this one record; small records never take much memory."""

from __future__ import annotations

import io
import struct
import threading
import uuid
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import simplejpeg
import soundfile
from numpy.typing import NDArray
from PIL import Image

from streamer.errors import BadRecord, Reason
from streamer.events import Channel, Event, EventType, Record, Telemetry, Transcript
from streamer.model import payloads, sounds

S_US = 1_000_000
PIXELS = 1_000_000
RED = (200, 100, 0)
FORMATS = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}


def event(value: bytes, media_type: str, start_us: int = 0, end_us: int = 0, **given: Any) -> Event:
    return Event(Record(0, 0, 0, 0, b"s", value, ()), "s", EventType.DATA, start_us, end_us, media_type, **given)


def refused(reason: Reason, call: Callable[[], object]) -> str:
    with pytest.raises(BadRecord) as bad:
        call()
    assert bad.value.reason is reason
    assert "\n" not in bad.value.detail
    assert len(bad.value.detail) < 300
    return bad.value.detail


# images


def encoded(image: Image.Image, media_type: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, FORMATS[media_type], **options)
    return buffer.getvalue()


def plain(height: int = 48, width: int = 64, mode: str = "RGB") -> Image.Image:
    return Image.new("RGB", (width, height), RED).convert(mode)


def decoded(value: bytes, media_type: str, height: int = 24, width: int = 32) -> NDArray[np.uint8]:
    return payloads.image(event(value, media_type), height, width, PIXELS)


@pytest.mark.parametrize("media_type", FORMATS)
@pytest.mark.parametrize("size", [(24, 32), (48, 64), (7, 5), (100, 300), (1, 1)])
def test_a_frame_has_exactly_the_size_asked_for(media_type: str, size: tuple[int, int]) -> None:
    pixels = decoded(encoded(plain(), media_type), media_type, *size)
    assert (pixels.shape, pixels.dtype) == ((*size, 3), np.dtype(np.uint8))
    assert np.abs(pixels.astype(int) - RED).max() <= 3


@pytest.mark.parametrize("media_type", FORMATS)
def test_what_is_left_and_above_stays_there(media_type: str) -> None:
    picture = Image.new("RGB", (64, 48))
    picture.paste((250, 0, 0), (0, 0, 32, 24))
    picture.paste((0, 0, 250), (32, 24, 64, 48))
    pixels = decoded(encoded(picture, media_type), media_type, 12, 16)
    assert pixels[2, 3, 0] > 200
    assert pixels[9, 12, 2] > 200
    assert pixels[9, 3].max() < 50


def test_a_jpeg_is_scaled_while_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    decode = simplejpeg.decode_jpeg

    def noted(*arguments: Any, **options: Any) -> NDArray[np.uint8]:
        pixels: NDArray[np.uint8] = decode(*arguments, **options)
        shapes.append(pixels.shape)
        return pixels

    monkeypatch.setattr(simplejpeg, "decode_jpeg", noted)
    value = encoded(plain(480, 640), "image/jpeg")
    assert decoded(value, "image/jpeg", 100, 100).shape == (100, 100, 3)
    assert decoded(value, "image/jpeg", 480, 640).shape == (480, 640, 3)
    (rows, columns, _), full = shapes
    assert 100 <= rows < 240
    assert 100 <= columns < 320
    assert full == (480, 640, 3)


@pytest.mark.parametrize(
    ("media_type", "mode"),
    [("image/jpeg", "L"), ("image/png", "L"), ("image/png", "1"), ("image/png", "LA"), ("image/webp", "L")],
)
def test_grey_becomes_rgb(media_type: str, mode: str) -> None:
    pixels = decoded(encoded(Image.new("L", (64, 48), 130).convert(mode), media_type), media_type)
    assert (pixels == pixels[..., :1]).all()
    assert abs(float(pixels.mean()) - 130) < 10


@pytest.mark.parametrize("picture", [plain().quantize(4), plain(mode="RGBA")], ids=["palette", "transparency"])
def test_palettes_and_transparency_become_rgb(picture: Image.Image) -> None:
    pixels = decoded(encoded(picture, "image/png"), "image/png")
    assert np.abs(pixels.astype(int) - RED).max() <= 5


def test_a_cmyk_jpeg_becomes_rgb() -> None:
    pixels = decoded(encoded(plain(mode="CMYK"), "image/jpeg"), "image/jpeg")
    assert np.abs(pixels.astype(int) - RED).max() <= 5


def test_sixteen_bit_grey_keeps_its_shades() -> None:
    """Thermal and depth cameras send such images."""
    shades = np.repeat(np.linspace(0, 65_535, 64).astype(np.uint16)[None], 48, axis=0)
    pixels = decoded(encoded(Image.fromarray(shades), "image/png"), "image/png", 48, 64)
    assert np.abs(pixels[0, :, 0].astype(int) - (shades[0] >> 8)).max() <= 1


@pytest.mark.parametrize("media_type", FORMATS)
def test_a_broken_frame_is_a_bad_payload(media_type: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    value = encoded(noise, media_type)
    other = next(m for m in FORMATS if m != media_type)
    for broken in (b"", b"\0" * 100, value[:20], value[: len(value) // 2], encoded(plain(), other)):
        detail = refused(Reason.BAD_PAYLOAD, partial(decoded, broken, media_type))
        assert detail.startswith(f"{media_type} does not decode: ")
        assert " at 0x" not in detail  # an object's address has no meaning for users


def png_of(width: int, height: int) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    value = bytearray(encoded(plain(), "image/jpeg"))
    at = value.index(b"\xff\xc0") + 5
    value[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(value)


def webp_of(width: int, height: int) -> bytes:
    """A lossy frame with another size in its header."""
    value = bytearray(encoded(plain(), "image/webp"))
    at = value.index(b"\x9d\x01\x2a") + 3
    value[at : at + 4] = struct.pack("<HH", width, height)
    return bytes(value)


def animated_webp_of(width: int, height: int) -> bytes:
    """An animation of one small frame on a canvas of this size."""
    sizes = b"".join((n - 1).to_bytes(3, "little") for n in (width, height))
    own = b"".join((n - 1).to_bytes(3, "little") for n in (64, 48))
    frame = bytes(6) + own + (100).to_bytes(3, "little") + b"\0" + encoded(plain(), "image/webp")[12:]
    content = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + sizes
    content += b"ANIM" + struct.pack("<IIH", 6, 0, 0) + b"ANMF" + struct.pack("<I", len(frame)) + frame
    return b"RIFF" + struct.pack("<I", len(content)) + content


@pytest.mark.parametrize("size", [(1001, 1000), (12_000, 12_000), (16_000, 16_000)])
@pytest.mark.parametrize("made", [jpeg_of, png_of, webp_of, animated_webp_of])
def test_a_bomb_is_known_by_its_header(made: Callable[[int, int], bytes], size: tuple[int, int]) -> None:
    media_type = f"image/{made.__name__.removesuffix('_of').removeprefix('animated_')}"
    refused(Reason.IMAGE_BOMB, lambda: decoded(made(*size), media_type))


def test_the_limit_itself_is_no_bomb() -> None:
    value = encoded(plain(40, 50), "image/png")
    assert payloads.image(event(value, "image/png"), 4, 5, 2000).shape == (4, 5, 3)
    assert "50 × 40 pixels, more than 1999" in refused(
        Reason.IMAGE_BOMB, lambda: payloads.image(event(value, "image/png"), 4, 5, 1999)
    )


# audio


def ramp(samples: int, channels: int = 1) -> NDArray[np.int16]:
    """Sample i of channel c is 10 i + c."""
    return (10 * np.arange(samples)[:, None] + np.arange(channels)).astype(np.int16)


def l16(value: bytes, start_us: int, end_us: int, rate: object = 8000, channels: object = 1, **given: Any) -> Event:
    params = {"rate": str(rate), "channels": str(channels)}
    return event(value, "audio/l16", start_us, end_us, params=params, **given)


def in_file(samples: NDArray[Any], kind: str, rate_hz: int = 8000, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format=kind, subtype=subtype)
    return buffer.getvalue()


def heard(chunk: Event, start_us: int = 0, end_us: int = S_US) -> tuple[int, int, list[int]]:
    """Rate, first index, and the samples as 16-bit numbers."""
    found = payloads.audio(chunk, start_us, end_us)
    assert found.samples_S.dtype == np.float32
    return found.rate_hz, found.first, np.round(found.samples_S * 32_768).astype(int).tolist()


@pytest.mark.parametrize(
    ("start_us", "first", "inside"),
    [
        (0, 0, range(80)),  # 80 samples are 10 ms
        (500_000, 4000, range(80)),
        (-5_000, 0, range(40, 80)),
        (995_000, 7960, range(40)),
        (-10_000, 0, range(0)),
        (1_000_000, 8000, range(0)),
        (-125, 0, range(1, 80)),
        (-60, 0, range(80)),  # nearer to the border than half a sample
        (62, 0, range(80)),
        (-63, 0, range(1, 80)),
    ],
)
@pytest.mark.parametrize("kind", ["l16", "WAV", "FLAC"])
def test_audio_is_cut_to_the_window_by_the_sample(kind: str, start_us: int, first: int, inside: range) -> None:
    samples = ramp(80)
    if kind == "l16":
        chunk = l16(samples.astype(">i2").tobytes(), start_us, start_us + 10_000)
    else:
        chunk = event(in_file(samples, kind), f"audio/{kind.lower()}", start_us, start_us + 10_000)
    assert heard(chunk) == (8000, first, [10 * i for i in inside])


def test_a_chunk_over_several_windows_has_each_sample_in_one_of_them() -> None:
    chunk = l16(ramp(3000).astype(">i2").tobytes(), 123_457, 123_457 + 375_000)
    cuts = [heard(chunk, begin, begin + 50_000) for begin in range(100_000, 550_000, 50_000)]
    assert [sample for _, _, samples in cuts for sample in samples] == ramp(3000)[:, 0].tolist()
    assert all(first + len(samples) <= 400 for _, first, samples in cuts)


def test_ogg_is_cut_too() -> None:
    tone = np.sin(np.arange(8000) * 0.3).astype(np.float32) / 2
    chunk = event(in_file(tone, "OGG"), "audio/ogg", -500_000, 500_000)
    rate_hz, first, samples, _ = payloads.audio(chunk, 0, S_US)
    assert (rate_hz, first, len(samples)) == (8000, 0, 4000)
    assert np.abs(samples - tone[4000:]).max() < 0.1


def test_an_event_that_says_it_is_shorter_than_its_samples_is_taken_at_its_word() -> None:
    chunk = event(in_file(ramp(80), "WAV"), "audio/wav", 0, 5_000)
    assert heard(chunk) == (8000, 0, [10 * i for i in range(40)])


@pytest.mark.parametrize("kind", ["l16", "WAV", "FLAC", "OGG"])
def test_a_window_after_the_last_sample_of_a_payload_has_none(kind: str, tmp_path: Path) -> None:
    """The span is the producer's ``ce_durationus``, for raw audio too if it is a claim check."""
    if kind == "l16":
        path = tmp_path / "clip"
        path.write_bytes(ramp(80).astype(">i2").tobytes())
        chunk = l16(b"", 0, 9 * S_US, dataref=path.as_uri())
    else:
        chunk = event(in_file(ramp(80), kind), f"audio/{kind.lower()}", 0, 9 * S_US)
    assert len(heard(chunk, 0, S_US)[2]) == 80
    assert heard(chunk, 5 * S_US, 6 * S_US) == (8000, 0, [])


@pytest.mark.parametrize("kind", ["l16", "WAV", "FLAC"])
@pytest.mark.parametrize("cut", [0, 30])
def test_channels_are_mixed_to_one(kind: str, cut: int) -> None:
    samples = ramp(80, 2) * np.array([1, -3], np.int16) + np.array([0, 200], np.int16)
    start_us = -cut * 125  # a sample of 8 kHz
    if kind == "l16":
        chunk = l16(samples.astype(">i2").tobytes(), start_us, start_us + 10_000, channels=2)
    else:
        chunk = event(in_file(samples, kind), f"audio/{kind.lower()}", start_us, start_us + 10_000)
    mixed = payloads.audio(chunk, 0, S_US).samples_S * 32_768
    assert np.allclose(mixed, samples[cut:].mean(axis=1), atol=0.01)


def test_full_scale_is_one() -> None:
    value = np.array([-32_768, 32_767, 0], ">i2").tobytes()
    assert payloads.audio(l16(value, 0, 375), 0, S_US).samples_S.tolist() == pytest.approx([-1.0, 32_767 / 32_768, 0.0])


def test_float_audio_beyond_full_scale_is_clipped() -> None:
    value = in_file(np.array([0.5, 3.0, -1e38, 1e38]), "WAV", subtype="FLOAT")
    assert payloads.audio(event(value, "audio/wav", 0, 500), 0, S_US).samples_S.tolist() == [0.5, 1.0, -1.0, 1.0]


def test_float_audio_that_is_not_finite_is_a_bad_payload() -> None:
    value = in_file(np.array([0.5, np.nan]), "WAV", subtype="FLOAT")
    detail = refused(Reason.BAD_PAYLOAD, lambda: payloads.audio(event(value, "audio/wav", 0, 250), 0, S_US))
    assert detail == "audio holds samples that are not finite"


@pytest.mark.parametrize(("rate_hz", "fine"), [(999, False), (1000, True), (384_000, True), (384_001, False)])
def test_a_rate_that_no_microphone_has_is_a_bad_payload(rate_hz: int, fine: bool) -> None:
    chunks = [
        l16(bytes(20), 0, 10_000, rate=rate_hz),
        event(in_file(ramp(10), "WAV", rate_hz), "audio/wav", 0, 10_000),
    ]
    for chunk in chunks:
        if fine:
            assert payloads.audio(chunk, 0, S_US).rate_hz == rate_hz
        else:
            detail = refused(Reason.BAD_PAYLOAD, partial(payloads.audio, chunk, 0, S_US))
            assert f"sample rate {rate_hz} Hz" in detail


@pytest.mark.parametrize(
    ("value", "rate", "channels"),
    [
        (bytes(3), 8000, 1),
        (bytes(6), 8000, 2),
        (bytes(6), 8000, 0),
        (bytes(6), 8000, -1),
        (bytes(6), 8000, "x"),
        (bytes(6), "", 1),
        (bytes(6), -8000, 1),
        (bytes(130), 8000, 65),
    ],
)
def test_raw_audio_whose_parameters_do_not_fit_is_a_bad_payload(value: bytes, rate: object, channels: object) -> None:
    refused(Reason.BAD_PAYLOAD, lambda: payloads.audio(l16(value, 0, 1000, rate, channels), 0, S_US))


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_a_broken_audio_file_is_a_bad_payload(kind: str) -> None:
    for broken in (b"", b"\0" * 100, in_file(ramp(800), kind)[:20]):
        chunk = event(broken, f"audio/{kind.lower()}", 0, 10_000)
        detail = refused(Reason.BAD_PAYLOAD, partial(payloads.audio, chunk, 0, S_US))
        assert detail.startswith(f"audio/{kind.lower()} does not decode: ")
        assert " at 0x" not in detail


def test_an_empty_raw_chunk_has_no_samples() -> None:
    assert heard(l16(b"", 0, 0)) == (8000, 0, [])


# claim checks and JSON


def in_memory(content: bytes) -> str:
    url = f"memory://streamer/{uuid.uuid4().hex}"
    with fsspec.open(url, "wb") as file:
        file.write(content)
    return url


def test_a_payload_is_the_records_value_unless_it_lies_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "clip with spaces.bin"
    path.write_bytes(b"from a file")
    assert payloads.payload(event(b"value", "image/jpeg")) == b"value"
    assert payloads.payload(event(b"", "image/jpeg", dataref=in_memory(b"from memory"))) == b"from memory"
    assert payloads.payload(event(b"", "image/jpeg", dataref=f"file://{path}")) == b"from a file"


@pytest.mark.parametrize("url", ["memory://streamer/missing", "file:///no/such/file", "nonsense://x/y", "file:///"])
def test_a_claim_check_that_cannot_be_read_is_a_bad_payload(url: str) -> None:
    detail = refused(Reason.BAD_PAYLOAD, lambda: payloads.payload(event(b"", "image/jpeg", dataref=url)))
    assert detail.startswith(f"dataref {url!r} cannot be read: ")


@pytest.mark.parametrize("url", ["memory://a/../b", "zip://x::file:///tmp/y.zip", ".."])
def test_a_claim_check_that_leads_out_of_its_prefix_is_refused(url: str) -> None:
    refused(Reason.DATAREF_REFUSED, lambda: payloads.payload(event(b"", "image/jpeg", dataref=url)))


def test_a_claim_check_is_read_up_to_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "MAX_DATAREF_BYTES", 10)
    assert payloads.payload(event(b"", "image/jpeg", dataref=in_memory(b"x" * 10))) == b"x" * 10
    url = in_memory(b"x" * 11)
    detail = refused(Reason.BAD_PAYLOAD, lambda: payloads.payload(event(b"", "image/jpeg", dataref=url)))
    assert "larger than 10 bytes" in detail


def test_frames_and_audio_are_opened_where_the_claim_check_leads() -> None:
    frame = event(b"", "image/png", dataref=in_memory(encoded(plain(), "image/png")))
    assert payloads.image(frame, 4, 5, PIXELS).shape == (4, 5, 3)
    sound = event(b"", "audio/wav", 0, 10_000, dataref=in_memory(in_file(ramp(80), "WAV")))
    assert len(payloads.audio(sound, 0, S_US)[2]) == 80


def test_json_that_decode_has_parsed_is_not_parsed_again() -> None:
    said, block = Transcript("hm"), Telemetry({"speed": Channel((1.0,))}, rate_hz=1.0)
    assert payloads.transcript(event(b"not JSON", "application/json", body=said)) is said
    assert payloads.telemetry(event(b"not JSON", "application/json", body=block)) is block


def test_json_of_a_claim_check_is_judged_as_that_of_a_record() -> None:
    said = event(b"", "application/json", dataref=in_memory(b'{"text": "hm", "end": 0.5}'))
    assert payloads.transcript(said) == Transcript("hm", end=0.5)
    measured = event(b"", "application/json", dataref=in_memory(b'{"channels": {"v": {"values": [1]}}, "rate_hz": 1}'))
    assert payloads.telemetry(measured).channels["v"].values == (1.0,)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"text": ', Reason.BAD_JSON),
        (b'{"text": "\xff"}', Reason.BAD_JSON),
        (b'{"text": "hm", "other": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", Reason.BAD_JSON),
        (b'{"text": 5}', Reason.BAD_PAYLOAD),
        (b'{"text": "hm", "start": 2, "end": 1}', Reason.BAD_PAYLOAD),
        (b"", Reason.BAD_JSON),
    ],
)
def test_a_claim_check_that_is_no_transcript_is_rejected(content: bytes, reason: Reason) -> None:
    said = event(b"", "application/json", dataref=in_memory(content))
    refused(reason, lambda: payloads.transcript(said))


@pytest.mark.parametrize(
    "content",
    [
        b'{"channels": {"a": {"values": [1]}, "b": {"values": [1, 2]}}, "rate_hz": 1}',
        b'{"channels": {"a": {"values": [1]}}, "rate_hz": 0}',
        b'{"channels": {"a": {"values": [1]}}}',
        b'{"channels": {}, "rate_hz": 1}',
        b'{"channels": {"a": {"values": [1, 2]}}, "times": [2, 1]}',
    ],
)
def test_a_claim_check_that_is_no_telemetry_is_rejected(content: bytes) -> None:
    measured = event(b"", "application/json", dataref=in_memory(content))
    refused(Reason.BAD_PAYLOAD, lambda: payloads.telemetry(measured))


@pytest.fixture
def redirecting() -> Iterator[tuple[str, list[str]]]:
    """A web server with one file under /clips/ and one elsewhere; and the list of requested paths."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if self.path == "/clips/moved" else 200)
            if self.path == "/clips/moved":
                self.send_header("Location", "/secret")
            self.send_header("Content-Length", "6")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(b"secret" if self.path == "/secret" else b"a clip")

        do_HEAD = do_GET

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/clips", asked
        server.shutdown()
        thread.join()


def test_a_claim_check_does_not_follow_a_server_out_of_its_prefix(redirecting: tuple[str, list[str]]) -> None:
    prefix, asked = redirecting
    assert payloads.payload(event(b"", "image/jpeg", dataref=f"{prefix}/a")) == b"a clip"
    refused(Reason.BAD_PAYLOAD, lambda: payloads.payload(event(b"", "image/jpeg", dataref=f"{prefix}/moved")))
    assert "/clips/moved" in asked
    assert "/secret" not in asked


def test_json_by_claim_check_has_a_limit_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payloads, "MAX_JSON_BYTES", 40)
    url = in_memory(b'{"channels": {"v": {"values": [1, 2, 3, 4]}}, "rate_hz": 1}')
    detail = refused(Reason.BAD_PAYLOAD, lambda: payloads.telemetry(event(b"", "application/json", dataref=url)))
    assert "more than 40 bytes of JSON" in detail


def test_a_small_payload_cannot_ask_for_a_large_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "MAX_VALUES", 100)
    chunk = event(in_file(ramp(200), "FLAC"), "audio/flac", 0, S_US)
    detail = refused(Reason.BAD_PAYLOAD, lambda: payloads.audio(chunk, 0, S_US))
    assert "more than 100" in detail
