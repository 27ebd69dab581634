"""What ``streamer size`` worked out, for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streamer.operate.costs import Costs
from streamer.operate.sizing import Size, shown


def view(found: Size, costs: Costs) -> RenderableType:
    """The numbers, each with its basis below, and the warnings."""
    table = Table.grid(padding=(0, 2))
    table.add_column(justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for line in found.lines():
        table.add_row(Text(shown(line), "bold"), Text.assemble((line.name, "bold"), "\n", (line.basis, "dim")))
    source = (
        f"Measured by `{costs.command}`, {costs.at}, on {costs.machine}, streamer {costs.versions['streamer']}. What "
        f"was not fitted was predicted at {costs.check.low:.2f} to {costs.check.high:.2f} of what was measured."
    )
    return Group(table, "", Text(source), *(Text(f"warning: {line}", "yellow") for line in found.warnings))
