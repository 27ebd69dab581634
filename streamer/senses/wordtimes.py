"""When each word was said, where the recogniser does not know: by forced alignment (PocketSphinx, BSD, English).

The words are known; a hidden Markov model of each word's sounds, from CMU's dictionary, is laid over the sound. A word
that the dictionary does not have, such as a number in digits, has no sounds: then the utterance gets no times at all,
since none may be invented.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from streamer.errors import extra
from streamer.senses.speech import RATE_HZ, Heard, HeardWord, Recogniser

FRAME_S = 0.01
EDGES = re.compile(r"^[^\w]+|[^\w]+$")
SPELT = {"mr.": "mister", "mrs.": "missus", "dr.": "doctor"}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class WordTimes:
    """Finds the times of words that are known."""

    def __init__(self) -> None:
        with extra("senses", "times of words"):
            from pocketsphinx import Decoder
        self._decoder = Decoder(lm=None, samprate=RATE_HZ, loglevel="FATAL")

    def of(self, text: str, samples_S: NDArray[np.float32]) -> tuple[HeardWord, ...]:
        """The words of a text with their times; empty if one is unknown, or if they do not fit the sound.

        Args:
            text: As a recogniser writes it; what is between spaces is a word.
            samples_S: float32 [S] at 16 kHz, in [-1, 1].
        """
        words = text.split()
        said = [_spelt(word) for word in words]
        known = [part for parts in said for part in parts]
        if not all(said) or any(self._decoder.lookup_word(part) is None for part in known):
            return ()
        decoder = self._decoder
        decoder.set_align_text(" ".join(known))
        decoder.start_utt()
        decoder.process_raw((np.clip(samples_S, -1, 1) * 32767).astype("<i2").tobytes(), full_utt=True)
        decoder.end_utt()
        if decoder.hyp() is None:
            return ()
        spans = [
            (segment.start_frame * FRAME_S, (segment.end_frame + 1) * FRAME_S)
            for segment in decoder.seg()
            if not segment.word.startswith(("<", "[", "("))  # silence and noise
        ]
        if len(spans) != len(known):
            return ()
        found, at = list[HeardWord](), 0
        for word, parts in zip(words, said, strict=True):
            found.append(HeardWord(word, spans[at][0], spans[at + len(parts) - 1][1]))
            at += len(parts)
        return tuple(found)


class Timed:
    """A recogniser whose words get times, where it knows none and they are found."""

    def __init__(self, recogniser: Recogniser, times: WordTimes) -> None:
        self._recogniser = recogniser
        self._times = times
        self.version = f"{recogniser.version}+times"

    def hear(self, samples_S: NDArray[np.float32]) -> Heard:
        """See :class:`Recogniser`."""
        heard = self._recogniser.hear(samples_S)
        if heard.words or not heard.text or heard.language not in (None, "en"):
            return heard
        return heard._replace(words=self._times.of(heard.text, samples_S))


def _spelt(word: str) -> list[str]:
    """How the dictionary spells it: ``"ill-disposed,"`` as two words; empty if nothing is left."""
    lower = word.lower()
    if lower in SPELT:
        return [SPELT[lower]]
    parts = [EDGES.sub("", part) for part in re.split(r"[-–]", lower.replace("’", "'"))]
    return [DIGITS[int(part)] if re.fullmatch(r"[0-9]", part) else part for part in parts if part]
