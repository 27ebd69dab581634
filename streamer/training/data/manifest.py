"""Manifests: JSON lines, one example per line, see ``schemas/manifest.json``.

    {"image": "frames/1.jpg", "audio": "sounds/1.wav", "text": "stop here", "label": "brake"}

Paths are relative to the manifest's folder and stay inside it (links are followed), so that a data set can be moved.
JSON Lines: https://jsonlines.org.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

import msgspec

from streamer.errors import BadRecord, UsageError
from streamer.events import MAX_OFFSET_S
from streamer.feeds.replay.tables import table
from streamer.kinds.telemetry import parse_telemetry
from streamer.model.spec import ModelSpec
from streamer.settings import Settings
from streamer.training.data import labels
from streamer.training.data.parts import NAMES
from streamer.training.data.rows import BadRow, File, Found, Row, RowError

SUFFIXES = (".jsonl", ".ndjson")
STEM = "manifest"  # name, without suffix, of a folder's manifest
RATE = "rate_hz"


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a manifest.

    Attributes:
        image: Path, or paths in order of time.
        telemetry: ``{"rate_hz": …, "channel": [values …], …}``, or the path of a CSV table.
        label: For a model's only output; ``labels``: by output.
        split: The part that the example is in.
        group: Examples of a group are in the same part: a patient, a speaker, a drive.
        start_s: Where in audio and telemetry the window begins, s.
    """

    image: str | list[str] | None = None
    audio: str | None = None
    text: str | None = None
    telemetry: str | dict[str, float | list[float]] | None = None
    label: str | float | list[str] | None = None
    labels: dict[str, str | float | list[str]] | None = None
    split: Literal["training", "train", "validation", "valid", "val", "dev", "test"] | None = None
    group: str | None = None
    start_s: float = 0.0


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


_decoder = msgspec.json.Decoder(Line)


def looks_so(path: Path) -> bool:
    """Whether it has a manifest's name, or is a folder with one."""
    return path.suffix in SUFFIXES if path.is_file() else any((path / f"{STEM}{end}").is_file() for end in SUFFIXES)


def load(path: Path, spec: ModelSpec, settings: Settings) -> Iterator[Found]:
    """The rows of a manifest; blank lines are skipped.

    Raises:
        UsageError: The file cannot be read.
    """
    if path.is_dir():
        path = next(own for end in SUFFIXES if (own := path / f"{STEM}{end}").is_file())
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if line.strip():
                    where = f"{path.name} line {number}"
                    try:
                        yield _row(path.parent, where, line.removeprefix(b"\xef\xbb\xbf"), spec)
                    except RowError as error:
                        yield BadRow(where, str(error))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def _row(folder: Path, where: str, text: bytes, spec: ModelSpec) -> Row:
    try:
        line = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RowError(str(error)) from None
    if line.label is not None and line.labels is not None:
        raise RowError("has both label and labels")
    own = {} if line.labels is None else labels.checked(spec, line.labels)
    images = (line.image,) if isinstance(line.image, str) else tuple(line.image or ())
    telemetry: Inline | Table | None = None
    if isinstance(line.telemetry, str):
        telemetry = Table(_path(folder, line.telemetry), line.telemetry)
    elif line.telemetry is not None:
        telemetry = _inline(line.telemetry)
    if not -MAX_OFFSET_S < line.start_s < MAX_OFFSET_S:
        raise RowError(f"start_s is {line.start_s}: seconds from the start of the audio or telemetry are wanted")
    return Row(
        where=where,
        labels=own if line.label is None else labels.sole(spec, line.label),
        images=tuple(File(_path(folder, name), name) for name in images),
        audio=None if line.audio is None else File(_path(folder, line.audio), line.audio),
        text=line.text or "",
        telemetry=telemetry,
        start_s=line.start_s,
        part=NAMES[line.split] if line.split else "",
        group=line.group or "",
        key=_key(line, images),
    )


def _path(folder: Path, name: str) -> str:
    path = PurePosixPath(name)
    if not name or "\0" in name or path.is_absolute() or ".." in path.parts:
        raise RowError(f"path {name!r} leaves the manifest's folder: move the manifest up, or put a link inside")
    return str(folder / path)


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


def _key(line: Line, images: tuple[str, ...]) -> str:
    """Key of a row for drawing parts: rows with the same files have the same key, so are in the same part."""
    files = (*images, line.audio, line.telemetry if isinstance(line.telemetry, str) else None)
    named = [name for name in files if name]
    return named[0] if named else hashlib.sha256(msgspec.json.encode((line.text, line.telemetry))).hexdigest()
