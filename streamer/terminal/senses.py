"""Pretrained networks as a table, and what to say before one is fetched. Fits 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from streamer.senses.table import NO_LICENCE
from streamer.terminal.tables import plain, printable

if TYPE_CHECKING:
    from streamer.senses.listing import Line
    from streamer.senses.table import Row

STYLES = {"in use": "green", "ready": "", "missing": "dim", "changed": "red"}
WIDTH = 80


def table(lines: Sequence[Line]) -> Table:
    """The networks by role, and which of them takes it."""
    shown = plain("role", gap=2)
    shown.add_column("name", no_wrap=True, overflow="ellipsis", max_width=26)
    shown.add_column("state", no_wrap=True)
    shown.add_column("MB", justify="right", no_wrap=True)
    shown.add_column("licence", no_wrap=True)
    shown.add_column("comes by", no_wrap=True)
    for line in lines:
        state = "in use" if line.in_use and line.state == "ready" else line.state
        shown.add_row(
            line.role,
            Text(printable(line.name)),
            Text(state, STYLES[state]),
            "" if line.bytes is None else f"{line.bytes / 1e6:.0f}",
            line.licence,
            "setting" if line.bytes is None else "extra" if line.extra else "--fetch",
        )
    return shown


def notes(lines: Sequence[Line]) -> Iterator[str]:
    """What to do about networks that are missing or changed."""
    missing = [line for line in lines if line.state == "missing" and line.bytes is not None]
    if any(line.extra for line in missing):
        yield "extra: pip install 'streamer-multimodal[senses]' brings it"
    if missing:
        yield "--fetch: streamer senses --fetch NAME downloads it, any of the table"
    for line in lines:
        if line.trouble:
            yield line.trouble
        elif line.state == "changed":
            yield f"{line.name}: a file is not the known one; streamer senses --fetch {line.name} gets that"


def about(row: Row) -> str:
    """What to know before a network is downloaded: what it is, whose, how large, under which licence."""
    packages = ", ".join(f"{package.name} {package.version}" for package in row.packages)
    licence = (
        row.licence if row.licence != NO_LICENCE else f"{NO_LICENCE}, so whether you may use it is yours to find out"
    )
    text = f"{row.name}: {packages}, {row.wheel_bytes / 1e6:.1f} MB, by {row.maker}. Licence: {licence}."
    return textwrap.fill(text, WIDTH)
