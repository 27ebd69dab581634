"""Films made for tests, with what cameras, recorders and players leave in them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 96, 64
RGB = NDArray[np.uint8]


def bar(number: int, count: int) -> RGB:
    """A picture without symmetry: a white bar top left, the left half black, the right half grey, ever brighter."""
    picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    picture[:, WIDTH // 2 :] = 40 + 160 * number // max(1, count - 1)
    picture[: HEIGHT // 6, : WIDTH // 3] = 255
    return picture


def video(
    path: Path,
    count: int = 10,
    frame_hz: int = 10,
    codec: str = "libx264",
    options: Mapping[str, str] | None = None,
    tone: bool = False,
    sound: str = "aac",
    rate_hz: int = 16_000,
    picture: Callable[[int, int], RGB] = bar,
    set_up: Callable[[Any], None] = lambda stream: None,
    mux: Mapping[str, str] | None = None,
    form: str | None = None,
) -> Path:
    """A film of so many pictures, with a tone as long as they are.

    Args:
        options: Of the encoder.
        set_up: Changes the video stream before it is opened.
        mux: Options of the container.
        form: Format of the container, where the name does not say it.
    """
    with av.open(str(path), "w", format=form, options=dict(mux or {})) as container:
        stream: Any = container.add_stream(codec, rate=frame_hz, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        set_up(stream)
        heard: Any = container.add_stream(sound, rate=rate_hz, layout="mono") if tone else None
        for number in range(count):
            shown = av.VideoFrame.from_ndarray(picture(number, count), "rgb24")
            shown.pts, shown.time_base = number, Fraction(1, frame_hz)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
        if heard is not None:
            samples = (np.sin(np.arange(rate_hz * count // frame_hz) / 6) * 9000).astype(np.int16)
            container.mux([*heard.encode(mono(samples, rate_hz)), *heard.encode()])
    return path


def mono(samples: NDArray[np.int16], rate_hz: int) -> Any:
    """Sound [S] to encode."""
    frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
    frame.sample_rate, frame.pts, frame.time_base = rate_hz, 0, Fraction(1, rate_hz)
    return frame


def patched(path: Path, name: str, box: bytes, offset: int, value: bytes) -> Path:
    """A copy of an MP4 file with other bytes in all boxes of a kind, so far behind the box's name."""
    raw, at = bytearray(path.read_bytes()), -1
    while (at := raw.find(box, at + 1)) >= 0:
        raw[at + 4 + offset : at + 4 + offset + len(value)] = value
    copy = path.with_name(name)
    copy.write_bytes(raw)
    return copy


def with_matrix(path: Path, name: str, matrix: tuple[int, int, int, int]) -> Path:
    """A copy of an MP4 file with a display matrix ``a b c d``."""
    a, b, c, d = (number << 16 for number in matrix)
    return patched(path, name, b"tkhd", 40, struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30))


def beeps(path: Path, seconds: int, heard_hz: int, stated_hz: int = 8000) -> Path:
    """A film with a beep at each whole second, whose sound card takes ``heard_hz`` samples a second.

    Args:
        stated_hz: What it says it takes.
    """
    times = np.arange(heard_hz * seconds) / heard_hz
    samples = ((times % 1 < 0.1) * np.sin(2 * np.pi * 1000 * times) * 12_000).astype("<i2")
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=stated_hz, layout="mono")
        for number in range(2 * seconds):
            shown = av.VideoFrame.from_ndarray(bar(number, 2 * seconds), "rgb24")
            shown.pts, shown.time_base = number, Fraction(1, 2)
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
        for begin in range(0, len(samples), 160):
            packet = av.Packet(samples[begin : begin + 160].tobytes())
            packet.stream, packet.time_base = sound, Fraction(1, 1000)
            packet.pts = packet.dts = begin * 1000 // heard_hz
            packet.duration = 20
            container.mux(packet)
    return path


def tracks(path: Path, kinds: Iterable[str]) -> Path:
    """A Matroska film with one track of each kind named: ``video``, ``audio``, ``subtitle`` or ``attachment``.

    In an MP4 file, ``cover`` is a picture of the whole, and in an MPEG stream ``data`` is a track of measurements.
    """
    form = "mpegts" if path.suffix == ".ts" else None
    codecs = {"video": "mpeg2video" if form else "mpeg4", "audio": "mp2" if form else "aac", "cover": "mjpeg"}
    with av.open(str(path), "w", format=form) as container:
        made: list[tuple[str, Any]] = []
        for kind in kinds:
            if kind == "attachment":
                container.add_attachment("font.ttf", "font/ttf", b"font")
            elif kind == "data":
                made.append((kind, container.add_data_stream("klv")))
            elif kind == "subtitle":
                stream: Any = container.add_stream("mov_text" if path.suffix == ".mp4" else "subrip")
                stream.codec_context.subtitle_header = b"[Events]\r\n"
                made.append((kind, stream))
            else:
                stream = container.add_stream(codecs[kind], rate=48_000 if kind == "audio" else 25)
                if kind == "audio":
                    stream.layout = "mono"
                else:
                    stream.width, stream.height = WIDTH, HEIGHT
                    stream.pix_fmt = "yuvj420p" if kind == "cover" else "yuv420p"
                if kind == "cover":
                    stream.disposition = av.stream.Disposition.attached_pic
                made.append((kind, stream))
        for kind, stream in made:
            container.mux(_packets(kind, stream, path.suffix == ".mp4"))
    return path


def _packets(kind: str, stream: Any, prefixed: bool) -> list[Any]:
    if kind == "audio":
        return [*stream.encode(mono(np.zeros(9600, np.int16), 48_000)), *stream.encode()]
    if kind in ("video", "cover"):
        count = 5 if kind == "video" else 1
        frames = [
            av.VideoFrame.from_ndarray(bar(n, count), "rgb24").reformat(format=stream.pix_fmt) for n in range(count)
        ]
        for number, frame in enumerate(frames):
            frame.pts, frame.time_base = number, Fraction(1, 25)
        return [packet for frame in [*frames, None] for packet in stream.encode(frame)]
    body = b"hello"
    packet = av.Packet(len(body).to_bytes(2, "big") + body if prefixed else body)
    packet.stream, packet.time_base, packet.pts, packet.dts, packet.duration = stream, Fraction(1, 1000), 0, 0, 200
    return [packet]
