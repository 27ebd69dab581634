"""Subtitles to cues that hold each word once, at its time.

What is shown is not what is said. Captions that roll up show a line again above the next one, or show a sentence again
with each word that is added (YouTube's recogniser, teletext, live captions). Whisper's ``--highlight_words`` shows a
phrase again for each of its words, that word underlined; others colour it. Advanced SubStation draws one dialogue on
several layers. A word that is said twice is shown twice in the same subtitle, or in two that do not follow on each
other in one of these ways; it stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

from streamer.feeds.replay.speech.cue import Cue, Spoken
from streamer.feeds.replay.speech.markup import Piece, Shown, lines, pieces

SAME_US = 20_000  # times that are meant to be the same: rounded to a hundredth by Advanced SubStation
FOLLOWS_US = 100_000  # a subtitle that begins within this of another's end follows on it
BLOCK = 32  # subtitles by which it is decided whether captions roll
LONGEST_GROUP = 1000  # subtitles of one phrase, a word each


class _Screen(NamedTuple):
    """A subtitle with its words."""

    start_us: int
    end_us: int
    words: Sequence[Piece]

    @property
    def texts(self) -> list[str]:
        return [word.text for word in self.words]

    @property
    def stamped(self) -> bool:
        return any(word.start_us is not None for word in self.words)

    def followed_by(self, later: _Screen) -> bool:
        return abs(later.start_us - self.end_us) <= FOLLOWS_US and later.start_us > self.start_us


def once(shown: Iterable[Shown], language: str | None = None) -> Iterator[Cue]:
    """Cues in order of their start, of subtitles in order of theirs; it reads a bounded number of them ahead."""
    screens = (_Screen(one.start_us, one.end_us, words) for one in shown if (words := pieces(one)))
    for screen in _rolled(_highlighted(_layered(screens))):
        yield from _cues(screen, language)


# layers


def _layered(screens: Iterable[_Screen]) -> Iterator[_Screen]:
    """Without second layers: the same text at the same time."""
    held: list[_Screen] = []
    for screen in screens:
        if held and screen.start_us - held[0].start_us > SAME_US:
            yield from held
            held = []
        for place, other in enumerate(held):
            if abs(screen.end_us - other.end_us) <= SAME_US and _same_words(screen, other):
                if screen.stamped and not other.stamped:
                    held[place] = screen
                break
        else:
            held.append(screen)
    yield from held


def _same_words(one: _Screen, other: _Screen) -> bool:
    speakers = {word.speaker for screen in (one, other) for word in screen.words} - {None}
    return len(speakers) < 2 and one.texts == other.texts


# highlighted words


def _highlighted(screens: Iterable[_Screen]) -> Iterator[_Screen]:
    """With the subtitles of one phrase, in which another word is marked each time, made into one with word times."""
    group: list[_Screen] = []
    for screen in screens:
        if group and not (
            len(group) < LONGEST_GROUP
            and len(screen.words) > 1
            and not screen.stamped
            and group[-1].followed_by(screen)
            and group[-1].texts == screen.texts
        ):
            yield from _phrases(group)
            group = []
        group.append(screen)
    yield from _phrases(group)


def _phrases(group: Sequence[_Screen]) -> Iterator[_Screen]:
    if len(group) < 2 or group[0].stamped:
        yield from group
        return
    styles = Counter(word.style for screen in group for word in screen.words)
    usual = min(styles, key=lambda style: (-styles[style], len(style)))
    marked = [_run([word.style != usual for word in screen.words]) for screen in group]
    if not _wanders(marked):
        yield from group
        return
    first = 0
    for place in range(1, len(group) + 1):  # the phrase is said again where the mark jumps back
        before = [run for run in marked[first:place] if run]
        if place == len(group) or ((run := marked[place]) and before and run[0] < before[-1][0]):
            yield _timed(group[first:place], marked[first:place])
            first = place


def _run(marks: Sequence[bool]) -> range:
    """The places that are marked, where they lie side by side and are not all; else none."""
    places = [place for place, mark in enumerate(marks) if mark]
    run = range(places[0], places[-1] + 1) if places else range(0)
    return run if 0 < len(run) == len(places) < len(marks) else range(0)


def _wanders(marked: Sequence[range]) -> bool:
    starts = [run[0] for run in marked if run]
    ascents = sum(later > earlier for earlier, later in pairwise(starts))
    return ascents > 0 and ascents >= sum(later < earlier for earlier, later in pairwise(starts))


def _timed(group: Sequence[_Screen], marked: Sequence[range]) -> _Screen:
    """One subtitle of all: word times if every word has been marked, one at a time."""
    words = list(group[0].words)
    spoken: dict[int, tuple[int, int]] = {}
    for screen, run in zip(group, marked, strict=True):
        if len(run) == 1:
            start_us = spoken.get(run[0], (screen.start_us, 0))[0]
            spoken[run[0]] = start_us, screen.end_us
    if len(spoken) == len(words):
        words = [word._replace(start_us=spoken[place][0], end_us=spoken[place][1]) for place, word in enumerate(words)]
    return _Screen(group[0].start_us, group[-1].end_us, words)


# captions that roll up


def _rolled(screens: Iterable[_Screen]) -> Iterator[_Screen]:
    """Without the words that a subtitle repeats of the one before, where captions roll."""
    rolls = False
    last: _Screen | None = None
    for block in _blocks(screens):
        rolls = _rolls(block if last is None else [last, *block], rolls)
        for screen in block:
            again = _again(last, screen) if rolls and last is not None else 0
            last = screen
            if again < len(screen.words):
                # what is added as one word is said while it is the newest
                alone = rolls and len(screen.words) == again + 1
                added = [_as_stamped(screen, word) if alone else word for word in screen.words[again:]]
                yield _Screen(screen.start_us, screen.end_us, added)


def _as_stamped(screen: _Screen, word: Piece) -> Piece:
    return word if word.start_us is not None else word._replace(start_us=screen.start_us)


def _blocks(screens: Iterable[_Screen]) -> Iterator[list[_Screen]]:
    block: list[_Screen] = []
    for screen in screens:
        block.append(screen)
        if len(block) == BLOCK:
            yield block
            block = []
    if block:
        yield block


def _rolls(screens: Sequence[_Screen], before: bool) -> bool:
    """Whether most subtitles that follow on another repeat it, and some add to what they repeat."""
    pairs = [(one, other) for one, other in pairwise(screens) if one.followed_by(other)]
    if len(screens) < BLOCK and before:
        return True  # the end of a file that has been rolling
    repeats = [(one, other, again) for one, other in pairs if (again := _again(one, other))]
    adds = any(again < len(other.words) or one.stamped for one, other, again in repeats)
    return adds and 2 * len(repeats) >= len(pairs)


def _again(one: _Screen, other: _Screen) -> int:
    """How many words a subtitle repeats of the one before, from a start of a line of that to its end."""
    if not one.followed_by(other):
        return 0
    before, now = one.texts, other.texts
    if other.stamped:  # the line with time stamps is new, whatever it says
        fresh = next(word.line for word in other.words if word.start_us is not None)
        kept = sum(word.line < fresh for word in other.words)
        return kept if kept and before[-kept:] == now[:kept] else 0
    shown = [[word.text for word in line] for line in lines(one.words)]
    said_twice = len(shown) > 1 and before == now and all(line == shown[0] for line in shown)
    begin = len(shown[0]) if said_twice else 0
    for line in shown[said_twice:]:
        again = len(before) - begin
        if again <= len(now) and before[begin:] == now[:again]:
            return again
        begin += len(line)
    return 0


# cues


def _cues(screen: _Screen, language: str | None) -> Iterator[Cue]:
    """One cue for each speaker; of words with times, one for each stretch whose words all have one."""
    for speaker, said in groupby(screen.words, key=lambda word: word.speaker):
        words = list(said)
        if all(word.start_us is None for word in words):
            text = " ".join(word.text for word in words)
            yield Cue(screen.start_us, screen.end_us, text, (), language, speaker)
        else:
            yield from _stamped_cues(screen, words, language, speaker)


def _stamped_cues(screen: _Screen, words: Sequence[Piece], language: str | None, speaker: str | None) -> Iterator[Cue]:
    runs: list[list[Piece]] = []  # a word with a time, and those that follow without
    for word in words:
        if word.start_us is not None or not runs:
            runs.append([])
        runs[-1].append(word)
    starts = [screen.start_us if run[0].start_us is None else run[0].start_us for run in runs]
    timed: list[Spoken] = []
    for run, start_us, next_us in zip(runs, starts, [*starts[1:], screen.end_us], strict=True):
        end_us = max(start_us, next_us if run[-1].end_us is None else min(run[-1].end_us, screen.end_us))
        if len(run) == 1:
            timed.append(Spoken(run[0].text, start_us, end_us))
            continue
        yield from _phrase(timed, language, speaker)
        timed = []
        yield Cue(start_us, end_us, " ".join(word.text for word in run), (), language, speaker)
    yield from _phrase(timed, language, speaker)


def _phrase(timed: Sequence[Spoken], language: str | None, speaker: str | None) -> Iterator[Cue]:
    if timed:
        text = " ".join(word.text for word in timed)
        yield Cue(timed[0].start_us, timed[-1].end_us, text, tuple(timed), language, speaker)
