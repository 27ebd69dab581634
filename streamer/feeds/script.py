"""What is said in a simulated drive: a dispatcher about emergency vehicles, the navigation about the lane ahead."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streamer.events import Transcript, Word

SIREN = (
    "ambulance behind you",
    "fire truck approaching",
    "police car closing in",
    "siren coming up",
    "emergency vehicle behind",
    "ambulance approaching fast",
    "make way for rescue",
)
NO_SIREN = (
    "dispatch all quiet",
    "no calls nearby",
    "ambulance back at base",
    "police shift ended",
    "radio check fine",
    "fire station on left",
    "nothing on channel",
)
OBSTACLE = (
    "pedestrian in lane",
    "stopped car ahead",
    "cyclist in front",
    "obstacle straight ahead",
    "person crossing ahead",
    "lane blocked ahead",
    "someone on the road",
)
NO_OBSTACLE = (
    "lane is free",
    "road ahead clear",
    "continue straight on",
    "pedestrians stay on pavement",
    "keep this lane",
    "cyclist left the road",
    "next turn in two kilometers",
)
LATENESS_S = (0.3, 1.2)  # from the last word until the recogniser's transcript is there


def utterances(
    rng: np.random.Generator, seconds: int, siren: bool, obstacle: bool
) -> Iterator[tuple[int, Transcript, float]]:
    """What is said in one segment: back to back, one or two seconds each, both speakers in every second.

    Yields:
        Second of the segment at which the utterance begins, the transcript, and when it is there, in seconds after its
        beginning.
    """
    start_s = 0
    while start_s < seconds:
        length_s = min(seconds - start_s, int(rng.integers(1, 3)))
        words: list[Word] = []
        for second in range(length_s):
            spoken = [_one_of(rng, SIREN if siren else NO_SIREN), _one_of(rng, OBSTACLE if obstacle else NO_OBSTACLE)]
            if rng.integers(2):
                spoken.reverse()
            words += _timed(" ".join(spoken).split(), float(second))
        text = " ".join(word.text for word in words)
        there_s = length_s + float(rng.uniform(*LATENESS_S))
        yield start_s, Transcript(text, end=float(length_s), words=tuple(words), language="en"), there_s
        start_s += length_s


def _one_of(rng: np.random.Generator, phrases: tuple[str, ...]) -> str:
    return phrases[int(rng.integers(len(phrases)))]


def _timed(words: list[str], begin_s: float) -> list[Word]:
    """Words spread over one second, each as long as its letters."""
    ends = np.cumsum([len(word) + 1 for word in words])
    times = np.round(begin_s + np.concatenate([[0], ends]) / ends[-1], 3)
    return [Word(word, float(times[i]), float(times[i + 1])) for i, word in enumerate(words)]
