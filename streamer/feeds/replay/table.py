"""Telemetry tables: CSV with a header row, a column of times and a column for each channel.

The time column is the first one called ``time``, ``t``, ``timestamp``, ``ts``, ``datetime``, ``utc``, ``epoch`` or
``elapsed``. It holds seconds, unless its name ends in a unit (``time_ms``, ``t_us``, ``time [ms]``; s, ms, us, ns), or
RFC 3339 times. Every other column is a channel, with its unit in brackets: ``speed [m/s]``.

Times from 10⁹ s on, and RFC 3339, count from the epoch. If the first time is within a minute of 0, times count from the
session's start; otherwise the first row is at the session's start.

An empty cell (or ``nan``) is no measurement: channels measured at the same times share a block. Rows of the same time
are one row.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from streamer.errors import UsageError
from streamer.events import TELEMETRY, moment_us
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.part import ALL, S_US, SLICE_US, Options, Part, telemetry

SENDS = frozenset({TELEMETRY})
TIME = re.compile(
    r"(?:time|t|timestamp|ts|date_?time|utc|epoch|elapsed)"
    r"(?:[ _]?[\[(]?(?P<unit>s|sec|seconds|ms|us|µs|μs|ns)[\])]?)?",
    re.IGNORECASE,
)
UNITS_S = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
CHANNEL = re.compile(r"(?P<name>.*?)\s*[\[(](?P<unit>[^\[\]()]*)[\])]")
EPOCH_S = 1e9  # 2001: a time from here on is since the epoch
LATEST_S = 7_258_118_400.0  # 2200: a time from here on cannot be in seconds
COUNTS_FROM_START_US = 60 * S_US  # a first time below this counts from the session's start
TRUTH = {"true": 1.0, "false": 0.0}
NAN = math.nan


class Columns(NamedTuple):
    """What the header row says."""

    time: int
    scale_s: float | None  # seconds per unit of the time column; None if the header names no unit: seconds
    names: tuple[str, ...]
    units: tuple[str, ...]
    places: tuple[int, ...]  # of the channels


class Row(NamedTuple):
    """Measurements of one time; NaN: not measured."""

    time_us: int
    values: list[float]


def part(path: Path, options: Options = ALL) -> Part:
    """Open a table and read it once, so that a bad row is found before anything is sent.

    Raises:
        UsageError: It is not such a table; the message has the number of the wrong line.
    """
    first_us = last_us = None
    for row in _rows(path):
        if first_us is None:
            first_us = row.time_us
        last_us = row.time_us
    if first_us is None or last_us is None:
        raise UsageError(f"{path} has no rows below its header")
    if 0 <= first_us < COUNTS_FROM_START_US:
        return Part(path, last_us, lambda _: _records(path, 0), SENDS, channels=frozenset(_header(path)[0]))
    utc_us = first_us if first_us >= EPOCH_S * S_US else None
    return Part(
        path,
        last_us - first_us,
        lambda _: _records(path, first_us),
        SENDS,
        clock_us=first_us,
        utc_us=utc_us,
        channels=frozenset(_header(path)[0]),
    )


def _records(path: Path, origin_us: int) -> Iterator[Outgoing]:
    held: list[Row] = []
    names, units = _header(path)
    for row in _rows(path):
        if held and row.time_us >= held[0].time_us + SLICE_US:
            yield from _blocks(held, origin_us, names, units)
            held = []
        held.append(row)
    yield from _blocks(held, origin_us, names, units)


def _blocks(rows: Sequence[Row], origin_us: int, names: Sequence[str], units: Sequence[str]) -> list[Outgoing]:
    return telemetry([row.time_us - origin_us for row in rows], np.array([row.values for row in rows]), names, units)


def _header(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    with _lines(path) as (_, columns):
        return columns.names, columns.units


@contextmanager
def _lines(path: Path) -> Iterator[tuple[Iterator[tuple[int, list[str]]], Columns]]:
    """The rows below the header, each with its line number, and what the header says."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=_delimiter(file))
            columns = _columns(path, next(reader, []))
            yield ((reader.line_num, cells) for cells in reader), columns
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text: convert it, e.g. with iconv") from None
    except csv.Error as error:
        raise UsageError(f"{path} is no CSV: {error}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _delimiter(file: TextIO) -> str:
    header = file.readline()
    file.seek(0)
    return max(",;\t", key=header.count)


def _columns(path: Path, header: list[str]) -> Columns:
    cells = [cell.strip() for cell in header]
    found = [(place, named) for place, cell in enumerate(cells) if (named := TIME.fullmatch(cell))]
    if not found:
        raise UsageError(
            f"{path} has no column of times, called time_s, t, timestamp or the like, in its header row: "
            f"{', '.join(cells)[:200] or 'it is empty'}"
        )
    time, named = found[0]
    unit = named["unit"]
    names, units, places = [], [], []
    for place, cell in enumerate(cells):
        if place == time:
            continue
        bracket = CHANNEL.fullmatch(cell)
        name, channel_unit = (bracket["name"], bracket["unit"].strip()) if bracket else (cell, "")
        if not name or name in names:
            raise UsageError(f"{path}: column {place + 1} {'has no name' if not name else f'is a second {name!r}'}")
        names.append(name)
        units.append(channel_unit)
        places.append(place)
    if not names:
        raise UsageError(f"{path} has no channel beside its column of times")
    return Columns(time, UNITS_S[unit.lower()] if unit else None, tuple(names), tuple(units), tuple(places))


def _rows(path: Path) -> Iterator[Row]:
    """The rows in order of time.

    Raises:
        UsageError: A line is wrong; the message has its number.
    """
    last: Row | None = None
    with _lines(path) as (lines, columns):
        wide = len(columns.places) + 1
        for number, cells in lines:
            if not any(cells):
                continue
            where = f"{path} line {number}"
            if len(cells) != wide:
                raise UsageError(f"{where} has {len(cells)} cells, the header has {wide}")
            row = Row(_time_us(where, cells[columns.time], columns.scale_s), _values(where, cells, columns))
            if last is None:
                last = row
            elif row.time_us == last.time_us:
                last = Row(row.time_us, [b if b == b else a for a, b in zip(last.values, row.values, strict=True)])
            elif row.time_us < last.time_us:
                raise UsageError(f"{where} is earlier than the row above it: sort the table by time")
            else:
                yield last
                last = row
    if last is not None:
        yield last


def _time_us(where: str, cell: str, scale_s: float | None) -> int:
    text = cell.strip()
    try:
        seconds = float(text) * (1.0 if scale_s is None else scale_s)
    except ValueError:
        return _moment_us(where, text)
    if not 0 <= seconds < LATEST_S:
        raise UsageError(
            f"{where}: {text} is no time in seconds since the start or since 1970; put the unit into the column's "
            "name: time_s, time_ms, time_us or time_ns"
        )
    return round(seconds * S_US)


def _moment_us(where: str, text: str) -> int:
    try:
        return moment_us(text)
    except ValueError as error:
        raise UsageError(f"{where}: {error}") from None


def _values(where: str, cells: Sequence[str], columns: Columns) -> list[float]:
    values = []
    for place, name in zip(columns.places, columns.names, strict=True):
        text = cells[place].strip()
        try:
            values.append(float(text) if text else NAN)
        except ValueError:
            if text.lower() not in TRUTH:
                raise UsageError(
                    f"{where}: {text[:40]!r} in column {name!r} is no number: leave the cell empty or the column out"
                ) from None
            values.append(TRUTH[text.lower()])
    return values
