"""The end of a benchmark: its table, the comparison with the history, and the page that keeps what was found."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from bench.rig.figures import Plot, Report, Spread, regression, table
from bench.rig.host import ROOT, machine, versions
from streamer.errors import Stop

HISTORY = ROOT / "bench" / "history.jsonl"
PAGE = ROOT / "docs" / "benchmarks.md"
DEVICE_PAGE = ROOT / "docs" / "benchmarks-cuda.md"
DEVICE_PAGE_HEAD = "# Benchmarks on CUDA\n\nAs in [benchmarks.md](benchmarks.md), with the model on a device.\n"


def finish(report: Report, options: argparse.Namespace) -> None:
    """Print the table, write JSON, Markdown and plots, compare with the history, and record if that is wanted."""
    line = _line(report, options)
    text = "\n".join([*report.notes, "", table(report.figures)]).strip()
    print(f"{report.name}\n\n{text}\n")
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"{report.name}.json").write_text(json.dumps(line, indent=2, ensure_ascii=False) + "\n")
    (options.out / f"{report.name}.md").write_text(text + "\n")
    for plot in report.plots:
        _draw(plot, options.out / f"{plot.name}.png")
    for warning in regressions(report, _last_line(report.name, line)):
        print(f"REGRESSION {warning}")
    if options.record:
        _record(report, line, text)


def regressions(report: Report, before: Mapping[str, Any] | None) -> list[str]:
    """Of the ratios of a report against a line of the history."""
    known = before["figures"] if before is not None else {}
    return [
        warning
        for figure in report.figures
        if not figure.unit and figure.name in known
        if (warning := regression(figure, msgspec.convert(known[figure.name]["spread"], Spread))) is not None
    ]


def _line(report: Report, options: argparse.Namespace) -> dict[str, Any]:
    return {
        "benchmark": report.name,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "command": " ".join(["python -m", f"bench.{report.name}", *sys.argv[1:]]),
        "quick": options.quick,
        "machine": machine(options.device),
        "versions": versions(),
        "notes": list(report.notes),
        "figures": {figure.name: msgspec.to_builtins(figure) for figure in report.figures},
        "plots": msgspec.to_builtins(report.plots),
    }


def _last_line(name: str, like: Mapping[str, Any]) -> dict[str, Any] | None:
    """The newest line of the history of this benchmark, of the same size on the same kind of machine."""
    if not HISTORY.exists():
        return None
    lines = [json.loads(text) for text in HISTORY.read_text().splitlines()]
    same = [e for e in lines if e["benchmark"] == name and all(e[key] == like[key] for key in ("quick", "machine"))]
    return same[-1] if same else None


def _record(report: Report, line: Mapping[str, Any], text: str) -> None:
    for plot in report.plots:
        picture = PAGE.parent / "benchmarks" / f"{plot.name}{'-cuda' if 'device' in line['machine'] else ''}.png"
        picture.parent.mkdir(exist_ok=True)
        _draw(plot, picture)
        text += f"\n\n![{plot.y} over {plot.x}](benchmarks/{picture.name})"
    where, what = line["machine"], line["versions"]
    on = f"{where['cores']} × {where['cpu']}, {where['pinned']}; " + ", ".join(f"{k} {v}" for k, v in what.items())
    if "device" in where:
        on = f"{where['device']}, {on}"
        page, old = DEVICE_PAGE, DEVICE_PAGE.read_text() if DEVICE_PAGE.exists() else DEVICE_PAGE_HEAD
        if _markers(report.name)[0] not in old:
            old += "\n".join(("", f"## {report.name}", "", *_markers(report.name), ""))
    else:
        page, old = PAGE, PAGE.read_text()
    page.write_text(between(old, report.name, f"`{line['command']}`, {line['at']}: {on}.\n\n{text}"))
    with HISTORY.open("a") as file:
        file.write(json.dumps({**line, "plots": []}, ensure_ascii=False) + "\n")


def between(page: str, name: str, text: str) -> str:
    """The page with other text between the markers of a benchmark.

    Raises:
        Stop: The page has no such markers.
    """
    begin, end = _markers(name)
    if begin not in page or end not in page:
        raise Stop(f"{PAGE} has no markers {begin} and {end} to write between")
    head, rest = page.split(begin, 1)
    return f"{head}{begin}\n{text}\n{end}{rest.split(end, 1)[1]}"


def _markers(name: str) -> tuple[str, str]:
    return f"<!-- {name}: written by the script -->", f"<!-- {name}: end -->"


def _draw(plot: Plot, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for curve in plot.curves:
        axes.plot(*zip(*curve.points, strict=True), marker="o", label=curve.name)
    axes.set(xlabel=plot.x, ylabel=plot.y, xscale=plot.x_scale)
    axes.set_ylim(0, 1.05 * max(y for curve in plot.curves for _, y in curve.points))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
