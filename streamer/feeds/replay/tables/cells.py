"""What the cells of a table say: numbers and times in the forms that loggers, phones and spreadsheets write."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import NamedTuple

from streamer.errors import UsageError
from streamer.feeds.replay.part import S_US

DAY_US = 86_400 * S_US
EPOCH_US = 10**9 * S_US  # 2001: a time from here on is since the epoch
LATEST_US = 7_258_118_400 * S_US  # 2200: no time is later
LONGEST_STEP_S = 600  # between two rows, for times whose unit has to be inferred
SHORTEST_UNLIKELY_STEP_S = 2  # whole numbers this far apart are rather milliseconds or finer than seconds
UNITS = {  # microseconds for each
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), Fraction(S_US)),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisecond", "milliseconds"), Fraction(1000)),
    **dict.fromkeys(("us", "µs", "μs", "usec", "usecs", "micros", "microsecond", "microseconds"), Fraction(1)),
    **dict.fromkeys(("ns", "nsec", "nsecs", "nanos", "nanosecond", "nanoseconds"), Fraction(1, 1000)),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), Fraction(60 * S_US)),
    **dict.fromkeys(("h", "hour", "hours"), Fraction(3600 * S_US)),
}
INFERRED = {"seconds": "s", "milliseconds": "ms", "microseconds": "us", "nanoseconds": "ns"}
TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "on": 1.0, "off": 0.0}
MISSING = frozenset(("", "nan", "na", "n/a", "#n/a", "null", "none", "nil", "-", "--", "?"))
HEXADECIMAL = re.compile(r"[+-]?0x[0-9a-f]+")
CLOCK = r"(?P<hour>\d{1,3}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,:](?P<fraction>\d{1,9}))?)?\s*(?P<half>[AP]M)?"
OF_DAY = re.compile(CLOCK, re.IGNORECASE)
ZONE = r"(?P<zone>Z|UTC|GMT|[+-]\d\d:?\d\d)"
DATED = re.compile(rf"(?P<date>[\w./-]+?)(?:T|[ ,]+){CLOCK}\s*{ZONE}?", re.IGNORECASE)
DATES = (
    re.compile(r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})"),
    re.compile(r"(?P<day>\d{1,2})\.(?P<month>\d{1,2})\.(?P<year>\d{4})"),
    re.compile(r"(?P<day>\d{1,2})[- ](?P<name>[a-z]{3})[- ](?P<year>\d{4})", re.IGNORECASE),
    re.compile(r"(?P<month>\d{1,2})/(?P<day>\d{1,2})/(?P<year>\d{4})"),
)
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)


class Kind(enum.Enum):
    """How a column writes times."""

    NUMBER = enum.auto()
    MOMENT = enum.auto()  # date and time with an offset from UTC
    LOCAL = enum.auto()  # date and time in a time zone that is not known
    OF_DAY = enum.auto()  # hours, minutes and seconds alone


class Clock(NamedTuple):
    """How to read a table's times.

    Attributes:
        unit_us: Microseconds for each unit of numbers.
        comma: Whether numbers may have a decimal comma.
        note: What had to be inferred, without the name of the file; empty if nothing.
    """

    kind: Kind
    unit_us: Fraction
    comma: bool
    note: str = ""

    def time_us(self, text: str) -> int:
        """Microseconds since the clock's zero: the epoch, the start of the day, or whatever numbers count from.

        Raises:
            ValueError: With one line: it is no such time.
        """
        if self.kind is Kind.NUMBER:
            return _counted_us(text.strip(), self.unit_us, self.comma)
        if self.kind is Kind.OF_DAY:
            return _of_day_us(text.strip())
        moment = _moment(text.strip())
        return ((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - EPOCH) // MICROSECOND


def clock(texts: Sequence[str], unit_us: Fraction | None, name: str, comma: bool, utc: bool) -> Clock:
    """How the times of a column are to be read, by its first ones.

    Args:
        texts: Of the first rows.
        unit_us: What the header row says; ``None`` if it names no unit.
        name: Of the column.
        utc: Whether dates without a zone are in UTC.

    Raises:
        UsageError: Without the name of the file: they are numbers whose unit has to be given.
        ValueError: With one line: no times.
    """
    first = texts[0].strip()
    if _count(first, comma) is not None:
        if unit_us is not None:
            return Clock(Kind.NUMBER, unit_us, comma)
        counts = [count for text in texts if (count := _count(text.strip(), comma)) is not None]
        return _inferred(counts, name, comma)
    if OF_DAY.fullmatch(first):
        return Clock(Kind.OF_DAY, UNITS["s"], comma)
    if _moment(first).tzinfo is not None or utc:
        return Clock(Kind.MOMENT, UNITS["s"], comma)
    note = f"the times in column {name!r} have no time zone, so when this was recorded is not known"
    return Clock(Kind.LOCAL, UNITS["s"], comma, note)


def is_time(text: str) -> bool:
    """Whether it is a date or a time of day in words of ISO 8601; numbers are not."""
    text = text.strip()
    if not text or text.isdigit():
        return False
    try:
        _moment(text)
    except ValueError:
        return OF_DAY.fullmatch(text) is not None
    return True


def is_of_day(text: str) -> bool:
    """Whether it is a time without a date."""
    return OF_DAY.fullmatch(text.strip()) is not None


def number(text: str, comma: bool) -> float | None:
    """The number in a cell; NaN if the cell says that there is none, ``None`` if it is a text.

    Args:
        comma: Whether it may have a decimal comma.
    """
    if not text:
        return math.nan
    try:
        return float(text)
    except ValueError:
        pass
    plain = text.lower().replace("\N{MINUS SIGN}", "-")
    if plain in MISSING:
        return math.nan
    if plain in TRUTH:
        return TRUTH[plain]
    if comma and "," in plain:
        plain = plain.replace(".", "").replace(",", ".")
    try:
        return float(int(plain, 16)) if HEXADECIMAL.fullmatch(plain) else float(plain)
    except (ValueError, OverflowError):
        return None


def _count(text: str, comma: bool) -> int | float | None:
    """A finite number, exact if it is whole; ``None`` if there is none."""
    try:
        return int(text)
    except ValueError:
        found = number(text, comma)
        return found if found is not None and math.isfinite(found) else None


def _counted_us(text: str, unit_us: Fraction, comma: bool) -> int:
    count = _count(text, comma)
    if count is None:
        raise ValueError(f"{text[:40]!r} is no time: a number or RFC 3339 is wanted")
    of, by = unit_us.numerator, unit_us.denominator
    time_us = (2 * count * of + by) // (2 * by) if isinstance(count, int) else round(count * of / by)
    if not 0 <= time_us < LATEST_US:
        raise ValueError(
            f"{text[:40]} is no time since the start or since 1970 in the unit of its column; put the unit into the "
            "column's name: time_s, time_ms, time_us or time_ns"
        )
    return time_us


def _inferred(counts: Sequence[int | float], name: str, comma: bool) -> Clock:
    """The unit of numbers that have none: seconds, or what makes them times since the epoch."""
    steps = [later - earlier for earlier, later in pairwise(counts) if later > earlier]
    step = median(steps) if steps else 0
    for words, unit in INFERRED.items():
        first_us, step_us = counts[0] * UNITS[unit], step * UNITS[unit]
        if EPOCH_US <= first_us < LATEST_US and step_us <= LONGEST_STEP_S * S_US:
            shown = f"{EPOCH + timedelta(microseconds=int(first_us)):%Y-%m-%d %H:%M:%S}"
            note = f"the times in column {name!r} have no unit, and were read as {words} since 1970: {shown} UTC"
            return Clock(Kind.NUMBER, UNITS[unit], comma, "" if unit == "s" else note)
    whole = all(float(count).is_integer() for count in counts)
    longest_s = SHORTEST_UNLIKELY_STEP_S if whole else LONGEST_STEP_S
    if step >= longest_s or counts[0] * S_US >= EPOCH_US:
        raise UsageError(
            f"the times in column {name!r} have no unit and are hardly seconds ({counts[0]:.15g}, then a row each "
            f"{step:.15g}): write the unit into the header row: {name}_s, {name}_ms, {name}_us or {name}_ns"
        )
    return Clock(Kind.NUMBER, UNITS["s"], comma)


def _of_day_us(text: str) -> int:
    found = OF_DAY.fullmatch(text)
    if found is None:
        raise ValueError(f"{text[:40]!r} is no time of day like 12:30:59.5")
    return _clock_us(found)


def _clock_us(found: re.Match[str]) -> int:
    hour, half = int(found["hour"]), (found["half"] or "").upper()
    if half:
        hour = hour % 12 + (12 if half == "PM" else 0)
    fraction_us = int((found["fraction"] or "").ljust(6, "0")[:6])
    return (hour * 3600 + int(found["minute"]) * 60 + int(found["second"] or 0)) * S_US + fraction_us


def _moment(text: str) -> datetime:
    """A date with a time of day: ISO 8601, or as spreadsheets and phones write them."""
    try:
        return datetime.fromisoformat(text.upper())
    except ValueError:
        pass
    found = DATED.fullmatch(text)
    try:
        if found is not None and (day := _date(found["date"])) is not None:
            moment = day + timedelta(microseconds=_clock_us(found))
            return moment.replace(tzinfo=_zone(found["zone"]))
    except (ValueError, OverflowError):  # no such day, or no such zone
        pass
    raise ValueError(f"{text[:40]!r} is no time: a number of seconds or RFC 3339 is wanted")


def _date(text: str) -> datetime | None:
    """Of two numbers with slashes, that above 12 is the day; else the first is the month."""
    found = next((found for form in DATES if (found := form.fullmatch(text)) is not None), None)
    if found is None:
        return None
    named = found.groupdict()
    if (name := named.get("name")) is not None:
        return datetime(int(named["year"]), MONTHS.index(name.lower()) + 1, int(named["day"]))
    month, day = int(named["month"]), int(named["day"])
    if "/" in text and month > 12:
        month, day = day, month
    return datetime(int(named["year"]), month, day)


def _zone(text: str | None) -> tzinfo | None:
    if text is None:
        return None
    return UTC if text[0].isalpha() else datetime.strptime(text, "%z").tzinfo
