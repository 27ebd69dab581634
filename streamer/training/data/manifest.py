"""Manifests: JSON lines, one example per line, see ``schemas/manifest.json``.

    {"image": "frames/1.jpg", "audio": "sounds/1.wav", "text": "stop here", "label": "brake"}
    {"camera_front": "front/1.jpg", "camera_rear": "rear/1.jpg", "imu": "imu/1.csv", "label": "brake"}

Paths are relative to the manifest's folder and stay inside it (links are followed), so that a data set can be moved.
JSON Lines: https://jsonlines.org.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from streamer.errors import UsageError
from streamer.events import DEFAULT_NAMES, MAX_OFFSET_S
from streamer.model.spec import ModelSpec
from streamer.settings import Settings
from streamer.training.data import labels
from streamer.training.data.column import column
from streamer.training.data.parts import NAMES
from streamer.training.data.rows import BadRow, Found, Row, RowError

SUFFIXES = (".jsonl", ".ndjson")
STEM = "manifest"  # name, without suffix, of a folder's manifest


Value = str | list[str] | dict[str, float | list[float]]  # of a column that is called like a sensor


class Line(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a manifest, without the columns that are called like sensors of other names.

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


_decoder: msgspec.json.Decoder[dict[str, Any]] = msgspec.json.Decoder(dict[str, Any])


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
                        yield _row(path.parent, where, line.removeprefix(b"\xef\xbb\xbf"), spec, settings)
                    except RowError as error:
                        yield BadRow(where, str(error))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


def parsed(text: bytes) -> tuple[Line, dict[str, Value]]:
    """A line, and its columns that are called like sensors.

    Raises:
        RowError: It is no line of a manifest.
    """
    try:
        given = _decoder.decode(text)
        own = {name: given.pop(name) for name in Line.__struct_fields__ if name in given}
        line = msgspec.convert(own, Line)
        values = {name: _converted(name, value, Value | None) for name, value in given.items()}
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError) as error:
        raise RowError(str(error)) from None
    return line, {name: value for name, value in values.items() if value is not None}


def _row(folder: Path, where: str, text: bytes, spec: ModelSpec, settings: Settings) -> Row:
    line, sensors = parsed(text)
    if line.label is not None and line.labels is not None:
        raise RowError("has both label and labels")
    own = {} if line.labels is None else labels.checked(spec, line.labels)
    given = {name: value for name in DEFAULT_NAMES if (value := getattr(line, name)) is not None} | sensors
    kinds = {name: _kind(name, spec, settings) for name in given}
    contents = {name: _cell(folder, name, kinds[name], value) for name, value in given.items()}
    if not -MAX_OFFSET_S < line.start_s < MAX_OFFSET_S:
        raise RowError(f"start_s is {line.start_s}: seconds from the start of the audio or telemetry are wanted")
    files = [file for name, value in given.items() for file in column(kinds[name]).files(value)]
    return Row(
        where=where,
        labels=own if line.label is None else labels.sole(spec, line.label),
        contents=contents,
        start_s=line.start_s,
        part=NAMES[line.split] if line.split else "",
        group=line.group or "",
        key=files[0] if files else _hash(line, sensors),
    )


def _kind(name: str, spec: ModelSpec, settings: Settings) -> str:
    """The kind of a column's sensor: by the model, else by the settings."""
    if name in DEFAULT_NAMES:
        return name
    if name in spec.inputs.more:
        return spec.inputs.more[name].kind
    if name in settings.sensors:
        return settings.sensors[name].kind
    sensors = ", ".join(dict.fromkeys((*spec.inputs.all, *settings.sensors)))
    raise RowError(f"has an unknown field `{name}`, and no sensor is called so; sensors are {sensors}")


def _cell(folder: Path, name: str, kind: str, value: Value) -> object:
    own = column(kind)
    try:
        return own.cell(_converted(name, value, own.value), folder)
    except msgspec.ValidationError as error:
        raise RowError(str(error)) from None
    except RowError as error:
        raise error if name in DEFAULT_NAMES else RowError(f"{name}: {error}") from None


def _converted(name: str, value: object, wanted: Any) -> Any:
    """A column's value as what it must be; an error says where it is wrong as those of whole lines do."""
    try:
        return msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        reason, _, inside = str(error).partition(" - at `$")
        raise msgspec.ValidationError(f"{reason} - at `$.{name}{inside or '`'}") from None


def _hash(line: Line, sensors: dict[str, Value]) -> str:
    """Key, for drawing parts, of a row without files; those with the same files have the same key."""
    contents = (line.text, line.telemetry, sensors) if sensors else (line.text, line.telemetry)
    return hashlib.sha256(msgspec.json.encode(contents)).hexdigest()
