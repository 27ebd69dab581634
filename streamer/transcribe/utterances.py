"""Cutting a sound into utterances: a function of the sound since a *beginning*, and of nothing else.

A :class:`Run` takes the sound from a beginning, until voice activity tells where an utterance ends, or that there is
none; that is where the next run begins, with a fresh network and a fresh resampler. So a process that starts again at a
beginning cuts the same utterances to the sample, whatever was before.

Where a run ends:

- after an utterance, once ``silence_frames`` of silence have followed it: the next begins ``PAD_FRAMES`` behind it;
- at the quietest frame of its last quarter, once an utterance has ``longest_frames``: the next begins there;
- without an utterance, after ``QUIET_FRAMES``: the next begins ``PAD_FRAMES`` before, since a word may just have begun;
- where the sound ends or has a hole.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import soxr
from numpy.typing import NDArray

from streamer.senses.voice import FRAME_SAMPLES, RATE_HZ, VoiceActivity, VoiceNetwork

BEGINS, GOES_ON = 0.5, 0.35  # probability of speech; the network's authors use these two
PAD_FRAMES = 6  # of 32 ms, heard before and after an utterance: plosives and breath lie below the thresholds
QUIET_FRAMES = 94  # 3 s: how much sound is kept, and read again after a restart, of a microphone that hears nobody
LEAST_FRAMES = 3  # of voice in an utterance: a click is none
FRAME_MS = FRAME_SAMPLES * 1000 / RATE_HZ


class Rules(NamedTuple):
    """When an utterance ends, in frames."""

    silence_frames: int
    longest_frames: int

    @classmethod
    def of(cls, silence_ms: int, longest_ms: int) -> Rules:
        """From milliseconds."""
        return cls(math.ceil(silence_ms / FRAME_MS), math.floor(longest_ms / FRAME_MS))


class Place(NamedTuple):
    """A sample in the log: the offset of its record, and its index in it, at the record's own rate."""

    offset: int
    sample: int


class Piece(NamedTuple):
    """Sound of one record, mixed to mono, from some sample on.

    Attributes:
        offset: Of the record; None for silence in place of what is missing.
        first: Index of the first sample in the record, at its own rate.
        record_us: When the record's sample 0 was taken.
        rate_hz: Its own; the same for all pieces of a run.
        samples_S: float32, in [-1, 1].
        log_time_us: Of the record.
        traceparent: The record's header, if it has one.
    """

    offset: int | None
    first: int
    record_us: int
    rate_hz: int
    samples_S: NDArray[np.float32]
    log_time_us: int
    traceparent: bytes | None = None

    def after(self, count: int) -> Piece:
        """It without its first samples."""
        return self._replace(first=self.first + count, samples_S=self.samples_S[count:])

    def time_us(self, index: int) -> int:
        """When one of its samples was taken; rounded once, so that cutting it in steps changes no time."""
        return self.record_us + round((self.first + index) * 1_000_000 / self.rate_hz)

    @property
    def start_us(self) -> int:
        return self.time_us(0)

    @property
    def end_us(self) -> int:
        return self.time_us(len(self.samples_S))


class Speech(NamedTuple):
    """An utterance.

    Attributes:
        begin: Of its run, which names it.
        log_time_us: Of the record there.
        start_us: When its first sample was taken; the voice begins up to PAD_FRAMES later.
        voice_start_us, voice_end_us: When somebody spoke.
        samples_S: float32 at 16 kHz.
    """

    begin: Place
    log_time_us: int
    start_us: int
    voice_start_us: int
    voice_end_us: int
    samples_S: NDArray[np.float32]
    traceparent: bytes | None


class Closed(NamedTuple):
    """How a run ended.

    Attributes:
        rest: The sound from the next beginning on.
    """

    speech: Speech | None
    rest: list[Piece]


class Run:
    """The sound from a beginning.

    Args:
        begin: Place of the first sample, or behind the last one before.
        log_time_us: Of the record there.
    """

    def __init__(self, network: VoiceNetwork, rules: Rules, begin: Place, log_time_us: int) -> None:
        self.begin = begin
        self.log_time_us = log_time_us
        self._rules = rules
        self._activity = VoiceActivity(network)
        self._pieces: list[Piece] = []
        self._resampler: soxr.ResampleStream | None = None
        self._sound = np.empty(0, np.float32)  # at 16 kHz; grows in steps
        self._length = 0
        self._voices: list[float] = []  # probability of each frame
        self._first = self._last = -1  # frames with voice

    def add(self, piece: Piece) -> Closed | None:
        """Hear on; returns how the run ended, if it did."""
        if not self._pieces and piece.rate_hz != RATE_HZ:
            self._resampler = soxr.ResampleStream(piece.rate_hz, RATE_HZ, 1, dtype="float32")
        self._pieces.append(piece)
        self._grow(piece.samples_S if self._resampler is None else self._resampler.resample_chunk(piece.samples_S))
        return self._listen()

    def end(self) -> Closed:
        """No more sound follows that belongs to this: what is left is an utterance, or nothing."""
        if self._resampler is not None:
            self._grow(self._resampler.resample_chunk(np.empty(0, np.float32), last=True))
            if (closed := self._listen()) is not None:
                return closed
        return Closed(self._speech(self._length), [])

    @property
    def seconds(self) -> float:
        """Length of the sound that it holds."""
        return self._length / RATE_HZ

    def _grow(self, samples_S: NDArray[np.float32]) -> None:
        end = self._length + len(samples_S)
        if end > len(self._sound):
            self._sound = np.concatenate([self._sound[: self._length], np.empty(max(end, 4 * RATE_HZ), np.float32)])
        self._sound[self._length : end] = samples_S
        self._length = end

    def _listen(self) -> Closed | None:
        """Look at the frames that are whole, until the run ends."""
        while (len(self._voices) + 1) * FRAME_SAMPLES <= self._length:
            frame = len(self._voices)
            voice = self._activity.probability(self._sound[frame * FRAME_SAMPLES : (frame + 1) * FRAME_SAMPLES])
            self._voices.append(voice)
            if voice >= (BEGINS if self._first < 0 else GOES_ON):
                self._first, self._last = frame if self._first < 0 else self._first, frame
            if (next_frame := self._ended()) is not None:
                at = next_frame * FRAME_SAMPLES
                return Closed(self._speech(at), self._from(at))
        return None

    def _ended(self) -> int | None:
        """The frame at which the next run begins, if this one has ended with the newest frame."""
        count = len(self._voices)
        if self._first < 0:
            return count - PAD_FRAMES if count >= QUIET_FRAMES else None
        if count - 1 - self._last >= self._rules.silence_frames:
            return self._last + 1 + min(PAD_FRAMES, self._rules.silence_frames)
        begin = max(0, self._first - PAD_FRAMES)
        if count - begin >= self._rules.longest_frames:
            quarter = max(1, self._rules.longest_frames // 4)
            return count - quarter + int(np.argmin(self._voices[-quarter:]))
        return None

    def _speech(self, end: int) -> Speech | None:
        """The utterance up to a sample, if it is one."""
        voiced = [frame for frame, voice in enumerate(self._voices) if frame >= self._first and voice >= GOES_ON]
        if self._first < 0 or len(voiced) < LEAST_FRAMES:
            return None
        begin = max(0, self._first - PAD_FRAMES) * FRAME_SAMPLES
        voice_end = min(end, (self._last + 1) * FRAME_SAMPLES)
        return Speech(
            self.begin,
            self.log_time_us,
            self._time_us(begin),
            self._time_us(self._first * FRAME_SAMPLES),
            self._time_us(voice_end),
            self._sound[begin:end].copy(),
            next((piece.traceparent for piece in self._pieces if piece.traceparent), None),
        )

    def _time_us(self, at: int) -> int:
        """When a sample of 16 kHz was taken, by the clock of its record."""
        piece, index = self._find(at)
        return self._pieces[piece].time_us(index)

    def _from(self, at: int) -> list[Piece]:
        """The sound from a sample of 16 kHz on; never begins with silence that stands for what is missing."""
        piece, index = self._find(at)
        rest = [self._pieces[piece].after(index), *self._pieces[piece + 1 :]]
        return rest[1:] if rest[0].offset is None else rest

    def _find(self, at: int) -> tuple[int, int]:
        """Piece and index in it, at its own rate; of what lies behind the last sample, the end of the last piece."""
        index = round(at * self._pieces[0].rate_hz / RATE_HZ)
        last = len(self._pieces) - 1
        for number, piece in enumerate(self._pieces):
            if index < len(piece.samples_S) or number == last:
                break
            index -= len(piece.samples_S)
        return number, min(index, len(piece.samples_S))
