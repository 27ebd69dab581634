"""How good predictions are, as numbers. Pure: arrays in, figures out, by scikit-learn where it has them.

Shape suffixes: N windows · L labels · Q queries · G candidates of a gallery.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn import metrics

Floats = NDArray[np.floating]
ECE_BINS = 15  # as in Guo et al. 2017
RECALL_AT = (1, 5, 10)


class Classes(msgspec.Struct, frozen=True):
    """Quality of an output of kind classes.

    Attributes:
        macro_f1: Mean over the labels that occur.
        ece: Expected calibration error: see :func:`calibration_error`.
        confusion: Windows by true label (rows) and predicted label.
    """

    windows: int
    accuracy: float
    macro_f1: float
    ece: float
    confusion: tuple[tuple[int, ...], ...]


class Tag(msgspec.Struct, frozen=True):
    """Quality of one label of tags; ``None`` where undefined, because all windows have it or none has."""

    label: str
    windows: int  # that have it
    f1: float
    auroc: float | None
    average_precision: float | None


class Tags(msgspec.Struct, frozen=True):
    """Quality of an output of kind tags: means over the labels; for AUROC and AP, over those where they are defined."""

    windows: int
    macro_f1: float
    auroc: float | None
    average_precision: float | None
    each: tuple[Tag, ...]


class Number(msgspec.Struct, frozen=True):
    """Quality of an output of kind number; errors are in its unit, ``r2`` is ``None`` if the truth does not vary."""

    windows: int
    mae: float
    rmse: float
    r2: float | None


Quality = Classes | Tags | Number


def of_classes(true_N: NDArray[np.int64], scores_NL: Floats) -> Classes:
    """Measure class scores against true labels.

    Args:
        true_N: Number of the right label of each window; at least one window.
        scores_NL: Probabilities.
    """
    said_N, labels = scores_NL.argmax(1), range(scores_NL.shape[1])
    f1 = metrics.f1_score(true_N, said_N, labels=np.unique(true_N), average="macro", zero_division=0.0)
    counts_LL = metrics.confusion_matrix(true_N, said_N, labels=[*labels])
    return Classes(
        windows=len(true_N),
        accuracy=_round(np.mean(true_N == said_N)),
        macro_f1=_round(f1),
        ece=_round(calibration_error(scores_NL.max(1), true_N == said_N)),
        confusion=tuple(tuple(int(count) for count in row) for row in counts_LL),
    )


def calibration_error(score_N: Floats, right_N: NDArray[np.bool_], bins: int = ECE_BINS) -> float:
    """Expected calibration error (Naeini et al. 2015; Guo et al. 2017, equation 3).

    Windows are divided into ``bins`` intervals (a, b] of equal width by the predicted label's score; the error is the
    mean over the windows of the distance between their interval's mean score and its share of right predictions.
    """
    bin_N = np.clip(np.ceil(score_N * bins).astype(np.int64) - 1, 0, bins - 1)
    error = 0.0
    for number in np.unique(bin_N):
        inside_N = bin_N == number
        error += inside_N.mean() * abs(score_N[inside_N].mean() - right_N[inside_N].mean())
    return float(error)


def of_tags(true_NL: NDArray[np.bool_], scores_NL: Floats, labels: Sequence[str], threshold: float = 0.5) -> Tags:
    """Measure tag scores against true tags; a tag is predicted from the threshold on."""
    each = tuple(
        _of_tag(label, true_N, scores_N, threshold)
        for label, true_N, scores_N in zip(labels, true_NL.T, scores_NL.T, strict=True)
    )
    return Tags(
        windows=len(true_NL),
        macro_f1=_round(np.mean([tag.f1 for tag in each])),
        auroc=_mean([tag.auroc for tag in each]),
        average_precision=_mean([tag.average_precision for tag in each]),
        each=each,
    )


def _of_tag(label: str, true_N: NDArray[np.bool_], scores_N: Floats, threshold: float) -> Tag:
    varies = 0 < true_N.sum() < len(true_N)
    return Tag(
        label=label,
        windows=int(true_N.sum()),
        f1=_round(metrics.f1_score(true_N, scores_N >= threshold, zero_division=0.0)),
        auroc=_round(metrics.roc_auc_score(true_N, scores_N)) if varies else None,
        average_precision=_round(metrics.average_precision_score(true_N, scores_N)) if varies else None,
    )


def of_number(true_N: Floats, said_N: Floats) -> Number:
    """Measure numbers against true ones."""
    off_N = said_N - true_N
    return Number(
        windows=len(true_N),
        mae=_round(np.abs(off_N).mean()),
        rmse=_round(np.sqrt((off_N**2).mean())),
        r2=_round(metrics.r2_score(true_N, said_N)) if len(true_N) > 1 and true_N.std() > 0 else None,
    )


class Recall(msgspec.Struct, frozen=True):
    """How well the vectors of one sensor find those of another.

    Attributes:
        query, found: Sensor that is searched with, and sensor that is searched for.
        windows: Number of windows that have both: each is once a query and once a candidate.
        at: k -> share of the queries with a right candidate among the k nearest.
        chance: k -> the same for a random order.
        same_labels: Share of the queries whose nearest candidate, the query's window left out, has its labels; ``None``
            if no window has labels.
        same_labels_chance: The same for a random candidate.
    """

    query: str
    found: str
    windows: int
    at: dict[str, float]
    chance: dict[str, float]
    same_labels: float | None
    same_labels_chance: float | None


def recall(
    query_QD: Floats, found_GD: Floats, content_G: Sequence[object], labels: Sequence[object] | None
) -> tuple[dict[str, float], dict[str, float], float | None, float | None]:
    """Search with each window's vector of one sensor among all windows' vectors of another.

    Right is the query's window, and every window with equal content: a search for a sentence cannot distinguish two
    windows that contain it. A wrong candidate as near as a right one counts as nearer, so vectors that are all equal
    find nothing.

    Args:
        query_QD, found_GD: Row i of both is of the same window; Q = G.
        content_G: Content of each candidate; equal if two cannot be distinguished.
        labels: Of the windows; ``None`` if they have none.

    Returns:
        As in :class:`Recall`: at, chance, same_labels, same_labels_chance.
    """
    similarity_QG = query_QD @ found_GD.T
    count = len(similarity_QG)
    _, number_G = np.unique(np.array([repr(content) for content in content_G]), return_inverse=True)
    right_QG = number_G[:, None] == number_G
    best_Q = np.where(right_QG, similarity_QG, -np.inf).max(1)
    nearer_Q = ((similarity_QG >= best_Q[:, None]) & ~right_QG).sum(1)
    right_Q = right_QG.sum(1)
    at = {str(k): _round(np.mean(nearer_Q < k)) for k in RECALL_AT}
    chance = {str(k): _round(np.mean([_chance(count, int(right), k) for right in right_Q])) for k in RECALL_AT}
    if labels is None or count < 2:
        return at, chance, None, None
    _, label_G = np.unique(np.array([repr(label) for label in labels]), return_inverse=True)
    alike_QG = (label_G[:, None] == label_G) & ~np.eye(count, dtype=np.bool_)
    np.fill_diagonal(similarity_QG, -np.inf)
    same = np.mean(alike_QG[np.arange(count), similarity_QG.argmax(1)])
    return at, chance, _round(same), _round(alike_QG.sum() / (count * (count - 1)))


def _chance(candidates: int, right: int, k: int) -> float:
    """Probability of one or more of ``right`` among ``k`` drawn without replacement (hypergeometric)."""
    if k > candidates - right:
        return 1.0
    return 1.0 - math.comb(candidates - right, k) / math.comb(candidates, k)


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return _round(np.mean(defined)) if defined else None


def _round(value: float | np.floating) -> float:
    return round(float(value), 4)
