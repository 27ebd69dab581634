#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg 8.1): `start_time_realtime` of RTSP, from which programs compute when something was taken, is that
# of the first sender report (RFC 3550, section 6.4.1), and no later report changes it. So whoever computes with it
# follows neither a camera's clock that is set while it plays, nor one of its media clock that drifts. Each packet's side
# data has what the newest report says (`prft`, AVProducerReferenceTime).
#
# The script is a microphone whose clock is set forward by 5 s between its first and its second report.
#
# Seen on Python 3.11, Linux:
#   first packets: start_time_realtime +0.0 s, prft +0.0 s from the time at which they were sent
#   last packets: start_time_realtime +0.0 s, prft +5.0 s
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import socket
import struct
import threading
import time

import av

HZ, STEP_S, PACKETS, SET_AT, SET_BY_S = 8000, 0.02, 100, 50, 5.0
NTP_S = 2_208_988_800  # from 1900 to 1970: RFC 5905
SDP = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=audio 0 RTP/AVP 0\r\na=control:audio\r\n"  # G.711, μ-law


def microphone(listening):
    connection, _ = listening.accept()
    with connection, connection.makefile("rb") as lines:
        method = ""
        while method != "PLAY":
            method = lines.readline().decode().split()[0]
            given = dict(line.decode().strip().split(": ", 1) for line in iter(lines.readline, b"\r\n"))
            body, more = "", ""
            if method == "DESCRIBE":
                body, more = SDP, "Content-Type: application/sdp\r\n"
            elif method == "SETUP":
                more = f"Transport: {given['Transport']}\r\nSession: 1\r\n"
            head = f"RTSP/1.0 200 OK\r\nCSeq: {given['CSeq']}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
            connection.sendall((head + body).encode())
        begun_s = time.time()
        for number in range(PACKETS):
            now_s, stamp = begun_s + number * STEP_S, int(number * STEP_S * HZ)
            if number in (0, SET_AT):
                shown_s = now_s + (SET_BY_S if number else 0) + NTP_S
                ntp = (int(shown_s) << 32) + int(shown_s % 1 * 2**32)
                report = struct.pack(">BBHIQIII", 0x80, 200, 6, 1, ntp, stamp, number, 160 * number)
                connection.sendall(struct.pack(">cBH", b"$", 1, len(report)) + report)
            packet = struct.pack(">BBHII", 0x80, 0, number, stamp, 1) + bytes(160)
            connection.sendall(struct.pack(">cBH", b"$", 0, len(packet)) + packet)
            time.sleep(max(0.0, now_s + STEP_S - time.time()))


print("PyAV", av.__version__, "libavformat", ".".join(map(str, av.library_versions["libavformat"])))
found = []
with socket.create_server(("127.0.0.1", 0)) as listening:
    threading.Thread(target=microphone, args=(listening,)).start()
    url = f"rtsp://127.0.0.1:{listening.getsockname()[1]}/"
    with av.open(url, options={"rtsp_transport": "tcp", "analyzeduration": "100000"}) as container:
        for packet in container.demux(audio=0):
            if not packet.size:
                continue
            (told_us,) = struct.unpack_from("<q", bytes(packet.get_sidedata("prft")))
            computed_us = container.start_time_realtime + int(packet.pts * packet.time_base * 1e6)
            found.append((computed_us, told_us))

begun_us = found[0][1]  # the first report is right
sent_us = [begun_us + number * STEP_S * 1e6 for number in range(len(found))]
shown = [[round((time_us - sent) / 1e6, 1) + 0.0 for time_us in pair] for pair, sent in zip(found, sent_us)]
(first, first_told), (last, last_told) = shown[0], shown[-1]
print(f"first packets: start_time_realtime {first:+.1f} s, prft {first_told:+.1f} s from the time at which they were sent")
print(f"last packets: start_time_realtime {last:+.1f} s, prft {last_told:+.1f} s")
assert abs(first) < 0.1 and abs(last) < 0.1, "start_time_realtime follows the second report"
assert abs(last_told - SET_BY_S) < 0.1, "prft does not follow the second report"
print("as described")
PYTHON
