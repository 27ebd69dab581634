#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg 8.1): a picture of H.264 by RTSP is given when the next one begins, 40 ms late at 25 pictures a
# second, and for as long as a camera pauses. RTP says which packet ends a picture (the marker bit, RFC 6184, section
# 5.1), so that it could be given at once; FFmpeg's depacketizer does not pass this on, and a parser looks for the start
# of the next picture. `fflags=nobuffer` and `flags=low_delay` do not change that. `fflags=noparse` gives what is in each
# packet of RTP, fragments of slices, again without a sign of where a picture ends.
#
# The script is a camera: it sends each picture whole, with the marker, and notes when.
#
# Seen on Python 3.11, Linux:
#   default: given 40.5 ms after it was sent (median); the one before a pause of 500 ms: 500.6 ms
#   nobuffer, low_delay: given 40.5 ms after it was sent (median); the one before a pause of 500 ms: 500.5 ms
#   noparse: 25 packets for each picture
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import base64
import socket
import struct
import threading
import time
from fractions import Fraction
from statistics import median

import av
import numpy as np

HZ, PICTURES, PAUSE_AFTER, PAUSE_S, MOST = 25, 75, 60, 0.5, 1200


def encoded():
    """The NAL units of each picture, as a camera makes them: one slice, no B-pictures."""
    context = av.CodecContext.create("libx264", "w")
    context.width, context.height, context.pix_fmt = 320, 240, "yuv420p"
    context.time_base, context.framerate = Fraction(1, HZ), HZ
    context.options = {"preset": "ultrafast", "tune": "zerolatency", "x264-params": "threads=1", "g": "25"}
    noise = np.random.default_rng(0)
    for number in range(PICTURES):
        picture = av.VideoFrame.from_ndarray(noise.integers(0, 128, (240, 320, 3), np.uint8), "rgb24")
        picture.pts, picture.time_base = number, Fraction(1, HZ)
        raw = b"".join(bytes(packet) for packet in context.encode(picture))
        yield [unit.rstrip(b"\0") for unit in raw.split(b"\0\0\1")[1:]]


def packets(units):
    """Payloads of RTP: single NAL units and fragments (FU-A, RFC 6184), and whether one is the picture's last."""
    found = []
    for unit in units:
        if len(unit) <= MOST:
            found.append(unit)
            continue
        head, parts = unit[0], [unit[at : at + MOST] for at in range(1, len(unit), MOST)]
        for place, part in enumerate(parts):
            ends = place == len(parts) - 1
            found.append(bytes((head & 0xE0 | 28, (place == 0) << 7 | ends << 6 | head & 31)) + part)
    return [(payload, place == len(found) - 1) for place, payload in enumerate(found)]


def camera(listening, pictures, sent_s):
    connection, _ = listening.accept()
    sets = ",".join(base64.b64encode(unit).decode() for unit in pictures[0] if unit[0] & 31 in (7, 8))
    sdp = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
    sdp += f"a=fmtp:96 packetization-mode=1;sprop-parameter-sets={sets}\r\na=framerate:{HZ}\r\na=control:video\r\n"
    with connection, connection.makefile("rb") as lines:
        method = ""
        while method != "PLAY":
            method = lines.readline().decode().split()[0]
            given = dict(line.decode().strip().split(": ", 1) for line in iter(lines.readline, b"\r\n"))
            body, more = "", ""
            if method == "DESCRIBE":
                body, more = sdp, "Content-Type: application/sdp\r\n"
            elif method == "SETUP":
                more = f"Transport: {given['Transport']}\r\nSession: 1\r\n"
            head = f"RTSP/1.0 200 OK\r\nCSeq: {given['CSeq']}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + body).encode())
        count = 0
        for number, units in enumerate(pictures):
            for payload, last in packets(units):
                header = struct.pack(">BBHII", 0x80, last << 7 | 96, count, number * 90_000 // HZ, 1)
                connection.sendall(struct.pack(">cBH", b"$", 0, 12 + len(payload)) + header + payload)
                count += 1
            sent_s[number] = time.monotonic()
            time.sleep(PAUSE_S if number == PAUSE_AFTER else 1 / HZ)


def read(pictures, options):
    """When each picture was sent, when it was given, and how many packets of each time there were."""
    sent_s, given_s, counts = {}, {}, {}
    numbers = {units[-1][:64]: number for number, units in enumerate(pictures)}
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=camera, args=(listening, pictures, sent_s))
        thread.start()
        url = f"rtsp://127.0.0.1:{listening.getsockname()[1]}/"
        with av.open(url, options={"rtsp_transport": "tcp", "analyzeduration": "200000"} | options) as container:
            for packet in container.demux(video=0):
                if packet.pts is not None:
                    number = numbers.get(bytes(packet).split(b"\0\0\1")[-1][:64])
                    given_s[number] = time.monotonic()
                    counts[packet.pts] = counts.get(packet.pts, 0) + 1
        thread.join()
    return sent_s, given_s, counts


print("PyAV", av.__version__, "libavformat", ".".join(map(str, av.library_versions["libavformat"])))
pictures = list(encoded())
for name, options in {"default": {}, "nobuffer, low_delay": {"fflags": "+nobuffer", "flags": "low_delay"}}.items():
    sent_s, given_s, _ = read(pictures, options)
    late_ms = {number: 1000 * (given_s[number] - sent_s[number]) for number in range(20, PICTURES - 1)}
    usual, paused = median(late_ms.values()), late_ms[PAUSE_AFTER]
    print(
        f"{name}: given {usual:.1f} ms after it was sent (median); "
        f"the one before a pause of {1000 * PAUSE_S:.0f} ms: {paused:.1f} ms"
    )
    assert usual > 0.9 * 1000 / HZ, "a picture is given before the next one begins"
    assert paused > 0.9 * 1000 * PAUSE_S, "a picture is given before the next one begins"
_, _, counts = read(pictures, {"fflags": "+noparse"})
print(f"noparse: {median(counts.values()):.0f} packets for each picture")
assert median(counts.values()) > 1, "a picture is one packet now"
print("as described")
PYTHON
