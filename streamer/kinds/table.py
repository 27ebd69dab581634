"""The one table of kinds. A row's index is the kind's number everywhere in the code.

A kind of yours is a module of the namespace package ``streamer_kinds`` (no ``__init__.py``), in any distribution that
is installed or on ``PYTHONPATH``: its ``KIND`` is added below those that come with the program, by the modules' names.
Modules that begin with an underscore are not looked at. The table is read when a process starts, so every worker of a
group needs the same modules.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import PathFinder

from streamer.errors import UsageError, one_line
from streamer.kinds.audio import Audio
from streamer.kinds.image import Image
from streamer.kinds.kind import Kind
from streamer.kinds.telemetry import Measurements
from streamer.kinds.text import Text

NAMESPACE = "streamer_kinds"

IMAGE, AUDIO, TEXT, TELEMETRY = range(4)
OWN: tuple[Kind, ...] = (Image(), Audio(), Text(), Measurements())  # append new ones at the end


def _others() -> list[Kind]:
    """The kinds of the namespace package.

    Entry points would do as well, but reading those of 236 distributions takes 0.12 s of every command.

    Raises:
        UsageError: A module cannot be imported, or has no kind, or one that is there already.
    """
    found = PathFinder.find_spec(NAMESPACE, sys.path)
    if found is None or found.submodule_search_locations is None:
        return []
    import pkgutil

    kinds: list[Kind] = []
    names = [module.name for module in pkgutil.iter_modules(list(found.submodule_search_locations))]
    for name in sorted(name for name in names if not name.startswith("_")):
        try:
            kind = getattr(import_module(f"{NAMESPACE}.{name}"), "KIND", None)
        except Exception as error:  # the code is the user's and may raise anything
            what = f"{type(error).__name__}: {one_line(error)}"
            raise UsageError(f"{NAMESPACE}.{name} cannot be imported: {what}") from error
        if not isinstance(kind, Kind):
            raise UsageError(f"{NAMESPACE}.{name} has no KIND, which is a streamer.kinds.kind.Kind")
        for other in (*OWN, *kinds):
            if {kind.name, kind.topic, kind.ce_type} & {other.name, other.topic, other.ce_type}:
                raise UsageError(f"{NAMESPACE}.{name}: there is a kind {other.name} with this name, topic or type")
        kinds.append(kind)
    return kinds


# Breaks ties between records of equal log time.
KINDS: tuple[Kind, ...] = (*OWN, *_others())
KIND_NAMES: tuple[str, ...] = tuple(kind.name for kind in KINDS)
