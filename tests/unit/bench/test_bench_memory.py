"""What the benchmark of starts reports; nothing is started."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import memory
from bench.memory import Side, Start
from bench.rig import ROOT, Spread
from streamer.errors import Stop
from streamer.settings import Settings

MIB = 1 << 20


def test_another_tree_is_compared_round_by_round_with_its_commands_and_the_aims(tmp_path: Path) -> None:
    sides = [Side("before", tmp_path, "align"), Side("role align", ROOT, "align")]
    starts = {
        "before": [Start(600 * MIB, 4.0), Start(500 * MIB, 2.0)],
        "role align": [Start(60 * MIB, 1.0), Start(100 * MIB, 1.0)],
    }
    walls = {}
    for command in memory.COMMANDS:
        walls[command[0], "before"], walls[command[0], "role align"] = [2.0, 2.0], [1.0, 0.5]
    found = {figure.name: figure for figure in memory.figures(sides, starts, walls)}
    resident = found["role align ÷ before, resident when ready"]
    assert (resident.spread, resident.aim) == (Spread.of([0.1, 0.2]), 0.2)
    assert found["role align ÷ before, CPU until ready"].spread == Spread.of([0.25, 0.5])
    assert found["`streamer status`, now ÷ before"].spread == Spread.of([0.5, 0.25])


def test_roles_of_one_tree_are_compared_without_its_commands() -> None:
    sides = [Side("role all", ROOT, "all"), Side("role align", ROOT, "align")]
    starts = {"role all": [Start(600 * MIB, 4.0)], "role align": [Start(60 * MIB, 1.0)]}
    found = memory.figures(sides, starts, {})
    assert [figure.name for figure in found if not figure.unit] == [
        "role align ÷ role all, resident when ready",
        "role align ÷ role all, CPU until ready",
    ]
    assert {figure.aim for figure in found} == {None}


def test_a_command_that_fails_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Stop, match=r"streamer status of .* ended with code 1"):
        memory.wall_s(Settings(), ROOT, ["status"])
