"""Everything around the workers fails, and so do they; what a run leaves behind must be as if nothing had happened.

Each scenario ends with the verifier, which works out from the logs what must be in Redis. Short forms by default, the
whole with ``STREAMER_TEST_FAULTS=full`` (``make faults``).
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import pytest
import redis
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient
from kafka.errors import MessageSizeTooLargeError

from streamer.events import AUDIO, IMAGE, TELEMETRY, TOPIC_DEADLETTER
from streamer.local.stack import Stack
from streamer.settings import Settings
from streamer.store.results import Keys
from tests import harness
from tests.faults import fuzz, rig, verifier
from tests.faults.feed import Car, feeding, new_producer, send
from tests.faults.rig import FULL, MAX_MESSAGE_BYTES, MIB, Supervised, supervised
from tests.faults.verifier import BROKEN, FUZZ, Published, Rules, Snapshot
from tests.harness import S_US, Outgoing, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.faults]

Say = Callable[[object], None]
NewSettings = Callable[..., Settings]
Clock = Callable[[int, int], int]


def fleet(seed: int, count: int = 5) -> list[Car]:
    """Cars of which the second loses its telemetry, the third a microphone, the fourth its rear camera."""
    dying = {1: ("telemetry", 8.0), 2: ("audio", 12.0), 3: ("camera_rear", 10.0), 4: ("image", 20.0)}
    return [Car(f"car-{seed}-{k}", seed * 100 + k, dies=dying.get(k)) for k in range(count)]


def verified(
    settings: Settings, snapshots: list[Snapshot], workers: list[Supervised], within_s: float = 120.0
) -> verifier.Summary:
    """Wait for the end of a run and verify it."""
    rig.wait_until_committed(settings, within_s, lambda: "\n".join(worker.why() for worker in workers))
    try:
        return verifier.verify(verifier.read(settings), Rules.of(settings), snapshots)
    except AssertionError as error:
        for worker in workers:
            worker.note_violations()
        violations = sum(worker.violations for worker in workers)
        raise AssertionError(f"{error}\n  merge order violations counted: {violations:.0f}") from None


def wait_for_an_early_result(settings: Settings, within_s: float = 30.0) -> None:
    """Of a window that waits for a sensor; its final result is yet to come."""
    with redis.Redis.from_url(settings.redis) as client, client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(Keys(settings.key_prefix).channel)
        wait_for(lambda: b'"final":false' in (channel.get_message(timeout=1.0) or {}).get("data", b""), within_s)


def test_kills_of_the_worker_at_random_moments(new_settings: NewSettings, tmp_path: Path, full: bool, say: Say) -> None:
    kills, rng = (20 if full else 3), random.Random(20)
    settings = new_settings(instance_id="worker-0")
    snapshots: list[Snapshot] = []
    with (
        verifier.early_results(settings) as early,
        feeding(settings, fleet(1)) as feed,
        supervised(settings, tmp_path / "worker.log") as worker,
    ):
        for number in range(kills):
            if number % 4 == 2:  # in the middle of starting
                time.sleep(rng.uniform(0.5, 4.0))
            else:
                worker.wait_ready()
                rig.wait_for_more(settings, 1, why=worker.why)
                if number % 2:  # what an early run has shown must not change the final result
                    wait_for_an_early_result(settings)
                else:
                    time.sleep(rng.uniform(0.0, 2.5))
            worker.note_violations()
            worker.kill()
            snapshots.append(verifier.snapshot(settings))
        feed.finish()
        summary = verified(settings, snapshots, [worker])
        assert worker.exits == []
    verifier.verify_early(settings, early)
    say(f"{kills} kills: {summary}; {len(early)} early results as the log makes them")


def test_workers_that_join_leave_and_are_killed(
    new_settings: NewSettings, tmp_path: Path, full: bool, say: Say
) -> None:
    """Members of one group: a kill -9 and a graceful leave of one while others work, and joining again."""
    settings = new_settings(partitions=6)
    snapshots: list[Snapshot] = []
    with feeding(settings, fleet(2, 8)) as feed, supervised(settings, tmp_path / "first.log") as first:
        first.wait_ready()
        rig.wait_for_more(settings, 3, why=first.why)
        for number in range(3 if full else 1):
            with supervised(settings, tmp_path / f"second-{number}.log") as second:
                with supervised(settings, tmp_path / f"third-{number}.log") if full else nullcontext() as third:
                    for worker in filter(None, (second, third)):
                        worker.wait_ready()
                    rig.wait_for_more(settings, 10, why=second.why)
                    second.note_violations()
                    second.kill()
                    snapshots.append(verifier.snapshot(settings))
                    second.wait_ready()
                    rig.wait_for_more(settings, 10, why=second.why)
                snapshots.append(verifier.snapshot(settings))
            rig.wait_for_more(settings, 10, why=first.why)
            snapshots.append(verifier.snapshot(settings))
        feed.finish()
        summary = verified(settings, snapshots, [first])
        assert first.exits == []
    say(f"{3 if full else 2} workers, {3 if full else 1} kills, joins and leaves: {summary}")


def test_the_broker_goes_away_and_comes_back(
    new_settings: NewSettings, healthy: Stack, tmp_path: Path, full: bool, say: Say
) -> None:
    settings = new_settings()
    with feeding(settings, fleet(3)) as feed, supervised(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        for end in (healthy.kafka.stop, healthy.kafka.kill) if full else (healthy.kafka.stop,):
            rig.wait_for_more(settings, 10, why=worker.why)
            end()
            time.sleep(10)  # the length of the outage
            healthy.start_kafka()
            rig.wait_for_more(settings, 10, 90, worker.why)
        feed.finish()
        summary = verified(settings, [verifier.snapshot(settings)], [worker])
        exits = worker.exits
    say(f"broker away for 10 s, {2 if full else 1} times, worker exits {exits}, {feed.resent} sent again: {summary}")


def start_redis(stack: Stack) -> None:
    """With a promise that a kill -9 tests: nothing that it acknowledged may be lost."""
    stack.start_redis()
    client = redis.Redis.from_url(stack.redis_url)
    try:
        client.config_set("appendfsync", "always")
    finally:
        client.close()


def test_redis_goes_away_and_comes_back_with_its_data(
    new_settings: NewSettings, healthy: Stack, tmp_path: Path, full: bool, say: Say
) -> None:
    settings = new_settings()
    start_redis(healthy)
    with feeding(settings, fleet(4)) as feed, supervised(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        for end in (healthy.redis.stop, healthy.redis.kill) if full else (healthy.redis.kill,):
            rig.wait_for_more(settings, 5, why=worker.why)
            end()
            wait_for(lambda: worker.worker.get("/readyz")[0] == 503, 30, worker.why)
            time.sleep(5)  # the length of the outage
            assert worker.worker.get("/healthz")[0] == 200
            start_redis(healthy)
            rig.wait_for_more(settings, 5, why=worker.why)
            wait_for(worker.ready, 30, worker.why)
        feed.finish()
        summary = verified(settings, [verifier.snapshot(settings)], [worker])
        assert worker.exits == []
    say(f"Redis away for 5 s, {2 if full else 1} times: {summary}")


def results_by_end(results: dict[str, list[Published]]) -> dict[tuple[str, int], Published]:
    return {(session, result.end_us): result for session, found in results.items() for result in found}


def lose_data(stack: Stack, kept: Path) -> None:
    """Redis comes back empty; what it had acknowledged lies under ``kept``."""
    stack.redis.kill()
    kept.mkdir()
    shutil.move(stack.directory / "redis-data", kept / "redis-data")
    start_redis(stack)


def lost_results(settings: Settings, kept: Path) -> dict[str, list[Published]]:
    """The results that an earlier Redis had."""
    old = Stack(kept, 0)
    try:
        old.start_redis()
        return verifier.read_results(settings, old.redis_url)
    finally:
        old.stop()


@pytest.mark.skipif(not FULL, reason="at length only")
def test_redis_comes_back_without_its_data_while_the_worker_lives(
    new_settings: NewSettings, healthy: Stack, tmp_path: Path, say: Say
) -> None:
    """Results from before the loss are gone; every one after it is as if nothing had happened."""
    settings = new_settings()
    start_redis(healthy)
    with feeding(settings, fleet(5)) as feed, supervised(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        rig.wait_for_more(settings, 20, why=worker.why)
        lose_data(healthy, tmp_path / "lost")
        rig.wait_for_more(settings, 30, why=worker.why)
        feed.finish()
        rig.wait_until_committed(settings, why=worker.why)
        found = verifier.read(settings)
        before = results_by_end(lost_results(settings, tmp_path / "lost"))
        twice = before.keys() & results_by_end(found.results).keys()  # acknowledged, but the answer was lost
        for key in twice:
            assert before[key].members == results_by_end(found.results)[key].members
        for (session, _), result in before.items():
            if (session, result.end_us) not in twice:
                found.results.setdefault(session, []).append(result)
        for results in found.results.values():
            results.sort(key=lambda result: result.end_us)
        summary = verifier.verify(found, Rules.of(settings))
        assert worker.exits == []
    say(f"{len(before)} results lost with Redis, {len(twice)} of them published again: {summary}")


@pytest.mark.skipif(not FULL, reason="at length only")
def test_redis_and_the_worker_lose_everything_at_once(
    new_settings: NewSettings, healthy: Stack, tmp_path: Path, say: Say
) -> None:
    """A window of which records lie before the committed cut comes back partial, with what lies after it."""
    settings = new_settings(instance_id="worker-0")
    start_redis(healthy)
    # Nothing late and nothing silent: then a window's members do not depend on the lost state.
    with (
        feeding(settings, [Car(f"calm-{k}", 600 + k, jitter_ms=20, drop=0, late=0) for k in range(5)]) as feed,
        supervised(settings, tmp_path / "worker.log") as worker,
    ):
        worker.wait_ready()
        # Well past the start, where everything is new: committed, and so with windows that the cut goes through.
        wait_for(lambda: sum(verifier.committed(settings).values()) > 300, 60, worker.why)
        worker.kill()
        cut = verifier.committed(settings)
        lose_data(healthy, tmp_path / "lost")
        worker.wait_ready()
        rig.wait_for_more(settings, 30, why=worker.why)
        feed.finish()
        rig.wait_until_committed(settings, why=worker.why)
        found = verifier.read(settings)
        assert worker.exits == []
    before = results_by_end(lost_results(settings, tmp_path / "lost"))
    after = results_by_end(found.results)
    wanted = verifier.expected(found, Rules.of(settings))
    assert before.keys() | after.keys() == wanted.keys()
    partial = 0
    for key, window in wanted.items():
        if key not in after:
            assert before[key].members == window.members
            continue
        result = after[key]
        left = frozenset(m for m in window.members if m[1] >= cut.get((m[0], window.partition), 0))
        assert result.members == left, f"{key}: not what lies after the cut"
        if left != window.members:
            partial += 1
            assert result.status == "partial", f"{key} lacks members, but its status is {result.status}"
    assert partial > 0
    say(f"{len(before)} results lost, {len(after)} after it, {partial} of them incomplete: 0 lost, 0 different")


@pytest.mark.skipif(not FULL, reason="at length only")
def test_broker_redis_and_worker_stand_still_for_a_while(
    new_settings: NewSettings, healthy: Stack, tmp_path: Path, say: Say
) -> None:
    """SIGSTOP keeps every connection open: nothing answers, and nothing says so. 9 s are past the session timeout."""
    settings = new_settings()
    start_redis(healthy)
    snapshots: list[Snapshot] = []
    with (
        feeding(settings, fleet(7)) as feed,
        supervised(settings, tmp_path / "first.log") as first,
        supervised(settings, tmp_path / "second.log") as second,
    ):
        first.wait_ready()
        second.wait_ready()
        for pause, resume in (
            (healthy.kafka.pause, healthy.kafka.resume),
            (healthy.redis.pause, healthy.redis.resume),
            (first.pause, first.resume),
            (second.pause, second.resume),
        ):
            rig.wait_for_more(settings, 10, 90, lambda: first.why() + second.why())
            pause()
            time.sleep(9)
            resume()
            rig.wait_for_more(settings, 10, 90, lambda: first.why() + second.why())
            snapshots.append(verifier.snapshot(settings))
        feed.finish()
        summary = verified(settings, snapshots, [first, second])
        exits = first.exits + second.exits
    say(f"broker, Redis and both workers stopped for 9 s each, worker restarts {exits}: {summary}")


def alter(settings: Settings, topic: str, **configs: object) -> None:
    admin = KafkaAdminClient(bootstrap_servers=settings.kafka)
    try:
        values = {name.replace("_", "."): str(value) for name, value in configs.items()}
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, values)])
    finally:
        admin.close()


@pytest.mark.skipif(not FULL, reason="at length only")
@pytest.mark.parametrize(
    ("refusing", "mended"),
    [
        ({"max_message_bytes": 100}, {"max_message_bytes": 2 * MAX_MESSAGE_BYTES}),
        ({"cleanup_policy": "compact"}, {"cleanup_policy": "delete"}),  # takes no record without a key
    ],
    ids=["too-large", "without-key"],
)
def test_a_dead_letter_topic_that_refuses_writes_holds_the_commit(
    new_settings: NewSettings, tmp_path: Path, say: Say, refusing: dict[str, object], mended: dict[str, object]
) -> None:
    settings = new_settings(instance_id="worker-0")
    topic = settings.topic(TOPIC_DEADLETTER)
    rng, victims = random.Random(8), ["car-8-0"]
    snapshots: list[Snapshot] = []
    with (
        feeding(settings, fleet(8)) as feed,
        supervised(settings, tmp_path / "worker.log") as worker,
        closing(new_producer(settings)) as producer,
    ):

        def send_broken() -> bool:
            """Half of them without a key; returns whether the worker cannot get rid of them."""
            for number in range(20):
                record = fuzz.broken(settings, rng, victims, time.time_ns() // 1000)
                send(producer, record if number % 2 else record._replace(key=None))
            producer.flush()
            return "Kafka does not take a record" in worker.worker.get("/readyz")[1]

        worker.wait_ready()
        send_broken()
        rig.wait_for_more(settings, 10, why=worker.why)
        alter(settings, topic, **refusing)
        wait_for(send_broken, 60, worker.why)
        rig.wait_for_more(settings, 20, why=worker.why)  # the rest goes on
        assert not worker.ready()
        used = psutil.Process(worker.pid).cpu_percent(3.0)
        worker.kill()
        snapshots.append(verifier.snapshot(settings))
        alter(settings, topic, **mended)
        worker.wait_ready()
        rig.wait_for_more(settings, 10, why=worker.why)
        alter(settings, topic, **refusing)
        wait_for(send_broken, 60, worker.why)
        snapshots.append(verifier.snapshot(settings))
        alter(settings, topic, **mended)
        wait_for(worker.ready, 60, worker.why)  # the same process goes on by itself
        feed.finish()
        summary = verified(settings, snapshots, [worker])
    assert summary.dead >= 60
    say(f"refused with {refusing}, CPU meanwhile {used:.0f} %: {summary}")


def is_taken(producer: KafkaProducer, record: Outgoing) -> bool:
    try:
        producer.send(record.topic, record.value, record.key, record.headers).get(timeout=30)
    except MessageSizeTooLargeError:
        return False
    return True


@pytest.mark.skipif(not FULL, reason="at length only")
def test_a_record_larger_than_any_letter_is_dead_lettered_without_its_payload(
    new_settings: NewSettings, tmp_path: Path, say: Say
) -> None:
    """A source topic may take larger records than the worker does; its own client then refuses the letter."""
    settings = new_settings()
    alter(settings, settings.source_topics[IMAGE], max_message_bytes=8 * MAX_MESSAGE_BYTES)
    with feeding(settings, fleet(9, 3)) as feed, supervised(settings, tmp_path / "worker.log") as worker:
        producer = new_producer(settings, max_request_size=8 * MAX_MESSAGE_BYTES)
        try:
            for times in (1.01, 1.2, 2, 5):
                now_us = time.time_ns() // 1000
                huge = harness.record(settings, IMAGE, "car-9-0", now_us, bytes(int(times * MIB)), "image/jpeg")
                huge = huge._replace(headers=[*huge.headers, (FUZZ, BROKEN)])
                wait_for(partial(is_taken, producer, huge), 30)  # once the broker knows of its new limit
        finally:
            producer.close()
        worker.wait_ready()
        rig.wait_for_more(settings, 10, why=worker.why)
        feed.finish()
        summary = verified(settings, [], [worker])
    assert summary.dead == 4
    say(f"records of 1 to 5 MiB where 1 MiB is the limit: {summary}")


def allowance(settings: Settings) -> int:
    """Bytes that the settings allow: buffers, open and closed windows, and one fetch of each partition."""
    partitions = 4 * settings.partitions
    fetch = settings.max_message_bytes + (64 << 10)
    return partitions * (settings.fifo_bytes + fetch) + settings.max_open_bytes + settings.max_inflight_bytes


SMALL = {"fifo_bytes": 2 * MIB, "max_open_bytes": 8 * MIB, "max_inflight_bytes": 8 * MIB, "partitions": 2}
ALLOCATOR = 1.25  # what malloc and Python's arenas keep of what was freed in between


def warm_up(settings: Settings, worker: Supervised) -> int:
    """What a worker needs without load: the model, its first batches, its clients."""
    worker.wait_ready()
    with feeding(settings, [Car(f"warm-{k}", 900 + k, late=0) for k in range(4)]) as feed:
        rig.wait_for_more(settings, 30, why=worker.why)
        feed.finish()
    rig.wait_until_committed(settings, why=worker.why)
    return worker.peak_bytes


@pytest.mark.skipif(not FULL, reason="at length only")
def test_memory_stays_within_its_limits_while_a_sensor_lags_a_minute(
    new_settings: NewSettings, tmp_path: Path, say: Say
) -> None:
    patient = {"max_delay_ms": 90_000, "idle_after_ms": None}
    quick = {"max_delay_ms": 700, "idle_after_ms": 2500}
    settings = new_settings(
        **SMALL, session_gap_ms=70_000, sensors={"image": quick, "audio": patient, "text": quick, "telemetry": quick}
    )
    with supervised(settings, tmp_path / "worker.log") as worker:
        baseline = warm_up(settings, worker)
        cars = [Car(f"lags-{k}", 950 + k, lags=("audio", 60_000), frame_hz=10, frame_bytes=100_000) for k in range(2)]
        with feeding(settings, cars) as feed:
            time.sleep(75)  # a minute until the lagging sensor begins, and some more with it
            feed.finish()
        summary = verified(settings, [verifier.snapshot(settings)], [worker], 180)
        grown, limit = worker.peak_bytes - baseline, allowance(settings)
    assert summary.windows["memory"] > 0
    assert grown <= limit * ALLOCATOR, f"{grown / MIB:.0f} MiB above the baseline, {limit / MIB:.0f} MiB are allowed"
    say(f"peak {grown / MIB:.0f} MiB above {baseline / MIB:.0f} MiB, {limit / MIB:.0f} MiB are allowed: {summary}")


@pytest.mark.skipif(not FULL, reason="at length only")
def test_memory_stays_within_its_limits_when_a_topic_is_preloaded_a_hundred_times_faster(
    new_settings: NewSettings, tmp_path: Path, say: Say
) -> None:
    settings = new_settings(**SMALL, instance_id="worker-0")
    total = 300 * MIB
    with supervised(settings, tmp_path / "worker.log") as worker:
        baseline = warm_up(settings, worker)
        worker.pause()  # as if it were away while the topic fills
        sent = preload(settings, [f"pile-{k}" for k in range(4)], total)
        worker.resume()
        summary = verified(settings, [], [worker], 300)
        grown, limit = worker.peak_bytes - baseline, allowance(settings)
    assert grown <= limit * ALLOCATOR, f"{grown / MIB:.0f} MiB above the baseline, {limit / MIB:.0f} MiB are allowed"
    say(
        f"{sent} frames of {total / MIB:.0f} MiB at once: peak {grown / MIB:.0f} MiB above {baseline / MIB:.0f} MiB, "
        f"{limit / MIB:.0f} MiB are allowed: {summary}"
    )


def preload(settings: Settings, sessions: list[str], total_bytes: int) -> int:
    """Frames as fast as the broker takes them, a hundred for each record of telemetry; then the sessions' ends."""
    rng, frame = random.Random(1), harness.jpeg(1)
    count, now_us = total_bytes // 100_000, time.time_ns() // 1000
    block = b'{"channels": {"speed": {"values": [1, 2]}}, "rate_hz": 20}'
    producer = new_producer(settings)
    try:
        futures = []
        for number in range(count):
            session, at_us = sessions[number % len(sessions)], now_us - (count - number) * 10_000
            picture = frame + rng.randbytes(100_000 - len(frame))
            futures.append(send(producer, harness.record(settings, IMAGE, session, at_us, picture, "image/jpeg")))
            if number % 100 < len(sessions):
                futures.append(
                    send(producer, harness.record(settings, TELEMETRY, session, at_us, block, "application/json"))
                )
        producer.flush()
        futures += [send(producer, harness.end(settings, session, now_us)) for session in sessions]
        for future in futures:
            future.get(timeout=60)
    finally:
        producer.close()
    return count


YEAR_US = 365 * 86_400 * S_US


def clocks() -> list[Car]:
    """Device clocks that are wrong, of all modalities or of one, from the start or from some moment on."""

    def offset(by_us: int, rows: tuple[int, ...] = (0, 1, 2, 3), since_s: float = 0.0, until_s: float = 1e9) -> Clock:
        def clock_us(row: int, elapsed_us: int) -> int:
            return by_us if row in rows and since_s <= elapsed_us / S_US < until_s else 0

        return clock_us

    wrong = {
        "year-behind": offset(-YEAR_US),
        "year-ahead": offset(YEAR_US),
        "image-year-behind": offset(-YEAR_US, (IMAGE,)),
        "audio-year-ahead": offset(YEAR_US, (AUDIO,)),
        "step-forward": offset(3 * S_US, since_s=6),
        "step-back": offset(-5 * S_US, since_s=8, until_s=16),
        "telemetry-step-forward": offset(4 * S_US, (TELEMETRY,), since_s=6, until_s=14),
        "audio-step-back": offset(-4 * S_US, (AUDIO,), since_s=6, until_s=14),
        "year-back-for-a-while": offset(-YEAR_US, since_s=8, until_s=11),
        "image-year-ahead-for-a-while": offset(YEAR_US, (IMAGE,), since_s=8, until_s=12),
        "behind-until-midway": offset(-YEAR_US, until_s=9),
    }
    return [Car(name, 1000 + k, clock_us=clock) for k, (name, clock) in enumerate(wrong.items())]


@pytest.mark.skipif(not FULL, reason="at length only")
def test_device_clocks_a_year_off_and_stepping(new_settings: NewSettings, tmp_path: Path, say: Say) -> None:
    settings = new_settings(instance_id="worker-0")
    snapshots: list[Snapshot] = []
    with feeding(settings, clocks()) as feed, supervised(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        for until_s in (12, 18, 26):
            time.sleep(max(0.0, feed.start_us / S_US + until_s - time.time()))
            worker.note_violations()
            worker.kill()
            snapshots.append(verifier.snapshot(settings))
        feed.finish()
        summary = verified(settings, snapshots, [worker])
    assert summary.dead > 0
    assert summary.late > 0
    say(f"{len(clocks())} wrong clocks, 3 kills: {summary}")


def test_fuzzed_records_are_all_accounted_for_and_good_ones_suffer_nothing(
    new_settings: NewSettings, tmp_path: Path, full: bool, say: Say
) -> None:
    count, rng = (100_000 if full else 5_000), random.Random(11)
    settings = new_settings()
    cars = fleet(11, 3)
    with feeding(settings, cars) as feed, supervised(settings, tmp_path / "worker.log") as worker:
        worker.wait_ready()
        producer = new_producer(settings)
        try:
            futures = []
            for _ in range(count):
                record = fuzz.fuzzed(settings, rng, [car.name for car in cars], time.time_ns() // 1000 - 200_000)
                wrong = rng.randrange(settings.partitions) if rng.random() < 0.01 else None
                futures.append(send(producer, record, wrong))
            for future in futures:
                future.get(timeout=120)
        finally:
            producer.close()
        rig.wait_for_more(settings, 10, 120, worker.why)
        feed.finish()
        summary = verified(settings, [], [worker], 300)
        assert worker.exits == []
        assert worker.worker.get("/healthz")[0] == 200
        peak = worker.peak_bytes
    assert summary.dead > count // 2
    assert summary.exact >= len(cars)
    say(f"{count:,} fuzzed records, peak {peak / MIB:.0f} MiB: {summary}")


Signature = tuple[frozenset[tuple[int, int]], frozenset[str], str]


def signatures(results: dict[str, list[Published]]) -> dict[tuple[str, int], Signature]:
    return {key: (r.members, r.present, r.closed_by) for key, r in results_by_end(results).items()}


def scores(result: Published) -> dict[str, float]:
    return {f"{head}/{label}": s for head, out in result.outputs.items() for label, s in out["scores"].items()}


def test_a_log_says_the_same_live_replayed_and_with_kills(
    new_settings: NewSettings, tmp_path: Path, full: bool, say: Say
) -> None:
    """Scores are equal to their last of four digits (other batches, other sums), embeddings to float16's precision."""
    settings = new_settings()
    with feeding(settings, fleet(12)) as feed, supervised(settings, tmp_path / "live.log") as worker:
        worker.wait_ready()
        rig.wait_for_more(settings, 150 if full else 40, 120, worker.why)
        feed.finish()
        summary = verified(settings, [], [worker])
    live = verifier.read_results(settings)

    def again(name: str, kills: int) -> dict[str, list[Published]]:
        other = settings.model_copy(
            update={"group": f"{settings.group}-{name}", "key_prefix": f"{name}-{settings.group}"}
        )
        rng = random.Random(len(live))
        with supervised(other, tmp_path / f"{name}.log", instance_id=f"{name}-0") as worker:
            for _ in range(kills):
                rig.wait_for_more(other, 5, 120, worker.why)
                time.sleep(rng.uniform(0, 0.2))
                worker.kill()
            rig.wait_until_committed(other, why=worker.why)
        return verifier.read_results(other)

    worst_score = worst_embedding = 0.0
    for found in (again("replayed", 0), again("killed", 5)) if full else (again("killed", 1),):
        assert signatures(found) == signatures(live)
        for key, result in results_by_end(found).items():
            first = results_by_end(live)[key]
            mine, theirs = scores(result), scores(first)
            assert mine.keys() == theirs.keys()
            worst_score = max([worst_score, *(abs(mine[name] - theirs[name]) for name in mine)])
            difference = np.frombuffer(result.embedding, "<f2").astype(float) - np.frombuffer(first.embedding, "<f2")
            worst_embedding = max(worst_embedding, float(abs(difference).max()))
    # Scores are published with four digits: 1e-5 apart may round to neighbours, 1e-4 apart.
    assert worst_score <= 1.0001e-4
    assert worst_embedding <= 2**-10  # half-precision steps are at most 2^-11 below 1
    apart = f"scores {worst_score:.1e} apart, embeddings {worst_embedding:.1e}"
    say(f"live = {'replayed = ' if full else ''}killed, {apart}: {summary}")
