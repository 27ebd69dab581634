"""The state of an interrupted training run, as safetensors: tensors and JSON, never a pickle.

A checkpoint is written after each epoch. All random numbers of an epoch are determined by seed and epoch, so a resumed
run needs no generator's state to give the same result as an uninterrupted one.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from streamer.errors import UsageError

CHECKPOINT_FILE = "checkpoint.safetensors"
State = dict[str, Tensor]


class Checkpoint(NamedTuple):
    """What a run needs to resume.

    Attributes:
        made_for: Name -> what must be the same to resume: model, recipe, data.
        notes: What fits into JSON: epochs so far, schedule, tokenizer.
        current: Parameters and buffers of the trained module.
        best: Those of the network in its best epoch.
        optimiser: Of ``torch.optim.Optimizer.state_dict``.
    """

    made_for: dict[str, Any]
    notes: dict[str, Any]
    current: State
    best: State
    optimiser: dict[str, Any]


def save(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint; a reader, or the next run after a kill, never sees half a file."""
    tensors = {f"current/{name}": value for name, value in checkpoint.current.items()}
    tensors |= {f"best/{name}": value for name, value in checkpoint.best.items()}
    for number, state in checkpoint.optimiser["state"].items():
        tensors |= {f"optimiser/{number}/{name}": torch.as_tensor(value) for name, value in state.items()}
    told = {
        "made_for": checkpoint.made_for,
        "notes": checkpoint.notes,
        "param_groups": checkpoint.optimiser["param_groups"],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".new")
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    save_file(copies, beside, metadata={"run": json.dumps(told)})
    beside.replace(path)


def load(path: Path, made_for: dict[str, Any]) -> Checkpoint:
    """Read what :func:`save` wrote.

    Raises:
        UsageError: There is none, it is broken, or it is of a different run; one line says what differs.
    """
    if not path.is_file():
        raise UsageError(f"{path} is not there: no run was interrupted; train without --resume")
    try:
        with safe_open(path, framework="pt") as file:
            told = json.loads((file.metadata() or {})["run"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise UsageError(f"{path} is no checkpoint ({error}); delete it and train without --resume") from None
    differs = next((name for name in made_for if told["made_for"].get(name) != made_for[name]), None)
    if differs:
        before, now = told["made_for"].get(differs), made_for[differs]
        raise UsageError(f"{path} is of a run with another {differs}: {before}, now {now}; train without --resume")
    optimiser: dict[str, Any] = {"state": {}, "param_groups": told["param_groups"]}
    for name, value in _below(tensors, "optimiser").items():
        number, field = name.split("/")
        optimiser["state"].setdefault(int(number), {})[field] = value
    return Checkpoint(told["made_for"], told["notes"], _below(tensors, "current"), _below(tensors, "best"), optimiser)


def _below(tensors: State, prefix: str) -> State:
    return {name.removeprefix(f"{prefix}/"): value for name, value in tensors.items() if name.startswith(f"{prefix}/")}
