"""Ticks on idle partitions: where something waits, one at a time, again after an error."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError

from streamer.align.decode import Decoder
from streamer.events import KINDS, EventType, Record
from streamer.observe.health import Service
from streamer.settings import Settings
from streamer.worker.ticks import Ticker

ROWS = {"frames": 0, "audio": 1}


class Kafka:
    def __init__(self) -> None:
        self.sent: list[tuple[str, int | None]] = []
        self.records: list[tuple[bytes | None, bytes, tuple[tuple[str, bytes], ...]]] = []
        self.acknowledges = asyncio.Event()
        self.acknowledges.set()
        self.fails = 0

    async def send(self, topic: str, key: bytes | None, value: bytes, headers: Any, partition: int | None) -> None:
        self.sent.append((topic, partition))
        self.records.append((key, value, headers))
        await self.acknowledges.wait()
        if self.fails:
            self.fails -= 1
            raise KafkaConnectionError("away")


def group(partition: int, held: tuple[int, int] = (0, 0), buffered: int = 0, closing: int | None = None) -> Any:
    return SimpleNamespace(
        partition=partition, held=lambda row: held[row], buffered_bytes=buffered, next_closing_us=closing
    )


async def ticked(kafka: Kafka, service: Service, *groups: Any, turns: int = 1) -> None:
    ticker = Ticker(10, ROWS, lambda: groups, kafka.send, service)
    task = asyncio.create_task(ticker.run())
    await asyncio.sleep(0.01 * turns - 0.005)
    task.cancel()
    await asyncio.wait({task})


async def test_a_group_that_waits_for_nothing_is_left_alone() -> None:
    kafka = Kafka()
    await ticked(kafka, Service("Kafka"), group(0))
    assert kafka.sent == []


@pytest.mark.parametrize("waiting", [{"held": (9, 0), "buffered": 9}, {"held": (9, 0), "closing": 5}])
async def test_an_idle_partition_beside_one_that_waits_gets_a_tick(waiting: dict[str, Any]) -> None:
    kafka = Kafka()
    await ticked(kafka, Service("Kafka"), group(3, **waiting))
    assert kafka.sent == [("audio", 3)]


async def test_a_tick_is_one_that_every_decoder_knows() -> None:
    kafka = Kafka()
    await ticked(kafka, Service("Kafka"), group(0, closing=5))
    key, value, headers = kafka.records[0]
    event = Decoder(Settings.load(), 4).decode(Record(0, 0, 0, 77, key, value, headers))
    assert (event.type, event.start_us, event.session) == (EventType.TICK, 77, "")
    assert KINDS[0].name == "image"


async def test_the_next_tick_waits_for_the_acknowledgement_of_the_last() -> None:
    kafka = Kafka()
    kafka.acknowledges.clear()
    await ticked(kafka, Service("Kafka"), group(0, closing=5), turns=4)
    assert kafka.sent == [("frames", 0), ("audio", 0)]


async def test_after_an_error_kafka_counts_as_away_until_a_tick_is_taken() -> None:
    kafka, service = Kafka(), Service("Kafka")
    kafka.fails = 2
    await ticked(kafka, service, group(0, closing=5))
    assert service.error is not None
    assert service.error.startswith("Kafka does not take a tick for ")
    await ticked(kafka, service, group(0, closing=5))
    assert service.error is None
