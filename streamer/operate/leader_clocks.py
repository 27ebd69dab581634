"""How far the clocks of partitions' leaders are from this machine's, by the records that come while we watch.

Kafka has no request for its time, and nothing is written here. What is left is the broker append time of a new record:
it was stamped between the last answer that did not have it and the first that has. That bounds the difference of the
clocks from both sides; of a leader's records the one that was shown soonest counts. A record is shown only when all
in-sync replicas have it: a leader whose followers are slow seems to be behind by that time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from math import inf
from time import monotonic, sleep, time

import msgspec
from kafka import TopicPartition
from kafka.admin import KafkaAdminClient, OffsetSpec

WATCH_S = 2.0
PAUSE_S = 0.01  # between two rounds of questions
LEAST_RECORDS = 3  # by which a clock is called behind: one may have waited for a follower


class Clock(msgspec.Struct):
    """A leader's clock minus this machine's.

    Attributes:
        records: New ones that were seen.
        least_s: The difference is at least this, for certain.
        most_s: It is at most this, unless no record was replicated at once.
    """

    records: int = 0
    least_s: float = -inf
    most_s: float = inf

    def note(self, appended_s: float, before_s: float, after_s: float) -> None:
        """A new record, by its append time and our times before the last question without it and after the answer."""
        self.records += 1
        if appended_s - after_s > self.least_s:
            self.least_s, self.most_s = appended_s - after_s, appended_s - before_s

    def ahead(self, limit_s: float) -> bool:
        """Whether it is ahead by more than this, for certain."""
        return self.least_s > limit_s

    def behind(self, limit_s: float) -> bool:
        """Whether it is behind by more than this."""
        return self.records >= LEAST_RECORDS and self.most_s < -limit_s

    def judged(self, limit_s: float) -> bool:
        """Whether records show anything."""
        return self.records >= LEAST_RECORDS or self.ahead(limit_s)


class Watched(msgspec.Struct, frozen=True):
    """What was seen.

    Attributes:
        clocks: Of each leader, by its node id.
        newest_s: The largest append time in each partition; those without records are left out.
    """

    clocks: dict[int, Clock]
    newest_s: dict[TopicPartition, float]


def watch(client: KafkaAdminClient, leaders: Mapping[TopicPartition, int], watch_s: float = WATCH_S) -> Watched:
    """Watch partitions for a while; returns at once if none has a record.

    Args:
        leaders: The node that leads each partition.

    Raises:
        KafkaError: A leader does not answer.
    """
    places = defaultdict(list)
    for place, leader in leaders.items():
        places[leader].append(place)
    watched = Watched({leader: Clock() for leader in places}, {})
    asked_s: dict[int, float] = {}
    until_s = monotonic() + watch_s
    while not asked_s or (watched.newest_s and monotonic() < until_s):
        for leader in places:
            before_s = time()
            newest = client.list_partition_offsets(dict.fromkeys(places[leader], OffsetSpec.MAX_TIMESTAMP))
            after_s = time()
            for place, record in newest.items():
                appended_s = record.timestamp / 1000
                if record.timestamp > 0 and appended_s > watched.newest_s.get(place, 0.0):
                    watched.newest_s[place] = appended_s
                    if leader in asked_s:
                        watched.clocks[leader].note(appended_s, asked_s[leader], after_s)
            asked_s[leader] = before_s
        sleep(PAUSE_S)
    return watched
