"""The fit of ``bench.growth``: coefficients of ``operate/costs.py`` from its points, and the file that keeps them.

Least squares of relative errors with coefficients that are not negative (NNLS: Lawson and Hanson, Solving Least
Squares Problems, 1974). Three fits, of what was measured apart: the worker less decoding and model, decoding, model.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from scipy.optimize import nnls

from bench import rig
from streamer.errors import Stop
from streamer.events import IMAGE
from streamer.operate import sizing
from streamer.operate.costs import Coefficients, Costs, Others, Span

if TYPE_CHECKING:
    from bench.growth.points import Point

AXES = ("frames", "windows", "decoded")  # that are fitted
KEPT_UP = 0.9  # of what was offered: with less published, a load was not one in real time
FILE = rig.ROOT / "streamer" / "operate" / "costs.json"
KUBERNETES = rig.ROOT / "k8s" / "README.md"


def relative(rows: Sequence[Sequence[float]], measured: Sequence[float]) -> list[float]:
    """Coefficients, none below 0, that make the relative errors of ``rows @ coefficients`` small."""
    target = np.asarray(measured)
    found, _ = nnls(np.asarray(rows) / target[:, None], np.ones(len(target)))
    return [float(value) for value in found]


def coefficients(points: Sequence[Point]) -> Coefficients:
    """Of points that have been measured with decoding and model apart."""
    windows = [point.window for point in points]
    bare = [_measured(point.bare_ms) for point in points]
    predict = [_measured(point.predict_ms) for point in points]
    a, b, c = relative(
        [(1, w.records, w.payload_mb) for w in windows],
        [point.cpu_ms.median - alone for point, alone in zip(points, bare, strict=True)],
    )
    d, e = relative(
        [(w.frames_decoded, w.decoded_mb) for w in windows], [b - p for b, p in zip(bare, predict, strict=True)]
    )
    f, g = relative([(1, w.seconds) for w in windows], predict)
    return Coefficients(a, b, c, d, e, f, g)


def _measured(value: float | None) -> float:
    if value is None:
        raise ValueError("a point of the fit was not measured without Kafka and Redis")
    return value


def costs(by_axis: Mapping[str, Sequence[Point]], *, machine: str, versions: dict[str, str]) -> Costs:
    """Everything that ``streamer size`` needs."""
    fitted = [point for axis in AXES for point in by_axis.get(axis, ())]
    found = coefficients(fitted)
    (usual,) = by_axis["pace"]
    best_per_s = rig.Spread.of([run.windows_per_s for run in usual.runs]).median
    in_time = [one for one in usual.paced if one.windows_per_s >= KEPT_UP * one.share * best_per_s]
    if not in_time:
        raise Stop(
            "the worker kept up with no load in real time, so its costs there are unknown: this machine is too busy"
        )
    paced = max(in_time, key=lambda one: one.cpu_ms)
    rows = [row for row in range(len(usual.sent.records)) if row != IMAGE]
    fed_s = usual.config.feed.sessions * usual.config.feed.seconds
    alone = [point.config for axis, found_ in by_axis.items() if axis != "workers" for point in found_]
    return Costs(
        command="python -m bench.growth --record",
        at=max(point.at for points in by_axis.values() for point in points),
        machine=machine,
        versions=versions,
        coefficients=found,
        fit_error=max(abs(found.window_ms(point.window) / point.cpu_ms.median - 1) for point in fitted),
        check=Span.of([found.window_ms(point.window) / point.cpu_ms.median for point in by_axis["check"]]),
        paced=paced.cpu_ms / paced.saturated_ms,
        paced_share=paced.share,
        worker_mib=usual.peak_mib,
        header_bytes=usual.sent.header_bytes / sum(usual.sent.records),
        redis_bytes=paced.redis_bytes,
        redis_stored_bytes=paced.stored_bytes,
        usual_fps=usual.config.feed.frame_hz,
        usual_frame_kb=usual.sent.bytes[IMAGE] / usual.sent.records[IMAGE] / 1000,
        others=Others(
            sum(usual.sent.records[row] for row in rows) / fed_s, sum(usual.sent.bytes[row] for row in rows) / fed_s
        ),
        measured={
            "frame_kb": Span.of([p.sent.bytes[IMAGE] / p.sent.records[IMAGE] / 1000 for p in fitted]),
            "frames_per_window": Span.of([p.sent.records[IMAGE] / p.config.windows for p in fitted]),
            "window_ms": Span.of([p.config.window_ms for p in fitted]),
            "frames_decoded": Span.of([p.window.frames_decoded for p in fitted]),
            "sessions": Span.of([config.feed.sessions for config in alone]),
            "partitions": Span.of([config.partitions for config in alone]),
            "workers": Span.of([1, *(point.config.workers for point in by_axis.get("workers", ()))]),
        },
    )


def table(found: Costs, check: Sequence[Point]) -> str:
    """Markdown: the coefficients, and predicted beside measured."""
    c = found.coefficients
    rows = [
        f"Fitted, CPU ms a window: {c.window:.3g} + {c.record:.3g} a record + {c.megabyte:.3g} a MB from Kafka to "
        f"Redis; {c.frame:.3g} a frame and {c.megabyte_decoded:.3g} a MB decoded; {c.model:.3g} + "
        f"{c.model_second:.3g} a second for the model. Farthest from a point of the fit: {found.fit_error:.0%}.",
        "",
        "| not fitted | predicted, ms | measured, ms | predicted ÷ measured |",
        "|---|---|---|---|",
    ]
    for point in check:
        predicted, measured = c.window_ms(point.window), point.cpu_ms.median
        rows.append(f"| {point.config.name} | {predicted:.3g} | {measured:.3g} | {predicted / measured:.2f} |")
    return "\n".join(rows)


def record(found: Costs) -> None:
    """Write the file of the package, and the table of the manifests' page that follows from it."""
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    text = rig.between(KUBERNETES.read_text(), "size", sizing.feeds_table(found))
    KUBERNETES.write_text(text)
    sys.stderr.write(f"wrote {FILE} and {KUBERNETES}\n")
