"""A film or sound file as PyAV (FFmpeg) opens it: its tracks, which of them are sent, and notes on the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import av
from av.error import FFmpegError
from av.stream import Disposition

from streamer.errors import UsageError
from streamer.feeds.replay.media import gpmf
from streamer.feeds.replay.part import S_US, check_sound

TEXT_ART = "tty"  # FFmpeg takes any text for pictures of a terminal
UNKNOWN_BYTES = 0x7FFF0000  # recorders that do not know the size of a WAV file write one of about this, or more

VIDEO, AUDIO, SUBTITLE, DATA = KINDS = ("video", "audio", "subtitle", "data")


class Track(NamedTuple):
    """A track to choose from.

    Attributes:
        described: Its number, kind, codec, language and title.
    """

    number: int
    kind: str
    usable: bool
    described: str


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A container to read from.

    Raises:
        UsageError: FFmpeg cannot open it.
    """
    try:
        container = av.open(str(path), metadata_errors="replace")
    except FFmpegError as error:
        raise UsageError(f"{path} cannot be opened: {why(error)}; is it whole, and what its name says?") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be opened: {error.strerror}") from None
    with container:
        if container.format.name == TEXT_ART:
            raise UsageError(f"{path} is text, no film")
        yield container


def demuxed(container: Any, streams: Any) -> Iterator[Any]:
    """Packets of a track or of several.

    A broken file may seem to have another track from some place on, which PyAV cannot pass over: it ends there.
    """
    try:
        yield from container.demux(streams)
    except IndexError:
        return


def why(error: FFmpegError) -> str:
    """FFmpeg's reason, for a message."""
    return str(error.strerror or error).lower()


def us(ticks: int, time_base: Any) -> int:
    """Ticks of a track's clock in microseconds, rounded down."""
    return int(ticks * time_base.numerator * S_US // time_base.denominator)


# choosing tracks


def tracks_of(path: Path, container: Any) -> list[Track]:
    """All tracks of a file in order of their numbers."""
    tracks = [_track(stream) for stream in container.streams]
    _mark_telemetry(path, tracks)
    return tracks


def _track(stream: Any) -> Track:
    codec = stream.codec_context
    kind = stream.type if stream.type in KINDS else "other"
    shown = stream.type or kind
    facts = [codec.name if codec is not None else stream.metadata.get("handler_name", "of no known codec").strip()]
    usable = kind in (VIDEO, AUDIO, SUBTITLE) and codec is not None
    if stream.disposition & Disposition.attached_pic:
        shown, usable = "cover picture", False
    if codec is not None and codec.codec.bitmap_sub:
        facts.append("pictures of text, which cannot be read")
        usable = False
    named = stream.metadata.get("title") or stream.metadata.get("name") or stream.metadata.get("filename")
    facts += [found for found in (stream.language, named) if found and found != "und"]
    return Track(stream.index, kind, usable, f"{stream.index} {shown} ({', '.join(facts)})")


def _mark_telemetry(path: Path, tracks: list[Track]) -> None:
    """Mark the data tracks whose first payload is GPMF as usable: the container does not say what they hold."""
    data = {track.number for track in tracks if track.kind == DATA}
    if not data:
        return
    with opened(path) as container:
        for packet in demuxed(container, [container.streams[index] for index in sorted(data)]):
            if packet.size and packet.stream.index in data:
                index = packet.stream.index
                data.remove(index)
                if bytes(packet)[: len(gpmf.KEY)] == gpmf.KEY:
                    tracks[index] = Track(index, DATA, True, f"{index} telemetry (gpmd)")
            if not data:
                return


def choose(
    path: Path, container: Any, tracks: Sequence[Track], wanted: Sequence[int], mapped: Sequence[int]
) -> dict[int, str]:
    """Number of each track to read -> its kind.

    Args:
        wanted: Numbers of tracks to read instead of the container's default of their kind.
        mapped: Numbers of tracks to read, and no others of their kinds.

    Raises:
        UsageError: There is no such track, or none that can be sent.
    """
    there = ", ".join(track.described for track in tracks)
    for index in (*wanted, *mapped):
        if not 0 <= index < len(tracks) or not tracks[index].usable:
            raise UsageError(f"{path}: track {index} cannot be sent; it has: {there}")
    found = {index: tracks[index].kind for index in mapped}
    chosen: dict[str, int] = {}
    for index in dict.fromkeys(wanted):
        track = tracks[index]
        if index in found:
            continue
        if track.kind in found.values():
            raise UsageError(
                f"{path}: --map names the tracks of {track.kind} that are sent, so --stream {index} cannot"
            )
        if track.kind in chosen:
            raise UsageError(f"{path}: tracks {chosen[track.kind]} and {index} are both {track.kind}; choose one")
        chosen[track.kind] = index
    for kind in KINDS:
        best = container.streams.best(kind) if kind != DATA else None
        candidates = [track.number for track in tracks if track.kind == kind and track.usable]
        if kind not in chosen and kind not in found.values() and candidates:
            chosen[kind] = best.index if best is not None and best.index in candidates else candidates[0]
    found |= {index: kind for kind, index in chosen.items()}
    if not found:
        raise UsageError(f"{path} has no track that can be sent; it has: {there or 'none'}")
    for index, kind in found.items():
        if kind == AUDIO:
            codec = container.streams[index].codec_context
            check_sound(f"{path}: track {index}", codec.sample_rate, codec.channels)
    return found


def left_out(path: Path, tracks: Sequence[Track], chosen: Mapping[int, str]) -> Iterator[str]:
    """A note for each track that is not sent although it could be, and one for all that cannot be."""
    for track in tracks:
        if track.usable and track.number not in chosen:
            yield f"{path}: track {track.described} is not sent; --stream {track.number} sends it"
    if unusable := [track.described for track in tracks if not track.usable]:
        yield f"{path}: what cannot be sent: track {', track '.join(unusable)}"


def cut_off(path: Path, container: Any) -> Iterator[str]:
    """A note on an MP4 or WAV file that has less than its index or header says; of other kinds the length shows it."""
    stated = 0
    if container.format.name.startswith("mov"):
        lasts = [stream.index_entries[-1] for stream in container.streams if len(stream.index_entries)]
        stated = max((last.pos + last.size for last in lasts), default=0)
    elif container.format.name == "wav":
        with path.open("rb") as file:
            kind, size = file.read(4), int.from_bytes(file.read(4), "little")
        if kind == b"RIFF" and size < UNKNOWN_BYTES:
            stated = 8 + size
    if stated > container.size:
        yield f"{path}: the file is cut off: it has {container.size:,} of {stated:,} bytes"
