"""Sends the given messages by a client for Python: ``send.py BROKER MESSAGES WAY``; prints those that it refuses."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from datetime import datetime
from typing import Any

Message = dict[str, Any]


def plain(message: Message) -> tuple[list[tuple[str, bytes]], bytes | None, bytes]:
    headers = [(name, text.encode()) for name, text in message["headers"].items()]
    key = message["key"]
    return headers, None if key is None else key.encode(), base64.b64decode(message["data"])


def by_sdk(message: Message, *, is_structured: bool) -> tuple[list[tuple[str, bytes]], bytes | None, bytes]:
    from cloudevents.core.bindings.kafka import to_binary, to_structured
    from cloudevents.core.formats.json import JSONFormat
    from cloudevents.core.v1.event import CloudEvent

    data = base64.b64decode(message["data"])
    event = CloudEvent(
        attributes={
            "id": message["id"],
            "source": message["source"],
            "type": message["type"],
            "time": datetime.fromisoformat(message["time"]),
            "datacontenttype": message["contentType"],
            "sequence": message["sequence"],
            **({} if message["key"] is None else {"partitionkey": message["key"]}),
        },
        data=json.loads(data) if data and message["contentType"] == "application/json" else data,
    )
    made = (to_structured if is_structured else to_binary)(event, JSONFormat())
    key = made.key.encode() if isinstance(made.key, str) else made.key
    return list(made.headers.items()), key, made.value


def main(broker: str, messages: list[Message], way: str) -> None:
    client, _, sdk = way.partition("+")
    refused: list[tuple[str, str]] = []
    made = []
    for message in messages:
        try:
            made.append((message, *(by_sdk(message, is_structured=sdk == "structured") if sdk else plain(message))))
        except Exception as error:  # noqa: BLE001 - what a library refuses is the answer
            refused.append((message["id"], repr(error)))
    SENDERS[client](broker, made, refused)
    for event_id, words in refused:
        print(event_id, words, sep="\t")


def confluent(broker: str, made: list[Any], refused: list[tuple[str, str]], **options: str) -> None:
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": broker, **options})
    for message, headers, key, value in made:
        producer.produce(message["topic"], key=key, value=value, headers=headers)
    assert producer.flush(60) == 0


def murmur2(broker: str, made: list[Any], refused: list[tuple[str, str]]) -> None:
    confluent(broker, made, refused, partitioner="murmur2_random")


def kafka_python(broker: str, made: list[Any], refused: list[tuple[str, str]]) -> None:
    from kafka import KafkaProducer

    producer = KafkaProducer(bootstrap_servers=broker)
    for message, headers, key, value in made:
        producer.send(message["topic"], key=key, value=value, headers=headers)
    producer.flush()
    producer.close()


def aiokafka(broker: str, made: list[Any], refused: list[tuple[str, str]]) -> None:
    async def send() -> None:
        from aiokafka import AIOKafkaProducer

        async with AIOKafkaProducer(bootstrap_servers=broker) as producer:
            for message, headers, key, value in made:
                await producer.send_and_wait(message["topic"], key=key, value=value, headers=headers)

    asyncio.run(send())


SENDERS = {"confluent": confluent, "murmur2": murmur2, "kafka-python": kafka_python, "aiokafka": aiokafka}

if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as file:
        main(sys.argv[1], json.load(file), sys.argv[3])
