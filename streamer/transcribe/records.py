"""Transcript records: what was heard of an utterance, as an event of its session."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

import msgspec

from streamer.events import AUDIO, KIND_NAMES, KINDS, TEXT, Transcript, Word, rfc3339
from streamer.observe import tracing
from streamer.senses.speech import Heard
from streamer.transcribe.partition import Key, Utterance


class TranscriptRecord(NamedTuple):
    """A record of the transcripts topic, which has as many partitions as the audio topic: it stays in its own."""

    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def transcript(utterance: Utterance, heard: Heard, version: str) -> TranscriptRecord:
    """The record of an utterance in which words were heard.

    It lasts from the first voice to the last, or from the first word to the last where these reach further. Its id
    names the place in the log where the utterance was found, its source the session, the sensor and the recogniser:
    whoever cuts and hears the same says the same event.

    Args:
        version: Of the recogniser.
    """
    speech, sound = utterance.speech, utterance.key
    spans_us = [(speech.voice_start_us, speech.voice_end_us)]
    for word in heard.words:
        spans_us.append((speech.start_us + round(word.start_s * 1e6), speech.start_us + round(word.end_s * 1e6)))
    start_us, end_us = min(start for start, _ in spans_us), max(end for _, end in spans_us)
    words = (
        Word(word.text, (start - start_us) / 1e6, (end - start_us) / 1e6)
        for word, (start, end) in zip(heard.words, spans_us[1:], strict=True)
    )
    body = Transcript(
        heard.text,
        end=(end_us - start_us) / 1e6,
        words=tuple(words),
        language=heard.language,
        confidence=heard.confidence,
        speaker=None if sound.sensor == KIND_NAMES[AUDIO] else sound.sensor,
    )
    begin = speech.begin
    headers = {
        "ce_specversion": "1.0",
        "ce_id": f"{utterance.partition.number}/{begin.offset}/{begin.sample}",
        "ce_source": source(sound, version),
        "ce_type": KINDS[TEXT].ce_type,
        "ce_time": rfc3339(start_us),
        "ce_durationus": str(end_us - start_us),
        "content-type": "application/json",
    }
    pairs = [(name, value.encode()) for name, value in headers.items()]
    if speech.traceparent is not None:
        pairs.append((tracing.HEADER, speech.traceparent))
    return TranscriptRecord(utterance.partition.number, sound.session.encode(), msgspec.json.encode(body), pairs)


def source(sound: Key, version: str) -> str:
    """The ``ce_source`` of a sound's transcripts."""
    return f"/transcribe/{quote(version, safe='')}/{quote(sound.session, safe='')}/{quote(sound.sensor, safe='')}"
