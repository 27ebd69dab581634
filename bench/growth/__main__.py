"""How the cost of a window grows: with sessions, partitions, workers, the size of frames and the length of windows.

    python -m bench.growth                             # everything, 20 minutes on 2 cores
    python -m bench.growth --axes sessions             # this alone; the rest is taken from the last run in --out
    python -m bench.growth --record                    # writes the page, streamer/operate/costs.json, k8s/README.md

A worker reads full topics to their end, as in ``bench.pipeline``; several workers share one core, are measured from the
moment when all are ready, and their CPU time is added. *pace* is a load in real time (``bench/programs/load.py``).
*check* is measured and not fitted. Payloads are those of a few drives under many names (``bench/growth/feeds.py``).

The axes *frames*, *windows* and *decoded* run decoding and model alone as well (``bench/growth/alone.py``); from
these points ``bench/growth/fit.py`` fits the costs that ``streamer size`` uses.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench import rig
from bench.growth import fit
from bench.growth.measure import measure, with_bare
from bench.growth.points import Point, axes
from bench.growth.report import report
from bench.rig import Rig

NEEDED = ("frames", "windows", "pace", "check")  # for the fit; without the others there is less to report


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the axes wanted, and report on all."""
    parser = rig.parser(__doc__, rounds=2)
    known = axes(quick=True)
    parser.add_argument(
        "--axes", nargs="*", choices=list(known), default=list(known), help="measure these; others: from --out"
    )
    options = rig.parse(parser, arguments)
    device = "" if options.device == "cpu" else f"-{options.device.replace(':', '-')}"
    path = options.out / f"growth{'-quick' if options.quick else ''}{device}.points.json"
    points = [point for point in kept(path) if point.axis not in options.axes]
    path.parent.mkdir(parents=True, exist_ok=True)
    if options.axes:
        with Rig(options.device) as bench:
            for axis in (axis for axis in known if axis in options.axes):
                points += measure(bench, axis, axes(options.quick)[axis], options)
                path.write_bytes(msgspec.json.encode(points))
    for index, point in enumerate(points):
        if point.axis in fit.AXES and point.bare_ms is None:
            points[index] = with_bare(point, options.device)
            path.write_bytes(msgspec.json.encode(points))
    by_axis = {axis: found for axis in known if (found := [point for point in points if point.axis == axis])}
    if missing := [axis for axis in NEEDED if axis not in by_axis]:
        rig.console.log(f"kept in {path}; a report needs {', '.join(missing)} too")
        return
    costs = fit.costs(by_axis, machine=f"{rig.machine()['cores']} × {rig.machine()['cpu']}", versions=rig.versions())
    rig.finish(report(by_axis, costs), options)
    if options.record and options.device == "cpu":  # what `streamer size` uses
        fit.record(costs)


def kept(path: Path) -> list[Point]:
    """Points of earlier runs."""
    return msgspec.json.decode(path.read_bytes(), type=list[Point]) if path.exists() else []


if __name__ == "__main__":
    rig.run(main)
