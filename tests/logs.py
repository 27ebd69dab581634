"""Random logs for the properties of alignment, and a run of it through kills and restarts."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from streamer.align.ledger import Ledger
from streamer.align.windows import Aligner, Done, Early, Joined, Late, Outcome, Repeated, Rules
from streamer.events import (
    AUDIO,
    IMAGE,
    KINDS,
    TEXT,
    Event,
    EventType,
    Position,
    Record,
    Saved,
    Sensor,
    Sensors,
    Window,
)
from tests.oracle import Closed

MS = 1000
# Two cameras, two microphones, one source of words; topics are three.
SENSORS = Sensors.of(
    Sensor(name, row)
    for name, row in (("image", IMAGE), ("rear", IMAGE), ("audio", AUDIO), ("cabin", AUDIO), ("text", TEXT))
)
PLENTY = 1 << 40


def rules(rng: random.Random, **fixed: object) -> Rules:
    window, sensors = rng.choice([50, 100, 200]), range(len(SENSORS.all))
    values: dict[str, object] = {
        "window_us": window * MS,
        "hop_us": rng.choice([window, window, window // 2, window // 5]) * MS,
        "disorder_us": tuple(rng.choice([0, 0, 30]) * MS for _ in sensors),
        "max_delay_us": tuple(rng.choice([0, 20, 80, 300]) * MS for _ in sensors),
        "idle_after_us": tuple(rng.choice([50, 150, 400, PLENTY]) * MS for _ in sensors),
        "session_gap_us": rng.choice([300, 700, 1500]) * MS,
        "max_open_bytes": PLENTY,
        "early_us": rng.choice([0, 10, 40, 120]) * MS,
        "sensors": SENSORS,
    }
    return Rules(**{**values, **fixed})  # type: ignore[arg-type]


def log(rng: random.Random, length: int, sensors: Sensors = SENSORS) -> list[Event]:
    """A merged log: dying sensors, pauses, end records, ticks, late, disordered, repeated events, skewed clocks."""
    t = 10_000 * MS
    sessions = [f"s{i}" for i in range(rng.randint(1, 3))]
    skew = {s: rng.choice([0, 0, -5000, 700]) * MS for s in sessions}
    dead: set[tuple[str, int]] = set()
    offsets = [0] * len(KINDS)
    events: list[Event] = []
    recent: dict[tuple[str, int], list[Event]] = {}
    while len(events) < length:
        t += rng.choice([0, 1, 5, 5, 10, 20, 40]) * MS
        if rng.random() < 0.02:
            t += rng.choice([100, 400, 900, 2000]) * MS
        session, sensor = rng.choice(sessions), rng.randrange(len(sensors.all))
        row = sensors.rows[sensor]
        if rng.random() < 0.01:
            dead.add((session, sensor))
        if rng.random() < 0.02:
            dead.clear()
        if (session, sensor) in dead:
            continue
        chance, kind = rng.random(), EventType.DATA
        if chance < 0.03:
            kind = EventType.END
        elif chance < 0.05:
            kind = EventType.TICK
        delay = rng.choice([0, 0, 5, 20, 20, 60, 250]) * MS
        length_us = rng.choice([0, 0, 10, 40, 100, 330]) * MS
        start = t - delay - length_us + skew[session] + (rng.randrange(3) * 7 * MS)
        record = Record(row, 0, offsets[row], t, session.encode(), b"x" * rng.randrange(50), ())
        offsets[row] += 1
        identity = "/device", str(len(events))
        before = recent.setdefault((session, sensor), [])
        others = recent.get((session, (sensor + 1) % len(sensors.all)), [])
        if before and rng.random() < 0.15:  # a repetition; without ce_time it has another time than what it repeats
            again = rng.choice(before[-4:])
            identity = again.identity or identity
            if rng.random() < 0.6:
                start, length_us = again.start_us, again.end_us - again.start_us
        elif others and rng.random() < 0.1:  # the same source and id of another sensor are another event
            identity = rng.choice(others[-4:]).identity or identity
        end = start + (0 if row == IMAGE else length_us)
        events.append(Event(record, session, kind, start, end, identity=identity, sensor=sensor))
        if kind is EventType.DATA:
            before.append(events[-1])
    return sorted(events, key=lambda event: event.position)


def signature(window: Window) -> Closed:
    members = frozenset((e.row, e.record.offset) for events in window.events for e in events)
    return Closed(window.session, window.end_us, str(window.closed_by), window.closed_at, members)


def early(outcomes: list[Outcome]) -> list[Closed]:
    """The early runs among the outcomes."""
    return [signature(outcome.window) for outcome in outcomes if isinstance(outcome, Early)]


def run(rules: Rules, events: list[Event], until_us: int, ticks: random.Random | None = None) -> list[Outcome]:
    """A run without restarts; with ``ticks``, ticked at random times in between."""
    aligner = Aligner(rules, 0)
    outcomes: list[Outcome] = []
    store: dict[str, Saved] = {}
    done = 0
    before = events[0].record.log_time_us if events else 0
    for event in events:
        if ticks is not None:
            for _ in range(ticks.randrange(3)):
                outcomes += aligner.tick(ticks.randint(before, event.record.log_time_us))
        outcomes += aligner.tick(event.record.log_time_us)
        if not aligner.knows(event.session):
            aligner.restore(event.session, store.get(event.session))
        outcomes += aligner.on_event(event)
        for window in (o for o in outcomes[done:] if isinstance(o, Window)):
            store[window.session] = Saved(window.end_us, window.heard_us, {}, rules.fingerprint)
            aligner.published(window)
        done = len(outcomes)
        before = event.record.log_time_us
    return outcomes + aligner.tick(until_us)


@dataclass
class Store:
    """What survives a kill: Redis and the committed offsets."""

    saved: dict[str, Saved] = field(default_factory=dict)
    committed: int = 0  # index in the merged log
    published: dict[tuple[str, int], Closed] = field(default_factory=dict)
    order: list[tuple[str, int]] = field(default_factory=list)
    late: set[tuple[int, int]] = field(default_factory=set)
    repeated: set[tuple[int, int]] = field(default_factory=set)
    replayed: set[tuple[int, int]] = field(default_factory=set)
    early: set[Closed] = field(default_factory=set)  # of all lives

    @property
    def never_joined(self) -> set[tuple[int, int]]:
        """Repeated records that are in no window: after a restart one may repeat an event of those that are left."""
        return self.repeated - {member for closed in self.published.values() for member in closed.members}

    def publish(self, window: Window, fingerprint: str, trim_us: int) -> None:
        key, found = (window.session, window.end_us), signature(window)
        saved = self.saved.get(window.session)
        if saved is not None and window.end_us <= saved.published_end_us:
            assert self.published[key] == found, "a window that was published was rebuilt differently"
            return
        self.published[key] = found
        self.order.append(key)
        closings = dict(saved.closings) if saved is not None else {}
        closings[window.end_us] = window.closed_at
        closings = {end: at for end, at in closings.items() if at.log_time_us >= trim_us}
        self.saved[window.session] = Saved(window.end_us, window.heard_us, closings, fingerprint)


def run_with_kills(rules: Rules, events: list[Event], until_us: int, rng: random.Random, kills: int) -> Store:
    """Process a log with a worker that is killed repeatedly, and restarts at the last commit."""
    store = Store()
    deaths = sorted(rng.randrange(len(events)) for _ in range(kills)) if events else []
    while True:
        stop_at = deaths.pop(0) if deaths else None
        if _life(rules, events, until_us, rng, store, stop_at):
            return store


def _life(
    rules: Rules, events: list[Event], until_us: int, rng: random.Random, store: Store, stop_at: int | None
) -> bool:
    aligner, ledger = Aligner(rules, 0), Ledger()
    waiting: list[Window] = []
    index = store.committed
    trim_us = events[store.committed].record.log_time_us if store.committed < len(events) else 0
    released = store.committed
    index_of = {event.position: number for number, event in enumerate(events)}

    def settle(outcomes: list[Outcome]) -> None:
        for outcome in outcomes:
            match outcome:
                case Window():
                    waiting.append(outcome)
                case Early(window):
                    store.early.add(signature(window))
                case Joined(event, holders):
                    ledger.add(event.position, holders)
                case Late(event, late_by_us):
                    assert late_by_us >= 0
                    store.late.add((event.row, event.record.offset))
                    ledger.add(event.position, 0)
                case Repeated(event):
                    store.repeated.add((event.row, event.record.offset))
                    ledger.add(event.position, 0)
                case Done(event) if event.position in ledger:
                    ledger.done(event.position)
                case Done(event):
                    if event.type is EventType.DATA:
                        store.replayed.add((event.row, event.record.offset))
                    ledger.add(event.position, 0)

    def publish(count: int) -> None:
        for _ in range(count):
            window = waiting.pop(0)
            store.publish(window, rules.fingerprint, trim_us)
            for members in window.events:
                for event in members:
                    ledger.done(event.position)
            aligner.published(window)

    while index < len(events):
        if stop_at is not None and index >= stop_at:
            return False
        event = events[index]
        settle(aligner.tick(event.record.log_time_us))
        if not aligner.knows(event.session):
            aligner.restore(event.session, store.saved.get(event.session))
        settle(aligner.on_event(event))
        index += 1
        if rng.random() < 0.3:
            settle(aligner.tick(event.record.log_time_us))
        publish(rng.randint(0, len(waiting)) if rng.random() < 0.5 else 0)
        done = ledger.release()
        if done:
            released = index_of[done[-1]] + 1
        if rng.random() < 0.3:
            store.committed = released
            trim_us = events[released].record.log_time_us if released < len(events) else until_us
    settle(aligner.tick(until_us))
    publish(len(waiting))
    return True


def next_offsets(released: Mapping[int, Position]) -> dict[int, int]:
    """What would be committed, by row."""
    return {row: position.offset + 1 for row, position in released.items()}
