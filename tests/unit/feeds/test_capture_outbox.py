"""What waits for Kafka is bounded, the oldest goes first, and everything that was captured is accounted for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.errors import KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from kafka.future import Future
from prometheus_client import CollectorRegistry

from streamer.errors import UsageError
from streamer.events import IMAGE, RECORD_BYTES
from streamer.feeds.capture.metrics import DROPS, CaptureMetrics
from streamer.feeds.capture.outbox import FLYING_PART, Outbox
from streamer.feeds.producer import Outgoing

PAYLOAD = 1000
EACH = PAYLOAD + RECORD_BYTES
FITS = 16  # records


class Client:
    """Kafka, as far as an outbox sees it: it answers when the test says so."""

    def __init__(self) -> None:
        self.begun: list[tuple[Outgoing, Any]] = []
        self.error: UsageError | None = None
        self.changed = threading.Condition()

    def begin(self, outgoing: Outgoing) -> Any:
        if self.error is not None:
            raise self.error
        future = Future()
        with self.changed:
            self.begun.append((outgoing, future))
            self.changed.notify_all()
        return future

    def wait_begun(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.begun) >= count, 5.0)


class Rig:
    def __init__(self) -> None:
        self.client, self.refused = Client(), list[KafkaError]()
        self.metrics = CaptureMetrics(sensors=["image"], registry=CollectorRegistry())
        self.outbox = Outbox(self.client, self.metrics, FITS * EACH, self.refused.append)  # type: ignore[arg-type]

    def put(self, number: int) -> None:
        self.outbox.put(Outgoing(IMAGE, "car", number, bytes(PAYLOAD), "image/jpeg", number), "image")

    def count(self, name: str, **labels: str) -> float:
        found = self.metrics.registry.get_sample_value(f"streamer_capture_{name}_total", {"sensor": "image", **labels})
        assert found is not None
        return found

    def balanced(self) -> bool:
        dropped = sum(self.count("dropped", reason=reason) for reason in DROPS)
        return self.count("captured") == self.count("sent") + dropped


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for _, future in made.client.begun:
        if not future.is_done:
            future.failure(KafkaError())
    made.outbox.close(1.0)


def test_records_are_sent_in_order_and_counted_once_kafka_has_them(rig: Rig) -> None:
    for number in range(3):
        rig.put(number)
    rig.client.wait_begun(3)
    assert [outgoing.time_us for outgoing, _ in rig.client.begun] == [0, 1, 2]
    assert rig.count("sent") == 0
    assert rig.outbox.unsent_bytes == 3 * EACH
    for _, future in rig.client.begun:
        future.success(None)
    assert rig.count("sent") == 3
    assert rig.outbox.unsent_bytes == 0
    assert rig.balanced()


def test_while_kafka_does_not_answer_memory_is_bounded_and_the_oldest_is_dropped(rig: Rig) -> None:
    for number in range(100):
        rig.put(number)
        assert rig.outbox.unsent_bytes <= FITS * EACH
        if number == 50:
            rig.client.wait_begun(FITS // FLYING_PART)  # what is on its way stays
    flying = len(rig.client.begun)
    assert FITS // FLYING_PART <= flying <= FITS // FLYING_PART + 1
    assert rig.count("dropped", reason="buffer") == 100 - FITS
    for place in range(FITS):
        rig.client.wait_begun(place + 1)
        rig.client.begun[place][1].success(None)
    newest = [outgoing.time_us for outgoing, _ in rig.client.begun[flying:]]
    assert newest == list(range(100 - len(newest), 100))
    assert rig.count("sent") == FITS
    assert rig.balanced()


def test_a_record_that_kafka_refuses_is_counted_and_the_others_are_sent(rig: Rig) -> None:
    for number in range(2):
        rig.put(number)
    rig.client.wait_begun(2)
    rig.client.begun[0][1].failure(MessageSizeTooLargeError())
    rig.client.begun[1][1].success(None)
    assert (rig.count("sent"), rig.count("dropped", reason="refused")) == (1, 1)
    assert rig.refused == []
    assert rig.balanced()


def test_a_record_that_cannot_be_begun_is_counted(rig: Rig) -> None:
    rig.client.error = UsageError("too large")
    rig.put(0)
    deadline = time.monotonic() + 5.0
    while not rig.balanced():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert rig.count("dropped", reason="refused") == 1


def test_a_missing_right_ends_the_process(rig: Rig) -> None:
    rig.put(0)
    rig.client.wait_begun(1)
    rig.client.begun[0][1].failure(TopicAuthorizationFailedError("streamer.frames"))
    assert [type(error) for error in rig.refused] == [TopicAuthorizationFailedError]


def test_at_the_end_what_is_unsent_is_counted(rig: Rig) -> None:
    for number in range(10):
        rig.put(number)
    rig.client.wait_begun(FITS // FLYING_PART)
    rig.outbox.close(0.05)
    for _, future in rig.client.begun:
        future.success(None)
    assert rig.count("dropped", reason="stopped") == 10 - rig.count("sent")
    assert rig.balanced()


def test_what_is_damaged_was_captured_and_dropped(rig: Rig) -> None:
    rig.outbox.damaged("image")
    assert (rig.count("captured"), rig.count("dropped", reason="damaged")) == (1, 1)
    assert rig.balanced()


def test_it_is_known_how_long_kafka_has_not_answered(rig: Rig) -> None:
    assert rig.outbox.waited_s() == 0.0
    rig.put(0)
    rig.client.wait_begun(1)
    assert 0.0 <= rig.outbox.waited_s() < 5.0
    rig.client.begun[0][1].success(None)
    assert rig.outbox.waited_s() == 0.0
