"""Alignment against a slow oracle, over random logs; more of them: ``python -m tests.many_logs``."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.align.windows import Aligner, Done, Joined, Late, Outcome, Repeated, Rules
from streamer.events import Event, EventType, Window
from tests import logs
from tests.oracle import Oracle

seeds = st.integers(min_value=0, max_value=2**32)


def case(seed: int, **fixed: object) -> tuple[Rules, list[Event], int, random.Random]:
    rng = random.Random(seed)
    rules = logs.rules(rng, **fixed)
    events = logs.log(rng, rng.randint(1, 120))
    return rules, events, events[-1].record.log_time_us + 100_000_000, rng


@settings(max_examples=150, deadline=None)
@given(seeds)
def test_windows_are_those_of_the_oracle(seed: int) -> None:
    rules, events, until_us, _ = case(seed)
    oracle = Oracle(rules).run(events, until_us)
    outcomes = logs.run(rules, events, until_us)
    assert [logs.signature(o) for o in outcomes if isinstance(o, Window)] == oracle.closed
    assert {(o.event.row, o.event.record.offset) for o in outcomes if isinstance(o, Late)} == oracle.late
    assert {(o.event.row, o.event.record.offset) for o in outcomes if isinstance(o, Repeated)} == oracle.repeated


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_how_often_it_is_ticked_changes_nothing(seed: int) -> None:
    rules, events, until_us, rng = case(seed)
    calm = [logs.signature(o) for o in logs.run(rules, events, until_us) if isinstance(o, Window)]
    ticked = [logs.signature(o) for o in logs.run(rules, events, until_us, ticks=rng) if isinstance(o, Window)]
    assert ticked == calm


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_every_record_is_in_a_window_or_late_or_spent(seed: int) -> None:
    rules, events, until_us, _ = case(seed)
    outcomes = logs.run(rules, events, until_us)
    holders = {
        o.event.position: o.holders for o in outcomes if isinstance(o, Joined) and o.event.type is EventType.DATA
    }
    held = [e.position for o in outcomes if isinstance(o, Window) for row in o.events for e in row]
    assert {position: held.count(position) for position in set(held)} == holders
    accounted = {o.event.position for o in outcomes if isinstance(o, (Joined, Late, Repeated, Done))}
    assert accounted == {event.position for event in events}
    ends = [o.event.position for o in outcomes if isinstance(o, Joined) and o.event.type is EventType.END]
    spent = [o.event.position for o in outcomes if isinstance(o, Done)]
    assert all(spent.count(position) == 1 for position in ends)


@settings(max_examples=150, deadline=None)
@given(seeds, st.integers(min_value=1, max_value=5))
def test_a_worker_that_is_killed_again_and_again_publishes_the_same_windows(seed: int, kills: int) -> None:
    rules, events, until_us, rng = case(seed)
    oracle = Oracle(rules).run(events, until_us)
    store = logs.run_with_kills(rules, events, until_us, rng, kills)
    assert store.published == {(c.session, c.end_us): c for c in oracle.closed}
    assert store.late == oracle.late  # none lost, and none falsely late after a restart
    assert store.never_joined == oracle.repeated


@settings(max_examples=60, deadline=None)
@given(seeds, st.integers(min_value=600, max_value=20_000))
def test_open_windows_never_hold_more_than_their_bound(seed: int, bound: int) -> None:
    rules, events, until_us, _ = case(seed, max_open_bytes=bound)
    aligner = Aligner(rules, 0)
    outcomes: list[Outcome] = []
    for event in events:
        outcomes += aligner.tick(event.record.log_time_us)
        if not aligner.knows(event.session):
            aligner.restore(event.session, None)
        outcomes += aligner.on_event(event)
        assert aligner.open_bytes <= bound
    outcomes += aligner.tick(until_us)
    assert aligner.open_bytes == 0
    assert aligner.sessions == 0
    held = {o.event.position: o.holders for o in outcomes if isinstance(o, Joined) and o.event.type is EventType.DATA}
    members = [e.position for o in outcomes if isinstance(o, Window) for row in o.events for e in row]
    assert sorted(set(members)) == sorted(held)
