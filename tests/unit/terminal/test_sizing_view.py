from __future__ import annotations

from streamer.operate import costs, sizing
from streamer.settings import Settings
from streamer.terminal.sizing import view
from tests.terminals import lines


def test_a_size_fits_80_columns_with_each_number_beside_its_name_and_above_its_basis() -> None:
    measured = costs.load()
    found = sizing.size(sizing.Demand(50, 10, 200, 1000), measured, Settings.model_construct())
    shown = [line.rstrip() for line in lines(view(found, measured), height=100)]
    assert max(map(len, shown)) <= 80
    text = " ".join(" ".join(shown).split())
    for line in found.lines():
        (row,) = (number for number, text in enumerate(shown) if text.endswith(f"  {line.name}"))
        assert shown[row].split()[0] == sizing.shown(line)
        assert line.basis.split()[0] in shown[row + 1]
        assert line.basis in text
    assert [warning for warning in found.warnings if f"warning: {warning}" not in text] == []
