"""Everything around the workers fails, and so do they; what a run leaves behind must be as if nothing had happened.

Each scenario ends with the verifier, which works out from the logs what must be in Redis. Short forms by default, the
whole with ``STREAMER_TEST_FAULTS=full`` (``make faults``).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from streamer.events import AUDIO, IMAGE, TELEMETRY
from streamer.settings import Settings
from tests.faults import rig, verifier
from tests.faults.conftest import NewSettings
from tests.faults.feed import Car, Feed
from tests.faults.rig import Supervised, supervised
from tests.faults.verifier import Rules, Snapshot

pytestmark = [pytest.mark.integration, pytest.mark.faults]

Say = Callable[[object], None]


def fleet(seed: int, count: int = 5) -> list[Car]:
    """Cars of which the second loses its telemetry and the third its microphone on the way."""
    dying = {1: (TELEMETRY, 8.0), 2: (AUDIO, 12.0), 4: (IMAGE, 20.0)}
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


def test_kills_of_the_worker_at_random_moments(new_settings: NewSettings, tmp_path: Path, full: bool, say: Say) -> None:
    kills, rng = (20 if full else 4), random.Random(20)
    settings = new_settings(instance_id="worker-0")
    snapshots: list[Snapshot] = []
    feed = Feed(settings, fleet(1))
    feed.start()
    with supervised(settings, tmp_path / "worker.log") as worker:
        for number in range(kills):
            if number % 4 == 3:  # in the middle of starting
                time.sleep(rng.uniform(0.5, 4.0))
            else:
                worker.wait_ready()
                rig.wait_for_more(settings, 1, why=worker.why)
                time.sleep(rng.uniform(0.0, 2.5))
            worker.note_violations()
            worker.kill()
            snapshots.append(verifier.snapshot(settings))
        feed.finish()
        summary = verified(settings, snapshots, [worker])
        assert worker.exits == []
    say(f"{kills} kills: {summary}")
