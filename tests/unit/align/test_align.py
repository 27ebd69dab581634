"""The rules of alignment, one by one; the properties over random logs are in test_align_properties.py."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streamer.align.sessions import NEVER_US
from streamer.align.windows import Aligner, Done, Early, Joined, Late, Repeated, Rules
from streamer.events import AUDIO, IMAGE, TEXT, ClosedBy, Event, EventType, Position, Record, Saved, Window
from streamer.settings import Settings

S, MS = 1_000_000, 1_000
T0 = 1_000 * S  # a window border

RULES = Rules(
    window_us=S,
    hop_us=S,
    disorder_us=(0, 0, 0),
    max_delay_us=(200 * MS, 200 * MS, 2 * S),
    idle_after_us=(3 * S, 3 * S, NEVER_US),  # image, audio, text
    session_gap_us=10 * S,
    max_open_bytes=1 << 40,
)


class Log:
    """Feeds an aligner; times in milliseconds after T0."""

    def __init__(self, rules: Rules = RULES, **saved: Any) -> None:
        self.aligner = Aligner(rules, 0)
        self.offset = 0
        self.saved = Saved(**{"closings": {}, "fingerprint": rules.fingerprint, **saved}) if saved else None

    def event(
        self,
        at: int,
        row: int,
        start: int,
        end: int | None = None,
        kind: EventType = EventType.DATA,
        session: str = "car",
        identity: tuple[str, str] | None = None,
    ) -> list[Any]:
        record = Record(row, 0, self.offset, T0 + at * MS, session.encode(), b"x" * 100, ())
        self.offset += 1
        end = start if end is None else end
        event = Event(record, session, kind, T0 + start * MS, T0 + end * MS, identity=identity)
        closed = self.tick(at)
        if not self.aligner.knows(session):
            self.aligner.restore(session, self.saved)
        return closed + self.aligner.on_event(event)

    def second(self, at: int, start: int, rows: tuple[int, ...] = (IMAGE, AUDIO, TEXT)) -> list[Any]:
        """One second of data from ``start`` on, arriving at ``at``; the frame lies on the far border."""
        outcomes = []
        for row in rows:
            outcomes += self.event(at, row, start, start + 1000) if row != IMAGE else self.event(at, row, start)
            if row == IMAGE:
                outcomes += self.event(at, row, start + 1000)
        return outcomes

    def tick(self, at: int) -> list[Any]:
        return self.aligner.tick(T0 + at * MS)


def windows(outcomes: list[Any]) -> list[tuple[int, str]]:
    """End in ms after T0 and reason of the windows among the outcomes."""
    return [((o.end_us - T0) // MS, str(o.closed_by)) for o in outcomes if isinstance(o, Window)]


def early(outcomes: list[Any]) -> list[tuple[int, int, int]]:
    """End and log time in ms after T0, and members, of the early runs among the outcomes."""
    found = [o.window for o in outcomes if isinstance(o, Early)]
    assert all(window.closed_by is ClosedBy.OPEN for window in found)
    return [((w.end_us - T0) // MS, (w.closed_at.log_time_us - T0) // MS, sum(map(len, w.events))) for w in found]


def test_a_window_is_complete_once_every_modality_has_been_seen_past_its_end() -> None:
    log = Log()
    log.event(1000, IMAGE, 500)
    log.event(1000, IMAGE, 1000)
    assert windows(log.event(1010, AUDIO, 0, 1000)) == []
    assert windows(log.event(1500, TEXT, 0, 1000)) == [(1000, "complete")]


def test_a_frame_on_the_border_belongs_to_the_window_that_it_begins() -> None:
    joined = Log().event(0, IMAGE, 1000)
    assert joined[0].holders == 1
    assert list(RULES.ends_of(joined[0].event)) == [T0 + 2 * S]


def test_an_event_that_spans_a_border_is_in_both_windows() -> None:
    assert Log().event(2000, AUDIO, 500, 1500)[0].holders == 2


def test_an_event_that_ends_on_a_border_is_not_in_the_next_window() -> None:
    assert Log().event(2000, AUDIO, 500, 1000)[0].holders == 1


def test_hopping_windows_overlap() -> None:
    rules = Rules(S, 250 * MS, (0,) * 3, (0,) * 3, (NEVER_US,) * 3, 10 * S, 1 << 40)
    assert Log(rules).event(1000, IMAGE, 900)[0].holders == 4


def test_a_slow_modality_is_waited_for_up_to_its_delay() -> None:
    log = Log()
    log.second(1000, 0, rows=(IMAGE, AUDIO))  # due at 1000; text may take 2 s
    assert windows(log.tick(2999)) == []
    assert windows(log.tick(3000)) == [(1000, "deadline")]


def test_the_closing_carries_its_own_time_however_late_the_tick() -> None:
    log = Log()
    log.second(1000, 0, rows=(IMAGE, AUDIO))
    (window,) = log.tick(9000)
    assert window.closed_at == Position(T0 + 3000 * MS, -1, -1)


def test_a_modality_that_has_been_silent_is_not_waited_for() -> None:
    rules = Rules(S, S, (0,) * 3, (2 * S,) * 3, (500 * MS,) * 3, 10 * S, 1 << 40)
    log = Log(rules)
    log.event(100, TEXT, 0, 100)
    log.event(100, AUDIO, 0, 100)
    outcomes = log.event(1000, IMAGE, 1000)  # text and audio have been silent for 900 ms
    assert windows(outcomes) == [(1000, "deadline")]


def test_disorder_keeps_a_window_open_for_what_comes_out_of_order() -> None:
    rules = Rules(S, S, (100 * MS, 0, 0), (5 * S,) * 3, (NEVER_US,) * 3, 10 * S, 1 << 40)
    log = Log(rules)
    assert windows(log.second(1000, 0)) == []
    assert windows(log.event(1100, IMAGE, 1099)) == []
    assert windows(log.event(1110, IMAGE, 1100)) == [(1000, "complete")]


def test_an_event_after_its_window_is_late_and_no_sign_of_life() -> None:
    log = Log()
    log.second(1000, 0)
    late = log.event(1200, AUDIO, 100, 300)
    assert [type(o) for o in late] == [Late]
    assert late[0].late_by_us == 700 * MS
    assert windows(log.tick(10_999)) == []  # the frame at 1000 still waits
    assert windows(log.tick(11_000)) == [(2000, "end")]  # 10 s after the last event that joined, not after the late one


def test_windows_of_a_session_close_in_order() -> None:
    log = Log()
    outcomes = log.second(1000, 0, rows=(IMAGE, AUDIO)) + log.second(2000, 1000)
    assert windows(outcomes) == [(1000, "complete"), (2000, "complete")]


def test_sessions_close_in_time_order() -> None:
    log = Log()
    log.event(1000, IMAGE, 900, session="b")
    log.event(1001, IMAGE, 900, session="a")
    assert [o.session for o in log.tick(20_000)] == ["b", "a"]


def test_silence_ends_a_session() -> None:
    log = Log()
    log.event(1000, IMAGE, 500)
    assert windows(log.tick(10_999)) == []
    assert windows(log.tick(11_000)) == [(1000, "end")]
    assert log.aligner.sessions == 0


def test_an_end_record_ends_a_session_after_the_longest_delay() -> None:
    log = Log()
    log.event(1000, IMAGE, 500)
    (held,) = log.event(1100, TEXT, 0, kind=EventType.END)
    assert isinstance(held, Joined)
    assert windows(log.tick(3099)) == []
    closed = log.tick(3100)
    assert windows(closed) == [(1000, "end")]
    assert closed[-1] == Done(held.event)


def test_an_event_after_the_end_record_cancels_it() -> None:
    log = Log()
    log.event(1000, IMAGE, 500)
    (held,) = log.event(1100, TEXT, 0, kind=EventType.END)
    assert Done(held.event) in log.event(1200, IMAGE, 600)
    assert windows(log.tick(11_199)) == []
    assert windows(log.tick(11_200)) == [(1000, "end")]


def test_an_end_record_that_was_cancelled_in_the_same_millisecond_stays_cancelled_in_a_replay() -> None:
    border, heard = T0 + S, (T0 + S,) * 3
    log = Log(published_end_us=border, heard_us=heard, closings={border: Position(border + 200 * MS, -1, -1)})
    log.event(1000, IMAGE, 1500)
    log.event(1000, IMAGE, 1500, kind=EventType.END)
    spent = log.event(1000, AUDIO, 0, 900)  # a member of the published window: it cancelled the end in its first life
    assert [type(outcome) for outcome in spent] == [Done, Done]
    assert spent[0].event.type is EventType.END
    assert windows(log.tick(4000)) == []


def test_an_end_record_of_an_unknown_session_is_spent_at_once() -> None:
    assert [type(o) for o in Log().event(0, TEXT, 0, kind=EventType.END)] == [Done]


def test_a_session_that_is_heard_again_does_not_reopen_what_it_closed() -> None:
    log = Log()
    (first,) = log.event(1000, IMAGE, 500) and log.tick(11_000)
    assert isinstance(log.event(30_000, IMAGE, 400)[0], Late)
    log.aligner.published(first)
    assert not log.aligner.knows("car")  # Redis has it now; the caller restores it from there


def test_a_restart_goes_on_after_the_newest_published_window() -> None:
    log = Log(published_end_us=T0 + S, heard_us=(T0 + S,) * 3)
    assert isinstance(log.event(1100, IMAGE, 900)[0], Late)
    assert isinstance(log.event(1101, IMAGE, 1100)[0], Joined)


def test_a_replayed_member_of_a_published_window_is_not_late() -> None:
    closings = {T0 + S: Position(T0 + 1500 * MS, 0, 0)}
    log = Log(published_end_us=T0 + S, heard_us=(T0 + S,) * 3, closings=closings)
    assert isinstance(log.event(1400, IMAGE, 900)[0], Done)  # it came before the closing
    assert isinstance(log.event(1600, IMAGE, 900)[0], Late)  # it came after it


def test_after_a_change_of_the_window_settings_the_first_window_starts_after_what_is_published() -> None:
    log = Log(published_end_us=T0 + S // 2, heard_us=(T0,) * 3, fingerprint="other")
    assert isinstance(log.event(1000, IMAGE, 400)[0], Late)
    assert isinstance(log.event(1001, AUDIO, 600, 1400)[0], Joined)
    assert [w.start_us for w in log.tick(60_000) if isinstance(w, Window)] == [T0 + S]


WORD = "/recogniser", "17"


def test_an_event_that_is_sent_again_is_in_its_window_once_and_holds_no_memory() -> None:
    log = Log()
    log.event(500, TEXT, 100, 400, identity=WORD)
    held_bytes = log.aligner.open_bytes
    assert [type(o) for o in log.event(900, TEXT, 100, 400, identity=WORD)] == [Repeated]
    assert log.aligner.open_bytes == held_bytes
    (window,) = log.tick(60_000)
    assert [e.record.offset for e in window.events[TEXT]] == [0]
    assert log.aligner.open_bytes == 0


@pytest.mark.parametrize(
    ("row", "identity"),
    [(TEXT, ("/recogniser", "18")), (TEXT, ("/other", "17")), (AUDIO, WORD), (TEXT, None)],
    ids=["another id", "another source", "another modality", "without one"],
)
def test_another_event_joins(row: int, identity: tuple[str, str] | None) -> None:
    log = Log()
    log.event(500, TEXT, 100, 400, identity=WORD)
    assert [type(o) for o in log.event(600, row, 100, 400, identity=identity)] == [Joined]


def test_an_event_of_two_windows_is_in_each_of_them_once_though_one_has_closed_between() -> None:
    log = Log()
    log.event(500, TEXT, 900, 1100, identity=WORD)
    closed = log.second(1200, 1000)
    closed += log.event(1300, IMAGE, 2000) + log.tick(4000)
    assert [w.end_us - T0 for w in closed if isinstance(w, Window)] == [S, 2 * S]
    log = Log()
    log.event(500, TEXT, 900, 1100, identity=WORD)
    (first,) = (o for o in log.event(1000, IMAGE, 1000) + log.tick(3100) if isinstance(o, Window))
    assert first.end_us == T0 + S
    assert [type(o) for o in log.event(3200, TEXT, 900, 1100, identity=WORD)] == [Repeated]
    (second,) = log.tick(60_000)
    assert [e.record.offset for e in second.events[TEXT]] == [0]


def test_an_event_without_a_time_may_come_again_in_the_next_window() -> None:
    log = Log()  # its time is then that of the log
    log.event(900, TEXT, 900, identity=WORD)
    assert [type(o) for o in log.event(950, TEXT, 950, identity=WORD)] == [Repeated]
    assert [type(o) for o in log.event(1100, TEXT, 1100, identity=WORD)] == [Joined]


def test_a_repetition_is_late_once_its_windows_have_closed() -> None:
    log = Log()
    log.event(500, TEXT, 100, 400, identity=WORD)
    log.tick(60_000)
    log.event(60_100, IMAGE, 60_100)
    assert [type(o) for o in log.event(60_200, TEXT, 100, 400, identity=WORD)] == [Late]


def test_a_repetition_is_a_sign_of_life() -> None:
    """Its session does not fall silent, and its end is cancelled: a restart could not tell it from the first record."""
    log = Log()
    log.event(0, TEXT, 100, 400, identity=WORD)
    log.event(5000, IMAGE, 0, kind=EventType.END)
    assert Repeated in {type(o) for o in log.event(5500, TEXT, 100, 400, identity=WORD)}
    assert log.tick(15_400) == []
    assert [o.closed_by for o in log.tick(15_500)] == [ClosedBy.END]


def test_at_the_memory_bound_the_oldest_window_closes_early() -> None:
    rules = Rules(S, S, (0,) * 3, (0,) * 3, (NEVER_US,) * 3, 100 * S, 3000)
    log = Log(rules)
    closed = []
    for i in range(4):  # some 1,200 bytes each, none due before the next second's first frame
        closed += log.event(i, IMAGE, 100 + i, session=f"car-{i}")
    assert [w.closed_by for w in closed if isinstance(w, Window)] == [ClosedBy.MEMORY, ClosedBy.MEMORY]
    assert 2000 < log.aligner.open_bytes <= 3000


def test_members_are_in_order_of_time() -> None:
    log = Log()
    log.event(10, IMAGE, 300)
    log.event(11, IMAGE, 100)
    (window,) = log.tick(60_000)
    assert [e.start_us for e in window.events[IMAGE]] == [T0 + 100 * MS, T0 + 300 * MS]


def test_the_fingerprint_changes_with_the_window_grid_only() -> None:
    rules = Rules.from_settings(Settings())
    assert Rules.from_settings(Settings(session_gap_ms=1)).fingerprint == rules.fingerprint
    assert Rules.from_settings(Settings(window_ms=500)).fingerprint != rules.fingerprint


@pytest.mark.parametrize("sessions", [10, 1000])
def test_the_heap_stays_as_small_as_the_number_of_sessions(sessions: int) -> None:
    log = Log()
    for step in range(20):
        for number in range(sessions):
            log.event(step * 100, IMAGE, step * 100, session=f"car-{number}")
    assert len(log.aligner._heap) <= 4 * sessions


EARLY = msgspec.structs.replace(RULES, early_us=100 * MS)


def test_a_window_that_waits_is_run_early_once_with_what_came_before() -> None:
    log = Log(EARLY)
    log.second(1000, 0, (IMAGE, AUDIO))  # due at 1000, waits for words
    assert early(log.tick(1099)) == []
    assert early(log.event(1100, TEXT, 900, 950)) == [(1000, 1100, 2)]  # before this record
    assert early(log.tick(2999)) == []
    outcomes = log.tick(3000)
    assert windows(outcomes) == [(1000, "deadline")]
    assert early(outcomes) == []


def test_what_comes_in_time_is_in_the_early_run() -> None:
    log = Log(EARLY)
    log.second(1000, 0, (IMAGE, AUDIO))
    log.event(1099, TEXT, 900, 950)
    assert early(log.tick(2900)) == [(1000, 1100, 3)]


def test_a_window_that_closes_in_time_is_not_run_early() -> None:
    log = Log(EARLY)
    assert windows(log.second(1000, 0)) == [(1000, "complete")]
    assert early(log.tick(1900)) == []


def test_a_closing_at_the_time_of_the_early_run_comes_first() -> None:
    log = Log(msgspec.structs.replace(EARLY, early_us=2 * S))
    log.second(1000, 0, (IMAGE, AUDIO))
    outcomes = log.tick(3000)
    assert windows(outcomes) == [(1000, "deadline")]
    assert early(outcomes) == []


def test_windows_that_wait_behind_another_are_run_early_in_their_order() -> None:
    log = Log(EARLY)
    log.second(1000, 0, (IMAGE, AUDIO))
    log.second(2000, 1000, (IMAGE, AUDIO))
    assert early(log.tick(2099)) == []  # the first was when the second second came
    outcomes = log.tick(9000)
    assert early(outcomes) == [(2000, 2100, 3)]
    assert windows(outcomes) == [(1000, "deadline"), (2000, "deadline")]


def test_a_window_that_is_opened_after_its_early_run_would_have_been_gets_none() -> None:
    log = Log(EARLY)
    log.event(2000, IMAGE, 1500)
    log.event(2000, IMAGE, 2000)  # the window that ends at 2000 is due
    assert early(log.tick(2100)) == [(2000, 2100, 1)]
    log.event(2101, TEXT, 500, 600)  # opens the one before, which was due with it
    outcomes = log.tick(9000)
    assert [end for end, _ in windows(outcomes)] == [1000, 2000]
    assert early(outcomes) == []


def test_an_early_run_is_a_moment_of_time_that_a_worker_must_not_miss() -> None:
    log = Log(EARLY)
    log.second(1000, 0, (IMAGE, AUDIO))
    assert log.aligner.next_closing_us == T0 + 1100 * MS
    log.tick(1100)
    assert log.aligner.next_closing_us == T0 + 3000 * MS
    log.event(2000, IMAGE, 2000)  # the next window is due, while the first waits as before
    assert log.aligner.next_closing_us == T0 + 2100 * MS
