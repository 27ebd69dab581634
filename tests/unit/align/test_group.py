"""A partition group: from records as the consumer delivers them to windows, letters and offsets to commit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from streamer.align.decode import Decoder
from streamer.align.group import Leaving, PartitionGroup, Rejected
from streamer.align.windows import Early, Late, Rules
from streamer.errors import Reason
from streamer.events import AUDIO, IMAGE, KINDS, TELEMETRY, TEXT, Position, Record, Saved, Stored, Window, rfc3339
from streamer.observe.metrics import Metrics
from streamer.settings import Settings
from tests import logs

S_US, MS_US = 1_000_000, 1_000
T0_US = 1_700_000_000 * S_US  # a window border
ROWS = range(len(KINDS))


class Bench:
    """A group, the consumer that feeds it, and what Redis has of its sessions; times in ms after T0."""

    def __init__(self, early_ms: int = 0) -> None:
        settings = Settings.load(early_ms=early_ms)
        self.metrics = Metrics(CollectorRegistry())
        self.rules = Rules.from_settings(settings)
        self.group = PartitionGroup(
            0,
            Decoder(settings, 1),
            self.rules,
            settings.fifo_bytes,
            self.metrics,
            name="group-0",
            committed=False,
            max_ahead_us=settings.max_ahead_ms * 1000,
        )
        self.stored: dict[str, Saved] = {}
        self.loads: list[str] = []
        self.offsets = [0] * len(ROWS)

    async def load(self, session: str, group: str) -> Stored:
        self.loads.append(session)
        return Stored(self.stored.get(session))

    async def open_group(self, group: str) -> int | None:
        return 0

    async def note_group(self, group: str, lost_until_us: int) -> None:
        raise AssertionError("Redis has lost nothing here")

    def record(self, row: int, at: int, start: int, session: bytes | None = b"car", **headers: bytes) -> Record:
        """The next record of a topic: one second of its modality, or a frame."""
        values = (
            b"a frame",
            bytes(2 * 8000),
            json.dumps({"text": "hm", "end": 1.0}).encode(),
            json.dumps({"channels": {"v": {"values": [0] * 10}}, "rate_hz": 10}).encode(),
        )
        types = (b"image/jpeg", b"audio/L16;rate=8000", b"application/json", b"application/json")
        given = {
            "ce_specversion": b"1.0",
            "ce_id": b"%d" % self.offsets[row],
            "ce_source": b"/test",
            "ce_type": KINDS[row].ce_type.encode(),
            "ce_time": rfc3339(T0_US + start * MS_US).encode(),
            "content-type": types[row],
        } | headers
        offset = self.offsets[row]
        self.offsets[row] += 1
        return Record(row, 0, offset, T0_US + at * MS_US, session, values[row], tuple(given.items()))

    def second(self, at: int, start: int, session: bytes = b"car") -> list[Record]:
        """One second of everything; the frame that ends it lies on its far border."""
        frames = [self.record(IMAGE, at, start, session), self.record(IMAGE, at, start + 1000, session)]
        return frames + [self.record(row, at, start, session) for row in (AUDIO, TEXT, TELEMETRY)]

    def receive(self, *records: Record) -> None:
        for record in records:
            self.group.receive(record)

    async def advance(self, limit: int = 1000, until: int | None = None) -> list[Leaving]:
        """All that leaves; with ``until`` no topic has anything below that time any more."""
        if until is not None:
            for row in ROWS:
                self.group.merge.advance(row, T0_US + until * MS_US)
        leaving, _ = await self.group.advance(self, limit)
        return leaving

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def ends(leaving: list[Leaving]) -> list[int]:
    """Ends of the windows in ms after T0."""
    return [(item.end_us - T0_US) // MS_US for item in leaving if isinstance(item, Window)]


def offsets(item: Leaving) -> list[list[int]]:
    assert isinstance(item, Window)
    return [[event.record.offset for event in events] for events in item.events]


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_records_become_windows(bench: Bench) -> None:
    bench.receive(*bench.second(1100, 0))
    (window,) = await bench.advance(until=1200)
    assert ends([window]) == [1000]
    assert offsets(window) == [[0], [0], [0], [0]]  # the second frame begins the next window
    assert bench.metric("streamer_windows_total", closed_by="complete") == 1
    assert bench.metric("streamer_event_bytes_total", sensor="audio") == 16_000


async def test_a_record_that_was_received_before_is_ignored(bench: Bench) -> None:
    records = bench.second(1100, 0)
    bench.receive(*records, *records, records[0])
    (window,) = await bench.advance(until=1200)
    assert offsets(window) == [[0], [0], [0], [0]]
    assert bench.metric("streamer_events_total", sensor="image", outcome="joined") == 2
    assert bench.metric("streamer_event_bytes_total", sensor="audio") == 16_000
    bench.receive(*records)  # also after it was released
    assert await bench.advance(until=1300) == []
    assert bench.metric("streamer_merge_order_violations_total") == 0
    assert bench.group.next_offset == [2, 1, 1, 1]


async def test_an_event_that_comes_twice_is_one_and_its_second_record_is_done_at_once(bench: Bench) -> None:
    first = bench.record(TEXT, 1000, 0, ce_id=b"7")
    again = bench.record(TEXT, 1050, 0, ce_id=b"7")
    bench.receive(first, again, *bench.second(1100, 0))
    (window,) = await bench.advance(until=1200)
    assert offsets(window)[TEXT] == [0, 2]
    assert bench.metric("streamer_events_total", sensor="text", outcome="repeated") == bench.group.repeated == 1
    assert bench.metric("streamer_events_total", sensor="text", outcome="joined") == 2
    assert bench.group.releasable() == {}  # no commit passes the first record
    assert isinstance(window, Window)
    bench.group.window_done(window)
    assert bench.group.releasable()[TEXT] == Position(T0_US + 1050 * MS_US, TEXT, 1)  # a frame at 1100 is still open


async def test_offsets_may_have_gaps(bench: Bench) -> None:
    """As transactions and compaction leave them."""
    bench.offsets[IMAGE] = 500
    bench.receive(*bench.second(1100, 0))
    (window,) = await bench.advance(until=1200)
    assert offsets(window)[IMAGE] == [500]
    assert bench.group.next_offset[IMAGE] == 502


async def test_a_rejected_record_keeps_its_place_until_its_letter_is_written(bench: Bench) -> None:
    bad = bench.record(TEXT, 500, 0, ce_time=b"yesterday")
    bench.receive(bad, *bench.second(1100, 0))
    rejected, window = await bench.advance(until=1200)
    assert isinstance(rejected, Rejected)
    assert (rejected.record, rejected.error.reason) == (bad, Reason.BAD_HEADER)
    assert isinstance(window, Window)
    assert bench.metric("streamer_events_total", sensor="text", outcome="dead") == 1

    bench.group.window_done(window)
    assert bench.group.releasable() == {}
    assert bench.group.cut_us == bad.log_time_us
    bench.group.ledger.done(rejected.position)
    # the frame on the border is held by a window that is still open, and everything behind it waits with it
    assert logs.next_offsets(bench.group.releasable()) == {TEXT: 1, IMAGE: 1}


@pytest.mark.parametrize("key", [None, b"", b"\xff", b"x" * 129])
async def test_a_record_of_no_session_is_rejected_without_asking_for_one(bench: Bench, key: bytes | None) -> None:
    bench.receive(bench.record(IMAGE, 0, 0, key))
    (rejected,) = await bench.advance(until=100)
    assert isinstance(rejected, Rejected)
    assert bench.loads == []


async def test_a_header_without_a_value_is_a_record_like_others(bench: Bench) -> None:
    record = bench.record(IMAGE, 0, 0)
    headers: Any = (*record.headers, ("empty", None))
    bench.receive(Record(IMAGE, 0, 0, record.log_time_us, b"car", b"x", headers))
    broken: Any = (("ce_type", None),)
    bench.receive(Record(IMAGE, 0, 1, record.log_time_us, b"car", b"x", broken))
    (rejected,) = await bench.advance(until=100)
    assert isinstance(rejected, Rejected)
    assert rejected.record.offset == 1


async def test_a_session_is_loaded_once(bench: Bench) -> None:
    bench.receive(*bench.second(1100, 0), *bench.second(1100, 0, b"van"))
    await bench.advance(until=1200)
    bench.receive(*bench.second(2100, 1000), *bench.second(2100, 1000, b"van"))
    await bench.advance(until=2200)
    assert sorted(bench.loads) == ["car", "van"]


async def test_a_session_goes_on_where_redis_says_that_it_came_to(bench: Bench) -> None:
    heard_us = (T0_US + 1050 * MS_US,) * 4
    closings = {T0_US + S_US: Position(T0_US + 1050 * MS_US, TELEMETRY, 0)}
    bench.stored["car"] = Saved(T0_US + S_US, heard_us, closings, bench.rules.fingerprint)
    replayed = bench.second(1000, 0)
    bench.receive(*replayed, *bench.second(2100, 1000))
    (window,) = await bench.advance(until=2200)
    assert ends([window]) == [2000]
    # these lay before the closing: they were members of the window that is published, and are not late
    assert bench.metric("streamer_events_total", sensor="audio", outcome="replayed") == 1
    assert bench.metric("streamer_events_total", sensor="audio", outcome="late") == 0


async def test_a_tick_asks_for_no_session(bench: Bench) -> None:
    bench.receive(bench.record(IMAGE, 0, 0, None, ce_type=b"streamer.tick.v1"))
    assert await bench.advance(until=100) == []
    assert bench.loads == []
    assert logs.next_offsets(bench.group.releasable()) == {IMAGE: 1}
    assert bench.metric("streamer_events_total", sensor="image", outcome="control") == 1


def tick(bench: Bench, row: int, at: int) -> Record:
    return bench.record(row, at, 0, None, ce_type=b"streamer.tick.v1")


async def test_a_tick_on_an_empty_topic_waits_for_no_other(bench: Bench) -> None:
    """Otherwise it would ask for ticks on the others, those for more on its own, and so on without end."""
    bench.receive(bench.record(IMAGE, 0, 0))
    await bench.advance(until=0)
    bench.receive(*(tick(bench, row, 30_000 + row) for row in ROWS))
    assert bench.group.buffered_bytes == 0
    assert bench.group.releasable() == {}  # the frame before them is in an open window
    (window,) = await bench.advance()
    assert isinstance(window, Window)  # its deadline has passed by the ticks' time
    assert bench.group.next_closing_us is None
    bench.group.window_done(window)
    assert logs.next_offsets(bench.group.releasable()) == {IMAGE: 2, AUDIO: 1, TEXT: 1, TELEMETRY: 1}
    assert bench.group.cut_us == T0_US + 30_000 * MS_US
    assert bench.metric("streamer_events_total", sensor="text", outcome="control") == 1


async def test_a_tick_behind_other_records_of_its_topic_keeps_its_place(bench: Bench) -> None:
    bench.receive(bench.record(IMAGE, 0, 0))
    await bench.advance(until=0)
    bench.receive(bench.record(AUDIO, 100, 0), tick(bench, AUDIO, 200))
    await bench.advance()
    assert bench.group.held(AUDIO) > 0
    assert bench.group.merge.clock_us == T0_US


async def test_before_redis_knows_the_group_a_tick_waits_in_the_merge(bench: Bench) -> None:
    """Its commit would look as if Redis had lost the group."""
    bench.receive(tick(bench, IMAGE, 0))
    assert bench.group.held(IMAGE) > 0
    await bench.advance()
    assert bench.group.releasable() == {}


async def test_a_late_record_leaves_and_is_held_until_its_letter_is_written(bench: Bench) -> None:
    bench.receive(*bench.second(1100, 0))
    (window,) = await bench.advance(until=1200)
    assert isinstance(window, Window)
    bench.group.window_done(window)
    bench.group.releasable()
    bench.receive(bench.record(AUDIO, 1300, -500))
    (late,) = await bench.advance(until=1400)
    assert isinstance(late, Late)
    assert late.late_by_us == 500_000
    assert bench.metric("streamer_events_total", sensor="audio", outcome="late") == 1

    for item in await bench.advance(until=30_000):
        bench.group.window_done(item)  # type: ignore[arg-type]
    assert logs.next_offsets(bench.group.releasable()) == {IMAGE: 2, AUDIO: 1, TEXT: 1, TELEMETRY: 1}
    assert bench.group.ledger.oldest == late.event.position
    bench.group.ledger.done(late.event.position)
    assert logs.next_offsets(bench.group.releasable()) == {AUDIO: 2}


async def test_what_is_released_is_one_consistent_cut_of_all_topics(bench: Bench) -> None:
    bench.receive(*bench.second(1100, 0), *bench.second(2100, 1000), *bench.second(3100, 2000))
    first, second, third = await bench.advance(until=3200)
    assert ends([first, second, third]) == [1000, 2000, 3000]
    assert all(isinstance(window, Window) for window in (first, second, third))

    bench.group.window_done(second)  # type: ignore[arg-type]
    bench.group.window_done(third)  # type: ignore[arg-type]
    assert bench.group.releasable() == {}  # everything after the first window's members waits for them
    assert bench.group.cut_us == T0_US + 1100 * MS_US

    bench.group.window_done(first)  # type: ignore[arg-type]
    grown = bench.group.releasable()
    # the last frame is held by the window that it opened; what came after it in the log waits, whatever its topic
    held = Position(T0_US + 3100 * MS_US, IMAGE, 5)
    assert bench.group.ledger.oldest == held
    assert logs.next_offsets(grown) == {IMAGE: 5, AUDIO: 2, TEXT: 2, TELEMETRY: 2}
    assert bench.group.cut_us == held.log_time_us
    assert bench.group.releasable() == {}  # told once


async def test_with_nothing_pending_the_cut_is_the_merged_clock(bench: Bench) -> None:
    bench.receive(bench.record(IMAGE, 0, 0, None, ce_type=b"streamer.tick.v1"))
    await bench.advance(until=700)
    bench.group.releasable()
    assert bench.group.cut_us == T0_US + 700 * MS_US


async def test_at_most_so_many_records_are_released_at_once_and_none_is_forgotten(bench: Bench) -> None:
    bench.receive(*bench.second(1100, 0))
    for row in ROWS:
        bench.group.merge.advance(row, T0_US + 1200 * MS_US)
    turns = []
    while True:
        leaving, more = await bench.group.advance(bench, 2)
        turns.append((len(leaving), more))
        if not more:
            break
    assert turns == [(0, True), (0, True), (1, False)]


async def test_time_that_passes_in_the_log_closes_windows_without_a_record(bench: Bench) -> None:
    bench.receive(bench.record(AUDIO, 1000, 0))
    assert await bench.advance(until=1100) == []
    (window,) = await bench.advance(until=20_000)
    assert ends([window]) == [1000]


async def leaves_early(turns: int, live_from: int = 0) -> list[tuple[int, int, int]]:
    """End and log time in ms after T0, and members, of a window's early run; the records come in this many turns."""
    bench = Bench(early_ms=100)
    bench.group.live_from_us = T0_US + live_from * MS_US
    records = [record for record in bench.second(1000, 0) if record.row != TEXT]
    records += [bench.record(IMAGE, at, 500) for at in (1099, 1100, 1150)]
    leaving: list[Leaving] = []
    for turn in range(turns):
        part = records[turn * len(records) // turns : (turn + 1) * len(records) // turns]
        bench.receive(*part)
        leaving += await bench.advance(until=part[-1].log_time_us // MS_US - T0_US // MS_US)
    leaving += await bench.advance(until=2000)
    assert not bench.group.releasable()  # all is held by the windows, which are open
    found = [item.window for item in leaving if isinstance(item, Early)]
    return [
        ((w.end_us - T0_US) // MS_US, (w.closed_at.log_time_us - T0_US) // MS_US, sum(map(len, w.events)))
        for w in found
    ]


@pytest.mark.parametrize("turns", [1, 2, 4, 7])
async def test_what_is_run_early_and_when_does_not_depend_on_how_records_come(turns: int) -> None:
    assert await leaves_early(turns) == [(1000, 1100, 4)]


async def test_what_was_to_be_run_early_before_the_group_was_taken_over_is_not() -> None:
    assert await leaves_early(1, live_from=1100) == [(1000, 1100, 4)]
    assert await leaves_early(1, live_from=1101) == []


async def test_a_group_that_is_revoked_while_it_waits_for_redis_does_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def revoked(session: str, group: str) -> Stored:
        bench.group.alive = False
        return Stored(None)

    monkeypatch.setattr(bench, "load", revoked)
    bench.receive(bench.record(IMAGE, 0, 0, None), *bench.second(1100, 0))
    for row in ROWS:
        bench.group.merge.advance(row, T0_US + 1200 * MS_US)
    assert await bench.group.advance(bench, 1000) == ([], False)
    assert bench.group.aligner.sessions == 0
    assert bench.group.aligner.open_bytes == 0


async def test_a_broken_payload_dies_once_however_many_windows_it_is_in(bench: Bench) -> None:
    bench.receive(bench.record(AUDIO, 1100, 500), bench.record(AUDIO, 1100, 600))
    one, other = (Position(T0_US + 1100 * MS_US, AUDIO, offset) for offset in (0, 1))
    assert [bench.group.first_death(p) for p in (one, one, other, one, other)] == [True, False, True, False, False]


async def test_a_death_is_remembered_as_long_as_its_record_is_pending(bench: Bench) -> None:
    bench.receive(*bench.second(1100, 0))
    (window,) = await bench.advance(until=1200)
    assert isinstance(window, Window)
    position = window.events[AUDIO][0].position
    assert bench.group.first_death(position)
    bench.group.releasable()
    assert not bench.group.first_death(position)
    for item in await bench.advance(until=30_000):  # the session ends: its last window closes, nothing is pending
        bench.group.window_done(item)  # type: ignore[arg-type]
    bench.group.window_done(window)
    bench.group.releasable()
    assert len(bench.group.ledger) == 0
    assert bench.group._dead == set()


async def test_log_time_never_steps_back_within_a_partition(bench: Bench) -> None:
    """A leader with a slower clock: its records count as of the newest before them, live and in a replay."""
    bench.receive(bench.record(IMAGE, 500, 0), bench.record(IMAGE, 200, 100), bench.record(IMAGE, 600, 200))
    await bench.advance(until=550)
    assert bench.group.ledger.oldest == Position(T0_US + 500 * MS_US, IMAGE, 0)
    times = [position.log_time_us for position in bench.group.ledger._pending]
    assert times == [T0_US + 500 * MS_US] * 2
    assert bench.metric("streamer_log_time_steps_back_total") == 1
    assert bench.metric("streamer_merge_order_violations_total") == 0


async def test_after_a_restart_log_time_goes_on_from_what_is_committed(bench: Bench) -> None:
    bench.group.resume(IMAGE, T0_US + 500 * MS_US)
    bench.receive(bench.record(IMAGE, 200, 0))
    await bench.advance(until=600)
    assert bench.group.ledger.oldest == Position(T0_US + 500 * MS_US, IMAGE, 0)


@pytest.mark.parametrize("at", [400, 1199], ids=["below a released record", "below the clock of alignment"])
async def test_each_record_below_what_alignment_was_given_is_counted(bench: Bench, at: int) -> None:
    """The bound of an idle topic was wrong: a record was released past it, or time alone."""
    bench.receive(bench.record(IMAGE, 500, 0))
    await bench.advance(until=1200)
    assert bench.metric("streamer_merge_order_violations_total") == 0
    bench.receive(bench.record(AUDIO, at, 300))
    await bench.advance()
    assert bench.metric("streamer_merge_order_violations_total") == 1
    bench.receive(bench.record(AUDIO, 1200, 1200))
    await bench.advance()
    assert bench.metric("streamer_merge_order_violations_total") == 1
