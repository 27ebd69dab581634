"""What is said in a simulated drive: a dispatcher about emergency vehicles and what goes on beside the road, the
navigation about the lane ahead, the light and the bend.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from streamer.events import Transcript, Word
from streamer.feeds.scenario import Segment

SIREN = (
    "{} behind you",
    "{} approaching",
    "{} closing in",
    "{} coming up",
    "{} right behind",
    "{} approaching fast",
    "make way for {}",
)
VEHICLES = (("ambulance", "rescue"), ("police car", "patrol"), ("fire truck", "fire engine"))  # as scenario.SIRENS
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
    "{} in lane",
    "stop for {} ahead",
    "{} in front",
    "{} straight ahead",
    "{} crossing ahead",
    "lane blocked by {}",
    "{} on the road",
)
THINGS = (("pedestrian", "person"), ("car", "vehicle"), ("cyclist", "bicycle"))  # as scenario.OBSTACLES
NO_OBSTACLE = (
    "lane is free",
    "road ahead clear",
    "continue on this road",
    "pedestrians stay on pavement",
    "keep this lane",
    "cyclist left the road",
    "next turn in two kilometers",
)
ROADSIDES = (  # as scenario.ROADSIDES
    ("",),
    ("bells ringing", "church bells"),
    ("roadworks drilling", "jackhammer at work"),
    ("dog barking", "a dog barks"),
    ("train passing", "railway alongside"),
    ("music playing", "street music"),
)
LIGHTS = (  # as scenario.LIGHTS
    ("in sunshine", "on a clear day"),
    ("under clouds", "cloudy day"),
    ("in the rain", "rainy day"),
    ("at dusk", "sunset"),
    ("at night", "in the dark"),
)
BENDS = (("bending left", "left curve"), ("straight",), ("bending right", "right curve"))  # as scenario.BENDS
LATENESS_S = (0.3, 1.2)  # from the last word until the recogniser's transcript is ready


def utterances(rng: np.random.Generator, segment: Segment, light: int) -> Iterator[tuple[int, Transcript, float]]:
    """What is said in one segment: back to back, one or two seconds each, both speakers in every second.

    Args:
        light: An index of ``scenario.LIGHTS``.

    Yields:
        Second of the segment at which the utterance begins, the transcript, and how many seconds after that beginning
        the recogniser has it ready.
    """
    seconds, start_s = segment.end_s - segment.start_s, 0
    while start_s < seconds:
        length_s = min(seconds - start_s, int(rng.integers(1, 3)))
        words: list[Word] = []
        for second in range(length_s):
            spoken = [_dispatcher(rng, segment), _navigation(rng, segment, light)]
            if rng.integers(2):
                spoken.reverse()
            words += _timed(" ".join(spoken).split(), float(second))
        text = " ".join(word.text for word in words)
        there_s = length_s + float(rng.uniform(*LATENESS_S))
        yield start_s, Transcript(text, end=float(length_s), words=tuple(words), language="en"), there_s
        start_s += length_s


def sentences(rng: np.random.Generator, segment: Segment, light: int) -> tuple[str, str]:
    """What the dispatcher and the navigation say in one segment, for a voice.

    Args:
        light: An index of ``scenario.LIGHTS``.
    """
    said = (_dispatcher(rng, segment), _navigation(rng, segment, light))
    dispatcher, navigation = (f"{text.strip().capitalize()}." for text in said)
    return dispatcher, navigation


def _dispatcher(rng: np.random.Generator, segment: Segment) -> str:
    vehicle = _one_of(rng, VEHICLES[segment.vehicle])
    called = _one_of(rng, SIREN if segment.siren else NO_SIREN).format(vehicle)
    return f"{called} {_one_of(rng, ROADSIDES[segment.roadside])}"


def _navigation(rng: np.random.Generator, segment: Segment, light: int) -> str:
    thing = _one_of(rng, THINGS[segment.obstacle_kind])
    seen = _one_of(rng, OBSTACLE if segment.obstacle else NO_OBSTACLE).format(thing)
    return f"{seen} {_one_of(rng, LIGHTS[light])} {_one_of(rng, BENDS[segment.bend])}"


def _one_of(rng: np.random.Generator, phrases: tuple[str, ...]) -> str:
    return phrases[int(rng.integers(len(phrases)))]


def _timed(words: list[str], begin_s: float) -> list[Word]:
    """Words spread over one second, each as long as its letters."""
    ends = np.cumsum([len(word) + 1 for word in words])
    times = np.round(begin_s + np.concatenate([[0], ends]) / ends[-1], 3)
    return [Word(word, float(times[i]), float(times[i + 1])) for i, word in enumerate(words)]
