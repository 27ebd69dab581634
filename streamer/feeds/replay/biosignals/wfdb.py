"""Recordings of wards in PhysioNet's WFDB format (.hea, with .dat, .mat and annotations beside it), through wfdb.

A signal becomes a channel with its name, unit, gain and rate, several rates in one record too. Where a segment of the
record is missing or lacks the signal, and where samples are marked as invalid, nothing is sent. Annotations become
words: what the annotator wrote, or else what the annotation's code means.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from streamer.errors import UsageError, extra, one_line
from streamer.events import TELEMETRY, TEXT
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.biosignals.labels import Label, words
from streamer.feeds.replay.biosignals.signals import measured
from streamer.feeds.replay.part import S_US, Options, Part, due
from streamer.feeds.replay.slices import sampled, unique

EXTRA = "biosignals"
CHUNK_SAMPLES = 1 << 19  # of all signals, that are read at once
# endings of annotations, the reviewed before those of machines; the first that is there is sent
ANNOTATORS = ("atr", "blh", "alh", "qrsc", "bph", "man", "ecg", "st", "apn", "ari", "blm", "alm", "qrs", "bpm")
REMARKS = ('"', "+", "=", "@")  # codes whose meaning is in the note alone: comment, rhythm, measurement, link
# what wfdb raises on broken files
BROKEN = (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError, UnicodeDecodeError, EOFError)


class Record(NamedTuple):
    """An opened record.

    Attributes:
        rate_hz: Of its frames; a signal may have several samples a frame.
        whole: Whether it can be read only at once.
        signals: How many there are.
        most_samples: Of a signal in a frame.
    """

    path: Path
    rate_hz: float
    frames: int
    whole: bool
    signals: int
    most_samples: int


def part(path: Path, options: Options) -> Part:
    """Open a record, and read its annotations.

    Raises:
        UsageError: It is none, a file of it is missing or broken, or it has neither signals nor annotations.
    """
    with extra(EXTRA, f"reading {path}"):
        import wfdb
    notes: list[str] = []
    try:
        header = wfdb.rdheader(_name(path))
        whole = header.sig_len is None  # wfdb reads no part of a record whose length is not in its header
        first = _read(path, 0, None if whole else 1) if header.n_sig else None
        frames = int(header.sig_len or (first.sig_len if first is not None else 0))
        labels = list(_labels(path, header.fs, notes))
    except OSError as error:
        raise UsageError(f"{path}: {error.filename or path} cannot be read: {error.strerror}") from None
    except BROKEN as error:
        raise UsageError(f"{path} is no WFDB record, or broken: {one_line(error)}") from None
    if first is None and not labels:
        raise UsageError(f"{path} has neither signals nor annotations")
    channels = _channels(first) if first is not None else []
    most = max(first.samps_per_frame) if first is not None else 1
    record = Record(path, header.fs, frames, whole, len(channels), most)
    end_us = max([round(frames / header.fs * S_US), *(label.end_us for label in labels)])
    sends = ({TELEMETRY} if channels else set()) | ({TEXT} if labels else set())
    clock_us = None
    if header.base_date is not None and header.base_time is not None:  # of the recorder's clock, which has no zone
        clock_us = round(header.base_datetime.replace(tzinfo=UTC).timestamp() * S_US)
    return Part(
        path,
        end_us,
        lambda begin_us: heapq.merge(_samples(record, begin_us, notes), words(labels, end_us + 1), key=due),
        frozenset(sends),
        clock_us=clock_us,
        channels=frozenset(channels),
        measures=measured({} if first is None else dict(zip(channels, _units(first), strict=True))),
        notes=notes,
    )


def _name(path: Path) -> str:
    return str(path.absolute().with_suffix(""))


def _read(path: Path, first: int, last: int | None) -> Any:
    """The frames ``[first, last)`` of a record, in physical units, with the samples of each signal as they are."""
    import wfdb

    return wfdb.rdrecord(_name(path), sampfrom=first, sampto=last, smooth_frames=False)


def _labels(path: Path, rate_hz: float, notes: list[str]) -> Iterator[Label]:
    import wfdb

    there = [name for name in ANNOTATORS if path.with_suffix(f".{name}").is_file()]
    for name in there[1:]:
        notes.append(f"{path.with_suffix(f'.{name}')} is left out, since the annotations of .{there[0]} are sent")
    if not there:
        return
    try:
        found = wfdb.rdann(_name(path), there[0], return_label_elements=["symbol", "description"])
    except BROKEN as error:
        notes.append(f"{path.with_suffix(f'.{there[0]}')} is left out, since it cannot be read: {one_line(error)}")
        return
    for sample, symbol, meaning, note in zip(
        found.sample, found.symbol, found.description, found.aux_note, strict=True
    ):
        said = note.strip("\x00 ")
        text = said if said and symbol in REMARKS else f"{meaning} {said}".strip()
        time_us = round(int(sample) / (found.fs or rate_hz) * S_US)
        yield Label(time_us, time_us, text)


def _samples(record: Record, begin_us: int, notes: list[str]) -> Iterator[Outgoing]:
    """Blocks of channels of one rate and a slice of time each, in due order."""
    if not record.signals:
        return
    at_once = record.frames if record.whole else max(1, CHUNK_SAMPLES // (record.signals * record.most_samples))
    for first in range(0, record.frames, max(1, at_once)):
        last = min(first + at_once, record.frames)
        if last / record.rate_hz * S_US <= begin_us:
            continue
        read, why = _there(record, first, last)
        if read is not None:
            yield from _together(read, first, record.rate_hz)
        if why:
            notes.append(f"{record.path} could not be read to its end: {why}")
            return


def _there(record: Record, first: int, last: int) -> tuple[Any, str]:
    """Those of the frames ``[first, last)`` that can be read, or ``None``; and what wfdb says of the others."""
    try:
        return _read(record.path, first, None if record.whole else last), ""
    except (OSError, *BROKEN) as error:
        why = one_line(error)
    read, end = None, first
    while last - end > 1 and not record.whole:
        middle = (end + last) // 2
        try:
            read, end = _read(record.path, first, middle), middle
        except (OSError, *BROKEN):
            last = middle
    return read, why


def _channels(read: Any) -> list[str]:
    """Names of the signals; those that the header does not describe are called by their number, from 0 as in WFDB."""
    return unique([name or f"signal {place}" for place, name in enumerate(read.sig_name)])


def _units(read: Any) -> list[str]:
    return [unit or "" for unit in read.units]


def _together(read: Any, first: int, rate_hz: float) -> Iterator[Outgoing]:
    names = _channels(read)
    by_samples: dict[int, list[int]] = defaultdict(list)
    for place, samples in enumerate(read.samps_per_frame):
        by_samples[samples].append(place)
    blocks = []
    for samples, places in by_samples.items():
        values_NC = np.column_stack([read.e_p_signal[place] for place in places])
        begin_us = first / rate_hz * S_US
        channels, units = [names[place] for place in places], [_units(read)[place] for place in places]
        blocks.append(sampled(begin_us, rate_hz * samples, values_NC, channels, units))
    yield from heapq.merge(*blocks, key=due)
