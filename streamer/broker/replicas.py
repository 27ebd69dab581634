"""Proof that a replicated partition holds no record that nobody can read yet.

A consumer reads up to the *high watermark*: what all in-sync replicas have. While one of them is stuck or dead, the
leader holds records that have their broker append time and that no fetch shows. So an empty answer does not prove that
nothing older will come; and a leader that was paused may answer as one although another has been elected meanwhile.

What is proven here for a partition with leader L in leader epoch e, at a time T by our clock:

* L, asked at T or later, has nothing after what we hold: its *log end*, not its high watermark, is what we hold.
* Every in-sync replica, and every other one that answers at all, asked at T or later, knows of no newer epoch than e. A
  new leader is an in-sync replica, and knows its epoch before it appends.

So every record that comes later was stamped at T or later, by the clock of the broker that stamped it. Both answers are
those to ListOffsets for the latest offset, with e as the current epoch and replica id -2: a broker answers with its log
end, whether it leads or follows (Kafka protocol, ListOffsets from version 4 on; KIP-320). A partition with one replica
needs none of it: its high watermark is its log end.

Not covered: an unclean election; a replica that rejoins the in-sync replicas and is elected within ``AGE_S`` and never
answers us in between; a broker that stands still within an append for longer than the slack, between stamp and log end.
Where that matters, or clocks differ by more than the slack, ticks decide: see ``merge_proof``.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable, Mapping
from time import time_ns
from typing import Any, NamedTuple, Protocol

from aiokafka.errors import KafkaError, KafkaStorageError, NotLeaderForPartitionError, UnknownTopicOrPartitionError
from faust.types import TP

from streamer.broker.internals import Connection, connect
from streamer.broker.requests import LatestOffsets, Leaders
from streamer.clients import kafka as kafka_clients
from streamer.settings import Settings, host_and_port

AGE_S = 5.0  # leaders and in-sync replicas are looked up again after this time, or when an answer doubts them
RETRY_S = 0.1  # between two looks at what failed
CLOSE_S = 1.0  # longest wait for connections to close
TIMEOUT_S = 2.0  # of a request: a paused broker does not answer
NO_LOG = -1  # in place of a log end: the replica knows of no newer leader, but cannot lead either

UNKNOWN_LEADER_EPOCH = 75  # our epoch is newer than the broker's
# A broker that leads in a newer epoch has the partition, and answers that ours is old; these say otherwise.
CANNOT_LEAD = {
    UNKNOWN_LEADER_EPOCH,
    *(e.errno for e in (UnknownTopicOrPartitionError, NotLeaderForPartitionError, KafkaStorageError)),
}

log = logging.getLogger(__name__)


class Leadership(NamedTuple):
    """Who leads a partition, and who may lead it next."""

    leader: int
    epoch: int
    in_sync: frozenset[int]
    replicas: frozenset[int]


class Seen(NamedTuple):
    """What a replica last said of a partition: asked at ``sent_us``, it knew no newer epoch."""

    sent_us: int
    epoch: int
    log_end: int  # or NO_LOG


class Cluster(Protocol):
    """How brokers are asked; raises KafkaError, OSError or TimeoutError."""

    async def leaders(self) -> dict[TP, Leadership]:
        """Leaders of the topics, as any broker knows them; a partition without one is left out."""

    async def log_ends(self, node: int, epochs: Mapping[TP, int]) -> dict[TP, int | None]:
        """Log ends at a replica, or ``NO_LOG``; ``None`` if it knows of a newer epoch or does not say."""

    def address(self, node: int) -> str:
        """Of a broker, for people; empty if it is not known."""

    async def close(self) -> None:
        """Leave."""


class Replicas:
    """Asks the replicas of idle partitions what they hold.

    Args:
        on_proof: Called after each answer.

    Attributes:
        needed: Whether any partition has more than one replica.
    """

    def __init__(self, cluster: Cluster, on_proof: Callable[[], None]) -> None:
        self._cluster = cluster
        self._on_proof = on_proof
        self.needed = False
        self._leaders: dict[TP, Leadership] = {}
        self._seen: dict[int, dict[TP, Seen]] = {}
        self._wanted: dict[int, set[TP]] = {}  # by node, for its next request
        self._asking: dict[int, asyncio.Task[None]] = {}
        self._silent: set[int] = set()  # nodes whose last request failed
        self._doubted = asyncio.Event()
        self._doubted.set()

    async def run(self) -> None:
        """Keep the leaders up to date, for ever."""
        try:
            while True:
                try:
                    async with asyncio.timeout(AGE_S):
                        await self._doubted.wait()
                except TimeoutError:
                    pass  # they are old
                self._doubted.clear()
                await self._look_up()
                await asyncio.sleep(RETRY_S)
        finally:
            for task in self._asking.values():
                task.cancel()
            await self._cluster.close()

    async def _look_up(self) -> None:
        try:
            found = await self._cluster.leaders()
        except (KafkaError, OSError, TimeoutError) as error:
            log.debug("no broker tells the leaders: %r", error)
            self._doubted.set()
            return
        for tp, leadership in found.items():
            known = self._leaders.get(tp)
            if known is None or leadership.epoch >= known.epoch:  # a broker may lag behind
                self._leaders[tp] = leadership
        self.needed = any(len(leadership.replicas) > 1 for leadership in self._leaders.values())
        self._on_proof()

    def ask(self, idle: Iterable[TP]) -> None:
        """Ask the replicas of partitions that seem to have nothing new; returns at once."""
        for tp in idle:
            leadership = self._leaders.get(tp)
            if leadership is None:
                self._doubted.set()
            elif len(leadership.replicas) > 1:
                for node in leadership.replicas:
                    self._wanted.setdefault(node, set()).add(tp)
        for node, wanted in self._wanted.items():
            if wanted and node not in self._asking:
                self._asking[node] = asyncio.create_task(self._ask(node), name=f"replica {node}")

    async def _ask(self, node: int) -> None:
        """Ask a node for what is wanted of it, until nothing is; one request at a time."""
        try:
            while wanted := self._wanted.pop(node, None):
                epochs = {tp: self._leaders[tp].epoch for tp in wanted}
                sent_us = time_ns() // 1000
                try:
                    ends = await self._cluster.log_ends(node, epochs)
                except (KafkaError, OSError, TimeoutError) as error:
                    log.debug("broker %d does not say what it holds: %r", node, error)
                    self._silent.add(node)
                    if any(node in self._leaders[tp].in_sync for tp in wanted):
                        self._doubted.set()  # not for one that is out of sync, and may be away for hours
                    await asyncio.sleep(RETRY_S)
                    continue
                self._silent.discard(node)
                seen = self._seen.setdefault(node, {})
                for tp, epoch in epochs.items():
                    end = ends.get(tp)
                    if end is not None:
                        seen[tp] = Seen(sent_us, epoch, end)
                    if end is None or (end == NO_LOG and node == self._leaders[tp].leader):
                        self._doubted.set()
                self._on_proof()
        finally:
            del self._asking[node]

    def node(self, tp: TP) -> int | None:
        """The node that leads a partition; ``None`` if that is not known. For any thread."""
        leadership = self._leaders.get(tp)
        return None if leadership is None else leadership.leader

    def leader(self, tp: TP) -> str | None:
        """Who leads a partition, for people; ``None`` if that is not known."""
        leadership = self._leaders.get(tp)
        if leadership is None:
            return None
        return f"broker {leadership.leader} {self._cluster.address(leadership.leader)}".rstrip()

    def idle_since_us(self, tp: TP, held: int, fetched_us: int) -> int | None:
        """Time from which on every record that is still to come is stamped; ``None`` if that is not proven.

        Args:
            held: Offset up to which everything is here.
            fetched_us: When the fetch left that showed nothing after it: proof enough where there is one replica.
        """
        leadership = self._leaders.get(tp)
        if leadership is None:
            return None
        if len(leadership.replicas) == 1:
            return fetched_us
        # What we know of the in-sync replicas may be old: one that answers may be one of them again.
        asked = leadership.in_sync | {leadership.leader} | (leadership.replicas - self._silent)
        answers = [self._seen.get(node, {}).get(tp) for node in asked]
        if any(seen is None or seen.epoch != leadership.epoch for seen in answers):
            return None
        log_end = self._seen[leadership.leader][tp].log_end
        if log_end == NO_LOG or log_end > held:
            return None
        return min(seen.sent_us for seen in answers if seen is not None)


class Brokers:
    """The :class:`Cluster` of the settings, over connections that nothing else uses: a fetch would block them."""

    def __init__(self, settings: Settings, topics: Iterable[str]) -> None:
        self._options = kafka_clients.kafka_options(settings)
        self._given = [host_and_port(broker) for broker in self._options.pop("bootstrap_servers")]
        self._topics = list(topics)
        self._addresses: dict[int, tuple[str, int]] = {}
        self._connections: dict[tuple[str, int], Connection] = {}

    async def leaders(self) -> dict[TP, Leadership]:
        known = list(self._addresses.values())
        random.shuffle(known)
        last: Exception = OSError("no broker is known")
        for address in dict.fromkeys([*known, *self._given]):
            try:
                response = await self._send(address, Leaders(self._topics))
            except (KafkaError, OSError, TimeoutError) as error:
                last = error
                continue
            self._addresses = {node: (host, port) for node, host, port, _ in response.brokers}
            return {
                TP(topic, partition): Leadership(leader, epoch, frozenset(in_sync), frozenset(replicas))
                for _, topic, _, partitions in response.topics
                for _, partition, leader, epoch, replicas, in_sync, _ in partitions
                if leader >= 0
            }
        raise last

    async def log_ends(self, node: int, epochs: Mapping[TP, int]) -> dict[TP, int | None]:
        if (address := self._addresses.get(node)) is None:
            raise OSError(f"no address of broker {node}")
        response = await self._send(address, LatestOffsets({(tp.topic, tp.partition): e for tp, e in epochs.items()}))
        return {
            TP(topic, partition): offset if error == 0 else NO_LOG if error in CANNOT_LEAD else None
            for topic, partitions in response.topics
            for partition, error, _, offset, _ in partitions
        }

    def address(self, node: int) -> str:
        address = self._addresses.get(node)
        return "" if address is None else f"at {address[0]}:{address[1]}"

    async def close(self) -> None:
        closing = [closed for connection in self._connections.values() if (closed := connection.close()) is not None]
        if closing:  # a socket closes a turn of the loop later, and with TLS a few
            await asyncio.wait(closing, timeout=CLOSE_S)

    async def _send(self, address: tuple[str, int], request: Any) -> Any:
        async with asyncio.timeout(TIMEOUT_S):
            connection = self._connections.get(address)
            if connection is None or not connection.connected():
                connection = self._connections[address] = await connect(address, TIMEOUT_S, self._options)
            try:
                return await connection.send(request)
            except BaseException:
                connection.close()
                raise
