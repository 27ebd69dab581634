"""The two ends of the windows topic: what leaves role align, and what role infer makes of what comes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from streamer.align.group import PartitionGroup, Rejected
from streamer.errors import BadRecord, Reason, Stop
from streamer.events import IMAGE, ClosedBy, Event, Position, Record, Saved, Stored, Window
from streamer.model.spec import ImageInput, InputSpec
from streamer.observe.metrics import Metrics
from streamer.worker import handover
from streamer.worker.arrivals import Arrival, WindowGroup
from streamer.worker.outbox import Outbox
from tests import logs
from tests.unit.worker.test_handover import T0_US, of_frames

S_US = 1_000_000
WITHIN_S = 10.0


def nth(n: int, session: str = "car", frames: int = 2) -> Window:
    """The n-th window of its session."""
    window = of_frames(frames)
    start_us = T0_US + n * S_US
    return msgspec.structs.replace(window, session=session, start_us=start_us, end_us=start_us + S_US)


def number(end_us: int) -> int:
    return (end_us - T0_US) // S_US - 1


# role align


@dataclass
class Owner:
    alive: bool = True
    fingerprint: str = "rules"
    trim_below_us: int = 77
    done: list[str] = field(default_factory=list)

    def window_done(self, window: Window) -> None:
        self.done.append(window.id)

    def first_death(self, position: Position) -> bool:
        raise AssertionError("no record is broken here")

    def suspicion(self, window: Window) -> int | None:
        raise AssertionError("nothing is run here")

    def lost_until_us(self, window: Window) -> int:
        return 5


class Bench:
    """An outbox between a broker and a Redis that do as the test says."""

    def __init__(self, max_bytes: int = 1 << 20, frames: int = 1) -> None:
        self.sent: list[tuple[str, int]] = []
        self.values: list[bytes] = []
        self.recorded: list[Any] = []
        self.letters: list[tuple[Event, BadRecord]] = []
        self.holds: dict[str, asyncio.Event] = {}
        self.metrics = Metrics(CollectorRegistry())
        self.owner = Owner()
        self.outbox = Outbox(
            InputSpec(image=ImageInput(frames=frames, height=8, width=8)),
            max_bytes,
            self,  # type: ignore[arg-type]
            self.metrics,
            self._send,
            self._refuse,
            lambda: None,
        )

    async def _send(self, key: bytes, value: bytes, headers: handover.Headers) -> None:
        record = Record(0, 0, len(self.sent), T0_US, key, value, headers)
        window, _ = handover.decode(record)
        if window.id in self.holds:
            await self.holds[window.id].wait()
        self.sent.append((window.session, number(window.end_us)))
        self.values.append(value)

    async def _refuse(self, owner: Any, event: Event, error: BadRecord) -> None:
        self.letters.append((event, error))

    async def record(self, emissions: list[Any]) -> list[bool]:
        self.recorded += [(e.window.session, number(e.window.end_us)) for e in emissions]
        return [True] * len(emissions)

    async def run(self, *windows: Window) -> None:
        for window in windows:
            self.outbox.submit(self.owner, window)
        self.outbox.close()
        await asyncio.wait_for(self.outbox.run(), WITHIN_S)


async def test_windows_are_sent_then_recorded_then_done() -> None:
    bench = Bench()
    await bench.run(nth(0), nth(1), nth(0, "bus"))
    assert sorted(bench.sent) == sorted(bench.recorded) == [("bus", 0), ("car", 0), ("car", 1)]
    assert bench.owner.done == [nth(0).id, nth(1).id, nth(0, "bus").id]
    assert (bench.outbox.inflight_windows, bench.outbox.inflight_bytes) == (0, 0)


async def test_a_window_is_sent_only_when_the_one_before_it_is_acknowledged() -> None:
    bench = Bench()
    held = bench.holds[nth(0).id] = asyncio.Event()
    running = asyncio.create_task(bench.run(nth(0), nth(1), nth(7, "bus")))
    await asyncio.sleep(0.05)
    assert bench.sent == [("bus", 7)]  # another session need not wait
    assert bench.recorded == bench.owner.done == []
    held.set()
    await running
    assert bench.sent == [("bus", 7), ("car", 0), ("car", 1)]


async def test_windows_of_a_group_that_is_gone_are_neither_sent_nor_recorded() -> None:
    bench = Bench()
    held = bench.holds[nth(0).id] = asyncio.Event()
    running = asyncio.create_task(bench.run(nth(0), nth(1)))
    await asyncio.sleep(0.05)
    bench.owner.alive = False  # the first is on its way
    held.set()
    await running
    assert bench.sent == [("car", 0)]
    assert bench.recorded == bench.owner.done == []
    assert bench.outbox.inflight_bytes == 0


async def test_what_is_in_flight_counts_until_it_is_recorded() -> None:
    bench = Bench()
    window = nth(0)
    bench.outbox.submit(bench.owner, window)
    assert (bench.outbox.inflight_windows, bench.outbox.inflight_bytes) == (1, window.nbytes)


async def test_a_record_that_would_be_too_large_goes_without_payloads() -> None:
    bench = Bench(max_bytes=1000)
    await bench.run(nth(0))
    window, facts = handover.decode(Record(0, 0, 0, T0_US, b"car", bench.values[0], handover.headers(nth(0))))
    assert [event.left_behind for event in window.events[IMAGE]] == [True, True]
    assert (facts.lost_until_us, facts.trim_below_us) == (5, 77)
    assert bench.metrics.window_records.labels("bare")._value.get() == 1
    assert bench.letters == []


async def test_a_window_with_too_many_members_to_tell_of_is_emptied_and_its_records_are_dead_letters() -> None:
    crowd = nth(0)
    frame = crowd.events[IMAGE][0]
    many = tuple(
        msgspec.structs.replace(frame, record=msgspec.structs.replace(frame.record, offset=i)) for i in range(1000)
    )
    crowd = msgspec.structs.replace(crowd, events=(many, (), (), ()))
    bench = Bench(max_bytes=1000)
    await bench.run(crowd, nth(1))
    assert bench.sent == [("car", 0), ("car", 1)]
    assert [event.record.offset for event, _ in bench.letters] == list(range(1000))
    assert {error.reason for _, error in bench.letters} == {Reason.TOO_LARGE}
    window, _ = handover.decode(Record(0, 0, 0, T0_US, b"car", bench.values[0], handover.headers(crowd)))
    assert window.events == ((), (), (), ())


def as_it_stands(window: Window, at_us: int = T0_US) -> Window:
    """To be run early."""
    return msgspec.structs.replace(window, closed_by=ClosedBy.OPEN, closed_at=Position(at_us, -1, -1))


async def test_open_windows_are_sent_after_closed_ones_and_not_recorded() -> None:
    bench = Bench()
    for early in (nth(1), nth(0, "bus"), nth(0)):
        bench.outbox.submit_early(bench.owner, as_it_stands(early))
    bench.outbox.submit(bench.owner, nth(0))  # it closes before its early run is sent
    running = asyncio.create_task(bench.outbox.run())
    async with asyncio.timeout(WITHIN_S):
        while len(bench.sent) < 3:  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0)
    bench.outbox.close()
    await asyncio.wait_for(running, WITHIN_S)
    assert bench.sent == [("car", 0), ("car", 1), ("bus", 0)]
    assert bench.recorded == [("car", 0)]
    assert bench.owner.done == [nth(0).id]
    sent = [handover.decode(Record(0, 0, 0, T0_US, b"x", value, handover.headers(nth(0))))[0] for value in bench.values]
    assert [window.closed_by is ClosedBy.OPEN for window in sent] == [False, True, True]


async def test_an_open_window_is_not_sent_without_payloads_nor_without_what_the_model_takes() -> None:
    bench = Bench(max_bytes=1000)
    bench.outbox.submit_early(bench.owner, as_it_stands(nth(0)))
    nothing = msgspec.structs.replace(nth(1), events=((), (), (), ()))
    bench.outbox.submit_early(bench.owner, as_it_stands(nothing))
    running = asyncio.create_task(bench.outbox.run())
    await asyncio.sleep(0.05)
    bench.outbox.close()
    await asyncio.wait_for(running, WITHIN_S)
    assert bench.sent == []
    assert bench.letters == []


# role infer


class Arrivals:
    """A group of role infer and what Redis has of its sessions."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.group = WindowGroup(0, 1 << 20, self.metrics, name="streamer-infer:0")
        self.stored: dict[str, Stored] = {}
        self.loads: list[str] = []
        self.offset = 0

    async def load(self, session: str, group: str) -> Stored:
        self.loads.append(session)
        return self.stored.get(session, Stored(None))

    async def open_group(self, group: str) -> int | None:
        raise AssertionError("nothing that Redis may lose makes a window here incomplete")

    async def note_group(self, group: str, lost_until_us: int) -> None:
        raise AssertionError

    def receive(self, *windows: Window) -> None:
        for window in windows:
            flags = [[True] * len(events) for events in window.events]
            value = handover.encode(
                window, flags, closed_us=9, fingerprint="rules", trim_below_us=8, lost_until_us=number(window.end_us)
            )
            self.take(Record(0, 0, self.offset, T0_US, window.session.encode(), value, handover.headers(window)))

    def take(self, record: Record) -> None:
        self.group.receive(record)
        self.offset = record.offset + 1

    async def advance(self) -> list[Arrival]:
        leaving, more = await self.group.advance(self, 1000)
        assert not more
        return [item for item in leaving if isinstance(item, Arrival)]

    def repeated(self) -> float:
        return float(self.metrics.window_records.labels("repeated")._value.get())


def ids(arrivals: list[Arrival]) -> list[tuple[str, int]]:
    return [(a.window.session, number(a.window.end_us)) for a in arrivals]


async def test_windows_leave_in_order_and_are_committed_when_all_before_them_are_done() -> None:
    bench = Arrivals()
    bench.receive(nth(0), nth(0, "bus"), nth(1))
    first, other, second = await bench.advance()
    assert ids([first, other, second]) == [("car", 0), ("bus", 0), ("car", 1)]
    assert bench.loads == ["car", "bus"]
    assert bench.group.releasable() == {}
    second.window_done(second.window)
    other.window_done(other.window)
    assert bench.group.releasable() == {}
    first.window_done(first.window)
    assert logs.next_offsets(bench.group.releasable()) == {0: 3}
    assert bench.group.owners == ()


async def test_a_window_that_came_before_is_passed_over_and_committed_after_it() -> None:
    bench = Arrivals()
    bench.receive(nth(0), nth(1), nth(0), nth(1), nth(2))
    arrivals = await bench.advance()
    assert ids(arrivals) == [("car", 0), ("car", 1), ("car", 2)]
    assert bench.repeated() == 2
    for arrival in arrivals[:2]:
        arrival.window_done(arrival.window)
    assert logs.next_offsets(bench.group.releasable()) == {0: 4}


async def test_what_redis_has_already_is_passed_over_after_a_restart() -> None:
    bench = Arrivals()
    saved = Saved(nth(1).end_us, (0, 0, 0, 0), {}, "rules")
    bench.stored["car"] = Stored(saved, {nth(2).end_us: 1, nth(9).end_us: 0})
    bench.receive(nth(1), nth(2), nth(3))
    arrivals = await bench.advance()
    assert ids(arrivals) == [("car", 2), ("car", 3)]
    assert [arrival.suspicion(arrival.window) for arrival in arrivals] == [1, None]
    assert [arrival.lost_until_us(arrival.window) for arrival in arrivals] == [2, 3]
    assert {(a.fingerprint, a.trim_below_us, a.facts.closed_us) for a in arrivals} == {("rules", 8, 9)}


class Sink:
    """Notes what it is handed: number and whether it is open."""

    inflight_bytes = 0

    def __init__(self) -> None:
        self.taken: list[tuple[int, bool]] = []

    def submit(self, owner: Any, window: Window, closed_us: int | None = None) -> None:
        self.taken.append((number(window.end_us), False))

    def submit_early(self, owner: Any, window: Window) -> None:
        self.taken.append((number(window.end_us), True))


async def test_an_early_run_is_handed_on_before_its_window_and_holds_no_commit() -> None:
    bench, sink = Arrivals(), Sink()
    bench.receive(as_it_stands(nth(0)), nth(0), as_it_stands(nth(0)), as_it_stands(nth(1)))
    arrivals = await bench.advance()
    for arrival in arrivals:
        bench.group.submit(arrival, sink)  # type: ignore[arg-type]
    assert sink.taken == [(0, True), (0, False), (1, True)]
    assert len(bench.group.owners) == 1
    arrivals[1].window_done(arrivals[1].window)
    assert logs.next_offsets(bench.group.releasable()) == {0: 4}


async def test_an_early_run_from_before_the_worker_took_over_is_passed_over() -> None:
    bench = Arrivals()
    bench.group.live_from_us = T0_US + 1
    bench.receive(as_it_stands(nth(0)), as_it_stands(nth(1), T0_US + 1))
    assert ids(await bench.advance()) == [("car", 1)]


async def test_a_record_that_is_none_keeps_its_place_until_its_letter_is_sent() -> None:
    bench = Arrivals()
    bench.receive(nth(0))
    bench.take(Record(0, 0, 1, T0_US, b"car", b"junk", handover.headers(nth(0))))
    bench.receive(nth(1))
    leaving, _ = await bench.group.advance(bench, 1000)
    (rejected,) = [item for item in leaving if isinstance(item, Rejected)]
    for item in leaving:
        if isinstance(item, Arrival):
            item.window_done(item.window)
    assert logs.next_offsets(bench.group.releasable()) == {0: 1}
    bench.group.ledger.done(rejected.position)
    assert logs.next_offsets(bench.group.releasable()) == {0: 3}


async def test_a_record_that_is_delivered_twice_is_taken_once() -> None:
    bench = Arrivals()
    bench.receive(nth(0))
    bench.offset = 0
    bench.receive(nth(0))
    assert ids(await bench.advance()) == [("car", 0)]
    assert bench.repeated() == 0


async def test_idle_sessions_are_forgotten_and_looked_up_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.worker.arrivals.MAX_IDLE_SESSIONS", 2)
    bench = Arrivals()
    bench.receive(nth(0, "a"))
    (busy,) = await bench.advance()
    for name in "bcd":
        bench.receive(nth(0, name))
        for arrival in await bench.advance():
            arrival.window_done(arrival.window)
    bench.receive(nth(1, "a"), nth(1, "d"), nth(1, "b"))
    await bench.advance()
    assert bench.loads == ["a", "b", "c", "d", "b"]  # a has a window on its way, and is not forgotten
    busy.window_done(busy.window)


async def test_bytes_in_the_fifo_are_bounded_by_holding_the_partition() -> None:
    bench = Arrivals()
    bench.group = WindowGroup(0, 2000, bench.metrics, name="x")
    bench.receive(nth(0))
    assert bench.group.merge.full(0)
    await bench.advance()
    assert not bench.group.merge.full(0)


def test_a_payload_of_several_windows_is_dead_lettered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("streamer.worker.arrivals.MAX_DEAD", 2)
    group = Arrivals().group
    one, two, three = (Position(1, 0, offset) for offset in range(3))
    assert [group.first_death(p) for p in (one, one, two, three, two)] == [True, False, True, True, False]
    assert group.first_death(one)  # too long ago


async def test_role_all_refuses_a_session_of_which_windows_are_on_their_way() -> None:
    from tests.unit.align.test_group import T0_US as BEGIN_US
    from tests.unit.align.test_group import Bench as GroupBench

    bench = GroupBench()

    async def load(session: str, group: str) -> Stored:
        return Stored(Saved(BEGIN_US, (0, 0, 0, 0), {}, "rules"), emitted_end_us=BEGIN_US + S_US)

    bench.load = load  # type: ignore[method-assign]
    assert isinstance(bench.group, PartitionGroup)
    bench.receive(bench.record(IMAGE, 0, 0))
    with pytest.raises(Stop, match="windows of session car that role align has closed are not published yet"):
        await bench.advance(until=10)
