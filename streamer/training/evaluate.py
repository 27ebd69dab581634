"""Weights -> measured quality: on drives that no training saw, with the code that serves.

Shape suffixes: L labels (rows: true, columns: said).
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from streamer.errors import UsageError
from streamer.events import MODALITY_NAMES
from streamer.forms import EAGER
from streamer.infer import Predictor
from streamer.sample import Sample
from streamer.training.dataset import Example
from streamer.training.simulated import FIRST_HELD_OUT_SEED, examples

CARD_FILE = "README.md"
CARD_START, CARD_END = "<!-- measured: start -->", "<!-- measured: end -->"
BATCH = 32


class Row(msgspec.Struct, frozen=True):
    """Quality with some of the modalities; macro-F1 is the mean over the labels."""

    given: str
    accuracy: float
    macro_f1: float


class Evaluation(msgspec.Struct, frozen=True):
    """What was measured of one output, and on what.

    Attributes:
        rows: All modalities first, then each alone, then each missing.
        confusion: Windows by true label and said label, with all modalities.
        present: Share of the windows that have each modality.
        cpu_ms_predict: CPU time of one window in batches of BATCH, without cutting and decoding.
    """

    model: str
    version: str
    output: str
    labels: tuple[str, ...]
    first_seed: int
    drives: int
    seconds: int
    windows: int
    rows: tuple[Row, ...]
    confusion: tuple[tuple[int, ...], ...]
    present: dict[str, float]
    cpu_ms_predict: float


def evaluate(
    folder: Path, *, form: str = EAGER, drives: int, seconds: int, seed: int, cache: Path, console: Console
) -> list[Evaluation]:
    """Measure a model on held-out drives, one evaluation for each of its outputs.

    Args:
        form: One of ``streamer.forms``.
        seed: The first of the drives' seeds is ``FIRST_HELD_OUT_SEED + 1000 × seed``.

    Raises:
        ModelError: The folder cannot be loaded.
        UsageError: There is nothing to measure on.
    """
    if drives < 1 or seconds < 2 or seed < 0:
        raise UsageError("--drives must be above 0, --seconds above 1 and --seed not negative")
    predictor = Predictor.load(folder, form=form)
    first = FIRST_HELD_OUT_SEED + 1000 * seed
    held_out = examples(range(first, first + drives), seconds, predictor.spec, cache, console)
    return [_evaluate(predictor, name, held_out, first, drives, seconds) for name in predictor.spec.outputs]


def _evaluate(
    predictor: Predictor, output: str, held_out: Sequence[Example], first: int, drives: int, seconds: int
) -> Evaluation:
    labels = predictor.spec.outputs[output].labels
    wanted = [getattr(predictor.spec.inputs, name) is not None for name in MODALITY_NAMES]
    names = [name for name, here in zip(MODALITY_NAMES, wanted, strict=True) if here]
    started_s = time.process_time()
    confusion_LL = confusion(predictor, held_out, output, names)
    cpu_s = time.process_time() - started_s
    rows = [_row("all", confusion_LL)]
    if len(names) > 1:
        rows += [_row(f"{name} alone", confusion(predictor, held_out, output, [name])) for name in names]
        for missing in names:
            rest = [name for name in names if name != missing]
            rows.append(_row(f"{missing} missing", confusion(predictor, held_out, output, rest)))
    present = np.mean([example.sample.present for example in held_out], axis=0)
    return Evaluation(
        model=predictor.name,
        version=predictor.version,
        output=output,
        labels=labels,
        first_seed=first,
        drives=drives,
        seconds=seconds,
        windows=len(held_out),
        rows=tuple(rows),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion_LL),
        present={name: round(float(share), 4) for name, share in zip(MODALITY_NAMES, present, strict=True)},
        cpu_ms_predict=round(1000 * cpu_s / len(held_out), 2),
    )


def confusion(predictor: Predictor, given: Sequence[Example], output: str, names: Sequence[str]) -> NDArray[np.int64]:
    """Count what is said of samples of which only some modalities are shown.

    Returns:
        [L, L].
    """
    labels = predictor.spec.outputs[output].labels
    counts_LL = np.zeros((len(labels), len(labels)), np.int64)
    for start in range(0, len(given), BATCH):
        batch = given[start : start + BATCH]
        said = predictor.predict([only(example.sample, names) for example in batch])
        for example, prediction in zip(batch, said, strict=True):
            counts_LL[labels.index(example.labels[output]), labels.index(prediction.outputs[output]["label"])] += 1
    return counts_LL


def only(sample: Sample, names: Sequence[str]) -> Sample:
    """The sample as if the other modalities had never come."""
    kept = {
        field: value
        for field, value in msgspec.structs.asdict(sample).items()
        if field in ("present", "coverage") or field.split("_")[0] in names
    }
    kept["present"] = tuple(p and n in names for p, n in zip(sample.present, MODALITY_NAMES, strict=True))
    kept["coverage"] = tuple(c if n in names else 0.0 for c, n in zip(sample.coverage, MODALITY_NAMES, strict=True))
    return Sample(**kept)


def _row(given: str, confusion_LL: NDArray[np.int64]) -> Row:
    hits_L = np.diag(confusion_LL)
    f1_L = 2 * hits_L / np.maximum(1, confusion_LL.sum(0) + confusion_LL.sum(1))
    seen_L = confusion_LL.sum(1) > 0
    return Row(given, round(float(hits_L.sum() / confusion_LL.sum()), 4), round(float(f1_L[seen_L].mean()), 4))


def show(evaluation: Evaluation, console: Console) -> None:
    """Print an evaluation as a table."""
    title = f"{evaluation.model} {evaluation.version}, {evaluation.output}: {evaluation.windows} held-out windows"
    table = Table("given", "accuracy", "macro-F1", title=title)
    for row in evaluation.rows:
        table.add_row(row.given, f"{row.accuracy:.3f}", f"{row.macro_f1:.3f}")
    console.print(table)


def write_json(evaluations: Sequence[Evaluation], path: Path) -> None:
    """Write all that was measured, for scripts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(msgspec.to_builtins(evaluations), indent=2) + "\n", "utf-8")


def write_card(evaluations: Sequence[Evaluation], folder: Path) -> None:
    """Replace what stands between the markers of the model card with what was measured.

    Raises:
        UsageError: The card has no markers.
    """
    path = folder / CARD_FILE
    card = path.read_text("utf-8") if path.is_file() else ""
    before, start, rest = card.partition(CARD_START)
    _, end, after = rest.partition(CARD_END)
    if not start or not end:
        raise UsageError(f"{path} needs the lines {CARD_START} and {CARD_END} for the table to stand between")
    measured = "\n\n".join(_markdown(evaluation) for evaluation in evaluations)
    path.write_text(f"{before}{start}\n{measured}\n{end}{after}", "utf-8")


def _markdown(evaluation: Evaluation) -> str:
    last_seed = evaluation.first_seed + evaluation.drives - 1
    present = ", ".join(f"{name} {share:.1%}" for name, share in evaluation.present.items())
    lines = [
        f"Output `{evaluation.output}`, version `{evaluation.version}`: {evaluation.windows} windows of "
        f"{evaluation.drives} drives (seeds {evaluation.first_seed}–{last_seed}, {evaluation.seconds} s each), none of "
        f"which was trained on. Share of the windows that have each modality: {present}. "
        f"{evaluation.cpu_ms_predict} ms of CPU a window in batches of {BATCH}, from sample to prediction.",
        "",
        "| given | accuracy | macro-F1 |",
        "|---|---|---|",
        *(f"| {row.given} | {row.accuracy:.3f} | {row.macro_f1:.3f} |" for row in evaluation.rows),
        "",
        "With all modalities, rows true, columns said:",
        "",
        f"| | {' | '.join(evaluation.labels)} |",
        "|---" * (len(evaluation.labels) + 1) + "|",
        *(
            f"| **{label}** | {' | '.join(str(count) for count in counts)} |"
            for label, counts in zip(evaluation.labels, evaluation.confusion, strict=True)
        ),
    ]
    return "\n".join(lines)
