"""Transcripts of linguists: NIST's CTM, and TextGrids of Praat.

CTM: https://github.com/usnistgov/SCTK/blob/master/doc/infmts.htm; a word a line: recording, channel, start and length
in seconds, word, and perhaps confidence, type and speaker. TextGrid:
https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html, long and short.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from streamer.errors import UsageError
from streamer.feeds.replay.speech.cue import Cue, by_time
from streamer.feeds.replay.speech.phrase import LATEST, Timed, phrase, us

CTM_FIELDS = 5  # at least
NO_WORD = {"<eps>", "sil", "sp", "spn", "!sil", "<unk>"}
NOISES = {"non-lex", "noscore"}  # types of CTM
WORD_TIER = re.compile(r"(?:(?P<speaker>.*?\S)\s*[-_: ]\s*)?words?", re.IGNORECASE)  # "Mary - words" of forced aligners
PHONE_TIER = re.compile(r"(?:.*[-_: ])?(?:phones?|phonemes?|segments?|MAU|KAN)", re.IGNORECASE)


def ctm(path: Path, text: str, notes: list[str]) -> list[Cue]:
    """Words of a CTM file; of one for many recordings, those of the recording that is called like the file.

    Raises:
        UsageError: It is no CTM file.
    """
    words: dict[str, dict[str, list[Timed]]] = {}  # recording -> channel
    alternative = 0  # number of the reading that the lines belong to, where there are several
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith(";;"):
            continue
        if len(fields) > CTM_FIELDS - 1 and fields[4].startswith("<ALT"):
            alternative = {"<ALT_BEGIN>": 1, "<ALT>": 2}.get(fields[4], 0)
            continue
        word = _ctm_word(fields)
        if word is None:
            raise UsageError(
                f"{path} line {number} is no CTM (recording, channel, start, length, word): {line.strip()[:60]!r}"
            )
        if alternative < 2 and _is_word(word.text) and not (len(fields) > 6 and fields[6].lower() in NOISES):
            words.setdefault(fields[0], {}).setdefault(fields[1], []).append(word)
    if not words:
        raise UsageError(f"{path} holds no words")
    chosen = path.stem if path.stem in words else next(iter(words))
    if len(words) > 1:
        notes.append(f"{path}: it has words of {len(words)} recordings; those of {chosen} are sent")
    channels = words[chosen]
    found = [
        cue
        for channel, said in channels.items()
        for cue in phrase("", said, speaker=channel if len(channels) > 1 else None)
    ]
    return sorted(found, key=by_time)


def _ctm_word(fields: Sequence[str]) -> Timed | None:
    try:
        start, length = float(fields[2].rstrip("*")), float(fields[3].rstrip("*"))
    except (IndexError, ValueError):
        return None
    if len(fields) < CTM_FIELDS or not (0 <= start <= LATEST and 0 <= length <= LATEST):
        return None
    speaker = fields[7] if len(fields) > 7 and fields[7].lower() not in ("unknown", "null") else None
    return Timed(fields[4], us(start), us(start + length), speaker)


def _is_word(text: str) -> bool:
    return text.lower() not in NO_WORD


def textgrid(path: Path, notes: list[str]) -> list[Cue]:
    """Words of a TextGrid's tiers of words; where there are none, the labels of its other tiers as phrases.

    Raises:
        UsageError: It is no TextGrid, or has nothing to say.
    """
    from praatio import textgrid as praat

    try:
        grid = praat.openTextgrid(
            str(path), includeEmptyIntervals=False, reportingMode="silence", duplicateNamesMode="rename"
        )
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except Exception as error:  # noqa: BLE001 - praatio raises whatever its parsing meets
        raise UsageError(f"{path} is no TextGrid of Praat: {type(error).__name__}") from None
    tiers = [tier for tier in grid.tiers if isinstance(tier, praat.IntervalTier)]
    names = [tier.name for tier in tiers if WORD_TIER.fullmatch(tier.name)]
    spoken = names or [tier.name for tier in tiers if not PHONE_TIER.fullmatch(tier.name)]
    left_out = [" ".join(name.split()) for name in grid.tierNames if name not in spoken]
    if left_out:
        notes.append(f"{path}: tiers that are not sent: {', '.join(left_out)}")
    found: list[Cue] = []
    for tier in tiers:
        if tier.name in spoken:
            speaker = tier.name if len(spoken) > 1 else None
            found += _words(tier, speaker) if names else _labels(tier, speaker)
    if not found:
        names = [" ".join(tier.name.split()) for tier in tiers]
        raise UsageError(f"{path} holds no words; its tiers of intervals: {', '.join(names) or 'none'}")
    return sorted(found, key=by_time)


def _words(tier: Any, speaker: str | None) -> Iterator[Cue]:
    named = WORD_TIER.fullmatch(tier.name)
    words = [Timed(one.label, us(one.start), us(one.end)) for one in tier.entries]
    words = [word for word in words if _is_word(word.text.strip())]
    yield from phrase("", words, speaker=named["speaker"] if named and named["speaker"] else speaker)


def _labels(tier: Any, speaker: str | None) -> Iterator[Cue]:
    for one in tier.entries:
        if _is_word(one.label.strip()):
            yield from phrase(one.label, [], (us(one.start), us(one.end)), speaker=speaker)
