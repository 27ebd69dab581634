"""The producer of programs on an event loop, on a real Kafka: what each record is told."""

from __future__ import annotations

import asyncio
import os

import pytest

from streamer.broker.sending import Fault, Place, Sending, Unsent
from streamer.errors import UsageError
from streamer.local.process import free_port
from streamer.settings import Settings
from tests.harness import read_topic

pytestmark = pytest.mark.integration

ACK_MS = 3000


async def sent(sending: Sending, *records: tuple[str, bytes]) -> list[Place | Unsent]:
    """What each record, of a topic and a value, was told."""
    told: list[asyncio.Future[Place | Unsent]] = []
    for topic, value in records:
        told.append(asyncio.get_running_loop().create_future())
        sending.send(topic, 0, b"cab-7", value, [("ce_id", b"1")], told[-1].set_result)
    return await asyncio.wait_for(asyncio.gather(*told), 4 * ACK_MS / 1000)


async def test_each_record_is_told_its_place_or_why_it_has_none(topics: Settings) -> None:
    topic = topics.source_topics[0]
    sending = Sending(topics, ACK_MS)
    await sending.start()
    small, large = [b"%d" % number for number in range(500)], os.urandom(topics.max_message_bytes + (64 << 10))
    places = await sent(sending, *((topic, value) for value in small))
    assert places == [Place(0, number) for number in range(500)]  # in order, and once each
    (refused, nowhere, after) = await sent(sending, (topic, large), (f"{topic}.none", b"x"), (topic, b"y"))
    assert isinstance(refused, Unsent)
    assert refused.fault is Fault.TOO_LARGE
    assert isinstance(nowhere, Unsent)
    assert nowhere.fault is Fault.AWAY
    assert after == Place(0, 500)
    assert await sending.stop(1.0)
    assert [(one.value, one.headers) for one in read_topic(topics, topic)] == [
        (value, [("ce_id", b"1")]) for value in (*small, b"y")
    ]


async def test_without_a_kafka_it_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.broker.sending.CONNECT_S", 1.0)
    with pytest.raises(UsageError, match="Kafka at 127"):
        await Sending(Settings.load(kafka=f"127.0.0.1:{free_port()}"), ACK_MS).start()
