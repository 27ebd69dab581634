"""Alignment, slow and simple: all is computed again at each step from the list of events that joined.

Written from the rules at the top of ``streamer/align/windows.py``, not from its code; it shares only the terms with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from streamer.events import Event, EventType

INF = float("inf")


class Rules(Protocol):
    """The fields of ``streamer.align.windows.Rules``; checks from outside the package have their own class."""

    @property
    def window_us(self) -> int: ...
    @property
    def hop_us(self) -> int: ...
    @property
    def disorder_us(self) -> tuple[int, ...]: ...
    @property
    def max_delay_us(self) -> tuple[int, ...]: ...
    @property
    def idle_after_us(self) -> tuple[int, ...]: ...
    @property
    def session_gap_us(self) -> int: ...
    @property
    def early_us(self) -> int: ...


@dataclass(frozen=True)
class Closed:
    """What must be true of a window, in a comparable form; ``open`` is the reason of an early run."""

    session: str
    end_us: int
    reason: str
    at: tuple[int, int, int]
    members: frozenset[tuple[int, int]]  # (row, offset)


@dataclass
class Drive:
    """One life of a session: from the first event that joined until the session is freed."""

    heard_from: list[int]
    joined: list[tuple[int, Event]] = field(default_factory=list)  # (log time, event)
    opened: dict[int, int | None] = field(default_factory=dict)  # end -> L, if given at the opening
    settled: set[int] = field(default_factory=set)  # windows that were run early or have missed it
    end_record: Event | None = None


@dataclass
class Oracle:
    rules: Rules
    lives: dict[str, Drive] = field(default_factory=dict)
    closed_end: dict[str, int] = field(default_factory=dict)
    last_heard: dict[str, list[int]] = field(default_factory=dict)
    closed: list[Closed] = field(default_factory=list)
    early: list[Closed] = field(default_factory=list)
    late: set[tuple[int, int]] = field(default_factory=set)
    repeated: set[tuple[int, int]] = field(default_factory=set)

    def run(self, log: list[Event], until_us: int) -> Oracle:
        for event in log:
            self._closings_until(event.record.log_time_us)
            if event.type is EventType.END:
                self._end(event)
            elif event.type is EventType.DATA:
                self._data(event)
        self._closings_until(until_us)
        return self

    def _overlapped(self, event: Event) -> list[int]:
        size, hop = self.rules.window_us, self.rules.hop_us
        ends = []
        first = (event.start_us - size) // hop - 1
        for k in range(first, event.end_us // hop + 2):
            start, end = k * hop, k * hop + size
            touches = start <= event.start_us < end
            if event.end_us > event.start_us:
                touches = event.start_us < end and event.end_us > start
            if touches:
                ends.append(end)
        return ends

    def _data(self, event: Event) -> None:
        name, t = event.session, event.record.log_time_us
        ends = [end for end in self._overlapped(event) if end > self.closed_end.get(name, -INF)]
        if not ends:
            self.late.add((event.row, event.record.offset))
            return
        life = self.lives.get(name)
        if life is None:
            heard = self.last_heard.get(name)
            if heard is None or t - max(heard) >= self.rules.session_gap_us:
                heard = [t] * len(self.rules.disorder_us)
            life = self.lives[name] = Drive(list(heard))
        life.end_record = None
        reached = max((e.end_us for _, e in life.joined), default=-INF)
        for end in ends:
            if end not in life.opened:
                newer = [w for w in life.opened if w > end and self._due(life, w) is not None]
                given = None
                if end <= reached:
                    given = self._due(life, min(newer)) if newer else t
                life.opened[end] = given
                if given is not None and given + self.rules.early_us <= t:
                    life.settled.add(end)
        life.joined.append((t, event))
        if not any((event.row, event.record.offset) in self._members(life, end) for end in ends):
            self.repeated.add((event.row, event.record.offset))
        while life.opened:
            oldest = min(life.opened)
            if not self._complete(life, oldest) and self._deadline(life, oldest) > t:
                break
            self._close(name, life, oldest, event.position)

    def _members(self, life: Drive, end: int) -> frozenset[tuple[int, int]]:
        """Of a window: of the records that name one event of a sensor, the first."""
        members: dict[tuple[object, ...], tuple[int, int]] = {}
        for _, event in life.joined:
            if end in self._overlapped(event):
                place = event.row, event.record.offset
                members.setdefault(place if event.identity is None else (event.sensor, *event.identity), place)
        return frozenset(members.values())

    def _end(self, event: Event) -> None:
        life = self.lives.get(event.session)
        if life is not None and max(self._heard(life)) <= event.record.log_time_us:
            life.end_record = event
            if self._session_end(life) <= event.record.log_time_us:
                self._end_life(event.session, life, event.position)

    def _heard(self, life: Drive) -> list[int]:
        heard = list(life.heard_from)
        for t, event in life.joined:
            heard[event.sensor] = max(heard[event.sensor], t)
        return heard

    def _frontier(self, life: Drive) -> list[float]:
        sensors = range(len(self.rules.disorder_us))
        return [max((e.end_us for _, e in life.joined if e.sensor == sensor), default=-INF) for sensor in sensors]

    def _short(self, life: Drive, end: int) -> list[int]:
        frontier = self._frontier(life)
        return [m for m, slack in enumerate(self.rules.disorder_us) if frontier[m] < end + slack]

    def _complete(self, life: Drive, end: int) -> bool:
        return not self._short(life, end)

    def _due(self, life: Drive, end: int) -> int | None:
        if life.opened[end] is not None:
            return life.opened[end]
        return next((t for t, event in life.joined if event.end_us >= end), None)

    def _deadline(self, life: Drive, end: int) -> float:
        due = self._due(life, end)
        if due is None:
            return INF
        heard = self._heard(life)
        waits = [
            min(due + self.rules.max_delay_us[m], heard[m] + self.rules.idle_after_us[m])
            for m in self._short(life, end)
        ]
        return max([due, *waits])

    def _session_end(self, life: Drive) -> int:
        end = max(self._heard(life)) + self.rules.session_gap_us
        if life.end_record is not None:
            end = min(end, life.end_record.record.log_time_us + max(self.rules.max_delay_us))
        return end

    def _closings_until(self, t: int) -> None:
        while True:
            due: list[tuple[float, str, int, int]] = []  # time, session, what comes first at one time, window
            for name, life in self.lives.items():
                due.append((self._session_end(life), name, 1, 0))
                if life.opened:
                    due.append((self._deadline(life, min(life.opened)), name, 0, min(life.opened)))
                due += [(at, name, 2, end) for end in life.opened if (at := self._early(life, end)) < INF]
            if not due or min(due)[0] > t:
                return
            time, name, what, window = min(due)
            life, place = self.lives[name], (int(time), -1, -1)
            if what == 0:
                self._close(name, life, window, place)
            elif what == 1:
                self._end_life(name, life, place)
            else:
                self.early.append(Closed(name, window, "open", place, self._members(life, window)))
                life.settled.add(window)

    def _early(self, life: Drive, end: int) -> float:
        due = self._due(life, end)
        if due is None or end in life.settled or not self.rules.early_us:
            return INF
        return due + self.rules.early_us

    def _end_life(self, name: str, life: Drive, at: tuple[int, int, int]) -> None:
        for end in sorted(life.opened):
            self._close(name, life, end, at, "end")
        self.last_heard[name] = self._heard(life)
        del self.lives[name]

    def _close(self, name: str, life: Drive, end: int, at: tuple[int, int, int], reason: str | None = None) -> None:
        if reason is None:
            reason = "complete" if self._complete(life, end) else "deadline"
        self.closed.append(Closed(name, end, reason, (at[0], at[1], at[2]), self._members(life, end)))
        del life.opened[end]
        self.closed_end[name] = end
