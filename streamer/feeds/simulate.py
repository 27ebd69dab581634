"""Simulated drives: camera frames, sound, transcripts and telemetry of a car, with what was really going on.

Deterministic: the same seed gives the same bytes. ``scenario`` has the facts of a drive, ``car`` the sensors, and
``scene``, ``sound`` and ``script`` how the facts look, sound and read. Segments change faster than a real car could: a
drive is condensed.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
import numpy as np

from streamer.errors import UsageError
from streamer.events import KIND_NAMES
from streamer.feeds import car, pace, scenario
from streamer.feeds.car import S_US, Course
from streamer.feeds.producer import Outgoing, Producer, end_record
from streamer.feeds.scenario import BEHIND, LABELS, OCCUPANTS
from streamer.settings import Settings


class Options(msgspec.Struct, frozen=True):
    """What a feed sends, and how it misbehaves, which is off by default.

    Attributes:
        frame_hz: Of every camera.
        sensors: Names in ``car.SENSORS``.
        jitter_ms: Largest random delay of a record; records come out of order if it exceeds the time between them.
        drop: Share of records that are never sent.
        late: Share of records that are sent ``late_ms`` later.
        dies: (sensor, second): this sensor stops at that second.
    """

    frame_hz: int = 10
    sensors: tuple[str, ...] = car.DEFAULT
    jitter_ms: float = 0.0
    drop: float = 0.0
    late: float = 0.0
    late_ms: float = 5000.0
    dies: tuple[str, float] | None = None

    def __post_init__(self) -> None:
        for name in ("drop", "late"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is a share between 0 and 1, not {getattr(self, name)}")
        if self.frame_hz < 1 or S_US % self.frame_hz:
            raise UsageError(f"frame_hz must divide a second into whole microseconds, not {self.frame_hz}")
        if self.jitter_ms < 0 or self.late_ms < 0:
            raise UsageError("jitter_ms and late_ms must not be negative")
        unknown = next((name for name in self.sensors if name not in car.SENSORS), None)
        if unknown is not None:
            raise UsageError(f"the simulated car has no sensor {unknown!r}; it has: {', '.join(car.SENSORS)}")
        if not self.sensors or len(set(self.sensors)) < len(self.sensors):
            raise UsageError("a drive sends one or more different sensors")
        if self.dies is not None and self.dies[0] not in self.sensors:
            raise UsageError(f"{self.dies[0]!r} cannot stop: this drive sends {', '.join(self.sensors)}")


class Truth(msgspec.Struct, frozen=True):
    """What was going on in ``[start_us, end_us)`` of a session."""

    session: str
    start_us: int
    end_us: int
    label: str
    siren: bool
    obstacle: bool
    fast: bool
    behind: str = BEHIND[0]
    occupants: str = OCCUPANTS[0]

    @property
    def outputs(self) -> dict[str, str]:
        """The right label of each output that simulated drives teach."""
        return {"action": self.label, "behind": self.behind, "occupants": self.occupants}


class Drive:
    """One simulated drive.

    Args:
        start_us: Event time of its first frame, on a window border.
        seconds: Its length.
    """

    def __init__(
        self,
        seed: int,
        session: str,
        start_us: int,
        seconds: int,
        options: Options = Options(),  # noqa: B008 - frozen
    ) -> None:
        self.seed = seed
        self.session = session
        self.start_us = start_us
        self.seconds = seconds
        self.options = options
        light = int(np.random.default_rng((seed, 2)).integers(len(scenario.LIGHTS)))
        facts, around = np.random.default_rng((seed, 0)), np.random.default_rng((seed, 60))
        segments = tuple(scenario.segments(facts, around, seconds))
        self.course = Course(seed, session, start_us, light, segments, options.frame_hz)

    @property
    def end_us(self) -> int:
        """End of the drive in event time."""
        return self.start_us + self.seconds * S_US

    def truth(self) -> list[Truth]:
        """What was going on, segment by segment."""
        return [
            Truth(
                self.session,
                self.start_us + s.start_s * S_US,
                self.start_us + s.end_s * S_US,
                s.label,
                s.siren,
                s.obstacle,
                s.fast,
                BEHIND[s.behind],
                OCCUPANTS[s.occupants],
            )
            for s in self.course.segments
        ]

    def outgoing(self) -> Iterator[Outgoing]:
        """All records of the drive in the order in which they are due, the end record last."""
        sensed = heapq.merge(*map(self._sensed, self.options.sensors), key=lambda pair: pair[1].due_us)
        last_us = self.end_us
        for record in self._misbehave(sensed):
            last_us = max(last_us, record.due_us)
            yield record
        yield end_record(self.session, self.end_us, last_us)

    def _sensed(self, name: str) -> Iterator[tuple[str, Outgoing]]:
        for record in car.SENSORS[name].sense(self.course):
            yield name, record if name in car.DEFAULT else msgspec.structs.replace(record, sensor=name)

    def _misbehave(self, sensed: Iterable[tuple[str, Outgoing]]) -> Iterator[Outgoing]:
        options = self.options
        rng = np.random.default_rng((self.seed, 50))
        waiting: list[tuple[int, int, Outgoing]] = []  # (due, tie-break, record): delays only ever postpone
        for number, (sensor, record) in enumerate(sensed):
            dropped, is_late, jitter = rng.random(3)
            if dropped < options.drop or self._is_dead(sensor, record):
                continue
            delay_ms = jitter * options.jitter_ms + (options.late_ms if is_late < options.late else 0.0)
            due_us = record.due_us + round(delay_ms * 1000)
            while waiting and waiting[0][0] <= record.due_us:
                yield heapq.heappop(waiting)[2]
            heapq.heappush(waiting, (due_us, number, msgspec.structs.replace(record, due_us=due_us)))
        while waiting:
            yield heapq.heappop(waiting)[2]

    def _is_dead(self, sensor: str, record: Outgoing) -> bool:
        dies = self.options.dies
        return dies is not None and sensor == dies[0] and record.time_us >= self.start_us + dies[1] * S_US


def _due(record: Outgoing) -> int:
    return record.due_us


def fleet(
    sessions: int,
    seconds: int,
    seed: int,
    start_us: int,
    run: str,
    options: Options = Options(),  # noqa: B008
) -> list[Drive]:
    """Drives of several cars.

    Args:
        run: Part of the sessions' names. Reusing the name of a run with later times would make all records late.
    """
    return [
        Drive(seed * 1000 + number, f"sim-{run}-{number}", start_us, seconds, options) for number in range(sessions)
    ]


def sensors_of(settings: Settings, asked: str | None) -> tuple[str, ...]:
    """The sensors that cars send.

    Args:
        asked: Name of a set (``car.SETS``), or names with commas between; ``None``: all that the settings declare and
            the simulated car has.

    Raises:
        UsageError: The car has no such sensor, or the settings do not declare it; the message has a setting that does.
    """
    there = settings.sensor_set
    if asked is None:
        return tuple(name for name in there.names if name in car.SENSORS)
    names = car.SETS.get(asked, tuple(asked.split(",")))
    Options(sensors=names)
    kinds = {name: KIND_NAMES[car.SENSORS[name].row] for name in names}
    declared = {sensor.name: KIND_NAMES[sensor.row] for sensor in there.all}
    missing = [name for name, kind in kinds.items() if declared.get(name) != kind]
    if missing:
        wanted = {name: {"enabled": True} if name in KIND_NAMES else {"kind": kind} for name, kind in kinds.items()}
        unused = {name: {"enabled": False} for name in KIND_NAMES if name in declared and name not in kinds}
        raise UsageError(
            f"the settings do not declare {', '.join(missing)}; this does, here and for the worker: "
            f"STREAMER_SENSORS='{msgspec.json.encode(wanted | unused).decode()}'"
        )
    return names


def outgoing(drives: Sequence[Drive]) -> Iterator[Outgoing]:
    """The records of several drives in the order in which they are due."""
    return heapq.merge(*(drive.outgoing() for drive in drives), key=_due)


def label_of(truths: Iterable[Truth], start_us: int, end_us: int) -> str | None:
    """The action that is right for most of a window; ``None`` where no truth is known."""
    found = truth_of(truths, start_us, end_us)
    return None if found is None else found.label


def truth_of(truths: Iterable[Truth], start_us: int, end_us: int) -> Truth | None:
    """The truth that covers most of a window; ``None`` where none is known."""
    best, most_us = None, 0
    for truth in truths:
        shared_us = min(end_us, truth.end_us) - max(start_us, truth.start_us)
        if shared_us > most_us:
            best, most_us = truth, shared_us
    return best


def write_truth(path: Path, truths: Iterable[Truth]) -> None:
    """One JSON object a line."""
    path.write_bytes(b"".join(msgspec.json.encode(truth) + b"\n" for truth in truths))


def read_truth(path: Path) -> list[Truth]:
    """Read back what :func:`write_truth` wrote.

    Raises:
        UsageError: It is not such a file; the message has the number of the wrong line.
    """
    truths = []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            truths.append(msgspec.json.decode(line, type=Truth))
        except msgspec.DecodeError as error:
            raise UsageError(f"{path} line {number} is no truth: {error}") from None
    return truths


def run(
    settings: Settings,
    *,
    sessions: int,
    seconds: int,
    speed: float,
    seed: int,
    name: str,
    truth: Path | None = None,
    options: Options = Options(),  # noqa: B008
    on_sent: Callable[[Outgoing], None] | None = None,
) -> int:
    """Send simulated drives to Kafka; returns the number of records sent.

    Args:
        speed: 1: real time; 0: as fast as possible (``pace.start_us`` then chooses the event times).
        name: Part of the sessions' names.
        truth: Where to write what was going on.
    """
    start_us = pace.start_us(speed, seconds * S_US, settings.hop_us)
    drives = fleet(sessions, seconds, seed, start_us, name, options)
    if truth is not None:
        write_truth(truth, (interval for drive in drives for interval in drive.truth()))
    with Producer(settings) as producer:
        return pace.send(outgoing(drives), producer, speed=speed, on_sent=on_sent)


__all__ = [
    "LABELS",
    "S_US",
    "Drive",
    "Options",
    "Truth",
    "fleet",
    "label_of",
    "outgoing",
    "read_truth",
    "run",
    "sensors_of",
    "truth_of",
    "write_truth",
]
