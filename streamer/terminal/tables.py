"""Tables of results, search hits and dead letters, and how names and times are printed. All fit 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from streamer.result import Result, decision
from streamer.terminal.presence import Presence

if TYPE_CHECKING:  # their modules load slowly
    from streamer.broker.deadletters import DeadLetter
    from streamer.retrieval.search import Hit
    from streamer.sinks.letters import Letter
    from streamer.store.descriptions import Description

CLOSED_STYLE = {"complete": "green", "deadline": "yellow", "end": "blue", "memory": "red", "open": "italic"}
STATUS_STYLE = {"failed": "red", "empty": "dim"}
LEAST_NAME = 8  # characters of a session's name
HIT_COLUMNS = 52  # characters of all columns of a hit but the session's name and the frame
MOST_PLACE = 24  # characters of a frame's file before it is wrapped


def plain(*names: str, gap: int = 1) -> Table:
    """An empty table without lines, with columns of these names that are not wrapped."""
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0), header_style="bold", caption_justify="left")
    for name in names:
        table.add_column(name, no_wrap=True)
    return table


def facts() -> Table:
    """An empty table of names and values, without headings."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    return table


def listing(results: Iterable[Result]) -> Table:
    """Results of one session as a table."""
    table, shown = plain(), list(results)
    presence = Presence(shown)
    add_result_columns(table, presence, whole=True)
    for result in shown:
        table.add_row(*cells(result, presence))
    table.caption = presence.legend or None
    return table


def descriptions(found: Iterable[Description]) -> Table:
    """Descriptions of one session as a table; a note stands below its sentence."""
    table = plain(f"window {zone()}")
    table.add_column("shows")
    for one in found:
        text = Text(printable(one.text))
        if one.note:
            text.append(f"\n({printable(one.note)})", style="dim")
        table.add_row(clock(one.start_us), text)
    return table


def hits(found: Sequence[Hit], width: int) -> Table:
    """Windows that a search found, as a table of at most this many characters.

    The frame is the file it was written to, else its partition and offset in the topic that the caption names.
    """
    places = [_place(hit) for hit in found]
    place_width = min(MOST_PLACE, max(map(len, places), default=0))
    name_width = max(LEAST_NAME, width - HIT_COLUMNS - place_width)
    table = plain()
    table.add_column("alike", justify="right", no_wrap=True)
    table.add_column(f"window {zone()}", no_wrap=True)
    table.add_column("session", overflow="ellipsis", no_wrap=True, max_width=name_width)
    words = any(hit.score is None and " " in hit.label for hit in found)  # which are worth more than one line
    table.add_column("decision", no_wrap=not words, overflow="fold" if words else "ellipsis", max_width=18)
    table.add_column("score", justify="right", no_wrap=True)
    table.add_column("frame", overflow="fold")
    for hit, place in zip(found, places, strict=True):
        table.add_row(
            f"{hit.similarity:.3f}",
            moment(hit.start_us),
            Text(printable(hit.session)),
            Text(printable(hit.label)),
            "" if hit.score is None else f"{hit.score:.2f}",
            Text(printable(place)),
        )
    if topics := {hit.frame.topic for hit in found if hit.frame and not hit.thumbnail}:
        table.caption = f"frame: partition/offset in {', '.join(topics)}"
    return table


def _place(hit: Hit) -> str:
    return hit.thumbnail or ("" if hit.frame is None else f"{hit.frame.partition}/{hit.frame.offset}")


def letters(dead: Iterable[DeadLetter]) -> Table:
    """Dead letters as a table."""
    table = plain(f"time {zone()}", "from", "reason")
    table.add_column("detail")
    for letter in dead:
        first = "" if letter.first_offset in (None, letter.offset) else f"{letter.first_offset}-"  # of a batch
        origin = f"{letter.topic}/{letter.partition}/{first}{letter.offset}"
        table.add_row(clock(letter.log_time_us), origin, letter.reason, Text(printable(letter.detail)))
    return table


def refused(letters: Iterable[Letter]) -> Table:
    """Results that a receiver refused, as a table."""
    table = plain(f"time {zone()}", "reason")
    table.add_column("window", overflow="fold")
    for letter in letters:
        table.add_row(clock(letter.refused_us), Text(printable(letter.reason)), Text(printable(letter.id)))
    return table


def add_result_columns(table: Table, presence: Presence, *, whole: bool = False) -> None:
    """The columns of :func:`cells`.

    Args:
        presence: Of all results of the table.
        whole: Wrap long decisions, such as a window in words, instead of cutting them off.
    """
    table.add_column(f"window {zone()}", no_wrap=True, min_width=8)
    if whole:
        table.add_column("decision", overflow="fold", min_width=14)
    else:
        table.add_column("decision", no_wrap=True, overflow="ellipsis", min_width=14, max_width=18)
    table.add_column("score", justify="right", no_wrap=True)
    presence.add_columns(table)
    table.add_column("closed", no_wrap=True, min_width=8)
    table.add_column("ms", justify="right", no_wrap=True, min_width=4)


def cells(result: Result, presence: Presence, right: bool | None = None) -> list[Text]:
    """The columns of a result, after the session's name."""
    label, score = decision(result)
    mark, style = {None: ("", "" if result.final else "italic"), True: ("✓", "green"), False: ("✗", "red")}[right]
    return [
        Text(clock(result.start_us)),
        Text(f"{printable(label)}{' ' if mark else ''}{mark}", style=STATUS_STYLE.get(result.status, style)),
        Text("" if score is None else f"{score:.2f}"),
        *presence.cells(result),
        Text(result.closed_by, style=CLOSED_STYLE.get(result.closed_by, "")),
        Text(f"{result.latencies_us.get('total', 0) / 1000:.0f}"),
    ]


def printable(text: str) -> str:
    """Text from a producer, without characters that could control the terminal."""
    return "".join(char if char.isprintable() else "�" for char in text)


def clock(time_us: int) -> str:
    """Time of day, in this machine's zone."""
    return datetime.fromtimestamp(time_us / 1e6).strftime("%H:%M:%S")


def moment(time_us: int) -> str:
    """Date and time of day, in this machine's zone."""
    return datetime.fromtimestamp(time_us / 1e6).strftime("%Y-%m-%d %H:%M:%S")


def zone() -> str:
    """This machine's zone for headings: ``UTC``, or its offset from UTC such as ``+02:00``."""
    offset = datetime.now().astimezone().isoformat()[-6:]
    return "UTC" if offset == "+00:00" else offset
