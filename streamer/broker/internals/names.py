"""The names that are used of each class, in all of streamer."""

from __future__ import annotations

from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment, Subscription, SubscriptionState, TopicPartitionState
from aiokafka.protocol.api import RequestStruct
from aiokafka.protocol.fetch import FetchRequest
from faust.tables import TableManager
from faust.tables.recovery import Recovery
from faust.transport.drivers import aiokafka as driver

INTERNALS: dict[type, tuple[str, ...]] = {
    driver.Consumer: (
        "_add_gap",
        "_buffered_partitions",
        "_committed_offset",
        "_filter_tps_with_pending_acks",
        "_get_active_partitions",
        "_getmany",
        "_new_consumer_thread",
        "_new_offset",
        "_wait_next_records",
        "can_resume_flow",
        "flow_active",
        "on_buffer_drop",
        "on_buffer_full",
        "perform_seek",
        "wait_first",
    ),
    driver.AIOKafkaConsumerThread: ("_consumer", "_fetch_records", "verify_event_path"),
    TableManager: ("_update_channels", "recovery"),
    Recovery: ("start",),
    AIOKafkaConsumer: ("_coordinator", "_fetcher", "_subscription"),
    Fetcher: (
        "_client",
        "_fetch_max_bytes",
        "_get_actions_per_node",
        "_isolation_level",
        "_proc_fetch_request",
        "_records",
    ),
    GroupCoordinator: ("_do_fetch_commit_offsets", "commit_offsets"),
    FetchResult: ("_partition_records",),
    PartitionRecords: ("_check_crcs", "_consumer_record", "_records", "next_fetch_offset"),
    SubscriptionState: ("subscription",),
    Subscription: ("assignment",),
    Assignment: ("state_value",),
    TopicPartitionState: ("awaiting_reset", "highwater", "lso", "timestamp"),
    FetchRequest: ("API_KEY", "_max_wait_ms", "topics"),
    RequestStruct: ("API_KEY", "RESPONSE_TYPE", "parse_response_header"),
    AIOKafkaClient: ("_get_conn", "send"),
    AIOKafkaConnection: (
        "_handle_frame",
        "_last_action",
        "_protocol",
        "_read_task",
        "_reader",
        "_requests",
        "_writer",
        "close",
    ),
}
