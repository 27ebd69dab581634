"""Cameras for tests: each picture shows the time at which it was taken, each sample of sound is its own time."""

from __future__ import annotations

import http.server
import socketserver
import struct
import threading
import time
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np
import simplejpeg
from numpy.typing import NDArray

from bench.programs import rtsp
from bench.programs.rtsp import SOUND_WRAP, VIDEO_HZ

COLUMNS, ROWS, BLOCK = 8, 6, 16  # a block for each bit of the milliseconds since the epoch
WIDTH, HEIGHT = COLUMNS * BLOCK, ROWS * BLOCK


def shown(time_us: int) -> NDArray[np.uint8]:
    """A picture [H, W, 3] that shows a time, to the millisecond."""
    bits = (time_us // 1000) >> np.arange(COLUMNS * ROWS) & 1
    blocks = np.where(bits, 235, 20).astype(np.uint8).reshape(ROWS, COLUMNS)
    return np.repeat(np.kron(blocks, np.ones((BLOCK, BLOCK), np.uint8))[..., None], 3, axis=2)


def read_us(jpeg: bytes) -> int:
    """The time that a picture shows."""
    grey = simplejpeg.decode_jpeg(jpeg, "GRAY")[..., 0].astype(int)
    means = grey.reshape(ROWS, BLOCK, COLUMNS, BLOCK)[:, 4:-4, :, 4:-4].mean(axis=(1, 3)).ravel()
    return int(sum(1 << place for place, mean in enumerate(means) if mean > 128)) * 1000


def off_ms(chunk: bytes, time_us: int) -> float:
    """By how much a chunk of sound is later than its first sample says."""
    first = int.from_bytes(chunk[:2], "big", signed=True)
    return (time_us / 1000 - first + SOUND_WRAP / 2) % SOUND_WRAP - SOUND_WRAP / 2


class Encoder:
    """H.264 as IP cameras make it."""

    def __init__(self, hz: int, options: dict[str, str] | None = None) -> None:
        self._context: Any = av.CodecContext.create("libx264", "w")
        self._context.width, self._context.height, self._context.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        self._context.time_base, self._context.framerate = Fraction(1, VIDEO_HZ), Fraction(hz)
        self._context.options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(hz), **(options or {})}

    def __call__(self, time_us: int, pts: int) -> tuple[int, list[bytes]]:
        """The time of the picture that shows it, and its NAL units."""
        picture = av.VideoFrame.from_ndarray(shown(time_us), "rgb24")
        picture.pts, picture.time_base = pts, Fraction(1, VIDEO_HZ)
        raw = b"".join(bytes(packet) for packet in self._context.encode(picture))
        return time_us, rtsp.units_of(raw)


class Rtsp(rtsp.Rtsp):
    """An IP camera that shows the clock, see :class:`rtsp.Rtsp` for its other arguments.

    Args:
        hz: Pictures a second.
        options: Of the encoder.
    """

    def __init__(self, hz: int = 25, options: dict[str, str] | None = None, **given: Any) -> None:
        super().__init__(lambda: Encoder(hz, options), hz, **given)


class Mjpeg:
    """A camera that sends JPEG by HTTP, one part after the other; keeps what it sent.

    Args:
        comment_bytes: A comment so long makes its pictures as large as those of real ones.
    """

    def __init__(self, hz: int = 20, comment_bytes: int = 0) -> None:
        self.sent: set[bytes] = set()
        self._closed = threading.Event()
        comment = struct.pack(">BBH", 0xFF, 0xFE, comment_bytes + 2) + bytes(comment_bytes)
        camera, step_s = self, 1 / hz

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while not camera._closed.is_set():
                        jpeg = simplejpeg.encode_jpeg(shown(time.time_ns() // 1000), quality=90)
                        jpeg = jpeg[:2] + comment + jpeg[2:]
                        camera.sent.add(jpeg)
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                        self.wfile.write(head.encode() + jpeg + b"\r\n")
                        time.sleep(step_s)
                except OSError:
                    pass  # hung up

            def log_message(self, *arguments: object) -> None:
                """Nothing."""

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/video"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __enter__(self) -> Mjpeg:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up, and listen no more."""
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()


def segment(begun_us: int, seconds: float, hz: int, first: int) -> bytes:
    """A piece of an MPEG transport stream that shows its times, the pictures from number ``first`` on."""
    out = BytesIO()
    with av.open(out, "w", format="mpegts") as container:
        stream: Any = container.add_stream("libx264", rate=hz, options={"preset": "ultrafast", "tune": "zerolatency"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(first, first + round(seconds * hz)):
            picture = av.VideoFrame.from_ndarray(shown(begun_us + number * 1_000_000 // hz), "rgb24")
            picture.pts, picture.time_base = number, Fraction(1, hz)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return out.getvalue()
