"""`streamer speak` on a real Kafka and a real Redis, and what the page plays of it."""

from __future__ import annotations

import asyncio
import io
import shutil
import sys
import time
import wave
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
import numpy as np
import pytest
import redis
import redis.asyncio
from prometheus_client import CollectorRegistry

from streamer import dashboard
from streamer.broker import topics as topic_admin
from streamer.clients import kafka as kafka_clients
from streamer.events import TOPIC_SPEECH
from streamer.local.program import Program
from streamer.local.worker import environment
from streamer.model.spec import read_spec
from streamer.observe.health import Service
from streamer.rules.actions import Speak
from streamer.rules.alarm import Alarm
from streamer.senses import synthesis
from streamer.senses.synthesis import ESPEAK, RATE_HZ, Speech
from streamer.settings import Settings
from streamer.speak import records
from streamer.speak.metrics import Metrics
from streamer.speak.mouth import Mouth
from streamer.speak.sentences import Severity, Speaker, Utterance, sentences
from streamer.store.readers import Cursor, Cursors, Reader
from streamer.store.results import Keys, forget
from tests import published
from tests.harness import ROOT, S_US, read_topic, wait_for
from tests.published import START_US

pytestmark = pytest.mark.integration

SESSION = "car/7 ü"
DRIVE = ("proceed", "proceed", "brake", "emergency_stop", "emergency_stop", "hold")
WANTED = [(0, "Proceed."), (2, "Brake."), (3, "Emergency stop!"), (5, "Hold.")]


class Tone:
    """A voice for which no network is needed: a tone for each letter."""

    name = "tone"

    def __init__(self, letter_s: float = 0.02) -> None:
        self._letter_s = letter_s

    def say(self, text: str) -> Speech:
        count = int(RATE_HZ * self._letter_s)
        tones = [np.zeros(0), *(np.sin(np.arange(count) * ord(letter) / 300) for letter in text)]
        return Speech(0.3 * np.concatenate(tones).astype(np.float32))


def publish(settings: Settings, session: str, actions: tuple[str, ...], start_us: int = START_US) -> None:
    first = (start_us - START_US) // S_US
    published.publish(settings, [published.result(session, first + i, action) for i, action in enumerate(actions)])


def heard(settings: Settings, session: str = SESSION) -> list[tuple[Utterance, Any]]:
    """The records of a session on the speech topic."""
    found = [(records.read(r.key, r.headers), r) for r in read_topic(settings, settings.topic(TOPIC_SPEECH))]
    return [(utterance, r) for utterance, r in found if utterance is not None and utterance.session == session]


def seconds(found: list[tuple[Utterance, Any]]) -> list[tuple[int, str]]:
    return [((utterance.end_us - START_US) // S_US - 1, utterance.text) for utterance, _ in found]


@asynccontextmanager
async def speaking(settings: Settings, letter_s: float = 0.02, **options: Any) -> AsyncIterator[tuple[Reader, Cursors]]:
    """A reader that speaks, with the parts of the process."""
    topic = topic_admin.ensure(settings, TOPIC_SPEECH)
    keys = Keys(settings.key_prefix)
    speaker = Speaker(sentences(read_spec(ROOT / "models" / "driving")))
    producer = kafka_clients.producer(settings, acks="all")
    client = redis.asyncio.Redis.from_url(settings.redis)
    try:
        cursors = Cursors(client, keys, keys.spoken)
        metrics = Metrics(CollectorRegistry())
        mouth = Mouth(speaker, Tone(letter_s), producer, topic, cursors, metrics=metrics, **options)
        service = Service("Redis"), Service("Kafka")
        yield Reader(client, keys, cursors, mouth.take, redis=service[0], other=service[1]), cursors
    finally:
        producer.close()
        await client.aclose()


async def test_each_change_is_a_record_and_a_file_and_the_alarm_cuts_off_the_warning(
    settings: Settings, tmp_path: Path
) -> None:
    publish(settings, SESSION, DRIVE)
    async with speaking(settings, letter_s=0.25, folder=tmp_path) as (reader, _):  # "Brake." takes 1.5 s
        await reader.run(once=True)
    found = heard(settings)
    assert seconds(found) == WANTED
    (_, brake), (alarm, record) = found[1], found[2]
    assert alarm.severity is Severity.ALARM
    assert alarm.supersedes == dict(brake.headers)["ce_id"].decode()
    headers = dict(record.headers)
    assert headers["ce_subject"].decode() == f"{SESSION}/{alarm.end_us}"
    with wave.open(io.BytesIO(record.value)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (RATE_HZ, 1, 2)
        assert file.getnframes() * S_US // RATE_HZ == int(headers["ce_durationus"])
    files = sorted(tmp_path.iterdir())  # noqa: ASYNC240 - nothing else runs
    assert [path.name for path in files] == [f"{quote(SESSION, safe='')}-{u.end_us}.wav" for u, _ in found]
    assert [path.read_bytes() for path in files] == [r.value for _, r in found]


async def test_a_death_before_the_cursor_moved_repeats_the_same_records_and_nothing_else(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(settings, SESSION, DRIVE[:3])
    async with speaking(settings) as (reader, cursors):

        async def dies(session: str, before: Cursor, after: Cursor) -> bool:
            raise RuntimeError("killed")

        monkeypatch.setattr(cursors, "move", dies)
        with pytest.raises(RuntimeError, match="killed"):
            await reader.run(once=True)
    assert seconds(heard(settings)) == WANTED[:2]

    publish(settings, SESSION, DRIVE[3:], START_US + 3 * S_US)
    for _ in range(2):  # the second one has nothing to do
        async with speaking(settings) as (reader, _):
            await reader.run(once=True)
    found = heard(settings)
    assert seconds(found) == WANTED[:2] + WANTED
    once = {dict(r.headers)["ce_id"]: (r.headers, r.value) for _, r in found}
    assert len(once) == len(WANTED)
    assert all((r.headers, r.value) == once[dict(r.headers)["ce_id"]] for _, r in found)


async def test_an_alarm_is_said_under_an_id_of_its_own_and_again_the_same(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(synthesis, "voice", lambda settings: Tone())
    publish(settings, SESSION, DRIVE[:1])
    async with speaking(settings) as (reader, _):
        await reader.run(once=True)
    ((proceed, _),) = heard(settings)
    action = Speak(settings)
    await action.open()
    alarm = Alarm("hazard", "alarm", SESSION, proceed.end_us - S_US, proceed.end_us, "Hazard!")
    try:
        assert [await action.do(alarm) for _ in range(2)] == ["done", "done"]
        assert (await action.do(msgspec.structs.replace(alarm, text=""))).startswith("refused: the voice tone")
    finally:
        await action.close()
    _, (said, first), (_, again) = heard(settings)
    assert (said.text, said.severity, said.rule, said.end_us) == ("Hazard!", Severity.ALARM, "hazard", proceed.end_us)
    assert said.id != proceed.id
    assert (first.headers, first.value) == (again.headers, again.value)


async def test_of_two_that_speak_at_once_neither_loses_a_sentence(settings: Settings) -> None:
    for number in range(5):
        publish(settings, f"car-{number}", DRIVE * 3)
    async with speaking(settings) as (one, _), speaking(settings) as (other, _):
        await asyncio.gather(one.run(once=True), other.run(once=True))
    for number in range(5):
        found = heard(settings, f"car-{number}")
        assert len({dict(r.headers)["ce_id"]: u for u, r in found}) == 12
        assert {second % 6: text for second, text in seconds(found)} == dict(WANTED)


async def test_what_was_there_before_the_first_start_is_passed_over_and_a_forgotten_session_begins_anew(
    settings: Settings,
) -> None:
    publish(settings, SESSION, DRIVE[:3])
    keys = Keys(settings.key_prefix)
    async with speaking(settings) as (reader, cursors):
        await reader.skip()
        publish(settings, SESSION, DRIVE[3:], START_US + 3 * S_US)
        await reader.run(once=True)
        assert seconds(heard(settings)) == WANTED[2:]
        with redis.Redis.from_url(settings.redis) as client:
            forget(client, keys, SESSION)
        assert await cursors.read(SESSION) == Cursor()
        publish(settings, SESSION, DRIVE[:1])
        await reader.run(once=True)
    assert seconds(heard(settings)) == [*WANTED[2:], WANTED[0]]


def test_the_command_speaks_is_killed_and_goes_on(topics: Settings, tmp_path: Path) -> None:
    if shutil.which(ESPEAK) is None:
        pytest.skip(f"{ESPEAK} is not installed")
    given = topics.model_copy(update={"model": ROOT / "models" / "driving"})
    env = environment(given) | {"STREAMER_SENSES__SYNTHESIS": ESPEAK, "STREAMER_SPEAK_PORT": "0"}
    log, folder = tmp_path / "speak.log", tmp_path / "said"
    publish(topics, SESSION, DRIVE[:1])  # passed over
    command = [sys.executable, "-m", "streamer", "speak", "--folder", str(folder)]
    with Program(command, log, env, ROOT, "streamer speak") as program:
        wait_for(lambda: "speaking by espeak-ng" in program.text(), 60, program.text)
        publish(topics, SESSION, DRIVE[1:3], START_US + S_US)
        wait_for(lambda: "warning: Brake." in program.text(), 30, program.text)
        program.kill()
        publish(topics, SESSION, DRIVE[3:], START_US + 3 * S_US)
        program.start()
        wait_for(lambda: "notice: Hold." in program.text(), 60, program.text)
        program.end()
        assert program.code == 0, program.text()
    found = heard(topics)
    assert list(dict.fromkeys(seconds(found))) == [(1, "Proceed."), *WANTED[1:]]
    assert len(list(folder.iterdir())) == 4


WATCH = """() => {
  window.played = [];
  const play = HTMLMediaElement.prototype.play;
  const end = (player) => new URL(player.src).searchParams.get("id").split("/").at(-1);
  const note = (player, what) => window.played.push(`${end(player)} ${what}`);
  HTMLMediaElement.prototype.play = function () {
    if (!window.played.length) this.addEventListener("ended", () => note(this, "ended"));
    return play.call(this).then(() => note(this, "begun"));
  };
}"""


def say(settings: Settings, actions: tuple[str, ...], start_us: int, letter_s: float) -> None:
    """Publish results and say what they call for."""

    async def speak() -> None:
        async with speaking(settings, letter_s) as (reader, _):
            await reader.run(once=True)

    publish(settings, SESSION, actions, start_us)
    with ThreadPoolExecutor(1) as thread:  # Playwright has an event loop in this one
        thread.submit(asyncio.run, speak()).result()


def test_the_page_shows_what_is_said_and_plays_it_only_when_asked(topics: Settings, page: Any) -> None:
    settings = topics.model_copy(update={"dashboard_port": 0})
    start_us = int(time.time()) * S_US

    def at(second: int) -> int:
        return start_us + second * S_US

    say(topics, ("proceed",), at(-1), 0.02)
    with dashboard.running(settings) as url:
        page.add_init_script(f"({WATCH})()")
        page.goto(url)
        page.locator("#speech-text", has_text="“Proceed.” notice").wait_for()
        toggle = page.locator("#speech-toggle")
        assert toggle.get_attribute("aria-pressed") == "false"

        say(topics, ("hold",), at(0), 0.02)
        page.locator("#speech-text", has_text="“Hold.” notice").wait_for()
        assert page.evaluate("window.played") == [], "muted until the visitor wants it"

        toggle.click()
        assert toggle.text_content() == "Speech: on"
        say(topics, ("brake",), at(1), 3.0)  # 18 s long
        until(page, lambda done: done == [f"{at(2)} begun"])
        say(topics, ("creep",), at(2), 0.02)  # less severe: it waits
        page.locator("#speech-text", has_text="“Creep.” notice").wait_for()
        say(topics, ("emergency_stop",), at(3), 0.02)  # cuts off
        until(page, lambda done: done[1:] == [f"{at(4)} begun", f"{at(4)} ended"])
        assert page.locator("#speech-text[data-severity=alarm]").count() == 1

        toggle.click()
        say(topics, ("hold",), at(4), 0.02)
        page.locator("#speech-text", has_text="“Hold.” notice").wait_for()
        assert len(page.evaluate("window.played")) == 3


def until(page: Any, holds: Callable[[list[str]], bool]) -> None:
    wait_for(lambda: holds(_played(page)), 20.0, lambda: str(_played(page)))


def _played(page: Any) -> list[str]:
    page.wait_for_timeout(20)  # the browser's events are handled while Playwright waits
    found: list[str] = page.evaluate("window.played")
    return found
