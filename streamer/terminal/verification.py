"""What ``streamer verify`` found, for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streamer.golden.compare import Difference
from streamer.golden.verify import Report, Summary
from streamer.terminal.tables import clock, facts, plain, printable, zone

SHOWN = 20
VALUE_CHARACTERS = 40


def view(report: Report, shown: int = SHOWN) -> RenderableType:
    """The first differences as a table, and the summary below."""
    parts: list[RenderableType] = []
    if report.differences:
        parts += [_table(report.differences[:shown])]
        if len(report.differences) > shown:
            parts.append(f"and {len(report.differences) - shown} more differences")
        parts.append("")
    return Group(*parts, _facts(report))


def _table(found: Iterable[Difference]) -> Table:
    table = plain(f"window {zone()}", "session", gap=2)
    for name in ("difference", "expected", "found"):
        table.add_column(name)
    for difference in found:
        table.add_row(
            clock(difference.start_us),
            Text(printable(difference.session)),
            Text(printable(f"{difference.kind} {difference.where}".strip())),
            Text(_shown(difference.expected)),
            Text(_shown(difference.found)),
        )
    return table


def _shown(value: object) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return printable(text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…")


def _facts(report: Report) -> Table:
    summary = report.summary
    table = facts()
    table.add_row("recording", _recording_line(summary))
    table.add_row("windows", _windows_line(summary))
    if summary.kinds:
        table.add_row("differences", _counts(summary.kinds))
    table.add_row("late events", str(summary.late))
    table.add_row("repeated events", str(summary.repeated))
    table.add_row("refused", _counts(Counter(summary.refused) + Counter(summary.broken)) or "0")
    table.add_row("model", _models_line(summary))
    return table


def _recording_line(summary: Summary) -> str:
    line = f"{summary.records:,} records of {summary.sessions} sessions{', cut off' if summary.cut_off else ''}"
    return f"{line}; {summary.elsewhere} sessions of the reference are not in it" if summary.elsewhere else line


def _windows_line(summary: Summary) -> Text:
    if not summary.compared:
        return Text(str(summary.windows))
    line = Text(f"{summary.same} of {summary.compared} are the same", "green" if not summary.kinds else "red")
    if summary.unsure or summary.open:
        line.append(f"; not compared: {summary.unsure} at the recording's start, {summary.open} at its end", "default")
    return line


def _models_line(summary: Summary) -> str:
    run, others = summary.models["run"], summary.models["reference"]
    return run[0] if not others or others == run else f"{run[0]}; the reference is of {', '.join(others)}"


def _counts(counts: dict[str, int]) -> str:
    return "  ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))
