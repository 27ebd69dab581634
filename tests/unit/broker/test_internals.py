"""What streamer uses of the internals of Faust, mode and aiokafka exists, is listed, and is used in one package."""

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from aiokafka import TopicPartition
from aiokafka.protocol.fetch import FetchRequest
from asammdf.blocks import mdf_v4
from kafka import KafkaConsumer
from kafka.admin import KafkaAdminClient
from kafka.consumer.fetcher import Fetcher
from kafka.record import MemoryRecords

import streamer
from streamer.broker import internals
from streamer.broker.internals import INTERNALS

PACKAGE = Path(streamer.__file__).parent
HERE = Path(internals.__file__).parent
FOREIGN = ("faust", "mode", "aiokafka", "kafka")
OPEN_MODULES = {"aiokafka", "aiokafka.errors"}  # what aiokafka documents of itself
# Of other libraries: methods of named tuples, a system call, a constructor of PyTorch that has no public name.
ALLOWED = {"_asdict", "_fields", "_replace", "_exit", "_make_per_channel_quantized_tensor"}


def knows(owner: type, name: str) -> bool:
    """Whether instances of a class have an attribute, which may be set by any of its methods."""
    parts = [part for part in owner.__mro__ if part.__module__.partition(".")[0] in FOREIGN]
    return hasattr(owner, name) or any(
        name in vars(part).get("__annotations__", ())
        or re.search(rf"\bself\.{name}\b[^=\n]*=", inspect.getsource(part))
        for part in parts
    )


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        if HERE not in path.parents:
            yield path.relative_to(PACKAGE), ast.parse(path.read_text())


def attributes(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Private names after a dot, each with whether it is one of ``self`` or ``cls``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield node.attr, isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


@pytest.mark.parametrize(
    ("owner", "name"),
    [pytest.param(owner, name, id=f"{owner.__name__}.{name}") for owner in INTERNALS for name in INTERNALS[owner]],
)
def test_the_installed_versions_have_what_we_use(owner: type, name: str) -> None:
    assert knows(owner, name), f"{owner.__module__}.{owner.__qualname__} has no {name} any more"


def test_all_that_is_used_is_listed_and_the_reverse() -> None:
    nodes = [node for path in HERE.glob("*.py") for node in ast.walk(ast.parse(path.read_text()))]
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute) and is_private(node.attr)}
    used |= {node.name for node in nodes if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)}
    ours = {"_asked", "_earlier"}
    assert {name for name in used if is_private(name)} - ours == {
        name for names in INTERNALS.values() for name in names if is_private(name)
    }


def test_no_other_file_reaches_into_a_foreign_object() -> None:
    reached = {
        (str(path), name)
        for path, tree in sources()
        for name, is_own in attributes(tree)
        if not is_own and name not in ALLOWED
    }
    # The bytes of an answer, of which kafka-python makes its own batches; commands do without internals.
    # An object of asammdf that could not be made complains when it is collected, unless it takes itself for closed.
    mdf = "feeds/replay/vehicles/mdf.py"
    assert reached == {("clients/kafka.py", "_buffer"), (mdf, "_closed"), (mdf, "_tempfile")}
    assert "_buffer" in MemoryRecords.__slots__
    assert all(f"self.{name} = " in inspect.getsource(mdf_v4) for name in ("_closed", "_tempfile"))


def test_no_other_file_imports_what_aiokafka_does_not_document() -> None:
    imported = {
        (str(path), node.module)
        for path, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "aiokafka"
    }
    # Why it refuses a password is asked by commands, which do without Faust and so without internals.
    assert {found for found in imported if found[1] not in OPEN_MODULES} == {
        ("clients/kafka.py", "aiokafka.conn"),
        # The formats of two requests are written with its classes for formats.
        ("broker/requests.py", "aiokafka.protocol.api"),
        ("broker/requests.py", "aiokafka.protocol.types"),
    }


def test_no_class_in_another_file_uses_a_private_name_of_a_foreign_base() -> None:
    checked, inherited = set(), set()
    for path, tree in sources():
        modules = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        modules |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
        if not any(name.partition(".")[0] in FOREIGN or name.startswith("streamer.broker") for name in modules):
            continue
        module = importlib.import_module(".".join(("streamer", *path.with_suffix("").parts)))
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef):
                continue
            owner = getattr(module, node.name, None)
            bases = [base for base in getattr(owner, "__mro__", ()) if base.__module__.partition(".")[0] in FOREIGN]
            if not bases:
                continue
            checked.add(node.name)
            names = {name for name, is_own in attributes(node) if is_own}
            names |= {part.name for part in ast.walk(node) if isinstance(part, ast.AsyncFunctionDef | ast.FunctionDef)}
            inherited |= {
                (node.name, name) for name in names if is_private(name) and any(knows(b, name) for b in bases)
            }
    assert {"Consumer", "ConsumerThread", "NoTables"} <= checked
    # kafka-python has no other way to close a client that found no broker; commands do without internals.
    # Nor has it one to unpack a batch within a limit, or to complete a rejoin that it forgot.
    assert inherited == {("_AdminClient", "_closed"), ("_Consumer", "_fetcher"), ("_Consumer", "_coordinator")}
    assert knows(KafkaAdminClient, "_closed")
    assert knows(KafkaConsumer, "_fetcher")
    assert knows(KafkaConsumer, "_coordinator")
    assert "self.PartitionRecords(" in inspect.getsource(Fetcher)


@pytest.mark.parametrize("fails", [True, False], ids=["no answer", "an error"])
def test_a_fetch_claims_no_answer_of_another_that_was_under_way_when_the_leader_moved(fails: bool) -> None:
    tp = TopicPartition("frames", 0)
    state = SimpleNamespace(timestamp=7, highwater=5, lso=5, awaiting_reset=False)
    assignment = SimpleNamespace(state_value={tp: state}.get)
    request = cast(FetchRequest, SimpleNamespace(topics=[("frames", [(0, 3, 0)])]))
    notes: list[tuple[int, int, int]] = []

    def note(*given: int) -> None:
        notes.append(given)  # type: ignore[arg-type]  # of offset, high watermark and last stable offset

    old, new = internals.Fetch(assignment, request), internals.Fetch(assignment, request)
    old.arrived(SimpleNamespace(topics=[("frames", [(0, 0, 5, b"records")])]))
    state.timestamp = 8  # as the client does where it applies an answer
    assert old.answered(note) == [tp]
    assert old.records == {tp: b"records"}
    if not fails:
        new.arrived(SimpleNamespace(topics=[("frames", [(0, 6, -1, None)])]))
    assert new.answered(note) == []
    assert (state.timestamp, notes) == (8, [(3, 5, 5)])
