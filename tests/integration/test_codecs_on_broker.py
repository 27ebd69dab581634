"""Batches with every codec, by their producer's choice and by the topic's, on a real broker, in every program."""

from __future__ import annotations

from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from streamer.align.decode import Decoder, home_partition
from streamer.broker import deadletters
from streamer.broker import topics as topic_admin
from streamer.broker.refetch import Refetch
from streamer.clients import codecs
from streamer.clients import kafka as kafka_clients
from streamer.clients.batches import limit_bytes, unreadable
from streamer.errors import UsageError
from streamer.events import IMAGE, KINDS, ClosedBy, Event, Position, Window
from streamer.feeds.producer import Producer
from streamer.golden import record, recording, verify
from streamer.observe.health import Service
from streamer.retrieval.contents import Log
from streamer.settings import Settings
from streamer.store import results as stored
from tests.harness import S_US, Outgoing, end, own_settings, results, running_worker, second, wait_for
from tests.integration.test_worker import aligned_now

pytestmark = pytest.mark.integration

CODECS = tuple(codecs.NAMES.values())
SECONDS = 3
MAX_MESSAGE_BYTES = 200_000
BOMB_BYTES = 2 << 20  # of zeros: more than 8 times that


class Live(NamedTuple):
    """What was sent and recorded while a worker ran.

    Attributes:
        unpacked: Codecs that the recording's batches had, by topic; with how many bytes the largest one unpacked to.
    """

    settings: Settings
    path: Path
    sent: int
    unpacked: dict[str, int]


def sessions() -> list[str]:
    return [f"{by}-{codec}" for by in ("producer", "topic", "streamer") for codec in CODECS]


def send_with(settings: Settings, codec: str | None, records: list[Outgoing]) -> None:
    """Send by a client that compresses; a lone record with more than a message may have is let pass."""
    producer = KafkaProducer(
        bootstrap_servers=settings.kafka,
        compression_type=codec,
        max_request_size=2 * BOMB_BYTES,
        batch_size=2 * BOMB_BYTES,
        linger_ms=20,
    )
    try:
        for future in [producer.send(r.topic, key=r.key, value=r.value, headers=r.headers) for r in records]:
            future.get(timeout=60)
    finally:
        producer.close()


def send_by_streamer(settings: Settings, codec: str, session: str, start_us: int) -> None:
    """Send by our own producer."""
    with Producer(settings, compression_type=codec) as producer:
        for number in range(SECONDS):
            for sent in second(settings, session, start_us + number * S_US):
                row = settings.source_topics.index(sent.topic)
                content_type = dict(sent.headers)["content-type"].decode()
                if row == IMAGE:
                    producer.frame(session, sent.value, start_us + number * S_US, content_type)
                elif content_type.startswith("audio"):
                    producer.audio(session, sent.value, 16_000, time_us=start_us + number * S_US)
                elif b"text" in sent.value:
                    producer.transcript(session, "continue straight", start_us + number * S_US, S_US)
                else:
                    producer.telemetry(session, {"speed": [10.0] * 50}, 50.0, start_us + number * S_US)
            producer.flush()
        producer.end(session)


def compress_topics(settings: Settings, codec: str) -> None:
    """Let the broker compress what comes without compression."""
    with kafka_clients.admin(settings, 10_000) as client:
        client.alter_configs(
            [
                ConfigResource(ConfigResourceType.TOPIC, topic, {"compression.type": codec})
                for topic in settings.source_topics
            ]
        )


def bomb(settings: Settings, session: str, time_us: int) -> Outgoing:
    frame = second(settings, session, time_us)[0]
    return frame._replace(value=bytes(BOMB_BYTES))


def ends(settings: Settings) -> dict[TopicPartition, int]:
    """Offsets after the newest record of each partition that has any."""
    consumer = kafka_clients.consumer(settings)
    places = [TopicPartition(topic, p) for topic in settings.source_topics for p in range(settings.partitions)]
    found = {tp: offset for tp, offset in consumer.end_offsets(places).items() if offset}
    consumer.close()
    return found


def committed(settings: Settings) -> dict[TopicPartition, int]:
    with kafka_clients.admin(settings, 10_000) as client:
        groups = client.list_group_offsets(settings.consumer_group)
    return {tp: place.offset for tp, place in groups[settings.consumer_group].items() if place.offset > 0}


@pytest.fixture(scope="module")
def live(kafka: str, redis_url: str, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Live:
    folder = tmp_path_factory.mktemp("codecs")
    settings = own_settings(kafka, redis_url, model_folder, max_delay_ms=3000)
    settings = settings.model_copy(update={"max_message_bytes": MAX_MESSAGE_BYTES})
    topic_admin.create(settings)
    start_us = aligned_now(SECONDS + 2)
    with running_worker(settings, folder / "worker.log", max_message_bytes=MAX_MESSAGE_BYTES) as worker:
        for codec in CODECS:
            session = f"producer-{codec}"
            for number in range(SECONDS):
                send_with(settings, codec, second(settings, session, start_us + number * S_US))
                if number == 1:
                    send_with(settings, codec, [bomb(settings, session, start_us + number * S_US)])
            send_with(settings, codec, [end(settings, session, start_us + SECONDS * S_US)])
            send_by_streamer(settings, codec, f"streamer-{codec}", start_us)
        for codec in CODECS:
            compress_topics(settings, codec)
            session = f"topic-{codec}"
            for number in range(SECONDS):
                send_with(settings, None, second(settings, session, start_us + number * S_US))
            send_with(settings, None, [end(settings, session, start_us + SECONDS * S_US)])
        wait_for(
            lambda: all(len(results(redis_url, settings, session)) >= SECONDS for session in sessions()),
            60,
            lambda: str({session: len(results(redis_url, settings, session)) for session in sessions()}),
        )
        wait_for(lambda: worker.metric("streamer_dead_letters_total", reason="unreadable_batch") == len(CODECS), 20)
        # An end record is done once nothing more can come for its session.
        wait_for(lambda: committed(settings) == ends(settings), 20, lambda: f"{committed(settings)} {ends(settings)}")
        worker.stop()
    unpacked: Counter[str] = Counter()
    stock = codecs.unpack

    def counting(codec: int, packed: memoryview, limit: int) -> bytes:
        plain = stock(codec, packed, limit)
        unpacked[codecs.NAMES[codec]] = max(unpacked[codecs.NAMES[codec]], len(plain))
        return plain

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(codecs, "unpack", counting)
        outcome = record.record(settings, folder / "all.mcap", record.Stretch(since_us=0))
    return Live(settings, folder / "all.mcap", outcome.records, dict(unpacked))


def stand_ins(live: Live) -> list[recording.Recorded]:
    return [one for one in recording.read(live.path) if unreadable(one.headers) is not None]


def test_every_window_is_whole_whatever_its_records_were_compressed_with(live: Live) -> None:
    for session in sessions():
        found = results(live.settings.redis, live.settings, session)
        assert [(one["status"], one["present"]) for one in found] == [(b"ok", b"image,audio,text,telemetry")] * SECONDS


def test_each_codec_was_in_the_log(live: Live) -> None:
    assert set(live.unpacked) == set(CODECS)
    assert all(0 < nbytes <= limit_bytes(live.settings) for nbytes in live.unpacked.values())


def test_what_unpacks_to_too_much_is_a_dead_letter_with_its_offsets(live: Live) -> None:
    letters = list(deadletters.read(live.settings, "unreadable_batch"))
    assert sorted(letter.detail for letter in letters) == sorted(
        f"{codec}: it unpacks to more than {limit_bytes(live.settings)} bytes" for codec in CODECS
    )
    assert {(letter.topic, letter.partition, letter.offset, letter.log_time_us) for letter in letters} == {
        (live.settings.source_topics[one.row], one.partition, one.offset, one.log_time_us) for one in stand_ins(live)
    }
    for letter in letters:
        assert letter.first_offset == letter.offset
        assert 61 < letter.size_bytes < MAX_MESSAGE_BYTES  # the batch as it is in the log
    assert [letter for letter in deadletters.read(live.settings) if letter.reason != "unreadable_batch"] == []
    assert deadletters.requeue(live.settings) == 0


def test_everything_is_committed_to_the_end_of_each_partition(live: Live) -> None:
    last = {(one.row, one.partition): one.offset for one in stand_ins(live)}
    assert committed(live.settings) == ends(live.settings)
    assert all(
        ends(live.settings)[TopicPartition(live.settings.source_topics[row], partition)] > offset
        for (row, partition), offset in last.items()
    )


def test_a_recording_has_the_same_and_gives_the_live_windows_again(live: Live) -> None:
    found = list(recording.read(live.path))
    assert len(found) == live.sent
    assert len(stand_ins(live)) == len(CODECS)
    # Nothing is left out: each partition's offsets are all there.
    offsets = defaultdict(list)
    for one in found:
        offsets[one.row, one.partition].append(one.offset)
    assert all(sorted(numbers) == list(range(len(numbers))) for numbers in offsets.values())
    with stored.connected(live.settings) as (client, keys):
        report = verify.run(live.settings, live.path, verify.RedisReference(client, keys), tolerance=1e-3)
    assert report.differences == [], [str(line) for line in report.differences[:20]]
    assert report.summary.refused == {"unreadable_batch": len(CODECS)}
    assert report.summary.compared == report.summary.same == len(sessions()) * SECONDS


def frames_of(live: Live, session: str) -> dict[int, recording.Recorded]:
    return {one.offset: one for one in recording.read(live.path) if one.row == IMAGE and one.key == session.encode()}


@pytest.mark.parametrize("codec", CODECS)
def test_the_page_reads_members_around_a_batch_that_cannot_be_read(live: Live, codec: str) -> None:
    session = f"producer-{codec}"
    frames = frames_of(live, session)
    log = Log(live.settings)
    try:
        partition = home_partition(session.encode(), log.partitions)
        (broken,) = (
            one for one in stand_ins(live) if one.partition == partition and min(frames) < one.offset < max(frames)
        )
        read = log.read(IMAGE, partition, [(min(frames), max(frames))])
    finally:
        log.close()
    assert {one.offset: one.value for one in read if one.offset in frames} == {
        offset: one.value for offset, one in frames.items()
    }
    (stand_in,) = (one for one in read if one.offset == broken.offset)
    with pytest.raises(Exception, match="unreadable_batch"):
        Decoder(live.settings, log.partitions).decode(stand_in)


@pytest.mark.parametrize("codec", CODECS)
async def test_payloads_left_behind_are_fetched_again_around_it(live: Live, codec: str) -> None:
    session = f"producer-{codec}"
    frames = frames_of(live, session)
    partition = home_partition(session.encode(), 3)
    decoder = Decoder(live.settings, 3)

    def left_behind(one: recording.Recorded) -> Event:
        event = decoder.decode(one.as_record())
        return msgspec.structs.replace(
            event, record=msgspec.structs.replace(event.record, value=b"", headers=()), left_behind=True
        )

    (broken,) = (
        one for one in stand_ins(live) if one.partition == partition and min(frames) < one.offset < max(frames)
    )
    gone = msgspec.structs.replace(left_behind(frames[min(frames)]), record=broken.as_record())
    events = [*map(left_behind, frames.values()), msgspec.structs.replace(gone, left_behind=True)]
    rows = (tuple(events),) + ((),) * (len(KINDS) - 1)
    window = Window(session, partition, 0, S_US, ClosedBy.COMPLETE, Position(0, 0, 0), rows, (0,) * len(KINDS))
    refetch = Refetch(live.settings, Service("Kafka"))
    try:
        filled = (await refetch(window)).events[IMAGE]
    finally:
        await refetch.close()
    assert [event.record.value for event in filled[:-1]] == [one.value for one in frames.values()]
    assert [event.lost for event in filled] == [False] * len(frames) + [True]


def test_a_codec_that_there_is_not_is_refused_in_one_line(live: Live) -> None:
    with pytest.raises(UsageError, match="Not supported codec: brotli"):
        Producer(live.settings, compression_type="brotli")
