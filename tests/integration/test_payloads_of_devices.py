"""Payloads as devices send them, through a real Kafka, a worker and a real Redis."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from streamer.broker import deadletters
from streamer.events import AUDIO, IMAGE
from streamer.settings import Settings
from tests.harness import S_US, Outgoing, end, record, results, running_worker, send, wait_for

pytestmark = pytest.mark.integration

RATE_HZ = 16_000
SECONDS = 4


def sound(kind: str) -> bytes:
    """A second of a tone, whose header does not say how long it is."""
    buffer = io.BytesIO()
    samples = (np.sin(np.arange(RATE_HZ) / 6) * 9000).astype(np.int16)
    soundfile.write(buffer, samples, RATE_HZ, format=kind, subtype="PCM_16")
    content = buffer.getvalue()
    if kind == "WAV":
        return content[:4] + bytes(4) + content[8:40] + bytes(4) + content[44:]
    bits = int.from_bytes(content[18:26]) >> 36 << 36
    return content[:18] + bits.to_bytes(8) + bytes(16) + content[42:]


def webcam() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "JPEG", restart_marker_rows=1)
    content = buffer.getvalue()
    at = content.index(b"\xff\xd1")
    return content[:at] + b"\x12\x34\x56" + content[at:]


def audio(topics: Settings, session: str, at_us: int, content: bytes, media_type: str, said_us: int) -> Outgoing:
    sent = record(topics, AUDIO, session, at_us, content, media_type)
    return sent._replace(headers=[*sent.headers, ("ce_durationus", str(said_us).encode())])


@pytest.mark.parametrize(("kind", "media_type"), [("WAV", "audio/wav"), ("FLAC", "audio/flac")])
def test_streamed_sound_and_a_webcams_frames_are_in_every_window(
    kind: str, media_type: str, topics: Settings, tmp_path: Path
) -> None:
    start_us = int(time.time() - SECONDS - 2) * S_US
    records = [record(topics, IMAGE, "cab", start_us + i * S_US, webcam(), "image/jpeg") for i in range(SECONDS)]
    # across the windows' borders: each window has parts of two
    records += [
        audio(topics, "cab", start_us + i * S_US - S_US // 2, sound(kind), media_type, S_US) for i in range(SECONDS + 1)
    ]
    log = tmp_path / "worker.log"
    with running_worker(topics, log):
        send(topics, [*records, end(topics, "cab", start_us + SECONDS * S_US)])
        wait_for(lambda: len(results(topics.redis, topics, "cab")) >= SECONDS + 2, 60.0, log.read_text)
    coverage = [json.loads(result["coverage"]) for result in results(topics.redis, topics, "cab")]
    assert [found["audio"] for found in coverage] == [0.5, *[1.0] * SECONDS, 0.5]
    assert sum(found["image"] > 0 for found in coverage) == SECONDS
    assert list(deadletters.read(topics)) == []
    assert "ce_durationus" not in log.read_text()


def test_sound_shorter_than_it_says_covers_less_and_is_reported(topics: Settings, tmp_path: Path) -> None:
    start_us = int(time.time() - SECONDS - 2) * S_US
    records = [
        audio(topics, "cab", start_us + i * S_US, sound("WAV")[: 44 + RATE_HZ], "audio/wav", S_US) for i in (0, 1)
    ]
    records.append(audio(topics, "cab", start_us + 2 * S_US, sound("WAV")[:44], "audio/wav", S_US))
    log = tmp_path / "worker.log"
    with running_worker(topics, log) as worker:
        send(topics, [*records, end(topics, "cab", start_us + 3 * S_US)])
        wait_for(lambda: len(results(topics.redis, topics, "cab")) >= 3, 60.0, log.read_text)
        assert worker.metric("streamer_audio_length_mismatches_total", kind="short") == 2
    coverage = [json.loads(result["coverage"])["audio"] for result in results(topics.redis, topics, "cab")]
    assert coverage == [0.5, 0.5, 0.0]
    lines = re.findall(
        r"audio of session 'cab': .* holds 0\.500 s less than its ce_durationus of 1\.000 s", log.read_text()
    )
    assert len(lines) == 1
    [letter] = deadletters.read(topics)
    assert (letter.reason, letter.detail) == ("bad_payload", "audio/wav does not decode: it holds no samples")
