"""A row of a data set: where its contents are, and the window made from them.

A row's contents become the events of one window ``[0, window_ms)``, which ``streamer.model.sample.cut`` cuts as in
serving: the same code scales images, mixes audio to mono and resamples it, and interpolates telemetry on the model's
grid. How a kind's contents become events: ``columns``. Audio and telemetry begin with the window and are cut off at its
end; if they are shorter, the rest is masked, not silent.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamer.errors import StreamerError, UsageError
from streamer.events import (
    DEFAULT_NAMES,
    DEFAULT_SENSORS,
    KIND_NAMES,
    ClosedBy,
    Event,
    EventType,
    Position,
    Record,
    Sensor,
    Sensors,
    Window,
)
from streamer.model.sample import Limits, Sample, cut
from streamer.model.spec import ModelSpec
from streamer.training.data.column import Piece, column
from streamer.training.dataset import Example, Label

MAX_FILE_BYTES = 64 << 20  # of one image, sound or text of a row: a window needs no more
S_US = 1_000_000


class BadRow(msgspec.Struct, frozen=True):
    """A row that cannot be used: where it is, and what is wrong with it."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


class RowError(StreamerError):
    """A row is wrong; the message becomes the reason of a :class:`BadRow`."""


class Dataset(Protocol):
    """A map-style data set for PyTorch's ``DataLoader``: examples are made on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def texts(self) -> Iterator[str]:
        """The texts of all examples, read without opening images or sounds."""


class Content(Protocol):
    """Bytes that are read when they are needed."""

    def read(self) -> bytes:
        """Read them.

        Raises:
            RowError: They cannot be read.
        """


class File(msgspec.Struct, frozen=True):
    """A file, or ``length`` bytes of it from ``begin``.

    Attributes:
        name: Its name in the data set, for messages.
    """

    path: str
    name: str
    begin: int = 0
    length: int = MAX_FILE_BYTES + 1

    def read(self) -> bytes:
        try:
            with open(self.path, "rb") as file:
                file.seek(self.begin)
                content = file.read(self.length)
        except (OSError, ValueError) as error:  # ValueError: a NUL in the name
            reason = error.strerror if isinstance(error, OSError) else error
            raise RowError(f"{self.name} cannot be read: {reason}") from None
        if len(content) > MAX_FILE_BYTES:
            raise RowError(f"{self.name} is larger than {MAX_FILE_BYTES >> 20} MiB: cut it into windows")
        return content


class Pixels(msgspec.Struct, frozen=True):
    """Pixels of a data set that has no image files, uint8 [height, width] or [height, width, 3]."""

    pixels: NDArray[np.uint8]

    def read(self) -> bytes:
        """Encode them as PNG, so that they are scaled by the code that scales every frame."""
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()


class Blocks(Protocol):
    """Telemetry that is read when it is needed."""

    def blocks(self) -> Iterable[tuple[int, bytes]]:
        """Start of each block, µs from the start of the row's telemetry, and the block, see ``telemetry.json``.

        Raises:
            RowError: It cannot be read.
        """


class Row(msgspec.Struct, frozen=True):
    """A row whose contents are not opened yet.

    Attributes:
        where: File and line, for messages.
        text: The text, or where it is.
        contents: Sensor -> its cell, see :meth:`streamer.training.data.column.Column.pieces`. A kind's name stands for
            the model's only sensor of this kind, if that is called otherwise.
        start_s: Where in the row's audio and telemetry the window begins.
        part: ``training``, ``validation`` or ``test``; empty if the data do not say.
        group: Rows of a group are in the same part (a patient, a drive); empty: the row is its own group.
        key: Identifies the row when parts are drawn; the same from run to run.
        checked: The loader has checked its contents.
        sample: Its window, if that is already cut; the row has no contents then.
    """

    where: str
    labels: dict[str, Label]
    contents: dict[str, Any] = {}
    start_s: float = 0.0
    part: str = ""
    group: str = ""
    key: str = ""
    checked: bool = False
    sample: Sample | None = None


Found = Row | BadRow  # what loaders yield, in the order of the data


def of_pixels(
    file: str,
    images: Iterable[NDArray[np.uint8]],
    numbers: Iterable[int],
    names: Sequence[str | None],
    output: str,
    part: str,
) -> Iterator[Found]:
    """The rows of a file with images and their class numbers.

    Args:
        images: See :class:`Pixels`.
        names: The model's label of each class; ``None`` if it has none.
        output: The output that has these labels.
    """
    for count, (pixels, number) in enumerate(zip(images, numbers, strict=True), 1):
        where, label = f"{file} image {count}", names[number] if number < len(names) else None
        if label is None:
            yield BadRow(where, f"class {number} has no label in output {output}")
        else:
            yield Row(where, {output: label}, {"image": (Pixels(pixels),)}, part=part, key=where, checked=True)


class Rows:
    """Examples made from rows on access."""

    def __init__(self, rows: Sequence[Row], spec: ModelSpec, limits: Limits) -> None:
        self.rows = rows
        self._spec = spec
        self._limits = limits

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Example:
        row = self.rows[index]
        try:
            return Example(self.sample(row), row.labels)
        except RowError as error:  # opening has checked it, so it has changed since
            raise UsageError(f"{row.where}: {error}") from None

    def texts(self) -> Iterator[str]:
        for row in self.rows:
            try:
                yield from self._texts(row)
            except RowError as error:
                raise UsageError(f"{row.where}: {error}") from None

    def _texts(self, row: Row) -> Iterator[str]:
        names = self._spec.inputs.of_kind("text")
        if row.sample is not None:
            found = (" ".join(phrase.text for phrase in row.sample.of(name).text) for name in names)
        else:
            contents = contents_of(row, self._spec)
            pieces = (column("text").pieces(contents[name], 0, 0) for name in names if name in contents)
            found = (piece.body.text for own in pieces for piece in own)
        yield from (text for text in found if text)

    def sample(self, row: Row) -> Sample:
        """What the model sees of a row.

        Raises:
            RowError: A part of it is broken, or it has no content that the model takes.
        """
        sample = row.sample if row.sample is not None else self._cut(row)
        taken = self._spec.inputs.all
        present = [name for name, here in zip(sample.sensors.names, sample.present, strict=True) if here]
        if taken.keys().isdisjoint(present):
            raise RowError(f"has none of what the model takes: {', '.join(taken)}")
        for name, wanted in taken.items():
            if name in present and (fault := column(wanted.kind).fault(sample.of(name), wanted)) is not None:
                raise RowError(f"{name} {fault}")
        return sample

    def _cut(self, row: Row) -> Sample:
        seen = window(row, self._spec)
        sample, rejects = cut(seen, self._spec.inputs, self._limits)
        for event, error in rejects:
            raise RowError(f"{seen.sensors.names[event.sensor]}: {error.detail}")
        return sample


def contents_of(row: Row, spec: ModelSpec) -> dict[str, Any]:
    """The row's cells by the sensors that the model reads; others are left out."""
    inputs = spec.inputs
    found: dict[str, Any] = {}
    for name, cell in row.contents.items():
        alone = [*inputs.of_kind(name)] if name not in inputs.all else []
        sensor = alone[0] if len(alone) == 1 else name
        if sensor in inputs.all:
            found.setdefault(sensor, cell)
    return found


def window(row: Row, spec: ModelSpec) -> Window:
    """The window made from a row's contents; contents that the model does not take are not opened.

    Raises:
        RowError: A file cannot be read.
    """
    more = [Sensor(name, KIND_NAMES.index(wanted.kind)) for name, wanted in spec.inputs.more.items()]
    sensors = Sensors.of((*DEFAULT_SENSORS.all, *more))
    events: list[tuple[Event, ...]] = [()] * len(sensors.all)
    end_us = spec.window_ms * 1000
    start_us = -round(row.start_s * S_US)
    for name, cell in contents_of(row, spec).items():
        number = sensors.numbers[name]
        kind = sensors.rows[number]
        try:
            pieces = list(column(KIND_NAMES[kind]).pieces(cell, start_us, end_us))
        except RowError as error:
            raise error if name in DEFAULT_NAMES else RowError(f"{name}: {error}") from None
        events[number] = tuple(_event(kind, number, piece) for piece in pieces)
    return Window(
        session="",
        partition=0,
        start_us=0,
        end_us=end_us,
        closed_by=ClosedBy.COMPLETE,
        closed_at=Position(0, 0, 0),
        events=tuple(events),
        heard_us=(0,) * len(sensors.all),
        sensors=sensors,
    )


def _event(kind: int, sensor: int, piece: Piece) -> Event:
    record = Record(kind, 0, 0, 0, None, piece.payload, ())
    start_us, end_us, _, media_type, body = piece
    return Event(record, "", EventType.DATA, start_us, end_us, media_type, body=body, sensor=sensor)
