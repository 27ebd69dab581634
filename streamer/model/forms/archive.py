"""What archives share: the seal that binds one to its model folder, and the shapes that a fixed graph takes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor, nn
from torch.nn import functional

from streamer.errors import ModelError
from streamer.events import DEFAULT_NAMES
from streamer.model.collate import collate
from streamer.model.handling import handling
from streamer.model.nets.inputs import JOINT, Inputs, Outputs
from streamer.model.repository import Model
from streamer.model.sample import Sample
from streamer.model.spec import (
    CODE_FILE,
    SPEC_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    Input,
    InputSpec,
    ModelSpec,
)

EMBEDDING = "embedding"  # name of that output in a graph; the others have the names of the heads
EXAMPLES = 3  # windows in the batch that a network is traced with: tracing would treat 1 or 2 as fixed
GRAPH_BYTES = 64 << 20  # by this much an archive may be larger than the weights, for the graph
SHOWN = 200  # characters of another library's message


class Seal(msgspec.Struct, frozen=True):
    """What an archive was made from; stored in its metadata.

    Attributes:
        weights: SHA-256 of ``weights.safetensors``, hexadecimal.
        network: SHA-256 of all else that the graph depends on: inputs, heads, architecture, tokenizer, ``model.py``.
    """

    weights: str
    network: str

    def to_json(self) -> str:
        return msgspec.json.encode(self).decode()


def seal_of(folder: Path, spec: ModelSpec) -> Seal:
    """The seal of an archive made from the folder now."""
    return Seal(hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest(), _network(folder, spec))


def _network(folder: Path, spec: ModelSpec) -> str:
    # As it was before inputs had names, where it says the same: archives of before stay valid.
    inputs = {name: _facts(getattr(spec.inputs, name)) for name in DEFAULT_NAMES}
    inputs |= {name: {"kind": one.kind, **(_facts(one) or {})} for name, one in spec.inputs.more.items()}
    digest = hashlib.sha256(msgspec.json.encode((spec.window_ms, inputs, spec.outputs, spec.architecture)))
    for name in (CODE_FILE, TOKENIZER_FILE):
        digest.update((folder / name).read_bytes() if (folder / name).is_file() else b"none")
    return digest.hexdigest()


def _facts(wanted: Input | None) -> dict[str, Any] | None:
    if wanted is None:
        return None
    facts = msgspec.structs.asdict(wanted)
    return {name: value for name, value in facts.items() if name != "share" or value}


def check_seal(path: Path, content: str | bytes | None, spec: ModelSpec, form: str) -> Seal:
    """Check an archive's seal against its folder, leaving out the weights if the folder has none.

    Raises:
        ModelError: It has no seal, or was made from something else.
    """
    again = f"make it with `streamer export {path.parent} --form {form}`"
    try:
        seal = msgspec.json.decode(content or b"", type=Seal)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise ModelError(f"{path} was not made by `streamer export`; {again}") from None
    if seal.network != _network(path.parent, spec):
        raise ModelError(
            f"{path} is stale: it was made from another {SPEC_FILE}, {TOKENIZER_FILE} or {CODE_FILE}; {again}"
        )
    weights = path.parent / WEIGHTS_FILE
    if weights.is_file() and seal.weights != hashlib.sha256(weights.read_bytes()).hexdigest():
        raise ModelError(f"{path} is stale: it was made from another {WEIGHTS_FILE}; {again}")
    return seal


def size_bytes(path: Path) -> int:
    """Size of a file; 0 where there is none."""
    return path.stat().st_size if path.is_file() else 0


def existing(path: Path, form: str, limit_bytes: int | None = None) -> Path:
    """The path, if an archive of a plausible size is there.

    Args:
        limit_bytes: ``None``: twice the weights' size plus room for the graph; unlimited if there are no weights.

    Raises:
        ModelError: It is missing or oversized.
    """
    if not path.is_file():
        raise ModelError(f"{path} is not a file; `streamer export {path.parent} --form {form}` makes it")
    weights_bytes = size_bytes(path.parent / WEIGHTS_FILE)
    if limit_bytes is None and weights_bytes:
        limit_bytes = 2 * weights_bytes + GRAPH_BYTES
    if limit_bytes is not None and size_bytes(path) > limit_bytes:
        raise ModelError(f"{path} has {size_bytes(path):,} bytes; it cannot need more than {limit_bytes:,}")
    return path


def line(error: BaseException) -> str:
    """The first line of another library's message."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:SHOWN]


# tracing


class Flat(nn.Module):
    """The model with a graph's signature: tensors by name in, heads and embedding by name out."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        outputs = self.module(Inputs.from_tensors(given))
        return {**outputs.logits, EMBEDDING: outputs.embedding_BD}


def example(model: Model) -> dict[str, Tensor]:
    """A batch to trace with: of the model's window length, with text of several tokens, nothing masked."""
    spec = model.spec
    lengths = time_lengths(spec.inputs, spec.window_ms)
    given = named(collate([Sample.empty()] * EXAMPLES, spec.inputs, model.tokenizer))
    for name, tensor in given.items():
        if is_text(name):
            given[name] = tensor.new_zeros(EXAMPLES, EXAMPLES + 1)
        elif name in lengths:
            given[name] = tensor.new_zeros(*tensor.shape[:-1], lengths[name])
    return {name: torch.ones_like(tensor) if is_mask(name) else tensor for name, tensor in given.items()}


def time_lengths(inputs: InputSpec, window_ms: int) -> dict[str, int]:
    """Length of the last axis of each input whose last axis is time."""
    lengths: dict[str, int] = {}
    for sensor, wanted in inputs.all.items():
        own = handling(wanted.kind).lengths(wanted, window_ms)
        lengths |= {_flat(inputs, sensor, field): length for field, length in own.items()}
    return lengths


def dynamic_axes(name: str) -> tuple[int, ...]:
    """The axes of an input whose size differs between batches: windows, and tokens of text."""
    return (0, 1) if is_text(name) else (0,)


def named(inputs: Inputs) -> dict[str, Tensor]:
    """The inputs that the model has, by name."""
    return inputs.tensors()


def names_of(spec: InputSpec) -> list[str]:
    """Names of the tensors that a model may take."""
    return [_flat(spec, sensor, field) for sensor, wanted in spec.all.items() for field in handling(wanted.kind).fields]


def _flat(inputs: InputSpec, sensor: str, field: str) -> str:
    return f"{sensor}{JOINT}{field}" if sensor in inputs.more else field


def field_of(name: str) -> str:
    """The field of :class:`Inputs` that a tensor is in, without the sensor that it may name."""
    return name.rpartition(JOINT)[2]


def is_text(name: str) -> bool:
    """Whether a tensor is of words, which may be any number."""
    return field_of(name).startswith("text_")


def is_mask(name: str) -> bool:
    """Whether a tensor is a mask."""
    return "_mask_" in field_of(name)


# running


def fitted(given: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int | None]]) -> dict[str, Tensor]:
    """The tensors in the shapes that a graph takes.

    A modality that no window of the batch has is masked throughout, so it gets the graph's length.

    Args:
        shapes: Name of an input -> its shape in the graph; ``None`` for an axis of any size.

    Raises:
        ValueError: An input with content has another size.
    """
    fits = {}
    for name, shape in shapes.items():
        tensor = given[name]
        wanted = [size if fixed is None else fixed for size, fixed in zip(tensor.shape, shape, strict=True)]
        if wanted != list(tensor.shape):
            field = field_of(name)
            masked = f"{name.removesuffix(field)}{field.partition('_')[0]}_mask_"
            mask = next(mask for other, mask in given.items() if other.startswith(masked))
            if mask.any() or wanted[0] != tensor.shape[0]:
                raise ValueError(f"{name} has shape {list(tensor.shape)}, and this form of the model takes {wanted}")
            tensor = tensor.new_zeros(wanted)
        fits[name] = tensor
    return fits


def outputs_of(found: Mapping[str, Tensor]) -> Outputs:
    """A graph's outputs as a model's; the embedding is normalised to length 1."""
    logits = {name: tensor for name, tensor in found.items() if name != EMBEDDING}
    return Outputs(logits, functional.normalize(found[EMBEDDING].float(), dim=-1), {})
