"""A simulated drive as the files that a car's recorders leave: films with sound, tables, a log of topics."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import msgspec
import numpy as np
import simplejpeg

from streamer.events import Telemetry
from streamer.feeds.producer import Outgoing
from streamer.feeds.simulate import Drive
from streamer.feeds.sound import RATE_HZ
from tests.recordings import Log

S_US = 1_000_000


class Files:
    """The records of a drive, by sensor."""

    def __init__(self, drive: Drive) -> None:
        self._drive = drive
        self._sent: dict[str, list[Outgoing]] = {name: [] for name in drive.options.sensors}
        for record in drive.outgoing():
            if record.sensor is not None:
                self._sent[record.sensor].append(record)

    def film(self, path: Path, camera: str, microphone: str) -> Path:
        """What a camera saw, with what a microphone heard as its sound."""
        frame_hz = self._drive.options.frame_hz
        with av.open(str(path), "w") as container:
            video = container.add_stream("mpeg4", rate=frame_hz)
            video.bit_rate = 4_000_000
            video.pix_fmt = "yuv420p"
            audio = container.add_stream("aac", rate=RATE_HZ, layout="mono")
            video.height, video.width = simplejpeg.decode_jpeg_header(self._sent[camera][0].payload)[:2]
            for number, record in enumerate(self._sent[camera]):
                pixels = simplejpeg.decode_jpeg(record.payload)
                picture = av.VideoFrame.from_ndarray(pixels, "rgb24")
                picture.pts, picture.time_base = number, Fraction(1, frame_hz)
                container.mux(video.encode(picture))
            container.mux(video.encode())
            samples = np.frombuffer(b"".join(r.payload for r in self._sent[microphone]), ">i2").astype(np.int16)
            heard = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
            heard.sample_rate, heard.pts = RATE_HZ, 0
            container.mux(audio.encode(heard))
            container.mux(audio.encode())
        return path

    def table(self, path: Path, sensor: str) -> Path:
        """A CSV file of a telemetry sensor's samples."""
        lines: list[str] = []
        for record in self._sent[sensor]:
            block = msgspec.json.decode(record.payload, type=Telemetry)
            if not lines:
                lines.append(",".join(["time_s", *(f"{name} [{c.unit}]" for name, c in block.channels.items())]))
            begin_s = (record.time_us - self._drive.start_us) / S_US
            rows = zip(*(channel.values for channel in block.channels.values()), strict=True)
            assert block.rate_hz is not None
            lines += [",".join(map(str, [round(begin_s + i / block.rate_hz, 6), *row])) for i, row in enumerate(rows)]
        path.write_text("\n".join(lines) + "\n")
        return path

    def log(self, path: Path, topics: dict[str, str]) -> Path:
        """An MCAP file; ``topics`` are those of its sensors (cameras and telemetry)."""
        log = Log(path)
        sent = sorted(((r.time_us, name, r) for name in topics for r in self._sent[name]), key=lambda one: one[:2])
        for time_us, name, record in sent:
            second = (time_us - self._drive.start_us) / S_US
            if record.content_type == "image/jpeg":
                log.picture(second, record.payload, topics[name])
                continue
            block = msgspec.json.decode(record.payload, type=Telemetry)
            assert block.rate_hz is not None
            for i in range(len(next(iter(block.channels.values())).values)):
                values = {channel: c.values[i] for channel, c in block.channels.items()}
                log.add(log.channel(topics[name]), second + i / block.rate_hz, values)
        return log.finish()
