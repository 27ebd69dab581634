"""A model's forms: one network and several ways to run it, behind :class:`streamer.model.predictor.Predictor`.

eager      PyTorch as it is written; the reference for the others
compiled   torch.compile: kernels made for this machine when the worker starts
exported   a torch.export archive: the graph without its Python code
int8       weights of linear layers in 8 bits, on the CPU
onnx       ONNX Runtime, with the exported network or one of any other framework
archive    what all archives share; what binds one to the model folder that it was made from

A model in any form but eager has the form in its version, ``1-3f2a9c01+int8``: its numbers differ slightly.
``streamer.training.forms`` measures how much, and how fast each form is.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import torch
from torch import nn

from streamer.errors import ModelError
from streamer.model import repository
from streamer.model.forms import archive, compiled, exported, int8, onnx
from streamer.model.repository import Model
from streamer.model.spec import WEIGHTS_FILE, ModelSpec, read_network_spec

EAGER = "eager"

# Form -> the largest difference from eager that counts as the same answer, in probabilities and in the embedding's
# elements. For int8 this allows for whole quantisation steps, which add up over the layers.
TOLERANCES: dict[str, float] = {EAGER: 0.0, "compile": 1e-4, "export": 1e-4, "int8": 5e-2, "onnx": 1e-3}

MAPPING_FILE = onnx.MAPPING_FILE
FIXED_LENGTH = ("export", "onnx")  # made for windows of the model's own length

_READERS: dict[str, Callable[[Path, ModelSpec, torch.device], tuple[nn.Module, str]]] = {
    "export": exported.read,
    "int8": int8.read,
    "onnx": onnx.read,
}
_WRITERS: dict[str, Callable[[Path, Model], Path]] = {
    "export": exported.write,
    "int8": int8.write,
    "onnx": onnx.write,
}
ARCHIVES: dict[str, str] = {"export": exported.FILE, "int8": int8.FILE, "onnx": onnx.FILE}  # form -> its file


def real(folder: Path, form: str) -> str:
    """The form to run: ``form``, but always ``onnx`` for a folder that has an ONNX model and no weights."""
    return "onnx" if onnx.alone(folder) else form


def read(folder: Path, form: str, device: torch.device) -> Model:
    """Load a model folder in one of its forms.

    Raises:
        ModelError: The folder or this machine does not have the form; or the archive is truncated, stale or not ours.
    """
    form = real(folder, form)
    if form in (EAGER, "compile"):
        model = repository.read(folder)
        if form == EAGER:
            return model
        fast = compiled.compiled(model.module, device)
        return msgspec.structs.replace(model, module=fast, version=f"{model.version}+{form}")
    spec = read_network_spec(folder)
    tokenizer = repository.read_tokenizer(folder) if spec.inputs.of_kind("text") else None
    module, weights_hash = _READERS[form](folder, spec, device)
    return Model(spec, module.eval(), tokenizer, f"{spec.version}-{weights_hash[:8]}+{form}", weights_hash)


def check_window(folder: Path, form: str, window_ms: int) -> None:
    """Check that the windows have the length that a graph of fixed length needs.

    Raises:
        ModelError: They differ.
    """
    form, spec = real(folder, form), read_network_spec(folder)
    if form in FIXED_LENGTH and window_ms != spec.window_ms:
        raise ModelError(
            f"{folder}: form {form} is for windows of {spec.window_ms} ms, and STREAMER_WINDOW_MS is {window_ms}; "
            "set that, or take a form for any length: eager, compile, int8"
        )


def write(folder: Path, form: str) -> Path:
    """Make a form's archive from the folder's weights, beside them.

    Raises:
        ModelError: The folder cannot be loaded, or its network cannot be converted to this form.
    """
    if onnx.alone(folder):
        raise ModelError(f"{folder} has an ONNX model and no {WEIGHTS_FILE}: there is nothing to export")
    return _WRITERS[form](folder, repository.read(folder))


def size_bytes(folder: Path, form: str) -> int:
    """Bytes of the file that has the weights of a form."""
    return archive.size_bytes(folder / ARCHIVES.get(form, WEIGHTS_FILE))
