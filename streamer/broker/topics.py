"""Kafka topics: making them, and refusing to run on ones that would break alignment.

A session lives in one partition group, partition p of *every* source topic: the topics must have equal partition
counts. Alignment orders records by the broker's append time: source topics must stamp ``LogAppendTime``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic, sleep
from typing import Any

import msgspec
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import GroupAuthorizationFailedError, InvalidReplicationFactorError, TopicAlreadyExistsError

from streamer.clients.kafka import TIMEOUT_MS, admin, no_topic, patiently
from streamer.errors import UsageError
from streamer.events import TOPIC_DEADLETTER, TOPIC_LATE, TOPIC_WINDOWS
from streamer.settings import Settings

DEADLETTER_MARGIN_BYTES = 64 << 10  # for the headers with reason and origin, beside the untouched record
TIMESTAMP_TYPE, MAX_BYTES = "message.timestamp.type", "max.message.bytes"
RETENTION_MS = "retention.ms"
MIN_IN_SYNC = "min.insync.replicas"
CLEANUP = "cleanup.policy"
LOG_APPEND_TIME = "LogAppendTime"
SPREAD_S = 5.0  # the longest that a new topic takes to be known to all brokers
RETRY_S = 0.1
# What a worker of each role does with the topics beside the source topics.
_SIDE_RIGHTS = {
    "all": {TOPIC_LATE: "WRITE", TOPIC_DEADLETTER: "WRITE"},
    "align": {TOPIC_WINDOWS: "WRITE", TOPIC_LATE: "WRITE", TOPIC_DEADLETTER: "WRITE"},
    "infer": {TOPIC_WINDOWS: "READ", TOPIC_DEADLETTER: "WRITE"},
}


class Topic(msgspec.Struct, frozen=True):
    """A topic as it is on the broker.

    Attributes:
        retention_ms: How long records are kept; -1: for ever.
        replicas: The fewest of any partition.
        min_in_sync: Replicas that must have a record before it is acknowledged.
        created: Whether the call that returned this created it.
    """

    name: str
    partitions: int
    timestamp_type: str
    max_message_bytes: int
    retention_ms: int
    replicas: int
    min_in_sync: int
    created: bool = False


class _Wanted(msgspec.Struct, frozen=True):
    name: str
    is_source: bool
    max_message_bytes: int
    compacted: bool = False


def _wanted(settings: Settings) -> list[_Wanted]:
    sources = [_Wanted(name, True, settings.max_message_bytes) for name in settings.source_topics]
    side = [
        _Wanted(settings.topic(suffix), False, settings.max_message_bytes + DEADLETTER_MARGIN_BYTES)
        for suffix in (TOPIC_WINDOWS, TOPIC_LATE, TOPIC_DEADLETTER)
    ]
    return sources + side


def answers(settings: Settings, timeout_ms: int) -> bool:
    """Whether a Kafka broker answers requests at the address within this time."""
    try:
        with admin(settings, timeout_ms):
            return True
    except UsageError:
        return False


def create(settings: Settings) -> list[Topic]:
    """Create the topics that are missing; those that exist must fit.

    Raises:
        UsageError: No broker, not enough of them for the replication, or an existing topic does not fit.
    """
    with admin(settings, TIMEOUT_MS) as client:
        existing = _existing(client, settings)
        _refuse_misfits(existing, settings, settings.partitions)
        missing = [wanted for wanted in _wanted(settings) if wanted.name not in existing]
        if missing:
            _make(client, missing, settings)
        now = _existing(client, settings)
    _refuse_misfits(now, settings, settings.partitions)
    made = {wanted.name for wanted in missing}
    return [msgspec.structs.replace(topic, created=topic.name in made) for topic in now.values()]


def ensure(settings: Settings, suffix: str, compacted: bool = False) -> str:
    """Create the topic of a program of its own, with a session's records in one partition; returns its name.

    Workers do without it, so :func:`create` does not make it.

    Args:
        compacted: Only the newest record of each key is kept, for ever.

    Raises:
        UsageError: No broker, or not enough of them for the replication.
    """
    name = settings.topic(suffix)
    with admin(settings, TIMEOUT_MS) as client:
        if client.describe_topics([name])[0]["error_code"]:
            _make(client, [_own(settings, suffix, compacted)], settings)
    return name


def _own(settings: Settings, suffix: str, compacted: bool = False) -> _Wanted:
    return _Wanted(settings.topic(suffix), False, settings.max_message_bytes, compacted)


def _make(client: KafkaAdminClient, missing: list[_Wanted], settings: Settings) -> None:
    new = {
        wanted.name: {
            "num_partitions": settings.partitions,
            "replication_factor": settings.replication,
            "configs": {
                TIMESTAMP_TYPE: LOG_APPEND_TIME,
                MAX_BYTES: str(wanted.max_message_bytes),
                # One broker may be away; what is acknowledged is on another one all the same.
                MIN_IN_SYNC: str(max(1, settings.replication - 1)),
                CLEANUP: "compact" if wanted.compacted else "delete",
            },
        }
        for wanted in missing
    }
    try:
        client.create_topics(new, timeout_ms=TIMEOUT_MS)
    except TopicAlreadyExistsError:
        pass  # another process was quicker; the topic is checked afterwards
    except InvalidReplicationFactorError:
        raise UsageError(
            f"Kafka at {settings.kafka} has too few brokers for {settings.replication} replicas a topic; "
            f"start more, or lower STREAMER_REPLICATION"
        ) from None
    client.wait_for_topics(list(new), timeout_ms=TIMEOUT_MS)


def check(settings: Settings) -> int:
    """Refuse topics on which windows would be wrong; returns the partition count of the source topics.

    Raises:
        UsageError: With what is wrong and how to fix it.
    """
    with admin(settings, TIMEOUT_MS) as client:
        return _partitions(described(client, settings), settings)


def check_for_worker(settings: Settings) -> int:
    """As :func:`check`; also refuse a worker that may not read its topics, commit, or write to its side topics.

    Faust would retry for ever without a message.

    Raises:
        UsageError: With what is wrong, or which right is missing.
    """
    with admin(settings, TIMEOUT_MS) as client:
        existing = described(client, settings)
        missing = missing_rights(client, settings)
    if missing:
        raise UsageError(
            f"Kafka at {settings.kafka} does not let user {settings.kafka_user!r} {missing[0]}; "
            "SECURITY.md lists the ACLs needed"
        )
    return _partitions(existing, settings)


def _partitions(existing: Mapping[str, Topic], settings: Settings) -> int:
    """The least partition count of a source topic."""
    return min(existing[name].partitions for name in settings.source_topics)


def described(client: KafkaAdminClient, settings: Settings) -> dict[str, Topic]:
    """All topics, by name, if windows are right on them.

    Raises:
        UsageError: With what is wrong and how to fix it.
    """
    existing = _existing(client, settings)
    missing = [wanted.name for wanted in _wanted(settings) if wanted.name not in existing]
    if missing:
        raise no_topic(settings, missing[0])
    _refuse_misfits(existing, settings, _partitions(existing, settings))
    return existing


def missing_rights(client: KafkaAdminClient, settings: Settings) -> list[str]:
    """The rights that a worker lacks, as words; brokers without an authorizer allow everything."""
    # Role infer reads source topics too: payloads that were left behind.
    needed = [(name, "READ") for name in settings.source_topics]
    if settings.merge_proof == "ticks" and settings.role != "infer":
        needed += [(name, "WRITE") for name in settings.source_topics]
    needed += [(settings.topic(suffix), operation) for suffix, operation in _SIDE_RIGHTS[settings.role].items()]
    names = list(dict(needed))
    granted = {topic["name"]: topic["authorized_operations"] for topic in client.describe_topics(names)}
    missing = [
        f"{operation.lower()} topic {name}"
        for name, operation in needed
        if granted[name] is not None and operation not in granted[name]  # None: an old broker does not report it
    ]
    group = patiently(client.describe_groups, [settings.consumer_group])[settings.consumer_group]
    operations = group["authorized_operations"]  # None for a group that does not exist yet, unless it is refused
    refused = GroupAuthorizationFailedError.__name__ in (group["error"] or "")
    if refused or (operations is not None and "READ" not in operations):
        missing.append(f"read group {settings.consumer_group}")
    return missing


def _existing(client: KafkaAdminClient, settings: Settings) -> dict[str, Topic]:
    names = [wanted.name for wanted in _wanted(settings)]
    described = client.describe_topics(names)
    there = {topic["name"]: topic["partitions"] for topic in described if not topic["error_code"]}
    if not there:
        return {}
    configs = _configs(client, settings, list(there))
    return {name: _topic(name, there[name], configs[name]) for name in names if name in there}


def _configs(client: KafkaAdminClient, settings: Settings, names: list[str]) -> dict[str, dict[str, Any]]:
    """The configuration of each topic; a broker that has not heard of a new topic yet is asked again.

    Raises:
        UsageError: Kafka does not say.
    """
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    deadline_s = monotonic() + SPREAD_S
    while True:
        configs: dict[str, dict[str, Any]] = client.describe_configs(resources, config_filter="all")["topic"]
        unknown = [name for name in names if TIMESTAMP_TYPE not in configs.get(name, {})]
        if not unknown:
            return configs
        if monotonic() > deadline_s:
            raise UsageError(
                f"Kafka at {settings.kafka} does not show the configuration of topic {unknown[0]}: the user needs the "
                "right DESCRIBE_CONFIGS on it, see SECURITY.md"
            )
        sleep(RETRY_S)


def _topic(name: str, partitions: Sequence[dict[str, Any]], configs: dict[str, dict[str, str]]) -> Topic:
    return Topic(
        name,
        len(partitions),
        configs[TIMESTAMP_TYPE]["value"],
        int(configs[MAX_BYTES]["value"]),
        int(configs[RETENTION_MS]["value"]),
        min(len(partition["replica_nodes"]) for partition in partitions),
        int(configs[MIN_IN_SYNC]["value"]),
    )


def _refuse_misfits(existing: dict[str, Topic], settings: Settings, partitions: int) -> None:
    """Raise UsageError for the first topic on which alignment, or the dead-letter topic, could not rely."""
    sources = [existing[name] for name in settings.source_topics if name in existing]
    counts = {topic.partitions for topic in sources}
    if len(counts) > 1:
        raise UsageError(
            "all source topics need the same number of partitions, but there are: "
            + ", ".join(f"{topic.name} {topic.partitions}" for topic in sources)
            + f"; fix it with kafka-topics --alter --partitions {max(counts)} on those with fewer, while no worker"
            " runs and nothing is being sent"
        )
    if counts and counts != {partitions}:
        raise UsageError(
            f"the source topics have {min(counts)} partitions, not {partitions}; set STREAMER_PARTITIONS={min(counts)},"
            " or another STREAMER_TOPIC_PREFIX for new topics"
        )
    for wanted in _wanted(settings):
        if (topic := existing.get(wanted.name)) is not None:
            _refuse_misfit(topic, wanted)
    windows = existing.get(settings.topic(TOPIC_WINDOWS))
    if settings.role != "all" and windows is not None and windows.partitions != partitions:
        raise UsageError(
            f"topic {windows.name} has {windows.partitions} partitions, the source topics {partitions}: a session's "
            f"windows are in the partition of its records; fix it with kafka-topics --alter --partitions, or delete "
            f"it while it is empty and run `streamer topics create`"
        )


def _refuse_misfit(topic: Topic, wanted: _Wanted) -> None:
    fix = f"fix it with kafka-configs --alter --entity-type topics --entity-name {topic.name} --add-config"
    if wanted.is_source and topic.timestamp_type != LOG_APPEND_TIME:
        raise UsageError(
            f"topic {topic.name} has {TIMESTAMP_TYPE}={topic.timestamp_type}, by which windows cannot be aligned; "
            f"{fix} {TIMESTAMP_TYPE}={LOG_APPEND_TIME}"
        )
    if topic.max_message_bytes < wanted.max_message_bytes:
        raise UsageError(
            f"topic {topic.name} takes records of {topic.max_message_bytes} bytes, {wanted.max_message_bytes} are "
            f"needed; {fix} {MAX_BYTES}={wanted.max_message_bytes}, or lower STREAMER_MAX_MESSAGE_BYTES"
        )
