"""What differs between kinds is in one place a kind: nothing else on the way of a record tells them apart."""

from __future__ import annotations

import ast
from pathlib import Path

from streamer.events import KINDS
from streamer.kinds.kind import Kind, part
from streamer.model.handling import Handling, handling
from streamer.training.data.column import Column, column

PACKAGE = Path(__file__).parents[3] / "streamer"
WAY = ("align", "broker", "golden", "model", "observe", "store", "training", "worker")  # of a record, and of an example
PLACES = ("model/kinds/", "training/data/columns.py")
NAMES = {"IMAGE", "AUDIO", "TEXT", "TELEMETRY", *(kind.input.__name__ for kind in KINDS)}

# module -> why it may
OTHERS = {
    "model/reload.py": "a successor must look at as many frames, since aligners send no others",
    "model/sensing.py": "ready senses are networks for certain kinds",
    "model/spec.py": "the inputs of ready senses, which are networks for certain kinds",
    "training/batches.py": "the scales of telemetry are measured before a network is made",
    "training/evaluate.py": "windows with the same words are each other's answer in a search",
    "training/simulated.py": "simulated cameras send as many frames as the model looks at",
    "worker/pipeline.py": "lengths of audio payloads that differ from their events' are measured",
}


def named(path: Path) -> set[str]:
    """What a module imports that stands for a certain kind."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in nodes if (node.module or "").startswith("streamer") for alias in node.names} & NAMES


def test_on_the_way_of_a_record_only_kinds_know_kinds() -> None:
    paths = [path for package in WAY for path in (PACKAGE / package).rglob("*.py")]
    found = {str(path.relative_to(PACKAGE)) for path in paths if named(path)}
    assert {name for name in found if not name.startswith(PLACES)} == OTHERS.keys()


def test_every_kind_has_its_three_parts() -> None:
    for kind in KINDS:
        assert isinstance(kind, Kind)
        assert isinstance(handling(kind.name), Handling)
        assert isinstance(column(kind.name), Column)
        assert {part(kind.model).__module__, part(kind.column).__module__} == {
            f"streamer.model.kinds.{kind.name}",
            "streamer.training.data.columns",
        }
        assert all(field.startswith(f"{kind.name}_") for field in handling(kind.name).fields)
        assert sum("_mask_" in field for field in handling(kind.name).fields) == 1
