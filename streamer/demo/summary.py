"""What a run achieved: results compared with what the source data requires. Pure arithmetic.

The expected windows and their labels come from the drives, not from the worker, so that a lost window is noticed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streamer.demo.listening import Heard
from streamer.result import Result, first, in_words
from streamer.terminal.tables import facts, plain


class Expected(NamedTuple):
    """A window that is entirely inside a drive; label ``None`` if the truth decides on none."""

    session: str
    start_us: int
    end_us: int
    label: str | None


class Percentiles(msgspec.Struct, frozen=True):
    """Median and 99th percentile, in milliseconds."""

    p50: float
    p99: float


class Summary(msgspec.Struct, frozen=True):
    """The outcome of a run.

    Attributes:
        windows: Results in Redis.
        expected_windows, lost_windows: Windows entirely inside their drive, and those of them without a result.
        judged_windows: Windows with a known result and truth, over which accuracy and macro F1 are computed.
        accuracy, macro_f1: Against the truth; ``None`` if nothing could be judged.
        closed_by: Why windows closed -> how many.
        failed_windows: Results without a prediction, because the model raised.
        present: Sensor -> share of the windows in which it was present.
        latency_ms: Stage -> time that a window spent in it. ``merge`` is from the log time at which it closed to its
            closing; ``align`` from the broker's append of its newest record to its closing, so it contains merge and
            the waiting for slow sensors; ``total`` is from there to publication.
        seconds: Wall time from the first record sent to the last result seen.
        heard: How much was heard of what the drives said; ``None`` where they came with their words.
    """

    windows: int
    expected_windows: int
    lost_windows: int
    judged_windows: int
    accuracy: float | None
    macro_f1: float | None
    closed_by: dict[str, int]
    failed_windows: int
    dead_letters: int
    late_events: int
    present: dict[str, float]
    latency_ms: dict[str, Percentiles]
    records: int
    records_per_s: float
    windows_per_s: float
    sessions: int
    seconds: float
    model: str
    version: str
    heard: Heard | None = None

    @property
    def clean(self) -> bool:
        """Whether nothing was lost and nothing failed."""
        return self.windows > 0 and not (self.lost_windows or self.dead_letters or self.failed_windows)


def summarise(
    results: Sequence[Result],
    expected: Iterable[Expected],
    *,
    records: int,
    dead_letters: int,
    late_events: int,
    seconds: float,
    heard: Heard | None = None,
) -> Summary:
    """Compare results with what must be there."""
    expected = list(expected)
    found = {(result.session, result.end_us): result for result in results}
    pairs = [
        (window.label, in_words(first(found[key])))
        for window in expected
        if (key := (window.session, window.end_us)) in found and window.label is not None
    ]
    newest = max(results, key=lambda result: result.end_us, default=None)
    return Summary(
        windows=len(results),
        expected_windows=len(expected),
        lost_windows=sum((window.session, window.end_us) not in found for window in expected),
        judged_windows=len(pairs),
        accuracy=sum(truth == said for truth, said in pairs) / len(pairs) if pairs else None,
        macro_f1=macro_f1(pairs),
        closed_by=dict(Counter(result.closed_by for result in results)),
        failed_windows=sum(result.status == "failed" for result in results),
        dead_letters=dead_letters,
        late_events=late_events,
        present={
            name: sum(name in result.present for result in results) / len(results)
            for name in dict.fromkeys(name for result in results for name in result.coverage)
        },
        latency_ms=latencies(results),
        records=records,
        records_per_s=round(records / seconds, 2),
        windows_per_s=round(len(results) / seconds, 2),
        sessions=len({window.session for window in expected}),
        seconds=round(seconds, 2),
        model=newest.model if newest else "",
        version=newest.version if newest else "",
        heard=heard,
    )


def macro_f1(pairs: Iterable[tuple[str, str]]) -> float | None:
    """Mean F1 over the labels of the truth; ``None`` without any.

    Args:
        pairs: (truth, prediction) of each window.
    """
    pairs = list(pairs)
    labels = {truth for truth, _ in pairs}
    if not labels:
        return None
    hits = Counter(truth for truth, said in pairs if truth == said)
    truths, said = Counter(truth for truth, _ in pairs), Counter(said for _, said in pairs)
    # F1 = 2 TP / (2 TP + FP + FN), and TP + FN = truths, TP + FP = said
    return sum(2 * hits[label] / (truths[label] + said[label]) for label in labels) / len(labels)


def latencies(results: Iterable[Result]) -> dict[str, Percentiles]:
    """Percentiles of each stage's time over all results, in the order of the stages."""
    stages: dict[str, list[int]] = defaultdict(list)
    for result in results:
        for stage, us in result.latencies_us.items():
            stages[stage].append(us)
    return {
        stage: Percentiles(*(round(float(p), 2) for p in np.percentile(us, (50, 99)) / 1000))
        for stage, us in stages.items()
    }


def as_json(summary: Summary) -> bytes:
    """The summary for scripts, indented, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n"


def view(summary: Summary) -> RenderableType:
    """The summary for people, within 80 columns."""
    table = facts()
    table.add_row("windows", _windows_line(summary))
    table.add_row("closed by", _shares(summary.closed_by, summary.windows))
    table.add_row("accuracy", _accuracy_line(summary))
    if summary.heard is not None:
        heard = f"{summary.heard.said_words} words said aloud, {summary.heard.error_rate:.0%} word error rate"
        table.add_row("heard", heard)
    table.add_row("dead letters", Text(str(summary.dead_letters), style="red" if summary.dead_letters else ""))
    table.add_row("late events", str(summary.late_events))
    table.add_row(
        "throughput",
        f"{summary.windows_per_s:.1f} windows/s, {summary.records_per_s:,.0f} records/s, at the feeds' pace",
    )
    present = [f"{name} {share:.0%}" for name, share in summary.present.items()]
    table.add_row("present", Columns(present, padding=(0, 2, 0, 0)))
    table.add_row("model", f"{summary.model} {summary.version}")
    return Group(table, "", _latency_table(summary.latency_ms))


def _windows_line(summary: Summary) -> Text:
    line = Text(f"{summary.windows} results of {summary.sessions} sessions in {summary.seconds:.0f} s; ")
    line.append(
        f"{summary.lost_windows} of {summary.expected_windows} lost", "red" if summary.lost_windows else "green"
    )
    if summary.failed_windows:
        line.append(f"; {summary.failed_windows} failed in the model", "red")
    return line


def _accuracy_line(summary: Summary) -> str:
    if summary.accuracy is None or summary.macro_f1 is None:
        return "no window with known truth"
    return (
        f"{summary.accuracy:.1%} of {summary.judged_windows} windows with known truth, macro F1 {summary.macro_f1:.3f}"
    )


def _shares(counts: Mapping[str, int], total: int) -> str:
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return "  ".join(f"{name} {count} ({count / total:.0%})" for name, count in ordered)


def _latency_table(latency_ms: Mapping[str, Percentiles]) -> Table:
    table = plain("latency, ms", gap=2)
    for stage in latency_ms:
        table.add_column(stage, justify="right", no_wrap=True)
    for name in ("p50", "p99"):
        table.add_row(name, *(f"{getattr(values, name):.1f}" for values in latency_ms.values()))
    return table
