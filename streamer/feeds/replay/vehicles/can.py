"""Logs of CAN buses as telemetry, by a database of their signals: a DBC file.

    candump (.log), Vector ASC and BLF, PEAK TRC    frames
    ASAM MDF 4 (.mf4)                               frames, and signals that the recorder measured or decoded itself

A signal of a frame becomes the channel ``Message.Signal`` with its unit, scaled as the database says; an enumeration
keeps its numbers. In a log of several buses the bus comes first: ``can0.Message.Signal``. The database is each .dbc
among the paths of the replay, else the one beside the log with the log's name.

J1939: a message is known by its parameter group, whatever its priority and source; where several devices send it, the
source address follows its name: ``EEC1@3.EngSpeed``. Values that say "error" or "not available" are no measurements.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from streamer.errors import UsageError
from streamer.events import TELEMETRY
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.part import S_US, SLICE_US, Options, Part, due
from streamer.feeds.replay.slices import Slices
from streamer.feeds.replay.vehicles import mdf
from streamer.feeds.replay.vehicles.canlog import Kind, Log, open_log
from streamer.feeds.replay.vehicles.dbc import ENDING, Databases, Known

COUNTS_FROM_START_US = 60 * S_US  # a first time below this counts from the start of the session
BACK_US = S_US  # frames of several buses are in order of time to within less
NAMED = 6  # ids in a note

Key = tuple[str, int, bool]  # bus, id, whether it is extended


class Decoded(NamedTuple):
    """A message as it is sent.

    Attributes:
        name: With its bus and source address where the log needs them.
    """

    name: str
    known: Known


@dataclass
class Survey:
    """What a first pass over a log finds."""

    first_us: int | None = None
    last_us: int = 0
    back_us: int = 0  # by how much a time is earlier than one before it
    data: Counter[Key] = field(default_factory=Counter)
    other: Counter[str] = field(default_factory=Counter)


def beside(path: Path, options: Options) -> None:
    """A database explains the logs that are replayed with it, and is no recording itself."""


def part(path: Path, options: Options) -> Part:
    """Open a log of CAN buses and read it once, to see what is in it.

    Raises:
        UsageError: It is no such log, its database is missing or broken, or the database knows none of its messages.
    """
    signals = mdf.open_signals(path) if path.suffix.lower() == ".mf4" else None
    log = None if signals is not None and not signals.frames else open_log(path)
    databases = named(options) or _of_the_name(path)
    notes = list(signals.notes) if signals is not None else []
    if log is not None and not databases:
        if signals is None or not signals.units:
            raise UsageError(
                f"{path} has frames, and no database that says what is in them: name it too, e.g. streamer replay "
                f"{path} car{ENDING}"
            )
        notes.append(f"{path}: its frames are left out, since no database says what is in them; name a {ENDING} too")
        log = None
    read = None if log is None else Frames(log, Databases(databases), notes)
    sources: list[Frames | mdf.Signals] = [source for source in (read, signals) if source is not None and source.units]
    if not sources:
        raise UsageError(f"{path}: the messages in it have no signals, by {', '.join(map(str, databases))}")
    first_us, last_us = min(source.first_us for source in sources), max(source.last_us for source in sources)
    origin_us = 0 if 0 <= first_us < COUNTS_FROM_START_US else first_us
    zero_us = sources[0].zero_us
    clock_us = None if zero_us is None else zero_us + origin_us
    return Part(
        path,
        last_us - origin_us,
        lambda begin_us: heapq.merge(*(source.records(origin_us, begin_us) for source in sources), key=due),
        frozenset({TELEMETRY}),
        clock_us=clock_us,
        utc_us=clock_us if sources[0].utc else None,
        channels=frozenset[str]().union(*(source.units for source in sources)),
        uses=frozenset(databases) if read is not None else frozenset(),
        notes=notes,
    )


def named(options: Options) -> tuple[Path, ...]:
    """The databases among the paths of the replay."""
    return tuple(given for given in options.given if given.suffix.lower() == ENDING)


def _of_the_name(path: Path) -> tuple[Path, ...]:
    return tuple(found for ending in (ENDING, ENDING.upper()) if (found := path.with_suffix(ending)).is_file())[:1]


class Frames:
    """The frames of a log that a database knows.

    Attributes:
        first_us, last_us: Times of the first and the last frame of any kind, as the log has them.
        zero_us: Reading of the recorder's clock at time 0.
        units: Channel -> unit.

    Raises:
        UsageError: There are none.
    """

    def __init__(self, log: Log, databases: Databases, notes: list[str]) -> None:
        self._log, self._notes = log, notes
        found = _survey(log)
        if found.first_us is None:
            raise UsageError(f"{log.path} has no frame{f', or is broken: {log.cut}' if log.cut else ''}")
        self.first_us, self.last_us = found.first_us, found.last_us
        self.zero_us, self.utc = log.zero_us, log.utc
        self._messages = _messages(found.data, databases)
        if not self._messages:
            raise UsageError(
                f"{log.path}: none of its {found.data.total()} frames is in {databases.names}: {_ids(found.data)}"
            )
        self.units = {
            f"{one.name}.{signal}": unit for one in self._messages.values() for signal, unit in one.known.units.items()
        }
        unknown = Counter({key: count for key, count in found.data.items() if key not in self._messages})
        if unknown:
            self._note(f"{unknown.total()} frames are left out, {databases.names} does not know them: {_ids(unknown)}")
        for what, count in (found.other + log.ignored).items():
            self._note(f"{count} {what} are left out")
        if found.back_us > BACK_US:
            self._note(f"its times go back by up to {found.back_us / S_US:.3f} s")
        if log.cut:
            notes.append(f"{log.path} could not be read to its end: {log.cut}")

    def records(self, origin_us: int, begin_us: int) -> Iterator[Outgoing]:
        """Blocks of a message and a slice of time each, in due order, with times after ``origin_us``."""
        slices = Slices(self.units)
        short: Counter[str] = Counter()
        wrong: Counter[str] = Counter()
        for frame in self._log.frames():
            time_us = frame.time_us - origin_us
            decoded = self._messages.get((frame.bus, frame.id, frame.extended))
            if decoded is None or frame.kind is not Kind.DATA or time_us < begin_us - SLICE_US:
                continue
            if len(frame.data) < decoded.known.message.length:
                short[decoded.name] += 1
            try:
                values = decoded.known.decode(frame.data)
            except ValueError as error:
                wrong[f"{decoded.name} ({error})"] += 1
                continue
            named = {f"{decoded.name}.{signal}": value for signal, value in values.items()}
            yield from slices.add(decoded.name, max(0, time_us), named)
        yield from slices.rest()
        for name, count in short.items():
            self._note(
                f"{count} frames of {name} are shorter than in the database: signals behind their end are left out"
            )
        for what, count in wrong.items():
            self._note(f"{count} frames are left out, which cannot be decoded: those of {what}")

    def _note(self, text: str) -> None:
        self._notes.append(f"{self._log.path}: {text}")


def _survey(log: Log) -> Survey:
    found = Survey()
    for frame in log.frames():
        if found.first_us is None:
            found.first_us = found.last_us = frame.time_us
        found.first_us = min(found.first_us, frame.time_us)
        found.back_us = max(found.back_us, found.last_us - frame.time_us)
        found.last_us = max(found.last_us, frame.time_us)
        if frame.kind is Kind.DATA:
            found.data[(frame.bus, frame.id, frame.extended)] += 1
        else:
            found.other[frame.kind.value] += 1
    return found


def _messages(data: Iterable[Key], databases: Databases) -> dict[Key, Decoded]:
    """The messages among the frames, each with a name that no other has."""
    there = {key: known for key in sorted(data) if (known := databases.find(key[1], key[2])) is not None}
    buses = {bus for bus, _, _ in there}
    sources: dict[tuple[str, str], set[int]] = defaultdict(set)
    for (bus, frame_id, _), known in there.items():
        sources[(bus, known.message.name)].add(frame_id & 0xFF)
    named = {}
    for (bus, frame_id, extended), known in there.items():
        name = known.message.name
        if len(sources[(bus, name)]) > 1:
            name = f"{name}@{frame_id & 0xFF}"
        named[(bus, frame_id, extended)] = Decoded(f"{bus}.{name}" if len(buses) > 1 else name, known)
    return named


def _ids(frames: Counter[Key]) -> str:
    """The ids of frames for a note, the most frequent first."""
    counts: Counter[str] = Counter()
    for (_, frame_id, extended), count in frames.items():
        counts[f"{frame_id:08X}" if extended else f"{frame_id:03X}"] += count
    named = ", ".join(f"{frame_id} ({count})" for frame_id, count in counts.most_common(NAMED))
    return f"{named}, …" if len(counts) > NAMED else named
