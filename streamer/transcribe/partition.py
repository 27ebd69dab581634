"""The sounds of a partition of the audio topic: its records in order -> utterances, and the cut that may be committed.

A function of the records since the cut, see :class:`Cut`: which utterances there are, their samples, names and times.
A sound is known by session and sensor. It goes on as long as its chunks follow one another in event time: up to
``JITTER_US`` more or less is the sender's clock, a hole of at most the silence that ends an utterance is filled with
silence, and a larger one ends the utterance. What was heard already is left out. Chunks are heard in the order of the
log; one that comes behind its successor is late, and counted.

A sound ends with its session's end record on this topic, or when log time has passed its last chunk by that chunk's
length and ``gap_us``: then what is left of it is an utterance, and the next chunk begins a new one.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, deque
from collections.abc import Iterable
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.senses.voice import VoiceNetwork
from streamer.transcribe.utterances import Piece, Place, Rules, Run, Speech

JITTER_US = 100_000  # what timers and buffers of a sender make of its times
KEY_BYTES = 6
MAX_METADATA_BYTES = 4096  # what a broker takes with an offset by default (offset.metadata.max.bytes)
PREFIX = "sounds="


class Key(NamedTuple):
    """A sound."""

    session: str
    sensor: str

    @property
    def hashed(self) -> bytes:
        """A name short enough for many to be in a commit's metadata."""
        whole = f"{self.sensor}/{self.session}".encode()
        return hashlib.blake2b(whole, digest_size=KEY_BYTES).digest()


class Cut(NamedTuple):
    """Where a process may go on so that nothing is lost and everything is cut as before.

    Attributes:
        offset: The first record that is needed again.
        log_time_us: Log time there, which never steps back.
        begins: Where each sound goes on that goes on behind that record, by its hashed key.
    """

    offset: int
    log_time_us: int
    begins: dict[bytes, Place]

    def metadata(self) -> str | None:
        """What is committed beside the offset; None if that is more than a broker takes."""
        begins = [(key, place.offset - self.offset, place.sample) for key, place in sorted(self.begins.items())]
        packed = base64.b64encode(msgspec.msgpack.encode((self.log_time_us, begins))).decode()
        return PREFIX + packed if len(PREFIX) + len(packed) <= MAX_METADATA_BYTES else None

    @classmethod
    def read(cls, offset: int, metadata: str) -> Cut:
        """The cut that was committed; a commit of another program has an offset alone."""
        if not metadata.startswith(PREFIX):
            return cls(offset, 0, {})
        packed = base64.b64decode(metadata.removeprefix(PREFIX))
        log_time_us, begins = msgspec.msgpack.decode(packed, type=tuple[int, list[tuple[bytes, int, int]]])
        return cls(offset, log_time_us, {key: Place(offset + behind, sample) for key, behind, sample in begins})


class Utterance:
    """Speech of a sound, which holds the cut until it is done."""

    __slots__ = ("done", "key", "partition", "speech")

    def __init__(self, partition: Partition, key: Key, speech: Speech) -> None:
        self.partition = partition
        self.key = key
        self.speech = speech
        self.done = False


class _Sound:
    """A sound that goes on.

    Attributes:
        silent_us: The log time at which it ends if nothing more of it comes.
    """

    def __init__(self, network: VoiceNetwork, rules: Rules) -> None:
        self._network = network
        self._rules = rules
        self.run: Run | None = None
        self._expected_us = self._rate_hz = 0
        self.silent_us = 0

    def hear(self, piece: Piece, hole_us: int) -> tuple[list[Speech], bool]:
        """Go on with a record's sound; returns the utterances that end with it, and whether all of it was known."""
        found: list[Speech] = []
        if self.run is not None:
            lead_us = piece.start_us - self._expected_us
            if lead_us < -JITTER_US:
                known = min(round(-lead_us * piece.rate_hz / 1_000_000), len(piece.samples_S))
                piece = piece.after(known)
                if not len(piece.samples_S):
                    return found, True
            elif lead_us > hole_us or piece.rate_hz != self._rate_hz:
                found += self.end()
            elif lead_us > JITTER_US:
                silence_S = np.zeros(round(lead_us * piece.rate_hz / 1_000_000), np.float32)
                hole = Piece(None, 0, self._expected_us, piece.rate_hz, silence_S, piece.log_time_us)
                found += self._add([hole, piece])
                self._follow(piece)
                return found, False
        found += self._add([piece])
        self._follow(piece)
        return found, False

    def end(self) -> list[Speech]:
        """What is left; the next sound begins afresh."""
        found: list[Speech] = []
        while self.run is not None:
            closed = self.run.end()
            self.run = None
            found += [] if closed.speech is None else [closed.speech]
            found += self._add(closed.rest)
        return found

    def _follow(self, piece: Piece) -> None:
        self._expected_us, self._rate_hz = piece.end_us, piece.rate_hz

    def _add(self, pieces: list[Piece]) -> list[Speech]:
        found, todo = list[Speech](), deque(pieces)
        while todo:
            piece = todo.popleft()
            if self.run is None:
                assert piece.offset is not None
                begin = Place(piece.offset, piece.first)
                self.run = Run(self._network, self._rules, begin, piece.log_time_us)
            if (closed := self.run.add(piece)) is not None:
                self.run = None
                found += [] if closed.speech is None else [closed.speech]
                todo.extendleft(reversed(closed.rest))
        return found


class Partition:
    """State of one partition.

    Args:
        cut: Where it was committed.
        hole_us: The largest hole that is filled with silence.
        gap_us: How much longer than its last chunk a sound may be silent, in log time.

    Attributes:
        alive: False once it belongs to another process: what is under way for it is dropped.
        next_offset: After the last record that was taken.
        chunks: What became of records: heard, late, replayed (known from before the cut), control.
    """

    def __init__(
        self, number: int, network: VoiceNetwork, rules: Rules, hole_us: int, gap_us: int, cut: Cut | None
    ) -> None:
        self.number = number
        self.alive = True
        self.next_offset = 0 if cut is None else cut.offset
        self.log_time_us = 0 if cut is None else cut.log_time_us
        self.chunks: Counter[str] = Counter()
        self._network, self._rules = network, rules
        self._hole_us, self._gap_us = hole_us, gap_us
        self._sounds: dict[Key, _Sound] = {}
        self._begins: dict[bytes, Place] = {} if cut is None else dict(cut.begins)  # not reached yet
        self._ended: dict[bytes, Place] = {}  # sounds that have ended: where the next of their name may begin
        self._unfinished: dict[Key, deque[Utterance]] = {}
        self._soonest_us = 0  # no sound ends by silence before

    @property
    def sounds(self) -> int:
        """How many go on."""
        return len(self._sounds)

    @property
    def soonest_us(self) -> int | None:
        """No sound ends by silence before this log time; None if none goes on."""
        return self._soonest_us if self._sounds else None

    def begin(self, offset: int, log_time_us: int) -> list[Utterance]:
        """Come to a record; returns the utterances that end by silence before it. To be called for every record."""
        found = self.silence(log_time_us, offset)
        self.next_offset = offset + 1
        return found

    def silence(self, log_time_us: int, offset: int) -> list[Utterance]:
        """Log time has come this far, and the record at ``offset`` is not before it."""
        self.log_time_us = max(self.log_time_us, log_time_us)
        if self.log_time_us < self._soonest_us or not self._sounds:
            return []
        over = [(sound.silent_us, key) for key, sound in self._sounds.items() if sound.silent_us <= self.log_time_us]
        found = [utterance for _, key in sorted(over) for utterance in self._end(key, offset)]
        self._soonest_us = min((sound.silent_us for sound in self._sounds.values()), default=0)
        return found

    def needs(self, key: Key, offset: int) -> bool:
        """Whether a record's payload is wanted: not if all of it was done before the cut."""
        return offset >= self._begins.get(key.hashed, Place(0, 0)).offset

    def hear(
        self,
        key: Key,
        offset: int,
        start_us: int,
        rate_hz: int,
        samples_S: NDArray[np.float32],
        duration_us: int,
        traceparent: bytes | None = None,
    ) -> list[Utterance]:
        """Take a record's sound, after :meth:`begin`; returns the utterances that end with it.

        Args:
            duration_us: Of the record's event.
        """
        piece = Piece(offset, 0, start_us, rate_hz, samples_S, self.log_time_us, traceparent)
        begin = self._begins.get(key.hashed)
        if begin is not None and offset >= begin.offset:
            del self._begins[key.hashed]
            if offset == begin.offset:
                piece = piece.after(begin.sample)
        sound = self._sounds.get(key)
        if sound is None:
            sound = self._sounds[key] = _Sound(self._network, self._rules)
            self._ended.pop(key.hashed, None)
        sound.silent_us = self.log_time_us + duration_us + self._gap_us
        self._soonest_us = min(self._soonest_us or sound.silent_us, sound.silent_us)
        found, known = sound.hear(piece, self._hole_us)
        self.chunks["late" if known else "heard"] += 1
        return self._hold(key, found)

    def end(self, session: str, offset: int) -> list[Utterance]:
        """The session ends with the record at ``offset``."""
        over = sorted(key for key in self._sounds if key.session == session)
        return [utterance for key in over for utterance in self._end(key, offset + 1)]

    def finish(self, utterance: Utterance) -> None:
        """Kafka has what was said in an utterance, or nothing was said."""
        utterance.done = True
        waiting = self._unfinished[utterance.key]
        while waiting and waiting[0].done:
            waiting.popleft()
        if not waiting:
            del self._unfinished[utterance.key]

    def cut(self) -> Cut:
        """What may be committed now."""
        begins = dict(self._begins) | self._ended
        times: dict[int, int] = {}
        for key, sound in self._sounds.items():
            if sound.run is not None:
                begins[key.hashed] = sound.run.begin
                times[sound.run.begin.offset] = sound.run.log_time_us
        for key, waiting in self._unfinished.items():
            begins[key.hashed] = waiting[0].speech.begin
            times[waiting[0].speech.begin.offset] = waiting[0].speech.log_time_us
        offset = min([self.next_offset, *times])
        for places in (self._begins, self._ended):
            for known in [key for key, place in places.items() if place <= (offset, 0)]:
                del places[known]
        behind = {key: place for key, place in begins.items() if place > (offset, 0)}
        return Cut(offset, times.get(offset, self.log_time_us), behind)

    def _end(self, key: Key, offset: int) -> list[Utterance]:
        found = self._hold(key, self._sounds.pop(key).end())
        self._ended[key.hashed] = Place(offset, 0)
        return found

    def _hold(self, key: Key, found: Iterable[Speech]) -> list[Utterance]:
        utterances = [Utterance(self, key, speech) for speech in found]
        if utterances:
            self._unfinished.setdefault(key, deque()).extend(utterances)
        return utterances
