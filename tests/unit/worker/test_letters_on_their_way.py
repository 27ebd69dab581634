"""Letters on their way: one that is refused is not forgotten because others are taken."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka.errors import KafkaTimeoutError
from prometheus_client import CollectorRegistry

from streamer.broker.deadletters import Letter
from streamer.observe.health import Service
from streamer.observe.metrics import Metrics
from streamer.settings import Settings
from streamer.worker.letters import Letters

TAKEN, REFUSED = Letter(b"key", b"taken", ()), Letter(None, b"refused", ())


async def test_while_one_letter_is_refused_others_that_are_taken_do_not_say_that_all_is_well() -> None:
    mended = asyncio.Event()

    async def send(topic: str, key: bytes | None, value: bytes, headers: Any) -> None:
        if value == b"refused" and not mended.is_set():
            raise KafkaTimeoutError

    kafka = Service("Kafka")
    letters = Letters(Settings.load(), Metrics(CollectorRegistry()), kafka, send, lambda work: work, lambda: None)
    stuck = asyncio.create_task(letters.send("dead", REFUSED))
    await asyncio.sleep(0)
    assert kafka.error == "Kafka does not take a record for dead: KafkaTimeoutError"
    await letters.send("late", TAKEN)
    assert kafka.error is not None
    mended.set()
    await stuck
    assert kafka.error is None


async def test_a_letter_that_is_given_up_is_not_waited_for() -> None:
    async def send(*_: object) -> None:
        raise KafkaTimeoutError

    kafka = Service("Kafka")
    stuck = asyncio.create_task(
        Letters(Settings.load(), Metrics(CollectorRegistry()), kafka, send, lambda work: work, lambda: None).send(
            "dead", REFUSED
        )
    )
    await asyncio.sleep(0)
    assert kafka.error is not None
    stuck.cancel()
    await asyncio.wait([stuck])
    assert kafka.error is None


def test_a_service_that_does_not_answer_answers_again_with_any_call() -> None:
    kafka = Service("Kafka")
    kafka.away(TimeoutError("late"))
    assert kafka.error == "Kafka does not answer: late"
    kafka.answers(object())
    assert kafka.error is None
