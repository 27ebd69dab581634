"""How a table of results shows which sensors a window had, and how much of it they cover, in few characters.

img aud txt tel    the four that are there without a word in the settings: percent
100  83   –  95

dashcam mic        up to four of other names, or of letters where the names are too long
    100   –

abcdefghijk        more: a bar for each, and a legend that says whose the letters are
██▆██–█▇ ▂█

sensors            very many: how many are present
  58/64
"""

from __future__ import annotations

from collections.abc import Iterable
from math import ceil
from string import ascii_lowercase

from rich.table import Table
from rich.text import Text

from streamer.result import Result

HEADINGS = {"image": "img", "audio": "aud", "text": "txt", "telemetry": "tel"}
MOST_COLUMNS, LEAST_WIDTH = 4, 3
MOST_BARS = 21  # 80 columns have so many characters left
BARS = "▁▂▃▄▅▆▇█"  # an eighth each
NEARLY_ALL = 0.9  # of a window; less is coloured


class Presence:
    """The columns of all sensors that some results name, in the order in which the newest one has them.

    Attributes:
        names: The sensors.
        width: Characters that the columns take, with the gap behind each.
        legend: Which letter stands for which sensor; empty where the headings say it.
    """

    def __init__(self, results: Iterable[Result]) -> None:
        newest_first = sorted(results, key=lambda result: result.end_us, reverse=True)
        self.names = tuple(dict.fromkeys(name for result in newest_first for name in result.coverage))
        count, letters = len(self.names), ascii_lowercase[: len(self.names)]
        self._columns, self._bars = count <= MOST_COLUMNS, count <= MOST_BARS
        whole = [HEADINGS.get(name, name) for name in self.names]
        fits = self._columns and sum(map(len, whole)) + count - 1 <= MOST_BARS
        self._headings = (whole if fits else [*letters]) if self._columns else [letters if self._bars else "sensors"]
        self.width = sum(max(LEAST_WIDTH, len(heading)) + 1 for heading in self._headings)
        self.legend = ""
        if self._bars and not fits:
            self.legend = "  ".join(f"{letter}={name}" for letter, name in zip(letters, self.names, strict=True))

    def add_columns(self, table: Table) -> None:
        """Add what :meth:`cells` fills."""
        for heading in self._headings:
            width = max(LEAST_WIDTH, len(heading))
            table.add_column(heading, justify="right", no_wrap=True, min_width=width)

    def cells(self, result: Result) -> list[Text]:
        """Of each sensor the share of the window that it covers; a dash: absent; blank: the window has no such one."""
        if self._columns:
            return [_percent(result, name) for name in self.names]
        if self._bars:
            return [Text.assemble(*(_bar(result, name) for name in self.names))]
        missing = len(result.present) < len(result.coverage)
        return [Text(f"{len(result.present)}/{len(result.coverage)}", style="yellow" if missing else "")]


def _percent(result: Result, name: str) -> Text:
    if name not in result.present:
        return _absent(result, name)
    share = result.coverage[name]
    return Text(f"{100 * share:.0f}", style=_style(share))


def _bar(result: Result, name: str) -> Text:
    if name not in result.present:
        return _absent(result, name)
    share = result.coverage[name]
    return Text(BARS[max(1, ceil(share * len(BARS))) - 1], style=_style(share))


def _absent(result: Result, name: str) -> Text:
    return Text("–" if name in result.coverage else " ", style="dim")


def _style(share: float) -> str:
    return "" if share > NEARLY_ALL else "yellow"
