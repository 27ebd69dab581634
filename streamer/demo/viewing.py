"""What the senses found in a film: results, words, descriptions and speech, summed up. Pure arithmetic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from streamer.demo.summary import Expected, Percentiles, latencies
from streamer.result import Result
from streamer.retrieval.search import Hit
from streamer.terminal.tables import facts

MOST = 5  # of each kind in the summary for people


class Found(msgspec.Struct, frozen=True):
    """A window that the search found: seconds since the film's first window, and how alike it is."""

    second: float
    similarity: float


class Viewing(msgspec.Struct, frozen=True):
    """What was found in a film.

    Attributes:
        windows: Results in Redis.
        expected_windows, lost_windows: Windows entirely inside the film, and those of them without a result.
        objects, sounds: Label -> windows in which it was seen or heard.
        phrases: What was said in the film, one after the other.
        descriptions: Of each window, in order.
        said: What was said aloud.
        query: What the index was asked for: what was seen and heard most.
        hits: The windows that it found, best match first.
        latency_ms: Stage -> time that a window spent in it, see ``Summary``; it contains the waiting for words.
        seconds: Wall time from the first record sent to the last result seen.
    """

    session: str
    windows: int
    expected_windows: int
    lost_windows: int
    failed_windows: int
    dead_letters: int
    late_events: int
    objects: dict[str, int]
    sounds: dict[str, int]
    phrases: list[str]
    descriptions: list[str]
    said: list[str]
    query: str
    hits: list[Found]
    latency_ms: dict[str, Percentiles]
    records: int
    seconds: float
    model: str
    version: str

    @property
    def clean(self) -> bool:
        """Whether nothing was lost and nothing failed."""
        return self.windows > 0 and not (self.lost_windows or self.dead_letters or self.failed_windows)


def view_of(
    results: Sequence[Result],
    expected: Iterable[Expected],
    *,
    session: str,
    records: int,
    seconds: float,
    dead_letters: int,
    late_events: int,
    phrases: list[str],
    descriptions: list[str],
    said: list[str],
    query: str,
    hits: Sequence[Hit],
) -> Viewing:
    """Sum up a film; see :class:`Viewing`."""
    expected = list(expected)
    ends = {result.end_us for result in results}
    newest = max(results, key=lambda result: result.end_us, default=None)
    first_us = min((result.start_us for result in results), default=0)
    return Viewing(
        session=session,
        windows=len(results),
        expected_windows=len(expected),
        lost_windows=sum(window.end_us not in ends for window in expected),
        failed_windows=sum(result.status == "failed" for result in results),
        dead_letters=dead_letters,
        late_events=late_events,
        objects=dict(labels(results, "objects").most_common()),
        sounds=dict(labels(results, "sounds").most_common()),
        phrases=phrases,
        descriptions=descriptions,
        said=said,
        query=query,
        hits=[Found((hit.start_us - first_us) / 1e6, hit.similarity) for hit in hits],
        latency_ms=latencies(results),
        records=records,
        seconds=round(seconds, 2),
        model=newest.model if newest else "",
        version=newest.version if newest else "",
    )


def labels(results: Iterable[Result], output: str) -> Counter[str]:
    """In how many windows each label of an output was decided."""
    return Counter(label for result in results for label in result.outputs.get(output, {}).get("labels", ()))


def query(results: Sequence[Result]) -> str:
    """What was seen and heard most, as somebody would search for it; empty if nothing was."""
    most = [labels(results, output).most_common(1) for output in ("objects", "sounds")]
    return " and ".join(found[0][0] for found in most if found)


def as_json(viewing: Viewing) -> bytes:
    """The summary for scripts, indented, with a newline at its end."""
    return msgspec.json.format(msgspec.json.encode(viewing), indent=2) + b"\n"


def view(viewing: Viewing) -> RenderableType:
    """The summary for people."""
    table = facts()
    lost = Text(f"{viewing.windows} results in {viewing.seconds:.0f} s; ")
    lost.append(
        f"{viewing.lost_windows} of {viewing.expected_windows} lost", "red" if viewing.lost_windows else "green"
    )
    if viewing.failed_windows:
        lost.append(f"; {viewing.failed_windows} failed in the model", "red")
    table.add_row("windows", lost)
    table.add_row("seen", _counted(viewing.objects))
    table.add_row("heard", _counted(viewing.sounds))
    table.add_row("words", Text(_newest(viewing.phrases)))
    table.add_row("described", Text(_newest(viewing.descriptions)))
    table.add_row("said aloud", Text(_newest(viewing.said)))
    if viewing.query:
        found = ", ".join(f"second {hit.second:g} ({hit.similarity:.2f})" for hit in viewing.hits) or "nothing"
        table.add_row(f"search “{viewing.query}”", found)
    table.add_row("dead letters", Text(str(viewing.dead_letters), style="red" if viewing.dead_letters else ""))
    slow = "; this machine hears slowly: STREAMER_SENSORS__TEXT__MAX_DELAY_MS lets windows wait longer for words"
    table.add_row("late events", f"{viewing.late_events}{slow if viewing.late_events else ''}")
    total = viewing.latency_ms.get("total")
    if total is not None:
        table.add_row("latency", f"p50 {total.p50 / 1000:.1f} s, p99 {total.p99 / 1000:.1f} s, with the wait for words")
    table.add_row("model", f"{viewing.model} {viewing.version}")
    return Group(table)


def _counted(counts: dict[str, int]) -> str:
    shown = list(counts.items())[:MOST]
    more = f", and {len(counts) - MOST} more" if len(counts) > MOST else ""
    return ", ".join(f"{label} in {count}" for label, count in shown) + more if shown else "nothing"


def _newest(lines: Sequence[str]) -> str:
    """How many there are, and the last ones."""
    return "\n".join([f"{len(lines)}, the last:", *lines[-MOST:]]) if lines else "nothing"
