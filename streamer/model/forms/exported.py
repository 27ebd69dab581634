"""A torch.export archive: the traced graph with its weights, which runs without the code that it was traced from.

``torch.export.load`` unpickles what an archive marks as pickled, and evaluates expressions in it. Archives with pickled
content are refused unread; the expressions remain, so treat an archive like code, as ``model.py``. Its seal says what
it was made from, not by whom.
"""

from __future__ import annotations

import io
import json
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export.passes import move_to_device_pass

from streamer.errors import ModelError
from streamer.model import repository
from streamer.model.forms import archive
from streamer.model.nets.inputs import Inputs, Outputs
from streamer.model.repository import Model
from streamer.model.spec import ModelSpec

FORM, FILE = "export", "model.pt2"
SEAL_ENTRY = "streamer.json"


class Exported(nn.Module):
    """Runs an exported program.

    Its graph was traced in float32 and names that type at every step, so autocast would cause mismatches.
    """

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.module = program.module()
        self._shapes = _shapes(program)

    def forward(self, inputs: Inputs) -> Outputs:
        given = archive.fitted(archive.named(inputs), self._shapes)
        with torch.autocast(next(iter(given.values())).device.type, enabled=False):
            return archive.outputs_of(self.module(given))

    def eval(self) -> Exported:
        """Do nothing: the graph was traced in evaluation mode."""
        return self


def traced(model: Model) -> ExportedProgram:
    """Trace a model, for batches of any size and text of any length.

    Raises:
        ModelError: Its code cannot be traced this way.
    """
    given = archive.example(model)
    axes = {name: dict.fromkeys(archive.dynamic_axes(name), Dim.DYNAMIC) for name in given}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns about its own modules, such as a GRU's flat weights
            return torch.export.export(archive.Flat(model.module), (given,), dynamic_shapes=(axes,))
    except Exception as error:  # the network may be the user's, whose code may raise anything
        raise ModelError(f"{model.spec.name} cannot be exported: {archive.line(error)}") from error


def write(folder: Path, model: Model) -> Path:
    """Trace the model and write the archive."""
    program = traced(model)
    program.example_inputs = None  # would be stored as a pickle
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, content, extra_files={SEAL_ENTRY: archive.seal_of(folder, model.spec).to_json()})
    path = folder / FILE
    repository.replace(path, lambda beside: beside.write_bytes(content.getvalue()))
    return path


def read(folder: Path, spec: ModelSpec, device: torch.device) -> tuple[nn.Module, str]:
    """Load the archive.

    Returns:
        The model and the hash of the weights that it was made from.

    Raises:
        ModelError: The archive is missing, truncated, stale or not ours, or has pickled content.
    """
    path = archive.existing(folder / FILE, FORM)
    content = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as entries:
            seal = archive.check_seal(path, _entry(entries, f"extra/{SEAL_ENTRY}"), spec, FORM)
            foreign = _foreign(entries)
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise ModelError(f"{path} is truncated or no export archive: {archive.line(error)}") from error
    if foreign:
        raise ModelError(f"{path} holds a pickle or machine code ({foreign}), which `streamer export` never writes")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(io.BytesIO(content))
            if device.type != "cpu":
                program = move_to_device_pass(program, device)
            return Exported(program), seal.weights
    except Exception as error:  # PyTorch raises anything, even AssertionError, on an archive that it cannot read
        raise ModelError(f"{path} cannot be loaded: {archive.line(error)}") from error


def _entry(entries: zipfile.ZipFile, name: str) -> bytes | None:
    """An entry's bytes; all names begin with the archive's name."""
    found = next((entry for entry in entries.namelist() if entry.partition("/")[2] == name), None)
    return None if found is None else entries.read(found)


def _foreign(entries: zipfile.ZipFile) -> str | None:
    """The first entry that ``torch.export.load`` would unpickle or run; see torch/export/pt2_archive/_package.py."""
    for info in entries.infolist():
        name = info.filename.partition("/")[2]
        file = name.rpartition("/")[2]
        if file.endswith(".pt") and info.file_size:
            return name  # sample inputs, or weights of the old format
        if name.startswith(("data/constants/custom_obj", "data/aotinductor/")):
            return name  # objects of C++, and libraries
        if name.endswith("_config.json"):
            payloads: dict[str, dict[str, Any]] = json.loads(entries.read(info))["config"]
            if any(payload["use_pickle"] for payload in payloads.values()):
                return name
    return None


def _shapes(program: ExportedProgram) -> dict[str, list[int | None]]:
    """Shape of each input; ``None`` for an axis of any size."""
    names = program.call_spec.in_spec.child(0).child(0).context  # the keys of the one dict that it takes
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    return {
        name: [size if isinstance(size, int) else None for size in node.meta["val"].shape]
        for name, node in zip(names, inputs, strict=True)
    }
