"""Live views of results in a terminal: a row a session, newest window last seen.

The table fits 80 columns. Modalities are shown by the share of the window that they cover, in percent; a dash says that
a modality was absent.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from streamer.broker.deadletters import DeadLetter
from streamer.events import MODALITY_NAMES
from streamer.feeds import Outgoing
from streamer.result import Result, decision

if TYPE_CHECKING:  # they need what is optional, or import this module
    from streamer.golden.record import Outcome
    from streamer.golden.recording import Recorded
    from streamer.retrieval.mirror import Update
    from streamer.retrieval.search import Hit

HEADINGS = {"image": "img", "audio": "aud", "text": "txt", "telemetry": "tel"}
CLOSED_STYLE = {"complete": "green", "deadline": "yellow", "end": "blue", "memory": "red"}
REFRESH_HZ = 4.0
FIXED_COLUMNS = 62  # characters of all columns but the session's name
LEAST_NAME = 8


class Board:
    """The newest result of each session, as something that rich can render.

    It takes the width and height that there are: long names are cut, and of too many sessions those heard of last are
    shown.
    """

    def __init__(self, reserved_lines: int = 3) -> None:
        self.windows = 0
        self._reserved_lines = reserved_lines
        self._rows: dict[str, tuple[Result, bool | None]] = {}  # least recently heard first

    def update(self, result: Result, right: bool | None = None) -> None:
        """Show a result.

        Args:
            right: Whether its decision is what it should be; None: nobody knows.
        """
        self.windows += 1
        self._rows.pop(result.session, None)
        self._rows[result.session] = (result, right)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self.table(options.max_width, max(1, options.size.height - self._reserved_lines))

    def table(self, width: int, height: int) -> Table:
        """The board as a table of at most so many characters and rows."""
        shown = sorted(list(self._rows.items())[-height:])
        hidden = len(self._rows) - len(shown)
        table = _table()
        table.caption = f"and {hidden} more sessions" if hidden else None if shown else "no new results yet"
        table.add_column("session", no_wrap=True, overflow="ellipsis", max_width=max(LEAST_NAME, width - FIXED_COLUMNS))
        _add_result_columns(table)
        for session, (result, right) in shown:
            table.add_row(Text(printable(session)), *cells(result, right))
        return table


class _Bar:
    """Progress that is shown for as long as a context is open."""

    _progress: Progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


class Sending(_Bar):
    """A bar that shows how far a feed has been sent.

    Args:
        length_us: Of the feed.
    """

    def __init__(self, console: Console, length_us: int) -> None:
        self._progress = Progress(
            TextColumn("sending"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} % · {task.fields[records]:,} records ·"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("sending", total=length_us, records=0)
        self._first_us: int | None = None
        self._records = 0

    def sent(self, outgoing: Outgoing) -> None:
        """A record is on its way."""
        self._reached(outgoing.due_us)

    def sent_again(self, record: Recorded) -> None:
        """A record of a recording is on its way."""
        self._reached(record.log_time_us)

    def _reached(self, at_us: int) -> None:
        self._records += 1
        if self._first_us is None:
            self._first_us = at_us
        self._progress.update(self._task, completed=at_us - self._first_us, records=self._records)


class Recording(_Bar):
    """Says how much has been recorded; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        columns = "recording", "{task.fields[records]:,} records", "{task.fields[mb]:,.1f} MB", "{task.fields[upto]}"
        self._progress = Progress(TextColumn(" · ".join(columns)), TimeElapsedColumn(), console=console)
        self._task = self._progress.add_task("recording", total=None, records=0, mb=0.0, upto="no records yet")

    def recorded(self, so_far: Outcome) -> None:
        """So much is in the file."""
        upto = f"up to {clock(so_far.last_us)}" if so_far.records else "no records yet"
        self._progress.update(self._task, records=so_far.records, mb=so_far.nbytes / 1e6, upto=upto)


class Verifying(_Bar):
    """Says how many windows have been verified; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("verifying · {task.completed:,} windows ·"), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("verifying", total=None)

    def done(self, windows: int) -> None:
        """So many windows are done."""
        self._progress.update(self._task, completed=windows)


class Indexing(_Bar):
    """Says how many results have been read into a search index; use it as a context manager."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("{task.description} ·"), BarColumn(), TextColumn("{task.fields[shown]} ·")
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console)
        self._task = self._progress.add_task("indexing", total=None, shown="no results yet")

    def updated(self, so_far: Update) -> None:
        """So much has been read."""
        shown = f"{so_far.read:,} results of {so_far.sessions:,} of {so_far.of:,} sessions"
        self._progress.update(self._task, total=so_far.of, completed=so_far.sessions, shown=shown)

    def built(self, done: int, total: int) -> None:
        """So many vectors of so many are in a graph."""
        shown = f"{done:,} of {total:,} vectors"
        self._progress.update(self._task, description="building the graph", total=total, completed=done, shown=shown)


def hits(found: Iterable[Hit]) -> Table:
    """Windows that a search found as a table; the frame is the file it was written to, or its place in Kafka."""
    table = _table()
    table.add_column("alike", justify="right", no_wrap=True)
    table.add_column("time", no_wrap=True, min_width=24)
    table.add_column("session", overflow="ellipsis", no_wrap=True, min_width=LEAST_NAME)
    table.add_column("decision", no_wrap=True, overflow="ellipsis", max_width=18)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("frame", overflow="fold")
    for hit in found:
        place = "" if hit.frame is None else f"{hit.frame.topic}/{hit.frame.partition}/{hit.frame.offset}"
        table.add_row(
            f"{hit.similarity:.3f}",
            hit.time,
            Text(printable(hit.session)),
            Text(printable(hit.label)),
            "" if hit.score is None else f"{hit.score:.2f}",
            Text(printable(hit.thumbnail or place)),
        )
    return table


def listing(results: Iterable[Result]) -> Table:
    """Results of one session as a table."""
    table = _table()
    _add_result_columns(table)
    for result in results:
        table.add_row(*cells(result))
    return table


def letters(dead: Iterable[DeadLetter]) -> Table:
    """Dead letters as a table."""
    table = _table()
    for name in ("time", "from", "reason"):
        table.add_column(name, no_wrap=True)
    table.add_column("detail")
    for letter in dead:
        origin = f"{letter.topic}/{letter.partition}/{letter.offset}"
        table.add_row(clock(letter.log_time_us), origin, letter.reason, Text(printable(letter.detail)))
    return table


def _table() -> Table:
    return Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", caption_justify="left")


def _add_result_columns(table: Table) -> None:
    table.add_column("window", no_wrap=True, min_width=8)
    table.add_column("decision", no_wrap=True, overflow="ellipsis", min_width=14, max_width=18)
    table.add_column("score", justify="right", no_wrap=True)
    for name in MODALITY_NAMES:
        table.add_column(HEADINGS.get(name, name[:3]), justify="right", no_wrap=True, min_width=3)
    table.add_column("closed", no_wrap=True, min_width=8)
    table.add_column("ms", justify="right", no_wrap=True, min_width=4)


def cells(result: Result, right: bool | None = None) -> list[Text]:
    """The columns of a result, after the session's name."""
    label, score = decision(result)
    mark, style = {None: ("", ""), True: ("✓", "green"), False: ("✗", "red")}[right]
    return [
        Text(clock(result.start_us)),
        Text(f"{printable(label)}{' ' if mark else ''}{mark}", style="red" if result.status == "failed" else style),
        Text("" if score is None else f"{score:.2f}"),
        *(_coverage(result, name) for name in MODALITY_NAMES),
        Text(result.closed_by, style=CLOSED_STYLE.get(result.closed_by, "")),
        Text(f"{result.latencies_us.get('total', 0) / 1000:.0f}"),
    ]


def _coverage(result: Result, name: str) -> Text:
    if name not in result.present:
        return Text("–", style="dim")
    share = result.coverage.get(name, 0.0)
    return Text(f"{100 * share:.0f}", style="" if share > 0.9 else "yellow")


def printable(text: str) -> str:
    """Names come from producers: nothing in them may steer the terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def clock(time_us: int) -> str:
    """Time of day of an event time, in this machine's zone."""
    return datetime.fromtimestamp(time_us / 1e6).strftime("%H:%M:%S")


def show(results: Iterable[Result | None], console: Console) -> None:
    """Show results as they come, until there are no more or the user interrupts; None says that it waits."""
    board = Board()
    with Live(board, console=console, refresh_per_second=REFRESH_HZ):
        for result in results:
            if result is not None:
                board.update(result)
