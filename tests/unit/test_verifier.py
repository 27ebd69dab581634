"""The verifier of the fault suite agrees with what alignment makes of a log, and sees each way to be wrong."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from msgspec import structs

from streamer.align.decode import Decoder
from streamer.align.windows import Aligner, Late
from streamer.align.windows import Rules as AlignRules
from streamer.errors import BadRecord
from streamer.events import KIND_NAMES, Event, EventType, Record, Window
from streamer.settings import Settings
from tests import logs
from tests.faults import verifier
from tests.faults.feed import Car
from tests.faults.verifier import Found, Letter, Place, Published, Rules, Snapshot
from tests.harness import S_US, end
from tests.oracle import Oracle

START_US = 1_760_000_000 * S_US
QUICK = {"max_delay_ms": 700, "idle_after_ms": 2500}
SETTINGS = Settings.load(
    partitions=1,
    session_gap_ms=6000,
    sensors={
        **dict.fromkeys(KIND_NAMES, QUICK),
        "text": {**QUICK, "max_delay_ms": 2000},  # its words come after 1.7 s: a shorter wait completes no window
        "rear": {"kind": "image", **QUICK},
        "cabin": {"kind": "audio", **QUICK, "offset_ms": -40},
    },
)
RULES = Rules.of(SETTINGS)


def source_log(seconds: int = 12) -> list[Record]:
    """Two cars, one of which stamps some records far ahead, as a broker would have it."""

    def clock_us(row: int, elapsed_us: int) -> int:
        return 60 * S_US if row == 3 and 5 * S_US <= elapsed_us < 7 * S_US else 0

    cars = [Car("a", 1, late=0.05, dies=("audio", 6.0)), Car("b", 2, clock_us=clock_us)]
    sent = []
    for car in cars:
        for due_us, _, outgoing in car.records(SETTINGS, START_US):
            if due_us > START_US + seconds * S_US:
                break
            sent.append((due_us // 1000 * 1000, outgoing))
        sent.append((START_US + (seconds + 1) * S_US, end(SETTINGS, car.name, START_US)))
    rows = {topic: row for row, topic in enumerate(SETTINGS.source_topics)}
    offsets = [0] * len(rows)
    records = []
    for log_time_us, outgoing in sorted(sent, key=lambda item: item[0]):
        row = rows[outgoing.topic]
        records.append(Record(row, 0, offsets[row], log_time_us, outgoing.key, outgoing.value, tuple(outgoing.headers)))
        offsets[row] += 1
    return records


def run(sources: list[Record]) -> Found:
    """What the stages themselves leave behind of this log."""
    decoder, aligner = Decoder(SETTINGS, 1), Aligner(AlignRules.from_settings(SETTINGS), 0)
    found = Found(sources, [], [], {}, {})
    outcomes = []
    for source in sorted(sources, key=lambda record: record.position):
        place = Place(source.row, source.partition, source.offset)
        log = source.row, source.partition
        found.committed[log] = max(found.committed.get(log, 0), source.offset + 1)
        try:
            event = decoder.decode(source)
        except BadRecord as error:
            found.dead.append(Letter(place, 0, len(found.dead), str(error.reason)))
            continue
        outcomes += aligner.tick(source.log_time_us)
        if event.type is not EventType.TICK and not aligner.knows(event.session):
            aligner.restore(event.session, None)
        outcomes += aligner.on_event(event)
    outcomes += aligner.tick(START_US + 3600 * S_US)
    for outcome in outcomes:
        if isinstance(outcome, Late):
            record = outcome.event.record
            found.late.append(Letter(Place(record.row, 0, record.offset), 0, len(found.late)))
        elif isinstance(outcome, Window):
            found.results.setdefault(outcome.session, []).append(result(outcome))
    return found


def result(window: Window) -> Published:
    events = [event for row in window.events for event in row]
    sure, _ = verifier.present(events, window.sensors.names, window.start_us, window.end_us)
    members = frozenset((event.row, event.record.offset) for event in events)
    return Published(window.session, window.end_us, str(window.closed_by), frozenset(sure), members, "ok", {}, b"")


@pytest.fixture
def found() -> Found:
    return run(source_log())


def test_a_right_run_is_right_and_its_figures_are_told(found: Found) -> None:
    summary = verifier.verify(found, RULES)
    assert (summary.records, summary.sessions, summary.exact) == (len(found.sources), 2, 2)
    assert summary.late > 0
    assert summary.dead > 0
    assert summary.windows == {"complete": 4, "deadline": 20, "end": 2}  # of six sensors with drops
    assert f"{len(found.sources):,} records of 2 sessions" in str(summary)


def test_ticks_are_of_no_session_and_in_no_window() -> None:
    given = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/worker", "ce_type": b"streamer.tick.v1"}
    sources, headers = source_log(), tuple(given.items())
    log_time_us = max(source.log_time_us for source in sources)
    places = ((0, 999), (1, 0), (1, 1))
    ticks = [Record(3, partition, offset, log_time_us, None, b"", headers) for partition, offset in places]
    before = verifier.verify(run(sources), RULES)
    with_ticks = verifier.verify(run([*sources, *ticks]), RULES)
    assert with_ticks.control == before.control + 3
    assert (with_ticks.sessions, with_ticks.windows) == (before.sessions, before.windows)


def test_records_that_repeat_an_event_are_in_no_window() -> None:
    sources = source_log()
    offsets = [sum(source.row == row for source in sources) for row in range(4)]
    again = [
        structs.replace(source, offset=source.offset + offsets[source.row], log_time_us=source.log_time_us + 300_000)
        for source in sources
        if (source.key or b"") == b"b" and dict(source.headers)["ce_type"] != b"streamer.end.v1"
    ]
    rows = sorted([*sources, *again], key=lambda source: (source.row, source.log_time_us, source.offset))
    numbered = [structs.replace(s, offset=sum(r.row == s.row for r in rows[:n])) for n, s in enumerate(rows)]
    before, twice = verifier.verify(run(sources), RULES), verifier.verify(run(numbered), RULES)
    assert twice.repeated > 50
    assert twice.repeated + twice.late - before.late + twice.dead - before.dead == len(again)
    assert sum(twice.windows.values()) == sum(before.windows.values())


Doctor = Callable[[Found], None]


def lose_window(found: Found) -> None:
    del found.results["a"][3]


def double_window(found: Found) -> None:
    found.results["a"].insert(4, found.results["a"][3])


def swap_windows(found: Found) -> None:
    results = found.results["b"]
    results[2], results[3] = results[3], results[2]


def invent_window(found: Found) -> None:
    last = found.results["b"][-1]
    found.results["b"].append(replace(last, end_us=last.end_us + S_US))


def lose_member(found: Found) -> None:
    window = found.results["a"][2]
    found.results["a"][2] = replace(window, members=window.members - {min(window.members)})


def move_member(found: Found) -> None:
    first, second = found.results["b"][2:4]
    stray = min(second.members - first.members)
    found.results["b"][2:4] = [
        replace(first, members=first.members | {stray}),
        replace(second, members=second.members - {stray}),
    ]


def wrong_reason(found: Found) -> None:
    window = found.results["a"][2]
    found.results["a"][2] = replace(window, closed_by="end" if window.closed_by != "end" else "complete")


def wrong_present(found: Found) -> None:
    window = found.results["a"][2]
    found.results["a"][2] = replace(window, present=window.present - {min(window.present)})


def wrong_status(found: Found) -> None:
    found.results["a"][2] = replace(found.results["a"][2], status="failed")


def lose_late(found: Found) -> None:
    found.late.pop()


def invent_late(found: Found) -> None:
    row, offset = min(found.results["a"][2].members)
    found.late.append(Letter(Place(row, 0, offset), 0, 999))


def lose_dead(found: Found) -> None:
    found.dead.pop()


def bury_a_good_record(found: Found) -> None:
    row, offset = min(found.results["a"][2].members)
    found.dead.append(Letter(Place(row, 0, offset), 0, 999))


def letter_from_nowhere(found: Found) -> None:
    found.dead.append(Letter(Place(0, 0, 10_000), 0, 999))


def commit_too_little(found: Found) -> None:
    found.committed[0, 0] -= 1


@pytest.mark.parametrize(
    ("doctor", "says"),
    [
        (lose_window, r"window a/\d+ is lost"),
        (double_window, "windows published twice"),
        (swap_windows, "out of order"),
        (invent_window, r"window b/\d+ should not be"),
        (lose_member, r"missing \[\(0, \d+\)\]"),
        (move_member, r"not of it \[\(\d, \d+\)\]"),
        (wrong_reason, "closed by end, must be|closed by complete, must be"),
        (wrong_present, "present"),
        (wrong_status, "status failed"),
        (lose_late, "is not in the late topic"),
        (invent_late, "is in the late topic but joined a window"),
        (lose_dead, r"must be dead-lettered \(clock_ahead\)"),
        (bury_a_good_record, "was dead-lettered, but is good"),
        (letter_from_nowhere, "which is no source record"),
        (commit_too_little, r"committed \d+ of \d+ at the end"),
    ],
)
def test_a_run_that_is_wrong_is_told_so(found: Found, doctor: Doctor, says: str) -> None:
    doctor(found)
    with pytest.raises(AssertionError, match=says):
        verifier.verify(found, RULES)


@pytest.mark.parametrize(
    ("doctor", "says"),
    [
        (lose_window, r"1 of \d+ windows different \(0 other members, 0 other reasons, 1 lost, 0 that should not be\)"),
        (
            invent_window,
            r"1 of \d+ windows different \(0 other members, 0 other reasons, 0 lost, 1 that should not be\)",
        ),
        (move_member, r"2 of \d+ windows different \(2 other members, 0 other reasons, 0 lost, 0 that should not be\)"),
        (wrong_reason, r"1 of \d+ windows different \(0 other members, 1 other reasons, 0 lost"),
        (lose_dead, r"0 of \d+ windows different"),
    ],
)
def test_windows_that_differ_are_counted(found: Found, doctor: Doctor, says: str) -> None:
    doctor(found)
    with pytest.raises(verifier.WrongRun, match=says) as raised:
        verifier.verify(found, RULES)
    assert raised.value.differences.windows == len(verifier.expected(found, RULES))


def behind(sources: list[Record]) -> list[Record]:
    """The same log, if a broker whose clock is 2 s behind had led the frames from the third second to the seventh."""

    def stamp_us(source: Record) -> int:
        since_us = source.log_time_us - START_US
        return source.log_time_us - (2 * S_US if source.row == 0 and 3 * S_US <= since_us < 7 * S_US else 0)

    return [structs.replace(source, log_time_us=stamp_us(source)) for source in sources]


def test_a_record_stamped_below_an_earlier_one_of_its_partition_counts_as_appended_with_that_one() -> None:
    sources = behind(source_log())
    found = run(verifier.with_log_times(sources))
    found.sources[:] = sources
    assert verifier.verify(found, RULES).stepped_back > 0
    as_stamped = run(sources)
    with pytest.raises(verifier.WrongRun, match="other members"):
        verifier.verify(as_stamped, RULES)


def test_log_times_never_step_back_within_a_partition() -> None:
    sources = [
        Record(row, p, offset, t, None, b"", ())
        for row, p, offset, t in ((0, 0, 0, 9), (0, 1, 0, 3), (1, 0, 0, 1), (0, 0, 1, 4), (0, 0, 2, 10))
    ]
    stamped = verifier.with_log_times(sources)
    assert [(s.row, s.partition, s.offset, s.log_time_us) for s in stamped] == [
        (0, 0, 0, 9),
        (0, 0, 1, 9),
        (0, 0, 2, 10),
        (0, 1, 0, 3),
        (1, 0, 0, 1),
    ]


def test_a_record_in_no_window_and_no_letter_is_unaccounted(found: Found) -> None:
    """Also in a session that is not held to the oracle, here since a window of it closed for memory."""
    window = found.results["a"][2]
    found.results["a"][2] = replace(window, closed_by="memory")
    verifier.verify(found, RULES)
    alone = next(m for m in window.members if sum(m in r.members for r in found.results["a"]) == 1)
    found.results["a"][2] = replace(window, closed_by="memory", members=window.members - {alone})
    with pytest.raises(AssertionError, match="unaccounted"):
        verifier.verify(found, RULES)


def test_a_commit_past_a_window_that_was_not_published_is_told(found: Found) -> None:
    results = found.results["a"]
    ends = {session: windows[-1].end_us for session, windows in found.results.items()}
    side = {("late", 0): len(found.late), ("dead", 0): len(found.dead)}
    held = max(offset for row, offset in results[-1].members if row == 0)
    good = Snapshot({(0, 0): held + 1}, ends, side)
    verifier.verify(found, RULES, [good])
    with pytest.raises(AssertionError, match=r"commit 0: .* is committed, past"):
        verifier.verify(found, RULES, [replace(good, published_end_us={**ends, "a": results[-2].end_us})])


def test_a_commit_past_a_letter_that_was_not_written_is_told(found: Found) -> None:
    ends = {session: windows[-1].end_us for session, windows in found.results.items()}
    with pytest.raises(AssertionError, match=r"commit 0: .* is committed, past"):
        verifier.verify(found, RULES, [Snapshot(found.committed, ends, {("late", 0): len(found.late), ("dead", 0): 0})])


@hypothesis_settings(max_examples=60, deadline=None)
@given(st.integers(min_value=0, max_value=2**32))
def test_the_oracle_that_forgets_says_what_the_slow_one_says(seed: int) -> None:
    rng = random.Random(seed)
    rules, events = logs.rules(rng), logs.log(rng, rng.randint(1, 120))
    until_us = events[-1].record.log_time_us + 100_000_000
    slow, long = Oracle(rules).run(events, until_us), verifier.LongOracle(rules).run(events, until_us)
    assert long.closed == slow.closed
    assert long.late == slow.late


def test_the_verifier_knows_nothing_of_the_code_that_it_judges() -> None:
    for module in (verifier, __import__("tests.oracle", fromlist=["oracle"])):
        text = Path(str(module.__file__)).read_text()
        for stage in ("align", "merge", "ledger", "group", "decode"):
            assert f"streamer.{stage} import" not in text
            assert f"import {stage}" not in text


def test_control_records_are_no_data() -> None:
    source = source_log()[-1]
    event = verifier.parse(source, RULES)
    assert isinstance(event, Event)
    assert event.type is EventType.END
