#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg 8.1): an RTSP address opened with `rtsp_flags=listen` and no `listen_timeout` fails at once, with
# "Numerical result out of range", instead of waiting for a sender. By the documentation the default of listen_timeout,
# -1, "means infinite"; FFmpeg gives its TCP protocol -1000 for it, "listen_timeout" in ms, which refuses numbers below
# -1. With listen_timeout in seconds it waits, and takes what a sender pushes.
#
# Seen on Python 3.11, Linux:
#   without: OverflowError after 0.00 s: [Errno 34] Numerical result out of range
#   listen_timeout=20: 25 pictures
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import socket
import threading
import time

import av
import numpy as np

PICTURES = 25


def push(url):
    """Send some pictures, once somebody listens."""
    for _ in range(100):
        try:
            container = av.open(url, "w", format="rtsp", options={"rtsp_transport": "tcp"})
            stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "tune": "zerolatency"})
            stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
            container.start_encoding()
            break
        except OSError:
            time.sleep(0.1)
    for number in range(PICTURES):
        picture = av.VideoFrame.from_ndarray(np.full((240, 320, 3), number, np.uint8), "rgb24")
        picture.pts = number
        container.mux(stream.encode(picture))
    container.mux(stream.encode())
    container.close()


print("PyAV", av.__version__, "libavformat", ".".join(map(str, av.library_versions["libavformat"])))
with socket.create_server(("127.0.0.1", 0)) as taken:
    url = f"rtsp://127.0.0.1:{taken.getsockname()[1]}/live"

begun_s = time.monotonic()
try:
    av.open(url, options={"rtsp_flags": "listen"}, timeout=5)
except av.error.FFmpegError as error:
    took_s = time.monotonic() - begun_s
    print(f"without: {type(error).__name__} after {took_s:.2f} s: [Errno {error.errno}] {error.strerror}")
    assert (error.errno, error.strerror) == (34, "Numerical result out of range"), "it fails in another way"
    assert took_s < 2, "it waits"
else:
    raise SystemExit("it can be opened without a sender")

thread = threading.Thread(target=push, args=(url,))
thread.start()
with av.open(url, options={"rtsp_flags": "listen", "listen_timeout": "20"}) as container:
    count = sum(1 for packet in container.demux(video=0) if packet.size)
thread.join()
print(f"listen_timeout=20: {count} pictures")
assert count > PICTURES // 2
print("as described")
PYTHON
