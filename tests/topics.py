"""What a topic holds, for readers of committed records."""

from __future__ import annotations

from typing import Any

from kafka import TopicPartition

from streamer.clients import kafka as kafka_clients
from streamer.settings import Settings


def committed(settings: Settings, topic: str) -> list[Any]:
    """All records that a topic has now; none of a transaction that is open or was aborted."""
    consumer = kafka_clients.consumer(settings)
    try:
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        found: list[Any] = []
        while any(consumer.position(partition) < ends[partition] for partition in partitions):
            for batch in consumer.poll(timeout_ms=500).values():
                found += batch
        return found
    finally:
        consumer.close()
