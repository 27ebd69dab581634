"""``streamer transcribe`` on a real Kafka: recordings of speech become transcripts of their sessions."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from streamer.align.decode import home_partition
from streamer.events import AUDIO
from streamer.senses import files, speech
from streamer.settings import Settings
from tests.harness import READY_WITHIN_S, Outgoing, WorkerProcess, end, send, wait_for
from tests.speech import Recording, Transcripts, digits, microphone, needs_recogniser, novel, plain, said, with_pauses

pytestmark = pytest.mark.integration

HEARD_WITHIN_S = 120.0
TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@contextmanager
def transcribing(settings: Settings, log: Path) -> Iterator[WorkerProcess]:
    with WorkerProcess(settings, log, command="transcribe") as process:
        process.wait_ready(READY_WITHIN_S)
        yield process


def ending(settings: Settings, session: str, time_us: int) -> Outgoing:
    return end(settings, session, time_us)._replace(topic=settings.source_topics[AUDIO])


def records_of(settings: Settings, process: WorkerProcess, count: int) -> list[Any]:
    """Wait for as many transcripts; returns all records of their topic."""
    with Transcripts(settings) as transcripts:
        wait_for(lambda: len(transcripts.records()) >= count, HEARD_WITHIN_S, process.text)
        return transcripts.records()


def now_us() -> int:
    return time.time_ns() // 1000


def test_a_reading_becomes_transcripts_with_the_times_of_the_speech(
    topics: Settings, data: Path, tmp_path: Path
) -> None:
    needs_recogniser(topics)
    sound = with_pauses(novel(data), pause_s=1.0)
    start_us = now_us() - 60_000_000
    records = microphone(topics, "reader", sound, start_us)
    traced = [one._replace(headers=[*one.headers, ("traceparent", TRACE)]) for one in records]
    with transcribing(topics, tmp_path / "transcribe.log") as process:
        send(topics, [*traced, ending(topics, "reader", now_us())])
        sent = records_of(topics, process, 2)
        assert process.metric("streamer_transcribe_chunks_total", outcome="heard") == len(records)
        assert process.metric("streamer_transcribe_speech_seconds_total") == pytest.approx(10.0, abs=1.0)
        wait_for(lambda: process.metric("streamer_transcribe_lag_records") == 0, 10.0)
        process.stop()
    found = list(said(sent, "reader"))
    recogniser = speech.load(files.find("speech", topics))
    assert plain(" ".join(str(body["text"]) for _, body in found)) == plain(sound.words)
    for (headers, body), one in zip(found, novel(data), strict=True):
        assert headers["ce_type"] == "streamer.transcript.v1"
        assert headers["ce_source"] == f"/transcribe/{recogniser.version}/reader/audio"
        assert headers["traceparent"] == TRACE.decode()
        assert body["language"] == "en"
        assert float(str(body["end"])) == pytest.approx(one.seconds, abs=0.7)
    assert {one.partition for one in sent} == {home_partition(b"reader", topics.partitions)}


def test_two_microphones_of_a_session_are_two_speakers_and_a_silent_one_ends_by_itself(
    topics: Settings, data: Path, tmp_path: Path
) -> None:
    needs_recogniser(topics)
    microphones = {name: {"kind": "audio"} for name in ("driver", "passenger")}
    topics = Settings.load(**topics.model_dump(exclude_unset=True) | {"sensors": microphones})
    start_us = now_us() - 10_000_000
    left, right = (cut_off(digits(data, name, 8)[digit]) for name, digit in (("jackson", 6), ("george", 7)))
    mixed = [
        *microphone(topics, "talk", left, start_us, sensor="driver"),
        *microphone(topics, "talk", right, start_us, sensor="passenger"),
    ]
    with transcribing(topics, tmp_path / "transcribe.log") as process:
        send(topics, mixed)  # no end record, and no silence: only log time ends them
        sent = records_of(topics, process, 2)
        assert process.metric("streamer_transcribe_sounds") == 0
        process.stop()
    found = {str(body["speaker"]): plain(str(body["text"])) for _, body in said(sent, "talk")}
    assert found == {"driver": ["six"], "passenger": ["seven"]}


def cut_off(sound: Recording) -> Recording:
    """With half a second of silence before it, and none after."""
    padded = with_pauses([sound], 0.5)
    return padded._replace(samples_S=padded.samples_S[: -round(0.5 * sound.rate_hz)])
