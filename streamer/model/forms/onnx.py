"""ONNX: the exported network, or one that another framework has written, in ONNX Runtime.

A folder with ``model.toml``, ``model.onnx`` and no ``weights.safetensors`` is a complete model. Its graph takes any of
the tensors of :class:`streamer.model.nets.inputs.Inputs` and returns logits [B, L] by head, and ``embedding`` [B, D].
``onnx.toml`` maps names that differ::

    [inputs]                          # the graph's name = ours
    "serving_default_camera" = "image_BFCHW"
    [outputs]
    "StatefulPartitionedCall:0" = "action"
    "StatefulPartitionedCall:1" = "embedding"

Numbers are converted to the type that the graph takes. A graph that takes no mask gets 0 where something is missing,
and cannot distinguish that from a real 0. Weights must be in the file itself, which limits it to 2 GB (protobuf).
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import tomllib
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import nn

from streamer.errors import ModelError
from streamer.model import repository
from streamer.model.forms import archive
from streamer.model.forms.exported import traced
from streamer.model.nets.inputs import Inputs, Outputs
from streamer.model.repository import Model
from streamer.model.spec import WEIGHTS_FILE, InputSpec, ModelSpec

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

FORM, FILE, MAPPING_FILE = "onnx", "model.onnx", "onnx.toml"
LIMIT_BYTES = (1 << 31) - 1  # of a protobuf message
SEAL_ENTRY = "streamer"
INSTALL = "pip install 'streamer-multimodal[onnx]'"
ERRORS_ONLY = 3  # ONNX Runtime's log level

# ONNX Runtime's names of types -> NumPy's
TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}

log = logging.getLogger(__name__)


class Names(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An ``onnx.toml``: the graph's names -> ours, for those that differ."""

    inputs: dict[str, str] = {}
    outputs: dict[str, str] = {}


class Graph(nn.Module):
    """Runs a session of ONNX Runtime.

    Args:
        inputs: Our name of an input -> the graph's name, type and shape (``None`` for an axis of any size).
        outputs: Our names of the graph's outputs, in the graph's order.
    """

    def __init__(
        self,
        session: InferenceSession,
        inputs: dict[str, tuple[str, type[np.generic], list[int | None]]],
        outputs: list[str],
    ) -> None:
        super().__init__()
        self._session = session
        self._inputs = inputs
        self._outputs = outputs

    def forward(self, inputs: Inputs) -> Outputs:
        named = archive.named(inputs)
        given = {name: tensor for name, tensor in named.items() if name in self._inputs or archive.is_mask(name)}
        fits = archive.fitted(given, {name: shape for name, (_, _, shape) in self._inputs.items()})
        feed = {
            theirs: fits[name].cpu().numpy().astype(kind, copy=False)
            for name, (theirs, kind, _) in self._inputs.items()
        }
        found = self._session.run(None, feed)
        return archive.outputs_of(
            {name: torch.from_numpy(array) for name, array in zip(self._outputs, found, strict=True)}
        )


def alone(folder: Path) -> bool:
    """Whether the folder has an ONNX model and no ``weights.safetensors``."""
    return (folder / FILE).is_file() and not (folder / WEIGHTS_FILE).is_file()


def write(folder: Path, model: Model) -> Path:
    """Convert the model and write it.

    Raises:
        ModelError: Its network uses operators that ONNX lacks.
    """
    _require("onnxscript")
    program = traced(model)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the converter and PyTorch warn about each other
            converted = torch.onnx.export(
                program, dynamo=True, verbose=False, output_names=[*model.spec.outputs, archive.EMBEDDING]
            )
    except Exception as error:  # the converter may raise anything
        raise ModelError(f"{model.spec.name} cannot be converted to ONNX: {archive.line(error)}") from error
    if converted is None:
        raise ModelError(f"{model.spec.name} cannot be converted to ONNX")
    _name(converted.model.graph, archive.example(model), [*model.spec.outputs, archive.EMBEDDING])
    converted.model.metadata_props[SEAL_ENTRY] = archive.seal_of(folder, model.spec).to_json()
    path = folder / FILE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        repository.replace(path, lambda beside: converted.save(beside, external_data=False))
    return path


def _name(graph: Any, inputs: dict[str, Any], outputs: list[str]) -> None:
    """Name inputs and outputs; inner values that have one of these names already get another."""
    wanted = [*inputs, *outputs]
    for node in graph:
        for value in node.outputs:
            if value.name in wanted:
                value.name = f"{value.name}_inside"
    for value, name in zip([*graph.inputs, *graph.outputs], wanted, strict=True):
        value.name = name


def read(folder: Path, spec: ModelSpec, device: torch.device) -> tuple[nn.Module, str]:
    """Load ``model.onnx``.

    Returns:
        The model, and the hash of the weights that it was made from (of the file itself if it comes from elsewhere).

    Raises:
        ModelError: The file is missing, truncated, stale or not ONNX, ONNX Runtime is not installed, or inputs or
            outputs differ from ``model.toml``.
    """
    _require("onnxruntime")
    path = archive.existing(folder / FILE, FORM, LIMIT_BYTES)
    content = path.read_bytes()
    session = _session(path, content, device)
    found = session.get_modelmeta().custom_metadata_map.get(SEAL_ENTRY)
    if (folder / WEIGHTS_FILE).is_file() or found is not None:
        weights_hash = archive.check_seal(path, found, spec, FORM).weights
    else:
        weights_hash = hashlib.sha256(content).hexdigest()
    names = _names(folder / MAPPING_FILE)
    return Graph(
        session, _inputs(path, session, names, spec.inputs), _outputs(path, session, names, spec)
    ), weights_hash


def _require(package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise ModelError(f"form onnx needs {package}: {INSTALL}")


def _session(path: Path, content: bytes, device: torch.device) -> InferenceSession:
    import onnxruntime

    providers: list[Any] = ["CPUExecutionProvider"]
    if device.type == "cuda":
        if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
            providers.insert(0, ("CUDAExecutionProvider", {"device_id": device.index or 0}))
        else:
            log.warning("this onnxruntime has no CUDA: %s runs on the CPU; onnxruntime-gpu has it", path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = ERRORS_ONLY
    try:
        return onnxruntime.InferenceSession(content, options, providers)
    except Exception as error:  # its errors have no other common class
        raise ModelError(f"{path} is truncated or no ONNX model that runs here: {archive.line(error)}") from error


def _names(path: Path) -> Names:
    if not path.is_file():
        return Names()
    try:
        return msgspec.convert(tomllib.loads(path.read_text("utf-8")), Names)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise ModelError(f"{path}: {error}") from None


def _inputs(
    path: Path, session: InferenceSession, names: Names, spec: InputSpec
) -> dict[str, tuple[str, type[np.generic], list[int | None]]]:
    ours = archive.names_of(spec)
    found = {}
    for given in session.get_inputs():
        name = names.inputs.get(given.name, given.name)
        if name not in ours:
            raise ModelError(
                f"{path}: its input {given.name} is none of {', '.join(ours)}; {MAPPING_FILE} may say which it is"
            )
        if given.type not in TYPES:
            raise ModelError(f"{path}: its input {given.name} is a {given.type}; known: {', '.join(TYPES)}")
        axes = len(archive.field_of(name).rpartition("_")[2])  # one letter each
        if len(given.shape) != axes:
            raise ModelError(f"{path}: its input {given.name} has {len(given.shape)} axes, and {name} has {axes}")
        if isinstance(given.shape[0], int):
            raise ModelError(f"{path}: its input {given.name} takes batches of {given.shape[0]} windows only")
        found[name] = given.name, TYPES[given.type], [size if isinstance(size, int) else None for size in given.shape]
    return found


def _outputs(path: Path, session: InferenceSession, names: Names, spec: ModelSpec) -> list[str]:
    there = [given.name for given in session.get_outputs()]
    found = [names.outputs.get(name, name) for name in there]
    missing = next((name for name in (*spec.outputs, archive.EMBEDDING) if name not in found), None)
    if missing is not None:
        raise ModelError(
            f"{path} gives {', '.join(there)} and no {missing}; {MAPPING_FILE} may say which of them it is"
        )
    return found
