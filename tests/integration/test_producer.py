"""The producer on a real broker: what it sends decodes, and what goes wrong is one line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from time import time_ns
from typing import Any

import pytest

from streamer.align.decode import Decoder
from streamer.broker import topics as topic_admin
from streamer.errors import UsageError
from streamer.events import (
    AUDIO,
    IMAGE,
    TELEMETRY,
    TEXT,
    Channel,
    Event,
    EventType,
    Record,
    Telemetry,
    Transcript,
    Word,
    rfc3339,
)
from streamer.feeds import Outgoing, Producer
from streamer.local.process import free_port
from streamer.settings import Settings
from tests.harness import jpeg, read_topic

pytestmark = pytest.mark.integration

T0_US = 1_700_000_000_123_456
NAMES = ["car", "räume/7", "车🚗", "x" * 128]


@pytest.fixture(scope="module")
def model_folder() -> Path:
    """No model is loaded here: making one would take longer than all the tests."""
    return Path("models/none")


@pytest.fixture(scope="module")
def made(kafka: str) -> Settings:
    """Topics for the tests that only read what they sent themselves, by its session."""
    settings = Settings.load(kafka=kafka, topic_prefix=f"producer-{time_ns()}", partitions=3)
    topic_admin.create(settings)
    return settings


@pytest.fixture
def producer(made: Settings) -> Iterator[Producer]:
    with Producer(made) as producer:
        yield producer


def events(settings: Settings, row: int, session: str) -> list[Event]:
    """What the worker makes of what lies on a modality's topic."""
    decoder = Decoder(settings, settings.partitions)
    records = [
        Record(row, m.partition, m.offset, m.timestamp * 1000, m.key, m.value, tuple(m.headers))
        for m in read_topic(settings, settings.source_topics[row])
        if m.key == session.encode()
    ]
    return [decoder.decode(record) for record in records]


@pytest.mark.parametrize("session", NAMES)
def test_a_frame_decodes(producer: Producer, made: Settings, session: str) -> None:
    producer.frame(session, jpeg(), T0_US)
    producer.frame(session, b"not opened", T0_US + 1, content_type="image/webp")
    producer.flush()
    first, second = events(made, IMAGE, session)
    assert (first.session, first.type, first.start_us, first.end_us) == (session, EventType.DATA, T0_US, T0_US)
    assert (first.media_type, first.record.value) == ("image/jpeg", jpeg())
    assert (second.media_type, second.start_us) == ("image/webp", T0_US + 1)


def test_audio_decodes(producer: Producer, made: Settings) -> None:
    producer.audio("sound", b"\x01\x02" * 1600, 16_000, time_us=T0_US)
    producer.audio("sound", b"\x01\x02" * 1600, 8_000, channels=2, time_us=T0_US)
    producer.flush()
    mono, stereo = events(made, AUDIO, "sound")
    assert (mono.start_us, mono.end_us - mono.start_us) == (T0_US, 100_000)
    assert (stereo.start_us, stereo.end_us - stereo.start_us) == (T0_US, 100_000)
    assert stereo.params == {"rate": "8000", "channels": "2"}


def test_a_transcript_decodes(producer: Producer, made: Settings) -> None:
    producer.transcript("speech", "turn left", T0_US, 500_000, [("turn", 0.0, 0.2), ("left", 0.2, 0.5)])
    producer.transcript("speech", "", T0_US, 0)
    producer.flush()
    said, silence = events(made, TEXT, "speech")
    assert (said.start_us, said.end_us) == (T0_US, T0_US + 500_000)
    assert said.body == Transcript("turn left", end=0.5, words=(Word("turn", 0.0, 0.2), Word("left", 0.2, 0.5)))
    assert (silence.start_us, silence.end_us) == (T0_US, T0_US)


def test_telemetry_decodes(producer: Producer, made: Settings) -> None:
    producer.telemetry("block", {"speed": [1, 2.5], "yaw": [0.0, -0.5]}, 10.0, T0_US)
    producer.flush()
    (block,) = events(made, TELEMETRY, "block")
    assert (block.start_us, block.end_us) == (T0_US, T0_US + 200_000)
    assert block.body == Telemetry({"speed": Channel((1.0, 2.5)), "yaw": Channel((0.0, -0.5))}, rate_hz=10.0)


def test_without_a_time_frames_are_of_now_and_audio_and_telemetry_end_now(producer: Producer, made: Settings) -> None:
    before_us = time_ns() // 1000
    producer.frame("now", b"x")
    producer.audio("now", bytes(2 * 8000), 8000)
    producer.telemetry("now", {"v": [0.0] * 20}, 10.0)
    producer.flush()
    after_us = time_ns() // 1000
    for row, length_us in ((IMAGE, 0), (AUDIO, 1_000_000), (TELEMETRY, 2_000_000)):
        (event,) = events(made, row, "now")
        assert event.end_us - event.start_us == length_us
        assert before_us <= event.end_us <= after_us


def test_an_end_comes_after_everything_that_was_sent_before(producer: Producer, made: Settings) -> None:
    for number in range(20):
        producer.telemetry("ending", {"v": [float(number)]}, 10.0, T0_US + number)
    producer.end("ending")
    producer.flush()
    found = events(made, TELEMETRY, "ending")
    assert [event.type for event in found] == [EventType.DATA] * 20 + [EventType.END]


def test_a_sequence_makes_the_ids_of_a_feed_the_same_each_time(producer: Producer, made: Settings) -> None:
    for _ in range(2):
        producer.send(Outgoing(IMAGE, "again", T0_US, b"x", "image/png", T0_US, sequence=7))
        producer.send(Outgoing(IMAGE, "again", T0_US, b"x", "image/png", T0_US))
    producer.flush()
    found = events(made, IMAGE, "again")
    ids = [dict(event.record.headers)["ce_id"] for event in found]
    assert ids[0] == ids[2] == b"again/streamer.frame.v1/7"
    assert len(set(ids)) == 3
    assert [event.sequence for event in found] == [7, None, 7, None]


def test_compressed_audio_carries_its_length(producer: Producer, made: Settings) -> None:
    producer.send(Outgoing(AUDIO, "flac", T0_US, b"fLaC", "audio/flac", T0_US, duration_us=250_000))
    producer.flush()
    (chunk,) = events(made, AUDIO, "flac")
    assert chunk.end_us - chunk.start_us == 250_000


@pytest.mark.parametrize(
    ("time_us", "text"),
    [(0, "1970-01-01T00:00:00.000000Z"), (T0_US, "2023-11-14T22:13:20.123456Z"), (1, "1970-01-01T00:00:00.000001Z")],
)
def test_times_are_rfc_3339_with_microseconds(time_us: int, text: str) -> None:
    assert rfc3339(time_us) == text


# errors


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda p: p.frame("", b"x"), "a session's name has 1 to 128 bytes of UTF-8, not 0"),
        (lambda p: p.frame("ä" * 65, b"x"), "a session's name has 1 to 128 bytes of UTF-8, not 130"),
        (lambda p: p.frame("\ud800", b"x"), "a session's name must be text, which '\\ud800' is not"),
        (lambda p: p.end(""), "a session's name has 1 to 128 bytes"),
        (lambda p: p.frame("s", b""), "the image payload of session 's' is empty"),
        (lambda p: p.audio("s", b"", 8000), "the audio payload of session 's' is empty"),
        (lambda p: p.frame("s", b"x", content_type="image/tiff"), "the image record of session 's' would be refused: "),
        (lambda p: p.frame("s", b"x", time_us=-1), "time -1 µs since the epoch is not between 1970 and 2200"),
        (lambda p: p.frame("s", b"x", time_us=10**18), "time 1000000000000000000 µs"),
        (lambda p: p.audio("s", b"xx", 0), "audio has a rate and channels, not 0 Hz and 1"),
        (lambda p: p.audio("s", b"xx", 8000, 0), "audio has a rate and channels, not 8000 Hz and 0"),
        (lambda p: p.audio("s", b"xx", 500), "the audio record of session 's' would be refused: audio/L16 needs rate"),
        (
            lambda p: p.audio("s", b"xxx", 8000),
            "the audio record of session 's' would be refused: 3 bytes are no whole",
        ),
        (lambda p: p.audio("s", bytes(2_000_000), 8000), "the audio record of session 's' would be refused: the event"),
        (lambda p: p.telemetry("s", {"v": [1.0]}, 0), "telemetry has a rate above 0, not 0 Hz"),
        (lambda p: p.telemetry("s", {"v": [1.0]}, float("nan")), "telemetry has a rate above 0, not nan Hz"),
        (lambda p: p.telemetry("s", {}, 10), "the telemetry record of session 's' would be refused: Expected"),
        (lambda p: p.telemetry("s", {"v": [1.0], "w": []}, 10), "the telemetry record of session 's' would be refused"),
        (lambda p: p.telemetry("s", {"v": [float("nan")]}, 10), "the telemetry record of session 's' would be refused"),
        (lambda p: p.transcript("s", "a", T0_US, 0, [("a", 2.0, 1.0)]), "the text record of session 's' would be"),
        (lambda p: p.transcript("s", "\udcff", T0_US, 0), "not text: "),
        (
            lambda p: p.send(Outgoing(AUDIO, "s", T0_US, b"x", "audio/flac", T0_US)),
            "the audio record of session 's' would be refused: ce_durationus is needed for audio/flac",
        ),
    ],
)
def test_what_a_worker_would_refuse_is_not_sent(
    producer: Producer, call: Callable[[Producer], None], says: str
) -> None:
    with pytest.raises(UsageError) as refused:
        call(producer)
    assert str(refused.value).startswith(says)
    assert "\n" not in str(refused.value)


def test_a_payload_above_the_limit_names_the_setting(made: Settings) -> None:
    small = made.model_copy(update={"max_message_bytes": 2000})
    with Producer(small) as producer:
        producer.frame("small", bytes(1500))
        with pytest.raises(UsageError, match=r"image payload has 2001 bytes, the limit is 2000 \(STREAMER_MAX_MESSAGE"):
            producer.frame("small", bytes(2001))
        with pytest.raises(
            UsageError, match=r"has 2000 bytes; with its headers that is more than 2000 \(STREAMER_MAX_"
        ):
            producer.frame("small", bytes(2000))


def test_a_payload_that_only_fits_without_its_headers_takes_no_other_record_with_it(made: Settings) -> None:
    with Producer(made) as producer:
        with pytest.raises(UsageError, match=r"with its headers that is more than"):
            producer.frame("innocent", bytes(made.max_message_bytes))
        producer.frame("innocent", b"small")
        producer.frame("innocent", bytes(made.max_message_bytes - 1000))
    assert [len(event.record.value) for event in events(made, IMAGE, "innocent")] == [5, made.max_message_bytes - 1000]


def test_many_records_go_to_topics_that_take_small_batches_only(kafka: str) -> None:
    small = Settings.load(kafka=kafka, topic_prefix=f"small-{time_ns()}", partitions=1, max_message_bytes=2000)
    topic_admin.create(small)
    with Producer(small) as producer:
        for number in range(100):
            producer.frame("s", b"%d" % number, T0_US)
    assert [int(event.record.value) for event in events(small, IMAGE, "s")] == list(range(100))


@pytest.fixture
def overestimating(made: Settings) -> Settings:
    """Somebody whose setting is larger than what the topics take."""
    return made.model_copy(update={"max_message_bytes": 2 * made.max_message_bytes})


def test_what_kafka_refuses_is_raised_by_flush_once(overestimating: Settings, made: Settings) -> None:
    with Producer(overestimating) as producer:
        producer.frame("large", bytes(made.max_message_bytes + 1))
        with pytest.raises(UsageError, match=r"did not take 1 records of 1: MessageSizeTooLarge") as refused:
            producer.flush()
        assert "\n" not in str(refused.value)
        producer.flush()


def test_what_kafka_refuses_is_raised_by_close_too_and_the_connections_are_closed(
    overestimating: Settings, made: Settings
) -> None:
    producer = Producer(overestimating)
    producer.frame("large", bytes(made.max_message_bytes + 1))
    with pytest.raises(UsageError, match=r"did not take 1 records of 1"):
        producer.close()
    with pytest.raises(UsageError, match=r"KafkaProducer already closed"):
        producer.frame("large", b"x")
    producer.close()


def test_leaving_the_context_waits_for_everything(made: Settings) -> None:
    with Producer(made, linger_ms=60_000) as producer:
        producer.frame("waits", b"x")
    assert len(events(made, IMAGE, "waits")) == 1


def test_an_error_inside_the_context_is_what_is_seen(overestimating: Settings, made: Settings) -> None:
    def fails() -> None:
        with Producer(overestimating) as producer:
            producer.frame("large", bytes(made.max_message_bytes + 1))
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        fails()


def test_no_kafka_is_one_line() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(UsageError) as refused:
        Producer(Settings.load(kafka=address), bootstrap_timeout_ms=300)
    assert (
        str(refused.value)
        == f"no Kafka answers at {address}; set STREAMER_KAFKA to where one does, or unset it and run `streamer up`"
    )


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"nonsense": 1}, "Unrecognized configs: {'nonsense': 1}"),
        ({"compression_type": "shrink"}, "Not supported codec: shrink"),
        ({"linger_ms": "soon"}, ""),
    ],
)
def test_a_broken_setting_of_the_client_is_one_line(made: Settings, overrides: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError) as refused:
        Producer(made, **overrides)
    assert str(refused.value).startswith(f"Kafka client for {made.kafka}: {says}")
    assert "\n" not in str(refused.value)


def test_an_address_that_is_none_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"^Kafka client for somewhere:port: "):
        Producer(Settings.load(kafka="somewhere:port"))


def test_a_missing_topic_is_one_line(made: Settings) -> None:
    elsewhere = made.model_copy(update={"topic_prefix": "nowhere"})
    says = r"takes no record for nowhere\.frames .*; if there is no such topic, run `streamer topics create`$"
    with Producer(elsewhere, max_block_ms=300) as producer, pytest.raises(UsageError, match=says):
        producer.frame("s", b"x")
