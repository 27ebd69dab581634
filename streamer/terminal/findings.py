"""What ``streamer doctor`` found, for a terminal."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from streamer.operate.findings import Finding

STYLES = {"ok": "green", "warn": "yellow", "FAIL": "bold red"}


def line(finding: Finding) -> Table:
    """A finding, wrapped to the width of the terminal; the remedy begins a line, so that it is seen."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=4)
    grid.add_column(width=7)
    grid.add_column(overflow="fold")
    grid.add_row(Text(str(finding.status), STYLES[finding.status]), finding.check, Text(finding.found))
    if finding.remedy:
        grid.add_row("", Text("→", justify="right"), Text(finding.remedy))
    return grid
