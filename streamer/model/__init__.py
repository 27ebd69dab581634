"""What a model is, what it sees of a window, and how it is run.

A ``model.py`` of a model folder imports ``Inputs``, ``Outputs`` and ``ModelSpec`` from here.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer.model.nets.inputs import Inputs, Outputs
    from streamer.model.spec import ModelSpec

__all__ = ["Inputs", "ModelSpec", "Outputs"]

_HOMES = {
    "Inputs": "streamer.model.nets.inputs",
    "ModelSpec": "streamer.model.spec",
    "Outputs": "streamer.model.nets.inputs",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: alignment reads specs of models without PyTorch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
