"""Header rows of tables: where the header is, which column holds the times, and what the channels are called.

The header is the first line with a column of times, of the first ``MOST_LINES``: lines above it (comments, a name, the
settings of a logger) are passed over. A column of times is called ``time``, ``t``, ``timestamp``, ``ts``, ``datetime``,
``utc``, ``epoch`` or ``elapsed``, with its unit behind it or in brackets (``time_ms``, ``TimeUS``, ``time [ms]``), and
maybe words like ``since start`` or ``boot``; of several the plainest that can be read counts. A column ``date``
completes a column of times of day. Rows of words below the header belong to it; the first holds units.

A channel's unit is in brackets behind its name (``speed [m/s]``, ``speed (km/h)``) or its last word, if that is a
quotient (``accel_x_m/s^2``). Brackets that hold an index or an axis belong to the name (``cell_v[0]``, ``G(x)``), and
those that tell apart columns of one name do as well.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import islice
from typing import NamedTuple

from streamer.feeds.replay.slices import unique
from streamer.feeds.replay.tables.cells import UNITS, is_time, number

MOST_LINES = 60  # that may be above the header
DELIMITERS = ",;\t|"
DECLARED = re.compile(r"sep=(.)", re.IGNORECASE)  # as Excel writes above the header
COMMENTS = ("#", "%", "//")
BRACKETS = re.compile(r"(?P<name>.*?)\s*[\[(](?P<unit>[^\[\]()]*)[\])]")
QUOTIENT = re.compile(r".*[\s_]([^\W\d_]+(?:/[^\W\d_]+[²³^*\d]*)+)")
PLACES = re.compile(r"\d+|[xyzXYZw]")  # what brackets hold that is no unit: an index, or an axis
WORDS = re.compile(r"[A-Zµμ]+(?![a-z])|[A-Z]?[a-zµμ]+|\d+")
CORE = {"time", "t", "timestamp", "timestamps", "ts", "datetime", "utc", "epoch", "elapsed", "date"}
COUNTING = {"seconds", "millis", "milliseconds", "micros", "microseconds", "nanos", "nanoseconds"}
AROUND = {
    "since", "start", "boot", "in", "of", "the", "from", "unix", "posix", "system", "sys", "gps", "local", "host",
    "log", "logging", "recording", "experiment", "sample", "sensor", "device", "rosbag", "stamp", "txt",
}  # fmt: skip
PATTERN = {"yyyy", "yy", "mo", "mm", "dd", "hh", "mi", "mn", "ss", "sss"}  # AndroSensor: YYYY-MO-DD HH-MI-SS_SSS


class Columns(NamedTuple):
    """What the header row says.

    Attributes:
        date: Place of a column of dates, which is among the channels; ``None`` if there is none.
        unit_us: Microseconds for each unit of the time column; ``None`` if the header names no unit.
        utc: Whether the time column's name says that it is in UTC.
        names: Of the channels, all different.
        places: Of the channels.
        nameless: Places of columns without a name.
        renamed: Names that were given to further columns of one name.
        cells: The header row.
        rank: Of the time column among all that could be it, from 0.
        lines: Up to and with the header row.
        passed: Of these, lines above it that are neither blank nor comments.
    """

    time: int
    date: int | None
    time_name: str
    unit_us: Fraction | None
    utc: bool
    names: tuple[str, ...]
    units: tuple[str, ...]
    places: tuple[int, ...]
    nameless: tuple[int, ...]
    renamed: tuple[str, ...]
    cells: tuple[str, ...]
    rank: int
    delimiter: str
    lines: int
    passed: int


def find(lines: Iterator[str]) -> Columns | str:
    """Read up to the header row; the first line with text, if there is no header row."""
    first, declared, passed = "", "", 0
    for count, line in enumerate(islice(lines, MOST_LINES), 1):
        text = line.strip("\r\n ")
        if (found := DECLARED.fullmatch(text)) is not None:
            declared = found[1]
            continue
        comment = text.startswith(COMMENTS)
        delimiter = declared or max(DELIMITERS, key=_unquoted(text).count)
        cells = [cell.strip() for cell in next(csv.reader([text.lstrip("#%/ ")], delimiter=delimiter), [])]
        if _is_header(cells) and not (comment and len(cells) == 1):
            return _columns(cells, 0, delimiter, count, passed)
        if any(cells):
            first = first or text
            passed += not comment
    return first


def next_best(columns: Columns) -> Columns | None:
    """The columns with the next one that could hold the times; ``None`` if there is no other."""
    if columns.rank + 1 >= len(_candidates(columns.cells)):
        return None
    return _columns(columns.cells, columns.rank + 1, columns.delimiter, columns.lines, columns.passed)


def is_below(cells: Sequence[str], columns: Columns) -> bool:
    """Whether a row belongs to the header: its units, or what else is said in words."""
    texts = [cell.strip() for cell in cells]
    if columns.time < len(texts) and is_time(texts[columns.time]):
        return False
    return any(texts) and not any(text and number(text, True) is not None for text in texts)


def with_units(columns: Columns, cells: Sequence[str]) -> Columns:
    """The columns with the units of a second header row, where the first has none."""
    below = [cell.strip().strip("[]()") for cell in cells] + [""] * len(columns.cells)
    unit_us = UNITS.get(below[columns.time].lower(), columns.unit_us)
    units = tuple(unit or below[place] for unit, place in zip(columns.units, columns.places, strict=True))
    return columns._replace(units=units, unit_us=unit_us)


def without(columns: Columns, place: int) -> Columns:
    """The columns less one of the channels."""
    kept = [index for index, other in enumerate(columns.places) if other != place]
    return columns._replace(
        names=tuple(columns.names[index] for index in kept),
        units=tuple(columns.units[index] for index in kept),
        places=tuple(columns.places[index] for index in kept),
    )


def _unquoted(text: str) -> str:
    return re.sub(r'"[^"]*"', "", text)


def _is_header(cells: Sequence[str]) -> bool:
    return any(_time(cell) is not None for cell in cells) and not any(is_time(cell) for cell in cells)


def _time(cell: str) -> tuple[int, Fraction | None] | None:
    """How unusual a name for a time column it is, and its unit; ``None`` if it is another column."""
    bracket = BRACKETS.fullmatch(cell)
    text, inside = (bracket["name"], bracket["unit"].strip().lower()) if bracket else (cell, "")
    words = [word.lower() for word in WORDS.findall(text)]
    if not words:
        return None
    if set(words) <= PATTERN and {"yyyy", "hh"} <= set(words):
        return 1, None
    unit = UNITS.get(inside) or (UNITS.get(words[-1]) if len(words) > 1 else None)
    spelled = next((UNITS[word] for word in words if word in COUNTING), None)
    rest = [word for word in words if word not in UNITS]
    if not (set(words) & (CORE | COUNTING)) or any(word not in CORE | AROUND for word in rest):
        return None
    if words == ["date"]:
        return 2, None
    return int(len(rest) > 1 or spelled is not None), unit or spelled


def _candidates(cells: Sequence[str]) -> list[tuple[int, int, Fraction | None]]:
    """How unusual a name, place and unit of each column that could hold the times, best first."""
    found = [(named[0], place, named[1]) for place, cell in enumerate(cells) if (named := _time(cell)) is not None]
    return sorted(found, key=lambda one: one[:2])


def _columns(cells: Sequence[str], rank: int, delimiter: str, lines: int, passed: int) -> Columns:
    _, time, unit_us = _candidates(cells)[rank]
    places = [place for place, cell in enumerate(cells) if cell and place != time]
    names, units, renamed = _names([cells[place] for place in places])
    bracket = BRACKETS.fullmatch(cells[time])
    return Columns(
        time=time,
        date=next((place for place in places if cells[place].lower() == "date"), None),
        time_name=bracket["name"] if bracket else cells[time],
        unit_us=unit_us,
        utc="utc" in map(str.lower, WORDS.findall(cells[time])),
        names=names,
        units=units,
        places=tuple(places),
        nameless=tuple(place for place, cell in enumerate(cells) if not cell),
        renamed=renamed,
        cells=tuple(cells),
        rank=rank,
        delimiter=delimiter,
        lines=lines,
        passed=passed,
    )


def _names(cells: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names and units of channels, and which names were made up since a column of that name was there."""
    parted = [_parted(cell) for cell in cells]
    often = Counter(name for name, _ in parted)
    plain = [short if often[short] == 1 else cell for cell, (short, _) in zip(cells, parted, strict=True)]
    names = unique(plain)
    renamed = tuple(name for name, before in zip(names, plain, strict=True) if name != before)
    return tuple(names), tuple(unit for _, unit in parted), renamed


def _parted(cell: str) -> tuple[str, str]:
    """Name and unit."""
    bracket = BRACKETS.fullmatch(cell)
    if bracket is not None and bracket["name"] and not PLACES.fullmatch(bracket["unit"].strip()):
        return bracket["name"], bracket["unit"].strip()
    quotient = QUOTIENT.fullmatch(cell)
    return cell, quotient[1] if quotient else ""
