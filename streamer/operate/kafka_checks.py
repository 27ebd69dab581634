"""What ``streamer doctor`` checks at Kafka: address, topics and their replicas, rights, lag, clocks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import ceil
from time import time
from typing import Any

from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec

from streamer.broker import topics
from streamer.broker.topics import Topic
from streamer.clients import kafka as kafka_clients
from streamer.operate import leader_clocks
from streamer.operate.findings import MOST_SKEW_S, Finding, Status, fail, guarded, ok, warn
from streamer.operate.leader_clocks import Clock, Watched
from streamer.settings import Settings

SHORTEST_RETENTION_S = 3600  # a worker that is down for longer loses records
ALTER = "kafka-configs --alter --entity-type topics --entity-name TOPIC --add-config"

Partitions = Mapping[TopicPartition, Mapping[str, Any]]  # as Kafka describes each


def examine(settings: Settings) -> Iterator[Finding]:
    """Check all of it, except what an earlier finding makes impossible.

    Raises:
        UsageError: Kafka does not answer, or refuses us.
    """
    with kafka_clients.admin(settings, kafka_clients.TIMEOUT_MS) as client:
        yield _connection(settings)
        found = list(guarded("topics", settings, lambda: _topics(client, settings)))
        yield from found
        if any(finding.status is Status.FAIL for finding in found):
            return  # rights and records cannot be checked without the topics
        yield from guarded("rights", settings, lambda: _rights(client, settings))
        yield from guarded("group", settings, lambda: _group(client, settings))
        yield from guarded("clock", settings, lambda: _clocks(client, settings))


def _connection(settings: Settings) -> Finding:
    who = f" as {settings.kafka_user}" if settings.kafka_user else ""
    found = f"Kafka answers at {settings.kafka} over {settings.kafka_security_protocol}{who}"
    hosts = {address.rpartition(":")[0] for address in settings.brokers}
    if not settings.kafka_tls and not hosts <= {"localhost", "127.0.0.1", "[::1]"}:
        return warn("kafka", f"{found}, unencrypted", "set STREAMER_KAFKA_SECURITY_PROTOCOL to SASL_SSL or SSL")
    return ok("kafka", found)


# topics


def _topics(client: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    found = topics.described(client, settings)
    sources = [found[name] for name in settings.source_topics]
    yield ok(
        "topics",
        f"{len(found)} topics, {sources[0].partitions} partitions each of the sources, by "
        f"{sources[0].timestamp_type}, {settings.max_message_bytes} bytes a record",
    )
    for topic in found.values():
        if 0 <= topic.retention_ms < SHORTEST_RETENTION_S * 1000:
            yield warn(
                "topics",
                f"{topic.name} keeps its records for {topic.retention_ms / 1000:.0f} s: a worker that is down for "
                "longer loses them",
                f"raise {topics.RETENTION_MS} with kafka-configs --alter --entity-type topics",
            )
    brokers = client.describe_cluster()["brokers"]
    present = {broker["broker_id"] for broker in brokers if not broker.get("is_fenced")}
    yield from replication(found.values(), _partitions(client, list(found)), present)


def replication(found: Collection[Topic], partitions: Partitions, present: Collection[int]) -> Iterator[Finding]:
    """Whether a broker may be away, and which is.

    Args:
        present: Node ids of the brokers that answer.
    """
    brokers = {node for partition in partitions.values() for node in partition["replica_nodes"]} | {*present}
    lacking = [*_kept_badly(found, len(brokers)), *_absent(partitions, present), *_refusing(found, partitions)]
    yield from lacking
    if not lacking:
        replicas = min(topic.replicas for topic in found)
        amount = "1 replica" if replicas == 1 else f"{replicas} replicas, all in sync"
        yield ok("topics", f"{len(brokers)} {'broker' if len(brokers) == 1 else 'brokers'}, {amount}")


def _kept_badly(found: Collection[Topic], brokers: int) -> Iterator[Finding]:
    alike: dict[tuple[int, int], list[str]] = defaultdict(list)
    for topic in found:
        alike[topic.replicas, topic.min_in_sync].append(topic.name)
    for (replicas, least), names in alike.items():
        which = ", ".join(names)
        if replicas == 1 and brokers > 1:
            yield warn(
                "topics",
                f"one replica, although there are {brokers} brokers: a partition stands still while its broker is "
                f"away: {which}",
                "give them replicas with kafka-reassign-partitions",
            )
        elif replicas >= 3 and least < 2:
            yield warn(
                "topics",
                f"{topics.MIN_IN_SYNC}={least}: what one broker alone acknowledged may be lost with it: {which}",
                f"for each: {ALTER} {topics.MIN_IN_SYNC}=2",
            )
        elif replicas > 1 and least >= replicas:
            yield warn(
                "topics",
                f"{topics.MIN_IN_SYNC}={least} of {replicas} replicas: one broker away stops all producers: {which}",
                f"for each: {ALTER} {topics.MIN_IN_SYNC}={replicas - 1}",
            )


def _absent(partitions: Partitions, present: Collection[int]) -> Iterator[Finding]:
    behind: dict[int, int] = defaultdict(int)
    leaderless = []
    for place, partition in partitions.items():
        for node in {*partition["replica_nodes"]} - {*partition["isr_nodes"]}:
            behind[node] += 1
        if partition["leader_id"] < 0:
            leaderless.append(place)
    for node, count in sorted(behind.items()):
        state, remedy = "is away", "start it"
        if node in present:
            state, remedy = "is not in sync", "see its log: its disk, its network"
        yield warn(
            "topics", f"broker {node} {state}: {count} of {len(partitions)} partitions lack this replica", remedy
        )
    if leaderless:
        away = {node for place in leaderless for node in partitions[place]["replica_nodes"]} - {*present}
        yield warn(
            "topics",
            f"{len(leaderless)} partitions have no leader, and their sessions stand still: "
            + ", ".join(f"{place.topic} {place.partition}" for place in sorted(leaderless)),
            f"start the brokers that hold them: {', '.join(map(str, sorted(away)))}",
        )


def _refusing(found: Collection[Topic], partitions: Partitions) -> Iterator[Finding]:
    least = {topic.name: topic.min_in_sync for topic in found}
    refusing = [place for place, partition in partitions.items() if len(partition["isr_nodes"]) < least[place.topic]]
    if refusing:
        yield warn(
            "topics",
            f"{len(refusing)} partitions have fewer replicas in sync than {topics.MIN_IN_SYNC}: they refuse records "
            "sent with acks=all",
            "start the brokers that are away",
        )


def _partitions(client: KafkaAdminClient, names: Sequence[str]) -> Partitions:
    return {
        TopicPartition(topic["name"], partition["partition_index"]): partition
        for topic in client.describe_topics(list(names))
        for partition in topic["partitions"]
    }


def _leaders(client: KafkaAdminClient, names: Sequence[str]) -> dict[TopicPartition, int]:
    """The node that leads each partition; those without a leader, which answer nothing, are left out."""
    found = _partitions(client, names).items()
    return {place: partition["leader_id"] for place, partition in found if partition["leader_id"] >= 0}


# rights and records


def _rights(client: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    missing = topics.missing_rights(client, settings)
    for right in missing:
        yield fail("rights", f"user {settings.kafka_user!r} may not {right}", "SECURITY.md lists the ACLs needed")
    if not missing:
        ticks = ", append ticks" if settings.merge_proof == "ticks" and settings.role != "infer" else ""
        yield ok("rights", f"a worker may read its topics{ticks}, commit, and set records aside")


def _group(client: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    group = kafka_clients.patiently(client.describe_groups, [settings.consumer_group])[settings.consumer_group]
    workers = len(group["members"])
    behind = sum(_lag(client, settings).values())
    found = f"group {settings.consumer_group}: {workers} workers, {behind} records behind"
    if behind and not workers:
        yield warn("group", found, "start a worker: `streamer worker`")
    else:
        yield ok("group", found)


def _lag(client: KafkaAdminClient, settings: Settings) -> dict[TopicPartition, int]:
    """Records that the group has not committed, for each partition with a leader that a worker of this role reads."""
    committed = kafka_clients.patiently(client.list_group_offsets, settings.consumer_group)[settings.consumer_group]
    places = list(_leaders(client, settings.worker_topics))
    ends = client.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
    begins = client.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST))
    lag = {}
    for place in places:
        done = committed[place].offset if place in committed else -1
        lag[place] = ends[place].offset - max(done, begins[place].offset)
    return lag


# clocks


def _clocks(client: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    watched = leader_clocks.watch(client, _leaders(client, settings.source_topics))
    yield from clocks(watched, settings)


def clocks(watched: Watched, settings: Settings) -> Iterator[Finding]:
    """What the watch showed of the leaders' clocks, and whether ``merge_proof`` fits them."""
    exact = settings.merge_proof == "ticks"  # then clocks may differ: windows only come later by as much
    limit_s = MOST_SKEW_S if exact else settings.merge_slack_ms / 1000
    wrong = {node: clock for node, clock in watched.clocks.items() if clock.ahead(limit_s) or clock.behind(limit_s)}
    quiet = {node for node, clock in watched.clocks.items() if not clock.judged(limit_s)}
    for node, clock in wrong.items():
        yield warn("clock", f"broker {node}'s clock is {_difference(clock, limit_s)} this machine's", "run NTP on both")
    right = [clock for node, clock in watched.clocks.items() if node not in wrong and node not in quiet]
    if right:
        yield ok(
            "clock",
            f"no clock of {_named(watched.clocks.keys() - wrong.keys() - quiet)} differs from this machine's by more "
            f"than {limit_s * 1000:.0f} ms (seen to within {max(c.most_s - c.least_s for c in right) * 1000:.0f} ms)",
        )
    if not watched.newest_s:
        yield ok("clock", "Kafka holds no record yet, so its clocks cannot be checked")
    elif quiet:
        yield ok(
            "clock",
            f"too few records came in {leader_clocks.WATCH_S:.0f} s to judge the clock of {_named(quiet)}",
        )
    differences_s = [max(-clock.least_s, clock.most_s) for clock in wrong.values()]
    ahead_s = max(watched.newest_s.values(), default=0.0) - time()
    if ahead_s > limit_s and not any(clock.ahead(limit_s) for clock in wrong.values()):
        differences_s.append(ahead_s)
        place = max(watched.newest_s, key=watched.newest_s.__getitem__)
        yield warn(
            "clock",
            f"{place.topic} {place.partition} has a record stamped {ahead_s * 1000:.0f} ms ahead of this machine's "
            "clock, by the broker that led it then",
            "run NTP on all brokers and here",
        )
    if settings.role != "infer":  # which merges nothing
        yield _mode(settings, differences_s, bool(right) and not quiet)


def _difference(clock: Clock, limit_s: float) -> str:
    if clock.ahead(limit_s):
        return f"at least {clock.least_s * 1000:.0f} ms ahead of"
    return f"at least {-clock.most_s * 1000:.0f} ms behind"


def _named(nodes: Collection[int]) -> str:
    return ("broker " if len(nodes) == 1 else "brokers ") + ", ".join(map(str, sorted(nodes)))


def _mode(settings: Settings, differences_s: Sequence[float], all_judged: bool) -> Finding:
    if settings.merge_proof == "ticks":
        return ok("clock", "merge_proof=ticks fits any clocks; workers write to silent partitions of the source topics")
    mode = f"merge_proof=replicas with merge_slack_ms={settings.merge_slack_ms}"
    if differences_s:
        enough_ms = ceil(max(differences_s) * 100) * 10
        return warn(
            "clock",
            f"{mode} does not fit these clocks: a replay may give other windows",
            f"run NTP on all brokers and here, or set STREAMER_MERGE_SLACK_MS={enough_ms}, or "
            "STREAMER_MERGE_PROOF=ticks, which needs the right to write to the source topics",
        )
    if all_judged:
        return ok("clock", f"{mode} fits these clocks")
    return ok("clock", f"{mode} fits if no clock differs by more")
