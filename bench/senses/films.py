"""Frames and sound of the films that the senses are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def frames_of(film: Path, count: int) -> list[NDArray[np.uint8]]:
    """Frames evenly spread over a film, uint8 [H, W, 3], RGB."""
    with av.open(str(film)) as container:
        total = sum(1 for _ in container.decode(video=0))
    wanted = {int((n + 0.5) * total / count) for n in range(count)}
    with av.open(str(film)) as container:
        return [_rgb(frame) for n, frame in enumerate(container.decode(video=0)) if n in wanted]


def frames_at(film: Path, seconds: Sequence[float]) -> list[NDArray[np.uint8]]:
    """The first frames of a film at or after times, in seconds after its first; uint8 [H, W, 3], RGB."""
    found: list[NDArray[np.uint8]] = []
    with av.open(str(film)) as container:
        first_s = None
        for frame in container.decode(video=0):
            first_s = frame.time if first_s is None else first_s
            if len(found) < len(seconds) and frame.time - first_s >= seconds[len(found)] - 1e-6:
                found.append(_rgb(frame))
    return found


def mono(path: Path, rate_hz: int) -> NDArray[np.float32]:
    """The sound of a file, float32 at this rate."""
    resampler = av.AudioResampler("fltp", "mono", rate_hz)
    with av.open(str(path)) as container:
        frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
    frames += resampler.resample(None)
    samples_S: NDArray[np.float32] = np.concatenate([frame.to_ndarray()[0] for frame in frames])
    return samples_S


def enlarged(source: Path, path: Path, size: tuple[int, int]) -> Path:
    """The film with pictures of another width and height, and its sound."""
    with av.open(str(source)) as before, av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30, options={"preset": "veryfast"})
        video.width, video.height, video.pix_fmt = *size, "yuv420p"
        sound = container.add_stream_from_template(before.streams.audio[0])
        for packet in before.demux(before.streams.video[0], before.streams.audio[0]):
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                packet.stream = sound
                container.mux(packet)
                continue
            for frame in packet.decode():
                assert isinstance(frame, av.VideoFrame)
                container.mux(video.encode(frame.reformat(*size, "yuv420p")))
        container.mux(video.encode())
    return path


def _rgb(frame: av.VideoFrame) -> NDArray[np.uint8]:
    return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
