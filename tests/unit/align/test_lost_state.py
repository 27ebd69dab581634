"""What a partition group makes of what Redis keeps, or no longer keeps."""

import json
import logging

import pytest
from prometheus_client import CollectorRegistry

from streamer.align.decode import Decoder
from streamer.align.group import PartitionGroup
from streamer.align.windows import Rules
from streamer.events import TELEMETRY, Record, Saved, Stored, Window
from streamer.observe.metrics import Metrics
from streamer.settings import Settings
from tests.harness import rfc3339

S, MS = 1_000_000, 1_000
T0 = 1_700_000_000 * S  # a window border
SETTINGS = Settings(
    partitions=1, max_ahead_ms=500, sensors={n: {"max_delay_ms": 0} for n in ("image", "audio", "text")}
)


class Store:
    """Redis, as far as a group sees it."""

    def __init__(self, groups: dict[str, int] | None = None, **sessions: Stored) -> None:
        self.groups = groups or {}
        self.sessions = sessions

    async def load(self, session: str, group: str) -> Stored:
        stored = self.sessions.get(session, Stored(None))
        return Stored(stored.saved, stored.suspects, stored.lost_until_us, self.groups.get(group))

    async def open_group(self, group: str) -> int | None:
        return self.groups.get(group)

    async def note_group(self, group: str, lost_until_us: int) -> None:
        self.groups[group] = lost_until_us


class Life:
    """A group that is fed telemetry alone."""

    def __init__(self, store: Store, committed: bool) -> None:
        self.store = store
        self.offset = 100
        self.group = PartitionGroup(
            0,
            Decoder(SETTINGS, 1),
            Rules.from_settings(SETTINGS),
            1 << 20,
            Metrics(CollectorRegistry()),
            name="streamer:0",
            committed=committed,
            max_ahead_us=SETTINGS.max_ahead_ms * MS,
        )

    async def block(self, session: str, start_s: float, at_s: float | None = None) -> list[Window]:
        """One second of telemetry that is in the log when it is over; returns the windows that it closes."""
        start_us = T0 + round(start_s * S)
        log_time_us = start_us + S if at_s is None else T0 + round(at_s * S)
        headers = (
            ("ce_specversion", b"1.0"),
            ("ce_id", b"%d" % self.offset),
            ("ce_source", b"/test"),
            ("ce_type", b"streamer.telemetry.v1"),
            ("ce_time", rfc3339(start_us)),
            ("content-type", b"application/json"),
        )
        body = json.dumps({"channels": {"speed": {"values": [1.0] * 10}}, "rate_hz": 10}).encode()
        self.group.receive(Record(TELEMETRY, 0, self.offset, log_time_us, session.encode(), body, headers))
        self.offset += 1
        for row in range(TELEMETRY):
            self.group.merge.advance(row, log_time_us + 1)
        leaving, _ = await self.group.advance(self.store, 100)
        return [item for item in leaving if isinstance(item, Window)]

    async def partial(self, session: str, start_s: float) -> list[tuple[int, bool]]:
        """Second in which each window begins that a block closes, and whether it may lack records."""
        windows = await self.block(session, start_s)
        return [((w.start_us - T0) // S, self.group.lost_until_us(w) > w.start_us) for w in windows]


async def test_a_group_without_commits_is_new_and_nothing_is_lost() -> None:
    store = Store()
    life = Life(store, committed=False)
    assert await life.partial("car", 0) == [(0, False)]
    assert store.groups == {"streamer:0": 0}


async def test_a_group_that_redis_knows_has_lost_nothing() -> None:
    life = Life(Store({"streamer:0": 0}), committed=True)
    assert await life.partial("car", 0) == [(0, False)]


async def test_commits_of_a_group_that_redis_does_not_know_mean_that_it_has_lost_its_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store = Store()
    life = Life(store, committed=True)
    with caplog.at_level(logging.ERROR):
        # In the log at 1 s: what was done before may reach max_ahead further.
        assert await life.partial("car", 0) == [(0, True)]
    assert "Redis has lost its data" in caplog.text
    assert store.groups == {"streamer:0": T0 + 1500 * MS}
    assert await life.partial("car", 1) == [(1, True)]
    assert await life.partial("car", 2) == [(2, False)]


async def test_a_loss_is_remembered_over_a_restart_by_sessions_that_had_no_state_then() -> None:
    lost_until_us = T0 + 1500 * MS
    saved = Saved(T0 + S, (T0 + S,) * 4, {}, Rules.from_settings(SETTINGS).fingerprint)
    store = Store({"streamer:0": lost_until_us}, born=Stored(saved, {}, lost_until_us), kept=Stored(saved, {}, 0))
    life = Life(store, committed=True)
    assert await life.partial("never-seen", 1) == [(1, True)]
    assert await life.partial("born", 1) == [(1, True)]  # published since, from a state that had been lost
    assert await life.partial("kept", 1) == [(1, False)]  # published by a worker that still had its state


async def test_redis_may_lose_its_data_under_a_worker_that_lives() -> None:
    store = Store()
    life = Life(store, committed=False)
    assert await life.partial("car", 0) == [(0, False)]
    store.groups.clear()
    assert await life.partial("car", 1) == [(1, False)]  # its state is here
    assert await life.partial("freed-before", 2) == [(2, True)]  # that of this one was there
    assert store.groups == {"streamer:0": T0 + 3500 * MS}


async def test_suspects_are_told_once_with_their_window() -> None:
    store = Store({"streamer:0": 0}, car=Stored(None, {T0 + S: 2, T0 + 9 * S: 0}))
    life = Life(store, committed=True)
    [window] = await life.block("car", 0)
    assert life.group.suspicion(window) == 2
    assert life.group.suspicion(window) is None
    [other] = await life.block("car", 1)
    assert life.group.suspicion(other) is None
