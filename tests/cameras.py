"""Cameras for tests: each picture shows the time at which it was taken, each sample of sound is its own time."""

from __future__ import annotations

import base64
import http.server
import socket
import socketserver
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import numpy as np
import simplejpeg
from numpy.typing import NDArray

COLUMNS, ROWS, BLOCK = 8, 6, 16  # a block for each bit of the milliseconds since the epoch
WIDTH, HEIGHT = COLUMNS * BLOCK, ROWS * BLOCK
NTP_S = 2_208_988_800  # from 1900 to 1970: RFC 5905
VIDEO_HZ, SOUND_HZ = 90_000, 16_000
SOUND_WRAP = 30_000  # a sample is the milliseconds since the epoch, modulo this
MOST_BYTES = 1200  # of an RTP payload


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

    def __call__(self, time_us: int, pts: int) -> list[bytes]:
        """The NAL units of the picture that shows a time."""
        picture = av.VideoFrame.from_ndarray(shown(time_us), "rgb24")
        picture.pts, picture.time_base = pts, Fraction(1, VIDEO_HZ)
        raw = b"".join(bytes(packet) for packet in self._context.encode(picture))
        return [unit.rstrip(b"\0") for unit in raw.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1")[1:]]


class Rtsp:
    """An RTSP server with one camera (RFC 2326, 3550, 6184), over TCP or UDP as it is asked.

    Args:
        hz: Pictures a second.
        sound: It has a microphone too: L16, RFC 3551.
        report_after_s: Sender reports come from so long after PLAY on, each second.
        off_s: What its clock is ahead.
        delay_s: What it takes from the lens to the wire.
    """

    def __init__(
        self,
        hz: int = 25,
        sound: bool = False,
        report_after_s: float = 0.0,
        off_s: float = 0.0,
        delay_s: float = 0.0,
        port: int = 0,
        answer: str = "200 OK",
    ) -> None:
        self.hz, self.sound, self.delay_s, self.answer = hz, sound, delay_s, answer
        self.report_after_s, self.off_s = report_after_s, off_s
        self._listening = socket.create_server(("127.0.0.1", port))
        self.port = self._listening.getsockname()[1]
        self.url = f"rtsp://127.0.0.1:{self.port}/clock"
        self.played = 0
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Rtsp:
        return self

    def __exit__(self, *error: object) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.hang_up()

    def hang_up(self) -> None:
        """End all connections."""
        for one in list(self._open):
            with suppress(OSError):  # it has ended by itself
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        ended = threading.Event()
        writing = threading.Lock()
        ways: dict[str, Any] = {}
        try:
            with connection, connection.makefile("rb") as lines:
                while True:
                    if lines.peek(1)[:1] == b"$":  # a receiver report
                        lines.read(struct.unpack(">xxH", lines.read(4))[0])
                        continue
                    request = lines.readline().decode().split()
                    if not request:
                        return
                    given = dict(
                        line.decode().strip().split(": ", 1) for line in iter(lines.readline, b"\r\n") if line.strip()
                    )
                    self._answer(connection, writing, request, given, ways, ended)
        except OSError:
            pass  # the other side, or hang_up
        finally:
            ended.set()
            self._open.discard(connection)

    def _answer(
        self,
        connection: socket.socket,
        writing: threading.Lock,
        request: list[str],
        given: dict[str, str],
        ways: dict[str, Any],
        ended: threading.Event,
    ) -> None:
        method, body, more = request[0], "", ""
        if method == "DESCRIBE":
            body, more = self._description(), "Content-Type: application/sdp\r\n"
        elif method == "SETUP":
            track, transport = request[1].rpartition("/")[2], given["Transport"]
            if "TCP" in transport:
                channel = int(transport.partition("interleaved=")[2].partition("-")[0])
                ways[track] = _Interleaved(connection, writing, channel)
            else:
                ways[track] = _Datagrams(int(transport.partition("client_port=")[2].partition("-")[0]))
                transport += f";server_port={ways[track].port}-{ways[track].port + 1}"
            more = f"Transport: {transport}\r\nSession: 1\r\n"
        elif method == "OPTIONS":
            more = "Public: DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN\r\n"
        status = "200 OK" if method == "OPTIONS" else self.answer
        head = f"RTSP/1.0 {status}\r\nCSeq: {given['CSeq']}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
        with writing:
            connection.sendall((head + body).encode())
        if method == "PLAY":
            self.played += 1
            threading.Thread(target=self._play, args=(ways, ended), daemon=True).start()

    def _description(self) -> str:
        units = {unit[0] & 31: unit for unit in Encoder(self.hz)(0, 0)}
        sets = ",".join(base64.b64encode(units[kind]).decode() for kind in (7, 8))
        lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=clock", "t=0 0", "a=control:*"]
        lines += ["m=video 0 RTP/AVP 96", f"a=rtpmap:96 H264/{VIDEO_HZ}", f"a=framerate:{self.hz}", "a=control:video"]
        lines += [f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}"]
        if self.sound:
            lines += ["m=audio 0 RTP/AVP 97", f"a=rtpmap:97 L16/{SOUND_HZ}/1", "a=control:audio"]
        return "\r\n".join(lines) + "\r\n"

    def _play(self, ways: dict[str, Any], ended: threading.Event) -> None:
        try:
            heard = [ways["audio"]] if "audio" in ways else []
            threads = [threading.Thread(target=self._guarded, args=(self._hear, way, ended)) for way in heard]
            for thread in threads:
                thread.start()
            if "video" in ways:
                self._guarded(self._see, ways["video"], ended)
            for thread in threads:
                thread.join()
        finally:
            for way in ways.values():
                way.close()

    def _guarded(self, send: Any, way: Any, ended: threading.Event) -> None:
        with suppress(OSError):  # hung up
            send(way, ended)

    def _see(self, way: Any, ended: threading.Event) -> None:
        encoder, rtp = Encoder(self.hz), Rtp(way, 96, VIDEO_HZ)
        for time_us in self._ticks(1 / self.hz, rtp, ended):
            units = encoder(time_us, rtp.ticks(time_us))
            for place, unit in enumerate(units):
                rtp.send(time_us, unit, last=place == len(units) - 1)

    def _hear(self, way: Any, ended: threading.Event) -> None:
        rtp, count = Rtp(way, 97, SOUND_HZ), SOUND_HZ // 50
        for time_us in self._ticks(0.02, rtp, ended):
            samples = (time_us // 1000 + np.arange(count) * 1000 // SOUND_HZ) % SOUND_WRAP
            rtp.send(time_us, samples.astype(">i2").tobytes(), last=True)

    def _ticks(self, step_s: float, rtp: Rtp, ended: threading.Event) -> Iterator[int]:
        """The times at which something is taken, each so long after it as the camera is slow."""
        begun_s, number, reports = time.time(), 0, 0
        while not ended.is_set():
            taken_s = begun_s + number * step_s
            wait_s = taken_s + self.delay_s - time.time()
            if wait_s > 0:
                time.sleep(wait_s)
            if number * step_s >= self.report_after_s + reports:
                reports += 1
                rtp.report(round(taken_s * 1e6), self.off_s)
            yield round(taken_s * 1e6)
            number += 1


class Rtp:
    """One stream of packets."""

    def __init__(self, way: Any, kind: int, hz: int) -> None:
        self._way, self._kind, self._hz = way, kind, hz
        self._number = self._packets = 0
        self._base_us = time.time_ns() // 1000
        self._source = struct.pack(">I", 0x5EE + kind)

    def ticks(self, time_us: int) -> int:
        return (time_us - self._base_us) * self._hz // 1_000_000

    def send(self, time_us: int, payload: bytes, last: bool) -> None:
        if len(payload) <= MOST_BYTES or self._kind != 96:
            self._packet(time_us, payload, last)
            return
        head, rest = payload[0], payload[1:]  # FU-A, RFC 6184, section 5.8
        parts = [rest[at : at + MOST_BYTES] for at in range(0, len(rest), MOST_BYTES)]
        for place, part in enumerate(parts):
            begins, ends = place == 0, place == len(parts) - 1
            indicator = bytes((head & 0xE0 | 28, begins << 7 | ends << 6 | head & 31))
            self._packet(time_us, indicator + part, last and ends)

    def _packet(self, time_us: int, payload: bytes, last: bool) -> None:
        stamp = (self.ticks(time_us) + 77_777) & 0xFFFFFFFF
        head = struct.pack(">BBHI", 0x80, last << 7 | self._kind, self._number & 0xFFFF, stamp)
        self._number += 1
        self._way.send(head + self._source + payload)

    def report(self, time_us: int, off_s: float) -> None:
        """A sender report (RFC 3550, section 6.4.1)."""
        wall_us = time_us + round(off_s * 1e6)
        ntp = ((wall_us // 1_000_000 + NTP_S) << 32) + (wall_us % 1_000_000 << 32) // 1_000_000
        stamp = (self.ticks(time_us) + 77_777) & 0xFFFFFFFF
        counts = struct.pack(">II", self._number, 0)
        self._way.report(struct.pack(">BBH", 0x80, 200, 6) + self._source + struct.pack(">QI", ntp, stamp) + counts)


class _Interleaved:
    def __init__(self, connection: socket.socket, writing: threading.Lock, channel: int) -> None:
        self._connection, self._writing, self._channel = connection, writing, channel

    def send(self, packet: bytes, beside: int = 0) -> None:
        with self._writing:
            self._connection.sendall(struct.pack(">cBH", b"$", self._channel + beside, len(packet)) + packet)

    def report(self, packet: bytes) -> None:
        self.send(packet, 1)

    def close(self) -> None:
        """The connection belongs to the server."""


class _Datagrams:
    def __init__(self, port: int) -> None:
        self._to = port
        while True:
            self._rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._rtp.bind(("127.0.0.1", 0))
            self.port = self._rtp.getsockname()[1]
            self._rtcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                self._rtcp.bind(("127.0.0.1", self.port + 1))
            except OSError:  # somebody else's
                self.close()
                continue
            return

    def send(self, packet: bytes) -> None:
        self._rtp.sendto(packet, ("127.0.0.1", self._to))

    def report(self, packet: bytes) -> None:
        self._rtcp.sendto(packet, ("127.0.0.1", self._to + 1))

    def close(self) -> None:
        self._rtp.close()
        self._rtcp.close()


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
