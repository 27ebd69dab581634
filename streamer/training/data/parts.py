"""Training, validation and test parts of a data set."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from streamer.errors import UsageError
from streamer.training.data.rows import BadRow, Row

TRAINING, VALIDATION, TEST = "training", "validation", "test"
# names of parts in data sets
NAMES = {
    "training": TRAINING,
    "train": TRAINING,
    "validation": VALIDATION,
    "val": VALIDATION,
    "valid": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
}
SHARES = {TEST: 0.1, VALIDATION: 0.1}  # of the groups, if the data do not define that part


class Parts(NamedTuple):
    """Rows by part, in the order of the data."""

    training: list[Row]
    validation: list[Row]
    test: list[Row]


def divide(path: Path, rows: Sequence[Row], seed: int) -> Parts:
    """Put every row into a part.

    Rows that name a part are in it; all others are for training. A part that no row names is drawn from training:
    ``SHARES`` of its groups, by a hash of seed and group only, so that a group stays in its part when the data grow. If
    the hash leaves a part empty, it gets the remaining group with the lowest hash.

    Raises:
        UsageError: There are not enough groups to fill every part.
    """
    found: dict[str, list[Row]] = {TRAINING: [], VALIDATION: [], TEST: []}
    for row in rows:
        found[row.part or TRAINING].append(row)
    missing = [part for part in SHARES if not found[part]]
    groups = {_group(row) for row in found[TRAINING]}
    if len(groups) <= len(missing):
        raise UsageError(
            f"{path} has {len(groups)} groups of rows to train on; a part for each of training, {', '.join(missing)} "
            "needs more, or name the parts in the data"
        )
    drawn = _drawn(groups, missing, seed)
    training = found[TRAINING]
    for part in missing:
        found[part] = [row for row in training if drawn.get(_group(row)) == part]
    return Parts([row for row in training if _group(row) not in drawn], found[VALIDATION], found[TEST])


def straddling(rows: Sequence[Row]) -> list[BadRow]:
    """Rows that name another part than an earlier row of their group."""
    first: dict[str, Row] = {}
    bad = []
    for row in rows:
        if row.group:
            before = first.setdefault(row.group, row)
            part, part_before = row.part or TRAINING, before.part or TRAINING
            if part != part_before:
                reason = f"group {row.group!r} is in {part_before} ({before.where}) already: a group has one part"
                bad.append(BadRow(row.where, reason))
    return bad


def _group(row: Row) -> str:
    # the first letter distinguishes them: a group may have the name of a row's key
    return f"g{row.group}" if row.group else f"k{row.key}"


def _drawn(groups: set[str], missing: Sequence[str], seed: int) -> dict[str, str]:
    """Group -> part, for the groups that leave training."""
    ranked = sorted((_hash(seed, group), group) for group in groups)
    drawn: dict[str, str] = {}
    edge = 0.0
    for place, part in enumerate(missing):
        edge += SHARES[part]
        rest = [(value, group) for value, group in ranked if group not in drawn]
        taken = [group for value, group in rest if value < edge] or [rest[0][1]]
        others = len(missing) - place  # training and the parts still to be drawn need one each
        drawn |= dict.fromkeys(taken[: len(rest) - others], part)
    return drawn


def _hash(seed: int, group: str) -> float:
    """Uniform in [0, 1)."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{group}".encode()).digest()[:8]) / 2**64
