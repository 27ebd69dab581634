"""What is in the frames of a CAN bus: databases of signals (DBC), through cantools."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from streamer.errors import UsageError, extra, one_line
from streamer.feeds.replay.vehicles.canlog import EXTRA

if TYPE_CHECKING:
    from cantools.database.can import Message
    from cantools.database.can.signal import Signal

ENDING = ".dbc"
# J1939-21: the number of a parameter group has no destination address; a database has this source address for "any"
PDU1_BELOW, NULL_ADDRESS = 0xF0, 0xFE
# J1939-71: of a value of whole bytes, the highest numbers are indicators: error, not available, and reserved ones
INDICATORS = 0xFB


class Known(NamedTuple):
    """A message that a database knows.

    Attributes:
        limits: Signal -> first value, scaled, that is an indicator and no measurement.
    """

    message: Message
    limits: Mapping[str, float]

    def decode(self, data: bytes) -> dict[str, float]:
        """Signal -> value. Signals that lie behind the end of short data are left out.

        Raises:
            ValueError: The data are none that the database describes.
        """
        from cantools.database import DecodeError

        try:
            # a message of a DBC is never a container of others, and choices stay numbers
            found = self.message.decode_simple(data, decode_choices=False, allow_truncated=True)
        except DecodeError as error:
            raise ValueError(one_line(error)) from None
        values = {name: float(value) for name, value in found.items()}  # type: ignore[arg-type]  # plain numbers, as said above
        return {name: value for name, value in values.items() if not value >= self.limits.get(name, float("inf"))}

    @property
    def units(self) -> dict[str, str]:
        """Signal -> unit."""
        return {signal.name: signal.unit or "" for signal in self.message.signals}


class Databases:
    """The messages of DBC files; if two files know the same frame, the first one counts.

    Raises:
        UsageError: A file cannot be read or is no DBC.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = paths
        self._exact: dict[tuple[int, bool], Known] = {}
        self._groups: dict[int, Known] = {}
        for path in paths:
            for message in _messages(path):
                known = Known(message, _limits(message) if message.protocol == "j1939" else {})
                self._exact.setdefault((message.frame_id, message.is_extended_frame), known)
                if message.protocol == "j1939":
                    group = parameter_group(message.frame_id)
                    if message.frame_id & 0xFF == NULL_ADDRESS:
                        self._groups[group] = known
                    self._groups.setdefault(group, known)

    def find(self, frame_id: int, extended: bool) -> Known | None:
        """The message with this id, else that of its J1939 parameter group."""
        known = self._exact.get((frame_id, extended))
        return self._groups.get(parameter_group(frame_id)) if known is None and extended else known

    @property
    def names(self) -> str:
        """The files, for a message."""
        return ", ".join(str(path) for path in self.paths)


def parameter_group(frame_id: int) -> int:
    """Number of the J1939 parameter group that an extended id carries, besides priority, destination and source."""
    group = (frame_id >> 8) & 0x3FFFF
    return group & 0x3FF00 if (group >> 8) & 0xFF < PDU1_BELOW else group


def _messages(path: Path) -> Iterator[Message]:
    with extra(EXTRA, f"reading {path}"):
        import cantools
        import textparser
        from cantools.database.can import Database
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}") from None
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = raw.decode("cp1252", "replace")  # what Vector's editor writes
    database = Database(strict=False)  # signals may overlap, as in many databases that work
    try:
        database.add_dbc_string(text)
    except (cantools.Error, textparser.Error, ValueError, KeyError, IndexError, TypeError) as error:
        raise UsageError(f"{path} is no DBC database: {one_line(error)}") from None
    yield from database.messages


def _limits(message: Message) -> dict[str, float]:
    found = {}
    for signal in message.signals:
        if not (signal.is_signed or signal.is_float) and signal.length > 1 and signal.scale > 0:
            found[signal.name] = float(signal.scale * (_first_indicator(signal) - 0.5) + signal.offset)
    return found


def _first_indicator(signal: Signal) -> int:
    if signal.length % 8 == 0 and signal.length <= 32:
        return INDICATORS << (signal.length - 8)
    return (1 << signal.length) - 1
