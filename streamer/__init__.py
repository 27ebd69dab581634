"""Streaming multimodal event processor.

The way of a record is the reading order of the packages:

broker    record <- Kafka      everything that speaks to Kafka
align     record -> window     decode, merge, align: per session, by event time
worker    window -> batch      the process that joins the stages, by role
model     batch -> prediction  what a model sees of a window, and how it is run
store     prediction -> Redis  once in effect

The API is ``__all__``, and that of ``streamer.model``. Every other name may move between versions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from streamer import model
    from streamer.feeds.producer import Producer
    from streamer.settings import Settings

__all__ = ["Producer", "Settings", "__version__", "model"]

__version__ = "0.1.0"

_HOMES = {"Producer": "streamer.feeds.producer", "Settings": "streamer.settings"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: ``import streamer`` and ``streamer --help`` stay quick."""
    if name == "model":
        return import_module("streamer.model")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
