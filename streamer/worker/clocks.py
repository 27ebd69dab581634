"""Drifting clocks of the sessions that a worker aligns: its gauges, and its reports to the doctor and the page."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from itertools import chain

import redis.asyncio
import redis.exceptions

from streamer.align.group import PartitionGroup
from streamer.events import Drift
from streamer.observe.metrics import Metrics
from streamer.store.drifts import REPORT_EVERY_S, Reports
from streamer.store.results import Keys

log = logging.getLogger(__name__)


class Clocks:
    """Reports every ``REPORT_EVERY_S`` what alignment has found.

    Args:
        names: Of the sensors.
    """

    def __init__(self, names: Iterable[str], metrics: Metrics) -> None:
        self._names = tuple(names)
        self._metrics = metrics
        self._groups: list[PartitionGroup] = []

    def watch(self, group: PartitionGroup) -> None:
        """Report on this group for as long as it lives."""
        self._groups.append(group)

    async def run(self, client: redis.asyncio.Redis, keys: Keys) -> None:
        """Report until cancelled. What Redis does not take is not kept: the next report is as good."""
        reports = Reports(client, keys)
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            found = self.look()
            try:
                await reports.write(found.items())
            except (redis.exceptions.RedisError, OSError) as error:
                log.warning("Redis did not take the report on clocks: %s", error)

    def look(self) -> dict[str, tuple[Drift, ...]]:
        """Session -> its drifting sensors; brings the gauges up to date."""
        self._groups = [group for group in self._groups if group.alive]
        found = dict(chain.from_iterable(group.skews.drifts(group.clock_us) for group in self._groups))
        ppm: dict[str, list[float]] = {name: [] for name in self._names}
        for one in chain.from_iterable(found.values()):
            ppm[one.sensor].append(abs(one.ppm))
        for name, values in ppm.items():
            self._metrics.drift_ppm.labels(name).set(max(values, default=0.0))
            self._metrics.drifting.labels(name).set(len(values))
        return found
