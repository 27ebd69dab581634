"""The live board: a row for each session, with its newest window.

The table fits 80 columns. How it shows the sensors of a window: :mod:`streamer.terminal.presence`.
"""

from __future__ import annotations

from collections.abc import Iterable
from textwrap import wrap

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from streamer.result import Result
from streamer.terminal.presence import Presence
from streamer.terminal.tables import LEAST_NAME, add_result_columns, cells, plain, printable, zone

REFRESH_HZ = 4.0
LEGEND_COLUMNS = 60  # characters of a line of the legend, which is no wider than the table
FIXED_COLUMNS = 45  # characters of all columns but the session's name, the zone and the sensors


class Board:
    """The newest result of each session, as something that rich can render.

    It takes the width and height of the terminal: long names are cut, and of too many sessions the latest are shown.
    """

    def __init__(self, reserved_lines: int = 3) -> None:
        self.windows = 0
        self._reserved_lines = reserved_lines
        self._rows: dict[str, tuple[Result, bool | None]] = {}  # least recently heard first

    def update(self, result: Result, right: bool | None = None) -> None:
        """Show a result, unless that of a newer window is shown: an early one, while this one closes.

        Args:
            right: Whether its decision is right; ``None`` if the truth is not known.
        """
        self.windows += result.final
        shown = self._rows.get(result.session)
        if shown is not None and not shown[0].final and shown[0].end_us > result.end_us:
            return
        self._rows.pop(result.session, None)
        self._rows[result.session] = (result, right)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table(options.max_width, max(1, options.size.height - self._reserved_lines))

    def table(self, width: int, height: int) -> Table:
        """The board as a table of at most this many characters and rows."""
        presence = Presence(result for result, _ in list(self._rows.values())[-height:])
        legend_lines = len(wrap(presence.legend, LEGEND_COLUMNS))
        shown = sorted(list(self._rows.items())[-max(1, height - legend_lines) :])
        name_width = max(LEAST_NAME, width - FIXED_COLUMNS - presence.width - len(zone()))
        hidden = len(self._rows) - len(shown)
        table = plain()
        more = f"and {hidden} more sessions" if hidden else "" if shown else "no new results yet"
        table.caption = "\n".join(filter(None, (more, presence.legend))) or None
        table.add_column("session", no_wrap=True, overflow="ellipsis", max_width=name_width)
        add_result_columns(table, presence)
        for session, (result, right) in shown:
            table.add_row(Text(printable(session)), *cells(result, presence, right))
        return table


def show(results: Iterable[Result | None], console: Console) -> None:
    """Show results as they come, until they end or the user interrupts; ``None`` if there is none for a while."""
    board = Board()
    with Live(board, console=console, refresh_per_second=REFRESH_HZ):
        for result in results:
            if result is not None:
                board.update(result)
