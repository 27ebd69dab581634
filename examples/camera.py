"""A camera for who has none: a moving test picture, sent live by RTSP to `streamer capture listen+rtsp://…`.

python camera.py rtsp://127.0.0.1:8554/door    # until Ctrl-C
"""

import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import av
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

HZ = 25


def connected(url: str) -> tuple[OutputContainer, VideoStream]:
    """The way to who listens at an address, and its stream of pictures; waits until somebody does."""
    print(f"waiting until somebody listens at {url}", flush=True)
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
    with av.open(f"testsrc2=size=640x360:rate={HZ}", format="lavfi") as source:
        pictures = source.decode(video=0)
        while True:
            camera, stream = connected(url)
            print(f"sending to {url}", flush=True)
            with suppress(BrokenPipeError, ConnectionResetError):  # who listened has gone
                send(pictures, camera, stream)


def send(pictures: Iterator[VideoFrame], camera: OutputContainer, stream: VideoStream) -> None:
    """As many pictures a second as a camera gives."""
    begun_s = time.monotonic()
    with camera:
        for number, picture in enumerate(pictures):
            time.sleep(max(0.0, begun_s + number / HZ - time.monotonic()))
            picture.pts = number
            camera.mux(stream.encode(picture))


if __name__ == "__main__":
    if len(sys.argv) != 2 or not sys.argv[1].startswith("rtsp://"):
        sys.exit("usage: python camera.py rtsp://HOST:PORT/PATH")
    with suppress(KeyboardInterrupt):
        main(sys.argv[1])
