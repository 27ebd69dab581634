"""The pace of a feed, on a clock that only ``sleep`` advances."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from streamer.events import END_TYPE, IMAGE, TELEMETRY
from streamer.feeds import Outgoing, pace
from streamer.feeds.producer import end_record

MS = 1000
T0_US = 1_700_000_000_000_000


@dataclass
class Clock:
    """Seconds of a clock that stands still between sleeps."""

    now_s: float = 50.0
    sleeps: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.sleeps.append(seconds)
        self.now_s += seconds

    def time_ns(self) -> int:
        return int(self.now_s * 1e9)


@dataclass
class Sent:
    """Replaces the producer and records its calls with their times."""

    clock: Clock
    slow_s: float = 0.0
    log: list[str] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    def send(self, outgoing: Outgoing) -> None:
        self.log.append("end" if outgoing.ce_type == END_TYPE else outgoing.payload.decode())
        self.times_s.append(self.clock.now_s)
        self.clock.now_s += self.slow_s

    def flush(self) -> None:
        self.log.append("|")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for name in ("monotonic", "sleep", "time_ns"):
        monkeypatch.setattr(pace, name, getattr(clock, name))
    return clock


def record(due_ms: int, name: str = "x") -> Outgoing:
    due_us = T0_US + due_ms * MS
    return Outgoing(IMAGE, "s", due_us, name.encode(), "image/jpeg", due_us)


def feed(*due_ms: int) -> list[Outgoing]:
    return [record(due, str(due)) for due in due_ms]


def end(due_ms: int) -> Outgoing:
    return end_record("s", T0_US, T0_US + due_ms * MS)


def send(stream: list[Outgoing], sent: Sent, speed: float) -> int:
    return pace.send(stream, sent, speed=speed)  # type: ignore[arg-type]


def test_records_go_in_their_order_and_are_counted(clock: Clock) -> None:
    sent = Sent(clock)
    assert send(feed(0, 5, 5, 7), sent, speed=1) == 4
    assert sent.log == ["0", "5", "5", "7", "|"]


def test_nothing_to_send_is_nothing_sent(clock: Clock) -> None:
    sent = Sent(clock)
    assert send([], sent, speed=1) == 0
    assert (sent.log, clock.sleeps) == (["|"], [])


@pytest.mark.parametrize(("speed", "factor"), [(1, 1.0), (2, 0.5), (0.5, 2.0)])
def test_each_goes_when_it_is_due_counted_from_the_first(clock: Clock, speed: float, factor: float) -> None:
    sent = Sent(clock)
    send(feed(300, 400, 400, 1300), sent, speed)
    assert [t - 50.0 for t in sent.times_s] == pytest.approx([0.0, 0.1 * factor, 0.1 * factor, 1.0 * factor])


def test_a_slow_send_is_caught_up_with(clock: Clock) -> None:
    sent = Sent(clock, slow_s=0.25)
    send(feed(0, 100, 1000), sent, speed=1)
    assert [t - 50.0 for t in sent.times_s] == pytest.approx([0.0, 0.25, 1.0])
    assert clock.sleeps == pytest.approx([0.5])


def test_at_full_speed_nobody_sleeps_and_topics_stay_close(clock: Clock) -> None:
    sent = Sent(clock)
    send(feed(1000, 1100, 1199, 1200, 1350, 1400, 9000, 9001), sent, speed=0)
    assert clock.sleeps == []
    assert sent.log == ["1000", "1100", "1199", "|", "1200", "1350", "|", "1400", "|", "9000", "9001", "|"]


def test_at_its_own_pace_there_are_no_barriers(clock: Clock) -> None:
    sent = Sent(clock)
    send(feed(0, 1000, 2000), sent, speed=1)
    assert sent.log == ["0", "1000", "2000", "|"]


@pytest.mark.parametrize("speed", [0, 1])
def test_an_end_goes_after_kafka_has_everything_before_it(clock: Clock, speed: float) -> None:
    sent = Sent(clock)
    send([record(0, "a"), record(10, "b"), end(10), record(20, "c")], sent, speed)
    assert sent.log == ["a", "b", "|", "end", "c", "|"]


def test_an_end_waits_for_its_due_time_too(clock: Clock) -> None:
    sent = Sent(clock)
    send([record(0), end(500)], sent, speed=1)
    assert sent.times_s[1] - sent.times_s[0] == pytest.approx(0.5)


def test_each_is_told_after_it_was_sent(clock: Clock) -> None:
    sent, told = Sent(clock), []

    def on_sent(outgoing: Outgoing) -> None:
        told.append((outgoing.payload.decode(), len(sent.log)))

    pace.send(feed(0, 1, 2), sent, speed=0, on_sent=on_sent)  # type: ignore[arg-type]
    assert told == [("0", 1), ("1", 2), ("2", 3)]


def test_what_cannot_be_sent_ends_the_feed(clock: Clock) -> None:
    class Refuses(Sent):
        def flush(self) -> None:
            raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        send(feed(0), Refuses(clock), speed=1)


HOP_US = 1_000_000


@pytest.mark.parametrize(("now_s", "begins_s"), [(50.0, 50), (50.000001, 51), (50.9, 51)])
@pytest.mark.parametrize("speed", [1, 0.25])
def test_a_feed_at_its_own_pace_begins_on_the_next_border(
    clock: Clock, now_s: float, begins_s: int, speed: float
) -> None:
    clock.now_s = now_s
    assert pace.start_us(speed, 60 * HOP_US, HOP_US) == begins_s * HOP_US


@pytest.mark.parametrize("speed", [0, 1.5, 10])
@pytest.mark.parametrize("now_s", [5000.0, 5000.4, 5000.999])
def test_a_faster_feed_begins_on_a_border_and_ends_before_now(clock: Clock, now_s: float, speed: float) -> None:
    clock.now_s = now_s
    begins_us = pace.start_us(speed, 60_500_000, HOP_US)
    assert begins_us % HOP_US == 0
    assert now_s * 1e6 - HOP_US < begins_us + 60_500_000 <= now_s * 1e6


def test_an_end_record_lies_on_the_telemetry_topic_and_ends_its_session() -> None:
    record = end_record("s", 5, 7)
    assert (record.row, record.ce_type, record.payload, record.due_us) == (TELEMETRY, END_TYPE, b"", 7)
