"""What the comparison with other engines counts as right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.peers import reference
from bench.peers.common import WINDOW_US, placed, window_end_us
from bench.peers.compare import Measured, Stretch, table
from bench.peers.reference import Verdict
from bench.peers.running import Look
from streamer.align.windows import Rules
from streamer.events import Event, EventType, Record
from streamer.settings import Settings

RULES = Rules.from_settings(Settings.load())
RIGHT, OTHER = frozenset({(0, 1), (1, 1)}), frozenset({(0, 1)})


def event(start_us: int, end_us: int) -> Event:
    return Event(Record(0, 0, 0, 0, b"car", b"", ()), "car", EventType.DATA, start_us, end_us)


@given(st.integers(0, 5 * WINDOW_US), st.integers(0, 3 * WINDOW_US))
def test_a_record_is_placed_once_into_each_window_that_alignment_would_have_it_join(
    start_us: int, length_us: int
) -> None:
    at_us = placed(event(start_us, start_us + length_us))
    assert [window_end_us(at) for at in at_us] == list(RULES.ends_of(event(start_us, start_us + length_us)))
    assert all(start_us <= at <= start_us + length_us for at in at_us)


@pytest.mark.parametrize(
    ("publications", "verdict"),
    [
        ([RIGHT], Verdict(1, lost=0, doubled=0, wrong=0, right=1, unknown=0)),
        ([], Verdict(1, lost=1, doubled=0, wrong=0, right=0, unknown=0)),
        ([RIGHT, RIGHT], Verdict(1, lost=0, doubled=1, wrong=0, right=0, unknown=0)),
        ([OTHER], Verdict(1, lost=0, doubled=0, wrong=1, right=0, unknown=0)),
        ([RIGHT, OTHER], Verdict(1, lost=0, doubled=1, wrong=1, right=0, unknown=0)),
    ],
)
def test_a_window_is_right_if_it_is_there_once_with_its_members(
    publications: list[reference.Members], verdict: Verdict
) -> None:
    found = {("car", WINDOW_US): publications} if publications else {}
    assert reference.judge({("car", WINDOW_US): RIGHT}, {("car", WINDOW_US)}, found) == verdict


def test_windows_of_the_run_out_are_known_and_not_judged() -> None:
    every = {("car", (number + 1) * WINDOW_US): RIGHT for number in range(8)}
    judged = reference.judged(every)
    assert sorted(end_us // WINDOW_US for _, end_us in judged) == [1, 2, 3]
    found = {window: [RIGHT] for window in [*every, ("car", 20 * WINDOW_US)]}
    assert reference.judge(judged, set(every), found) == Verdict(3, lost=0, doubled=0, wrong=0, right=3, unknown=1)


def test_a_steady_rate_leaves_out_the_first_results_and_all_before_them() -> None:
    looks = [Look(10.0, 0, 5.0, 0), Look(12.0, 100, 6.0, 0), Look(14.0, 500, 7.0, 0)]
    whole, steady = Stretch.between(looks[0], looks[-1]), Stretch.between(looks[1], looks[-1])
    assert (whole.windows_per_s, whole.cpu_ms) == (125.0, 4.0)
    assert (steady.windows_per_s, steady.cpu_ms) == (200.0, 2.5)


def test_every_engine_s_row_has_both_rates() -> None:
    run = Measured(Stretch(500, 4.0, 2.0), Stretch(400, 2.0, 1.0), 3 << 20, Verdict(1, 0, 0, 0, 1, 0))
    assert table({"Bytewax": [run]}).splitlines()[-1] == "| Bytewax | 125 | 200 | 4 | 2.5 | 3 | 1 | 1 | 0 | 0 | 0 |"
