"""Signals that an ASAM MDF 4 file holds ready, in physical units, through asammdf.

The signals of a channel group have common times. A signal becomes a channel with its name and unit; in a file where
several groups have a signal of that name, the group's name comes first. Values that are texts by a conversion keep
their numbers. Samples that the recorder marked as invalid are no measurements.
"""

from __future__ import annotations

import heapq
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from streamer.errors import UsageError, extra, one_line
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.part import S_US, due
from streamer.feeds.replay.slices import timed
from streamer.feeds.replay.vehicles.canlog import EXTRA

RECORDS = 4096  # of a group that are read at once
TIME = 1  # what a master channel counts: seconds, and not angles, metres or records


class Group(NamedTuple):
    """A channel group.

    Attributes:
        names: Index of a signal in the group -> name of its channel.
    """

    number: int
    records: int
    names: dict[int, str]


class Signals:
    """The signals of a file.

    Attributes:
        frames: Whether there are frames of a CAN bus too.
        first_us, last_us: Times of the first and the last record, from the file's start.
        zero_us: Start of the file since the epoch, in UTC or the recorder's local time; ``None`` if it is not known.
        units: Channel -> unit; empty if there are no signals.
        notes: What is left out, a sentence each.
    """

    def __init__(self, path: Path, file: Any) -> None:
        self.path = path
        self.notes: list[str] = []
        self.units: dict[str, str] = {}
        self.zero_us = round(file.header.abs_time / 1000) or None
        self.utc = file.header.start_time.tzinfo is not None
        buses = Counter(_bus(group) for group in file.groups)
        self.frames = "CAN" in buses
        for bus in sorted(buses.keys() - {"", "CAN"}):
            self.notes.append(f"{path}: its {bus} frames are left out")
        self._groups = list(self._inspected(file))
        spans = [_span_us(file, group) for group in self._groups]
        self.first_us = min((first_us for first_us, _ in spans), default=0)
        self.last_us = max((last_us for _, last_us in spans), default=0)

    def _inspected(self, file: Any) -> Iterator[Group]:
        usable = [number for number, group in enumerate(file.groups) if not _bus(group) and self._has_records(group)]
        twice = Counter(channel.name for number in usable for channel in file.groups[number].channels)
        left_out = []
        for number in usable:
            group = file.groups[number]
            master = file.masters_db.get(number)
            label = group.channel_group.acq_name or f"group{number}"
            names = {}
            for index, channel in enumerate(group.channels):
                if index == master:
                    continue
                if master is None or group.channels[master].sync_type != TIME:
                    left_out.append(f"{channel.name} (has no times)")
                elif (why := _not_numeric(file, number, index)) is not None:
                    left_out.append(f"{channel.name} ({why})")
                else:
                    names[index] = f"{label}.{channel.name}" if twice[channel.name] > 1 else channel.name
                    self.units[names[index]] = channel.unit or ""
            if names:
                yield Group(number, group.channel_group.cycles_nr, names)
        if left_out:
            self.notes.append(f"{self.path}: {', '.join(left_out)} are left out")

    @staticmethod
    def _has_records(group: Any) -> bool:
        return bool(group.channel_group.cycles_nr)

    def records(self, origin_us: int, begin_us: int) -> Iterator[Outgoing]:
        """Blocks of a channel group and a slice of time each, in due order, with times after ``origin_us``.

        Raises:
            UsageError: The file turns out to be broken.
        """
        with _opened(self.path) as file:
            yield from heapq.merge(*(self._blocks(file, group, origin_us, begin_us) for group in self._groups), key=due)

    def _blocks(self, file: Any, group: Group, origin_us: int, begin_us: int) -> Iterator[Outgoing]:
        names = list(group.names.values())
        units = [self.units[name] for name in names]
        for first in range(0, group.records, RECORDS):
            times_s = _times_s(file, group, first, RECORDS)
            times_us = np.rint(times_s * S_US).astype(np.int64) - origin_us
            if not len(times_us) or times_us[-1] < begin_us:
                continue
            values_NC = np.full((len(times_s), len(names)), np.nan)
            for column, index in enumerate(group.names):
                valid = file.get(group=group.number, index=index, record_offset=first, record_count=RECORDS, raw=True)
                valid = valid.physical(ignore_value2text_conversions=True)
                values_NC[np.searchsorted(times_s, valid.timestamps), column] = valid.samples
            yield from timed(np.maximum(times_us, 0), values_NC, names, units)


def open_signals(path: Path) -> Signals:
    """Look into a file.

    Raises:
        UsageError: It cannot be read, or is no MDF 4 file.
    """
    with _opened(path) as file:
        return Signals(path, file)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    with extra(EXTRA, f"reading {path}"):
        import asammdf
    logging.getLogger("asammdf").setLevel(logging.CRITICAL)  # it prints the errors that it raises, line by line
    try:
        with asammdf.MDF(path) as file:
            yield file
    except UsageError:
        raise
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or one_line(error)}") from None
    except Exception as error:  # noqa: BLE001 - asammdf lets out whatever its parsers and decompressors raise
        _quiet(error.__traceback__)
        raise UsageError(f"{path} is no MDF 4 file, or broken: {one_line(error)}") from None


def _quiet(raised_in: TracebackType | None) -> None:
    """Keep an object of asammdf that could not be made from complaining when it is collected."""
    while raised_in is not None:
        made: Any = raised_in.tb_frame.f_locals.get("self")
        if hasattr(made, "_closed"):
            made._closed = True
            if made._tempfile is not None:
                made._tempfile.close()
        raised_in = raised_in.tb_next


def _bus(group: Any) -> str:
    """Of which bus a group has the frames; empty if it has signals."""
    from asammdf.blocks import v4_constants as constants

    source = group.channel_group.acq_source
    if not group.channel_group.flags & constants.FLAG_CG_BUS_EVENT or source is None:
        return ""
    names = {constants.BUS_TYPE_CAN: "CAN", constants.BUS_TYPE_LIN: "LIN", constants.BUS_TYPE_FLEXRAY: "FlexRay"}
    names[constants.BUS_TYPE_ETHERNET] = "Ethernet"
    return names.get(source.bus_type, "other bus")


def _not_numeric(file: Any, number: int, index: int) -> str | None:
    sample = file.get(group=number, index=index, record_count=1, raw=True, ignore_invalidation_bits=True)
    sample = sample.physical(ignore_value2text_conversions=True).samples
    if sample.dtype.kind not in "fiub":
        return "is no number"
    return None if sample.ndim == 1 else "is a list"


def _span_us(file: Any, group: Group) -> tuple[int, int]:
    first, last = (_times_s(file, group, record, 1)[0] for record in (0, group.records - 1))
    return round(first * S_US), round(last * S_US)


def _times_s(file: Any, group: Group, first: int, count: int) -> Any:
    return file.get_master(group.number, record_offset=first, record_count=count)
