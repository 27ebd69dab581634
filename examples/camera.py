"""A camera for who has none: a moving test picture, sent live by RTSP to `streamer capture listen+rtsp://…`.

python camera.py rtsp://127.0.0.1:8554/door    # until Ctrl-C
"""

import sys
import time
from contextlib import suppress

import av
from av.container import OutputContainer
from av.video.stream import VideoStream

HZ = 25


def connected(url: str) -> tuple[OutputContainer, VideoStream]:
    """The way to who listens at an address, and its stream of pictures; waits until somebody does."""
    while True:
        camera = av.open(url, "w", format="rtsp", options={"rtsp_transport": "tcp"})
        # As IP cameras do: each picture refers to the one before, and a key frame each second lets others join.
        encoder = {"preset": "veryfast", "tune": "zerolatency", "g": str(HZ)}
        stream = camera.add_stream("libx264", rate=HZ, options=encoder)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        try:
            camera.start_encoding()
        except ConnectionRefusedError:
            time.sleep(0.5)
        else:
            return camera, stream


def main(url: str) -> None:
    camera, stream = connected(url)
    print(f"sending to {url}")
    begun_s = time.monotonic()
    with camera, av.open(f"testsrc2=size=640x360:rate={HZ}", format="lavfi") as pictures:
        for number, picture in enumerate(pictures.decode(video=0)):
            time.sleep(max(0.0, begun_s + number / HZ - time.monotonic()))
            camera.mux(stream.encode(picture))


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(sys.argv[1])
