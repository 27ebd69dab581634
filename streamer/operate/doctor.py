"""``streamer doctor``: checks everything that a worker needs. It changes nothing.

A finding is *ok*, *warn* (it works, with a disadvantage) or *FAIL* (a worker would not start, or its results would be
wrong); the last two come with a remedy.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Generator, Iterator, Mapping, Sequence
from time import time

import redis

from streamer.clients import codecs
from streamer.clients import redis as redis_clients
from streamer.events import Drift
from streamer.model.spec import SPEC_FILE, check_sensors, read_spec
from streamer.operate import kafka_checks, sensor_checks
from streamer.operate.findings import MOST_SKEW_S, Finding, Status, fail, guarded, ok, warn
from streamer.settings import Settings
from streamer.store import drifts
from streamer.store.results import Keys

MAX_DRIFTS = 8  # findings
MS_A_MINUTE = 0.06  # of 1 ppm
MOST_OF_A_CLOCK_PPM = 1000.0
LEAST_FREE_BYTES = 100 << 20
OLDEST_REDIS = (6, 2)  # for ZADD GT, XTRIM MINID and explicit ids in XADD


def examine(settings: Settings) -> Iterator[Finding]:
    """Check everything, except what an earlier finding makes impossible."""
    yield from guarded("codecs", settings, _codecs)
    kafka_works = yield from _works(guarded("kafka", settings, lambda: kafka_checks.examine(settings)))
    redis_works = yield from _works(guarded("redis", settings, lambda: _redis(settings)))
    if redis_works:
        yield from guarded("sensors", settings, lambda: sensor_checks.seen(settings))
    if kafka_works:
        yield from guarded("sensors", settings, lambda: sensor_checks.unknown(settings))
    yield from guarded("model", settings, lambda: _model(settings))
    if settings.role != "align":  # role align uses no device
        yield from guarded("device", settings, lambda: _device(settings))
    yield _port(settings)
    yield _disk()


def _works(findings: Iterator[Finding]) -> Generator[Finding, None, bool]:
    """The findings, and whether none is a failure."""
    works = True
    for finding in findings:
        yield finding
        works = works and finding.status is not Status.FAIL
    return works


def _codecs() -> Iterator[Finding]:
    codecs.check()
    yield ok("codecs", f"record batches can be read with {', '.join(codecs.NAMES.values())}")


def _redis(settings: Settings) -> Iterator[Finding]:
    client = redis_clients.client(settings, socket_timeout=redis_clients.TIMEOUT_S)
    try:
        client.ping()
        yield ok("redis", f"Redis answers at {settings.redis_shown}")
        yield from _redis_promises(client)
        seconds, micros = client.time()
        skew_s = seconds + micros / 1e6 - time()
        if abs(skew_s) > MOST_SKEW_S:
            yield warn("clock", f"Redis' clock differs by {skew_s:+.1f} s from this machine's", "run NTP on both")
        else:
            yield ok("clock", "Redis' clock agrees with this machine's")
        yield from clock_drifts(drifts.read(client, Keys(settings.key_prefix)))
    except redis.exceptions.NoPermissionError as error:
        yield warn(
            "redis",
            f"this user may not check more: {error}",
            "run the doctor as a user with +info +config|get +time +xrange",
        )
    except redis.RedisError as error:
        raise redis_clients.refusal(settings, error) from None
    finally:
        client.close()


def clock_drifts(found: Mapping[str, Sequence[Drift]]) -> Iterator[Finding]:
    """Clocks of sensors that drift, as workers report them: the most urgent ones, and how many more there are."""
    each = [(session, drift) for session, drifts in found.items() for drift in drifts]
    each.sort(key=lambda item: (item[1].left_s, item[0], item[1].sensor))
    for session, drift in each[:MAX_DRIFTS]:
        fate = f"in {_span(drift.left_s)} its windows lose members" if drift.left_s else "its windows lose members now"
        yield warn(
            "drift",
            f"{session}: the clock of {drift.sensor} is {'slow' if drift.ppm > 0 else 'fast'} by {abs(drift.ppm):,.0f} "
            f"ppm, {abs(drift.ppm) * MS_A_MINUTE:.3g} ms a minute, against the other sensors; {fate}",
            "set it by NTP or PTP (a constant rest: offset_ms)"
            if abs(drift.ppm) < MOST_OF_A_CLOCK_PPM
            else "no clock is that wrong: do its times count samples at a wrong rate, or does its queue grow?",
        )
    if (more := len(each) - MAX_DRIFTS) > 0:
        yield warn("drift", f"the clocks of {more} more sensors drift", "see the metric streamer_drifting_sessions")
    if not each:
        yield ok("drift", "workers report no sensor whose clock drifts")


def _span(seconds: float) -> str:
    """A length of time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _redis_promises(client: redis.Redis) -> Iterator[Finding]:
    """Whether what Redis acknowledges survives a crash and memory pressure."""
    info = client.info()
    version = info["redis_version"]
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST_REDIS:
        yield fail("redis", f"version {version}", f"{'.'.join(map(str, OLDEST_REDIS))} or newer is needed")
    else:
        yield ok("redis", f"version {version}")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield warn(
            "redis",
            f"maxmemory-policy {policy} evicts results, and the state that alignment needs after a restart",
            "set it to noeviction",
        )
    else:
        yield ok("redis", "evicts nothing (maxmemory-policy noeviction)")
    if not info.get("aof_enabled"):
        yield warn("redis", "loses everything when it crashes (appendonly no)", "set appendonly to yes")
        return
    fsync = client.config_get("appendfsync").get("appendfsync")
    if fsync != "always":
        yield warn(
            "redis",
            f"appendfsync {fsync}: a crash of its machine loses the last acknowledged writes",
            "set it to always, or use replicas and STREAMER_PUBLISH_WAIT_REPLICAS",
        )
    else:
        yield ok("redis", "keeps what it acknowledged (appendfsync always)")


# this machine


def _model(settings: Settings) -> Iterator[Finding]:
    spec = read_spec(settings.model)
    check_sensors(spec, settings.sensor_set)
    if settings.role == "align":  # it reads only this file, without PyTorch
        found = f"{settings.model / SPEC_FILE} is right: {spec.name} {spec.version}"
    elif spec.senses is not None:
        from streamer.model.predictor import Predictor

        found = f"{settings.model} loads: {spec.name} {Predictor.load(settings.model, settings=settings).version}"
    else:
        from streamer.model import repository

        found = f"{settings.model} loads: {spec.name} {repository.read(settings.model).version}"
    if spec.window_ms != settings.window_ms:
        yield warn(
            "model",
            f"{found}, trained on windows of {spec.window_ms} ms, not {settings.window_ms}",
            f"set STREAMER_WINDOW_MS={spec.window_ms}, or train it again",
        )
    else:
        yield ok("model", found)


def _device(settings: Settings) -> Iterator[Finding]:
    from streamer.model.predictor import pick_device

    yield ok("device", f"{settings.device} is {pick_device(settings.device)}")


def _port(settings: Settings) -> Finding:
    host, port = settings.host, settings.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return warn(
            "port",
            f"{host}:{port} cannot be used ({error.strerror}): perhaps a worker runs here",
            "give a second one another STREAMER_PORT, or 0 for any free one",
        )
    return ok("port", f"{host}:{port} is free for /metrics")


def _disk() -> Finding:
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if not os.access(folder, os.W_OK) or free < LEAST_FREE_BYTES:
        return fail("disk", f"{folder} has {free >> 20} MiB free, or cannot be written", "make room, or set TMPDIR")
    return ok("disk", f"{folder} has {free >> 20} MiB free")
