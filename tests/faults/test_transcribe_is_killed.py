"""``streamer transcribe`` through kills: each phrase is once in its windows, with the words of a run without faults."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer.align.decode import Decoder
from streamer.events import AUDIO, TEXT, Event, Record, Window
from streamer.golden import record as recorder
from streamer.golden.offline import Offline
from streamer.model import payloads
from streamer.senses import speech
from streamer.settings import Settings
from streamer.transcribe import process
from streamer.transcribe.partition import Key, Partition, Utterance
from streamer.transcribe.utterances import Rules
from tests.faults.conftest import NewSettings
from tests.faults.rig import supervised
from tests.harness import Outgoing, end, read_topic, record, send, wait_for
from tests.speech import S_US, Recording, Transcripts, digits, microphone, needs_recogniser, novel, with_pauses

pytestmark = [pytest.mark.integration, pytest.mark.faults]

HEARD_WITHIN_S = 900.0  # 20 kills of a recogniser on a busy machine
Name = tuple[str, str, str]  # of an event: session, source and id


def test_kills_at_random_moments_leave_each_phrase_once_in_its_windows(
    new_settings: NewSettings, data: Path, tmp_path: Path, full: bool, say: Callable[[object], None]
) -> None:
    kills, rng = (20 if full else 3), random.Random(19)
    waiting = {name: {"max_delay_ms": 0} for name in ("image", "audio", "telemetry")}
    settings = new_settings(
        instance_id="transcriber-0",
        session_gap_ms=600_000,
        sensors={**waiting, "text": {"max_delay_ms": 600_000}},
    )
    needs_recogniser(settings)
    sounds = talks(data, full)
    start_us = time.time_ns() // 1000 // S_US * S_US - 120 * S_US
    send(settings, interleaved([microphone(settings, name, sound, start_us) for name, sound in sounds.items()]))
    send(settings, [_end(settings, name, start_us) for name in sounds])
    expected = without_faults(settings)
    with (
        Transcripts(settings) as transcripts,
        supervised(settings, tmp_path / "transcribe.log", command="transcribe") as running,
    ):
        for number in range(kills):
            if number % 4 != 2:  # else in the middle of starting
                running.wait_ready()
            time.sleep(rng.uniform(0.0, 3.0))
            running.kill()
        wait_for(lambda: set(heard(transcripts)) >= set(expected), HEARD_WITHIN_S, running.why)
        wait_for(lambda: running.worker.metric("streamer_transcribe_sounds") == 0, 30.0, running.why)
        assert running.exits == []
        texts = heard(transcripts)
    assert {name: set(said) for name, said in texts.items()} == {name: {text} for name, text in expected.items()}
    for names in (sounds, ["later"]):
        send(settings, [_farewell(settings, name, start_us + 60 * S_US) for name in names])
        time.sleep(2 * settings.merge_slack_ms / 1000)  # a recording is complete up to its last record less the slack
    late, windows = asyncio.run(windows_of(settings, tmp_path / "log.mcap"))
    assert late == 0
    assert spans_once(windows) == set(expected)
    repeats = sum(len(said) for said in texts.values()) - len(texts)
    say(f"{kills} kills: {len(texts)} phrases, of which {repeats} were said again, are each once in their windows")


def talks(data: Path, full: bool) -> dict[str, Recording]:
    """What is said in each session."""
    spoken = digits(data, "jackson", 8)
    short = {"first": with_pauses(spoken[:4], 0.6), "second": with_pauses([novel(data)[1], spoken[6]], 0.6)}
    if not full:
        return short
    return short | {f"talk-{number}": with_pauses([*novel(data), *spoken[number:]], 0.6) for number in range(4)}


def interleaved(sounds: list[list[Outgoing]]) -> list[Outgoing]:
    longest = max(map(len, sounds))
    return [records[at] for at in range(longest) for records in sounds if at < len(records)]


def _end(settings: Settings, session: str, time_us: int) -> Outgoing:
    return end(settings, session, time_us)._replace(topic=settings.source_topics[AUDIO])


def _farewell(settings: Settings, session: str, time_us: int) -> Outgoing:
    """Later words, so that no window waits for words any more."""
    return record(settings, TEXT, session, time_us, b'{"text": "farewell", "end": 0.1}', "application/json")


def without_faults(settings: Settings) -> dict[Name, str]:
    """What one run over the log makes of it, in this process: the words of each phrase."""
    network, recogniser = process.load(settings)
    decoder = Decoder(settings, settings.partitions)
    rules = Rules.of(settings.transcribe_silence_ms, settings.transcribe_longest_ms)
    hole_us, gap_us = settings.transcribe_silence_ms * 1000, settings.transcribe_gap_ms * 1000
    partitions: dict[int, Partition] = {}
    found: list[Utterance] = []
    for one in read_topic(settings, settings.source_topics[AUDIO]):
        partition = partitions.setdefault(
            one.partition, Partition(one.partition, network, rules, hole_us, gap_us, None)
        )
        found += partition.begin(one.offset, one.timestamp * 1000)
        kept = Record(AUDIO, one.partition, one.offset, one.timestamp * 1000, one.key, one.value, tuple(one.headers))
        event = decoder.decode(kept)
        found += take(partition, event)
    heard_of = (words(utterance, recogniser) for utterance in found)
    return {name: text for name, text in heard_of if text}  # in some noises no words are heard


def take(partition: Partition, event: Event) -> list[Utterance]:
    offset = event.record.offset
    if not event.record.value:
        return partition.end(event.session, offset)
    sound = payloads.audio(event, event.start_us, event.end_us)
    span_us = event.end_us - event.start_us
    return partition.hear(Key(event.session, "audio"), offset, event.start_us, sound.rate_hz, sound.samples_S, span_us)


def words(utterance: Utterance, recogniser: speech.Recogniser) -> tuple[Name, str]:
    session, begin = utterance.key.session, utterance.speech.begin
    source = f"/transcribe/{recogniser.version}/{session}/audio"
    name = session, source, f"{utterance.partition.number}/{begin.offset}/{begin.sample}"
    return name, recogniser.hear(utterance.speech.samples_S).text


def heard(transcripts: Transcripts) -> dict[Name, list[str]]:
    """Texts of all records of each transcript."""
    found: dict[Name, list[str]] = {}
    for one in transcripts.records():
        found.setdefault(_name(one.key.decode(), dict(one.headers)), []).append(json.loads(one.value)["text"])
    return found


def _name(session: str, headers: dict[str, bytes]) -> Name:
    return session, headers["ce_source"].decode(), headers["ce_id"].decode()


async def windows_of(settings: Settings, path: Path) -> tuple[int, list[Window]]:
    """Late events, and the windows that a worker would make of the topics as they are now."""
    recorder.record(settings, path, recorder.Stretch(since_us=0))
    offline = Offline(settings, path, lambda session, partition: False)
    windows = [window async for window in offline.windows()]
    return offline.late, windows


def spans_once(windows: list[Window]) -> set[Name]:
    """The transcripts in windows; each is once in every window that it overlaps, and these follow one another."""
    members = Counter[tuple[Name, int]]()
    times: dict[Name, tuple[int, int]] = {}
    for window in windows:
        for event in window.events[TEXT]:
            name = _name(event.session, dict(event.record.headers))
            members[name, window.start_us] += 1
            times[name] = event.start_us, event.end_us
    times = {name: span for name, span in times.items() if name[1].startswith("/transcribe/")}
    for name, (start_us, end_us) in times.items():
        wanted = range(start_us // S_US * S_US, end_us, S_US)
        assert [members[name, at] for at in wanted] == [1] * len(wanted), name
    return set(times)
