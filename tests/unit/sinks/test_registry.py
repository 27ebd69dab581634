"""Sinks by entry points, also those of others."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from streamer.errors import UsageError
from streamer.result import Result
from streamer.sinks import registry
from streamer.sinks.sink import AtLeastOnce, Sink


class Printer(AtLeastOnce):
    """A sink of somebody else."""

    async def deliver(self, session: str, results: Sequence[Result]) -> None:
        print(session, len(results))


NO_SINK = object()


@pytest.fixture(autouse=True)
def _others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points of a package that is not installed here."""
    there = metadata.entry_points

    def with_theirs(**wanted: str) -> EntryPoints:
        named = {"printer": f"{__name__}:Printer", "none": f"{__name__}:NO_SINK", "gone": f"{__name__}:Gone"}
        named["absent"] = "a_package_that_is_not_there:Sink"
        theirs = EntryPoints(EntryPoint(name, value, registry.GROUP) for name, value in named.items())
        return EntryPoints([*there(**wanted), *theirs.select(**wanted)])  # type: ignore[arg-type]

    monkeypatch.setattr(registry, "entry_points", with_theirs)


def test_ours_and_those_of_others_are_known() -> None:
    assert {"kafka", "webhook", "parquet", "printer"} <= set(registry.known())
    assert all(issubclass(registry.find(name), Sink) for name in ("kafka", "webhook", "parquet"))
    assert registry.find("printer") is Printer


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mqtt", "there is no sink 'mqtt'; known: .*kafka.*webhook"),
        ("none", "is no class that derives from"),
        ("gone", "cannot be imported"),
        ("absent", "needs a_package_that_is_not_there"),
    ],
)
def test_what_is_no_sink_is_refused_in_one_line(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        registry.find(name)
