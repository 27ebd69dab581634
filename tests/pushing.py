"""Sends pictures that show the clock, by PyAV: ``python -m tests.pushing FORMAT ADDRESS SECONDS``.

Prints by how many milliseconds the times that it reports may be wrong.
"""

from __future__ import annotations

import sys
import time
from fractions import Fraction
from typing import Any

import av

from tests import cameras

HZ, TICKS = 25, 90_000


def main(form: str, address: str, seconds: float) -> None:
    with av.open(address, "w", format=form) as container:
        stream: Any = container.add_stream(
            "libx264", rate=HZ, options={"preset": "ultrafast", "tune": "zerolatency", "g": str(HZ)}
        )
        stream.width, stream.height, stream.pix_fmt = cameras.WIDTH, cameras.HEIGHT, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        asked_s = time.time()  # FFmpeg's sender reports date stamp 0 between now and when it has connected
        container.start_encoding()
        begun_s = time.time()
        print(1000 * (begun_s - asked_s))
        for number in range(round(seconds * HZ)):
            taken_s = begun_s + number / HZ
            time.sleep(max(0.0, taken_s - time.time()))
            picture = av.VideoFrame.from_ndarray(cameras.shown(round(taken_s * 1e6)), "rgb24")
            picture.pts, picture.time_base = round((taken_s - asked_s) * TICKS), Fraction(1, TICKS)
            container.mux(stream.encode(picture))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]))
