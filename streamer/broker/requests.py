"""Two requests in versions that aiokafka does not have: leaders with their epochs, and log ends.

Formats: https://kafka.apache.org/protocol, Metadata version 7 and ListOffsets version 5.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Boolean, Int8, Int16, Int32, Int64, Schema, String

LATEST = -1  # the timestamp that stands for the end
DEBUGGING_REPLICA = -2  # neither a consumer, who is told the high watermark, nor a follower
READ_UNCOMMITTED = 0


class LeadersResponse(Response):  # type: ignore[misc]
    """Brokers, and for each partition its leader, leader epoch and replicas."""

    API_KEY = 3
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            Array(("node_id", Int32), ("host", String("utf-8")), ("port", Int32), ("rack", String("utf-8"))),
        ),
        ("cluster_id", String("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            Array(
                ("error_code", Int16),
                ("topic", String("utf-8")),
                ("is_internal", Boolean),
                (
                    "partitions",
                    Array(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", Array(Int32)),
                        ("in_sync", Array(Int32)),
                        ("offline", Array(Int32)),
                    ),
                ),
            ),
        ),
    )


class LeadersRequest(RequestStruct):  # type: ignore[misc]
    """Asks for topics by name; none is created."""

    API_KEY = 3
    API_VERSION = 7
    RESPONSE_TYPE = LeadersResponse
    SCHEMA = Schema(("topics", Array(String("utf-8"))), ("allow_auto_topic_creation", Boolean))


class Leaders(Request[LeadersRequest]):  # type: ignore[misc]
    """Who leads the partitions of topics."""

    API_KEY = 3

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = list(topics)

    def build(self, request_struct_class: type[LeadersRequest]) -> LeadersRequest:
        return request_struct_class(self._topics, False)


class LatestOffsetsResponse(Response):  # type: ignore[misc]
    """For each partition an offset and the epoch of its leader, as this broker knows it."""

    API_KEY = 2
    API_VERSION = 5
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("timestamp", Int64),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                    ),
                ),
            ),
        ),
    )


class LatestOffsetsRequest(RequestStruct):  # type: ignore[misc]
    """Asks for offsets by time; a broker that knows another epoch than the current one that is given answers so."""

    API_KEY = 2
    API_VERSION = 5
    RESPONSE_TYPE = LatestOffsetsResponse
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("isolation_level", Int8),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(("partition", Int32), ("current_leader_epoch", Int32), ("timestamp", Int64)),
                ),
            ),
        ),
    )


class LatestOffsets(Request[LatestOffsetsRequest]):  # type: ignore[misc]
    """The log ends of partitions at a replica.

    Args:
        epochs: (topic, partition) -> the epoch of its leader as we know it.
    """

    API_KEY = 2

    def __init__(self, epochs: Mapping[tuple[str, int], int]) -> None:
        self._epochs = epochs

    def build(self, request_struct_class: type[LatestOffsetsRequest]) -> LatestOffsetsRequest:
        topics = defaultdict(list)
        for (topic, partition), epoch in self._epochs.items():
            topics[topic].append((partition, epoch, LATEST))
        return request_struct_class(DEBUGGING_REPLICA, READ_UNCOMMITTED, list(topics.items()))
