"""Recordings of wards and sleep laboratories as telemetry: EDF, EDF+ and BDF (www.edfplus.info), through edfio.

A signal becomes a channel with its label, unit, scale and rate. Annotations become words at their times. Where the
records of EDF+D and BDF+D are apart, so are the samples: edfio takes these files as continuous, so the start of each
record is read here, from its time-keeping annotation.
"""

from __future__ import annotations

import heapq
import io
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from streamer.errors import UsageError, extra, one_line
from streamer.events import TELEMETRY, TEXT
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.biosignals.labels import Label, words
from streamer.feeds.replay.biosignals.signals import measured
from streamer.feeds.replay.part import S_US, Options, Part, due
from streamer.feeds.replay.slices import sampled, unique

if TYPE_CHECKING:
    from edfio import Bdf, BdfSignal, Edf, EdfSignal

EXTRA = "biosignals"
CHUNK_BYTES = 1 << 20  # of records that are read at once
FIXED_BYTES = 256  # of the header, and as many for each signal
LABEL_BYTES, BEFORE_SAMPLES_BYTES = 16, 216  # of a signal's header: its label, and what is before its samples a record
ANNOTATIONS = {"edf": "EDF Annotations", "bdf": "BDF Annotations"}
WIDTH_BYTES = {"edf": 2, "bdf": 3}  # of a sample
# time-stamped annotations list: onset, maybe a duration, texts
TAL = re.compile(rb"([+-]\d+(?:\.\d*)?)(?:\x15(\d+(?:\.\d*)?))?\x14((?:[^\x00]*\x14)?)\x00")
STEP_S = 1e-3  # records whose starts differ from their length by less follow each other
BROKEN = (ValueError, KeyError, IndexError, TypeError, OverflowError, UnicodeDecodeError)


class Layout(NamedTuple):
    """What the header says, and how much of it is there.

    Attributes:
        header: Its bytes.
        kind: ``edf`` or ``bdf``.
        records: That are there in full.
        duration_s: Of a record.
        samples: Of each signal in a record, those with annotations among them.
        annotations: Where in a record the bytes of each signal with annotations are.
        apart: Whether each record states when it begins.
    """

    header: bytes
    kind: str
    records: int
    duration_s: float
    samples: tuple[int, ...]
    annotations: tuple[slice, ...]
    apart: bool

    @property
    def record_bytes(self) -> int:
        return sum(self.samples) * WIDTH_BYTES[self.kind]


class Channel(NamedTuple):
    """A signal that is sent: its place among the ordinary ones, and its samples a record."""

    place: int
    name: str
    unit: str
    samples: int


class Recording(NamedTuple):
    """An opened file.

    Attributes:
        starts_s: Of the records, from the start of the recording.
        labels: Annotations in order of their start.
    """

    path: Path
    layout: Layout
    starts_s: Sequence[float]
    channels: Sequence[Channel]
    labels: Sequence[Label]


def part(path: Path, options: Options) -> Part:
    """Open a recording, and read its annotations.

    Raises:
        UsageError: It is none, or has neither signals nor annotations.
    """
    with extra(EXTRA, f"reading {path}"):
        import edfio  # noqa: F401 - to see that it is there
    notes: list[str] = []
    try:
        layout = _layout(path, notes)
        starts_s, labels = _annotated(path, layout, notes)
        header = _decoded(layout, _read(path, layout, 0, min(1, layout.records)))
        channels = list(_channels(path, header, notes)) if layout.records else []
        clock_us = _clock_us(header, layout)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    except BROKEN as error:
        raise UsageError(f"{path} is no EDF or BDF file: {one_line(error)}") from None
    if not channels and not labels:
        raise UsageError(f"{path} has neither samples nor annotations")
    interrupted = sum(later - earlier > layout.duration_s + STEP_S for earlier, later in pairwise(starts_s))
    if interrupted:
        notes.append(f"{path}: it was interrupted {interrupted} times; nothing is sent for these gaps")
    recording = Recording(path, layout, starts_s, channels, labels)
    end_us = round((max(starts_s, default=0.0) + layout.duration_s) * S_US)
    end_us = max([end_us, *(label.end_us for label in labels)])
    sends = ({TELEMETRY} if channels else set()) | ({TEXT} if labels else set())
    return Part(
        path,
        end_us,
        lambda begin_us: heapq.merge(_samples(recording, begin_us), words(labels, end_us + 1), key=due),
        frozenset(sends),
        clock_us=clock_us,
        channels=frozenset(channel.name for channel in channels),
        measures=measured({channel.name: channel.unit for channel in channels}),
        notes=notes,
    )


def _layout(path: Path, notes: list[str]) -> Layout:
    with path.open("rb") as file:
        header = file.read(FIXED_BYTES)
        kind = "bdf" if header[:1] == b"\xff" else "edf"
        count = int(header[252:256])
        header += file.read(FIXED_BYTES * count)
    if len(header) < FIXED_BYTES * (1 + count) or count < 1:
        raise ValueError("its header is cut off")
    names = [_field(header, FIXED_BYTES + LABEL_BYTES * place, LABEL_BYTES) for place in range(count)]
    before = FIXED_BYTES + BEFORE_SAMPLES_BYTES * count
    samples = tuple(int(_field(header, before + 8 * place, 8)) for place in range(count))
    if min(samples) < 0 or sum(samples) < 1:
        raise ValueError("its records have no samples")
    ends = np.cumsum(samples) * WIDTH_BYTES[kind]
    annotations = tuple(
        slice(int(end) - size * WIDTH_BYTES[kind], int(end))
        for name, size, end in zip(names, samples, ends, strict=True)
        if name == ANNOTATIONS[kind]
    )
    records, rest = divmod(path.stat().st_size - len(header), int(ends[-1]))
    announced = int(header[236:244])
    if records < announced:  # -1: the recorder did not come to write it
        notes.append(f"{path} ends early: {records} of {announced} records are there")
    elif rest:
        notes.append(f"{path} ends within a record, which is left out")
    apart = header[192:236].startswith((b"EDF+D", b"BDF+D")) and bool(annotations)
    return Layout(header, kind, records, float(header[244:252]), samples, annotations, apart)


def _field(header: bytes, begin: int, size: int) -> str:
    return header[begin : begin + size].decode("latin-1").strip()


def _read(path: Path, layout: Layout, first: int, count: int) -> bytes:
    """The bytes of some records."""
    with path.open("rb") as file:
        file.seek(len(layout.header) + first * layout.record_bytes)
        return file.read(count * layout.record_bytes)


def _decoded(layout: Layout, records: bytes) -> Edf | Bdf:
    """Some records, as edfio reads a file that has no others."""
    import edfio

    read = edfio.read_edf if layout.kind == "edf" else edfio.read_bdf
    with warnings.catch_warnings(action="ignore"):  # that there are fewer records than announced
        return read(io.BytesIO(layout.header + records), header_encoding="latin-1")


def _channels(path: Path, header: Edf | Bdf, notes: list[str]) -> Iterator[Channel]:
    signals: Sequence[EdfSignal | BdfSignal] = header.signals
    names = unique([signal.label or f"signal{place + 1}" for place, signal in enumerate(signals)])
    for place, (name, signal) in enumerate(zip(names, signals, strict=True)):
        low, high = signal.physical_range
        if low == high or signal.digital_min == signal.digital_max:
            notes.append(f"{path}: {name} is left out, since its header gives no scale")
        elif not signal.samples_per_data_record or not header.data_record_duration:
            notes.append(f"{path}: {name} is left out, since it has no rate")
        else:
            yield Channel(place, name, signal.physical_dimension, signal.samples_per_data_record)


def _annotated(path: Path, layout: Layout, notes: list[str]) -> tuple[list[float], list[Label]]:
    """Starts of the records, and annotations."""
    starts_s: list[float] = []
    labels: list[Label] = []
    early = 0
    with path.open("rb") as file:
        for record in range(layout.records):
            begin = len(layout.header) + record * layout.record_bytes
            start_s: float | None = None
            for place, where in enumerate(layout.annotations):
                file.seek(begin + where.start)
                for index, found in enumerate(TAL.finditer(file.read(where.stop - where.start))):
                    onset_s, length_s = float(found[1]), float(found[2] or 0)
                    if place == index == 0:
                        start_s = onset_s
                    texts = [
                        text.decode("utf-8", "replace").strip() for text in found[3].split(b"\x14") if text.strip()
                    ]
                    early += len(texts) * (onset_s < 0)
                    end_s = onset_s + length_s
                    labels += [Label(round(onset_s * S_US), round(end_s * S_US), x) for x in texts if onset_s >= 0]
            if starts_s and (start_s is None or not layout.apart):
                start_s = starts_s[-1] + layout.duration_s if layout.apart else starts_s[0] + record * layout.duration_s
            starts_s.append(start_s or 0.0)
    if early:
        notes.append(f"{path}: {early} annotations from before its start are left out")
    return starts_s, sorted(labels)


def _clock_us(header: Edf | Bdf, layout: Layout) -> int | None:
    """The start by the recorder's clock, which has no zone; ``None`` if the date was removed from the file."""
    try:
        hour, minute, second = (int(digits) for digits in re.split(rb"\D", layout.header[176:184].strip()))
        start = datetime.combine(header.startdate, time(hour, minute, second), UTC)
    except (ValueError, IndexError):
        return None
    return round(start.timestamp() * S_US)


def _samples(recording: Recording, begin_us: int) -> Iterator[Outgoing]:
    """Blocks of channels of one rate and a slice of time each, in due order."""
    layout, starts_s = recording.layout, recording.starts_s
    at_once = max(1, CHUNK_BYTES // layout.record_bytes)
    first = 0
    while first < layout.records and recording.channels:
        last = first + 1  # one past the records that follow each other
        while (
            last < min(layout.records, first + at_once)
            and abs(starts_s[last] - starts_s[last - 1] - layout.duration_s) <= STEP_S
        ):
            last += 1
        if (starts_s[last - 1] + layout.duration_s) * S_US > begin_us:
            yield from _together(recording, first, last)
        first = last


def _together(recording: Recording, first: int, last: int) -> Iterator[Outgoing]:
    """Blocks of records without a gap between them."""
    layout = recording.layout
    read = _decoded(layout, _read(recording.path, layout, first, last - first))
    by_rate: dict[int, list[Channel]] = defaultdict(list)
    for channel in recording.channels:
        by_rate[channel.samples].append(channel)
    blocks = []
    for samples, channels in by_rate.items():
        values_NC = np.column_stack([read.signals[channel.place].data for channel in channels])
        names, units = [channel.name for channel in channels], [channel.unit for channel in channels]
        begin_us = max(0.0, recording.starts_s[first] * S_US)
        blocks.append(sampled(begin_us, samples / layout.duration_s, values_NC, names, units))
    yield from heapq.merge(*blocks, key=due)
