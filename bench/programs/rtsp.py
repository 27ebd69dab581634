"""An RTSP camera for tests and benchmarks, and a program of several that show a film again and again.

    python -m bench.programs.rtsp FILM COUNT      # prints an address a line, then `ready`

The film is H.264 in an MPEG transport stream of 25 pictures a second, which are sent when their encoder would have.
"""

from __future__ import annotations

import base64
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import av
import numpy as np

NTP_S = 2_208_988_800  # from 1900 to 1970: RFC 5905
VIDEO_HZ, SOUND_HZ = 90_000, 16_000
SOUND_WRAP = 30_000  # a sample of sound is the milliseconds since the epoch, modulo this
MOST_BYTES = 1200  # of an RTP payload
FILM_HZ = 25

Units = Callable[[int, int], tuple[int, list[bytes]]]  # -> when it is shown, µs since the epoch; its NAL units


class Rtsp:
    """An RTSP server with one camera (RFC 2326, 3550, 6184), over TCP or UDP as it is asked.

    Args:
        units: Makes what gives the NAL units of the picture of a time, with its stamp: (µs since the epoch, ticks).
        hz: Pictures a second.
        sound: It has a microphone too: L16, RFC 3551.
        report_after_s: Sender reports come from so long after PLAY on, each second.
        off_s: What its clock is ahead.
        delay_s: What it takes from the lens to the wire.
    """

    def __init__(
        self,
        units: Callable[[], Units],
        hz: int = 25,
        sound: bool = False,
        report_after_s: float = 0.0,
        off_s: float = 0.0,
        delay_s: float = 0.0,
        port: int = 0,
        answer: str = "200 OK",
    ) -> None:
        self._units = units
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
        self.close()

    def close(self) -> None:
        """Listen no more, and end all connections."""
        with suppress(OSError):  # it is closed already
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
        units = {unit[0] & 31: unit for unit in self._units()(0, 0)[1]}
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
        encoded, rtp = self._units(), Rtp(way, 96, VIDEO_HZ)
        for time_us in self._ticks(1 / self.hz, rtp, ended):
            shown_us, units = encoded(time_us, rtp.ticks(time_us))
            for place, unit in enumerate(units):
                rtp.send(shown_us, unit, last=place == len(units) - 1)

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


def units_of(raw: bytes) -> list[bytes]:
    """The NAL units of a picture with start codes (ITU-T H.264, annex B)."""
    return [unit.rstrip(b"\0") for unit in raw.split(b"\0\0\1")[1:]]


class Film:
    """A film again and again: pictures in the order of decoding, each with the time at which it was taken.

    An encoder of B-pictures takes some pictures before it can send the first of them.
    """

    def __init__(self, path: str) -> None:
        with av.open(path, format="mpegts") as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
        order = sorted(range(len(packets)), key=lambda place: packets[place].pts or 0)
        ranks = {place: rank for rank, place in enumerate(order)}
        self._pictures = [(ranks[place] - place, units_of(bytes(one))) for place, one in enumerate(packets)]
        self._latest = max(later for later, _ in self._pictures)  # sent as soon as it was taken
        self._number = 0

    def __call__(self, time_us: int, _: int) -> tuple[int, list[bytes]]:
        later, units = self._pictures[self._number % len(self._pictures)]
        self._number += 1
        return time_us + (later - self._latest) * 1_000_000 // FILM_HZ, units


def main() -> None:
    path, count = sys.argv[1], int(sys.argv[2])
    for camera in [Rtsp(lambda: Film(path), FILM_HZ) for _ in range(count)]:
        print(camera.url)
    print("ready", flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
