"""Weights that others trained, from untrusted files: no file is unpickled, and all is checked."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from streamer.errors import one_line
from streamer.model.nets.architecture import BuildError

WRAPPERS = "state_dict", "model", "model_state_dict"  # keys under which training scripts keep the weights


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read ``.safetensors``, or a file that ``torch.save`` wrote.

    Raises:
        BuildError: The file is missing, truncated, of another kind, or has more than weights.
    """
    if not path.is_file():
        raise BuildError(f"{path} is not a file")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        if zipfile.is_zipfile(path):
            _refuse_compressed(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except BuildError:
        raise
    except Exception as error:  # on a broken file the reader may raise anything
        raise BuildError(
            f"{path} is truncated, or holds more than weights (it is not unpickled): {one_line(error)}"
        ) from error
    for key in WRAPPERS:
        if isinstance(found, dict) and isinstance(found.get(key), dict):
            found = found[key]
    if not isinstance(found, dict) or not found or not all(isinstance(key, str) for key in found):
        raise BuildError(f"{path} holds no weights by name")
    weights = {name.removeprefix("module."): value for name, value in found.items() if isinstance(value, Tensor)}
    if not weights:
        raise BuildError(f"{path} holds no weights by name")
    return weights


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise BuildError(f"{path} is truncated or no safetensors file: {one_line(error)}") from None


def _refuse_compressed(path: Path) -> None:
    """Refuse a compressed archive, which could expand to any size; torch.save never compresses."""
    with zipfile.ZipFile(path) as archive:
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise BuildError(f"{path} is a compressed archive, which torch.save does not make")


def load_weights(
    module: nn.Module,
    path: Path,
    ignore: Iterable[str] = (),
    convert: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
) -> None:
    """Load a file into a module: every weight of the module must be in it.

    Args:
        ignore: Prefixes of names in the file that the module does not need, such as a classifier's.
        convert: Converts a file of an older layout to the module's; tried if the file does not fit as it is.

    Raises:
        BuildError: The file cannot be read or is of another network.
    """
    given = read_weights(path)
    problem = misfit(module, given, ignore)
    if problem and convert is not None:
        try:
            given = convert(given)
        except Exception as error:  # it expects a file in one of its layouts
            raise BuildError(f"{path} does not fit: {problem} ({one_line(error)})") from error
        problem = misfit(module, given, ignore)
    if problem:
        raise BuildError(f"{path} does not fit: {problem}")
    own = module.state_dict()
    module.load_state_dict({name: weight for name, weight in given.items() if name in own}, strict=False)


def misfit(module: nn.Module, given: dict[str, Tensor], ignore: Iterable[str] = ()) -> str | None:
    """The first difference between a module and weights as a message; ``None`` if they match."""
    own = module.state_dict()
    for name, weight in own.items():
        if name not in given:
            if name.endswith("num_batches_tracked"):  # a mere counter, which files older than PyTorch 0.4.1 lack
                continue
            return f"{name} is missing"
        if given[name].shape != weight.shape:
            return f"{name} has shape {list(given[name].shape)}, the model needs {list(weight.shape)}"
        if not torch.isfinite(given[name]).all():
            return f"{name} holds numbers that are not finite"
    begins = tuple(ignore)
    unknown = next((name for name in given if name not in own and not name.startswith(begins)), None)
    return f"{unknown} is unknown to the model" if unknown else None
