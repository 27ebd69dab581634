"""Stage 3: the merged log of a partition group becomes windows, session by session.

Pure code: no Kafka, no asyncio, no clock; time comes in as the log time of records and ticks. The rules:

* An event joins each window ``[start, start + size)`` that its span overlaps and that ends after ``closed_end``, the
  end of the newest closed window. An event that joins none is *late*: it changes no state, not even ``heard``.
* A window holds an event once: the first record of its sensor with this source and id. A record that repeats it
  becomes no member, but is a sign of life like any other. So what a restart knows suffices: the first record is
  replayed exactly as long as the window is not published.
* ``frontier[s]`` is the largest event end seen of sensor s, ``heard[s]`` the log time of its last event that joined; of
  a sensor that was never heard, of the session's first.
* A window is *due* from L on, the log time at which the largest frontier first reached its end.
* A window closes, never before an older one of its session:
  ``complete`` as soon as every ``frontier[s] >= end + disorder[s]``;
  ``deadline`` at D = max(L, over the sensors still short of that: min(L + max_delay[s], heard[s] + idle_after[s]));
  ``end`` at max(heard) + session_gap, or at the largest max_delay after the session's end record;
  ``memory`` when open windows hold ``max_open_bytes`` and it is the oldest.
* A window that is still open at L + ``early`` is then run once as it stands: with its members from before that log
  time. One that is opened at or after that time is not. An early run changes no state.

On a record at log time t every closing and early run whose time is at most t happens first, in time order over all
sessions, closings before early runs of the same time; then the record has its effect; then its session's windows that
it made closable close, at t. A restart resumes from ``events.Saved``. Why that reproduces the same windows:
docs/decisions/0001-alignment.md; why early runs: docs/decisions/0022-first-results.md.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

import msgspec

from streamer.align.sessions import NEVER_US, OpenWindow, Session
from streamer.events import DEFAULT_SENSORS, END, TICK, ClosedBy, Event, Position, Saved, Sensors, Window
from streamer.settings import Settings


class Rules(msgspec.Struct, frozen=True):
    """When windows begin, wait and close; tuples have an entry for each sensor.

    Attributes:
        idle_after_us: ``NEVER_US`` for a sparse sensor, whose silence means nothing.
        early_us: From when a window is due to its early run; 0: there is none.
    """

    window_us: int
    hop_us: int
    disorder_us: tuple[int, ...]
    max_delay_us: tuple[int, ...]
    idle_after_us: tuple[int, ...]
    session_gap_us: int
    max_open_bytes: int
    sensors: Sensors = DEFAULT_SENSORS
    early_us: int = 0

    @classmethod
    def from_settings(cls, settings: Settings) -> Rules:
        """The rules as configured."""
        sensors = settings.sensor_set
        each = [settings.sensors[name] for name in sensors.names]
        return cls(
            window_us=settings.window_us,
            hop_us=settings.hop_us,
            disorder_us=tuple(one.disorder_ms * 1000 for one in each),
            max_delay_us=tuple(one.max_delay_ms * 1000 for one in each),
            idle_after_us=tuple(NEVER_US if one.idle_after_ms is None else one.idle_after_ms * 1000 for one in each),
            session_gap_us=settings.session_gap_ms * 1000,
            max_open_bytes=settings.max_open_bytes,
            sensors=sensors,
            early_us=settings.early_ms * 1000,
        )

    @property
    def fingerprint(self) -> str:
        """Of what decides where windows begin and end, and of whom; stored with each session, see ``Saved``.

        A hash of length and hop, then, unless they are the default ones, a dot and a hash of the sensors.
        """
        windows = hashlib.sha256(msgspec.json.encode((self.window_us, self.hop_us))).hexdigest()[:16]
        return ".".join(filter(None, (windows, self.sensors.fingerprint)))

    def ends_of(self, event: Event) -> range:
        """Ends of the windows that the event's span overlaps, ascending."""
        first = (event.start_us - self.window_us) // self.hop_us * self.hop_us + self.hop_us
        last = max(event.start_us, event.end_us - 1) // self.hop_us * self.hop_us
        return range(first + self.window_us, last + self.window_us + 1, self.hop_us)


class Joined(msgspec.Struct, frozen=True, gc=False):
    """The event is referenced by ``holders`` windows or, an end record, by the session that it ends."""

    event: Event
    holders: int


class Late(msgspec.Struct, frozen=True, gc=False):
    """All windows of the event had closed before it came; the newest one ends ``late_by_us`` after the event."""

    event: Event
    late_by_us: int


class Repeated(msgspec.Struct, frozen=True, gc=False):
    """Each open window of the event has it already, from an earlier record."""

    event: Event


class Done(msgspec.Struct, frozen=True, gc=False):
    """This record is no longer referenced: a tick, a spent end record, or a member of published windows only."""

    event: Event


class Early(msgspec.Struct, frozen=True):
    """The early run of a window, which is ``closed_by`` ``OPEN``."""

    window: Window


Outcome = Window | Early | Joined | Late | Repeated | Done


class Aligner:
    """Aligns the sessions of one partition group.

    Attributes:
        open_bytes: Held by open windows, each event counted once.
    """

    def __init__(self, rules: Rules, partition: int) -> None:
        self.rules = rules
        self.open_bytes = 0
        self._partition = partition
        self._sensors = range(len(rules.disorder_us))
        self._end_delay_us = max(rules.max_delay_us)
        self._fingerprint = rules.fingerprint
        self._sessions: dict[str, Session] = {}
        # State of sessions that are not open: as restored, or as of the moment the session was freed.
        self._saved: dict[str, Saved | None] = {}
        self._restored: dict[str, dict[int, Position]] = {}  # closings of published windows, for replayed members
        self._unpublished: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []  # (earliest time of a closing or early run, session), perhaps stale

    @property
    def sessions(self) -> int:
        """Sessions with open state."""
        return len(self._sessions)

    @property
    def next_closing_us(self) -> int | None:
        """Log time before which time alone neither closes a window nor runs one early; ``None`` if none is open."""
        return self._heap[0][0] if self._heap else None

    def knows(self, session: str) -> bool:
        """Whether the session's events may come now; if not, :meth:`restore` it first.

        Call :meth:`tick` with the event's log time before: it may end the session.
        """
        return session in self._sessions or session in self._saved

    def restore(self, session: str, saved: Saved | None) -> None:
        """Set what is stored of a session; ``None`` if it was never published."""
        self._saved[session] = saved
        if saved is not None and saved.closings:
            self._restored[session] = saved.closings

    def published(self, window: Window) -> None:
        """The window is in Redis; after its last one, a freed session's state is dropped."""
        session = window.session
        left = self._unpublished[session] - 1
        if left:
            self._unpublished[session] = left
            return
        del self._unpublished[session]
        if session not in self._sessions:
            self._saved.pop(session, None)
            self._restored.pop(session, None)

    def tick(self, log_time_us: int) -> list[Outcome]:
        """Close every window, and run every one early, whose time has come."""
        outcomes: list[Outcome] = []
        heap = self._heap
        while heap and heap[0][0] <= log_time_us:
            entry_us, name = heappop(heap)
            session = self._sessions.get(name)
            if session is None or session.scheduled_us != entry_us:
                continue
            session.scheduled_us = NEVER_US
            next_us = self._next_us(session)
            if next_us <= log_time_us and (not heap or (next_us, name) <= heap[0]):
                self._act_in_time(name, session, next_us, outcomes)
            if name in self._sessions:
                self._schedule(name, session)
        return outcomes

    def on_event(self, event: Event) -> list[Outcome]:
        """Do the closings and early runs up to the event's log time, then apply the event.

        Raises:
            KeyError: The session is not known, see :meth:`knows`.
        """
        outcomes = self.tick(event.record.log_time_us)
        if event.type is TICK:
            outcomes.append(Done(event))
        elif event.type is END:
            self._on_end(event, outcomes)
        else:
            self._on_data(event, outcomes)
        return outcomes

    # records

    def _on_end(self, event: Event, outcomes: list[Outcome]) -> None:
        session = self._sessions.get(event.session)
        if session is None or max(session.heard_us) > event.record.log_time_us:
            outcomes.append(Done(event))  # no session to end, or (in a replay) a newer event has overtaken it
            return
        self._cancel_end(session, outcomes)
        session.end_record = event
        outcomes.append(Joined(event, 1))
        if self._end_us(session) <= event.record.log_time_us:  # no delay to wait for: it ends with this record
            self._end(event.session, session, event.position, outcomes)
        else:
            self._schedule(event.session, session)

    def _cancel_end(self, session: Session, outcomes: list[Outcome]) -> None:
        if session.end_record is not None:
            outcomes.append(Done(session.end_record))
            session.end_record = None

    def _on_data(self, event: Event, outcomes: list[Outcome]) -> None:
        name, rules, t_us = event.session, self.rules, event.record.log_time_us
        session = self._sessions.get(name)
        if session is None:
            session = self._new_session(self._saved[name], t_us)
        ends: Sequence[int] = rules.ends_of(event)
        if ends[0] <= session.closed_end_us or ends[0] - rules.window_us < session.floor_us:
            ends = [end for end in ends if end > session.closed_end_us and end - rules.window_us >= session.floor_us]
        if not ends:
            missed = self._missed(event, session.closed_end_us)
            if isinstance(missed, Done):
                # It had joined, and so cancelled an end record just before it. `heard` does not show that: both may
                # have the same log time.
                self._cancel_end(session, outcomes)
            outcomes.append(missed)
            return
        if name not in self._sessions:
            self._sessions[name] = session
            self._saved.pop(name, None)
        self._cancel_end(session, outcomes)
        sensor = event.sensor
        oldest = session.windows[0] if session.windows else None
        if oldest is not None and (oldest.due_us >= NEVER_US or self._lacks(session, oldest, sensor)):
            oldest = None
        reached_us = session.reached_us
        joined = 0
        for end_us in ends:
            window = self._window(session, end_us, event, reached_us)
            if window.join(event):
                joined, newest = joined + 1, window
        if joined:
            newest.nbytes += event.nbytes  # windows close in order, so the newest releases the event last
            self.open_bytes += event.nbytes
        if t_us > session.heard_us[sensor]:
            session.heard_us[sensor] = t_us
        if event.end_us > session.frontier_us[sensor]:
            session.frontier_us[sensor] = event.end_us
        if event.end_us > reached_us:
            session.reached_us = event.end_us
            for window in session.windows:
                if window.end_us > event.end_us:
                    break
                if t_us < window.due_us:
                    self._becomes_due(session, window, t_us, t_us)
        outcomes.append(Joined(event, joined) if joined else Repeated(event))
        # A due window that lacks none of this sensor waits for others: the event cannot make it closable.
        if oldest is None or session.windows[0] is not oldest:
            while session.windows and self._closable(session, t_us):
                outcomes.append(self._close(name, session, self._reason(session), event.position))
            self._schedule(name, session)
        elif session.early and session.early[0].early_us < session.scheduled_us:  # a newer one has become due
            self._schedule(name, session)
        while self.open_bytes > rules.max_open_bytes:
            outcomes += self.relieve(event.position)

    def _new_session(self, saved: Saved | None, t_us: int) -> Session:
        if saved is None:
            return Session([t_us] * len(self._sensors), -NEVER_US, -NEVER_US)
        heard_us = list(saved.heard_us)
        if not heard_us or t_us >= max(heard_us) + self.rules.session_gap_us:
            heard_us = [t_us] * len(self._sensors)
        elif not self._same_sensors(saved):  # a function of what is stored, so that every restart does the same
            heard_us = [max(heard_us)] * len(self._sensors)
        floor_us = -NEVER_US if saved.fingerprint == self._fingerprint else saved.published_end_us
        return Session(heard_us, saved.published_end_us, floor_us)

    def _same_sensors(self, saved: Saved) -> bool:
        """Whether what is saved of each sensor is of those that there are now."""
        own, others = self._fingerprint.partition(".")[2], saved.fingerprint.partition(".")[2]
        return own == others and len(saved.heard_us) == len(self._sensors)

    def _missed(self, event: Event, closed_end_us: int) -> Outcome:
        """What an event is whose windows are all closed: late, or (in a replay) a member of a published window."""
        closings = self._restored.get(event.session)
        if closings is not None:
            position = event.position
            # Equal positions: the event itself closed the window that it had joined.
            if any(end in closings and closings[end] >= position for end in self.rules.ends_of(event)):
                return Done(event)
        return Late(event, max(0, closed_end_us - event.end_us))

    def _window(self, session: Session, end_us: int, event: Event, reached_us: int) -> OpenWindow:
        """The open window with this end; the event opens it if there is none."""
        windows = session.windows
        if windows and windows[-1].end_us == end_us:  # the usual case
            return windows[-1]
        place = bisect_left(windows, end_us, key=_end_of)
        if place < len(windows) and windows[place].end_us == end_us:
            return windows[place]
        window = OpenWindow(end_us, len(self._sensors), event.position)
        if end_us <= reached_us:  # opened after it was due
            t_us = event.record.log_time_us
            newer_us = windows[place].due_us if place < len(windows) else NEVER_US
            self._becomes_due(session, window, newer_us if newer_us < NEVER_US else t_us, t_us)
        windows.insert(place, window)
        return window

    def _becomes_due(self, session: Session, window: OpenWindow, due_us: int, t_us: int) -> None:
        early_us = due_us + self.rules.early_us
        if window.due_us >= NEVER_US and early_us > t_us:
            window.early_us = early_us
            insort(session.early, window, key=_early_of)
        window.due_us = due_us

    # closings and early runs

    def _complete(self, session: Session, window: OpenWindow) -> bool:
        return not any(self._lacks(session, window, sensor) for sensor in self._sensors)

    def _lacks(self, session: Session, window: OpenWindow, sensor: int) -> bool:
        """Whether events of the sensor may still be missing from the window."""
        return session.frontier_us[sensor] < window.end_us + self.rules.disorder_us[sensor]

    def _deadline_us(self, session: Session, window: OpenWindow) -> int:
        """D of the module's rules; ``NEVER_US`` while the window is not due."""
        due_us, rules = window.due_us, self.rules
        if due_us >= NEVER_US:
            return NEVER_US
        deadline_us = due_us
        for sensor in self._sensors:
            if self._lacks(session, window, sensor):
                waits_until_us = min(
                    due_us + rules.max_delay_us[sensor], session.heard_us[sensor] + rules.idle_after_us[sensor]
                )
                deadline_us = max(deadline_us, waits_until_us)
        return deadline_us

    def _closable(self, session: Session, t_us: int) -> bool:
        oldest = session.windows[0]
        if oldest.due_us >= NEVER_US:  # the usual case
            return False
        return self._complete(session, oldest) or self._deadline_us(session, oldest) <= t_us

    def _reason(self, session: Session) -> ClosedBy:
        return ClosedBy.COMPLETE if self._complete(session, session.windows[0]) else ClosedBy.DEADLINE

    def _end_us(self, session: Session) -> int:
        """When the session ends unless another event comes."""
        silence_us = max(session.heard_us) + self.rules.session_gap_us
        if session.end_record is None:
            return silence_us
        return min(silence_us, session.end_record.record.log_time_us + self._end_delay_us)

    def _next_us(self, session: Session) -> int:
        next_us = self._end_us(session)
        if session.windows:
            next_us = min(next_us, self._deadline_us(session, session.windows[0]))
        return min(next_us, session.early[0].early_us) if session.early else next_us

    def _act_in_time(self, name: str, session: Session, t_us: int, outcomes: list[Outcome]) -> None:
        """What time alone brings first: the oldest window's deadline, the whole session's end, or an early run."""
        position = Position(t_us, -1, -1)
        if session.windows and self._deadline_us(session, session.windows[0]) <= t_us:
            outcomes.append(self._close(name, session, self._reason(session), position))
        elif self._end_us(session) <= t_us:
            self._end(name, session, position, outcomes)
        else:
            window = session.early.pop(0)
            outcomes.append(Early(self._as_it_stands(name, session, window, ClosedBy.OPEN, position)))

    def _end(self, name: str, session: Session, position: Position, outcomes: list[Outcome]) -> None:
        while session.windows:
            outcomes.append(self._close(name, session, ClosedBy.END, position))
        self._cancel_end(session, outcomes)
        self._free(name, session)

    def _close(self, name: str, session: Session, reason: ClosedBy, position: Position) -> Window:
        window = session.windows.pop(0)
        if window in session.early:
            session.early.remove(window)
        session.closed_end_us = window.end_us
        self.open_bytes -= window.nbytes
        self._unpublished[name] = self._unpublished.get(name, 0) + 1
        return self._as_it_stands(name, session, window, reason, position)

    def _as_it_stands(
        self, name: str, session: Session, window: OpenWindow, reason: ClosedBy, position: Position
    ) -> Window:
        for events in window.events:
            events.sort(key=_member_order)
        return Window(
            session=name,
            partition=self._partition,
            start_us=window.end_us - self.rules.window_us,
            end_us=window.end_us,
            closed_by=reason,
            closed_at=position,
            events=tuple(map(tuple, window.events)),
            heard_us=tuple(session.heard_us),
            sensors=self.rules.sensors,
            due_us=window.due_us if window.due_us < NEVER_US else 0,
        )

    def _free(self, name: str, session: Session) -> None:
        del self._sessions[name]
        if name in self._unpublished:
            # Redis does not have its last windows yet; until then the session would be restored from this.
            self._saved[name] = Saved(session.closed_end_us, tuple(session.heard_us), {}, self._fingerprint)
        else:
            self._restored.pop(name, None)

    def relieve(self, position: Position) -> list[Outcome]:
        """Close the window that has been open longest, so that memory stays bounded and reading can go on.

        Args:
            position: Of the newest record that was aligned.
        """
        name, session = min(
            ((name, session) for name, session in self._sessions.items() if session.windows),
            key=lambda item: item[1].windows[0].first,
        )
        window = self._close(name, session, ClosedBy.MEMORY, position)
        self._schedule(name, session)
        return [window]

    def _schedule(self, name: str, session: Session) -> None:
        """Ensure that the heap has an entry no later than the session's next closing or early run.

        An entry that is too early is recomputed when its time comes, so an event that only postpones adds none.
        """
        scheduled = session.scheduled_us < NEVER_US
        if scheduled and session.windows and session.windows[0].due_us >= NEVER_US and session.end_record is None:
            return  # only silence can close a window now, and later than the entry says
        next_us = self._next_us(session)
        if next_us < session.scheduled_us:
            session.scheduled_us = next_us
            heappush(self._heap, (next_us, name))


def _end_of(window: OpenWindow) -> int:
    return window.end_us


def _early_of(window: OpenWindow) -> tuple[int, int]:
    return window.early_us, window.end_us


def _member_order(event: Event) -> tuple[int, int, Position]:
    return event.start_us, event.end_us, event.position


def windows_of(outcomes: list[Outcome]) -> Iterator[Window]:
    """The windows among the outcomes."""
    return (outcome for outcome in outcomes if isinstance(outcome, Window))
