"""What differs between two results of one window. Pure code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import numpy as np

from streamer.result import Result

COVERAGE_TOLERANCE = 1e-6
TOLERANCE = 1e-3  # of scores and embeddings: ten times the last digit that a score has as JSON

MISSING, EXTRA = "missing", "extra"


class Difference(msgspec.Struct, frozen=True):
    """One thing that differs in a window.

    Attributes:
        kind: ``missing`` (expected, not found), ``extra`` (found, not expected), or what differs in both: ``members``,
            ``closed_by``, ``present``, ``coverage``, ``status``, ``label`` (or tags), ``score``, ``value`` and ``unit``
            of a number, ``outputs`` (the heads or labels themselves), ``embedding``.
        where: Topic, sensor, head or head/label; empty where the kind suffices.
        expected, found: The values; ``None`` for an absent one.
    """

    session: str
    start_us: int
    end_us: int
    kind: str
    where: str = ""
    expected: Any = None
    found: Any = None


def missing(expected: Result) -> Difference:
    """The difference of a window that is absent."""
    return _of(expected, MISSING, expected=expected.closed_by)


def extra(found: Result) -> Difference:
    """The difference of a window that was not expected."""
    return _of(found, EXTRA, found=found.closed_by)


def differences(expected: Result, found: Result, tolerance: float = TOLERANCE) -> Iterator[Difference]:
    """All differences between two results of one window, except names, versions and latencies.

    Args:
        tolerance: By which scores may differ, components of embeddings of the same model, and numbers; numbers above 1
            by this share. A label that changes is always a difference.
    """
    for topic in sorted(expected.members.keys() | found.members.keys()):
        yield from _plain(found, "members", topic, expected.members.get(topic), found.members.get(topic))
    yield from _plain(found, "closed_by", "", expected.closed_by, found.closed_by)
    yield from _plain(found, "present", "", expected.present, found.present)
    for name in sorted(expected.coverage.keys() | found.coverage.keys()):
        before, now = expected.coverage.get(name, 0.0), found.coverage.get(name, 0.0)
        if not abs(before - now) <= COVERAGE_TOLERANCE:
            yield _of(found, "coverage", name, before, now)
    yield from _plain(found, "status", "", expected.status, found.status)
    yield from _outputs(expected, found, tolerance)
    yield from _embedding(expected, found, tolerance)


def _outputs(expected: Result, found: Result, tolerance: float) -> Iterator[Difference]:
    for head in sorted(expected.outputs.keys() | found.outputs.keys()):
        before, now = expected.outputs.get(head), found.outputs.get(head)
        if not isinstance(before, Mapping) or not isinstance(now, Mapping):
            yield from _plain(found, "outputs", head, before, now)
            continue
        for key in ("label", "labels", "unit"):
            yield from _plain(found, "label" if key == "labels" else key, head, before.get(key), now.get(key))
        yield from _value(found, head, before.get("value"), now.get("value"), tolerance)
        yield from _scores(found, head, before.get("scores", {}), now.get("scores", {}), tolerance)


def _value(found: Result, head: str, before: float | None, now: float | None, tolerance: float) -> Iterator[Difference]:
    """Compare a number: the tolerance is absolute up to 1, relative above."""
    if before is None or now is None:
        yield from _plain(found, "value", head, before, now)
    elif not abs(before - now) <= tolerance * max(1.0, abs(before)):
        yield _of(found, "value", head, before, now)


def _scores(
    found: Result, head: str, before: Mapping[str, float], now: Mapping[str, float], tolerance: float
) -> Iterator[Difference]:
    if before.keys() != now.keys():
        yield _of(found, "outputs", head, sorted(before), sorted(now))
        return
    for label in before:
        if not abs(before[label] - now[label]) <= tolerance + 1e-9:  # scores are decimal fractions
            yield _of(found, "score", f"{head}/{label}", before[label], now[label])


def _embedding(expected: Result, found: Result, tolerance: float) -> Iterator[Difference]:
    """Compare embeddings of one version of a model; others are in different spaces."""
    same_model = (expected.model, expected.version) == (found.model, found.version)
    if not same_model or not expected.embedding or not found.embedding:
        return
    before, now = (np.frombuffer(result.embedding, "<f2").astype(np.float64) for result in (expected, found))
    if before.shape != now.shape:
        yield _of(found, "embedding", "size", before.size, now.size)
        return
    furthest = float(np.abs(before - now).max())
    if not furthest <= tolerance:
        yield _of(found, "embedding", "largest difference", 0.0, round(furthest, 6))


def _plain(result: Result, kind: str, where: str, expected: Any, found: Any) -> Iterator[Difference]:
    if expected != found:
        yield _of(result, kind, where, expected, found)


def _of(result: Result, kind: str, where: str = "", expected: Any = None, found: Any = None) -> Difference:
    return Difference(result.session, result.start_us, result.end_us, kind, where, expected, found)
