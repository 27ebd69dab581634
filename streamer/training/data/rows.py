"""A row of a data set: where its contents are, and the window made from them.

A row's contents become the events of one window ``[0, window_ms)``, which ``streamer.model.sample.cut`` cuts as in
serving: the same code scales images, mixes audio to mono and resamples it, and interpolates telemetry on the model's
grid. Images of a row are evenly spaced over the window. Audio and telemetry begin with the window and are cut off at
its end; if they are shorter, the rest is masked, not silent.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from streamer.errors import BadRecord, StreamerError, UsageError
from streamer.events import (
    AUDIO,
    IMAGE,
    KIND_NAMES,
    KINDS,
    TELEMETRY,
    TEXT,
    ClosedBy,
    Event,
    EventType,
    Position,
    Record,
    Telemetry,
    Transcript,
    Window,
)
from streamer.kinds.telemetry import parse_telemetry
from streamer.model import pictures
from streamer.model.sample import Limits, Sample, cut
from streamer.model.spec import ModelSpec
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
        start_s: Where in the row's audio and telemetry the window begins.
        part: ``training``, ``validation`` or ``test``; empty if the data do not say.
        group: Rows of a group are in the same part (a patient, a drive); empty: the row is its own group.
        key: Identifies the row when parts are drawn; the same from run to run.
        checked: The loader has checked its contents.
        sample: Its window, if that is already cut; the row has no contents then.
    """

    where: str
    labels: dict[str, Label]
    images: tuple[Content, ...] = ()
    audio: Content | None = None
    text: str | Content = ""
    telemetry: Blocks | None = None
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
            yield Row(where, {output: label}, (Pixels(pixels),), part=part, key=where, checked=True)


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
                text = _text(row)
            except RowError as error:
                raise UsageError(f"{row.where}: {error}") from None
            if text:
                yield text

    def sample(self, row: Row) -> Sample:
        """What the model sees of a row.

        Raises:
            RowError: A part of it is broken, or it has no content that the model takes.
        """
        sample = row.sample if row.sample is not None else self._cut(row)
        taken = [name for name in KIND_NAMES if getattr(self._spec.inputs, name) is not None]
        if not any(here for name, here in zip(KIND_NAMES, sample.present, strict=True) if name in taken):
            raise RowError(f"has none of what the model takes: {', '.join(taken)}")
        wanted = self._spec.inputs.telemetry
        if wanted and sample.telemetry_mask_CT is not None and not sample.telemetry_mask_CT.any():
            raise RowError(f"telemetry has none of the model's channels {', '.join(wanted.channels)}")
        return sample

    def _cut(self, row: Row) -> Sample:
        sample, rejects = cut(window(row, self._spec), self._spec.inputs, self._limits)
        for event, error in rejects:
            raise RowError(f"{KIND_NAMES[event.row]}: {error.detail}")
        return sample


def window(row: Row, spec: ModelSpec) -> Window:
    """The window made from a row's contents; contents that the model does not take are not opened.

    Raises:
        RowError: A file cannot be read.
    """
    events: list[list[Event]] = [[] for _ in KINDS]
    length_us = spec.window_ms * 1000
    start_us = -round(row.start_s * S_US)
    if spec.inputs.image:
        for place, content in enumerate(row.images):
            at_us = (2 * place + 1) * length_us // (2 * len(row.images))
            payload = content.read()
            media_type = pictures.media_type(payload)
            if media_type is None:
                raise RowError("the image is neither JPEG, PNG nor WebP")
            events[IMAGE].append(_event(IMAGE, at_us, at_us, payload, media_type))
    if spec.inputs.audio and row.audio is not None:
        # ends with the window, since the sound's length is known only from its file
        events[AUDIO].append(_event(AUDIO, start_us, length_us, row.audio.read(), "audio/wav"))
    if spec.inputs.text and (text := _text(row)):
        events[TEXT].append(_event(TEXT, 0, length_us, b"", "application/json", Transcript(text)))
    if spec.inputs.telemetry:
        events[TELEMETRY] += _blocks(row, start_us)
    return Window(
        session="",
        partition=0,
        start_us=0,
        end_us=length_us,
        closed_by=ClosedBy.COMPLETE,
        closed_at=Position(0, 0, 0),
        events=tuple(map(tuple, events)),
        heard_us=(0,) * len(KINDS),
    )


def _blocks(row: Row, start_us: int) -> Iterator[Event]:
    if row.telemetry is None:
        return
    for at_us, payload in row.telemetry.blocks():
        try:
            body, span = parse_telemetry(payload)
        except BadRecord as error:
            raise RowError(f"telemetry: {error.detail}") from None
        begin_us = start_us + at_us + span.start_us
        yield _event(TELEMETRY, begin_us, begin_us + span.length_us, b"", "application/json", body)


def _text(row: Row) -> str:
    if row.sample is not None:
        return " ".join(phrase.text for phrase in row.sample.text)
    if isinstance(row.text, str):
        return row.text
    try:
        return row.text.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RowError("is not UTF-8 text: convert it, e.g. with iconv") from None


def _event(
    row: int, start_us: int, end_us: int, payload: bytes, media_type: str, body: Transcript | Telemetry | None = None
) -> Event:
    record = Record(row, 0, 0, 0, None, payload, ())
    return Event(record, "", EventType.DATA, start_us, end_us, media_type, body=body)
