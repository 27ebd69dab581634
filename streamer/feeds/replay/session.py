"""One session out of several files: which begins where, what would clash, and what of it is sent."""

from __future__ import annotations

import heapq
import os
import re
import secrets
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from time import time_ns
from typing import NamedTuple

import msgspec

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, KIND_NAMES, TELEMETRY, TEXT
from streamer.feeds import pace
from streamer.feeds.producer import Outgoing, Producer, end_record
from streamer.feeds.replay.names import Names, given_names, renamed
from streamer.feeds.replay.part import ALL, S_US, Options, Part, Thinned, due, header
from streamer.feeds.replay.readers import open_part
from streamer.settings import Settings

ALONE = {IMAGE: "pictures are", AUDIO: "sound is", TEXT: "words are"}  # what a sensor has from one recording
CREATED_US = 2 * S_US  # precision of the date in a film
STAMPED_US = S_US  # a split log's first messages may be stamped so long before the last ones of the file before
DIGITS = re.compile(r"\d+")
GOPRO = re.compile(r"G(?:OPR|[A-Z](?P<chapter>\d\d))(?P<film>\d{4})", re.IGNORECASE)  # all chapters may have one date


Stream = tuple[int, str | None]  # a kind's number, and the sensor's name unless that is called like the kind


class Stretch(NamedTuple):
    """What of a recording is sent: the records that begin within it.

    Attributes:
        begin_us: Where in the files the session begins.
        duration_us: ``None``: to the end.
        rate_hz: Most pictures a second; ``None``: all.
    """

    begin_us: int = 0
    duration_us: int | None = None
    rate_hz: float | None = None


WHOLE = Stretch()


@dataclass
class Placed:
    """A part and its place in the session.

    Attributes:
        offset_us: Where in the session it begins.
        sensors: Kind -> sensor as which its records of no named sensor are sent.
        without: What is not sent, since another part has it.
        prefix: Of its telemetry channels, since another part has channels of the same names.
        names: Telemetry channel -> what it is sent as; these get no prefix.
    """

    part: Part
    offset_us: int
    sensors: Mapping[int, str | None] = field(default_factory=dict)
    without: frozenset[Stream] = frozenset()
    prefix: str = ""
    names: Names = field(default_factory=dict)

    @property
    def end_us(self) -> int:
        return self.offset_us + self.part.length_us

    @property
    def streams(self) -> frozenset[Stream]:
        """What it has."""
        named = ((sensor.row, header(sensor)) for sensor in self.part.named)
        return frozenset((row, self.sensors.get(row)) for row in self.part.sends).union(named)

    def records(self, start_us: int, stretch: Stretch) -> Iterator[Outgoing]:
        """Its records that begin within a stretch of the session, with times on the session's clock.

        None is due before its predecessor, whatever a broken time stamp claims.

        Args:
            start_us: Event time at which the files begin.
        """
        begin_us, duration_us, rate_hz = stretch
        shift_us = start_us + self.offset_us
        last_us = shift_us
        from_us = max(0, begin_us - self.offset_us)
        until_us = None if duration_us is None else begin_us + duration_us - self.offset_us
        # on the part's clock, so that its reader can choose the same pictures
        thinned: dict[str | None, Thinned] = defaultdict(lambda: Thinned(rate_hz))
        for record in self.part.records(from_us):
            if until_us is not None and record.due_us >= until_us + self.part.late_us:
                return
            sensor = self.sensors.get(record.row) if record.sensor is None else record.sensor
            if (record.row, sensor) in self.without or record.time_us < from_us:
                continue
            if until_us is not None and record.time_us >= until_us:
                continue
            if record.row == IMAGE and not thinned[sensor].keeps(record.time_us - from_us):
                continue
            last_us = max(last_us, record.due_us + shift_us)
            payload = record.payload
            if record.row == TELEMETRY and (self.prefix or self.names):
                payload = renamed(payload, self.prefix, self.names)
            yield msgspec.structs.replace(
                record, time_us=record.time_us + shift_us, due_us=last_us, payload=payload, sensor=sensor
            )


@dataclass
class Recording:
    """One session to be sent, out of one part or several.

    Attributes:
        length_us: From its beginning to its end, according to the files.
        utc_us: When it began, in microseconds since the epoch; ``None`` if no file says.
        stretch: What of it is sent.
        remarks: What the user should know of how the parts were put together, a sentence each.
    """

    parts: Sequence[Placed]
    length_us: int
    utc_us: int | None
    stretch: Stretch
    remarks: Sequence[str]

    @property
    def notes(self) -> list[str]:
        """What the user should know, a sentence each; sending may add more."""
        return list(dict.fromkeys([*self.remarks, *(note for placed in self.parts for note in placed.part.notes)]))

    @property
    def names(self) -> str:
        """The files, for a message."""
        return ", ".join(str(placed.part.path) for placed in self.parts)

    def outgoing(self, session: str, start_us: int) -> Iterator[Outgoing]:
        """All records in the order in which they are due, the end record last.

        Args:
            start_us: Event time at which the session begins.

        Raises:
            UsageError: A file turns out to be broken or empty.
        """
        begin_us = self.stretch.begin_us
        streams = (placed.records(start_us - begin_us, self.stretch) for placed in self.parts)
        sequence: Counter[Stream] = Counter()
        last_us = start_us + self.length_us
        for record in heapq.merge(*streams, key=due):
            last_us = max(last_us, record.due_us)
            stream = record.row, record.sensor
            yield msgspec.structs.replace(record, session=session, sequence=sequence[stream])
            sequence[stream] += 1
        if not sequence:
            why = f": {'; '.join(self.notes)}" if self.notes else ""
            if begin_us or self.stretch.duration_us is not None:
                ends_s = max(placed.end_us for placed in self.parts) / S_US
                why = f" from second {begin_us / S_US:g} on, for so long: it ends at second {ends_s:.1f}"
            raise UsageError(f"there is nothing to send in {self.names}{why}")
        yield end_record(session, last_us, last_us)


def open_all(paths: Sequence[Path], options: Options = ALL, stretch: Stretch = WHOLE) -> Recording:
    """Open the parts of a session.

    Files of one series (rotated logs, chapters of a film) follow each other. All else begins together, but what has
    times of the same clock keeps its distance.

    Args:
        paths: Recordings, and files that explain them.

    Raises:
        UsageError: A file is missing, of unknown kind, broken, or has nothing to send.
    """
    files: dict[str, Path] = {}
    for path in paths:
        files.setdefault(os.path.abspath(path), path)  # one file may be named in several ways
    given = tuple(files.values())
    if not given:
        raise UsageError("no recording was given")
    options = options._replace(given=given, rate_hz=stretch.rate_hz)
    opened = [part for path in given if (part := open_part(path, options)) is not None]
    used = frozenset[Path]().union(*(part.uses for part in opened))
    parts = [part for part in opened if part.path not in used]
    if not parts:
        raise UsageError(f"{', '.join(map(str, given))} can only explain a recording: name that too")
    if options.streams and not any(part.tracks for part in parts):
        raise UsageError(f"--stream chooses among tracks, and {', '.join(map(str, given))} has none")
    topics = frozenset[str]().union(*(part.topics for part in parts))
    if unknown := sorted(options.sensors.keys() - topics):
        raise UsageError(f"there is no topic {unknown[0]} to map; there are: {', '.join(sorted(topics)) or 'none'}")
    remarks: list[str] = []
    series = _series([Placed(part, 0, _sensors(part, options)) for part in parts], remarks)
    _share_out(series, remarks)
    names = given_names([[placed.part for placed in chain] for chain in series], options, remarks)
    for chain in series:
        for placed in chain:
            placed.names = names.get(placed.part.path, {})
    return _laid_over(series, stretch, remarks)


def _sensors(part: Part, options: Options) -> dict[int, str | None]:
    """Kind -> name of the sensor as which the user wants it sent."""
    found: dict[int, str | None] = {}
    for sensor in options.files.get(part.path, ()):
        what = KIND_NAMES[sensor.row]
        if sensor.row not in part.sends:
            raise UsageError(f"{part.path} has nothing of kind {what} that could be {sensor.name}")
        if sensor.row in found:
            raise UsageError(
                f"--as names two sensors of kind {what} for {part.path}; --map names them by topic or track"
            )
        found[sensor.row] = header(sensor)
    return found


# one file after another


def _series(parts: Sequence[Placed], remarks: list[str]) -> list[list[Placed]]:
    """Files that follow each other, each with its place after the first of its series."""
    alike: dict[object, list[Part]] = defaultdict(list)
    sensors = {placed.part.path: placed.sensors for placed in parts}
    for placed in parts:
        part = placed.part
        # with a clock, a file of a log may lack what is rare
        sends = placed.streams if part.clock_us is None else frozenset(placed.sensors.items())
        alike[(part.path.parent, _series_name(part.path), sends)].append(part)
    found = []
    for several in alike.values():
        ordered = _in_order(several)
        chains = [[Placed(part, 0)] for part in several] if ordered is None else [_chained(ordered)]
        found += [[replace(placed, sensors=sensors[placed.part.path]) for placed in chain] for chain in chains]
        if ordered is None:
            continue
        if len(ordered) > 1:
            remarks.append(f"{', '.join(part.path.name for part in ordered)} are sent one after the other")
    return found


def _series_name(path: Path) -> str:
    """What the names of files have in common that follow each other: all but their numbers."""
    if (gopro := GOPRO.fullmatch(path.stem)) is not None:
        return f"gopro {gopro['film']}"
    return DIGITS.sub("#", path.name.lower())


def _in_order(parts: Sequence[Part]) -> list[Part] | None:
    """Parts in the order in which they were recorded; ``None`` if they were recorded at the same time."""
    if len(parts) == 1:
        return list(parts)
    if all(part.clock_us is not None for part in parts):
        ordered = sorted(parts, key=lambda part: part.clock_us or 0)
        spans = [(part.clock_us or 0, part.length_us) for part in ordered]
        close_us = min(STAMPED_US, *(part.length_us // 4 for part in parts))
    elif all(part.utc_us is not None and GOPRO.fullmatch(part.path.stem) is None for part in parts):
        ordered = sorted(parts, key=lambda part: (part.utc_us or 0, _numbers(part.path)))
        spans = [(part.utc_us or 0, part.length_us) for part in ordered]
        close_us = CREATED_US
    elif (parts[0].sends | {sensor.row for sensor in parts[0].named}) & ALONE.keys():
        return sorted(parts, key=lambda part: _numbers(part.path))
    else:
        return None  # tables whose times count from the session's start
    apart = all(begin + length <= later + close_us for (begin, length), (later, _) in pairwise(spans))
    return ordered if apart else None


def _numbers(path: Path) -> tuple[int, ...]:
    if (gopro := GOPRO.fullmatch(path.stem)) is not None:
        return (int(gopro["chapter"] or 0),)
    return tuple(int(digits) for digits in DIGITS.findall(path.name))


def _chained(parts: Sequence[Part]) -> list[Placed]:
    """Parts one behind the other, with the pauses between them that their clocks show."""
    chain = [Placed(parts[0], 0)]
    for part in parts[1:]:
        before = chain[-1]
        offset_us = before.end_us
        if part.clock_us is not None and before.part.clock_us is not None:
            offset_us = before.offset_us + part.clock_us - before.part.clock_us
        elif part.utc_us is not None and before.part.utc_us is not None:
            since_us = part.utc_us - before.part.utc_us
            offset_us = before.offset_us + since_us if since_us > before.part.length_us + CREATED_US else offset_us
        chain.append(Placed(part, offset_us))
    return chain


# side by side


def _share_out(series: Sequence[Sequence[Placed]], remarks: list[str]) -> None:
    """Give pictures and sound to the first series that has them, and equal names of channels a prefix."""
    for stream in sorted(frozenset[Stream]().union(*(chain[0].streams for chain in series)), key=str):
        what = ALONE.get(stream[0])
        having = [chain for chain in series if what is not None and stream in chain[0].streams]
        for chain in having[1:]:
            for placed in chain:
                placed.without |= {stream}
                remarks.append(
                    f"{placed.part.path}: its {what} left out, since {having[0][0].part.path} comes first and a "
                    f"sensor has one recording; name it first, send it --as another sensor, or as another --session"
                )
    for chain in series:
        measured = _measured(chain)
        rivals = [other for other in series if other is not chain and measured & _measured(other)]
        others = (placed.part.channels for other in rivals for placed in other)
        channels = frozenset[str]().union(*(placed.part.channels for placed in chain))
        if channels & frozenset[str]().union(*others):
            prefix = _prefix(chain[0].part.path, [other[0].part.path for other in rivals])
            remarks.append(f"{chain[0].part.path}: its channels are called {prefix}.…, since another file has the same")
            for placed in chain:
                placed.prefix = prefix


def _measured(chain: Sequence[Placed]) -> frozenset[Stream]:
    """Its streams of telemetry."""
    return frozenset(stream for stream in chain[0].streams if stream[0] == TELEMETRY)


def _prefix(path: Path, others: Sequence[Path]) -> str:
    """The shortest name of a file that none of the others has."""
    names: tuple[Callable[[Path], str], ...] = (
        lambda file: file.stem,
        lambda file: file.name,
        lambda file: f"{file.absolute().parent.name}.{file.stem}",
    )
    found = (name(path) for name in names if all(name(path) != name(other) for other in others))
    return next(found, str(path.absolute()))


def _laid_over(series: Sequence[Sequence[Placed]], stretch: Stretch, remarks: Sequence[str]) -> Recording:
    """Each series begins at 0, but those that share a clock (their times overlap) keep their distance."""
    placed = []
    for chain in series:
        peers = (other[0].part.clock_us for other in series if _overlap(chain, other))
        clock_us, earliest_us = chain[0].part.clock_us, min((us for us in peers if us is not None), default=None)
        offset_us = 0 if clock_us is None or earliest_us is None else clock_us - earliest_us
        placed += [replace(one, offset_us=one.offset_us + offset_us) for one in chain]
    begin_us, duration_us, _ = stretch
    length_us = max(0, max(one.end_us for one in placed) - begin_us)
    starts = [one.part.utc_us - one.offset_us + begin_us for one in placed if one.part.utc_us is not None]
    return Recording(
        placed,
        length_us if duration_us is None else min(length_us, duration_us),
        min(starts, default=None),
        stretch,
        remarks,
    )


def _overlap(one: Sequence[Placed], other: Sequence[Placed]) -> bool:
    clock_us, other_us = one[0].part.clock_us, other[0].part.clock_us
    if clock_us is None or other_us is None:
        return False
    return clock_us <= other_us + other[-1].end_us and other_us <= clock_us + one[-1].end_us


# sending


def run(
    settings: Settings,
    recording: Recording,
    *,
    speed: float,
    session: str,
    keep_times: bool = False,
    on_sent: Callable[[Outgoing], None] | None = None,
) -> int:
    """Send a recording to Kafka; returns the number of records sent.

    Args:
        speed: 1: as recorded; 0: as fast as possible.
        keep_times: Keep the times of the recording; else it begins now, on a window border.

    Raises:
        UsageError: A file turns out to be broken, or has no absolute times to keep.
    """
    if keep_times:
        start_us = _recorded_us(settings, recording)
    else:
        start_us = pace.start_us(speed, recording.length_us, settings.hop_us)
    with Producer(settings) as producer:
        return pace.send(recording.outgoing(session, start_us), producer, speed=speed, on_sent=on_sent)


def _recorded_us(settings: Settings, recording: Recording) -> int:
    if recording.utc_us is None:
        raise UsageError(f"{recording.names} does not say when it was recorded: leave out --keep-times")
    if recording.utc_us + recording.length_us > time_ns() // 1000 + settings.max_ahead_ms * 1000:
        raise UsageError(f"{recording.names} was recorded in the future by its clock: leave out --keep-times")
    return recording.utc_us


def new_session() -> str:
    """A name that no session had before: in a used one, everything before its last window would be late."""
    return f"replay-{secrets.token_hex(4)}"
