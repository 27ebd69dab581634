"""Whether a worker can take work, and whether it gets anything done."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from time import monotonic, time_ns
from typing import Protocol

from faust.types import TP

from streamer.errors import Stalled
from streamer.observe.health import Service
from streamer.observe.metrics import Metrics
from streamer.settings import Settings, host_and_port
from streamer.worker.standstill import Held, Standstill

LOOK_EVERY_S = 1.0
CONNECT_S = 2.0


class Consumed(Protocol):
    """What is asked of the intake."""

    started: bool

    @property
    def rebalancing(self) -> bool:
        """Whether partitions are being assigned."""

    @property
    def fetches(self) -> bool:
        """Whether anything is fetched."""

    def answered_us(self) -> Mapping[TP, int | None]:
        """When the last fetch left that was answered, for each partition that is fetched."""

    def leader(self, tp: TP) -> str | None:
        """Who leads a partition, for people."""

    def open_transactions(self) -> Mapping[TP, int]:
        """Partitions with an open transaction, and the offset at which reading waits for its end."""


class Work(Protocol):
    """What is asked of the worker."""

    @property
    def stopping(self) -> bool:
        """Whether it was asked to stop."""

    @property
    def alignable(self) -> bool:
        """Whether alignment has records that wait for no open transaction, and may hand on windows."""

    @property
    def publishable(self) -> bool:
        """Whether windows are in flight."""


class Health:
    """Readiness, and a watchdog: Faust's consumers do get stuck.

    Attributes:
        redis, kafka: Whether they answer, as the worker's clients report it.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._stall_after_s = settings.stall_after_ms / 1000
        self.redis = Service("Redis", metrics.retries.labels("redis").inc)
        self.kafka = Service("Kafka", metrics.retries.labels("kafka").inc)
        self._standstill: Standstill | None = None
        self._held = Held()
        self._stalled = False
        self._aligned_at = self._published_at = self._answered_at = monotonic()

    def answered(self) -> None:
        """A fetch was answered."""
        self._answered_at = monotonic()

    def aligned(self) -> None:
        """Records have left the merge."""
        self._aligned_at = monotonic()

    def published(self) -> None:
        """Windows are done."""
        self._published_at = monotonic()

    def not_ready(self, intake: Consumed, work: Work) -> list[str]:
        """Why the worker cannot take work now; empty when it can."""
        reasons = [service.error for service in (self.redis, self.kafka) if service.error is not None]
        if not intake.started:
            reasons.append("starting")
        elif intake.rebalancing:
            reasons.append("partitions are being assigned")
        elif not work.stopping and intake.fetches and self._silent_s > self._stall_after_s / 2:
            reasons.append("Kafka does not answer")
        if work.stopping:
            reasons.append("stopping")
        if self._stalled:
            reasons.append("stalled")
        return reasons

    def degraded(self) -> list[str]:
        """What does not work although the worker can take work; empty if all does."""
        reasons = (None if self._standstill is None else self._standstill.reason, self._held.reason)
        return [reason for reason in reasons if reason is not None]

    async def watch(self, intake: Consumed, work: Work) -> None:
        """End a worker that has work, whose services answer, and that gets nothing done.

        Alignment and the sink are watched separately: one goes on while the other stands still.

        Raises:
            Stalled: So it is.
        """
        self._standstill = Standstill(intake.leader)
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = monotonic()
            if intake.started and not intake.rebalancing and not work.stopping:
                self._standstill.look(intake.answered_us(), time_ns() // 1000)
                self._held.look(intake.open_transactions(), time_ns() // 1000)
            away = not intake.started or self.redis.error is not None or self.kafka.error is not None
            if not intake.fetches:
                self._answered_at = now
            if self._silent_s > self._stall_after_s:
                if not away and await self._broker_listens():
                    raise self._stall("no fetch was answered", "the broker listens")
                away = True
            if away or self._standstill.whole or not work.alignable:
                self._aligned_at = now
            if away or not work.publishable:
                self._published_at = now
            for what, at in (("aligned", self._aligned_at), ("published", self._published_at)):
                if monotonic() - at > self._stall_after_s:
                    raise self._stall(f"nothing was {what}", "there is work")

    @property
    def _silent_s(self) -> float:
        return monotonic() - self._answered_at

    def _stall(self, what: str, although: str) -> Stalled:
        self._stalled = True
        return Stalled(f"{what} for {self._stall_after_s:.0f} s although {although}")

    async def _broker_listens(self) -> bool:
        """Whether any of the brokers takes a connection."""
        for address in self._settings.brokers:
            try:
                _, writer = await asyncio.wait_for(asyncio.open_connection(*host_and_port(address)), CONNECT_S)
            except (OSError, TimeoutError):
                continue
            writer.close()
            return True
        return False
