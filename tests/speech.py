"""Recordings of speech as records of a microphone, and the words that came of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pytest
import soundfile
from kafka import KafkaConsumer, TopicPartition
from numpy.typing import NDArray

from streamer.errors import UsageError
from streamer.events import AUDIO, TEXT
from streamer.senses import files
from streamer.settings import Settings
from tests.harness import Outgoing, record

S_US = 1_000_000


def needs_recogniser(settings: Settings) -> None:
    """Skip where the networks of ``streamer transcribe`` are not installed."""
    pytest.importorskip("soxr", reason="soxr is not installed (extra: senses)")
    try:
        files.find("voice", settings)
        files.find("speech", settings)
    except UsageError as error:
        pytest.skip(str(error))


class Recording(NamedTuple):
    """A sound, mono, with what is said in it."""

    rate_hz: int
    samples_S: NDArray[np.float32]
    words: str

    @property
    def seconds(self) -> float:
        return len(self.samples_S) / self.rate_hz


def recording(path: Path, words: str) -> Recording:
    samples_SN, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return Recording(rate_hz, samples_SN.mean(axis=1), words)


def novel(data: Path) -> list[Recording]:
    """Two sentences of a novel, read aloud."""
    paths = sorted((data / "librivox").glob("*.wav"))
    return [recording(path, path.with_suffix(".txt").read_text("utf-8")) for path in paths]


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def digits(data: Path, speaker: str, take: int) -> list[Recording]:
    """The ten digits, one by one, at 8 kHz."""
    return [recording(data / "fsdd" / f"{digit}_{speaker}_{take}.wav", name) for digit, name in enumerate(DIGITS)]


def with_pauses(recordings: Sequence[Recording], pause_s: float = 0.8) -> Recording:
    """One after another, silence before and after each."""
    rate_hz = recordings[0].rate_hz
    silence_S = np.zeros(round(pause_s * rate_hz), np.float32)
    parts = [part for one in recordings for part in (one.samples_S, silence_S)]
    return Recording(rate_hz, np.concatenate([silence_S, *parts]), " ".join(one.words for one in recordings))


def microphone(
    settings: Settings, session: str, sound: Recording, start_us: int, chunk_ms: int = 100, sensor: str | None = None
) -> list[Outgoing]:
    """Its records, raw 16-bit."""
    step = sound.rate_hz * chunk_ms // 1000
    found = []
    for begin in range(0, len(sound.samples_S), step):
        samples_S = sound.samples_S[begin : begin + step]
        at_us = start_us + begin * S_US // sound.rate_hz
        value = np.round(samples_S * 32767).astype(">i2").tobytes()
        one = record(settings, AUDIO, session, at_us, value, f"audio/L16;rate={sound.rate_hz}")
        found.append(one if sensor is None else one._replace(headers=[*one.headers, ("ce_sensor", sensor.encode())]))
    return found


def plain(text: str) -> list[str]:
    """Words as they are compared: lower case, no punctuation, single digits by name, no abbreviations."""
    words = re.sub(r"[^\w' ]", "", re.sub(r"[-–]", " ", text.lower().replace("mr.", "mister"))).split()
    return [DIGITS[int(word)] if re.fullmatch(r"\d", word) else word for word in words]


class Transcripts:
    """Reads the transcripts topic as it grows, by one consumer."""

    def __init__(self, settings: Settings) -> None:
        topic = settings.source_topics[TEXT]
        self._consumer = KafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False)
        self._partitions = [TopicPartition(topic, number) for number in range(settings.partitions)]
        self._consumer.assign(self._partitions)
        self._consumer.seek_to_beginning()
        self._records: list[Any] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._consumer.close()

    def records(self) -> list[Any]:
        """All that it has now."""
        ends = self._consumer.end_offsets(self._partitions)
        while any(self._consumer.position(tp) < ends[tp] for tp in self._partitions):
            for batch in self._consumer.poll(timeout_ms=500).values():
                self._records += batch
        return self._records


def said(records: Sequence[Any], session: str) -> Iterator[tuple[dict[str, str], dict[str, object]]]:
    """Headers and bodies of a session's transcripts, one for each event, in the order of the log."""
    seen = set()
    for one in records:
        headers = {name: value.decode() for name, value in one.headers}
        identity = headers["ce_source"], headers["ce_id"]
        if one.key == session.encode() and identity not in seen:
            seen.add(identity)
            yield headers, json.loads(one.value)
