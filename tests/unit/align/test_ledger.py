from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.align.ledger import Ledger
from streamer.events import Position


def at(index: int) -> Position:
    return Position(index, 0, index)


def test_only_the_head_is_released() -> None:
    ledger = Ledger()
    for index in range(3):
        ledger.add(at(index), 1)
    ledger.done(at(1))
    assert ledger.release() == []
    ledger.done(at(0))
    assert ledger.release() == [at(0), at(1)]
    assert ledger.oldest == at(2)


def test_a_record_that_nothing_holds_goes_when_its_turn_comes() -> None:
    ledger = Ledger()
    ledger.add(at(0), 0)
    assert ledger.release() == [at(0)]
    assert ledger.oldest is None


def test_a_record_in_two_windows_waits_for_both() -> None:
    ledger = Ledger()
    ledger.add(at(0), 2)
    ledger.done(at(0))
    assert ledger.release() == []
    ledger.done(at(0))
    assert ledger.release() == [at(0)]


def test_letting_go_more_often_than_holding_is_an_error() -> None:
    ledger = Ledger()
    ledger.add(at(0), 1)
    ledger.add(at(1), 1)
    ledger.done(at(1))
    with pytest.raises(ValueError, match="1 references dropped, it had 0"):
        ledger.done(at(1))
    with pytest.raises(KeyError):
        ledger.done(at(7))


def test_a_position_cannot_be_added_twice() -> None:
    ledger = Ledger()
    ledger.add(at(0), 1)
    with pytest.raises(ValueError, match="already there"):
        ledger.add(at(0), 1)


@given(st.integers(min_value=0, max_value=2**32))
def test_whatever_the_order_of_completion_what_is_released_is_a_finished_prefix(seed: int) -> None:
    rng = random.Random(seed)
    references = [rng.randrange(3) for _ in range(20)]
    ledger = Ledger()
    for index, count in enumerate(references):
        ledger.add(at(index), count)
    open_references = [index for index, count in enumerate(references) for _ in range(count)]
    rng.shuffle(open_references)
    released = ledger.release()
    while open_references:
        ledger.done(at(open_references.pop()))
        released += ledger.release()
        assert released == [at(index) for index in range(len(released))]
        assert not set(released) & {at(index) for index in open_references}
    assert released == [at(index) for index in range(20)]
    assert len(ledger) == 0
