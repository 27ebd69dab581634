"""Model folders, ``models/<name>/``, read and written. No file is ever unpickled.

model.toml           name, version, inputs, outputs, architecture
weights.safetensors  the weights, with the hash of the tokenizer that they were trained with
tokenizer.json       for models that read text
model.py             optional, a network instead of the built-in architecture: ``build(spec) -> nn.Module``; it is
                     executed, so treat a model folder like code
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor, nn

from streamer.errors import ModelError, UsageError, one_line
from streamer.model.handling import handling
from streamer.model.nets.architecture import Architecture, BuildError, HuggingFace
from streamer.model.nets.build import Data, build
from streamer.model.nets.heads import Head
from streamer.model.spec import (
    CODE_FILE,
    SPEC_FILE,
    TOKENIZER_FILE,
    WEIGHTS_FILE,
    ModelSpec,
    read_network_spec,
)
from streamer.senses import files as senses
from streamer.settings import Settings

BACKBONE = "backbone"  # of image encoders: the sense of this role has the weights


class Model(msgspec.Struct, frozen=True):
    """A model folder in memory, with trained weights.

    Attributes:
        version: The spec's version and the first 8 hex digits of the weights' SHA-256, e.g. ``1-3f2a9c01``.
        weights: All of that SHA-256.
    """

    spec: ModelSpec
    module: nn.Module
    tokenizer: Tokenizer | None
    version: str
    weights: str = ""


def new_module(spec: ModelSpec, folder: Path, tokenizer: Tokenizer | None, *, pretrained: bool = True) -> nn.Module:
    """The model that the spec describes, with fresh weights.

    Args:
        pretrained: Whether to load the files of weights and word vectors that the spec names; if not, these files need
            not exist.

    Raises:
        ModelError: ``model.py`` does not build a module, or a part of the architecture cannot be built.
    """
    if (folder / CODE_FILE).is_file():
        return _custom(spec, folder / CODE_FILE)
    data: dict[str, Any] = {"more": {}, "shared": {}}
    for name, wanted in spec.inputs.all.items():
        if wanted.share:
            data["shared"][name] = wanted.share
        elif name in spec.inputs.more:
            data["more"][name] = Data(**handling(wanted.kind).dimensions(wanted, tokenizer))
        else:
            data |= handling(wanted.kind).dimensions(wanted, tokenizer)
    heads = {name: Head(output.size, output.kind == "number") for name, output in spec.outputs.items()}
    try:
        seen = bool(spec.inputs.of_kind("image"))
        architecture = _with_backbone(spec.architecture) if pretrained and seen else spec.architecture
        return build(architecture, Data(**data), heads, folder, pretrained=pretrained)
    except BuildError as error:
        raise ModelError(f"{folder / SPEC_FILE}: {error}") from None


def _with_backbone(architecture: Architecture) -> Architecture:
    """The architecture with the path of a file where the image encoder begins with the sense ``backbone``.

    Raises:
        BuildError: The sense is not here, or is not one file.
    """
    image = architecture.image
    if isinstance(image, str) or image.get("pretrained") != BACKBONE:
        return architecture
    try:
        sense = senses.find(BACKBONE, Settings.load())
    except UsageError as error:
        raise BuildError(f"architecture.image.pretrained = {BACKBONE!r}: {error}") from None
    if len(sense.files) != 1:
        raise BuildError(f"architecture.image.pretrained = {BACKBONE!r}: {sense.name} is not one file of weights")
    path = next(iter(sense.files.values())).absolute()
    return msgspec.structs.replace(architecture, image=image | {"pretrained": str(path)})


def backbone_tokenizer(spec: ModelSpec, folder: Path) -> Tokenizer | None:
    """The tokenizer that comes with a pretrained text encoder, or ``None``; truncation and padding are switched off.

    Raises:
        ModelError: It is missing or not a tokenizer.
    """
    options = spec.architecture.options("text")
    if not spec.inputs.of_kind("text") or not isinstance(options, HuggingFace) or (folder / CODE_FILE).is_file():
        return None
    path = folder / options.of / TOKENIZER_FILE
    if not path.is_file():
        raise ModelError(f"{path} is not a file; save the encoder's fast tokenizer beside its weights")
    tokenizer = _tokenizer_of(path)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def _custom(spec: ModelSpec, path: Path) -> nn.Module:
    found = importlib.util.spec_from_file_location(f"streamer_model_{spec.name}", path)
    if found is None or found.loader is None:
        raise ModelError(f"{path} cannot be imported")
    code = importlib.util.module_from_spec(found)
    try:
        found.loader.exec_module(code)
        module = code.build(spec)
    except Exception as error:  # the user's code may raise anything
        raise ModelError(f"{path}: {type(error).__name__}: {one_line(error)}") from error
    if not isinstance(module, nn.Module):
        raise ModelError(f"{path}: build(spec) must return a torch.nn.Module, not {type(module).__name__}")
    return module


def read(folder: Path) -> Model:
    """Load a model folder.

    Raises:
        ModelError: A file is missing, truncated or of another kind, or the files do not match; one line says which.
    """
    spec = read_network_spec(folder)
    tokenizer = read_tokenizer(folder) if spec.inputs.of_kind("text") else None
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        raise ModelError(f"{path} is not a file; `streamer train {folder}` makes it")
    module = new_module(spec, folder, tokenizer, pretrained=False)
    metadata = _load_weights(module, path)
    if tokenizer is not None and metadata.get("tokenizer", fingerprint(tokenizer)) != fingerprint(tokenizer):
        raise ModelError(f"{path} was trained with another {TOKENIZER_FILE} than the one beside it")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Model(spec, module.eval(), tokenizer, f"{spec.version}-{digest[:8]}", digest)


def _load_weights(module: nn.Module, path: Path) -> dict[str, str]:
    """Load a file's weights once its header has shown that they fit the module; returns the file's metadata."""
    wanted = module.state_dict()
    try:
        with safe_open(path, framework="pt") as file:
            mismatch = _mismatch(wanted, {name: list(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
            if mismatch:
                raise ModelError(f"{path} does not fit {SPEC_FILE}: {mismatch}; train it again, or restore the file")
            weights = {name: file.get_tensor(name) for name in wanted}
            metadata: dict[str, str] = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{path} is truncated or no safetensors file: {one_line(error)}") from error
    broken = next((name for name, weight in weights.items() if not torch.isfinite(weight).all()), None)
    if broken:
        raise ModelError(f"{path}: {broken} holds numbers that are not finite")
    module.load_state_dict(weights)
    return metadata


def _mismatch(wanted: dict[str, Tensor], given: dict[str, list[int]]) -> str | None:
    """The first missing, unknown or differently shaped weight as a message; ``None`` if all match."""
    for name, weight in wanted.items():
        if name not in given:
            return f"{name} is missing"
        if given[name] != list(weight.shape):
            return f"{name} has shape {given[name]}, the model needs {list(weight.shape)}"
    unknown = next((name for name in given if name not in wanted), None)
    return f"{unknown} is unknown to the model" if unknown else None


def read_tokenizer(folder: Path) -> Tokenizer:
    """Read ``tokenizer.json``.

    Raises:
        ModelError: It is missing or not a tokenizer.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise ModelError(f"{path} is not a file, and the model reads text; `streamer train {folder}` makes it")
    return _tokenizer_of(path)


def _tokenizer_of(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain Exception
        raise ModelError(f"{path} is no tokenizer: {one_line(error)}") from error


def fingerprint(tokenizer: Tokenizer) -> str:
    """Short hash of a tokenizer's behaviour."""
    content = json.dumps(json.loads(tokenizer.to_str()), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def write(folder: Path, module: nn.Module, tokenizer: Tokenizer | None, notes: dict[str, Any]) -> str:
    """Write weights and tokenizer; a reader never sees half a file.

    Args:
        notes: What the weights were trained on; stored in the file's metadata.

    Returns:
        SHA-256 of the file of weights.
    """
    metadata = {"notes": json.dumps(notes, sort_keys=True)}
    if tokenizer is not None:
        metadata["tokenizer"] = fingerprint(tokenizer)
        replace(folder / TOKENIZER_FILE, lambda path: tokenizer.save(str(path)))
    weights = {name: weight.detach().cpu().contiguous() for name, weight in module.state_dict().items()}
    replace(folder / WEIGHTS_FILE, lambda path: save_file(weights, path, metadata=metadata))
    return hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()


def replace(path: Path, save: Callable[[Path], object]) -> None:
    """Write a file under a temporary name and move it into place, so that a reader never sees half of it."""
    beside = path.with_name(path.name + ".new")
    save(beside)
    beside.chmod(0o644)  # safetensors makes files that only their owner may read
    beside.replace(path)
