"""SubRip, WebVTT and Advanced SubStation files, and the mistakes that real ones have.

A file is read by what it says it is: many a ``.srt`` is WebVTT. What cannot be read is left out with a note, as players
do; a file of which nothing can be read is refused. Formats: https://www.w3.org/TR/webvtt1/,
https://docs.fileformat.com/video/srt/, https://aegisub.org/docs/latest/ass_tags/.
"""

from __future__ import annotations

import codecs
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

from streamer.errors import UsageError
from streamer.feeds.replay.part import MS_US
from streamer.feeds.replay.speech.markup import Shown
from streamer.feeds.replay.speech.phrase import us

COMMA = re.compile(r"(?<=\d),(?=\d{3})")  # SubRip's decimal sign, in WebVTT
EVENT_BROKEN = re.compile(
    r"^(?:Dialogue|Comment):(?![^,]*,\s*\d+:\d{1,2}:\d{1,2}[.:]\d+\s*,\s*\d+:\d{1,2}:\d{1,2}[.:]\d+\s*,).*\n?",
    re.MULTILINE,
)
TIMESTAMP_MAP = re.compile(r"^X-TIMESTAMP-MAP=(.*)$", re.MULTILINE)
STARTS_AT_0 = re.compile(r"(?=.*LOCAL:(?:00:)?00:00\.000)(?=.*MPEGTS:(?:0|900000)\b)")  # 10 s: where segmenters begin
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def text_of(path: Path) -> str:
    """The text of a file in UTF-8, or in UTF-16 or UTF-32 with a byte order mark; lines end in a line feed.

    Raises:
        UsageError: It cannot be read, or is in another encoding.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    encoding = next((name for mark, name in BYTE_ORDER_MARKS if raw.startswith(mark)), "utf-8")
    try:
        text = raw.decode(encoding)
    except UnicodeDecodeError:
        raise UsageError(
            f"{path} is not UTF-8 text (nor UTF-16 with a byte order mark): convert it, e.g. by "
            f"iconv -f WINDOWS-1252 -t UTF-8"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read(path: Path, text: str, notes: list[str]) -> list[Shown]:
    """The subtitles of a file in order of their start.

    Args:
        notes: What was left out is added, a sentence each.

    Raises:
        UsageError: It is not what its name says, or nothing of it can be read.
    """
    begins = text.lstrip()[:200]
    if begins.startswith("WEBVTT"):
        found = list(_vtt(path, text.lstrip(), notes))
    elif path.suffix.lower() in (".ass", ".ssa") or "[Script Info]" in begins:
        found = list(_ass(path, text, notes))
    elif path.suffix.lower() == ".vtt" and not begins[:1].isdigit():
        raise UsageError(f"{path} is no WebVTT file: its first line is not WEBVTT")
    else:
        found = list(_srt(path, text, notes))
    good = [one for one in found if 0 <= one.start_us <= one.end_us]
    bad = [one for one in found if not 0 <= one.start_us <= one.end_us]
    if bad:
        first = bad[0]
        what = f"{first.text[:40]!r} ends before it begins ({first.start_us} to {first.end_us} µs)"
        if not good:
            raise UsageError(f"{path}: {what}")
        notes.append(f"{path}: {what}; left out, like all such subtitles ({len(bad)})")
    return sorted(good, key=lambda one: (one.start_us, one.end_us))


def _srt(path: Path, text: str, notes: list[str]) -> Iterator[Shown]:
    import srt

    begin = good = broken = 0
    first_line = 0
    while begin < len(text):
        try:
            for found in srt.parse(text[begin:]):
                good += 1
                yield Shown(us(found.start.total_seconds()), us(found.end.total_seconds()), found.content)
            break
        except srt.SRTParseError as error:
            first_line = first_line or text.count("\n", 0, begin + error.expected_start) + 1
            broken += 1
            begin += error.actual_start
    if broken and not good:
        raise UsageError(f"{path} line {first_line} is no SubRip subtitle (number, times, text, empty line)")
    if broken:
        notes.append(f"{path}: what is no SubRip subtitle was left out, {broken} times, first in line {first_line}")


def _vtt(path: Path, text: str, notes: list[str]) -> Iterator[Shown]:
    import webvtt

    text = "\n".join(COMMA.sub(".", line) if "-->" in line else line for line in text.split("\n"))
    try:
        captions = webvtt.from_buffer(io.StringIO(text)).captions
    except (webvtt.errors.MalformedFileError, webvtt.errors.MalformedCaptionError, ValueError) as error:
        raise UsageError(f"{path} is no WebVTT file: {error}") from None
    missing = sum("-->" in line for line in text.split("\n")) - len(captions)
    if missing > 0:
        notes.append(f"{path}: {missing} cues whose times cannot be read were left out")
    mapped = TIMESTAMP_MAP.search(text)
    if mapped and not STARTS_AT_0.search(mapped[1]):
        notes.append(f"{path}: its times are taken as they are; its clock map ({mapped[1]}) was not applied")
    for caption in captions:
        yield Shown(_clock_us(caption.start), _clock_us(caption.end), caption.raw_text)


def _clock_us(text: str) -> int:
    hours, minutes, seconds = text.split(":")
    return us(int(hours) * 3600 + int(minutes) * 60 + float(seconds))


def _ass(path: Path, text: str, notes: list[str]) -> Iterator[Shown]:
    import pysubs2

    text, broken = EVENT_BROKEN.subn("", text)
    if broken:
        notes.append(f"{path}: {broken} lines whose times cannot be read were left out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles, which are not used
            events = pysubs2.SSAFile.from_string(text, format_="ass").events
    except (pysubs2.exceptions.Pysubs2Error, ValueError, IndexError) as error:
        raise UsageError(f"{path} is no Advanced SubStation file: {error}") from None
    if not events:
        raise UsageError(f"{path} is no Advanced SubStation file: it has no events")
    # karaoke as Aegisub leaves it: the line with its syllables as a comment, and what was made of it for each syllable
    sources = {"karaoke"} if any(event.is_comment and event.effect.lower() == "karaoke" for event in events) else set()
    made = 0
    for event in events:
        effect = event.effect.lower()
        if sources and effect == "fx":
            made += 1
        elif not event.is_comment or effect in sources:
            yield Shown(
                event.start * MS_US, event.end * MS_US, event.text, ass=True, speaker=event.name.strip() or None
            )
    if made:
        notes.append(f"{path}: words were read from its karaoke lines, not from the {made} effects made of them")
