"""Subtitles within a film, and the files of words beside one."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from streamer.feeds.producer import Outgoing
from streamer.feeds.replay import speech
from streamer.feeds.replay.media.container import AUDIO, VIDEO, demuxed, opened, us
from streamer.feeds.replay.media.tracks import Tracks
from streamer.feeds.replay.part import S_US

# a BCP 47 tag and marks that players know: film.en.srt, film.pt-BR.forced.srt
TAGS = re.compile(r"(?P<language>[a-z]{2,3}(?:[-_][a-z0-9]{2,8})*)?(?:\.?(?P<mark>forced|sdh|hi|cc|default|foreign))?")
LOG_BEGINS_US = 5 * S_US  # the first entry of a drone's log lies before this
FEW = ("forced", "foreign")  # only what is said in a foreign language
MARKS = ("cc", "sdh")  # look like a language, and are none
# ISO 639-2 codes of containers whose two-letter code (ISO 639-1) is not their beginning:
# https://www.loc.gov/standards/iso639-2/php/code_list.php
SHORT = {
    "ces": "cs", "chi": "zh", "cze": "cs", "dut": "nl", "ger": "de", "gre": "el", "ice": "is", "ind": "id", "jpn": "ja",
    "may": "ms", "per": "fa", "pol": "pl", "por": "pt", "slk": "sk", "slo": "sk", "spa": "es", "swe": "sv", "tur": "tr",
}  # fmt: skip


def subtitles(tracks: Tracks, index: int, language: str | None) -> Iterator[Outgoing]:
    """The transcripts of a subtitle track, or the telemetry of a drone's log in one.

    Args:
        language: What the container says of it.
    """
    what = f"{tracks.part.path}: track {index}"
    return speech.track(what, _shown(tracks, index), tracks.part.length_us, language, tracks.part.notes)


def is_log(path: Path, index: int) -> bool:
    """Whether a subtitle track is a drone's log, which begins with the film."""
    with opened(path) as container:
        looked = [stream for stream in container.streams if stream.type in (VIDEO, AUDIO) or stream.index == index]
        first_us: int | None = None
        try:
            for packet in demuxed(container, looked):
                if packet.stream.index == index and packet.size and (shown := _texts(packet, 0, 0)):
                    return speech.is_log(one.text for one in shown)
                if packet.pts is not None:
                    at_us = us(packet.pts, packet.time_base)
                    first_us = at_us if first_us is None else first_us
                    if at_us > first_us + LOG_BEGINS_US:
                        return False
        except FFmpegError:
            pass  # the user learns of it when the film is read to be sent
    return False


def _shown(tracks: Tracks, index: int) -> Iterator[speech.Shown]:
    broken = early = 0
    for packet in tracks.packets(index):
        if packet.pts is None or not packet.size:
            continue
        start_us = tracks.at_us(packet.pts, packet.time_base)
        end_us = start_us + us(packet.duration or 0, packet.time_base)
        try:
            shown = _texts(packet, max(0, start_us), end_us)
        except FFmpegError:
            broken += 1
            continue
        if end_us > 0:
            yield from shown
        else:
            early += bool(shown)
    if broken:
        tracks.note(f"{broken} broken subtitles of track {index} were left out")
    if early:
        tracks.note(f"{early} subtitles of track {index} before the start of the film were left out")


def _texts(packet: Any, start_us: int, end_us: int) -> list[speech.Shown]:
    """The subtitles of a packet. FFmpeg converts all to Advanced SubStation, but drops WebVTT's times of words."""
    if packet.stream.codec_context.name == "webvtt":
        return [speech.Shown(start_us, end_us, bytes(packet).decode("utf-8", "replace"))]
    found = []
    for shown in packet.decode():
        fields = getattr(shown, "ass", b"").decode("utf-8", "replace").split(",", 8)
        if len(fields) == 9 and fields[8].strip():  # number, layer, style, name, three margins, effect, text
            found.append(speech.Shown(start_us, end_us, fields[8], ass=True, speaker=fields[3].strip() or None))
    return found


def beside(
    path: Path, endings: Sequence[str], language: str | None, given: Collection[Path] = ()
) -> list[tuple[Path, str | None]]:
    """Files of words beside a film or sound file, with their languages; the one to use comes first.

    It is one that the user gave; then the one called like the film (``film.srt``, ``film.mp4.srt``) rather than one
    with a language (``film.en.srt``); of those, the one in the film's language, then the first in alphabetical order,
    and last those that hold only what is said in a foreign language (``film.en.forced.srt``).

    Args:
        endings: Of the files to look for, with a dot, the best first; in small letters.
        language: Of the film's sound.
        given: All paths of the session.
    """
    found: list[tuple[tuple[object, ...], Path, str | None]] = []
    for file in path.parent.iterdir():
        ending = file.suffix.lower()
        if ending not in endings or file == path or not file.is_file():
            continue
        for base in (path.name, path.stem):
            if file.stem == base or file.stem.startswith(f"{base}."):
                tags = TAGS.fullmatch(file.stem[len(base) + 1 :].lower())
                if tags is not None:
                    spoken = None if tags["language"] in MARKS else tags["language"]
                    rank = (
                        file not in given,
                        tags["mark"] in FEW,
                        spoken is not None,
                        _short(spoken) != _short(language),
                    )
                    found.append(((*rank, endings.index(ending), file.name), file, spoken))
                break
    return [(file, spoken) for _, file, spoken in sorted(found, key=lambda one: one[0])]


def _short(language: str | None) -> str:
    """Two letters of a language, for comparison."""
    language = language or ""
    return SHORT.get(language[:3], language[:2])
