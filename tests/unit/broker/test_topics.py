"""Configurations of topics, as brokers that are slow to hear of them, or refuse, give them."""

from __future__ import annotations

from typing import Any, cast

import pytest
from kafka.admin import KafkaAdminClient

from streamer.broker import topics
from streamer.errors import UsageError
from streamer.settings import Settings

CONFIGURATION = {
    topics.TIMESTAMP_TYPE: {"value": "LogAppendTime"},
    topics.MAX_BYTES: {"value": "16777216"},
    topics.RETENTION_MS: {"value": "1000"},
    topics.MIN_IN_SYNC: {"value": "2"},
}


class Brokers:
    """The first ones that are asked have not heard of the topics: the client gives an empty configuration for those."""

    def __init__(self, unaware: int) -> None:
        self.unaware = unaware

    def describe_topics(self, names: list[str]) -> list[dict[str, Any]]:
        return [{"name": name, "error_code": 0, "partitions": [{"replica_nodes": [1, 2, 3]}]} for name in names]

    def describe_configs(self, resources: list[Any], config_filter: str) -> dict[str, Any]:
        self.unaware -= 1
        return {"topic": {resource.name: {} if self.unaware >= 0 else CONFIGURATION for resource in resources}}


def test_a_broker_that_has_not_heard_of_a_new_topic_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topics, "RETRY_S", 0.0)
    found = topics._existing(cast(KafkaAdminClient, Brokers(unaware=3)), Settings())
    assert {(topic.timestamp_type, topic.min_in_sync, topic.replicas) for topic in found.values()} == {
        ("LogAppendTime", 2, 3)
    }


def test_a_configuration_that_kafka_does_not_show_is_refused_with_the_right_that_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(topics, "SPREAD_S", -1.0)
    with pytest.raises(UsageError, match=r"streamer\.frames.*DESCRIBE_CONFIGS") as refused:
        topics._existing(cast(KafkaAdminClient, Brokers(unaware=1000)), Settings())
    assert "\n" not in str(refused.value)
