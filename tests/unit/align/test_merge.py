from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from streamer.align.merge import Merge
from streamer.events import Position


@dataclass(frozen=True)
class Item:
    position: Position
    nbytes: int = 10


def item(time: int, row: int, offset: int = 0) -> Item:
    return Item(Position(time, row, offset))


def test_the_oldest_head_goes_first() -> None:
    merge: Merge[Item] = Merge(2, 100)
    merge.push(0, item(5, 0))
    merge.push(1, item(3, 1))
    merge.advance(0, 9)
    merge.advance(1, 9)
    assert [i.position.log_time_us for i in merge.release()] == [3, 5]


def test_at_equal_times_the_row_decides() -> None:
    merge: Merge[Item] = Merge(2, 100)
    merge.push(1, item(5, 1))
    merge.push(0, item(5, 0))
    assert [i.position.row for i in merge.release()] == [0]  # topic 0 may bring another one of that time
    merge.advance(0, 6)
    assert [i.position.row for i in merge.release()] == [1]


def test_an_empty_sibling_holds_the_head_until_its_bound_is_past() -> None:
    merge: Merge[Item] = Merge(2, 100)
    merge.push(0, item(5, 0))
    assert merge.release() == []
    merge.advance(1, 4)
    assert merge.release() == []
    merge.advance(1, 5)  # a sibling of a later row may still bring 5, which comes after
    assert len(merge.release()) == 1


def test_at_the_bound_itself_an_earlier_row_may_still_come_first() -> None:
    merge: Merge[Item] = Merge(2, 100)
    merge.push(1, item(5, 1))
    merge.advance(0, 5)
    assert merge.release() == []
    merge.advance(0, 6)
    assert len(merge.release()) == 1


def test_a_bound_never_goes_back() -> None:
    merge: Merge[Item] = Merge(2, 100)
    merge.advance(1, 9)
    merge.advance(1, 2)
    merge.push(0, item(5, 0))
    assert len(merge.release()) == 1


def test_a_record_below_the_clock_goes_at_once_and_is_counted() -> None:
    merge: Merge[Item] = Merge(2, 100)
    merge.push(0, item(5, 0))
    merge.advance(1, 9)
    merge.release()
    merge.push(1, item(3, 1))
    assert len(merge.release()) == 1
    assert merge.violations == 1


def test_a_record_below_the_clock_that_alignment_was_given_is_counted() -> None:
    merge: Merge[Item] = Merge(2, 100)
    merge.advance(0, 9)
    merge.advance(1, 9)
    assert merge.clock_us == 9
    merge.push(0, item(8, 0, 0))  # below the clock, which nobody was given
    assert merge.violations == 0
    assert len(merge.release()) == 1
    assert merge.give_clock() == 9
    merge.push(1, item(9, 1, 0))
    assert merge.violations == 0
    merge.push(0, item(8, 0, 1))
    assert merge.violations == 1


def test_the_clock_is_the_oldest_of_heads_and_bounds() -> None:
    merge: Merge[Item] = Merge(2, 100)
    merge.advance(0, 8)
    merge.advance(1, 6)
    assert merge.clock_us == 6
    merge.push(0, item(20, 0))
    merge.advance(1, 30)
    assert merge.clock_us == 20


def test_a_fifo_is_full_by_bytes() -> None:
    merge: Merge[Item] = Merge(2, 25)
    for offset in range(3):
        assert not merge.full(0)
        merge.push(0, item(offset, 0, offset))
    assert merge.full(0)
    assert (merge.nbytes(0), merge.nbytes_total) == (30, 30)
    merge.advance(1, 9)
    merge.release()
    assert (merge.nbytes(0), merge.nbytes_total) == (0, 0)


def test_release_takes_no_more_than_asked() -> None:
    merge: Merge[Item] = Merge(1, 100)
    for offset in range(5):
        merge.push(0, item(offset, 0, offset))
    assert len(merge.release(limit=3)) == 3
    assert len(merge.release(limit=3)) == 2


@given(st.integers(min_value=0, max_value=2**32))
def test_any_interleaving_with_honest_bounds_gives_the_sorted_log(seed: int) -> None:
    rng = random.Random(seed)
    topics = [sorted(rng.randrange(30) for _ in range(rng.randrange(12))) for _ in range(3)]
    log = sorted(Position(t, row, i) for row, times in enumerate(topics) for i, t in enumerate(times))
    merge: Merge[Item] = Merge(3, 1 << 30)
    released: list[Position] = []
    sent = [0, 0, 0]
    while any(sent[row] < len(topics[row]) for row in range(3)):
        row = rng.randrange(3)
        if sent[row] < len(topics[row]) and rng.random() < 0.7:
            merge.push(row, item(topics[row][sent[row]], row, sent[row]))
            sent[row] += 1
        else:  # what the next record's time proves: nothing older is still to come
            merge.advance(row, topics[row][sent[row]] if sent[row] < len(topics[row]) else 99)
        released += [i.position for i in merge.release(rng.choice([None, 1, 2]))]
        assert merge.clock_us <= min((topics[r][sent[r]] for r in range(3) if sent[r] < len(topics[r])), default=99)
    for row in range(3):
        merge.advance(row, 99)
    released += [i.position for i in merge.release()]
    assert released == log
    assert merge.violations == 0
