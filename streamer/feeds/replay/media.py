"""Film and sound files, through PyAV (FFmpeg): frames, sound, subtitles, GoPro's telemetry.

Each track is read through a separate file handle, and the readers are merged by due time: memory stays bounded
whatever the interleaving and length of the file, at the price of reading the container once per track.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import simplejpeg
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition
from av.video.reformatter import Colorspace, VideoReformatter
from numpy.typing import NDArray

from streamer import events
from streamer.errors import UsageError
from streamer.events import IMAGE, TELEMETRY, TEXT
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay import gpmf, speech
from streamer.feeds.replay.part import S_US, SLICE_US, Options, Part, Sound, check_sound, due, frame, telemetry

FILM = (
    ".mp4", ".mov", ".m4v", ".360", ".lrv", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts",
)  # fmt: skip
SOUND = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".m4a", ".aac")

JPEG_QUALITY = 85
HD_LINES = 720  # where a film does not name its colour matrix: BT.709 from here on, BT.601 below, as players assume
BITMAPS = ("dvd_subtitle", "hdmv_pgs_subtitle", "dvb_subtitle", "xsub", "dvb_teletext")  # pictures of text
ESTIMATED = {"mp3", "aac", "mpeg", "mpegts"}  # containers whose length FFmpeg guesses from the bit rate
TICK_US = 1_000_000 // av.time_base  # of container times
TEXT_ART = "tty"  # FFmpeg takes any text for pictures of a terminal
CLOCK_SET_US = 946_684_800 * S_US  # 2000; earlier times come from cameras whose clock was never set

VIDEO, AUDIO, SUBTITLE, DATA = KINDS = ("video", "audio", "subtitle", "data")
ROWS = {VIDEO: IMAGE, AUDIO: events.AUDIO, SUBTITLE: TEXT, DATA: TELEMETRY}
Reader = Callable[[], Iterator[Outgoing]]


class Track(NamedTuple):
    """A track to choose from."""

    number: int
    kind: str
    usable: bool
    described: str


def part(path: Path, options: Options) -> Part:
    """Open a film or sound file.

    Raises:
        UsageError: It is broken, has no such track, or nothing that can be sent.
    """
    with _opened(path) as container:
        tracks = [_track(stream) for stream in container.streams]
        _mark_telemetry(path, tracks)
        chosen = _choose(path, container, tracks, options.streams)
        origin_us = (container.start_time or 0) * TICK_US
        length_us = (container.duration or 0) * TICK_US
        if not length_us or container.format.name in ESTIMATED:
            length_us = _scanned_us(path, [i for kind, i in chosen.items() if kind != SUBTITLE], origin_us)
        utc_us = _created_us(container.metadata.get("creation_time", ""))
        language = container.streams[chosen[SUBTITLE]].language if SUBTITLE in chosen else None
    sends = frozenset(ROWS[kind] for kind in chosen)
    made = Part(path, length_us, lambda _: iter(()), sends, utc_us=utc_us, tracks=len(tracks))
    readers = {
        VIDEO: partial(_frames, made, origin_us),
        AUDIO: partial(_sound, made, origin_us),
        SUBTITLE: partial(_subtitles, made, origin_us, None if language == "und" else language),
        DATA: partial(_telemetry, made, origin_us),
    }
    made_of: list[Reader] = [partial(readers[kind], index) for kind, index in chosen.items()]
    sidecar = (
        None if any(track.kind == SUBTITLE and track.number in options.streams for track in tracks) else _beside(path)
    )
    if sidecar is not None:
        made_of = [partial(readers[kind], index) for kind, index in chosen.items() if kind != SUBTITLE]
        cues = speech.read(sidecar)
        made.uses = frozenset({sidecar})
        made.sends |= {TEXT}
        made_of.append(lambda: speech.transcripts(cues, made.length_us))
    if DATA in chosen:
        made.utc_us = _gps_us(path, chosen[DATA], origin_us) or made.utc_us
    made.records = lambda _: heapq.merge(*(read() for read in made_of), key=due)
    return made


def _beside(path: Path) -> Path | None:
    """The subtitles or word timings beside a film or sound file; ``None`` if there are none, or for other files."""
    if path.suffix.lower() in SOUND:
        return speech.sidecar(path, (speech.WORD_SUFFIX, *speech.SUFFIXES))
    # a .json beside a film may be anything
    return speech.sidecar(path, speech.SUFFIXES) if path.suffix.lower() in FILM else None


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        container = av.open(str(path))
    except FFmpegError as error:
        raise UsageError(f"{path} cannot be opened: {_why(error)}; is it whole, and what its name says?") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be opened: {error.strerror}") from None
    with container:
        if container.format.name == TEXT_ART:
            raise UsageError(f"{path} is text, no film")
        yield container


def _why(error: FFmpegError) -> str:
    return str(error.strerror or error).lower()


# choosing tracks


def _track(stream: Any) -> Track:
    codec = stream.codec_context
    name = codec.name if codec is not None else "unknown"
    kind = stream.type if stream.type in KINDS else "other"
    cover = bool(stream.disposition & Disposition.attached_pic)
    usable = kind in (VIDEO, AUDIO, SUBTITLE) and codec is not None and not cover and name not in BITMAPS
    return Track(stream.index, kind, usable, f"{stream.index} {'cover picture' if cover else kind} ({name})")


def _mark_telemetry(path: Path, tracks: list[Track]) -> None:
    """Mark the data tracks whose first payload is GPMF as usable: the container does not say what they hold."""
    data = {track.number for track in tracks if track.kind == DATA}
    if not data:
        return
    with _opened(path) as container:
        for packet in container.demux([container.streams[index] for index in sorted(data)]):
            if packet.size and packet.stream.index in data:
                index = packet.stream.index
                data.remove(index)
                if bytes(packet)[: len(gpmf.KEY)] == gpmf.KEY:
                    tracks[index] = Track(index, DATA, True, f"{index} telemetry (gpmd)")
            if not data:
                return


def _choose(path: Path, container: Any, tracks: Sequence[Track], wanted: Sequence[int]) -> dict[str, int]:
    """Kind -> index of the track to read."""
    there = ", ".join(track.described for track in tracks)
    chosen: dict[str, int] = {}
    for index in dict.fromkeys(wanted):
        track = tracks[index] if 0 <= index < len(tracks) else None
        if track is None or not track.usable:
            raise UsageError(f"{path}: track {index} cannot be sent; it has: {there}")
        if track.kind in chosen:
            raise UsageError(f"{path}: tracks {chosen[track.kind]} and {index} are both {track.kind}; choose one")
        chosen[track.kind] = index
    for kind in KINDS:
        best = container.streams.best(kind) if kind != DATA else None
        candidates = [track.number for track in tracks if track.kind == kind and track.usable]
        if kind not in chosen and candidates:
            chosen[kind] = best.index if best is not None and best.index in candidates else candidates[0]
    if not chosen:
        raise UsageError(f"{path} has no track that can be sent; it has: {there or 'none'}")
    if AUDIO in chosen:
        codec = container.streams[chosen[AUDIO]].codec_context
        check_sound(f"{path}: track {chosen[AUDIO]}", codec.sample_rate, codec.channels)
    return chosen


# times


def _scanned_us(path: Path, indices: Sequence[int], origin_us: int) -> int:
    """Where the last packet ends, for containers that do not state their length."""
    last_us = 0
    with _opened(path) as container:
        try:
            for packet in container.demux([container.streams[index] for index in indices]):
                if packet.pts is not None:
                    end = packet.pts + (packet.duration or 0)
                    last_us = max(last_us, _us(end, packet.time_base) - origin_us)
        except FFmpegError:
            pass  # the user learns of it when the file is read to be sent
    return last_us


def _us(ticks: int, time_base: Any) -> int:
    return int(ticks * time_base.numerator * S_US // time_base.denominator)


def _created_us(text: str) -> int | None:
    try:
        created_us = round(datetime.fromisoformat(text).timestamp() * S_US)
    except ValueError:
        return None
    return created_us if created_us >= CLOCK_SET_US else None


def _gps_us(path: Path, index: int, origin_us: int) -> int | None:
    """When the recording began, by the first payload with a GPS fix; ``None`` if there is none."""
    with _opened(path) as container:
        for packet in container.demux(container.streams[index]):
            if packet.size and packet.pts is not None:
                try:
                    now_us = gpmf.utc_us(bytes(packet))
                except ValueError:
                    continue
                if now_us is not None:
                    return now_us - (_us(packet.pts, packet.time_base) - origin_us)
    return None


# reading tracks


def _packets(made: Part, index: int) -> Iterator[Any]:
    """Packets of a track; a file that is cut off ends early."""
    with _opened(made.path) as container:
        stream = container.streams[index]
        if stream.type == VIDEO:
            stream.thread_type = "AUTO"
        try:
            yield from container.demux(stream)
        except FFmpegError as error:
            made.notes.append(f"{made.path}: track {index} could not be read to its end: {_why(error)}")


def _decoded(made: Part, index: int) -> Iterator[Any]:
    """What a track's packets hold. Broken packets are skipped, as players do.

    Raises:
        UsageError: None of them could be decoded.
    """
    good = broken = 0
    for packet in _packets(made, index):
        try:
            found = packet.decode()
        except InvalidDataError:
            broken += 1
            continue
        except FFmpegError as error:
            raise UsageError(f"{made.path}: track {index} cannot be decoded: {_why(error)}") from None
        good += len(found)
        yield from found
    if broken and not good:
        raise UsageError(f"{made.path}: track {index} is broken: nothing of it can be decoded; choose another --stream")
    if broken:
        made.notes.append(f"{made.path}: {broken} broken packets of track {index} were left out")


def _frames(made: Part, origin_us: int, index: int) -> Iterator[Outgoing]:
    encode = Jpeg()
    last_us, step_us = 0, 0
    for picture in _decoded(made, index):
        # raw streams have no time stamps
        time_us = last_us + step_us if picture.pts is None else _us(picture.pts, picture.time_base) - origin_us
        last_us, step_us = time_us, _us(picture.duration or 0, picture.time_base) or S_US // 25
        yield frame(encode(picture), time_us)


class Jpeg:
    """Encodes frames of a film as JPEG pictures, the right way up."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, picture: Any) -> bytes:
        matrix = picture.colorspace
        if matrix not in set(Colorspace):
            matrix = Colorspace.ITU709 if picture.height >= HD_LINES else Colorspace.ITU601
        plane = self._reformatter.reformat(picture, format="rgb24", src_colorspace=matrix).planes[0]
        rows = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)
        rgb_HW3: NDArray[np.uint8] = rows[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
        turns = round(picture.rotation / 90)  # counter-clockwise; phones film sideways and record the rotation
        encoded: bytes = simplejpeg.encode_jpeg(
            np.ascontiguousarray(np.rot90(rgb_HW3, turns)), JPEG_QUALITY, colorspace="RGB", colorsubsampling="420"
        )
        return encoded


class Even:
    """Converts decoded sound to 16 bits, interleaved, at the rate and with the channels of its first frame."""

    def __init__(self, first: Any) -> None:
        # the decoder knows better than the container: HE-AAC doubles the rate
        self.rate_hz: int = first.sample_rate
        self.channels: int = first.layout.nb_channels
        self._layout = first.layout
        self._form: object = None

    def __call__(self, heard: Any) -> NDArray[np.int16]:
        """Samples [S, channels]."""
        form = (heard.format.name, heard.sample_rate, heard.layout.name)
        if form != self._form:  # broadcasts change from stereo to surround within a track
            self._form = form
            self._resampler = av.AudioResampler(format="s16", layout=self._layout, rate=self.rate_hz)
        frames = [frame.to_ndarray().reshape(-1, self.channels) for frame in self._resampler.resample(heard)]
        return np.concatenate(frames).astype(np.int16) if frames else np.empty((0, self.channels), np.int16)


def _sound(made: Part, origin_us: int, index: int) -> Iterator[Outgoing]:
    even: Even | None = None
    end_us = _stream_end_us(made.path, index, origin_us)
    for heard in _decoded(made, index):
        if even is None:
            even = Even(heard)
            sound = Sound(f"{made.path}: track {index}", even.rate_hz, even.channels)
        time_us = sound.end_us if heard.pts is None else _us(heard.pts, heard.time_base) - origin_us
        samples = even(heard)
        if end_us is not None:  # encoders pad the last frame
            samples = samples[: max(0, round((end_us - time_us) * even.rate_hz / S_US))]
        yield from sound.add(samples, time_us)
    if even is not None:
        yield from sound.rest()


def _stream_end_us(path: Path, index: int, origin_us: int) -> int | None:
    """Where a track ends by its edit list; ``None`` for containers that have none."""
    with _opened(path) as container:
        stream = container.streams[index]
        if stream.duration is None or "mp4" not in container.format.name:
            return None
        return _us((stream.start_time or 0) + stream.duration, stream.time_base) - origin_us


def _subtitles(made: Part, origin_us: int, language: str | None, index: int) -> Iterator[Outgoing]:
    return speech.transcripts(_cues(made, origin_us, language, index), made.length_us)


def _cues(made: Part, origin_us: int, language: str | None, index: int) -> Iterable[speech.Cue]:
    for packet in _packets(made, index):
        if packet.pts is None or not packet.size:
            continue
        try:
            lines = [speech.plain(_line(shown)) for shown in packet.decode()]
        except FFmpegError:
            made.notes.append(f"{made.path}: a broken subtitle of track {index} was left out")
            continue
        start_us = _us(packet.pts, packet.time_base) - origin_us
        end_us = start_us + _us(packet.duration or 0, packet.time_base)
        text = " ".join(filter(None, lines))
        if text:
            yield speech.Cue(start_us, end_us, text, language=language)


def _line(shown: Any) -> str:
    """The text, the ninth field, of an Advanced SubStation dialogue line; FFmpeg converts all subtitles to these."""
    fields = getattr(shown, "ass", b"").decode("utf-8", "replace").split(",", 8)
    return str(fields[8]) if len(fields) == 9 else ""


def _telemetry(made: Part, origin_us: int, index: int) -> Iterator[Outgoing]:
    broken = 0
    for packet in _packets(made, index):
        if packet.pts is None or not packet.size:
            continue
        try:
            streams = gpmf.streams(bytes(packet))
        except ValueError:
            broken += 1
            continue
        begin_us = _us(packet.pts, packet.time_base) - origin_us
        length_us = _us(packet.duration or 0, packet.time_base) or S_US
        records = [record for stream in streams for record in _blocks(stream, begin_us, length_us)]
        yield from sorted(records, key=due)
    if broken:
        made.notes.append(f"{made.path}: {broken} broken telemetry payloads of track {index} were left out")


def _blocks(stream: gpmf.Stream, begin_us: int, length_us: int) -> Iterator[Outgoing]:
    count = len(stream.values_NC)
    times_us = [begin_us + length_us * sample // max(count, 1) for sample in range(count)]
    first = 0
    while first < count:
        last = first + 1
        while last < count and times_us[last] < times_us[first] + SLICE_US:
            last += 1
        yield from telemetry(times_us[first:last], stream.values_NC[first:last], stream.names, stream.units)
        first = last
