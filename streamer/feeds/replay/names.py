"""Names by which telemetry channels are sent: their own, those that the user asks for, those that the model takes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from streamer.errors import UsageError
from streamer.events import TELEMETRY, Channel, Telemetry
from streamer.feeds.replay.part import Measured, Options, Part

Names = Mapping[str, Measured]  # channel of a file -> what it is sent as


def given_names(series: Sequence[Sequence[Part]], options: Options, remarks: list[str]) -> dict[Path, Names]:
    """Channels of each file that are not sent under their own names.

    A name that the model takes, and no channel has, is given to what measures the same: in the first series of files
    that has such a channel, to the best of them.

    Args:
        series: Files that follow each other, side by side with others.
        remarks: What the user should know is added, a sentence each.

    Raises:
        UsageError: A channel that the user names is not there, or two would have the same name.
    """
    named: dict[Path, dict[str, Measured]] = defaultdict(dict)
    parts = [part for chain in series for part in chain]
    _check(options.names, parts)
    for part in parts:
        for channel, name in options.names.items():
            known = part.measures.get(channel)
            named[part.path][channel] = known if known is not None and known.name == name else Measured(name)
    lacking = []
    for name in options.taken:
        if name in options.names.values():
            continue
        holders = [chain for chain in series if any(name in part.channels for part in chain)]
        holders = holders or [chain for chain in series if any(_alike(part, name, options) for part in chain)]
        if not holders:
            lacking.append(name)
            continue
        for part in holders[0]:
            channel = name if name in part.channels else _alike(part, name, options)
            if channel in part.measures:
                named[part.path][channel] = part.measures[channel]
            if channel and channel != name:
                remarks.append(f"{part.path}: {channel} is sent as {name}, which the model takes")
    if lacking and any(part.measures for part in parts):
        remarks.append(
            f"no channel is known as {', '.join(lacking)}, which the model takes; --map CHANNEL=NAME names one"
        )
    return dict(named)


def _check(names: Mapping[str, str], parts: Sequence[Part]) -> None:
    there = frozenset[str]().union(*(part.channels for part in parts))
    unknown = sorted(names.keys() - there)
    hint = f"; if {unknown[0]} is a topic, declare the sensor {names[unknown[0]]} (docs/sensors.md)" if unknown else ""
    if unknown and all(part.channels for part in parts if TELEMETRY in part.sends):
        raise UsageError(
            f"there is no channel {unknown[0]} to map; there are: {', '.join(sorted(there)) or 'none'}{hint}"
        )
    given = [*names.values()]
    twice = [name for name in given if given.count(name) > 1 or name in there - names.keys()]
    if twice:
        raise UsageError(f"--map calls a second channel {twice[0]}")


def _alike(part: Part, name: str, options: Options) -> str:
    """The best channel that measures what the model knows by this name; empty if there is none."""
    found = (channel for channel, what in part.measures.items() if what.name == name and channel not in options.names)
    return next(found, "")


def renamed(payload: bytes, prefix: str, names: Names) -> bytes:
    """A telemetry block whose channels have other names, and those in ``names`` maybe another unit.

    Args:
        prefix: Of all channels that are not in ``names``; empty: these keep theirs.
    """
    block = msgspec.json.decode(payload, type=Telemetry)
    channels = {}
    for own, channel in block.channels.items():
        sent = names.get(own)
        if sent is None:
            channels[f"{prefix}.{own}" if prefix else own] = channel
        else:
            values = channel.values if sent.scale == 1 else tuple(value * sent.scale for value in channel.values)
            channels[sent.name] = Channel(values, channel.unit if sent.unit is None else sent.unit)
    return msgspec.json.encode(msgspec.structs.replace(block, channels=channels))
