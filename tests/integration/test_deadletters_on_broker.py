"""Dead letters on a real broker: listed, and sent back once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from kafka import KafkaProducer

from streamer.broker import deadletters
from streamer.broker.deadletters import Letter
from streamer.errors import Reason, UsageError
from streamer.events import AUDIO, IMAGE, TOPIC_DEADLETTER, Record, rfc3339
from streamer.local.process import free_port
from streamer.settings import Settings
from tests.harness import read_topic

pytestmark = pytest.mark.integration

LOG_TIME_US = 1_700_000_000_123_000
CE_TIME = ("ce_time", b"2026-01-01T00:00:00Z")


@pytest.fixture(scope="module")
def model_folder() -> Path:
    """No model is loaded here: making one would take longer than all the tests."""
    return Path("models/none")


def letter(
    settings: Settings, number: int, reason: Reason = Reason.BAD_PAYLOAD, row: int = IMAGE, key: bytes | None = b"car"
) -> Letter:
    own = (("ce_id", b"%d" % number), ("content-type", b"image/jpeg"), CE_TIME)
    record = Record(row, 0, number, LOG_TIME_US, key, b"payload %d" % number, own)
    return deadletters.dead_letter(record, reason, f"detail {number}", settings.source_topics[row])


def write(settings: Settings, *letters: Letter) -> None:
    """As a worker does, spread over the partitions by their keys."""
    with KafkaProducer(bootstrap_servers=settings.kafka) as producer:
        for one in letters:
            topic = settings.topic(TOPIC_DEADLETTER)
            producer.send(topic, key=one.key, value=one.value, headers=list(one.headers)).get(10)


def returned(settings: Settings, row: int = IMAGE) -> list[bytes]:
    return sorted(record.value for record in read_topic(settings, settings.source_topics[row]))


def payloads(*numbers: int) -> list[bytes]:
    return [b"payload %d" % number for number in numbers]


def test_letters_are_listed_with_all_that_their_headers_say(topics: Settings) -> None:
    assert list(deadletters.read(topics)) == []
    write(topics, letter(topics, 1), letter(topics, 2, Reason.NO_KEY, AUDIO, key=None).without_value())
    found = {one.offset: one for one in deadletters.read(topics)}
    assert found == {
        1: deadletters.DeadLetter(
            reason="bad_payload",
            detail="detail 1",
            topic=topics.source_topics[IMAGE],
            partition=0,
            offset=1,
            log_time_us=LOG_TIME_US,
            key="car",
            ce_id="1",
            ce_type=None,
            size_bytes=9,
        ),
        2: deadletters.DeadLetter(
            reason="no_key",
            detail="detail 2",
            topic=topics.source_topics[AUDIO],
            partition=0,
            offset=2,
            log_time_us=LOG_TIME_US,
            key=None,
            ce_id="2",
            ce_type=None,
            size_bytes=9,
            truncated=True,
        ),
    }


def test_letters_of_one_session_are_listed_in_their_order_and_however_often(topics: Settings) -> None:
    write(topics, *(letter(topics, n) for n in range(5)))
    for _ in range(2):
        assert [one.offset for one in deadletters.read(topics)] == [0, 1, 2, 3, 4]


def test_one_reason_alone_can_be_listed(topics: Settings) -> None:
    reasons = [Reason.NO_KEY, Reason.BAD_JSON, Reason.NO_KEY]
    write(topics, *(letter(topics, n, reason) for n, reason in enumerate(reasons)))
    assert [one.offset for one in deadletters.read(topics, "no_key")] == [0, 2]
    assert list(deadletters.read(topics, "poison")) == []


def test_records_go_back_as_they_were(topics: Settings) -> None:
    write(topics, letter(topics, 1), letter(topics, 2, Reason.BAD_JSON, AUDIO))
    assert deadletters.requeue(topics) == 2
    (frame,) = read_topic(topics, topics.source_topics[IMAGE])
    assert (frame.key, frame.value) == (b"car", b"payload 1")
    assert list(frame.headers) == [("ce_id", b"1"), ("content-type", b"image/jpeg"), CE_TIME]
    assert returned(topics, AUDIO) == payloads(2)


def test_each_letter_goes_back_once_and_what_came_since_the_next_time(topics: Settings) -> None:
    write(topics, *(letter(topics, n, key=b"car %d" % n) for n in range(6)))
    assert deadletters.requeue(topics) == 6
    assert deadletters.requeue(topics) == 0
    write(topics, letter(topics, 6), letter(topics, 7))
    assert deadletters.requeue(topics) == 2
    assert deadletters.requeue(topics) == 0
    assert returned(topics) == payloads(*range(8))
    assert len(list(deadletters.read(topics))) == 8  # they stay to be read


def test_what_one_reason_leaves_out_goes_back_later_and_nothing_twice(topics: Settings) -> None:
    reasons = [Reason.BAD_JSON, Reason.NO_KEY, Reason.BAD_JSON, Reason.POISON, Reason.NO_KEY]
    write(topics, *(letter(topics, n, reason) for n, reason in enumerate(reasons)))
    assert deadletters.requeue(topics, "no_key") == 2
    assert deadletters.requeue(topics, "no_key") == 0
    assert returned(topics) == payloads(1, 4)
    write(topics, letter(topics, 5, Reason.NO_KEY), letter(topics, 6, Reason.POISON))
    assert deadletters.requeue(topics) == 5
    assert deadletters.requeue(topics, "no_key") == deadletters.requeue(topics) == 0
    assert returned(topics) == payloads(*range(7))


def test_what_cannot_go_back_is_passed_over(topics: Settings) -> None:
    renamed = topics.model_copy(update={"topic_prefix": "another"})
    write(topics, letter(topics, 1).without_value(), letter(renamed, 2), letter(topics, 3))
    assert deadletters.requeue(topics) == 1
    assert returned(topics) == payloads(3)


def test_what_somebody_else_put_on_the_topic_is_passed_over(topics: Settings) -> None:
    strange = (("deadletter_reason", b"no_key"),)
    unknown = (*strange[:0], ("deadletter_reason", b"new_one"), *letter(topics, 2).headers[-2:])
    write(
        topics,
        Letter(b"car", b"x", ()),
        Letter(b"car", b"x", strange),
        letter(topics, 1),
        Letter(b"car", b"x", unknown),
    )
    assert [one.reason for one in deadletters.read(topics)] == ["bad_payload", "new_one"]
    assert deadletters.requeue(topics) == 1
    assert returned(topics) == payloads(1)


def test_a_record_without_a_time_does_not_become_one_of_now(topics: Settings) -> None:
    whole = letter(topics, 1)
    write(topics, Letter(whole.key, whole.value, tuple(h for h in whole.headers if h != CE_TIME)))
    assert deadletters.requeue(topics) == 1
    (frame,) = read_topic(topics, topics.source_topics[IMAGE])
    assert dict(frame.headers)["ce_time"].decode() == rfc3339(LOG_TIME_US)


def test_a_large_letter_goes_back(topics: Settings) -> None:
    record = Record(IMAGE, 0, 0, LOG_TIME_US, b"car", bytes(topics.max_message_bytes - 1000), ())
    one = deadletters.dead_letter(record, Reason.BAD_PAYLOAD, "", topics.source_topics[IMAGE])
    with KafkaProducer(bootstrap_servers=topics.kafka, max_request_size=16 << 20) as producer:
        topic = topics.topic(TOPIC_DEADLETTER)
        producer.send(topic, key=one.key, value=one.value, headers=list(one.headers)).get(10)
    assert deadletters.requeue(topics) == 1


def test_a_record_that_kafka_does_not_take_is_one_line_and_goes_back_the_next_time(topics: Settings) -> None:
    small = topics.model_copy(update={"max_message_bytes": 1024})
    record = Record(IMAGE, 0, 2, LOG_TIME_US, b"car", bytes(3 << 20), (CE_TIME,))
    large = deadletters.dead_letter(record, Reason.BAD_PAYLOAD, "", topics.source_topics[IMAGE])
    with KafkaProducer(bootstrap_servers=topics.kafka, max_request_size=16 << 20) as producer:
        for one in (letter(topics, 1), large, letter(topics, 3)):
            topic = topics.topic(TOPIC_DEADLETTER)
            producer.send(topic, key=one.key, value=one.value, headers=list(one.headers)).get(10)
    with pytest.raises(UsageError, match=r"^Kafka did not take a record back after 1 were sent: ") as refused:
        deadletters.requeue(small)
    assert "\n" not in str(refused.value)
    assert returned(topics) == payloads(1)
    assert deadletters.requeue(topics) == 2
    assert Counter(len(value) for value in returned(topics)) == {9: 2, 3 << 20: 1}


@pytest.mark.parametrize("call", [lambda s: list(deadletters.read(s)), deadletters.requeue])
def test_a_missing_topic_is_one_line(settings: Settings, call: Callable[[Settings], object]) -> None:
    with pytest.raises(UsageError, match=r"deadletter does not exist; run `streamer topics create`$"):
        call(settings)


@pytest.mark.parametrize("call", [lambda s: list(deadletters.read(s)), deadletters.requeue])
def test_no_kafka_is_one_line(monkeypatch: pytest.MonkeyPatch, call: Callable[[Settings], object]) -> None:
    monkeypatch.setattr(deadletters, "TIMEOUT_MS", 300)
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(
        UsageError,
        match=rf"^no Kafka answers at {address}; set STREAMER_KAFKA to where one does",
    ):
        call(Settings.load(kafka=address))
