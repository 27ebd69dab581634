"""Alignment against a slow oracle, over random logs; more of them: ``python -m tests.many_logs``."""

import random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from streamer.align.windows import Aligner, Done, Early, Joined, Late, Outcome, Repeated, Rules
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
    assert logs.early(outcomes) == oracle.early
    assert {(o.event.row, o.event.record.offset) for o in outcomes if isinstance(o, Late)} == oracle.late
    assert {(o.event.row, o.event.record.offset) for o in outcomes if isinstance(o, Repeated)} == oracle.repeated


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_how_often_it_is_ticked_changes_nothing(seed: int) -> None:
    rules, events, until_us, rng = case(seed)
    calm, ticked = logs.run(rules, events, until_us), logs.run(rules, events, until_us, ticks=rng)
    windows = [[logs.signature(o) for o in run if isinstance(o, Window)] for run in (calm, ticked)]
    assert windows[0] == windows[1]
    assert logs.early(calm) == logs.early(ticked)


@settings(max_examples=80, deadline=None)
@given(seeds)
def test_early_runs_change_no_window_and_each_has_one_before_it_closes(seed: int) -> None:
    rules, events, until_us, _ = case(seed)
    outcomes = logs.run(rules, events, until_us)
    plain = logs.run(msgspec.structs.replace(rules, early_us=0), events, until_us)
    assert [o for o in outcomes if not isinstance(o, Early)] == plain
    early = logs.early(outcomes)
    closed = {(c.session, c.end_us): c for c in map(logs.signature, (o for o in plain if isinstance(o, Window)))}
    assert len({(run.session, run.end_us) for run in early}) == len(early)
    for run in early:
        window = closed[run.session, run.end_us]
        assert run.at < window.at
        assert run.members <= window.members


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
    assert store.early == set(oracle.early)  # those of a later life are as they were
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
