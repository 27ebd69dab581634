"""The newest sentences said aloud, with their sound, from the speech topic of `streamer speak`."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from kafka import TopicPartition

from streamer.clients import kafka as kafka_clients
from streamer.dashboard.reading import Reader
from streamer.events import TOPIC_SPEECH
from streamer.settings import Settings
from streamer.speak import records
from streamer.speak.sentences import Utterance

POLL_MS = 500
LOOK_S = 5.0  # between two looks for the topic: `streamer speak` makes it when it first starts
BACK = 20  # records of a partition that are read from before the start
MAX_HELD = 500  # utterances
MAX_HELD_BYTES = 32 << 20  # of sound


class Spoken:
    """The newest utterances with their sound, within a bound; for several threads."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._held: OrderedDict[str, tuple[Utterance, bytes]] = OrderedDict()
        self._held_bytes = 0
        self._newest: dict[str, Utterance] = {}

    def newest(self, session: str) -> Utterance | None:
        """What was last said in a session, if it is still held."""
        with self._guard:
            return self._newest.get(session)

    def sound(self, name: str) -> bytes | None:
        """The WAV file of the utterance of this id; ``None`` if it is not held any more."""
        with self._guard:
            found = self._held.get(name)
        return None if found is None else found[1]

    def hold(self, utterance: Utterance, sound: bytes) -> None:
        """Take an utterance, in the place of the oldest if need be."""
        with self._guard:
            if utterance.id in self._held:
                self._held_bytes -= len(self._held.pop(utterance.id)[1])
            self._held[utterance.id] = (utterance, sound)
            self._held_bytes += len(sound)
            self._newest[utterance.session] = utterance
            while len(self._held) > MAX_HELD or self._held_bytes > MAX_HELD_BYTES:
                _, (oldest, freed) = self._held.popitem(last=False)
                self._held_bytes -= len(freed)
                if self._newest.get(oldest.session) is oldest:
                    del self._newest[oldest.session]


class Listener(Reader):
    """Reads the speech topic in its own thread.

    Args:
        spoken: Gets what is read.
        on_utterance: Called in that thread for each that comes, also for one that Kafka has twice.

    Raises:
        UsageError: Kafka does not answer.
    """

    def __init__(self, settings: Settings, spoken: Spoken, on_utterance: Callable[[Utterance], None]) -> None:
        super().__init__("speech", "what is said aloud")
        self._topic = settings.topic(TOPIC_SPEECH)
        self._spoken = spoken
        self._on_utterance = on_utterance
        self._consumer = kafka_clients.consumer(settings)

    def step(self) -> None:
        if not self._consumer.assignment() and not self._look():
            self.stop_asked.wait(LOOK_S)
            return
        for messages in self._consumer.poll(timeout_ms=POLL_MS).values():
            for message in messages:
                self._take(message)

    def release(self) -> None:
        self._consumer.close()

    def _look(self) -> bool:
        """Begin to read, if the topic is there."""
        places = [TopicPartition(self._topic, n) for n in self._consumer.partitions_for_topic(self._topic) or ()]
        if not places:
            return False
        begins, ends = self._consumer.beginning_offsets(places), self._consumer.end_offsets(places)
        self._consumer.assign(places)  # only now: without a place to start from it would begin at the end
        for place in places:
            self._consumer.seek(place, max(begins[place], ends[place] - BACK))
        return True

    def _take(self, message: Any) -> None:
        utterance = records.read(message.key, message.headers)
        if utterance is not None:
            self._spoken.hold(utterance, message.value or b"")
            self._on_utterance(utterance)
