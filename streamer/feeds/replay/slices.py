"""Measurements into telemetry blocks: a slice of time a block.

Slices    values that come one time after another: frames of a bus
table     the same, of times that are known, as an array
timed     arrays of values with a time each
sampled   arrays of values at a constant rate
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from streamer.events import TELEMETRY, Channel, Telemetry
from streamer.feeds.producer import JSON, Outgoing
from streamer.feeds.replay.part import NO_SESSION, S_US, SLICE_US, Reorder, due, telemetry

MIN_RATE_HZ = 2 * S_US / SLICE_US  # below it, a sample stands for longer than windows wait: it gets a time, no length


def table(rows: Mapping[int, Mapping[str, float]]) -> tuple[list[int], list[str], NDArray[np.float64]]:
    """What was measured at some times, channel by channel, as a table.

    Args:
        rows: Time in µs -> channel -> value.

    Returns:
        Times [N], ascending; names of the channels [C]; values [N, C], NaN where nothing was measured.
    """
    times_us = sorted(rows)
    names = list(dict.fromkeys(name for time_us in times_us for name in rows[time_us]))
    values_NC = np.array([[rows[time_us].get(name, np.nan) for name in names] for time_us in times_us], np.float64)
    return times_us, names, values_NC.reshape(len(times_us), len(names))


class Slices:
    """Collects measurements of several groups into blocks, each of one group and one slice of time.

    Args:
        units: Name of a channel -> its unit.
    """

    def __init__(self, units: Mapping[str, str]) -> None:
        self._units = units
        self._groups: dict[Hashable, dict[int, dict[str, float]]] = {}  # -> time -> channel -> value
        self._waiting = Reorder()
        self._begin_us = self._now_us = 0

    def add(self, group: Hashable, time_us: int, values: Mapping[str, float]) -> Iterator[Outgoing]:
        """Add what a group measured at a time; yields the blocks that are now due.

        Times may be out of order by a little; what is measured twice at the same time is kept, 1 µs later.
        """
        self._now_us = max(self._now_us, time_us)
        if self._now_us >= self._begin_us + SLICE_US:
            yield from self._close()
            self._begin_us = self._now_us
        rows = self._groups.setdefault(group, {})
        while rows.get(time_us, {}).keys() & values.keys():
            time_us += 1
        rows.setdefault(time_us, {}).update(values)

    def rest(self) -> Iterator[Outgoing]:
        """The blocks of what was added last."""
        yield from self._close()
        yield from self._waiting.rest()

    def _close(self) -> Iterator[Outgoing]:
        for rows in self._groups.values():
            times_us, names, values_NC = table(rows)
            for block in telemetry(times_us, values_NC, names, [self._units.get(name, "") for name in names]):
                due_us = max(block.due_us, self._begin_us)
                self._waiting.push(msgspec.structs.replace(block, due_us=due_us))
        self._groups.clear()
        yield from self._waiting.until(self._now_us)


def timed(
    times_us: NDArray[np.int64], values_NC: NDArray[np.float64], names: Sequence[str], units: Sequence[str]
) -> Iterator[Outgoing]:
    """Blocks of channels that were measured together, in due order.

    Args:
        times_us: Of each row [N], in any order; of rows with the same time, the later ones are moved by 1 µs each.
        values_NC: NaN and infinities mean no value.
    """
    order = np.argsort(times_us, kind="stable")
    place = np.arange(len(order))
    ascending_us = np.maximum.accumulate(times_us[order] - place) + place
    values_NC = values_NC[order]
    begin = 0
    while begin < len(ascending_us):
        end = int(np.searchsorted(ascending_us, ascending_us[begin] + SLICE_US))
        yield from telemetry(ascending_us[begin:end].tolist(), values_NC[begin:end], names, units)
        begin = end


def sampled(
    begin_us: float, rate_hz: float, values_NC: NDArray[np.float64], names: Sequence[str], units: Sequence[str]
) -> Iterator[Outgoing]:
    """Blocks of channels with one constant rate, in due order; a gap is left where values are missing.

    Args:
        begin_us: Time of the first row; may have a fraction.
        rate_hz: Rows a second.
        values_NC: NaN and infinities mean no value.
    """
    times_us = begin_us + np.arange(len(values_NC)) * (S_US / rate_hz)
    if rate_hz < MIN_RATE_HZ:
        yield from timed(np.rint(times_us).astype(np.int64), values_NC, names, units)
        return
    rows = max(1, int(rate_hz * SLICE_US / S_US))
    for begin in range(0, len(values_NC), rows):
        slice_NC = values_NC[begin : begin + rows]
        blocks = []
        for channels, first, last in _runs(np.isfinite(slice_NC)):
            measured = {names[c]: Channel(tuple(slice_NC[first:last, c].tolist()), units[c]) for c in channels}
            time_us = round(times_us[begin + first])
            payload = msgspec.json.encode(Telemetry(measured, rate_hz=rate_hz))
            due_us = round(times_us[begin + last - 1] + S_US / rate_hz)
            blocks.append(Outgoing(TELEMETRY, NO_SESSION, time_us, payload, JSON, due_us))
        yield from sorted(blocks, key=due)


def _runs(there_NC: NDArray[np.bool_]) -> Iterator[tuple[list[int], int, int]]:
    """Stretches of rows in which all values are there, with the channels of which that is true: first, and one past."""
    together: dict[bytes, list[int]] = {}
    for channel in range(there_NC.shape[1]):
        together.setdefault(there_NC[:, channel].tobytes(), []).append(channel)
    for channels in together.values():
        edges = np.flatnonzero(np.diff(np.concatenate([[0], there_NC[:, channels[0]].astype(np.int8), [0]])))
        for first, last in edges.reshape(-1, 2).tolist():
            yield channels, first, last


def unique(names: Sequence[str]) -> list[str]:
    """The names, with a number behind those that came before: ``ECG``, ``ECG.2``."""
    found: list[str] = []
    for name in names:
        number, distinct = 1, name
        while distinct in found:
            number += 1
            distinct = f"{name}.{number}"
        found.append(distinct)
    return found
