"""Records that no sensible producer sends: good ones mutated in key, headers or payload, and plain noise.

Most of them name sessions of their own. Some name a good session and are broken beyond doubt (``x-fuzz: broken``):
these must be refused and leave no mark on it.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable

from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT
from streamer.settings import Settings
from tests import harness
from tests.faults.verifier import BROKEN, FUZZ
from tests.harness import Outgoing

SESSIONS = 20
BOMB = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
NUMBERS = ("0", "-1", "1e9", "9" * 18, "9" * 40, "NaN", "", " 5", "0x10", "١٢", "3.5")
TIMES = (
    "yesterday",
    "",
    "1969-12-31T23:59:59Z",
    "2199-01-01T00:00:00Z",
    "9999-12-31T23:59:60Z",
    "2025-02-30T00:00:00Z",
    "2025-01-01T00:00:00",
    "2025-01-01t00:00:00.123456789z",
    "2025-01-01T00:00:00+25:00",
    "0001-01-01T00:00:00+14:00",
)
TYPES = (
    "streamer.frame.v1",
    "streamer.audio.v1",
    "streamer.transcript.v1",
    "streamer.telemetry.v1",
    "streamer.end.v1",
    "streamer.tick.v1",
    "streamer.frame.v2",
    "",
)
CONTENTS = (
    "image/jpeg",
    "image/png",
    "image/webp",
    "image/tiff",
    "audio/L16;rate=0",
    "audio/L16;rate=8000;channels=0",
    "audio/L16;rate=999999999999",
    "audio/L16; rate=44100; channels=64",
    "audio/wav",
    "audio/flac",
    "audio/ogg",
    "application/json",
    "",
    ";;;=",
    "x" * 5000,
)
BODIES = (
    b"",
    b"null",
    b"[]",
    b"{}",
    b"{",
    b"\xff\xfe",
    b"[" * 20_000,
    b'{"text": 7}',
    b'{"text": "a", "start": 5, "end": 1}',
    b'{"text": "a", "end": 1e300}',
    b'{"text": "a", "words": [{"text": "b", "start": 0, "end": 9}], "end": 1}',
    b'{"channels": {}, "rate_hz": 5}',
    b'{"channels": {"speed": {"values": [1, 2]}}, "rate_hz": 0}',
    b'{"channels": {"speed": {"values": [1, 1e400]}}, "rate_hz": 5}',
    b'{"channels": {"speed": {"values": [1, 2]}, "x": {"values": [1]}}, "rate_hz": 5}',
    b'{"channels": {"speed": {"values": [1, 2]}}, "times": [1, 0]}',
    b'{"channels": {"speed": {"values": [1, 2]}}, "times": [0, 1], "rate_hz": 5}',
    BOMB,
)

Mutation = Callable[[random.Random, Outgoing], Outgoing]


def good(settings: Settings, rng: random.Random, session: str, time_us: int) -> Outgoing:
    """A well-formed record of any modality."""
    row = rng.choice((IMAGE, AUDIO, TEXT, TELEMETRY))
    payload, content_type = {
        IMAGE: (harness.jpeg(rng.randrange(4)), "image/jpeg"),
        AUDIO: (bytes(640), "audio/L16;rate=8000"),
        TEXT: (b'{"text": "hm", "start": 0.0, "end": 0.5}', "application/json"),
        TELEMETRY: (
            json.dumps({"channels": {"speed": {"values": [1, 2]}}, "rate_hz": 20}).encode(),
            "application/json",
        ),
    }[row]
    return harness.record(settings, row, session, time_us, payload, content_type)


def fuzzed(settings: Settings, rng: random.Random, victims: list[str], time_us: int) -> Outgoing:
    """One record of the fuzz, with its mark."""
    if rng.random() < 0.1:
        return broken(settings, rng, victims, time_us)
    record = good(settings, rng, f"fuzz-{rng.randrange(SESSIONS)}", time_us)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        record = rng.choice(ANY)(rng, record)
    return record._replace(headers=[*record.headers, (FUZZ, b"1")])


def broken(settings: Settings, rng: random.Random, victims: list[str], time_us: int) -> Outgoing:
    """One record that names a good session and must be refused."""
    record = rng.choice(SURE)(rng, good(settings, rng, rng.choice(victims), time_us))
    return record._replace(headers=[*record.headers, (FUZZ, BROKEN)])


def _with(record: Outgoing, name: str, value: bytes | None) -> Outgoing:
    rest = [(n, v) for n, v in record.headers if n != name]
    return record._replace(headers=rest if value is None else [*rest, (name, value)])


def _flip(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if changed:
            changed[rng.randrange(len(changed))] = rng.randrange(256)
    return bytes(changed)


def _flip_payload(rng: random.Random, record: Outgoing) -> Outgoing:
    return record._replace(value=_flip(rng, record.value))


def _cut_payload(rng: random.Random, record: Outgoing) -> Outgoing:
    return record._replace(value=record.value[: rng.randrange(len(record.value) + 1)])


def _noise(rng: random.Random, record: Outgoing) -> Outgoing:
    return record._replace(value=rng.randbytes(rng.choice((1, 7, 100, 2000))))


def _body(rng: random.Random, record: Outgoing) -> Outgoing:
    return record._replace(value=rng.choice(BODIES))


def _drop_header(rng: random.Random, record: Outgoing) -> Outgoing:
    return _with(record, rng.choice(record.headers)[0], None) if record.headers else record


def _repeat_header(rng: random.Random, record: Outgoing) -> Outgoing:
    return record._replace(headers=[*record.headers, rng.choice(record.headers)]) if record.headers else record


def _flip_header(rng: random.Random, record: Outgoing) -> Outgoing:
    if not record.headers:
        return record
    name, value = rng.choice(record.headers)
    return _with(record, name, _flip(rng, value))


def _no_headers(rng: random.Random, record: Outgoing) -> Outgoing:
    return record._replace(headers=[])


def _set(name: str, values: tuple[str, ...]) -> Mutation:
    return lambda rng, record: _with(record, name, rng.choice(values).encode())


def _key(rng: random.Random, record: Outgoing) -> Outgoing:
    kinds = (None, b"", b"\xff", b"k" * 129, b"\x00", "ümläut/{}%".encode(), _flip(rng, record.key or b"?"))
    return record._replace(key=rng.choice(kinds))


def _other_topic(rng: random.Random, record: Outgoing) -> Outgoing:
    prefix = record.topic.rsplit(".", 1)[0]
    return record._replace(topic=f"{prefix}.{rng.choice(('frames', 'audio', 'transcripts', 'telemetry'))}")


ANY: list[Mutation] = [
    _flip_payload,
    _cut_payload,
    _noise,
    _body,
    _body,
    _drop_header,
    _repeat_header,
    _flip_header,
    _flip_header,
    _no_headers,
    _set("ce_time", TIMES),
    _set("ce_durationus", NUMBERS),
    _set("ce_sequence", NUMBERS),
    _set("ce_type", TYPES),
    _set("ce_specversion", ("0.3", "1", "2.0")),
    _set("ce_dataref", ("file:///etc/passwd", "http://127.0.0.1/", "")),
    _set("content-type", CONTENTS),
    _key,
    _other_topic,
]

SURE: list[Mutation] = [  # refused whatever else the record says
    _no_headers,
    _set("ce_type", ("streamer.smell.v1", "")),
    _set("ce_specversion", ("0.3",)),
    _set("ce_time", ("yesterday", "2199-01-01T00:00:00Z")),
    _set("content-type", ("image/tiff", "")),
    _set("ce_sequence", ("-1", "x")),
    _set("ce_dataref", ("file:///etc/passwd",)),
    lambda rng, record: record._replace(value=b""),
    lambda rng, record: _repeat_header(rng, record._replace(headers=record.headers[:1])),
]
