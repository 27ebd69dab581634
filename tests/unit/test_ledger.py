from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.events import Position
from streamer.ledger import Ledger


def at(index: int) -> Position:
    return Position(index, 0, index)


def test_only_the_head_is_released() -> None:
    ledger: Ledger[int] = Ledger()
    for index in range(3):
        ledger.add(at(index), 1, index)
    ledger.done(at(1))
    assert ledger.release() == []
    ledger.done(at(0))
    assert ledger.release() == [0, 1]
    assert ledger.oldest == at(2)


def test_a_record_that_nothing_holds_goes_when_its_turn_comes() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.add(at(0), 0, 0)
    assert ledger.release() == [0]
    assert ledger.oldest is None


def test_a_record_in_two_windows_waits_for_both() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.add(at(0), 2, 0)
    ledger.done(at(0))
    assert ledger.release() == []
    ledger.done(at(0))
    assert ledger.release() == [0]


def test_letting_go_more_often_than_holding_is_an_error() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.add(at(0), 1, 0)
    ledger.add(at(1), 1, 1)
    ledger.done(at(1))
    with pytest.raises(ValueError, match="1 let go, 0 held it"):
        ledger.done(at(1))
    with pytest.raises(KeyError):
        ledger.done(at(7))


def test_a_position_cannot_be_added_twice() -> None:
    ledger: Ledger[int] = Ledger()
    ledger.add(at(0), 1, 0)
    with pytest.raises(ValueError, match="already there"):
        ledger.add(at(0), 1, 0)


@given(st.integers(min_value=0, max_value=2**32))
def test_whatever_the_order_of_completion_what_is_released_is_a_finished_prefix(seed: int) -> None:
    rng = random.Random(seed)
    references = [rng.randrange(3) for _ in range(20)]
    ledger: Ledger[int] = Ledger()
    for index, count in enumerate(references):
        ledger.add(at(index), count, index)
    open_references = [index for index, count in enumerate(references) for _ in range(count)]
    rng.shuffle(open_references)
    released: list[int] = ledger.release()
    while open_references:
        ledger.done(at(open_references.pop()))
        released += ledger.release()
        assert released == list(range(len(released)))
        assert not set(released) & set(open_references)
    assert released == list(range(20))
    assert len(ledger) == 0
