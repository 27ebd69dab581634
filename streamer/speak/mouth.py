"""Results -> sentences -> records and files, a page at a time."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import quote

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from streamer.errors import Stop, Unavailable
from streamer.senses.synthesis import Speech, Voice
from streamer.speak import records
from streamer.speak.metrics import Metrics
from streamer.speak.sentences import Memory, Speaker, Utterance
from streamer.store.readers import Cursor, Cursors, Page

SEND_WITHIN_S = 30.0
MOST_KNOWN = 200  # sentences whose sound is kept: most are said again
MAX_NAME = 150  # characters of a session in the name of a file, which has 255 at most

log = logging.getLogger(__name__)


class Mouth:
    """Says what a page of results calls for.

    A record is acknowledged before the cursor moves: a page that is read again is said again, under the same ids.

    Args:
        producer: Not closed here.
        folder: Where WAV files are written too; ``None``: nowhere.
        on_utterance: Called with each utterance once it is said.
    """

    def __init__(
        self,
        speaker: Speaker,
        voice: Voice,
        producer: KafkaProducer,
        topic: str,
        cursors: Cursors,
        *,
        metrics: Metrics,
        folder: Path | None = None,
        on_utterance: Callable[[Utterance], object] = lambda utterance: None,
    ) -> None:
        self._speaker = speaker
        self._voice = voice
        self._producer = producer
        self._topic = topic
        self._cursors = cursors
        self._metrics = metrics
        self._folder = folder
        self._on_utterance = on_utterance
        self._known: OrderedDict[str, Speech] = OrderedDict()
        self._guard = Lock()

    async def take(self, page: Page) -> int | None:
        """Say what the page calls for, then move the cursor behind it; see :class:`streamer.store.readers.Reader`.

        Raises:
            Unavailable: Kafka does not take the records now.
            Stop: A file cannot be written.
        """
        if page.missed:
            self._metrics.overtaken.inc()
        memory = msgspec.json.decode(page.cursor.state, type=Memory) if page.cursor.state else Memory()
        said = await asyncio.to_thread(self._say, page, memory)
        after = Cursor(page.results[-1].end_us, msgspec.json.encode(memory))
        if not await self._cursors.move(page.session, page.cursor, after):
            return None
        for utterance in said:
            self._metrics.utterances.labels(utterance.severity.name.lower()).inc()
            self._metrics.cut_off.inc(bool(utterance.supersedes))
            self._on_utterance(utterance)
        return after.end_us

    def _say(self, page: Page, memory: Memory) -> list[Utterance]:
        said: list[tuple[Utterance, Any]] = []
        for result in page.results:
            utterance = self._speaker.hear(result, memory)
            if utterance is None:
                continue
            speech = self.sound(utterance.text)
            self._speaker.said(utterance, speech.duration_us, memory)
            if not len(speech.samples_S):
                self._metrics.utterances.labels("silent").inc()
                log.warning("%s: the voice %s has no sound for %r", page.session, self._voice.name, utterance.text)
                continue
            said.append((utterance, self._send(utterance, speech)))
            if self._folder is not None:
                write(self._folder, utterance, speech)
        for _, future in said:
            try:
                future.get(timeout=SEND_WITHIN_S)
            except KafkaError as error:
                raise Unavailable(f"it took no record for {self._topic}: {error}") from error
        return [utterance for utterance, _ in said]

    def _send(self, utterance: Utterance, speech: Speech) -> Any:
        headers = records.headers(utterance, speech.duration_us)
        try:
            return self._producer.send(self._topic, key=utterance.session.encode(), value=speech.wav(), headers=headers)
        except KafkaError as error:
            raise Unavailable(f"it takes no record for {self._topic}: {error}") from error

    def sound(self, text: str) -> Speech:
        """The sound of a sentence, which is kept."""
        with self._guard:
            if text in self._known:
                self._known.move_to_end(text)
                return self._known[text]
            with self._metrics.synthesis_seconds.time():
                speech = self._known[text] = self._voice.say(text)
            if len(self._known) > MOST_KNOWN:
                self._known.popitem(last=False)
            return speech


def write(folder: Path, utterance: Utterance, speech: Speech) -> None:
    """Write the WAV file of an utterance, named by session and end of the window in µs; again is the same file.

    Raises:
        Stop: It cannot be written.
    """
    path = folder / f"{quote(utterance.session, safe='')[:MAX_NAME]}-{utterance.end_us}.wav"
    draft = path.with_suffix(".part")
    try:
        draft.write_bytes(speech.wav())
        os.replace(draft, path)
    except OSError as error:
        raise Stop(f"cannot write {path}: {error.strerror}") from None
