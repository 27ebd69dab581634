"""Subtitles within a film, and the files of words beside one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from av.error import FFmpegError

from streamer.feeds.producer import Outgoing
from streamer.feeds.replay import speech
from streamer.feeds.replay.media.container import us
from streamer.feeds.replay.media.tracks import Tracks

# a BCP 47 tag and marks that players know: film.en.srt, film.pt-BR.forced.srt
TAGS = re.compile(r"(?P<language>[a-z]{2,3}(?:[-_][a-z0-9]{2,8})*)?(?:\.?(?P<mark>forced|sdh|hi|cc|default|foreign))?")
FEW = ("forced", "foreign")  # only what is said in a foreign language
MARKS = ("cc", "sdh")  # look like a language, and are none
# ISO 639-2 codes of containers whose two-letter code (ISO 639-1) is not their beginning:
# https://www.loc.gov/standards/iso639-2/php/code_list.php
SHORT = {
    "ces": "cs", "chi": "zh", "cze": "cs", "dut": "nl", "ger": "de", "gre": "el", "ice": "is", "ind": "id", "jpn": "ja",
    "may": "ms", "per": "fa", "pol": "pl", "por": "pt", "slk": "sk", "slo": "sk", "spa": "es", "swe": "sv", "tur": "tr",
}  # fmt: skip


def subtitles(tracks: Tracks, index: int, language: str | None) -> Iterator[Outgoing]:
    """The transcripts of a subtitle track.

    Args:
        language: What the container says of it.
    """
    return speech.transcripts(_cues(tracks, index, language), tracks.part.length_us)


def _cues(tracks: Tracks, index: int, language: str | None) -> Iterator[speech.Cue]:
    broken = early = 0
    for packet in tracks.packets(index):
        if packet.pts is None or not packet.size:
            continue
        try:
            lines = [speech.plain(_line(shown)) for shown in packet.decode()]
        except FFmpegError:
            broken += 1
            continue
        start_us = tracks.at_us(packet.pts, packet.time_base)
        end_us = start_us + us(packet.duration or 0, packet.time_base)
        text = " ".join(filter(None, lines))
        early += bool(text) and end_us <= 0
        if text and end_us > 0:
            yield speech.Cue(max(0, start_us), end_us, text, language=language)
    if broken:
        tracks.note(f"{broken} broken subtitles of track {index} were left out")
    if early:
        tracks.note(f"{early} subtitles of track {index} before the start of the film were left out")


def _line(shown: Any) -> str:
    """The text, the ninth field, of an Advanced SubStation dialogue line; FFmpeg converts all subtitles to these."""
    fields = getattr(shown, "ass", b"").decode("utf-8", "replace").split(",", 8)
    return str(fields[8]) if len(fields) == 9 else ""


def beside(path: Path, endings: Sequence[str], language: str | None) -> list[tuple[Path, str | None]]:
    """Files of words beside a film or sound file, with their languages; the one to use comes first.

    It is the one called like the film (``film.srt``, ``film.mp4.srt``) rather than one with a language
    (``film.en.srt``); of those, the one in the film's language, then the first in alphabetical order, and last those
    that hold only what is said in a foreign language (``film.en.forced.srt``).

    Args:
        endings: Of the files to look for, with a dot, the best first; in small letters.
        language: Of the film's sound.
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
                    rank = (tags["mark"] in FEW, spoken is not None, _short(spoken) != _short(language))
                    found.append(((*rank, endings.index(ending), file.name), file, spoken))
                break
    return [(file, spoken) for _, file, spoken in sorted(found, key=lambda one: one[0])]


def _short(language: str | None) -> str:
    """Two letters of a language, for comparison."""
    language = language or ""
    return SHORT.get(language[:3], language[:2])
