"""Telemetry tables: CSV, TSV and the like, with a header row, a column of times and a column for each channel.

``header`` says how columns are recognised, and ``cells`` what may be in them. Text is UTF-8, UTF-16 with a byte order
mark, or Windows-1252; columns are separated by commas, semicolons, tabs or bars; decimal commas are understood unless
columns are separated by commas. Lines that begin with ``#`` are comments, and a second header row may hold units.

Times are numbers in the unit that the header names, ISO 8601, or times of day (with a column of dates, or without).
Numbers without a unit are seconds, or count from 1970 in the unit that puts them into our time; where neither can be,
the unit is asked for. Times from 10⁹ s on, and dates, count from the epoch. If the first time is within a minute of 0,
times count from the session's start; otherwise the first row is at the session's start. For microseconds and
nanoseconds, which devices count from when they were switched on, it is a second in place of a minute.

Rows are in order of time. Rows of the same time are one row, in which the last measurement of a channel counts. An
empty cell (or ``nan``, ``NA``, ``null``, ``-``) is no measurement; channels measured at the same times share a block.
A column whose first value is a text is not sent.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice, takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from streamer.errors import UsageError
from streamer.events import TELEMETRY
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.part import ALL, S_US, SLICE_US, Options, Part, telemetry
from streamer.feeds.replay.tables import header
from streamer.feeds.replay.tables.cells import (
    DAY_US,
    EPOCH_US,
    UNITS,
    Clock,
    Kind,
    clock,
    is_of_day,
    number,
)

SENDS = frozenset({TELEMETRY})
COUNTS_FROM_START_US = 60 * S_US  # a first time below this counts from the session's start
FINE_COUNTS_FROM_START_US = S_US  # likewise, in microseconds or nanoseconds
FIRST_ROWS = 200  # that show how times are written
MOST_BELOW = 2  # rows of words below the header row
SAMPLE_BYTES = 65_536  # that show the encoding
MOST_NAMED = 8  # columns in a note
NAN = float("nan")


class Row(NamedTuple):
    """Measurements of one time; NaN: not measured."""

    time_us: int
    values: list[float]


@dataclass
class Findings:
    """What reading a table showed.

    Attributes:
        texts: First text of each column that holds texts, by name.
        mixed: Those of them that hold numbers further down.
        measured: Places of columns with numbers.
        nameless: Places of columns with values and without a name.
        replaced: Rows that replaced a measurement of the row above, since their time is the same.
        cut: Number of the last line, if it ends before its last column.
    """

    texts: dict[str, str] = field(default_factory=dict)
    mixed: dict[str, str] = field(default_factory=dict)
    measured: set[int] = field(default_factory=set)
    nameless: set[int] = field(default_factory=set)
    replaced: int = 0
    cut: int | None = None


def part(path: Path, options: Options = ALL) -> Part:
    """Open a table and read it once, so that a bad row is found before anything is sent.

    Raises:
        UsageError: It is not such a table; the message has the number of the wrong line.
    """
    first_us = last_us = None
    with _opened(path) as table:
        for row in table.rows():
            if first_us is None:
                first_us = row.time_us
            last_us = row.time_us
        kind, unit_us, channels, notes = table.clock.kind, table.clock.unit_us, table.channels, list(_notes(table))
    if first_us is None or last_us is None:
        raise UsageError(f"{path} has no rows below its header")
    if not channels:
        raise UsageError(f"{path} has no column of numbers beside its times; {'; '.join(notes)}")
    from_start_us = COUNTS_FROM_START_US if unit_us >= UNITS["ms"] else FINE_COUNTS_FROM_START_US
    if kind in (Kind.NUMBER, Kind.OF_DAY) and first_us < from_start_us:
        return Part(path, last_us, partial(_records, path, 0), SENDS, channels=channels, notes=notes)
    known = kind is Kind.MOMENT or (kind is Kind.NUMBER and first_us >= EPOCH_US)
    return Part(
        path,
        last_us - first_us,
        partial(_records, path, first_us),
        SENDS,
        clock_us=first_us,
        utc_us=first_us if known else None,
        channels=channels,
        notes=notes,
    )


def _records(path: Path, origin_us: int, begin_us: int) -> Iterator[Outgoing]:
    held: list[Row] = []
    with _opened(path) as table:
        names, units = table.columns.names, table.columns.units
        for row in table.rows():
            if row.time_us - origin_us < begin_us:
                continue
            if held and row.time_us >= held[0].time_us + SLICE_US:
                yield from _blocks(held, origin_us, names, units)
                held = []
            held.append(row)
        if held:
            yield from _blocks(held, origin_us, names, units)


def _blocks(rows: Sequence[Row], origin_us: int, names: Sequence[str], units: Sequence[str]) -> list[Outgoing]:
    return telemetry([row.time_us - origin_us for row in rows], np.array([row.values for row in rows]), names, units)


class Table:
    """A table that is being read.

    Args:
        lines: The rows below the header, each with its line number.
        encoding: Of the text.
    """

    def __init__(
        self, path: Path, columns: header.Columns, lines: Iterator[tuple[int, list[str]]], encoding: str
    ) -> None:
        self.path, self.encoding, self.found = path, encoding, Findings()
        self.comma = columns.delimiter != ","
        first = list(islice(lines, FIRST_ROWS))
        below = list(takewhile(lambda row: header.is_below(row[1], columns), first[:MOST_BELOW]))
        first = first[len(below) :]
        self._lines = chain(first, lines)
        said: ValueError | None = None
        chosen: header.Columns | None = columns
        while chosen is not None:
            self.columns = header.with_units(chosen, below[0][1]) if below else chosen
            try:
                self.clock = self._clock([cells for _, cells in first])
                return
            except UsageError as error:
                raise UsageError(f"{path} line {first[0][0]}: {error}") from None
            except ValueError as error:
                said, chosen = said or error, header.next_best(chosen)
        raise UsageError(f"{path} line {first[0][0]}: {said}")

    def _clock(self, rows: Sequence[Sequence[str]]) -> Clock:
        """How to read the times; also finds whether a column of dates belongs to them."""
        columns = self.columns
        timed = [cells for cells in rows if columns.time < len(cells) and cells[columns.time].strip()]
        whole = bool(timed) and columns.date is not None and is_of_day(timed[0][columns.time])
        self._date = columns.date if whole else None
        if self._date is not None:
            self.columns = header.without(columns, self._date)
        self._least = max(columns.time, *columns.places) + 1
        texts = [self._time(cells) for cells in timed if len(cells) >= self._least]
        return clock(texts or ["0"], columns.unit_us, columns.time_name, self.comma, columns.utc)

    def _time(self, cells: Sequence[str]) -> str:
        time = cells[self.columns.time]
        return time if self._date is None else f"{cells[self._date].strip()} {time.strip()}"

    @property
    def channels(self) -> frozenset[str]:
        """Names of the columns in which numbers were found so far."""
        placed = zip(self.columns.names, self.columns.places, strict=True)
        return frozenset(name for name, place in placed if place in self.found.measured)

    def rows(self) -> Iterator[Row]:
        """The rows in order of time.

        Raises:
            UsageError: A line is wrong; the message has its number.
        """
        last: Row | None = None
        short = ""  # a row with too few cells, which is right only at the end of a log that was cut off
        days_us = 0
        for number_, cells in self._lines:
            if short:
                raise UsageError(short)
            short = self._check(number_, cells)
            if short:
                self.found.cut = number_
                continue
            time_us = self._time_us(number_, cells) + days_us
            if self.clock.kind is Kind.OF_DAY and last is not None and time_us < last.time_us - DAY_US // 2:
                days_us, time_us = days_us + DAY_US, time_us + DAY_US  # past midnight
            row = Row(time_us, self._values(number_, cells))
            if last is not None and row.time_us < last.time_us:
                raise UsageError(f"{self.path} line {number_} is earlier than the row above it: sort the table by time")
            if last is not None and row.time_us == last.time_us:
                self.found.replaced += any(a == a and b == b for a, b in zip(last.values, row.values, strict=True))
                row = Row(time_us, [b if b == b else a for a, b in zip(last.values, row.values, strict=True)])
            elif last is not None:
                yield last
            last = row
        if last is not None:
            self.found.cut = self.found.cut if short else None
            yield last
        elif short:
            raise UsageError(short)

    def _check(self, number_: int, cells: Sequence[str]) -> str:
        """What is wrong if the row is too short, else empty."""
        width = len(self.columns.cells)
        if len(cells) == width and not self.columns.nameless:
            return ""
        said = f"{self.path} line {number_} has {len(cells)} cells, the header has {width}"
        if any(cell.strip() for cell in cells[width:]):
            raise UsageError(said)
        for place in self.columns.nameless:
            if place < len(cells) and cells[place].strip():
                self.found.nameless.add(place)
        return said if len(cells) < self._least else ""

    def _time_us(self, number_: int, cells: Sequence[str]) -> int:
        try:
            return self.clock.time_us(self._time(cells))
        except ValueError as error:
            raise UsageError(f"{self.path} line {number_}: {error}") from None

    def _values(self, number_: int, cells: Sequence[str]) -> list[float]:
        measured, values = self.found.measured, []
        for place in self.columns.places:
            try:
                value = float(cells[place])
            except ValueError:
                value = self._unusual(number_, place, cells[place].strip())
            if place not in measured and value == value:
                value = self._first(place, value)
            values.append(value)
        return values

    def _unusual(self, number_: int, place: int, text: str) -> float:
        """The value of a cell that is no plain number.

        Raises:
            UsageError: It is a text in a column of numbers.
        """
        value = number(text, self.comma)
        if value is not None:
            return value
        name = self._name(place)
        if place in self.found.measured:
            raise UsageError(
                f"{self.path} line {number_}: {text[:40]!r} in column {name!r} is no number: "
                "leave the cell empty or the column out"
            )
        self.found.texts.setdefault(name, text)
        return NAN

    def _first(self, place: int, value: float) -> float:
        """A number in a column that had none: the first, or one in a column of texts."""
        name = self._name(place)
        if name in self.found.texts:
            self.found.mixed.setdefault(name, self.found.texts[name])
            return NAN
        self.found.measured.add(place)
        return value

    def _name(self, place: int) -> str:
        return self.columns.names[self.columns.places.index(place)]


def _notes(table: Table) -> Iterator[str]:
    """What the user should know of a table that was read."""
    path, columns, found = table.path, table.columns, table.found
    if table.encoding == "cp1252":
        yield f"{path} is not UTF-8 and was read as Windows-1252"
    if columns.passed:
        yield f"{path}: {columns.passed} lines above the header row were passed over"
    if table.clock.note:
        yield f"{path}: {table.clock.note}"
    if columns.renamed:
        yield f"{path} has several columns of one name: further ones were sent as {_some(columns.renamed)}"
    if found.texts:
        shown = [f"{name} ({text[:20]})" for name, text in found.texts.items()]
        yield f"{path}: columns of texts were not sent: {_some(shown)}"
    for name, text in found.mixed.items():
        yield f"{path}: column {name!r} begins with a text, but holds numbers too: empty the cells like {text[:20]!r}"
    empty = [name for name in columns.names if name not in table.channels and name not in found.texts]
    if empty:
        yield f"{path}: columns without a value were not sent: {_some(empty)}"
    if found.nameless:
        numbers = [str(place + 1) for place in sorted(found.nameless)]
        yield f"{path}: columns without a name were not sent: {_some(numbers)}"
    if found.replaced:
        yield f"{path}: measurements were replaced {found.replaced} times by a row of the same time below"
    if found.cut is not None:
        yield f"{path} ends inside line {found.cut}, which was left out"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:MOST_NAMED])
    return shown if len(names) <= MOST_NAMED else f"{shown} and {len(names) - MOST_NAMED} more"


@contextmanager
def _opened(path: Path) -> Iterator[Table]:
    try:
        encoding = _encoding(path)
        with path.open(encoding=encoding, newline="") as file:
            columns = header.find(file)
            if isinstance(columns, str):
                raise UsageError(
                    f"{path} has no column of times, called time_s, t, timestamp or the like, in its header row: "
                    f"{columns[:200] or 'it is empty'}"
                )
            if not columns.places:
                raise UsageError(f"{path} has no channel beside its column of times")
            reader = csv.reader(file, delimiter=columns.delimiter)
            lines = (
                (columns.lines + reader.line_num, cells)
                for cells in reader
                if any(cells) and (len(cells) > 1 or cells[0].strip()) and not cells[0].startswith("#")
            )
            yield Table(path, columns, lines, encoding)
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text: convert it, e.g. with iconv") from None
    except csv.Error as error:
        raise UsageError(f"{path} is no CSV: {error}") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        sample = file.read(SAMPLE_BYTES)
    if sample.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return "utf-8" if b"\0" in sample else "cp1252"  # bytes of zero are in no text: it will be refused
    return "utf-8-sig"
