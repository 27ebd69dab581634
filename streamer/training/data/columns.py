"""How rows have images, sounds, words and telemetry."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

from streamer.errors import BadRecord, UsageError
from streamer.events import Transcript
from streamer.feeds.replay.tables import table
from streamer.kinds.kind import KindOfInput
from streamer.kinds.telemetry import TelemetryInput, parse_telemetry
from streamer.model import pictures
from streamer.model.sample import Sample
from streamer.training.data.column import Column, Piece
from streamer.training.data.rows import Blocks, Content, File, RowError

JSON = "application/json"
RATE = "rate_hz"


def file(folder: Path, name: str) -> File:
    """A file that a manifest names.

    Raises:
        RowError: It is outside the manifest's folder.
    """
    path = PurePosixPath(name)
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts:
        raise RowError(f"path {name!r} leaves the manifest's folder: move the manifest up, or put a link inside")
    return File(str(folder / path), name)


class Images(Column[Sequence[Content]]):
    """Files in order of time, evenly spaced over the window."""

    value = str | list[str]

    def cell(self, value: str | list[str], folder: Path) -> Sequence[Content]:
        return tuple(file(folder, name) for name in self.files(value))

    def files(self, value: str | list[str]) -> list[str]:
        return [value] if isinstance(value, str) else value

    def pieces(self, cell: Sequence[Content], start_us: int, end_us: int) -> Iterator[Piece]:
        for place, content in enumerate(cell):
            at_us = (2 * place + 1) * end_us // (2 * len(cell))
            payload = content.read()
            media_type = pictures.media_type(payload)
            if media_type is None:
                raise RowError("the image is neither JPEG, PNG nor WebP")
            yield Piece(at_us, at_us, payload, media_type)


class Sounds(Column[Content]):
    """A file; what is longer than the window is cut off."""

    value = str

    def cell(self, value: str, folder: Path) -> Content:
        return file(folder, value)

    def files(self, value: str) -> list[str]:
        return [value]

    def pieces(self, cell: Content, start_us: int, end_us: int) -> Iterator[Piece]:
        # ends with the window, since the sound's length is known only from its file
        yield Piece(start_us, end_us, cell.read(), "audio/wav")


class Texts(Column[str | Content]):
    """Words, or where they are."""

    value = str

    def cell(self, value: str, folder: Path) -> str:
        return value

    def pieces(self, cell: str | Content, start_us: int, end_us: int) -> Iterator[Piece]:
        if text := words(cell):
            yield Piece(0, end_us, b"", JSON, Transcript(text))


def words(cell: str | Content) -> str:
    """The words of a cell.

    Raises:
        RowError: They cannot be read.
    """
    if isinstance(cell, str):
        return cell
    try:
        return cell.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RowError("is not UTF-8 text: convert it, e.g. with iconv") from None


class Inline(msgspec.Struct, frozen=True):
    """Telemetry in the manifest itself, as the payload of a record."""

    payload: bytes

    def blocks(self) -> Iterable[tuple[int, bytes]]:
        return ((0, self.payload),)


class Table(msgspec.Struct, frozen=True):
    """Telemetry in a CSV table, read as ``streamer replay`` reads it."""

    path: str
    name: str

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        try:
            for record in table.part(Path(self.path)).records(0):
                yield record.time_us, record.payload
        except UsageError as error:
            raise RowError(str(error).replace(self.path, self.name)) from None


class Measurements(Column[Blocks]):
    """``{"rate_hz": …, "channel": [values …], …}``, or the path of a CSV table."""

    value = str | dict[str, float | list[float]]

    def cell(self, value: str | dict[str, float | list[float]], folder: Path) -> Blocks:
        return Table(file(folder, value).path, value) if isinstance(value, str) else _inline(value)

    def files(self, value: Any) -> list[str]:
        return [value] if isinstance(value, str) else []

    def pieces(self, cell: Blocks, start_us: int, end_us: int) -> Iterator[Piece]:
        for at_us, payload in cell.blocks():
            try:
                body, span = parse_telemetry(payload)
            except BadRecord as error:
                raise RowError(f"telemetry: {error.detail}") from None
            begin_us = start_us + at_us + span.start_us
            yield Piece(begin_us, begin_us + span.length_us, b"", JSON, body)

    def fault(self, sample: Sample, wanted: KindOfInput) -> str | None:
        assert isinstance(wanted, TelemetryInput)
        if sample.telemetry_mask_CT is not None and not sample.telemetry_mask_CT.any():
            return f"has none of the model's channels {', '.join(wanted.channels)}"
        return None


def _inline(given: dict[str, float | list[float]]) -> Inline:
    rate_hz = given.get(RATE)
    if not isinstance(rate_hz, float):
        raise RowError(f"telemetry needs a number {RATE} beside its channels")
    channels = {}
    for name, values in given.items():
        if name != RATE:
            if not isinstance(values, list):
                raise RowError(f"telemetry channel {name!r} is a list of values, not {values}")
            channels[name] = {"values": values}
    payload = msgspec.json.encode({RATE: rate_hz, "channels": channels})
    try:
        parse_telemetry(payload)
    except BadRecord as error:
        raise RowError(f"telemetry: {error.detail}") from None
    return Inline(payload)
