"""Workers with roles are killed, and Redis goes away under them: the results are those of a run without faults."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import redis

from streamer.local.stack import Stack
from streamer.settings import Settings
from tests.faults import handovers, rig, verifier
from tests.faults.feed import Car, feeding
from tests.faults.rig import Supervised, supervised
from tests.faults.test_faults import fleet, start_redis
from tests.faults.verifier import Rules, Snapshot
from tests.harness import wait_for

pytestmark = [pytest.mark.integration, pytest.mark.faults]

Say = Callable[[object], None]
NewSettings = Callable[..., Settings]


def verified(settings: Settings, snapshots: list[Snapshot], workers: list[Supervised]) -> str:
    """Wait until both roles are done and verify what came of it."""

    def why() -> str:
        return "\n".join(worker.why() for worker in workers)

    rig.wait_until_committed(settings, 180, why)
    handovers.wait_until_committed(settings, 120, why)
    again = handovers.repeated(handovers.read(settings))
    summary = verifier.verify(verifier.read(settings), Rules.of(settings), snapshots)
    return f"{summary}; {again} windows handed over again"


def kill(worker: Supervised, settings: Settings, snapshots: list[Snapshot], rng: random.Random) -> None:
    worker.wait_ready()
    rig.wait_for_more(settings, 1, why=worker.why)
    time.sleep(rng.uniform(0.0, 2.0))
    worker.note_violations()
    worker.kill()
    snapshots.append(handovers.snapshot(settings))


def hand_over_again(settings: Settings, stack: Stack, align: Supervised) -> None:
    """A kill between a window's acknowledgement and its record; no role infer yet, which would tell of it."""
    with closing(redis.Redis.from_url(settings.redis)) as client:
        client.client_pause(60_000, all=False)  # writes wait, none of them half done
    time.sleep(3)  # five cars give five windows a second
    align.kill()
    stack.redis.kill()
    start_redis(stack)
    align.wait_ready()


def misses_redis(worker: Supervised) -> bool:
    return "Redis does not answer" in worker.worker.get("/readyz")[1]


def test_kills_of_either_role_and_of_redis_while_data_flows(
    new_settings: NewSettings, healthy: Stack, tmp_path: Path, full: bool, say: Say
) -> None:
    rounds, rng = (8 if full else 1), random.Random(30)
    settings = new_settings()
    start_redis(healthy)
    snapshots: list[Snapshot] = []
    with (
        feeding(settings, fleet(30)) as feed,
        supervised(settings, tmp_path / "align.log", role="align", instance_id="align-0") as align,
    ):
        align.wait_ready()
        wait_for(lambda: len(handovers.read(settings)) > 5, 60, align.why)
        hand_over_again(settings, healthy, align)
        with supervised(settings, tmp_path / "infer.log", role="infer", instance_id="infer-0") as infer:
            for _ in range(rounds):
                for worker in (align, infer):
                    kill(worker, settings, snapshots, rng)
            align.wait_ready()
            infer.wait_ready()
            rig.wait_for_more(settings, 5, why=infer.why)
            healthy.redis.kill()
            for worker in (align, infer):
                wait_for(partial(misses_redis, worker), 30, worker.why)
            start_redis(healthy)
            rig.wait_for_more(settings, 5, why=infer.why)
            feed.finish()
            said = verified(settings, snapshots, [align, infer])
            assert handovers.repeated(handovers.read(settings)) > 0
            assert align.exits == infer.exits == []
    say(f"{2 * rounds + 1} kills, Redis away once: {said}")


@pytest.mark.skipif(not rig.FULL, reason="at length only")
def test_members_of_both_roles_join_leave_and_are_killed(new_settings: NewSettings, tmp_path: Path, say: Say) -> None:
    """Two workers a role: partitions move in both groups while windows are on their way."""
    settings = new_settings(partitions=6)
    snapshots: list[Snapshot] = []
    with (
        verifier.early_results(settings) as early,
        feeding(settings, fleet(31, 8)) as feed,
        supervised(settings, tmp_path / "align.log", role="align") as align,
        supervised(settings, tmp_path / "infer.log", role="infer") as infer,
    ):
        align.wait_ready()
        infer.wait_ready()
        for number in range(3):
            for role, first in (("align", align), ("infer", infer)):
                with supervised(settings, tmp_path / f"{role}-{number}.log", role=role) as second:
                    second.wait_ready()
                    rig.wait_for_more(settings, 10, 90, second.why)
                    second.kill()
                    snapshots.append(handovers.snapshot(settings))
                    second.wait_ready()
                    rig.wait_for_more(settings, 10, 90, second.why)
                rig.wait_for_more(settings, 10, 90, first.why)
                snapshots.append(handovers.snapshot(settings))
        feed.finish()
        said = verified(settings, snapshots, [align, infer])
        assert align.exits == infer.exits == []
    verifier.verify_early(settings, early)
    say(f"2 workers a role, 6 kills, joins and leaves: {said}; {len(early)} early results as the log makes them")


@pytest.mark.skipif(not rig.FULL, reason="at length only")
def test_the_broker_goes_away_under_both_roles(
    new_settings: NewSettings, healthy: Stack, tmp_path: Path, say: Say
) -> None:
    """A window whose sending is in doubt is sent again, and no newer one of its session before it."""
    settings = new_settings()
    cars = [Car(f"away-{k}", 3200 + k) for k in range(4)]
    with (
        feeding(settings, cars) as feed,
        supervised(settings, tmp_path / "align.log", role="align") as align,
        supervised(settings, tmp_path / "infer.log", role="infer") as infer,
    ):
        align.wait_ready()
        infer.wait_ready()
        for end in (healthy.kafka.stop, healthy.kafka.kill):
            rig.wait_for_more(settings, 10, why=infer.why)
            end()
            time.sleep(10)  # the length of the outage
            healthy.start_kafka()
            rig.wait_for_more(settings, 10, 120, infer.why)
        feed.finish()
        said = verified(settings, [handovers.snapshot(settings)], [align, infer])
        exits = align.exits + infer.exits
    say(f"broker away for 10 s, twice, worker exits {exits}: {said}")
