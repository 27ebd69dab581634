"""The programs beside models/vitals, which are no package: they are started as files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[1] / "models" / "vitals"


def program(name: str) -> Any:
    """``generate`` or ``measure`` as a module; they find each other in their folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)
        return import_module(name)
