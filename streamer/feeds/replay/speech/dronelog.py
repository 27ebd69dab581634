"""Logs of drones that are written as subtitles, once a second or once a picture: positions, heights, exposures.

Real files have these dialects, mixed and with changing spaces:

    [iso: 100] [shutter: 1/500.0] [fnum: 2.8] [latitude: 47.1] [longitude: 8.6] [rel_alt: 1.3 abs_alt: 132.8]
    F/2.8, SS 206.14, ISO 100, EV 0, GPS (8.6, 47.1, 12), D 24.26m, H 6.00m, H.S 0.00m/s, F.PRY (0.1°, 2.0°, 3.0°)
    HOME(8.6,47.1) 2017.08.05 14:11:51 GPS(8.6,47.1,16) BAROMETER:1.9 ISO:100 Shutter:60 EV: Fnum:2.2
    signal:4 ch:1 flightTime:45 uavBat:15.5V delay:28ms bitrate:26.6Mbps

Each number is a channel called like its field (``longtitude``, as older models write it, is ``longitude``; ``GPS (…)``
is ``longitude``, ``latitude`` and ``GPS.3``, which is the height on some models and the number of satellites on
others), with the unit that stands beside it or that the field always has. A shutter time of ``1/500`` is 0.002 s. A
position of 0, 0 is none. The time is that of the subtitle; the date in it has no zone on the models that are known,
and is used only where it has one.

Dialects as collected by https://github.com/JuanIrache/DJI_SRT_Parser and in public flight logs; DJI publishes none.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.part import S_US, SLICE_US, telemetry
from streamer.feeds.replay.slices import table

NUMBER = r"[-+]?\d+(?:\.\d+)?"
TAG = re.compile(r"</?[A-Za-z][^<>]*>|\{\\[^{}]*\}")
LINE = re.compile(r"\\[Nn]|\s+")
DATE = re.compile(
    r"(\d{4})[-./](\d{1,2})[-./](\d{1,2})[ T](\d{1,2}):(\d{2}):(\d{2})"
    r"(?:[.,](\d{1,3})(?:[.,]?(\d{3}))?)?\s?(Z|UTC|[-+]\d{2}:?\d{2})?(?![\w:])"
)
TUPLE = re.compile(
    rf"([A-Za-z][\w.]*)\s?\(\s*({NUMBER})°?\s*,\s*({NUMBER})°?(?:\s*,\s*({NUMBER})\s?([A-Za-z]*)°?)?\s*\)"
)
APERTURE = re.compile(rf"\b[Ff]/({NUMBER})")
COLON = re.compile(
    rf"([A-Za-z][\w.]*)\s?:\s*(?:(1/)?[Ff]?({NUMBER})(?:/({NUMBER}))?\s?(°|m/s|[A-Za-z]{{1,4}}\b(?!\s?:))?|([\w.]*))(?=[\s,\]]|$)"
)
SPACE = re.compile(rf"(?<![\w.:/])([A-Za-z][A-Za-z.]*)\s({NUMBER})\s?(°|m/s|[A-Za-z]{{1,3}}\b)?(?=[\s,\]]|$)")
COUNTERS = {"srtcnt", "framecnt", "difftime"}  # of the file, not of the flight
SPELLED = {"longtitude": "longitude"}
AXES = {"GPS": ("longitude", "latitude", "GPS.3"), "HOME": ("HOME.longitude", "HOME.latitude", "HOME.3")}
ANGLES = ("pitch", "roll", "yaw")  # F.PRY and G.PRY: of the aircraft and of the gimbal
UNITS = {
    "latitude": "deg", "longitude": "deg", "HOME.latitude": "deg", "HOME.longitude": "deg", "altitude": "m",
    "rel_alt": "m", "abs_alt": "m", "BAROMETER": "m", "gb_yaw": "deg", "gb_pitch": "deg", "gb_roll": "deg",
    "Yaw": "deg", "Pitch": "deg", "Roll": "deg", "ct": "K",
}  # fmt: skip
POSITIONS = (("latitude", "longitude"), ("HOME.latitude", "HOME.longitude"))
LOOK = 20  # subtitles by which a log is told from speech
MOST_LETTERS = 4000  # of an entry; a log's have a few hundred
FEWEST = 3  # measurements in a line of a log
LETTERS = 0.2  # at most this share of the letters of a log lies outside of its fields


class Row(NamedTuple):
    """What a subtitle of a log holds.

    Attributes:
        values: Channel -> measurement.
        units: Channel -> unit.
        words: Fields that hold no number.
        utc_us: Microseconds since the epoch; ``None`` if there is no date, or one without a zone.
        in_metres: Whether the third number of ``GPS(…)`` is in metres.
        rest: Text that is no field.
    """

    values: dict[str, float]
    units: dict[str, str]
    words: tuple[str, ...]
    utc_us: int | None
    in_metres: bool
    rest: str


class Entry(NamedTuple):
    """A subtitle of a log, with its markup."""

    time_us: int
    text: str


def is_log(texts: Iterable[str]) -> bool:
    """Whether subtitles are a drone's log and not speech, by the first ``LOOK`` of them."""
    looked = [text for text, _ in zip((text for text in texts if text.strip()), range(LOOK), strict=False)]
    return bool(looked) and 5 * sum(map(_is_entry, looked)) >= 4 * len(looked)


def _is_entry(text: str) -> bool:
    row = read(text)
    letters = sum(map(str.isalpha, _plain(text)))
    return len(row.values) >= FEWEST and sum(map(str.isalpha, row.rest)) <= LETTERS * letters


def read(text: str) -> Row:
    """The fields of one subtitle."""
    values: dict[str, float] = {}
    units: dict[str, str] = {}
    words: list[str] = []
    utc_us: int | None = None
    in_metres = False

    def put(name: str, value: float, unit: str = "") -> None:
        if name.lower() not in COUNTERS:
            name = SPELLED.get(name, name)
            values[name], units[name] = value, "m" if unit == "M" else unit or UNITS.get(name, "")

    def date(found: re.Match[str]) -> str:
        nonlocal utc_us
        utc_us = _utc_us(found)
        return " "

    def group(found: re.Match[str]) -> str:
        nonlocal in_metres
        name, *numbers, last_unit = found.groups()
        if name.upper().endswith("PRY"):
            names, unit = [f"{name}.{angle}" for angle in ANGLES], "deg"
        elif name.upper() == "GPS" and (last_unit or "").lower() == "m":
            names, unit, in_metres = ["longitude", "latitude", "altitude"], "", True
        else:
            names, unit = list(AXES.get(name.upper(), [f"{name}.{number}" for number in (1, 2, 3)])), ""
        for axis, number in zip(names, numbers, strict=True):
            if number is not None:
                put(axis, float(number), unit)
        return " "

    def colon(found: re.Match[str]) -> str:
        name, per, number, divisor, unit, word = found.groups()
        if number is None:
            words.extend([name] if word else [])
        elif per:
            put(name, 1 / float(number) if float(number) else math.inf, "s")
        elif divisor:
            put(name, float(number) / float(divisor) if float(divisor) else math.inf, "s")
        else:
            put(name, float(number), "deg" if unit == "°" else unit or "")
        return " "

    def space(found: re.Match[str]) -> str:
        put(found[1], float(found[2]), "deg" if found[3] == "°" else found[3] or "")
        return " "

    def aperture(found: re.Match[str]) -> str:
        put("F", float(found[1]))
        return " "

    rest = _plain(text)
    for pattern, take in ((DATE, date), (TUPLE, group), (APERTURE, aperture), (COLON, colon), (SPACE, space)):
        rest = pattern.sub(take, rest)
    return Row(values, units, tuple(words), utc_us, in_metres, rest)


def _plain(text: str) -> str:
    return LINE.sub(" ", TAG.sub(" ", text[:MOST_LETTERS])).strip()


def _utc_us(found: re.Match[str]) -> int | None:
    year, month, day, hour, minute, second, ms, us, zone = found.groups()
    if zone is None:
        return None
    zone = "+00:00" if zone in ("Z", "UTC") else zone
    fraction = (ms or "0").ljust(3, "0") + (us or "000")
    text = f"{year}-{int(month):02d}-{int(day):02d}T{int(hour):02d}:{minute}:{second}.{fraction}{zone}"
    try:
        return round(datetime.fromisoformat(text).timestamp() * S_US)
    except ValueError:
        return None


@dataclass
class Log:
    """A drone's log as telemetry.

    Attributes:
        what: Name of the file or track, with which notes begin.
        channels: Names of all channels.
        utc_us: When its time 0 was, in microseconds since the epoch; ``None`` if it does not say.
        notes: What is left out, a sentence each.
    """

    what: str
    channels: frozenset[str] = frozenset()
    utc_us: int | None = None
    notes: list[str] = field(default_factory=list)
    _latitude_first: bool = False

    def look(self, entries: Sequence[Entry]) -> None:
        """Learn the channels, and the order of ``GPS(…)``, from entries: all of a file, or the first of a track."""
        rows = [read(entry.text) for entry in entries]
        values = [row.values for row in rows]
        self.channels = frozenset(name for row in values for name in row)
        timed = [
            (row.utc_us, entry.time_us) for row, entry in zip(rows, entries, strict=True) if row.utc_us is not None
        ]
        self.utc_us = timed[0][0] - timed[0][1] if timed else None
        words = {word for row in rows for word in row.words} - self.channels
        if words:
            self.notes.append(f"{self.what}: fields that hold no number are not sent: {', '.join(sorted(words))}")
        self._order(rows, entries)

    def _order(self, rows: Sequence[Row], entries: Sequence[Entry]) -> None:
        pairs = [
            (row.values["longitude"], row.values["latitude"])
            for row, entry in zip(rows, entries, strict=True)
            if {"longitude", "latitude"} <= row.values.keys() and "GPS" in entry.text
        ]
        if not pairs:
            return
        if any(abs(first) > 90 for first, _ in pairs):
            return
        if any(abs(second) > 90 for _, second in pairs):
            self._latitude_first = True
            return
        self._latitude_first = any(row.in_metres for row in rows)  # as a Matrice 300 writes it
        order = "latitude, longitude" if self._latitude_first else "longitude, latitude"
        self.notes.append(f"{self.what}: GPS(…) is taken as {order}, the order of such drones; the numbers prove none")

    def records(self, entries: Iterable[Entry]) -> Iterator[Outgoing]:
        """Telemetry blocks in due order, from entries in order of their time."""
        held: list[tuple[int, Row]] = []
        lost = 0
        for entry in entries:
            row = self._fixed(read(entry.text))
            if not row.values:
                lost += 1
                continue
            if held and entry.time_us <= held[-1][0]:
                held[-1] = (held[-1][0], row)  # of one time the later one
                continue
            if held and entry.time_us >= held[0][0] + SLICE_US:
                yield from _block(held)
                held = []
            held.append((entry.time_us, row))
        yield from _block(held)
        if lost:
            self.notes.append(f"{self.what}: {lost} entries of the log hold no measurement")

    def _fixed(self, row: Row) -> Row:
        values = row.values
        if self._latitude_first:
            for latitude, longitude in POSITIONS:
                if latitude in values and longitude in values:
                    values[latitude], values[longitude] = values[longitude], values[latitude]
        for position in POSITIONS:
            if all(values.get(axis) == 0 for axis in position):
                for axis in position:
                    del values[axis]
        return row


def _block(rows: Sequence[tuple[int, Row]]) -> list[Outgoing]:
    if not rows:
        return []
    times_us, names, values_NC = table({time_us: row.values for time_us, row in rows})
    units = {name: row.units[name] for _, row in rows for name in row.values}
    return telemetry(times_us, values_NC, names, [units[name] for name in names])
