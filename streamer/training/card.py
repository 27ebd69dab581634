"""An evaluation as tables: in the terminal, and in the model card."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from streamer.errors import UsageError
from streamer.training.evaluate import GALLERY, REPEATS, Evaluation, Head, Other, Row, Sure, confusion_file
from streamer.training.scores import ECE_BINS, RECALL_AT, Classes, Number, Recall, Tags

CARD_FILE = "README.md"
CARD_START, CARD_END = "<!-- measured: start -->", "<!-- measured: end -->"

Rows = list[list[str]]  # of cells, the heading first


def show(evaluation: Evaluation, console: Console) -> None:
    """Print what was measured."""
    console.print(f"{evaluation.model} {evaluation.version}: {evaluation.windows} windows of {evaluation.data}")
    tables = [(f"{head.name}{_unit(head)}", _quality_rows(head)) for head in evaluation.heads]
    tables += [(f"{head.name}, tag by tag", rows) for head in evaluation.heads if (rows := _tag_rows(head))]
    if evaluation.strange:
        rows = [[name, f"{share:.1%}"] for name, share in evaluation.strange.items()]
        tables.append(("where it is strange", [["sensor", "windows"], *rows]))
    if evaluation.sure:
        tables.append(("what it is sure of", _sure_rows(evaluation.sure)))
    if evaluation.others:
        tables.append(("recordings that it was not made for", _other_rows(evaluation.others)))
    if evaluation.recalls:
        tables.append(("common embedding space, in brackets by chance", _recall_rows(evaluation.recalls)))
    tables.append((f"speed on {evaluation.device}", _speed_rows(evaluation)))
    for title, (heading, *rows) in tables:
        table = Table(*heading, title=title)
        for row in rows:
            table.add_row(*row)
        console.print(table)


def write_card(evaluation: Evaluation, folder: Path) -> None:
    """Replace the text between the markers of the model card with the measurements.

    Raises:
        UsageError: The card has no markers.
    """
    path = folder / CARD_FILE
    card = path.read_text("utf-8") if path.is_file() else ""
    before, start, rest = card.partition(CARD_START)
    _, end, after = rest.partition(CARD_END)
    if not start or not end:
        raise UsageError(f"{path} needs the lines {CARD_START} and {CARD_END}, between which the table is written")
    path.write_text(f"{before}{start}\n{markdown(evaluation)}\n{end}{after}", "utf-8")


def markdown(evaluation: Evaluation) -> str:
    """All measurements as Markdown."""
    return "\n\n".join(_blocks(evaluation))


def _blocks(evaluation: Evaluation) -> Iterator[str]:
    present = ", ".join(f"{name} {share:.1%}" for name, share in evaluation.present.items())
    yield (
        f"Version `{evaluation.version}`, measured on {evaluation.windows} windows of {evaluation.data}, none of which "
        f"was used in training. Share of the windows that have each sensor: {present}."
    )
    for head in evaluation.heads:
        yield f"Output `{head.name}`{_unit(head)}:"
        yield _table(_quality_rows(head))
        whole = head.rows[0].quality
        if isinstance(whole, Classes):
            yield (
                f"ECE: expected calibration error of the predicted label's score, {ECE_BINS} bins. With all "
                f"sensors, rows true, columns predicted ([picture]({confusion_file(head.name)})):"
            )
            yield _table(_confusion_rows(head, whole))
        elif isinstance(whole, Tags):
            yield "Each tag, with all sensors:"
            yield _table(_tag_rows(head))
    if evaluation.strange:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in evaluation.strange.items())
        yield f"Share of these windows in which a sensor is strange to it: {shares}."
    if evaluation.sure:
        yield (
            "What it is sure of: the best label's score is enough (`unsure_below` of model.toml) and no sensor is "
            "strange to it."
        )
        yield _table(_sure_rows(evaluation.sure))
    if evaluation.others:
        yield (
            "Recordings that it was not made for: windows, the share of them in which a sensor is strange, and the "
            "share with a sure output; in brackets by its score alone."
        )
        yield _table(_other_rows(evaluation.others))
    if evaluation.recalls:
        yield (
            f"The common embedding space: each of up to {GALLERY} windows is searched for among all of them, with its "
            "vector of one sensor among the vectors of another. Right is the window itself, and in a search among "
            "texts every window with the same words; ties count as wrong. *Same labels*: share of the nearest other "
            "windows that have the query's labels. In brackets: by chance."
        )
        yield _table(_recall_rows(evaluation.recalls))
    yield f"Speed on `{evaluation.device}`, from samples to predictions, {REPEATS} calls:"
    yield _table(_speed_rows(evaluation))


def _unit(head: Head) -> str:
    return f" in {head.unit}" if head.unit else ""


def _quality_rows(head: Head) -> Rows:
    return [["given", *_names(head.rows[0])], *([row.given, *_figures(row)] for row in head.rows)]


def _names(row: Row) -> list[str]:
    if isinstance(row.quality, Classes):
        return ["accuracy", "macro-F1", "ECE"]
    return ["MAE", "RMSE", "R²"] if isinstance(row.quality, Number) else ["macro-F1", "AUROC", "AP"]


def _figures(row: Row) -> list[str]:
    quality = row.quality
    if isinstance(quality, Classes):
        return [_figure(value) for value in (quality.accuracy, quality.macro_f1, quality.ece)]
    if isinstance(quality, Number):
        return [_figure(value) for value in (quality.mae, quality.rmse, quality.r2)]
    return [_figure(value) for value in (quality.macro_f1, quality.auroc, quality.average_precision)]


def _confusion_rows(head: Head, whole: Classes) -> Rows:
    rows = zip(head.labels, whole.confusion, strict=True)
    return [["", *head.labels], *([f"**{label}**", *map(str, counts)] for label, counts in rows)]


def _tag_rows(head: Head) -> Rows:
    whole = head.rows[0].quality
    if not isinstance(whole, Tags):
        return []
    figures = [[t.label, str(t.windows), *map(_figure, (t.f1, t.auroc, t.average_precision))] for t in whole.each]
    return [["tag", "windows", "F1", "AUROC", "AP"], *figures]


def _sure_rows(sure: Sequence[Sure]) -> Rows:
    rows = [[s.output, s.given, f"{s.share:.1%}", "–" if s.right is None else f"{s.right:.1%}"] for s in sure]
    return [["output", "given", "sure", "right where sure"], *rows]


def _other_rows(others: Sequence[Other]) -> Rows:
    heading = ["recording", "windows", "strange", "sure"]
    return [heading, *([o.name, str(o.windows), _strange(o), _said_surely(o)] for o in others)]


def _strange(other: Other) -> str:
    return ", ".join(f"{name} {share:.0%}" for name, share in other.strange.items()) or "–"


def _said_surely(other: Other) -> str:
    shares = ((name, share, other.scores.get(name)) for name, share in other.sure.items())
    return ", ".join(f"{n} {s:.0%}" + ("" if score is None else f" ({score:.0%})") for n, s, score in shares)


def _recall_rows(recalls: Sequence[Recall]) -> Rows:
    heading = ["query → found", "windows", *(f"recall@{k}" for k in RECALL_AT), "same labels"]
    return [heading, *(_recall_row(recall) for recall in recalls)]


def _recall_row(recall: Recall) -> list[str]:
    at = [f"{recall.at[str(k)]:.3f} ({recall.chance[str(k)]:.3f})" for k in RECALL_AT]
    same = "–" if recall.same_labels is None else f"{recall.same_labels:.3f} ({recall.same_labels_chance:.3f})"
    return [f"{recall.query} → {recall.found}", str(recall.windows), *at, same]


def _speed_rows(evaluation: Evaluation) -> Rows:
    heading = ["batch", "median ms", "p99 ms", "windows/s"]
    rows = (
        [str(s.batch), f"{s.median_ms:.1f}", f"{s.p99_ms:.1f}", f"{s.windows_per_s:.0f}"] for s in evaluation.speeds
    )
    return [heading, *rows]


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(rows: Rows) -> str:
    heading, *body = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([heading, "|---" * len(rows[0]) + "|", *body])
