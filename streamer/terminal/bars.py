"""Progress bars of commands that take long."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from streamer.feeds import Outgoing
from streamer.terminal.tables import clock, zone

if TYPE_CHECKING:  # they need optional packages
    from streamer.golden.record import Outcome
    from streamer.golden.recording import Recorded
    from streamer.retrieval.mirror import Update


class _Bar:
    """A context manager that shows progress while it is open."""

    _progress: Progress

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()


class Sending(_Bar):
    """A bar that shows how far a feed has been sent.

    Args:
        length_us: Length of the feed.
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
    """A line with how much has been recorded."""

    def __init__(self, console: Console) -> None:
        columns = "recording", "{task.fields[records]:,} records", "{task.fields[mb]:,.1f} MB", "{task.fields[upto]}"
        self._progress = Progress(TextColumn(" · ".join(columns)), TimeElapsedColumn(), console=console)
        self._task = self._progress.add_task("recording", total=None, records=0, mb=0.0, upto="no records yet")

    def recorded(self, so_far: Outcome) -> None:
        """This much is in the file."""
        upto = f"up to {clock(so_far.last_us)} {zone()}" if so_far.records else "no records yet"
        self._progress.update(self._task, records=so_far.records, mb=so_far.nbytes / 1e6, upto=upto)


class Verifying(_Bar):
    """A line with how many windows have been verified."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("verifying · {task.completed:,} windows ·"), TimeElapsedColumn()
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("verifying", total=None)

    def done(self, windows: int) -> None:
        """This many windows are done."""
        self._progress.update(self._task, completed=windows)


class Indexing(_Bar):
    """A bar that shows how far the results have been read into a search index."""

    def __init__(self, console: Console) -> None:
        columns = TextColumn("{task.description} ·"), BarColumn(), TextColumn("{task.fields[shown]} ·")
        self._progress = Progress(*columns, TimeElapsedColumn(), console=console)
        self._task = self._progress.add_task("indexing", total=None, shown="no results yet")

    def updated(self, so_far: Update) -> None:
        """This much has been read."""
        shown = f"{so_far.read:,} results of {so_far.sessions:,} of {so_far.of:,} sessions"
        self._progress.update(self._task, total=so_far.of, completed=so_far.sessions, shown=shown)

    def built(self, done: int, total: int) -> None:
        """This many of all vectors are in the graph."""
        shown = f"{done:,} of {total:,} vectors"
        self._progress.update(self._task, description="building the graph", total=total, completed=done, shown=shown)
