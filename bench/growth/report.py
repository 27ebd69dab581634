"""Points as tables, ratios and a plot."""

from __future__ import annotations

from bench import rig
from bench.growth import fit
from bench.growth.points import Point
from bench.rig import Curve, Figure, Plot, Report, Spread
from streamer.operate.costs import Costs

FLAT = 1.1  # the aim: ten times, or a thousand times, as many cost as much a window
COUNTS = ("sessions", "partitions", "workers")  # of which more should cost no more


def report(by_axis: dict[str, list[Point]], costs: Costs) -> Report:
    """Tables, ratios of the largest to the smallest, and one plot of what should be flat."""
    points = [point for found in by_axis.values() for point in found]
    absent = [axis for axis in COUNTS if axis not in by_axis]
    notes = [
        f"Measured {min(p.at for p in points)} to {max(p.at for p in points)}, rounds: "
        f"{min(len(p.runs) for p in points)}; CPU is that of the worker, ms a window."
        + (f" Not measured: {', '.join(absent)}." if absent else ""),
        "",
        table(by_axis),
        "",
        pace_table(by_axis["pace"][0]),
        "",
        fit.table(costs, by_axis["check"]),
    ]
    return Report("growth", figures(by_axis, costs), notes, [plot(by_axis)] if len(absent) < len(COUNTS) else [])


def figures(by_axis: dict[str, list[Point]], costs: Costs) -> list[Figure]:
    """Ratios of the largest to the smallest, then how well the fit predicts."""
    made = []
    for axis in (axis for axis in COUNTS if axis in by_axis):
        first, last = by_axis[axis][0], by_axis[axis][-1]
        ratio = rig.ratios(*([run.cpu_ms_per_window for run in point.runs] for point in (last, first)))
        made.append(Figure(f"{axis} {last.config.name} ÷ {first.config.name}, CPU a window", ratio, aim=FLAT))
    check = Spread.of([costs.check.low, costs.check.high])
    made.append(Figure("predicted ÷ measured, of what was not fitted", check, better="higher"))
    return made


def table(by_axis: dict[str, list[Point]]) -> str:
    """Markdown: a configuration a row."""
    rows = [
        "| | | windows | records a window | KB a window | CPU, ms | of it decoding and model | windows/s | peak MiB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for axis, points in by_axis.items():
        for point in points:
            bare = "" if point.bare_ms is None else f"{point.bare_ms:.3g}"
            rate = Spread.of([run.windows_per_s for run in point.runs])
            rows.append(
                f"| {axis} | {point.config.name} | {point.config.windows:,} | {point.window.records:.1f} "
                f"| {point.window.payload_mb * 1000:.0f} | {point.cpu_ms} | {bare} | {rate} | {point.peak_mib:.0f} |"
            )
    return "\n".join(rows)


def pace_table(point: Point) -> str:
    """Markdown: a load a row."""
    rows = [
        "| load, of saturation | offered, windows/s | published | CPU ms a window | latency p50, ms | p99, ms "
        "| the load was behind its schedule, p99, ms |",
        "|---|---|---|---|---|---|---|",
    ]
    best_per_s = Spread.of([run.windows_per_s for run in point.runs]).median
    rows.append(f"| saturated | | {best_per_s:.0f} | {point.cpu_ms} | | | |")
    for one in point.paced:
        p50, p99 = one.latency_ms
        rows.append(
            f"| {one.share:.0%} | {best_per_s * one.share:.0f} | {one.windows_per_s:.0f} | {one.cpu_ms:.3g} "
            f"| {p50:.0f} | {p99:.0f} | {'not kept' if one.behind_ms is None else f'{one.behind_ms:.0f}'} |"
        )
    return "\n".join(rows)


def plot(by_axis: dict[str, list[Point]]) -> Plot:
    """CPU of a window over what should not matter."""
    curves = [
        Curve(axis, [(point.config.x, point.cpu_ms.median) for point in by_axis[axis]])
        for axis in COUNTS
        if axis in by_axis
    ]
    return Plot("growth", "number", "CPU of a window, ms", curves, "log")
