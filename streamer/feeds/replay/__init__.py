"""Sending recordings to Kafka as if they happened now.

Each path is one part of the same session, and all parts begin together: a film, and the log of the car it was shot
from. Parts whose time stamps come from the same clock (two logs of one machine) keep their offset from each other.

    media    films and sound, through PyAV        speech   subtitles and word timings
    gpmf     GoPro's telemetry                    table    CSV        mcap   MCAP
"""

from __future__ import annotations

import heapq
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import time_ns

import msgspec

from streamer.errors import UsageError
from streamer.events import MODALITIES
from streamer.feeds import pace
from streamer.feeds.producer import Outgoing, Producer, end_record
from streamer.feeds.replay import mcap, media, speech, table
from streamer.feeds.replay.part import Part, due
from streamer.settings import Settings

Opener = Callable[[Path, Sequence[int]], Part]


@dataclass
class Recording:
    """One session to be sent, out of one part or several.

    Attributes:
        length_us: From its start to the end of the last part, according to the files.
        utc_us: When it began, in microseconds since the epoch; ``None`` if no file says.
    """

    parts: Sequence[tuple[int, Part]]  # with where in the session each begins, µs
    length_us: int
    utc_us: int | None

    @property
    def notes(self) -> list[str]:
        """What the user should know, a sentence each; sending may add more."""
        return [note for _, part in self.parts for note in part.notes]

    def outgoing(self, session: str, start_us: int) -> Iterator[Outgoing]:
        """All records in the order in which they are due, the end record last.

        Args:
            start_us: Event time at which the session begins.

        Raises:
            UsageError: A file turns out to be broken or empty.
        """
        streams = (_placed(part.records(), start_us + offset_us) for offset_us, part in self.parts)
        sequence = [0] * len(MODALITIES)
        last_us = start_us + self.length_us
        for record in heapq.merge(*streams, key=due):
            last_us = max(last_us, record.due_us)
            yield msgspec.structs.replace(record, session=session, sequence=sequence[record.row])
            sequence[record.row] += 1
        if not any(sequence):
            raise UsageError(f"there is nothing to send in {', '.join(str(part.path) for _, part in self.parts)}")
        yield end_record(session, last_us, last_us)


def _placed(records: Iterable[Outgoing], start_us: int) -> Iterator[Outgoing]:
    """Shift records to ``start_us``; none is due before its predecessor, whatever a broken time stamp claims."""
    last_us = start_us
    for record in records:
        last_us = max(last_us, record.due_us + start_us)
        yield msgspec.structs.replace(record, time_us=record.time_us + start_us, due_us=last_us)


def open_all(paths: Sequence[Path], streams: Sequence[int] = ()) -> Recording:
    """Open the parts of a session.

    Args:
        paths: Recordings, and subtitles that belong to none of them.
        streams: Numbers of tracks (of a film) or channels (of an MCAP file) to send in place of the default ones.

    Raises:
        UsageError: A file is missing, of unknown kind, broken, or has nothing to send.
    """
    given = list(dict.fromkeys(paths))
    if not given:
        raise UsageError("no recording was given")
    used = {beside for path in given if (beside := media.beside(path)) is not None}
    parts = [_open(path, streams) for path in given if path not in used]
    if streams and not any(part.tracks for part in parts):
        raise UsageError(f"--stream chooses among tracks, and {', '.join(map(str, given))} has none")
    return _laid_over(parts)


def _open(path: Path, streams: Sequence[int]) -> Part:
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name the files in it that belong to one session")
    openers = _openers()
    opener = openers.get(path.suffix.lower())
    if opener is None:
        raise UsageError(f"{path} is of no known kind; known are {' '.join(openers)}")
    return opener(path, streams)


def _openers() -> dict[str, Opener]:
    """File name ending -> what opens it."""
    return {
        **dict.fromkeys(media.SUFFIXES, media.part),
        **dict.fromkeys(speech.SUFFIXES, lambda path, streams: speech.part(path)),
        table.SUFFIX: lambda path, streams: table.part(path),
        mcap.SUFFIX: mcap.part,
    }


def _laid_over(parts: Sequence[Part]) -> Recording:
    """Each part begins at 0, but parts that share a clock (their times overlap) keep their offset from each other."""
    offsets = []
    for part in parts:
        peers = [peer for peer in parts if _overlap(part, peer)]
        earliest_us = min((peer.clock_us for peer in peers if peer.clock_us is not None), default=None)
        offsets.append(0 if part.clock_us is None or earliest_us is None else part.clock_us - earliest_us)
    length_us = max(offset_us + part.length_us for offset_us, part in zip(offsets, parts, strict=True))
    starts = [part.utc_us - offset for offset, part in zip(offsets, parts, strict=True) if part.utc_us is not None]
    return Recording(list(zip(offsets, parts, strict=True)), length_us, min(starts, default=None))


def _overlap(one: Part, other: Part) -> bool:
    if one.clock_us is None or other.clock_us is None:
        return False
    return one.clock_us <= other.clock_us + other.length_us and other.clock_us <= one.clock_us + one.length_us


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
    names = ", ".join(str(part.path) for _, part in recording.parts)
    if recording.utc_us is None:
        raise UsageError(f"{names} does not tell when it was recorded: leave out --keep-times")
    if recording.utc_us + recording.length_us > time_ns() // 1000 + settings.max_ahead_ms * 1000:
        raise UsageError(f"{names} was recorded in the future by its clock: leave out --keep-times")
    return recording.utc_us


def new_session() -> str:
    """A name that no session had before: in a used one, everything before its last window would be late."""
    return f"replay-{secrets.token_hex(4)}"


__all__ = ["Part", "Recording", "new_session", "open_all", "run"]
