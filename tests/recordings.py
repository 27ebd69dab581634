"""Recordings made for tests, and a replay's records decoded as in the pipeline."""

from __future__ import annotations

import base64
import json
import wave
from collections import defaultdict
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from mcap.writer import Writer

from streamer.align.decode import Decoder
from streamer.events import Event, EventType, Record, Telemetry, Transcript
from streamer.feeds import replay
from streamer.feeds.producer import headers
from streamer.settings import Settings

START_US = 1_700_000_000_000_000
S_US = 1_000_000
BASE_NS = 1_700_000_000 * 10**9
SUBTITLE_STYLES = b"[V4+ Styles]\r\nFormat: Name, Fontname, Fontsize\r\nStyle: Default,Arial,16\r\n\r\n[Events]\r\n"


def events(*paths: Path, streams: Iterable[int] = (), recording: replay.Recording | None = None) -> list[Event]:
    """The events of a replay: every record decoded, which also checks it; the end record last."""
    decoder = Decoder(Settings.load(), partitions=1)
    recording = recording or replay.open_all(paths, replay.Options(streams=tuple(streams)))
    sent = list(recording.outgoing("test", START_US))
    assert all(a.due_us <= b.due_us for a, b in pairwise(sent))
    # sent at its due time, a record must not be refused as one from the future
    return [
        decoder.decode(Record(r.row, 0, i, r.due_us, b"test", r.payload, tuple(headers(r)))) for i, r in enumerate(sent)
    ]


def by_row(found: Iterable[Event]) -> dict[int, list[Event]]:
    rows: dict[int, list[Event]] = defaultdict(list)
    for event in found:
        if event.type is EventType.DATA:
            rows[event.row].append(event)
    return rows


def spans(found: Iterable[Event]) -> list[tuple[float, float]]:
    """Start and end of events in seconds of the recording."""
    return [((e.start_us - START_US) / S_US, (e.end_us - START_US) / S_US) for e in found]


def texts(found: Iterable[Event]) -> list[str]:
    return [e.body.text for e in found if isinstance(e.body, Transcript)]


def pcm(found: Iterable[Event], channels: int = 1) -> np.ndarray[Any, np.dtype[np.int16]]:
    """All samples of sound events [S, channels]."""
    return np.frombuffer(b"".join(e.record.value for e in found), ">i2").astype(np.int16).reshape(-1, channels)


def samples(found: Iterable[Event]) -> dict[str, list[tuple[float, float]]]:
    """Telemetry channel -> (second of the recording, value) of every sample."""
    channels: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for event in found:
        assert isinstance(event.body, Telemetry)
        assert event.body.times is not None
        begin = (event.start_us - START_US) / S_US
        for name, channel in event.body.channels.items():
            channels[name] += [(begin + t, v) for t, v in zip(event.body.times, channel.values, strict=True)]
    return channels


def film(
    path: Path,
    seconds: float = 2.0,
    frame_hz: int = 10,
    rate_hz: int = 44_100,
    cues: Iterable[tuple[float, float, str]] = (),
    size: tuple[int, int] = (64, 48),
    sound: bool = True,
    rotation: int = 0,
) -> Path:
    """A film whose frames grow brighter, with a tone and subtitles."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=frame_hz)
        video.width, video.height = size
        video.pix_fmt = "yuv420p"
        if rotation:
            video.set_display_rotation(rotation)
        audio = container.add_stream("aac", rate=rate_hz, layout="mono") if sound else None
        shown = list(cues)
        text = container.add_stream("mov_text") if shown else None
        if text is not None:
            text.codec_context.subtitle_header = SUBTITLE_STYLES
        count = round(seconds * frame_hz)
        for i in range(count):
            pixels = np.full((size[1], size[0], 3), 255 * i // max(1, count - 1), np.uint8)
            picture = av.VideoFrame.from_ndarray(pixels, "rgb24")
            picture.pts = i
            picture.time_base = Fraction(1, frame_hz)
            container.mux(video.encode(picture))
        container.mux(video.encode())
        if audio is not None:
            tone = (np.sin(np.arange(round(seconds * rate_hz)) / 9) * 9000).astype(np.int16)
            heard = av.AudioFrame.from_ndarray(tone[None], "s16", "mono")
            heard.sample_rate = rate_hz
            heard.pts = 0
            container.mux(audio.encode(heard))
            container.mux(audio.encode())
        for begin, end, line in shown:
            assert text is not None
            body = line.encode()
            packet = av.Packet(len(body).to_bytes(2, "big") + body)
            packet.stream, packet.time_base = text, Fraction(1, 1000)
            packet.pts = packet.dts = round(begin * 1000)
            packet.duration = round((end - begin) * 1000)
            container.mux(packet)
    return path


def wav(path: Path, seconds: float = 1.0, rate_hz: int = 8000, channels: int = 1) -> np.ndarray[Any, Any]:
    """A WAV file of noise; returns its samples [S, channels]."""
    noise = np.random.default_rng(1).integers(-20_000, 20_000, (round(seconds * rate_hz), channels)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes(noise.tobytes())
    return noise


class Log:
    """An MCAP file being written."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self._file = path.open("wb")
        self._writer = Writer(self._file, **options)
        self._writer.start()
        self._channels: dict[str, int] = {}

    def channel(
        self, topic: str, schema: str = "", encoding: str = "json", definition: bytes = b"{}", language: str = ""
    ) -> int:
        """The channel of a topic, with a schema in a language (by default what belongs to the encoding)."""
        if topic not in self._channels:
            kind = language or ("jsonschema" if encoding == "json" else encoding)
            schema_id = self._writer.register_schema(schema, kind, definition) if schema else 0
            self._channels[topic] = self._writer.register_channel(topic, encoding, schema_id)
        return self._channels[topic]

    def another(self, topic: str) -> int:
        """A second sender of a topic without a schema."""
        return int(self._writer.register_channel(topic, "json", 0))

    def attach(self, name: str) -> None:
        self._writer.add_attachment(BASE_NS, BASE_NS, name, "text/plain", b"attached")

    def add(self, channel: int, second: float, body: dict[str, Any] | bytes) -> None:
        time_ns = BASE_NS + round(second * 1e9)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self._writer.add_message(channel, time_ns, data, time_ns)

    def picture(self, second: float, payload: bytes, topic: str = "/camera", form: str = "jpeg") -> None:
        body = {"timestamp": stamp(second), "data": base64.b64encode(payload).decode(), "format": form}
        self.add(self.channel(topic, "foxglove.CompressedImage"), second, body)

    def sound(self, second: float, chunk: bytes, rate_hz: int, channels: int = 1, form: str = "pcm-s16") -> None:
        body = {
            "timestamp": stamp(second),
            "data": base64.b64encode(chunk).decode(),
            "format": form,
            "sample_rate": rate_hz,
            "number_of_channels": channels,
        }
        self.add(self.channel("/microphone", "foxglove.RawAudio"), second + len(chunk) / 2 / channels / rate_hz, body)

    def finish(self) -> Path:
        self._writer.finish()  # type: ignore[no-untyped-call]  # mcap has no types here
        self._file.close()
        return self.path


def stamp(second: float) -> dict[str, int]:
    whole, nsec = divmod(BASE_NS + round(second * 1e9), 10**9)
    return {"sec": whole, "nsec": nsec}
