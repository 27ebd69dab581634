"""Words with their times: subtitles, word timings of recognisers, transcripts of linguists.

    cue         cues, and the transcripts that are sent of them
    markup      words of a subtitle with what its markup says of their times
    once        subtitles to cues that hold each word once
    subtitles   SubRip, WebVTT and Advanced SubStation files
    recognised  JSON of recognisers: which it is, by its fields; local, cloud: their forms; phrase: what they share
    annotated   CTM and TextGrid

A drone's log in the form of subtitles is telemetry: ``dronelog``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path

from streamer.errors import UsageError
from streamer.events import TELEMETRY, TEXT
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.part import Options, Part
from streamer.feeds.replay.speech import annotated, dronelog, recognised, subtitles
from streamer.feeds.replay.speech.cue import LONGEST_US, Cue, Spoken, by_time, transcripts
from streamer.feeds.replay.speech.markup import Shown
from streamer.feeds.replay.speech.once import once

SUBTITLES = (".srt", ".vtt", ".ass", ".ssa")
SUFFIXES = (".json", ".ctm", ".textgrid", *SUBTITLES)  # the richest first
OTHER_KIND = "JSON of no recogniser that is known"


@dataclass
class Words:
    """What a file of words holds: cues, or a drone's log.

    Attributes:
        cues: In order of their start.
        entries: Of the log.
        notes: What the user should know, a sentence each; sending adds to them.
    """

    path: Path
    cues: list[Cue] = field(default_factory=list)
    log: dronelog.Log | None = None
    entries: list[dronelog.Entry] = field(default_factory=list)
    length_us: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def row(self) -> int:
        """The modality that it is sent as."""
        return TEXT if self.log is None else TELEMETRY

    @property
    def channels(self) -> frozenset[str]:
        """Names of its telemetry channels."""
        return frozenset() if self.log is None else self.log.channels

    @property
    def utc_us(self) -> int | None:
        """When its time 0 was, in microseconds since the epoch; ``None`` if it does not say."""
        return None if self.log is None else self.log.utc_us

    def note_in(self, notes: list[str]) -> None:
        """Add all notes, and later ones, to this list."""
        notes += self.notes
        self.notes = notes
        if self.log is not None:
            self.log.notes = notes

    def records(self, end_us: int) -> Iterator[Outgoing]:
        """Its records in due order.

        Args:
            end_us: End of the recording; what begins later is left out.
        """
        if self.log is not None:
            kept = [entry for entry in self.entries if entry.time_us < end_us]
            late = len(self.entries) - len(kept)
            yield from self.log.records(kept)
        else:
            late = sum(cue.start_us >= end_us for cue in self.cues)
            yield from transcripts(self.cues, end_us)
        if late:
            self.notes.append(f"{self.path}: {late} of its entries lie after the end of the recording: left out")


def part(path: Path, options: Options) -> Part:
    """Open a file of words alone, without the film or sound that it belongs to.

    Raises:
        UsageError: The file cannot be read or is not what its name says.
    """
    words = read(path)
    return Part(
        path,
        words.length_us,
        lambda _: words.records(words.length_us + 1),
        frozenset({words.row}),
        utc_us=words.utc_us,
        channels=words.channels,
        notes=words.notes,
    )


def read(path: Path) -> Words:
    """Read a file of words.

    Raises:
        UsageError: The file cannot be read or is not what its name says.
    """
    words = _read(path)
    if words is None:
        raise UsageError(f"{path} holds no words: it is {OTHER_KIND}; docs/recordings.md lists those that are")
    return words


def _read(path: Path) -> Words | None:
    """``None``: it is JSON of another kind."""
    words = Words(path)
    suffix = path.suffix.lower()
    if suffix in SUBTITLES:
        _show(words, subtitles.read(path, subtitles.text_of(path), words.notes))
        return words
    if suffix == ".ctm":
        words.cues = annotated.ctm(path, subtitles.text_of(path), words.notes)
    elif suffix == ".textgrid":
        words.cues = annotated.textgrid(path, words.notes)
    else:
        try:
            found = recognised.cues(subtitles.text_of(path))
        except ValueError as error:
            raise UsageError(f"{path} cannot be read: {error}") from None
        if found is None:
            return None
        words.cues = found
    words.length_us = max((cue.end_us for cue in words.cues), default=0)
    return words


def _show(words: Words, shown: Sequence[Shown]) -> None:
    words.length_us = max((one.end_us for one in shown), default=0)
    if dronelog.is_log(one.text for one in shown):
        words.log = dronelog.Log(str(words.path), notes=words.notes)
        words.entries = [dronelog.Entry(one.start_us, one.text) for one in shown]
        words.log.look(words.entries)
    else:
        words.cues = sorted(once(shown), key=by_time)


def first_of(found: Sequence[tuple[Path, str | None]], notes: list[str]) -> Words | None:
    """The words of the first file that holds some; ``None`` if there is none.

    Args:
        found: Files, the best first, each with the language that its name says.
        notes: What is passed over is added, a sentence each; sending adds to them.

    Raises:
        UsageError: A file cannot be read or is not what its name says.
    """
    for path, language in found:
        words = _read(path)
        if words is None:
            notes.append(f"{path}: it is {OTHER_KIND}; it is passed over")
            continue
        words.cues = [cue if cue.language else cue._replace(language=language) for cue in words.cues]
        words.note_in(notes)
        return words
    return None


# words in a film


def is_log(texts: Iterable[str]) -> bool:
    """Whether subtitles are a drone's log, by the first of them."""
    return dronelog.is_log(texts)


def track(what: str, shown: Iterable[Shown], end_us: int, language: str | None, notes: list[str]) -> Iterator[Outgoing]:
    """Records of a film's track of subtitles: transcripts, or telemetry if it is a drone's log.

    Args:
        what: Film and track, with which notes begin.
        shown: In order of their start; times relative to the film's start.
        end_us: End of the film.
        language: BCP 47 tag.
        notes: What is left out is added, a sentence each.
    """
    several = iter(shown)
    first = list(islice(several, dronelog.LOOK))
    if not is_log(one.text for one in first):
        yield from transcripts(once(chain(first, several), language), end_us)
        return
    log = dronelog.Log(what, notes=notes)
    log.look([dronelog.Entry(one.start_us, one.text) for one in first])
    inside = (one for one in chain(first, several) if one.start_us < end_us)
    yield from log.records(dronelog.Entry(one.start_us, one.text) for one in inside)


__all__ = [
    "LONGEST_US",
    "Cue",
    "Shown",
    "Spoken",
    "Words",
    "first_of",
    "is_log",
    "part",
    "read",
    "track",
    "transcripts",
]
