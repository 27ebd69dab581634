"""What must have come of a run, worked out again from Kafka's logs and compared with what is in Redis.

Independent of the code under test: it sorts the source topics by log time itself, reads the headers with a few lines of
its own, and takes the windows from the slow oracle. It does not know what a feed meant to send, only what is in the
log: a record whose sending was in doubt and that was sent twice is two records.

A record's log time is the largest append time of its partition up to and including it: where a broker whose clock is
behind begins to lead a partition, its records count as appended when the last one before them was.

Sessions are held to the oracle *exactly*, but for two kinds, of which only the accounts are checked: those with
``memory`` closings, which depend on what else was open, and those with fuzzed records (header ``x-fuzz``) that the
worker did not refuse, whose times a few lines cannot tell; ``x-fuzz: broken`` must be refused. Every session must have
ended when a run is verified.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote

import msgspec
import redis
from kafka import KafkaConsumer, TopicPartition
from kafka.partitioner.default import murmur2

from streamer.events import AUDIO, IMAGE, KIND_NAMES, KINDS, TELEMETRY, TEXT, Event, EventType, Record
from streamer.settings import Settings
from tests.oracle import Closed, Drive, Oracle

FUZZ, BROKEN = "x-fuzz", b"broken"
END_TYPE, TICK_TYPE = b"streamer.end.v1", b"streamer.tick.v1"
ORIGIN = "deadletter_origin"
NEVER_US = 1 << 62
SHOWN = 12  # differences in a message
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Place(NamedTuple):
    """Where a source record lies."""

    row: int
    partition: int
    offset: int


@dataclass(frozen=True)
class Rules:
    """The window settings, as ``tests.oracle`` asks for them."""

    window_us: int
    hop_us: int
    disorder_us: tuple[int, ...]
    max_delay_us: tuple[int, ...]
    idle_after_us: tuple[int, ...]
    session_gap_us: int
    max_ahead_us: int
    max_event_us: int
    sensors: tuple[tuple[str, int], ...]  # (name, row)
    offset_us: tuple[int, ...]
    early_us: int = 0  # the results stream knows no early run

    @classmethod
    def of(cls, settings: Settings) -> Rules:
        # in the order of the result's schema: by kind, the one called like it first, then by name
        found = sorted(
            (KIND_NAMES.index(one.kind), name != one.kind, name)
            for name, one in settings.sensors.items()
            if one.enabled
        )
        rows = [settings.sensors[name] for _, _, name in found]
        return cls(
            window_us=settings.window_ms * 1000,
            hop_us=(settings.hop_ms or settings.window_ms) * 1000,
            disorder_us=tuple(row.disorder_ms * 1000 for row in rows),
            max_delay_us=tuple(row.max_delay_ms * 1000 for row in rows),
            idle_after_us=tuple(NEVER_US if row.idle_after_ms is None else row.idle_after_ms * 1000 for row in rows),
            session_gap_us=settings.session_gap_ms * 1000,
            max_ahead_us=settings.max_ahead_ms * 1000,
            max_event_us=settings.max_event_ms * 1000,
            sensors=tuple((name, kind) for kind, _, name in found),
            offset_us=tuple(round(row.offset_ms * 1000) for row in rows),
        )


READ = frozenset(KIND_NAMES)  # the sensors that models/driving reads: a window of others alone is empty


@dataclass(frozen=True)
class Published:
    """A result as Redis has it."""

    session: str
    end_us: int
    closed_by: str
    present: frozenset[str]
    members: frozenset[tuple[int, int]]  # (row, offset)
    status: str
    outputs: dict[str, Any]
    embedding: bytes


@dataclass(frozen=True)
class Letter:
    """A record of the late or the dead-letter topic."""

    origin: Place
    partition: int
    offset: int
    reason: str = ""


@dataclass(frozen=True)
class Snapshot:
    """What was committed at some moment, and what was published and in the side topics then or a little later."""

    committed: Mapping[tuple[int, int], int]  # (row, partition) -> next offset
    published_end_us: Mapping[str, int]
    side_ends: Mapping[tuple[str, int], int]  # ("late" or "dead", partition) -> end offset


@dataclass
class Found:
    """Everything that a run left behind.

    Attributes:
        ends: Ends of the logs, by row and partition, where they are after the last record: markers of transactions and
            aborted records are not among the sources.
    """

    sources: list[Record]
    late: list[Letter]
    dead: list[Letter]
    results: dict[str, list[Published]]
    committed: dict[tuple[int, int], int]
    ends: dict[tuple[int, int], int] = field(default_factory=dict)


@dataclass
class Summary:
    """What was verified, in figures."""

    records: int = 0
    sessions: int = 0
    exact: int = 0
    windows: Counter[str] = field(default_factory=Counter)
    statuses: Counter[str] = field(default_factory=Counter)
    late: int = 0
    dead: int = 0
    repeated_letters: int = 0
    repeated: int = 0
    control: int = 0
    stepped_back: int = 0
    snapshots: int = 0

    def __str__(self) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.windows.items()))
        statuses = ", ".join(f"{count:,} {s}" for s, count in sorted(self.statuses.items()) if s != "ok")
        return (
            f"{self.records:,} records of {self.sessions} sessions ({self.exact} held to the oracle) = "
            f"{sum(self.windows.values()):,} windows ({reasons}{'; ' + statuses if statuses else ''}) + "
            f"{self.late:,} late + {self.dead:,} dead + {self.repeated:,} repeated + {self.control} control; "
            "0 lost, 0 doubled, 0 different; "
            f"{self.stepped_back} stamped below an earlier record of their partition; "
            f"{self.repeated_letters} letters repeated; {self.snapshots} commits checked"
        )


@dataclass
class Differences:
    """Windows that are not as the log makes them, by session and end.

    Attributes:
        windows: How many the log makes.
        members: Published with other members.
        reasons: Published with their members, but closed for another reason.
        lost: Made by the log, not published.
        invented: Published, not made by the log.
    """

    windows: int = 0
    members: set[tuple[str, int]] = field(default_factory=set)
    reasons: set[tuple[str, int]] = field(default_factory=set)
    lost: set[tuple[str, int]] = field(default_factory=set)
    invented: set[tuple[str, int]] = field(default_factory=set)

    def __bool__(self) -> bool:
        return bool(self._all)

    def __str__(self) -> str:
        return (
            f"{len(self._all)} of {self.windows} windows different ({len(self.members)} other members, "
            f"{len(self.reasons)} other reasons, {len(self.lost)} lost, {len(self.invented)} that should not be)"
        )

    @property
    def _all(self) -> set[tuple[str, int]]:
        return self.members | self.reasons | self.lost | self.invented


class WrongRun(AssertionError):
    """A run that is not as its log says.

    Attributes:
        differences: Its windows.
    """

    def __init__(self, text: str, differences: Differences) -> None:
        super().__init__(text)
        self.differences = differences


class LongOracle(Oracle):
    """The slow oracle for logs of minutes: it forgets events that no open window can hold any more."""

    def _close(self, name: str, life: Drive, end: int, at: tuple[int, int, int], reason: str | None = None) -> None:
        super()._close(name, life, end, at, reason)
        furthest = {event.sensor: event for _, event in sorted(life.joined, key=lambda item: item[1].end_us)}
        kept = []
        for t, event in life.joined:
            if event is furthest[event.sensor] or max(self._overlapped(event)) > end:
                kept.append((t, event))
            else:
                life.heard_from[event.sensor] = max(life.heard_from[event.sensor], t)
        life.joined = kept


# the log


def with_log_times(sources: Sequence[Record]) -> list[Record]:
    """The records, each stamped with the largest append time of its partition up to and including it."""
    newest_us: dict[tuple[int, int], int] = defaultdict(int)
    stamped = []
    for source in sorted(sources, key=_place):
        log = source.row, source.partition
        newest_us[log] = max(newest_us[log], source.log_time_us)
        stamped.append(msgspec.structs.replace(source, log_time_us=newest_us[log]))
    return stamped


def parse(source: Record, rules: Rules) -> Event | str:
    """The event of a well-formed test record, or the reason for which it must be dead-lettered."""
    headers = dict(source.headers)
    session, t = (source.key or b"").decode(), source.log_time_us
    if headers["ce_type"] in (END_TYPE, TICK_TYPE):
        return Event(source, session, EventType.END if headers["ce_type"] == END_TYPE else EventType.TICK, t, t)
    name = headers.get("ce_sensor", KIND_NAMES[source.row].encode()).decode()
    if (name, source.row) not in rules.sensors:
        return "unknown_sensor"
    sensor = rules.sensors.index((name, source.row))
    start_us = (datetime.fromisoformat(headers["ce_time"].decode()) - EPOCH) // MICROSECOND
    start_us += rules.offset_us[sensor]
    identity = headers["ce_source"].decode(), headers["ce_id"].decode()
    length_us = 0
    if source.row == AUDIO:
        rate_hz = int(headers["content-type"].decode().split("rate=")[1].split(";")[0])
        length_us = len(source.value) // 2 * 1_000_000 // rate_hz
    elif source.row == TEXT:
        spoken = json.loads(source.value)
        start_us += round(spoken["start"] * 1e6)
        length_us = round(spoken["end"] * 1e6) - round(spoken["start"] * 1e6)
    elif source.row == TELEMETRY:
        length_us = round(_samples(source) / _rate_hz(source) * 1e6)
    if length_us > rules.max_event_us:
        return "too_long"
    if start_us + length_us > t + rules.max_ahead_us:
        return "clock_ahead"
    return Event(source, session, EventType.DATA, start_us, start_us + length_us, identity=identity, sensor=sensor)


def _samples(source: Record) -> int:
    return max(len(channel["values"]) for channel in json.loads(source.value)["channels"].values())


def _rate_hz(source: Record) -> float:
    return float(json.loads(source.value)["rate_hz"])


def present(members: Iterable[Event], names: Sequence[str], start_us: int, end_us: int) -> tuple[set[str], set[str]]:
    """Sensors that certainly have data in ``[start_us, end_us)``, and those that may have.

    In doubt is what depends on how a border is rounded: a share of an audio chunk shorter than two samples, a telemetry
    sample within 2 µs of it.
    """
    sure, maybe = set(), set()
    for event in members:
        name = names[event.sensor]
        shared_us = min(event.end_us, end_us) - max(event.start_us, start_us)
        if event.row == IMAGE:
            here = doubt = start_us <= event.start_us < end_us
        elif event.row == AUDIO:
            here, doubt = shared_us > 250, shared_us > 0  # 125 µs a sample at 8 kHz
        elif event.row == TEXT:
            here = doubt = shared_us > 0 or event.start_us == event.end_us
        else:
            step_us = 1e6 / _rate_hz(event.record)
            times = [event.start_us + k * step_us for k in range(_samples(event.record))]
            here = any(start_us + 2 <= t < end_us - 2 for t in times)
            doubt = any(start_us - 2 <= t < end_us + 2 for t in times)
        if here:
            sure.add(name)
        if doubt:
            maybe.add(name)
    return sure, maybe


def is_fuzzed(source: Record) -> bool:
    return any(name == FUZZ for name, _ in source.headers)


def _session(source: Record) -> str:
    return (source.key or b"").decode("utf-8", "replace")


def _place(source: Record) -> Place:
    return Place(source.row, source.partition, source.offset)


# the checks


class _Check:
    """One verification; collects everything that is wrong before it says so."""

    def __init__(self, found: Found, rules: Rules) -> None:
        self.found, self.rules = found, rules
        self.problems: list[str] = []
        self.differences = Differences()
        self.places = {_place(source): source for source in with_log_times(found.sources)}
        self.late = {letter.origin for letter in found.late}
        self.dead = {letter.origin for letter in found.dead}
        self.partition_of: dict[str, int] = {}
        self.partitions = 1 + max(partition for _, partition in found.committed)
        self.events: dict[str, list[Event]] = defaultdict(list)
        self.refused: dict[Place, str] = {}
        self.control: set[Place] = set()
        self.repeated: set[Place] = set()  # in no window, since an earlier record of the event was in it
        self.loose = {
            session for session, results in found.results.items() if any(r.closed_by == "memory" for r in results)
        }
        self.held_until_us: dict[Place, int] = {}  # end of the last window that holds a record
        self.members: set[Place] = set()
        self.published_members = {
            (session, row, offset)
            for session, results in found.results.items()
            for result in results
            for row, offset in result.members
        }

    def problem(self, text: str) -> None:
        self.problems.append(text)

    def read_log(self) -> None:
        for source in sorted(self.places.values(), key=lambda s: (s.log_time_us, s.row, s.offset)):
            place = _place(source)
            if is_fuzzed(source):
                self._read_fuzzed(source, place)
                continue
            event = parse(source, self.rules)
            if isinstance(event, str):
                self.refused[place] = event
                continue
            if event.type is not EventType.DATA:
                self.control.add(place)
            if source.key is None:  # a tick, of no session
                continue
            self.events[event.session].append(event)
            if self.partition_of.setdefault(event.session, source.partition) != source.partition:
                self.problem(f"the feed is wrong: session {event.session} lies in two partitions")

    def _read_fuzzed(self, source: Record, place: Place) -> None:
        """What was refused must not show; what was not makes its session one that cannot be told exactly."""
        session = _session(source)
        if place in self.dead:
            self.refused[place] = "fuzz"
            home = (murmur2(source.key or b"") & 0x7FFFFFFF) % self.partitions
            if source.partition != home or (session, source.row, source.offset) not in self.published_members:
                return
        if (FUZZ, BROKEN) in source.headers:
            self.problem(f"{place} (session {session}) is broken beyond doubt, but was not refused")
        self.loose.add(session)
        self.partition_of.setdefault(session, source.partition)
        if dict(source.headers).get("ce_type") in (END_TYPE, TICK_TYPE):
            self.control.add(place)

    def windows(self, summary: Summary) -> None:
        for session in sorted(set(self.events) | set(self.found.results) | self.loose):
            results = self.found.results.get(session, [])
            ends = [result.end_us for result in results]
            doubled = sorted(end for end, count in Counter(ends).items() if count > 1)
            if doubled:
                self.problem(f"session {session}: windows published twice: {doubled}")
            elif ends != sorted(ends):
                self.problem(f"session {session}: windows out of order: {ends}")
            if session in self.loose:
                self._hold(session, results)
            else:
                summary.exact += 1
                self._exactly(session, results)
            summary.windows.update(result.closed_by for result in results)
            summary.statuses.update(result.status for result in results)

    def _hold(self, session: str, results: Sequence[Published]) -> None:
        partition = self.partition_of.get(session)
        if partition is None:
            self.problem(f"session {session}: has results, but no record of it is in the log")
            return
        for result in results:
            for row, offset in result.members:
                place = Place(row, partition, offset)
                source = self.places.get(place)
                if source is None or _session(source) != session:
                    self.problem(f"window {session}/{result.end_us}: {place} is no record of its session")
                self.members.add(place)
                self.held_until_us[place] = max(self.held_until_us.get(place, 0), result.end_us)

    def _exactly(self, session: str, results: Sequence[Published]) -> None:
        events = self.events[session]
        oracle = LongOracle(self.rules).run(events, NEVER_US)
        wanted = {closed.end_us: closed for closed in oracle.closed}
        got = {result.end_us: result for result in results}
        self.differences.windows += len(wanted)
        self.differences.lost |= {(session, end_us) for end_us in wanted.keys() - got.keys()}
        self.differences.invented |= {(session, end_us) for end_us in got.keys() - wanted.keys()}
        for end_us in sorted(wanted.keys() - got.keys()):
            self.problem(f"window {session}/{end_us} is lost: {_shown(wanted[end_us])}")
        for end_us in sorted(got.keys() - wanted.keys()):
            self.problem(f"window {session}/{end_us} should not be: {sorted(got[end_us].members)}")
        by_member = {(event.row, event.record.offset): event for event in events}
        for end_us in sorted(wanted.keys() & got.keys()):
            self._compare(wanted[end_us], got[end_us], by_member)
        partition = self.partition_of.get(session, -1)
        wanted_late = {Place(row, partition, offset) for row, offset in oracle.late}
        self.repeated |= {Place(row, partition, offset) for row, offset in oracle.repeated}
        got_late = self.late & {_place(event.record) for event in events}
        for place in sorted(wanted_late ^ got_late):
            what = "is not in the late topic" if place in wanted_late else "is in the late topic but joined a window"
            self.problem(f"session {session}: {place} {what}")
        for closed in oracle.closed:  # the accounts are kept by what must be; where Redis differs was said above
            for row, offset in closed.members:
                place = Place(row, partition, offset)
                self.held_until_us[place] = max(self.held_until_us.get(place, 0), closed.end_us)
        self.members |= {Place(row, partition, offset) for r in results for row, offset in r.members}

    def _compare(self, wanted: Closed, got: Published, events: Mapping[tuple[int, int], Event]) -> None:
        name = f"window {wanted.session}/{wanted.end_us}"
        if got.members != wanted.members:
            self.differences.members.add((wanted.session, wanted.end_us))
            lacks, extra = sorted(wanted.members - got.members), sorted(got.members - wanted.members)
            self.problem(f"{name} ({wanted.reason}): members (row, offset) missing {lacks}, not of it {extra}")
            return
        if got.closed_by != wanted.reason:
            self.differences.reasons.add((wanted.session, wanted.end_us))
            self.problem(f"{name}: closed by {got.closed_by}, must be {wanted.reason} at {wanted.at}")
        members = [events[member] for member in wanted.members]
        sure, maybe = present(
            members, [name for name, _ in self.rules.sensors], wanted.end_us - self.rules.window_us, wanted.end_us
        )
        if not sure <= got.present <= maybe:
            self.problem(f"{name}: present {sorted(got.present)}, must be {sorted(sure)}")
        if got.status not in ({"ok"} if sure & READ else {"ok", "empty"}):
            self.problem(f"{name}: status {got.status}")

    def accounts(self) -> None:
        for kind, letters in (("late", self.late), ("dead-letter", self.dead)):
            for place in sorted(letters - self.places.keys()):
                self.problem(f"the {kind} topic has {place}, which is no source record")
        accounted = self.members | self.late | self.dead | self.control | self.repeated | self._may_repeat()
        for place in sorted(self.places.keys() - accounted):
            self.problem(
                f"{place} (session {self.places[place].key!r}) is unaccounted: neither in a window nor a letter"
            )
        good = {place for place in self.places if not is_fuzzed(self.places[place])}
        must = {place for place, reason in self.refused.items() if place in good}
        for place in sorted(must ^ (self.dead & good)):
            what = (
                f"must be dead-lettered ({self.refused[place]})" if place in must else "was dead-lettered, but is good"
            )
            self.problem(f"{place} {what}")
        for place in sorted((self.dead & self.late) | (self.late & self.members)):
            self.problem(f"{place} is late and something else too")

    def _may_repeat(self) -> set[Place]:
        """Records of sessions that are not held to the oracle which have an earlier record's source and id."""
        seen: set[tuple[object, ...]] = set()
        again = set()
        for place, source in sorted(self.places.items()):
            headers = dict(source.headers)
            named = (
                _session(source),
                source.row,
                headers.get("ce_sensor"),
                headers.get("ce_source"),
                headers.get("ce_id"),
            )
            if named in seen and named[0] in self.loose:
                again.add(place)
            seen.add(named)
        return again

    def commits(self, snapshots: Sequence[Snapshot]) -> None:
        ends: dict[tuple[int, int], int] = defaultdict(int)
        for place in self.places:
            ends[place.row, place.partition] = max(ends[place.row, place.partition], place.offset + 1)
        for log, end in sorted(ends.items()):
            committed, log_end = self.found.committed.get(log, 0), self.found.ends.get(log, end)
            if not end <= committed <= log_end:
                self.problem(f"row, partition {log}: committed {committed} of {end} at the end")
        first: dict[Place, list[tuple[str, int, int]]] = defaultdict(list)
        for kind, letters in (("late", self.found.late), ("dead", self.found.dead)):
            for letter in letters:
                first[letter.origin].append((kind, letter.partition, letter.offset))
        for number, snapshot in enumerate(snapshots):
            past = [
                place
                for place in self.places
                if place.offset < snapshot.committed.get((place.row, place.partition), 0)
                and not self._done(place, snapshot, first)
            ]
            for place in sorted(past)[:3]:
                self.problem(
                    f"commit {number}: {snapshot.committed[place.row, place.partition]} is committed, past {place}, "
                    f"of which nothing was done then"
                )

    def _done(self, place: Place, snapshot: Snapshot, letters: Mapping[Place, Sequence[tuple[str, int, int]]]) -> bool:
        if place in self.control | self.repeated:
            return True
        if place in self.held_until_us:
            return snapshot.published_end_us.get(_session(self.places[place]), 0) >= self.held_until_us[place]
        return any(
            offset < snapshot.side_ends.get((kind, partition), 0) for kind, partition, offset in letters.get(place, ())
        )


def verify(found: Found, rules: Rules, snapshots: Sequence[Snapshot] = ()) -> Summary:
    """Check a run that is over.

    Raises:
        WrongRun: With what is wrong, window by window and record by record.
    """
    check = _Check(found, rules)
    summary = Summary(
        records=len(found.sources),
        late=len(check.late),
        dead=len(check.dead),
        repeated_letters=len(found.late) + len(found.dead) - len(check.late) - len(check.dead),
        snapshots=len(snapshots),
    )
    check.read_log()
    check.windows(summary)
    check.accounts()
    check.commits(snapshots)
    summary.sessions = len(set(check.events) | check.loose)
    summary.control = len(check.control)
    summary.repeated = len(check.repeated)
    summary.stepped_back = sum(
        source.log_time_us < check.places[_place(source)].log_time_us for source in found.sources
    )
    if check.problems:
        more = f"\n  … and {len(check.problems) - SHOWN} more" if len(check.problems) > SHOWN else ""
        first = f"the run is not right: {check.differences}"
        raise WrongRun("\n  ".join([first, *check.problems[:SHOWN]]) + more, check.differences)
    return summary


def differences(found: Found, rules: Rules) -> Differences:
    """Windows of a run that are not as the log makes them, whatever else is right or wrong in it."""
    check = _Check(found, rules)
    check.read_log()
    check.windows(Summary())
    return check.differences


@dataclass(frozen=True)
class Expected:
    """A window that must be."""

    partition: int
    members: frozenset[tuple[int, int]]


def expected(found: Found, rules: Rules) -> dict[tuple[str, int], Expected]:
    """Every window that the log makes, by session and end: for scenarios that judge Redis by rules of their own."""
    check = _Check(found, rules)
    check.read_log()
    return {
        (session, closed.end_us): Expected(check.partition_of[session], closed.members)
        for session, events in check.events.items()
        for closed in LongOracle(rules).run(events, NEVER_US).closed
    }


def early_members(found: Found, rules: Rules, early_us: int) -> dict[tuple[str, int], frozenset[tuple[int, int]]]:
    """The members of every early run that the log makes, by session and end. Whether it is run depends on more."""
    check = _Check(found, replace(rules, early_us=early_us))
    check.read_log()
    return {
        (session, run.end_us): run.members
        for session, events in check.events.items()
        for run in LongOracle(check.rules).run(events, NEVER_US).early
    }


def verify_early(settings: Settings, early: Mapping[tuple[str, int], frozenset[tuple[int, int]]]) -> None:
    """Hold early results to the log.

    Args:
        early: As :func:`early_results` has them.
    """
    made = early_members(read(settings), Rules.of(settings), settings.early_ms * 1000)
    assert early
    assert early.items() <= made.items(), "early results have other members than the log gives them"


def _shown(closed: Closed) -> str:
    return f"closed by {closed.reason} at {closed.at}, members (row, offset) {sorted(closed.members)}"


# reading


def read(settings: Settings) -> Found:
    """Everything that a run left behind, with clients of its own."""
    names = {topic: row for row, topic in enumerate(settings.source_topics)}
    late, dead = f"{settings.topic_prefix}.late", f"{settings.topic_prefix}.deadletter"
    messages, ends = _read_topics(settings, [*names, late, dead])
    sources = [
        Record(
            names[m.topic], m.partition, m.offset, m.timestamp * 1000, m.key, m.value or b"", _clean_headers(m.headers)
        )
        for m in messages
        if m.topic in names
    ]
    return Found(
        sources=sources,
        late=[_letter(m, names) for m in messages if m.topic == late],
        dead=[_letter(m, names) for m in messages if m.topic == dead],
        results=read_results(settings),
        committed=committed(settings),
        ends={(names[tp.topic], tp.partition): end for tp, end in ends.items() if tp.topic in names},
    )


def _clean_headers(headers: Iterable[tuple[str, bytes | None]]) -> tuple[tuple[str, bytes], ...]:
    return tuple((name, value if value is not None else b"") for name, value in headers)


def _read_topics(settings: Settings, topics: Sequence[str]) -> tuple[list[Any], dict[TopicPartition, int]]:
    consumer = KafkaConsumer(
        bootstrap_servers=settings.kafka,
        enable_auto_commit=False,
        max_poll_records=5000,
        isolation_level="read_committed",
    )
    try:
        partitions = [TopicPartition(t, p) for t in topics for p in consumer.partitions_for_topic(t) or ()]
        consumer.assign(partitions)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(partitions)
        messages: list[Any] = []
        while any(consumer.position(tp) < ends[tp] for tp in partitions):
            for batch in consumer.poll(timeout_ms=500).values():
                messages += batch
        return messages, ends
    finally:
        consumer.close()


def _letter(message: Any, names: Mapping[str, int]) -> Letter:
    headers = dict(message.headers)
    topic, partition, offset, _ = headers[ORIGIN].decode().rsplit("/", 3)
    reason = headers.get("deadletter_reason", b"").decode()
    return Letter(Place(names[topic], int(partition), int(offset)), message.partition, message.offset, reason)


def committed(settings: Settings) -> dict[tuple[int, int], int]:
    """Committed offsets of the group, by row and partition."""
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka, group_id=settings.group, enable_auto_commit=False)
    try:
        return {
            (row, p): consumer.committed(TopicPartition(topic, p)) or 0
            for row, topic in enumerate(settings.source_topics)
            for p in consumer.partitions_for_topic(topic) or ()
        }
    finally:
        consumer.close()


def read_results(settings: Settings, url: str | None = None) -> dict[str, list[Published]]:
    """All sessions' results, with plain Redis commands."""
    rows = {f"{settings.topic_prefix}.{kind.topic}": row for row, kind in enumerate(KINDS)}
    client = redis.Redis.from_url(url or settings.redis)
    try:
        found: dict[str, list[Published]] = {}
        for key in client.scan_iter(f"{settings.key_prefix}:{{*}}:results", count=1000):
            session = unquote(key.decode().split("{", 1)[1].rsplit("}", 1)[0])
            found[session] = [_published(session, fields, rows) for _, fields in client.xrange(key)]
        return found
    finally:
        client.close()


def _published(session: str, fields: Mapping[bytes, bytes], rows: Mapping[str, int]) -> Published:
    end_us = int(fields[b"end_us"])
    assert fields[b"final"] == b"true", f"{fields[b'id']!r} is an early result"
    assert fields[b"id"].decode() == f"{session}/{end_us}", f"{fields[b'id']!r} lies in the stream of {session}"
    return Published(
        session,
        end_us,
        fields[b"closed_by"].decode(),
        frozenset(filter(None, fields[b"present"].decode().split(","))),
        _members(json.loads(fields[b"members"]), rows),
        fields[b"status"].decode(),
        json.loads(fields[b"outputs"]),
        fields[b"embedding"],
    )


def _members(ranges: Mapping[str, Sequence[Sequence[int]]], rows: Mapping[str, int]) -> frozenset[tuple[int, int]]:
    """(row, offset) of the ranges that a result has by topic."""
    return frozenset((rows[t], offset) for t, spans in ranges.items() for a, b in spans for offset in range(a, b + 1))


@contextmanager
def early_results(settings: Settings) -> Iterator[dict[tuple[str, int], frozenset[tuple[int, int]]]]:
    """The members of the early results that the channel has meanwhile, by session and end."""
    rows = {topic: row for row, topic in enumerate(settings.source_topics)}
    seen: dict[tuple[str, int], frozenset[tuple[int, int]]] = {}

    def note(message: Mapping[str, Any]) -> None:
        result = json.loads(message["data"])
        if not result["final"]:
            seen[result["session"], result["end_us"]] = _members(result["members"], rows)

    with redis.Redis.from_url(settings.redis) as client, client.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(**{f"{settings.key_prefix}:results": note})
        listener = channel.run_in_thread(sleep_time=0.1)
        try:
            yield seen
        finally:
            listener.stop()
            listener.join()


def snapshot(settings: Settings) -> Snapshot:
    """What is committed now, then what is done now: never says that less is done than was at the commit."""
    offsets = committed(settings)
    consumer = KafkaConsumer(bootstrap_servers=settings.kafka, enable_auto_commit=False)
    try:
        side: dict[tuple[str, int], int] = {}
        for kind, suffix in (("late", "late"), ("dead", "deadletter")):
            topic = f"{settings.topic_prefix}.{suffix}"
            partitions = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
            side |= {(kind, tp.partition): end for tp, end in consumer.end_offsets(partitions).items()}
    finally:
        consumer.close()
    client = redis.Redis.from_url(settings.redis)
    try:
        published = {}
        for key in client.scan_iter(f"{settings.key_prefix}:{{*}}:results", count=1000):
            newest = client.xrevrange(key, count=1)
            session = unquote(key.decode().split("{", 1)[1].rsplit("}", 1)[0])
            published[session] = int(newest[0][0].split(b"-")[0]) if newest else 0
    finally:
        client.close()
    return Snapshot(offsets, published, side)
