"""What alarms set off: each action at least once, and apart from the others, so that one that fails delays no other."""

from __future__ import annotations

import asyncio
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from threading import Event
from time import time
from typing import ClassVar
from urllib.parse import quote

from kafka.errors import KafkaError
from redis.exceptions import RedisError

from streamer.backoff import Backoff
from streamer.broker import topics
from streamer.clients import kafka as kafka_clients
from streamer.errors import Unavailable, UsageError, one_line
from streamer.events import TOPIC_SPEECH
from streamer.golden.record import Stretch, record
from streamer.rules.alarm import Alarm
from streamer.rules.alarms import Alarms
from streamer.rules.metrics import Metrics
from streamer.senses import synthesis
from streamer.settings import Settings
from streamer.sinks.posting import Poster
from streamer.speak import records
from streamer.speak.sentences import MAX_CHARACTERS, Severity, Utterance

TOPIC_ALARMS = "alarms"
AT_ONCE = 16  # actions of a kind
LONGEST_PAUSE_S = 60.0
LOOK_S = 30.0  # between two looks for what nobody does
ACK_S = 20.0  # longest wait for Kafka's acknowledgement

log = logging.getLogger(__name__)


class Action(ABC):
    """Something to be done with an alarm.

    Args:
        settings: Where and how.

    Raises:
        UsageError: It cannot be done as it is set up.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def open(self) -> None:  # noqa: B027 - some need none
        """Connect."""

    async def close(self) -> None:  # noqa: B027
        """Disconnect."""

    @abstractmethod
    async def do(self, alarm: Alarm) -> str:
        """Do it; returns what became of it, in words.

        Raises:
            Unavailable: Not now.
        """


class Post(Action):
    """Posts the alarm to the webhook of the settings."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._poster = Poster(settings, AT_ONCE)

    async def open(self) -> None:
        await self._poster.open()

    async def close(self) -> None:
        await self._poster.close()

    async def do(self, alarm: Alarm) -> str:
        answer = await self._poster.post(alarm.id, alarm.event())
        if answer.why and not answer.for_good:
            await asyncio.sleep(answer.after_s)
            raise Unavailable(f"{self._poster.shown}: {answer.why}")
        return f"refused: {answer.why}" if answer.why else "done"


class _Sending(Action):
    """Sends a record of the alarm to a topic, which is made if it is not there."""

    TOPIC: ClassVar[str]

    async def open(self) -> None:
        self._topic = await asyncio.to_thread(topics.ensure, self._settings, self.TOPIC)
        self._producer = await asyncio.to_thread(kafka_clients.producer, self._settings, acks="all")

    async def close(self) -> None:
        await asyncio.to_thread(self._producer.close, timeout=1)

    async def send(self, alarm: Alarm, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
        try:
            sent = self._producer.send(self._topic, key=alarm.session.encode(), value=value, headers=headers)
            await asyncio.to_thread(sent.get, ACK_S)
        except KafkaError as error:
            raise Unavailable(f"Kafka took no alarm: {one_line(error)}") from error


class Write(_Sending):
    """Writes the alarm to the topic of alarms."""

    TOPIC = TOPIC_ALARMS

    async def do(self, alarm: Alarm) -> str:
        await self.send(alarm, alarm.event(), [("content-type", b"application/cloudevents+json")])
        return "done"


class Speak(_Sending):
    """Says the alarm aloud: a record of the speech topic, which those play who play what `streamer speak` says.

    It supersedes nothing, since what is being said is not known here: players let what is more severe cut off the rest.
    """

    TOPIC = TOPIC_SPEECH

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._voice = synthesis.voice(settings)
        self._one = asyncio.Lock()  # voices say one thing at a time

    async def do(self, alarm: Alarm) -> str:
        severity = Severity[alarm.severity.upper()]
        text = alarm.text[:MAX_CHARACTERS]
        async with self._one:
            speech = await asyncio.to_thread(self._voice.say, text)
        if not len(speech.samples_S):
            return f"refused: the voice {self._voice.name} has no sound for {text!r}"
        utterance = Utterance(alarm.session, alarm.end_us, text, severity, rule=alarm.rule)
        await self.send(alarm, speech.wav(), records.headers(utterance, speech.duration_us))
        return "done"


class Clip(Action):
    """Records what the session sent around the window, as `streamer record` does."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._stop = Event()
        try:
            settings.rules_clips.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"cannot write to {settings.rules_clips}: {error.strerror}") from None

    async def close(self) -> None:
        self._stop.set()

    async def do(self, alarm: Alarm) -> str:
        settings = self._settings
        since_us = alarm.start_us - settings.rules_clip_before_ms * 1000
        until_us = alarm.end_us + settings.rules_clip_after_ms * 1000
        await asyncio.sleep(max(0.0, until_us / 1e6 - time()))
        path = settings.rules_clips / f"{quote(alarm.id, safe='')}.mcap"
        stretch = Stretch(since_us, (until_us - since_us) / 1e6, (alarm.session,))
        return await asyncio.to_thread(self._record, path, stretch)

    def _record(self, path: Path, stretch: Stretch) -> str:
        draft = path.with_suffix(".part")
        try:
            outcome = record(self._settings, draft, stretch, force=True, stop=self._stop)
            if self._stop.is_set():
                raise Unavailable("it was stopped while it recorded")
            os.replace(draft, path)
        except (UsageError, KafkaError, OSError) as error:
            raise Unavailable(f"no clip: {one_line(error)}") from error
        return f"{outcome.records} records in {path}"


ACTIONS: dict[str, type[Action]] = {"webhook": Post, "kafka": Write, "clip": Clip, "speak": Speak}


class Doing:
    """Does what is to be done, until it is done.

    Args:
        actions: Name -> action, open.
    """

    def __init__(self, actions: dict[str, Action], alarms: Alarms, metrics: Metrics) -> None:
        self._actions = actions
        self._alarms = alarms
        self._metrics = metrics
        self._free = {name: asyncio.Semaphore(AT_ONCE) for name in actions}
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}  # by action and alarm
        self._failing: dict[str, str] = {}

    def begin(self, todo: Iterable[tuple[str, Alarm]]) -> None:
        """Do these; one whose action is not in the rules any more is left."""
        for name, alarm in todo:
            place = name, alarm.id
            if name in self._actions and place not in self._tasks:
                task = self._tasks[place] = asyncio.create_task(self._do(name, alarm))
                task.add_done_callback(partial(self._ended, place))

    def _ended(self, place: tuple[str, str], task: asyncio.Task[None]) -> None:
        del self._tasks[place]

    async def look(self) -> None:
        """Do what is left, until cancelled: of a process that has ended, or of a call whose answer was lost.

        What was there at the look before, and is nobody's here, is begun: others are doing what is newer.
        """
        before: set[tuple[str, str]] = set()
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                todo = await self._alarms.undone()
            except (RedisError, OSError) as error:
                log.info("no look at what is to be done: %s", error)  # the reader tells that Redis is away
                continue
            self.begin(one for one in todo if (one[0], one[1].id) in before)
            before = {(name, alarm.id) for name, alarm in todo}

    async def end(self) -> None:
        """Leave the rest to the next process."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def degraded(self) -> list[str]:
        """Which actions do not work at the moment."""
        return [f"{name}: {why}" for name, why in self._failing.items()]

    async def _do(self, name: str, alarm: Alarm) -> None:
        backoff = Backoff(LONGEST_PAUSE_S)
        while True:
            try:
                async with self._free[name]:
                    note = await self._actions[name].do(alarm)
                await self._alarms.done(name, alarm, note)
            except (Unavailable, RedisError, OSError) as error:
                if name not in self._failing:
                    log.warning("action %s: %s; tried again", name, error)
                self._failing[name] = str(error)
                self._metrics.actions.labels(name, "failed").inc()
                await backoff.pause()
                continue
            self._failing.pop(name, None)
            outcome = "refused" if note.startswith("refused") else "done"
            if outcome == "refused":
                log.error("action %s of %s: %s", name, alarm.id, note)
            self._metrics.actions.labels(name, outcome).inc()
            return
