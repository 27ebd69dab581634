"""Drives that speak: what their radio and navigation say is in the sound of the car, and not sent as words.

A recogniser must hear it, over the engine, sirens and rain. People take three seconds for what the transcripts of a
drive have in one, so less is said.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.events import AUDIO, KIND_NAMES, TEXT
from streamer.feeds import script
from streamer.feeds.car import S_US, SENSORS
from streamer.feeds.producer import Outgoing
from streamer.feeds.simulate import Drive
from streamer.feeds.sound import FULL_SCALE, RATE_HZ

FIRST_S = 0.3  # of a segment, before anything is said
PAUSE_S = 0.8  # between two sentences: longer than the silence that ends an utterance
LOUD = 0.8  # peak of the voice
DUCKED = 0.3  # what is left of all other sound while it speaks: a car turns down what is not the radio

Say = Callable[[str], NDArray[np.float32]]


class Line(msgspec.Struct, frozen=True):
    """A sentence of a drive.

    Attributes:
        begin_s, end_s: On the drive's clock.
        samples_S: How it sounds, at ``sound.RATE_HZ``.
    """

    begin_s: float
    end_s: float
    text: str
    samples_S: NDArray[np.float32]


def lines(drive: Drive, say: Say) -> list[Line]:
    """What is said in a drive: in each segment the dispatcher and the navigation in turn, as much as there is time for.

    Args:
        say: Words -> samples at ``sound.RATE_HZ``.
    """
    found = []
    for number, segment in enumerate(drive.course.segments):
        at_s = segment.start_s + FIRST_S
        for text in script.sentences(np.random.default_rng((drive.seed, 31, number)), segment, drive.course.light):
            samples_S = say(text)
            end_s = at_s + len(samples_S) / RATE_HZ
            if end_s + PAUSE_S > segment.end_s + FIRST_S:  # the next segment's first line comes after a pause too
                continue
            found.append(Line(at_s, end_s, text, samples_S))
            at_s = end_s + PAUSE_S
    return found


def outgoing(drive: Drive, spoken: list[Line]) -> Iterator[Outgoing]:
    """The drive's records without its words, with these lines in the sound of its first microphone.

    In that of another too they would be recognised, and said to have been said, once more.
    """
    microphone = next((name for name in drive.options.sensors if SENSORS[name].row == AUDIO), None)
    voice_S = np.zeros(round((drive.end_us - drive.start_us) / S_US * RATE_HZ), np.float32)
    for line in spoken:
        begin = round(line.begin_s * RATE_HZ)
        peak = float(np.abs(line.samples_S).max(initial=1e-6))
        voice_S[begin : begin + len(line.samples_S)] = line.samples_S * (LOUD / peak)
    for record in drive.outgoing():
        if record.row == TEXT:
            continue
        is_heard = record.row == AUDIO and (record.sensor or KIND_NAMES[AUDIO]) == microphone
        yield _mixed(record, drive, voice_S) if is_heard else record


def merged(drives: Sequence[Drive], spoken: Mapping[str, list[Line]]) -> Iterator[Outgoing]:
    """The records of several drives that speak, in the order in which they are due.

    Args:
        spoken: Session -> its lines.
    """
    return heapq.merge(*(outgoing(drive, spoken[drive.session]) for drive in drives), key=lambda record: record.due_us)


def _mixed(record: Outgoing, drive: Drive, voice_S: NDArray[np.float32]) -> Outgoing:
    own_S = np.frombuffer(record.payload, ">i2").astype(np.float32) / FULL_SCALE
    begin = round((record.time_us - drive.start_us) / S_US * RATE_HZ)
    part_S = voice_S[begin : begin + len(own_S)]
    share = DUCKED if part_S.any() else 1.0
    both_S = np.clip(own_S * share + part_S, -1, 1)
    return msgspec.structs.replace(record, payload=(both_S * FULL_SCALE).astype(">i2").tobytes())
