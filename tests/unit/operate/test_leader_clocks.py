"""Clocks of leaders, measured by records that come, on brokers whose clocks the test sets."""

from __future__ import annotations

from time import time
from typing import NamedTuple

import pytest
from kafka import TopicPartition

from streamer.operate import leader_clocks
from streamer.operate.leader_clocks import Clock

LIMIT_S = 0.25
FRAMES, AUDIO = TopicPartition("frames", 0), TopicPartition("audio", 0)


class Record(NamedTuple):
    """The newest record of a partition; without one both are -1."""

    offset: int
    timestamp: int


class Brokers:
    """Each has a clock; before each answer a record comes, or none does."""

    def __init__(self, **shifts_s: float | None) -> None:
        self.shifts_s = shifts_s
        self.asked = 0

    def list_partition_offsets(self, places: dict[TopicPartition, object]) -> dict[TopicPartition, Record]:
        self.asked += 1
        found = {}
        for place in places:
            shift_s = self.shifts_s.get(place.topic)
            timestamp = -1 if shift_s is None else round((time() + shift_s) * 1000)
            found[place] = Record(self.asked, timestamp)
        return found


def watched(leaders: dict[TopicPartition, int], **shifts_s: float | None) -> dict[int, Clock]:
    return leader_clocks.watch(Brokers(**shifts_s), leaders, 0.3).clocks


@pytest.mark.parametrize(("shift_s", "ahead", "behind"), [(0.0, False, False), (3.0, True, False), (-3.0, False, True)])
def test_a_leaders_clock_is_judged_by_its_records(shift_s: float, ahead: bool, behind: bool) -> None:
    clocks = watched({FRAMES: 1, AUDIO: 2}, frames=shift_s, audio=0.0)
    assert (clocks[1].ahead(LIMIT_S), clocks[1].behind(LIMIT_S), clocks[1].judged(LIMIT_S)) == (ahead, behind, True)
    assert clocks[1].least_s <= shift_s + 0.001  # stamps are in ms
    assert clocks[1].most_s >= shift_s - 0.001
    assert not clocks[2].ahead(LIMIT_S)
    assert not clocks[2].behind(LIMIT_S)


def test_without_new_records_a_clock_is_not_judged() -> None:
    clocks = watched({FRAMES: 1, AUDIO: 2}, frames=0.0)
    assert clocks[1].judged(LIMIT_S)
    assert not clocks[2].judged(LIMIT_S)
    assert clocks[2].records == 0


def test_where_there_are_no_records_nobody_waits() -> None:
    brokers = Brokers()
    watch = leader_clocks.watch(brokers, {FRAMES: 1, AUDIO: 2}, watch_s=60)
    assert watch.newest_s == {}
    assert brokers.asked == 2


def test_the_record_that_was_shown_soonest_counts() -> None:
    clock = Clock()
    for late_s in (0.9, 0.02, 5.0):  # two waited for a follower
        clock.note(appended_s=10.0, before_s=10.0 + late_s - 0.01, after_s=10.0 + late_s)
    assert (clock.least_s, clock.most_s) == pytest.approx((-0.02, -0.01))
    assert not clock.behind(LIMIT_S)


def test_one_record_proves_that_a_clock_is_ahead_but_not_that_it_is_behind() -> None:
    ahead, behind = Clock(), Clock()
    ahead.note(appended_s=11.0, before_s=9.9, after_s=10.0)
    behind.note(appended_s=9.0, before_s=9.9, after_s=10.0)
    assert ahead.ahead(LIMIT_S)
    assert ahead.judged(LIMIT_S)
    assert not behind.behind(LIMIT_S)
    assert not behind.judged(LIMIT_S)
