"""Outputs of a model of ready senses, learned from few labelled windows, with an honest score.

The senses stay as they are; only a linear classifier on their features is fitted (logistic regression), which takes
seconds. It is measured on windows that it was not fitted to: those of the data's test part, else by cross-validation.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from streamer.errors import ModelError, UsageError
from streamer.model.learned import Blocks, Features, Head, write
from streamer.model.senses import Learned
from streamer.model.spec import ModelSpec, read_spec
from streamer.settings import Settings
from streamer.terminal.progress import track
from streamer.training.card import CARD_END, CARD_FILE, CARD_START
from streamer.training.data.opening import open_rows
from streamer.training.data.parts import TEST
from streamer.training.data.rows import Row, Rows

FOLDS = 5
INVERSE_PENALTY = 10.0  # of weights, for features of length 1 a sense
CHUNK = 16  # windows sensed before progress is shown again
NEVER, UNLIKELY = -1, -1e9  # place and bias of a label that no window shows
NORMAL_95 = 1.96  # quantile of the normal distribution

Rights = NDArray[np.bool_]


class Score(NamedTuple):
    """How an output did on windows that it was not fitted to.

    Attributes:
        output: Its name.
        how: How these windows were chosen.
        windows, right: How many, and of how many the label was right.
        alone: Sense -> the same with this sense alone, on the windows that have it: windows, right.
        most_frequent: Share of the most frequent label: what a guess would reach.
        by_label: Label -> windows, right.
    """

    output: str
    how: str
    windows: int
    right: int
    alone: dict[str, tuple[int, int]]
    most_frequent: float
    by_label: dict[str, tuple[int, int]]


class Report(NamedTuple):
    """What was learned: from how many windows, how long it took, also in CPU time, and the score of each output."""

    windows: int
    seconds: float
    cpu_seconds: float
    scores: list[Score]


def learn(folder: Path, data: Path, settings: Settings, console: Console, *, skip_bad: bool = False) -> Report:
    """Learn the outputs ``[senses.learned]`` of a model folder; writes them and the score into the folder.

    Args:
        data: A data set of any format, see docs/models.md.
        skip_bad: Leave out bad rows and print how many.

    Raises:
        ModelError: The folder cannot be read, or names no output to learn.
        UsageError: A sense or a label is missing, or the data are bad.
    """
    started_s, started_cpu_s = time.monotonic(), time.process_time()
    spec = read_spec(folder)
    learned = spec.senses.learned if spec.senses is not None else {}
    if spec.senses is None or not learned:
        raise ModelError(f"{folder} has no [senses.learned.NAME] in its model.toml, so there is nothing to learn")
    features = Features(spec.senses, settings)
    rows, blocks = _sensed(spec, learned, data, features, settings, console, skip_bad)
    heads, scores = {}, []
    used: set[int] = set()
    for name, one in learned.items():
        known_N = np.any([blocks[sense][1] for sense in one.senses], axis=0)
        labelled = [n for n, row in enumerate(rows) if name in row.labels and known_N[n]]
        own = [rows[n] for n in labelled]
        mine = {sense: (blocks[sense][0][labelled], blocks[sense][1][labelled]) for sense in one.senses}
        truth = [str(row.labels[name]) for row in own]
        _enough(name, one, truth)
        scores.append(_measured(name, one, own, truth, mine))
        tested = set(_test_part(own, truth))
        rest = [n for n in range(len(own)) if n not in tested]
        heads[name] = _fitted(one, _of(mine, rest), [truth[n] for n in rest])
        used |= {labelled[n] for n in rest}
    write(folder, heads, features.versions)
    report = Report(len(used), time.monotonic() - started_s, time.process_time() - started_cpu_s, scores)
    _write_card(folder, spec, report)
    return report


def interval(right: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share, as if windows were independent."""
    share, z = right / count, NORMAL_95
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, middle - half), min(1.0, middle + half)


def shown(right: int, count: int) -> str:
    """A share with its interval: ``83 % (66 to 93 %), 25 of 30``."""
    if not count:
        return "–"
    low, high = interval(right, count)
    return f"{right / count:.0%} ({low:.0%} to {high:.0%}), {right} of {count}"


def _sensed(
    spec: ModelSpec,
    learned: dict[str, Learned],
    data: Path,
    features: Features,
    settings: Settings,
    console: Console,
    skip_bad: bool,
) -> tuple[list[Row], Blocks]:
    """The rows with labels, and their features."""
    wanted = msgspec.structs.replace(spec, outputs={name: spec.outputs[name] for name in learned})
    rows, limits, bad, _ = open_rows(data, wanted, refuse_bad=not skip_bad, settings=settings, console=console)
    if bad:
        console.log(f"skipped {len(bad)} bad rows; the first: {bad[0]}", markup=False)
    rows = [row for row in rows if row.labels]
    examples = Rows(rows, wanted, limits)
    starts = range(0, len(rows), CHUNK)
    found = [
        features.of([examples[n].sample for n in range(start, min(start + CHUNK, len(rows)))])
        for start in track(starts, "sensing", console)
    ]
    return rows, {sense: _joined([chunk[sense] for chunk in found]) for sense in features.versions}


def _joined(chunks: Sequence[tuple[NDArray[np.float32], Rights]]) -> tuple[NDArray[np.float32], Rights]:
    """Chunks in one; in a chunk without any of the sense, features have no size."""
    size = max(features_ND.shape[1] for features_ND, _ in chunks)
    whole = [
        features_ND if features_ND.shape[1] == size else np.zeros((len(features_ND), size), np.float32)
        for features_ND, _ in chunks
    ]
    return np.concatenate(whole), np.concatenate([present_N for _, present_N in chunks])


def _enough(name: str, learned: Learned, truth: Sequence[str]) -> None:
    counts = Counter(truth)
    for label in learned.labels:
        if counts[label] < 2:
            raise UsageError(
                f"{name}: {label!r} has {counts[label]} windows with {', '.join(learned.senses)}; two or more of each "
                "label are needed"
            )


def _measured(name: str, learned: Learned, rows: Sequence[Row], truth: Sequence[str], blocks: Blocks) -> Score:
    folds, how = _folds(rows, truth)
    said = _predicted(learned, blocks, truth, folds)
    asked = [n for n, label in enumerate(said) if label is not None]
    by_label = {
        label: (
            sum(truth[n] == label for n in asked),
            sum(truth[n] == label == said[n] for n in asked),
        )
        for label in learned.labels
    }
    alone = {}
    for sense in learned.senses if len(learned.senses) > 1 else ():
        own = _predicted(learned, {sense: blocks[sense]}, truth, folds)
        with_it = [n for n in asked if blocks[sense][1][n] and own[n] is not None]
        alone[sense] = (len(with_it), sum(own[n] == truth[n] for n in with_it))
    counts = Counter(truth[n] for n in asked)
    right = sum(said[n] == truth[n] for n in asked)
    return Score(name, how, len(asked), right, alone, max(counts.values()) / len(asked), by_label)


def _folds(rows: Sequence[Row], truth: Sequence[str]) -> tuple[list[list[int]], str]:
    """Parts of the windows, each of which is judged by what was fitted to all others; how they were chosen."""
    if test := _test_part(rows, truth):
        return [test], "the test part of the data"
    groups = [row.group for row in rows]
    in_groups = {label: {group for group, own in zip(groups, truth, strict=True) if own == label} for label in truth}
    least = min(map(len, in_groups.values()))
    if all(groups) and least >= 2:
        folds = StratifiedGroupKFold(min(FOLDS, least)).split(groups, truth, groups)
        return [held.tolist() for _, held in folds], "cross-validation that keeps groups together"
    count = min(FOLDS, *Counter(truth).values())
    place: Counter[str] = Counter()
    blocks: list[list[int]] = [[] for _ in range(count)]
    total = Counter(truth)
    for n, label in enumerate(truth):
        blocks[place[label] * count // total[label]].append(n)
        place[label] += 1
    return blocks, (
        "cross-validation in stretches of the data's order; windows of one recording are in training and in test, so a "
        "new recording will do worse"
    )


def _test_part(rows: Sequence[Row], truth: Sequence[str]) -> list[int]:
    """The windows that the data keep for a test; none if a label is in no other window."""
    test = [n for n, row in enumerate(rows) if row.part == TEST]
    others = {label for row, label in zip(rows, truth, strict=True) if row.part != TEST}
    return test if others == set(truth) else []


def _predicted(
    learned: Learned, blocks: Blocks, truth: Sequence[str], folds: Sequence[Sequence[int]]
) -> list[str | None]:
    """The label of each window that is in a fold and has anything to judge by."""
    said: list[str | None] = [None] * len(truth)
    for fold in folds:
        rest = sorted(set(range(len(truth))) - set(fold))
        head = _fitted(learned, _of(blocks, rest), [truth[n] for n in rest])
        scores_NL, known_N = head.scores(_of(blocks, fold))
        for n, scores_L, known in zip(fold, scores_NL, known_N, strict=True):
            said[n] = learned.labels[int(scores_L.argmax())] if known else None
    return said


def _of(blocks: Blocks, rows: Sequence[int]) -> Blocks:
    return {sense: (features_ND[rows], present_N[rows]) for sense, (features_ND, present_N) in blocks.items()}


def _fitted(learned: Learned, blocks: Blocks, truth: Sequence[str]) -> Head:
    """A head on blocks of features.

    Each block is centred and scaled to a mean length of 1, so that none counts more for being larger. Windows with
    several senses are also learned with each one alone: the head works where others are missing.
    """
    means = {sense: _mean(*block) for sense, block in blocks.items()}
    scales = {sense: _scale(*block, means[sense]) for sense, block in blocks.items()}
    parts = {
        sense: np.where(present_N[:, None], (features_ND - means[sense]) / scales[sense], 0.0)
        for sense, (features_ND, present_N) in blocks.items()
    }
    several_N = np.sum([present_N for _, present_N in blocks.values()], axis=0) > 1
    known_N = np.any([present_N for _, present_N in blocks.values()], axis=0)
    inputs = [np.concatenate([part_ND[known_N] for part_ND in parts.values()], axis=1)]
    labels = [np.array(truth)[known_N]]
    for sense, (_, present_N) in blocks.items():
        own_N = several_N & present_N
        alone = [part_ND[own_N] * (other == sense) for other, part_ND in parts.items()]
        inputs.append(np.concatenate(alone, axis=1))
        labels.append(np.array(truth)[own_N])
    model = LogisticRegression(C=INVERSE_PENALTY, class_weight="balanced", max_iter=1000)
    model.fit(np.concatenate(inputs), np.concatenate(labels))
    return _head(learned, model, blocks, means, scales)


def _head(
    learned: Learned,
    model: LogisticRegression,
    blocks: Blocks,
    means: dict[str, NDArray[np.float32]],
    scales: dict[str, float],
) -> Head:
    weights_KD, bias_K = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # one row of weights, for the second
        weights_KD, bias_K = np.concatenate([0 * weights_KD, weights_KD]), np.concatenate([0 * bias_K, bias_K])
    seen = [*model.classes_]
    place = [seen.index(label) if label in seen else NEVER for label in learned.labels]
    # a label that this fold did not see is never said
    weights_KD = np.concatenate([weights_KD, 0 * weights_KD[:1]])
    bias_K = np.concatenate([bias_K, [UNLIKELY]])
    edges = np.cumsum([0, *(features_ND.shape[1] for features_ND, _ in blocks.values())])
    parts = {
        sense: (means[sense], (weights_KD[place, start:end] / scales[sense]).astype(np.float32))
        for sense, start, end in zip(blocks, edges, edges[1:], strict=False)
    }
    return Head(learned.labels, bias_K[place].astype(np.float32), parts)


def _mean(features_ND: NDArray[np.float32], present_N: Rights) -> NDArray[np.float32]:
    mean_D: NDArray[np.float32] = features_ND[present_N].mean(axis=0) if present_N.any() else features_ND[0]
    return mean_D


def _scale(features_ND: NDArray[np.float32], present_N: Rights, mean_D: NDArray[np.float32]) -> float:
    lengths_N = np.linalg.norm(features_ND[present_N] - mean_D, axis=1)
    return float(lengths_N.mean()) or 1.0 if lengths_N.size else 1.0


def _write_card(folder: Path, spec: ModelSpec, report: Report) -> None:
    """The score between the markers of the card, which is made if there is none."""
    path = folder / CARD_FILE
    card = path.read_text("utf-8") if path.is_file() else f"# {spec.name}\n\n{spec.description}\n"
    if CARD_START not in card or CARD_END not in card:
        card = f"{card.rstrip()}\n\n{CARD_START}\n{CARD_END}\n"
    before, _, rest = card.partition(CARD_START)
    path.write_text(f"{before}{CARD_START}\n{markdown(report)}\n{CARD_END}{rest.partition(CARD_END)[2]}", "utf-8")


def markdown(report: Report) -> str:
    """The score of each output as Markdown."""
    parts = [f"Learned from {report.windows} windows on frozen senses, by `streamer learn`."]
    for score in report.scores:
        rows = [("all senses", shown(score.right, score.windows))]
        rows += [(f"{sense} alone", shown(right, count)) for sense, (count, right) in score.alone.items()]
        rows += [(f"label `{label}`", shown(right, count)) for label, (count, right) in score.by_label.items()]
        parts.append(
            f"Output `{score.output}`, by {score.how}. Always the most frequent label: {score.most_frequent:.0%}. In "
            "brackets: the 95 % interval, as if windows were independent, which those of one recording are not."
        )
        parts.append("\n".join(["| judged by | right |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]))
    return "\n\n".join(parts)
