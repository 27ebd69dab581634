"""Partitions for which no broker answers, or that an open transaction holds: reported when it begins and ends."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime

from faust.types import TP

AFTER_US = 3_000_000  # a fetch is answered within 0.1 s; a change of leaders takes less than this

log = logging.getLogger(__name__)


class Standstill:
    """What stands still, as of the last look.

    Args:
        leader: Who leads a partition, for people; ``None`` if nobody does.

    Attributes:
        partitions: How many stand still.
        of: Of how many that are fetched.
    """

    def __init__(self, leader: Callable[[TP], str | None]) -> None:
        self._leader = leader
        self._first_seen_us: dict[TP, int] = {}
        self._since_us: dict[TP, int] = {}  # those that were reported
        self.partitions = self.of = 0

    def look(self, answered_us: Mapping[TP, int | None], now_us: int) -> None:
        """Compare with the last look, and report what has changed.

        Args:
            answered_us: When the last fetch left that was answered, for each partition that is fetched.
        """
        self._first_seen_us = {tp: self._first_seen_us.get(tp, now_us) for tp in answered_us}
        since_us = {tp: at or self._first_seen_us[tp] for tp, at in answered_us.items()}
        still = {tp: at for tp, at in since_us.items() if now_us - at > AFTER_US}
        self.partitions, self.of = len(still), len(answered_us)
        if moving := [tp for tp in self._since_us if tp in answered_us and tp not in still]:
            longest_s = (now_us - min(self._since_us[tp] for tp in moving)) / 1e6
            log.warning("Kafka answers again for %s, after %.0f s", _named(moving), longest_s)
        by_leader = defaultdict(list)
        for tp in still.keys() - self._since_us.keys():
            by_leader[self._leader(tp)].append(tp)
        for leader, tps in by_leader.items():
            since = datetime.fromtimestamp(min(still[tp] for tp in tps) / 1e6).astimezone().isoformat("T", "seconds")
            if self.whole:
                who = "Kafka does not answer"
            elif leader is None:
                who = "a partition has no leader"
            else:
                who = f"{leader} does not answer"
            share = f"{len(tps)} of {self.of} partitions stand still since {since}"
            log.warning("%s: %s: %s", who, share, _named(tps))
        self._since_us = {tp: self._since_us.get(tp, at) for tp, at in still.items()}

    @property
    def whole(self) -> bool:
        """Whether no partition moves."""
        return 0 < self.partitions == self.of

    @property
    def reason(self) -> str | None:
        """One line for probes; ``None`` while everything moves."""
        if not self.partitions:
            return None
        return f"{self.partitions} of {self.of} partitions stand still: Kafka does not answer for them"


class Held:
    """Partitions that cannot be read further because a producer's transaction is open, as of the last look."""

    def __init__(self) -> None:
        self._since_us: dict[tuple[TP, int], int] = {}  # at which offset -> when that was first seen
        self._reported_us: dict[TP, int] = {}

    def look(self, open_at: Mapping[TP, int], now_us: int) -> None:
        """Compare with the last look, and report what has changed.

        Args:
            open_at: Offset of the first record of the oldest open transaction of each partition that has one.
        """
        self._since_us = {place: self._since_us.get(place, now_us) for place in open_at.items()}
        held_us = {tp: at for (tp, _), at in self._since_us.items() if now_us - at > AFTER_US}
        if ended := self._reported_us.keys() - held_us.keys():
            longest_s = (now_us - min(self._reported_us[tp] for tp in ended)) / 1e6
            log.warning("a transaction has ended after %.0f s, it held %s", longest_s, _named(ended))
        if new := held_us.keys() - self._reported_us.keys():
            log.warning(
                "an open transaction holds %s: windows that wait for it close after its producer ends it, or Kafka "
                "does, after the producer's transaction.timeout.ms",
                _named(new),
            )
        self._reported_us = {tp: self._reported_us.get(tp, at) for tp, at in held_us.items()}

    @property
    def reason(self) -> str | None:
        """One line for probes; ``None`` while nothing is held for long."""
        return f"an open transaction holds {_named(self._reported_us)}" if self._reported_us else None


def _named(tps: Iterable[TP]) -> str:
    """``streamer.audio 0 3, streamer.frames 1``."""
    numbers = defaultdict(list)
    for tp in sorted(tps):
        numbers[tp.topic].append(str(tp.partition))
    return ", ".join(f"{topic} {' '.join(found)}" for topic, found in numbers.items())
