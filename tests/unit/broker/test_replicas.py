"""When a replicated partition counts as idle: all in-sync replicas agree who leads, and the leader has nothing more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
from aiokafka.errors import NodeNotReadyError
from faust.types import TP

from streamer.broker import replicas
from streamer.broker.replicas import NO_LOG, Brokers, Leadership, Replicas
from streamer.broker.requests import DEBUGGING_REPLICA, LatestOffsets, LatestOffsetsRequest, Leaders, LeadersRequest
from streamer.settings import Settings

FRAMES = TP("frames", 0)
FETCHED_US = 77
ALL = frozenset({1, 2, 3})


@dataclass
class Fake:
    """Three brokers, each with the epoch and the log end that it knows."""

    leadership: Leadership = field(default_factory=lambda: Leadership(1, 5, ALL, ALL))
    epochs: dict[int, int] = field(default_factory=lambda: {1: 5, 2: 5, 3: 5})
    ends: dict[int, int] = field(default_factory=lambda: {1: 10, 2: 10, 3: 10})
    away: set[int] = field(default_factory=set)
    asked: int = 0

    async def leaders(self) -> dict[TP, Leadership]:
        self.asked += 1
        return {FRAMES: self.leadership}

    async def log_ends(self, node: int, epochs: Mapping[TP, int]) -> dict[TP, int | None]:
        await asyncio.sleep(0)
        if node in self.away:
            raise NodeNotReadyError
        known = self.epochs[node]
        return {
            tp: self.ends[node] if known == epoch else NO_LOG if known < epoch else None for tp, epoch in epochs.items()
        }

    def address(self, node: int) -> str:
        return f"at host-{node}:9092"

    async def close(self) -> None:
        pass


class Bench:
    def __init__(self, cluster: Fake) -> None:
        self.cluster = cluster
        self.news = asyncio.Event()
        self.replicas = Replicas(cluster, self.news.set)

    async def ask(self) -> None:
        self.replicas.ask([FRAMES])
        await asyncio.sleep(0.01)

    def idle(self, held: int = 10) -> int | None:
        return self.replicas.idle_since_us(FRAMES, held, FETCHED_US)


@asynccontextmanager
async def running(cluster: Fake) -> AsyncIterator[Bench]:
    bench = Bench(cluster)
    task = asyncio.create_task(bench.replicas.run())
    await asyncio.wait_for(bench.news.wait(), 5)
    try:
        yield bench
    finally:
        task.cancel()
        await asyncio.wait({task})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replicas, "RETRY_S", 0.001)


async def test_a_partition_with_one_replica_is_idle_as_its_fetch_says() -> None:
    alone = frozenset({1})
    async with running(Fake(Leadership(1, 5, alone, alone))) as bench:
        assert bench.idle() == FETCHED_US
        assert not bench.replicas.needed


async def test_a_partition_whose_leader_is_not_known_is_not_idle() -> None:
    assert Bench(Fake()).idle() is None


async def test_all_in_sync_replicas_and_the_log_end_prove_that_it_is_idle() -> None:
    async with running(Fake()) as bench:
        assert bench.replicas.needed
        assert bench.idle() is None
        await bench.ask()
        first = bench.idle()
        assert first is not None
        await bench.ask()
        assert (bench.idle() or 0) > first > FETCHED_US


async def test_records_that_no_fetch_shows_yet_are_waited_for() -> None:
    """A follower is stuck: the leader holds stamped records above its high watermark."""
    cluster = Fake()
    cluster.ends[1] = 12
    async with running(cluster) as bench:
        await bench.ask()
        assert bench.idle(10) is None
        assert bench.idle(12) is not None


async def test_a_follower_that_lags_proves_as_much_as_another() -> None:
    cluster = Fake()
    cluster.ends[2] = 3
    async with running(cluster) as bench:
        await bench.ask()
        assert bench.idle() is not None


@pytest.mark.parametrize("node", [1, 2])
async def test_an_in_sync_replica_that_does_not_answer_leaves_it_unproven(node: int) -> None:
    async with running(Fake(away={node})) as bench:
        await bench.ask()
        assert bench.idle() is None


async def test_a_replica_out_of_sync_need_not_answer() -> None:
    in_sync = frozenset({1, 2})
    async with running(Fake(Leadership(1, 5, in_sync, in_sync | {3}), away={3})) as bench:
        await bench.ask()
        assert bench.idle() is not None


async def test_a_replica_out_of_sync_that_answers_must_know_of_no_newer_leader() -> None:
    """It may be in sync again, and elected, before we and the others have heard of it."""
    in_sync = frozenset({1, 2})
    cluster = Fake(Leadership(1, 5, in_sync, ALL), away={3})
    async with running(cluster) as bench:
        await bench.ask()
        before_us = bench.idle()
        assert before_us is not None
        cluster.away.clear()
        cluster.epochs[3] = 6
        await bench.ask()  # its first answer
        assert bench.idle() is None
        cluster.epochs[3] = 5
        await bench.ask()
        assert (bench.idle() or 0) > before_us


async def test_a_replica_without_a_log_holds_nothing_back() -> None:
    """Its disk is broken, or it has just started and does not know of our epoch yet."""
    cluster = Fake(Leadership(1, 5, frozenset({1, 2}), ALL))
    cluster.epochs[3] = 4
    async with running(cluster) as bench:
        await bench.ask()
        assert bench.idle() is not None


async def test_a_leader_that_does_not_know_it_yet_proves_nothing() -> None:
    cluster = Fake()
    cluster.epochs[1] = 4
    async with running(cluster) as bench:
        seen = cluster.asked
        await bench.ask()
        assert bench.idle() is None
        assert cluster.asked > seen  # somebody else may lead
        cluster.epochs[1] = 5
        await bench.ask()
        assert bench.idle() is not None
        looked = bench.cluster.asked
        for _ in range(5):
            await bench.ask()
        assert bench.cluster.asked == looked  # nobody is doubted for one that may be away for hours


async def test_a_leader_of_old_proves_nothing_once_another_knows_of_a_newer_epoch() -> None:
    cluster = Fake()
    async with running(cluster) as bench:
        await bench.ask()
        cluster.epochs[2] = 6  # elected, while the broker that led does not know it yet
        agreed_us = bench.replicas._seen[2][FRAMES].sent_us
        for _ in range(3):
            await bench.ask()
            assert bench.idle() == agreed_us


async def test_after_a_change_of_leaders_everything_is_proven_again() -> None:
    cluster = Fake()
    async with running(cluster) as bench:
        await bench.ask()
        cluster.epochs = {1: 6, 2: 6, 3: 6}
        cluster.leadership = cluster.leadership._replace(leader=2, epoch=6)
        await bench.ask()  # the answers doubt the leader, who is looked up again
        await asyncio.sleep(0.05)
        assert bench.idle() is None
        await bench.ask()
        assert bench.idle() is not None


async def test_a_leader_has_a_name_for_people() -> None:
    async with running(Fake()) as bench:
        assert bench.replicas.leader(FRAMES) == "broker 1 at host-1:9092"
        assert bench.replicas.leader(TP("audio", 0)) is None


async def test_a_broker_that_lags_behind_does_not_bring_an_old_leader_back() -> None:
    cluster = Fake()
    async with running(cluster) as bench:
        cluster.leadership = cluster.leadership._replace(leader=3, epoch=4)
        seen = cluster.asked
        bench.replicas._doubted.set()
        await asyncio.sleep(0.05)
        assert cluster.asked > seen
        assert bench.replicas._leaders[FRAMES].leader == 1


def test_log_ends_are_asked_for_with_the_epoch_as_neither_consumer_nor_follower() -> None:
    built = LatestOffsets({("frames", 3): 7}).build(LatestOffsetsRequest)
    assert built.replica_id == DEBUGGING_REPLICA
    assert built.encode().hex() == (
        "fffffffe" + "00" + "00000001" + "0006" + b"frames".hex() + "00000001" + "00000003" + "00000007" + "f" * 16
    )


def test_leaders_are_asked_for_without_making_topics() -> None:
    assert Leaders(["frames"]).build(LeadersRequest).encode().hex() == "00000001" + "0006" + b"frames".hex() + "00"


def test_an_address_without_a_port_is_taken_as_other_clients_take_it() -> None:
    assert Brokers(Settings.load(kafka="kafka"), [])._given == [("kafka", 9092)]
