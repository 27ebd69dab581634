"""``streamer doctor``: checks everything that a worker needs. It changes nothing.

A finding is *ok*, *warn* (it works, with a disadvantage) or *FAIL* (a worker would not start, or its results would be
wrong); the last two come with a remedy.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from time import time

import msgspec
import redis
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec
from kafka.errors import KafkaError

from streamer.broker import topics
from streamer.clients import kafka as kafka_clients
from streamer.clients import redis as redis_clients
from streamer.errors import StreamerError
from streamer.model.spec import SPEC_FILE, read_spec
from streamer.settings import Settings

SHORTEST_RETENTION_S = 3600  # a worker that is down for longer loses records
MOST_SKEW_S = 1.0
LEAST_FREE_BYTES = 100 << 20
OLDEST_REDIS = (6, 2)  # for ZADD GT, XTRIM MINID and explicit ids in XADD


class Status(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was checked.

    Attributes:
        check: What was checked: ``kafka``, ``topics``, ``redis`` …
        mend: The remedy; empty if it is ok.
    """

    check: str
    status: Status
    found: str
    mend: str = ""


def examine(settings: Settings) -> Iterator[Finding]:
    """Check everything, except what an earlier finding makes impossible."""
    yield from _guarded("kafka", settings, lambda: _kafka(settings))
    yield from _guarded("redis", settings, lambda: _redis(settings))
    yield from _guarded("model", settings, lambda: _model(settings))
    if settings.role != "align":  # role align uses no device
        yield from _guarded("device", settings, lambda: _device(settings))
    yield _port(settings)
    yield _disk()


def _ok(check: str, found: str) -> Finding:
    return Finding(check, Status.OK, found)


def _warn(check: str, found: str, mend: str) -> Finding:
    return Finding(check, Status.WARN, found, mend)


def _fail(check: str, found: str, mend: str) -> Finding:
    return Finding(check, Status.FAIL, found, mend)


def _guarded(check: str, settings: Settings, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Run a check; an error it raises becomes its last finding, split at ``;`` into problem and remedy."""
    try:
        try:
            yield from look()
        except KafkaError as error:
            raise kafka_clients.refusal(settings, error) from None
    except StreamerError as error:
        found, _, mend = str(error).partition("; ")
        yield _fail(check, found, mend)


# Kafka


def _kafka(settings: Settings) -> Iterator[Finding]:
    with kafka_clients.admin(settings, kafka_clients.TIMEOUT_MS) as client:
        yield _connection(settings)
        found = list(_guarded("topics", settings, lambda: _topics(client, settings)))
        yield from found
        if any(finding.status is Status.FAIL for finding in found):
            return  # rights and records cannot be checked without the topics
        yield from _guarded("rights", settings, lambda: _rights(client, settings))
        yield from _guarded("group", settings, lambda: _group(client, settings))
        yield from _guarded("clock", settings, lambda: _kafka_clock(client, settings))


def _connection(settings: Settings) -> Finding:
    who = f" as {settings.kafka_user}" if settings.kafka_user else ""
    found = f"Kafka answers at {settings.kafka} over {settings.kafka_security_protocol}{who}"
    hosts = {address.rpartition(":")[0] for address in settings.brokers}
    if not settings.kafka_tls and not hosts <= {"localhost", "127.0.0.1", "[::1]"}:
        return _warn("kafka", f"{found}, unencrypted", "set STREAMER_KAFKA_SECURITY_PROTOCOL to SASL_SSL or SSL")
    return _ok("kafka", found)


def _topics(client: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    found = topics.described(client, settings)
    sources = [found[name] for name in settings.source_topics]
    yield _ok(
        "topics",
        f"{len(found)} topics, {sources[0].partitions} partitions each of the sources, by "
        f"{sources[0].timestamp_type}, {settings.max_message_bytes} bytes a record",
    )
    for topic in found.values():
        if 0 <= topic.retention_ms < SHORTEST_RETENTION_S * 1000:
            yield _warn(
                "topics",
                f"{topic.name} keeps its records for {topic.retention_ms / 1000:.0f} s: a worker that is down for "
                "longer loses them",
                f"raise {topics.RETENTION_MS} with kafka-configs --alter --entity-type topics",
            )


def _rights(client: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    missing = topics.missing_rights(client, settings)
    for right in missing:
        yield _fail("rights", f"user {settings.kafka_user!r} may not {right}", "SECURITY.md lists the ACLs needed")
    if not missing:
        yield _ok("rights", "a worker may read its topics, commit, and set records aside")


def _group(client: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    group = kafka_clients.patiently(client.describe_groups, [settings.consumer_group])[settings.consumer_group]
    workers = len(group["members"])
    behind = sum(_lag(client, settings).values())
    found = f"group {settings.consumer_group}: {workers} workers, {behind} records behind"
    if behind and not workers:
        yield _warn("group", found, "start a worker: `streamer worker`")
    else:
        yield _ok("group", found)


def _lag(client: KafkaAdminClient, settings: Settings) -> dict[TopicPartition, int]:
    """Records that the group has not committed, for each partition that a worker of this role reads."""
    committed = kafka_clients.patiently(client.list_group_offsets, settings.consumer_group)[settings.consumer_group]
    places = _partitions(client, settings.worker_topics)
    ends = client.list_partition_offsets(dict.fromkeys(places, OffsetSpec.LATEST))
    begins = client.list_partition_offsets(dict.fromkeys(places, OffsetSpec.EARLIEST))
    lag = {}
    for place in places:
        done = committed[place].offset if place in committed else -1
        lag[place] = ends[place].offset - max(done, begins[place].offset)
    return lag


def _partitions(client: KafkaAdminClient, topics_: Sequence[str]) -> list[TopicPartition]:
    described = client.describe_topics(list(topics_))
    return [TopicPartition(topic["name"], number) for topic in described for number in range(len(topic["partitions"]))]


def _kafka_clock(client: KafkaAdminClient, settings: Settings) -> Iterator[Finding]:
    """Kafka has no request for its time; the log time of its newest record shows only whether its clock is ahead."""
    places = _partitions(client, settings.source_topics)
    newest = client.list_partition_offsets(dict.fromkeys(places, OffsetSpec.MAX_TIMESTAMP))
    times_s = [place.timestamp / 1000 for place in newest.values() if place.timestamp > 0]
    if not times_s:
        yield _ok("clock", "Kafka holds no record yet, so its clock cannot be checked")
        return
    ahead_s = max(times_s) - time()
    if ahead_s > MOST_SKEW_S:
        yield _warn("clock", f"Kafka's clock is {ahead_s:.1f} s ahead of this machine's", "run NTP on both")
    else:
        yield _ok("clock", "Kafka's clock is not ahead of this machine's")


# Redis


def _redis(settings: Settings) -> Iterator[Finding]:
    client = redis_clients.client(settings, socket_timeout=redis_clients.TIMEOUT_S)
    try:
        client.ping()
        yield _ok("redis", f"Redis answers at {settings.redis_shown}")
        yield from _redis_promises(client)
        seconds, micros = client.time()
        skew_s = seconds + micros / 1e6 - time()
        if abs(skew_s) > MOST_SKEW_S:
            yield _warn("clock", f"Redis' clock differs by {skew_s:+.1f} s from this machine's", "run NTP on both")
        else:
            yield _ok("clock", "Redis' clock agrees with this machine's")
    except redis.exceptions.NoPermissionError as error:
        yield _warn(
            "redis", f"this user may not check more: {error}", "run the doctor as a user with +info +config|get +time"
        )
    except redis.RedisError as error:
        raise redis_clients.refusal(settings, error) from None
    finally:
        client.close()


def _redis_promises(client: redis.Redis) -> Iterator[Finding]:
    """Whether what Redis acknowledges survives a crash and memory pressure."""
    info = client.info()
    version = info["redis_version"]
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        yield _fail("redis", f"version {version}", f"{'.'.join(map(str, OLDEST_REDIS))} or newer is needed")
    else:
        yield _ok("redis", f"version {version}")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield _warn(
            "redis",
            f"maxmemory-policy {policy} evicts results, and the state that alignment needs after a restart",
            "set it to noeviction",
        )
    else:
        yield _ok("redis", "evicts nothing (maxmemory-policy noeviction)")
    if not info.get("aof_enabled"):
        yield _warn("redis", "loses everything when it crashes (appendonly no)", "set appendonly to yes")
        return
    fsync = client.config_get("appendfsync").get("appendfsync")
    if fsync != "always":
        yield _warn(
            "redis",
            f"appendfsync {fsync}: a crash of its machine loses the last acknowledged writes",
            "set it to always, or use replicas and STREAMER_PUBLISH_WAIT_REPLICAS",
        )
    else:
        yield _ok("redis", "keeps what it acknowledged (appendfsync always)")


# this machine


def _model(settings: Settings) -> Iterator[Finding]:
    if settings.role == "align":  # it reads only this file, without PyTorch
        spec = read_spec(settings.model)
        found = f"{settings.model / SPEC_FILE} is right: {spec.name} {spec.version}"
    else:
        from streamer.model import repository

        model = repository.read(settings.model)
        spec = model.spec
        found = f"{settings.model} loads: {spec.name} {model.version}"
    if spec.window_ms != settings.window_ms:
        yield _warn(
            "model",
            f"{found}, trained on windows of {spec.window_ms} ms, not {settings.window_ms}",
            f"set STREAMER_WINDOW_MS={spec.window_ms}, or train it again",
        )
    else:
        yield _ok("model", found)


def _device(settings: Settings) -> Iterator[Finding]:
    from streamer.model.predictor import pick_device

    yield _ok("device", f"{settings.device} is {pick_device(settings.device)}")


def _port(settings: Settings) -> Finding:
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return _warn(
            "port",
            f"{host}:{port} cannot be used ({error.strerror}): perhaps a worker runs here",
            "give a second one another STREAMER_PORT, or 0 for any free one",
        )
    return _ok("port", f"{host}:{port} is free for /metrics")


def _disk() -> Finding:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK) or free < LEAST_FREE_BYTES:
        return _fail("disk", f"{folder} has {free >> 20} MiB free, or cannot be written", "make room, or set TMPDIR")
    return _ok("disk", f"{folder} has {free >> 20} MiB free")
