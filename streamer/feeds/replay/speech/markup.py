"""The markup of subtitles: SubRip's and WebVTT's tags, Advanced SubStation's overrides.

What is said lies in the text; when, in WebVTT's time stamps (``<00:00:01.400>``) and in the karaoke tags of Advanced
SubStation (``{\\k25}``: the syllable that follows lasts 0.25 s); by whom, in WebVTT's ``<v Mary>``. The other marks
matter only where they wander from word to word: see ``once``.

Formats: https://www.w3.org/TR/webvtt1/ and https://aegisub.org/docs/latest/ass_tags/.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from streamer.feeds.replay.part import S_US

STAMP = re.compile(r"<(?:(\d+):)?(\d{1,2}):(\d{1,2})\.(\d{1,3})>")
TAG = re.compile(r"<(/?)([A-Za-z0-9][^\s<>./]*)((?:[\s./][^<>]*)?)>")
OVERRIDE = re.compile(r"\{\\[^{}]*\}")  # {\an8}
NOTE = re.compile(r"(?<!\\)\{[^{}\\]*\}")  # Advanced SubStation: a remark that is not shown
BREAK = re.compile(r"\r?\n|\\[Nn]")
MARK = re.compile(f"{STAMP.pattern}|{TAG.pattern}|{OVERRIDE.pattern}|{BREAK.pattern}")
EFFECT = re.compile(r"\\(\d?[A-Za-z]+)(\([^()]*\)|[^\\(){}]*)")  # of an override: \u1, \1c&H00FF00&, \fad(200,200)
SYLLABLE = re.compile(r"(?:k|K|kf|ko)")
# overrides that can tell one word from another; a word's place and movement cannot
STYLES = {
    "b", "i", "u", "s", "c", "1c", "2c", "3c", "4c", "alpha", "1a", "3a", "fn", "fs", "fscx", "fscy", "blur",
}  # fmt: skip
CENTISECOND_US = 10_000


class Shown(NamedTuple):
    """A subtitle as it is shown, in ``[start_us, end_us)``.

    Attributes:
        text: With its markup.
        ass: Whether the markup is that of Advanced SubStation alone, as in FFmpeg's decoded subtitles.
        effect: The field of that name in Advanced SubStation.
    """

    start_us: int
    end_us: int
    text: str
    ass: bool = False
    speaker: str | None = None
    effect: str = ""


class Piece(NamedTuple):
    """A word of a subtitle.

    Attributes:
        style: The marks around most of its letters; "" for none.
        line: Number of its line.
        start_us: By a time stamp between it and the word before; ``None``: there is none.
        end_us: Where its syllables end; ``None``: the markup does not say.
    """

    text: str
    style: str = ""
    line: int = 0
    start_us: int | None = None
    end_us: int | None = None
    speaker: str | None = None


def plain(text: str) -> str:
    """Text of a subtitle without its markup, on one line."""
    return " ".join(piece.text for piece in pieces(Shown(0, 0, text)))


def pieces(shown: Shown) -> list[Piece]:
    """The words of a subtitle in the order of the text."""
    reader = _Reader(shown)
    text = NOTE.sub("", shown.text) if shown.ass else shown.text
    place = 0
    for mark in MARK.finditer(text):
        reader.write(text[place : mark.start()])
        reader.mark(mark[0])
        place = mark.end()
    reader.write(text[place:])
    reader.finish_word()
    return reader.found


class _Reader:
    """Reads a subtitle from left to right."""

    def __init__(self, shown: Shown) -> None:
        self.found: list[Piece] = []
        self._shown = shown
        self._line = 0
        self._open: list[tuple[str, str]] = []  # tags
        self._overrides: dict[str, str] = {}
        self._drawing = False  # what follows are vectors, not words
        self._speaker = shown.speaker
        self._stamp_us: int | None = None  # of the next letter, if a time stamp has come since the last one
        self._syllable_us = shown.start_us  # where the next syllable begins
        self._end_us: int | None = None  # of the syllable
        self._letters: list[tuple[str, str]] = []  # of the word: style, letters
        self._word_start_us: int | None = None
        self._word_end_us: int | None = None

    def write(self, text: str) -> None:
        if self._drawing:
            return
        text = html.unescape(text.replace("\\h", " ").replace("\\{", "{").replace("\\}", "}"))
        for part in re.split(r"(\s+)", text):
            if part.isspace():
                self.finish_word()
            elif part:
                if not self._letters:
                    self._word_start_us = self._stamp_us
                self._letters.append((self._style(), part))
                self._stamp_us, self._word_end_us = None, self._end_us

    def mark(self, text: str) -> None:
        if stamp := STAMP.fullmatch(text):
            self._stamp(stamp)
        elif tag := TAG.fullmatch(text):
            self._tag(*tag.groups())
        elif text.startswith("{"):
            for name, value in EFFECT.findall(text):
                self._override(name, value.strip())
        else:
            self.finish_word()
            self._line += 1

    def finish_word(self) -> None:
        if not self._letters:
            return
        text = "".join(letters for _, letters in self._letters)
        style = max(self._letters, key=lambda run: len(run[1]))[0]
        self.found.append(Piece(text, style, self._line, self._word_start_us, self._word_end_us, self._speaker))
        self._letters, self._word_start_us = [], None

    def _stamp(self, stamp: re.Match[str]) -> None:
        hours, minutes, seconds, fraction = stamp.groups()
        at_us = (int(hours or 0) * 3600 + int(minutes) * 60 + int(seconds)) * S_US
        at_us += int(fraction.ljust(6, "0"))
        start_us, end_us = self._shown.start_us, self._shown.end_us
        if not start_us <= at_us <= end_us:
            at_us += start_us  # Matroska counts from the start of the subtitle
        if start_us <= at_us <= end_us:
            self._stamp_us = at_us

    def _tag(self, closing: str, name: str, rest: str) -> None:
        name = name.lower()
        if name == "v":  # <v Mary>, <v.loud Mary>
            self.finish_word()
            self._speaker = self._shown.speaker if closing else rest.partition(" ")[2].strip() or None
        elif not closing:
            self._open.append((name, f"{name}{rest.strip().lower()}"))
        else:
            for place in reversed(range(len(self._open))):
                if self._open[place][0] == name:
                    del self._open[place]
                    break

    def _override(self, name: str, value: str) -> None:
        if SYLLABLE.fullmatch(name):
            self._syllable(value)
        elif name == "kt" and value.isdecimal():
            self._syllable_us = self._shown.start_us + int(value) * CENTISECOND_US
        elif name == "p":
            self._drawing = value.isdecimal() and value != "0"
        elif name.startswith("r"):  # \r, \rStyle: back to a style
            self._overrides = {}
        elif name in STYLES:
            if value in ("", "0"):
                self._overrides.pop(name, None)
            else:
                self._overrides[name] = value

    def _syllable(self, value: str) -> None:
        try:
            length_us = round(float(value or 0) * CENTISECOND_US)
        except ValueError:
            return
        self._stamp_us = self._syllable_us
        self._syllable_us += length_us
        self._end_us = self._syllable_us

    def _style(self) -> str:
        tags = [full for _, full in self._open]
        return " ".join([*tags, *(f"\\{name}{value}" for name, value in sorted(self._overrides.items()))])


def lines(found: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Words line by line; empty lines are left out."""
    line: list[Piece] = []
    for piece in found:
        if line and piece.line != line[0].line:
            yield line
            line = []
        line.append(piece)
    if line:
        yield line
