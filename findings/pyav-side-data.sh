#!/usr/bin/env bash
# PyAV 18.1.0 (FFmpeg 8.1): two things about VideoFrame.side_data, on a film that PyAV itself writes.
#
# 1. Asking a frame for its side data makes a reference cycle between the frame and the container of its side data.
#    CPython frees the frame only when its cyclic garbage collector happens to run, and few Python objects are made for
#    each frame, each of some megabytes: decoding 200 frames of 1080p grows the process by half a gigabyte, by nothing
#    without side_data. gc.collect() between frames shows that it is a cycle, not a leak.
# 2. It raises ValueError for a frame with a kind of side data that PyAV's enumeration does not list. FFmpeg 8 attaches
#    EXIF (kind 31) to pictures of JPEG and Motion JPEG that have it; then none of the frame's other side data, such as
#    its display matrix, can be read. VideoFrame.rotation still works.
#
# Seen on Python 3.11, Linux:
#   grown by 0 MiB without side_data, by 479 MiB with it, by 1 MiB with it and gc.collect()
#   rotation -90, side_data: ValueError: 31 is not a valid Type
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check av==18.1.0 numpy==2.4.6 pillow==13.0.0 psutil==7.2.2
mkdir "$folder/work" && cd "$folder/work"
"$folder/venv/bin/python" - <<'PYTHON'
import gc
from fractions import Fraction

import av
import numpy as np
import psutil
from PIL import Image

print("PyAV", av.__version__, "libavcodec", ".".join(map(str, av.library_versions["libavcodec"])))
with av.open("film.mp4", "w") as container:
    stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
    stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
    frame = av.VideoFrame.from_ndarray(np.zeros((1080, 1920, 3), np.uint8), "rgb24")
    for number in range(200):
        frame.pts = number
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def grown_mib(ask, collect):
    """MiB by which the process grows while the film is decoded."""
    gc.collect()
    process, most = psutil.Process(), 0
    before = process.memory_info().rss
    with av.open("film.mp4") as container:
        for frame in container.decode(video=0):
            if ask:
                len(frame.side_data)
            if collect:
                gc.collect()
            most = max(most, process.memory_info().rss - before)
    return most >> 20


grown_mib(False, False)  # the buffers that decoding needs are there from now on
without, asked, collected = grown_mib(False, False), grown_mib(True, False), grown_mib(True, True)
print(f"grown by {without} MiB without side_data, by {asked} MiB with it, by {collected} MiB with it and gc.collect()")
assert asked > 300 > 100 > max(without, collected), "the cycle is gone"

exif = Image.Exif()
exif[0x0112] = 6  # orientation: a quarter turn
Image.new("RGB", (96, 64)).save("turned.jpg", exif=exif)
with av.open("turned.jpg") as container:
    frame = next(container.decode(video=0))
    try:
        print([found.type for found in frame.side_data])
    except ValueError as error:
        print(f"rotation {frame.rotation}, side_data: ValueError: {error}")
        assert (str(error), frame.rotation) == ("31 is not a valid Type", -90)
    else:
        raise SystemExit("the kind of side data is known now")
print("as described")
PYTHON
