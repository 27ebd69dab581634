"""Recordings of ``streamer record`` with labels by time.

The labels of ``day.mcap`` are beside it in ``day.labels.csv`` or ``day.labels.jsonl``; a row labels an interval of a
session's event time:

    session,start,end,label
    cab-7,2026-05-01T12:00:00Z,2026-05-01T12:00:04.5Z,brake

Times are RFC 3339 or seconds since 1970. Instead of ``label`` a table may have a column for each output, and JSON lines
``labels`` by output; tags in a cell are separated by ``;``, and an empty cell is no label. ``split`` may name the part.

The windows are those of a worker with the same settings and the model's length of window: the records go through its
decoder, merge and alignment. A window has the labels of the intervals that contain its middle; windows in no interval
are left out. Unless ``split`` says otherwise, all windows of a session are in the same part. Windows are cut when the
data set is opened, and kept in memory: 0.2 MB for one second with 16 kHz audio and two frames of 160 × 90.
"""

from __future__ import annotations

import asyncio
import csv
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from streamer.errors import BadRecord, UsageError
from streamer.events import KIND_NAMES, Event, Window, moment_us
from streamer.model.sample import Limits, Sample, cut
from streamer.model.spec import ModelSpec
from streamer.settings import Settings
from streamer.training.data import labels
from streamer.training.data.parts import NAMES
from streamer.training.data.rows import S_US, BadRow, Found, Row, RowError
from streamer.training.dataset import Label

SUFFIX = ".mcap"
CSV_LABELS, JSON_LABELS = ".labels.csv", ".labels.jsonl"
COLUMNS = ("session", "start", "end")


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An interval of a session with its labels; see the module."""

    session: str
    start: str | float
    end: str | float
    label: str | float | list[str] | None = None
    labels: dict[str, str | float | list[str]] | None = None
    split: str | None = None


class Stretch(msgspec.Struct):
    """A labelled interval ``[start, end)`` of a session; ``windows`` counts those whose middle is in it."""

    where: str
    start_us: int
    end_us: int
    labels: dict[str, Label]
    part: str
    windows: int = 0


Stretches = Mapping[str, list[Stretch]]  # session -> in order of their starts


def looks_so(path: Path) -> bool:
    """Whether it is an MCAP file, or a folder with MCAP files."""
    return path.suffix == SUFFIX if path.is_file() else any(path.glob(f"*{SUFFIX}"))


def load(path: Path, spec: ModelSpec, settings: Settings) -> Iterator[Found]:
    """The labelled windows of a recording, or of all recordings in a folder.

    Records that decode refuses, payloads that cannot be opened and intervals without a window are yielded as bad rows;
    windows are made without them, as in serving.

    Raises:
        UsageError: A file cannot be read, is not a recording, or has no labels.
    """
    for file in sorted(path.glob(f"*{SUFFIX}")) if path.is_dir() else [path]:
        found: list[Found] = []
        stretches = _stretches(file, spec, found)
        yield from found
        yield from asyncio.run(_windows(file, stretches, spec, settings))
        for stretch in (s for session in stretches.values() for s in session if not s.windows):
            yield BadRow(stretch.where, "no window of the recording has its middle in this interval")


async def _windows(path: Path, stretches: Stretches, spec: ModelSpec, settings: Settings) -> list[Found]:
    from streamer.golden.offline import Offline  # imported here: it needs mcap, of the extra feeds

    hop_ms = settings.hop_ms if settings.hop_ms and settings.hop_ms < spec.window_ms else None
    settings = settings.model_copy(update={"window_ms": spec.window_ms, "hop_ms": hop_ms})
    limits = Limits.of(settings)
    offline = Offline(settings, path, lambda session, partition: False)
    found: list[Found] = []
    async for window in offline.windows():
        here = _at(stretches.get(window.session, []), (window.start_us + window.end_us) // 2)
        if here:
            sample, rejects = cut(window, spec.inputs, limits)
            found += [_broken(path, event, error) for event, error in rejects]
            found.append(_row(path, window, sample, here))
    refused = sorted(offline.refused.items())
    return found + [BadRow(path.name, f"{count} records are refused as {reason}") for reason, count in refused]


def _broken(path: Path, event: Event, error: BadRecord) -> BadRow:
    record = event.record
    place = f"{KIND_NAMES[event.row]} partition {record.partition} offset {record.offset}"
    return BadRow(f"{path.name} {place}", error.detail)


def _row(path: Path, window: Window, sample: Sample, stretches: list[Stretch]) -> Found:
    where = f"{path.name} window {window.id}"
    for stretch in stretches:
        stretch.windows += 1
    try:
        own, part = _together(stretches)
    except RowError as error:
        return BadRow(where, str(error))
    group = "" if part else window.session  # parts named in the labels may divide a session
    return Row(where, own, part=part, group=group, key=window.id, sample=sample)


def _at(stretches: list[Stretch], at_us: int) -> list[Stretch]:
    """The intervals that contain a time."""
    return [stretch for stretch in stretches if stretch.start_us <= at_us < stretch.end_us]


def _together(stretches: list[Stretch]) -> tuple[dict[str, Label], str]:
    """Labels and part of a window: tags are united, anything else must agree."""
    own: dict[str, Label] = {}
    parts = {stretch.part for stretch in stretches if stretch.part}
    if len(parts) > 1:
        raise RowError(f"{stretches[0].where} and {stretches[-1].where} put it into different parts")
    for stretch in stretches:
        for output, label in stretch.labels.items():
            before = own.get(output, label)
            if isinstance(before, tuple) and isinstance(label, tuple):
                own[output] = tuple(dict.fromkeys(before + label))
            elif before == label:
                own[output] = label
            else:
                raise RowError(f"{output} is {before} and {label} by {stretches[0].where} and {stretch.where}")
    return own, next(iter(parts), "")


# labels


def _stretches(path: Path, spec: ModelSpec, found: list[Found]) -> Stretches:
    tables = [file for end in (CSV_LABELS, JSON_LABELS) if (file := path.with_suffix(end)).is_file()]
    if len(tables) != 1:
        wanted = " or ".join(path.with_suffix(end).name for end in (CSV_LABELS, JSON_LABELS))
        raise UsageError(f"{path} has {'two files of' if tables else 'no'} labels: {wanted} is wanted beside it")
    sessions: dict[str, list[Stretch]] = defaultdict(list)
    try:
        for number, line in (_csv if tables[0].suffix == ".csv" else _json)(tables[0], spec):
            where = f"{tables[0].name} line {number}"
            try:
                if isinstance(line, RowError):
                    raise line
                sessions[line.session].append(_stretch(where, line, spec))
            except RowError as error:
                found.append(BadRow(where, str(error)))
    except UnicodeDecodeError:
        raise UsageError(f"{tables[0]} is not UTF-8 text: convert it, e.g. with iconv") from None
    except (OSError, csv.Error) as error:
        raise UsageError(f"cannot read {tables[0]}: {error}") from None
    return {session: sorted(own, key=lambda stretch: stretch.start_us) for session, own in sessions.items()}


def _json(path: Path, spec: ModelSpec) -> Iterator[tuple[int, Line | RowError]]:
    decoder = msgspec.json.Decoder(Line)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield number, decoder.decode(line)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    yield number, RowError(str(error))


def _csv(path: Path, spec: ModelSpec) -> Iterator[tuple[int, Line | RowError]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = [cell.strip() for cell in next(reader, [])]
        unknown = set(header) - {*COLUMNS, "label", "split", *spec.outputs}
        if unknown or not set(COLUMNS) <= set(header) or len(set(header)) < len(header):
            raise UsageError(
                f"{path} has the columns {', '.join(header)[:200] or 'none'}; wanted are session, start, end, and "
                f"label or some of {', '.join(spec.outputs)}"
            )
        for cells in reader:
            if len(cells) != len(header) and any(cells):
                yield reader.line_num, RowError(f"has {len(cells)} cells, the header has {len(header)}")
            elif any(cells):
                yield reader.line_num, _line(dict(zip(header, map(str.strip, cells), strict=True)), spec)


def _line(cells: dict[str, str], spec: ModelSpec) -> Line | RowError:
    """A table's row as a line of JSON; a cell under ``label`` is for the model's only output."""
    session, start, end = (cells.pop(name) for name in COLUMNS)
    split = cells.pop("split", "")
    only = next(iter(spec.outputs))
    if "label" in cells and only not in cells and len(spec.outputs) == 1:
        cells[only] = cells.pop("label")
    if cells.pop("label", ""):
        return RowError(f"label names no output: have columns called {', '.join(spec.outputs)}")
    own: dict[str, str | float | list[str]] = {}
    for name, cell in cells.items():
        if not cell:
            continue
        kind = spec.outputs[name].kind
        try:
            own[name] = float(cell) if kind == "number" else cell
        except ValueError:
            return RowError(f"{name} is a number, not {cell[:40]!r}")
        if kind == "tags":
            own[name] = [tag.strip() for tag in cell.split(";") if tag.strip()]
    return Line(session, start, end, labels=own, split=split or None)


def _stretch(where: str, line: Line, spec: ModelSpec) -> Stretch:
    if line.label is not None and line.labels is not None:
        raise RowError("has both label and labels")
    start_us, end_us = _time_us(line.start), _time_us(line.end)
    if start_us >= end_us:
        raise RowError(f"start {line.start} is not before end {line.end}")
    if line.split is not None and line.split not in NAMES:
        raise RowError(f"split {line.split!r} is unknown; known: {', '.join(NAMES)}")
    own = labels.checked(spec, line.labels or {}) if line.label is None else labels.sole(spec, line.label)
    return Stretch(where, start_us, end_us, own, NAMES[line.split] if line.split else "")


def _time_us(given: str | float) -> int:
    try:
        return round(float(given) * S_US)
    except (ValueError, OverflowError):
        pass
    try:
        return moment_us(str(given))
    except ValueError as error:
        raise RowError(str(error)) from None
