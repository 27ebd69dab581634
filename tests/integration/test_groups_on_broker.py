"""Groups of kafka-python's consumers on a real broker."""

from __future__ import annotations

from time import monotonic, sleep

import pytest

from streamer.clients import kafka as kafka_clients
from streamer.settings import Settings

pytestmark = pytest.mark.integration


def test_a_member_that_polls_briefly_gets_the_partitions_that_are_added(topics: Settings) -> None:
    topic = topics.source_topics[0]
    consumer = kafka_clients.consumer(topics, group_id=topics.group, metadata_max_age_ms=500)
    with consumer, kafka_clients.admin(topics, kafka_clients.TIMEOUT_MS) as admin:
        consumer.subscribe([topic])
        for count in (topics.partitions, topics.partitions + 2):
            if count > topics.partitions:
                admin.create_partitions({topic: count})
            deadline_s = monotonic() + 30
            while len(consumer.assignment()) < count:
                assert monotonic() < deadline_s
                consumer.poll(timeout_ms=1)
                sleep(0.01)
