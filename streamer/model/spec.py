"""``model.toml``: a model's inputs, outputs and architecture. Imports no PyTorch.

Role align, sizing and the checks of ``doctor`` read it, none of which runs the model.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import msgspec

from streamer.errors import ModelError
from streamer.model.nets.architecture import Architecture, BuildError

SPEC_FILE, WEIGHTS_FILE, TOKENIZER_FILE, CODE_FILE = "model.toml", "weights.safetensors", "tokenizer.json", "model.py"


class ImageInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Frames of a window: how many, evenly spread, and their size in pixels."""

    frames: int
    height: int
    width: int


class AudioInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The window's mono waveform."""

    rate_hz: int


class TextInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The words of the window, at most ``max_tokens``."""

    max_tokens: int


class TelemetryInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Named channels on a regular grid."""

    channels: tuple[str, ...]
    rate_hz: float


class InputSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[inputs]`` of a ``model.toml``: what a model needs of each modality; ``None`` if it does not read one."""

    image: ImageInput | None = None
    audio: AudioInput | None = None
    text: TextInput | None = None
    telemetry: TelemetryInput | None = None


class Output(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One head.

    Attributes:
        labels: Of classes and tags.
        kind: ``classes``: one of the labels is right; ``tags``: any number of them is; ``number``: a quantity.
        unit: Unit of a number, to be shown: ``m/s``.
    """

    labels: tuple[str, ...] = ()
    kind: Literal["classes", "tags", "number"] = "classes"
    unit: str = ""

    @property
    def size(self) -> int:
        """Columns of its logits."""
        return len(self.labels) or 1


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A ``model.toml``.

    Attributes:
        window_ms: Length of the windows that the model was trained on.
        outputs: Name of an output -> its head.
    """

    name: str
    version: str
    window_ms: int
    inputs: InputSpec
    outputs: dict[str, Output]
    architecture: Architecture = Architecture()
    description: str = ""


def read_spec(folder: Path) -> ModelSpec:
    """Read and validate ``model.toml``.

    Raises:
        ModelError: The folder or the file is missing, or the file is wrong; one line says how.
    """
    path = folder / SPEC_FILE
    if not path.is_file():
        raise ModelError(f"{path} is not a file; a model folder holds {SPEC_FILE} and {WEIGHTS_FILE}")
    try:
        spec = msgspec.convert(tomllib.loads(path.read_text("utf-8")), ModelSpec)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ModelError(f"{path}: {error}") from None
    problem = _problem(spec)
    if problem:
        raise ModelError(f"{path}: {problem}")
    return spec


def _problem(spec: ModelSpec) -> str | None:
    inputs = spec.inputs
    numbers = {
        "window_ms": spec.window_ms,
        **{f"inputs.image.{k}": v for k, v in (msgspec.structs.asdict(inputs.image) if inputs.image else {}).items()},
        "inputs.audio.rate_hz": inputs.audio.rate_hz if inputs.audio else 1,
        "inputs.text.max_tokens": inputs.text.max_tokens if inputs.text else 1,
        "inputs.telemetry.rate_hz": inputs.telemetry.rate_hz if inputs.telemetry else 1,
    }
    wrong = [f"{name} = {value}" for name, value in numbers.items() if value <= 0]
    if wrong:
        return f"{wrong[0]} must be above 0"
    if not any((inputs.image, inputs.audio, inputs.text, inputs.telemetry)):
        return "[inputs] names no modality"
    if inputs.telemetry and not inputs.telemetry.channels:
        return "inputs.telemetry.channels is empty"
    for name, output in spec.outputs.items():
        if output.kind == "number":
            if output.labels:
                return f"outputs.{name} is a number and has no labels"
            continue
        if output.unit:
            return f"outputs.{name}.unit is for outputs of kind number"
        least = 2 if output.kind == "classes" else 1
        if len(output.labels) < least or len(set(output.labels)) < len(output.labels):
            return f"outputs.{name}.labels needs {least} or more different labels"
    if not spec.outputs:
        return "[outputs] names no head"
    try:
        spec.architecture.check()
    except BuildError as error:
        return str(error)
    return None
