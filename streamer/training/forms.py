"""How far the forms of a model differ from eager, and how fast each is, on windows of simulated drives.

The windows are shown whole, with each sensor alone, with each one missing, and empty: every form must give the same
answers in all of these cases, whatever the values where a mask is False.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from time import perf_counter

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from streamer.errors import ModelError
from streamer.model import forms
from streamer.model.predictor import Network
from streamer.model.sample import Sample, only
from streamer.model.spec import WEIGHTS_FILE, ModelSpec, read_network_spec
from streamer.terminal.tables import plain
from streamer.training.simulated import FIRST_HELD_OUT_SEED, drive_examples

BATCHES = (1, 8, 32)  # windows in a model call
TIMED_S = 1.0  # each batch size is run for at least this long


class Measured(msgspec.Struct, frozen=True):
    """A form on this machine.

    Attributes:
        reason: Why it cannot run here; ``None`` if it can.
        version: As in results.
        file_bytes: Size of the file with its weights.
        score_difference: Largest difference of a score from the first form that runs, over all windows and cases.
        embedding_difference: Likewise, of an element of the embedding.
        tolerance: Upper limit of both.
        ms: Time of one model call by its number of windows, from samples to prediction.
    """

    form: str
    reason: str | None = None
    version: str = ""
    file_bytes: int = 0
    score_difference: float = 0.0
    embedding_difference: float = 0.0
    tolerance: float = 0.0
    ms: dict[int, float] = {}

    @property
    def fits(self) -> bool:
        """Whether its answers are the same within its tolerance; a form that does not run counts as fitting."""
        return self.reason is not None or max(self.score_difference, self.embedding_difference) <= self.tolerance


Answers = list[tuple[dict[str, NDArray[np.float32]], NDArray[np.float32]]]


def compare(folder: Path, device: str, windows: int, on_form: Callable[[str], None]) -> list[Measured]:
    """Run every form of a model.

    Args:
        windows: How many to compare on; each is shown in every case.
        on_form: Called with a form's name before it is measured, which may take a minute.

    Raises:
        ModelError: The folder has no form that runs.
    """
    spec = read_network_spec(folder)
    drive = drive_examples(FIRST_HELD_OUT_SEED, 2 + windows * spec.window_ms // 1000, spec)
    shown = [example.sample for example in islice(drive, windows)]
    cases = list(_cases(shown, list(spec.inputs.all)))
    reference: Answers | None = None
    found = []
    for form in forms.TOLERANCES:
        on_form(form)
        try:
            predictor = _predictor(folder, form, device)
        except ModelError as error:
            found.append(Measured(form, reason=str(error)))
            continue
        answers = [predictor.answer(case) for case in cases]
        reference = reference or answers
        scores, embedding = _differences(answers, reference, spec)
        found.append(
            Measured(
                form,
                version=predictor.version,
                file_bytes=forms.size_bytes(folder, form),
                score_difference=scores,
                embedding_difference=embedding,
                tolerance=forms.TOLERANCES[form],
                ms={batch: _time_ms(predictor, shown, batch) for batch in BATCHES},
            )
        )
    if reference is None:
        raise ModelError(f"no form of {folder} runs here: {found[0].reason}")
    return found


def _predictor(folder: Path, form: str, device: str) -> Network:
    if forms.real(folder, form) != form:
        raise ModelError(f"{folder} has an ONNX model and no {WEIGHTS_FILE}")
    predictor = Network.load(folder, device=device, form=form)
    predictor.warm_up()
    return predictor


def _cases(shown: Sequence[Sample], names: Sequence[str]) -> Iterator[list[Sample]]:
    """The windows as they are, then with less and less in them; the last batch is one empty window."""
    yield list(shown)
    for name in names:
        yield [only(sample, [name]) for sample in shown]
        yield [only(sample, [other for other in names if other != name]) for sample in shown]
    yield [shown[0], Sample.empty(), *shown[1:]]
    yield [Sample.empty()]


def _differences(answers: Answers, reference: Answers, spec: ModelSpec) -> tuple[float, float]:
    """Largest differences of scores and of embeddings; a number's is relative to the largest number in the batch."""
    scores = embedding = 0.0
    for (own, own_BD), (known, known_BD) in zip(answers, reference, strict=True):
        for name, known_BL in known.items():
            scale = max(1.0, float(np.abs(known_BL).max())) if spec.outputs[name].kind == "number" else 1.0
            scores = max(scores, float(np.abs(own[name] - known_BL).max()) / scale)
        embedding = max(embedding, float(np.abs(own_BD - known_BD).max()))
    return scores, embedding


def _time_ms(predictor: Network, shown: Sequence[Sample], batch: int) -> float:
    """Median time of a call, without the first."""
    given = [shown[i % len(shown)] for i in range(batch)]
    predictor.answer(given)
    times_s: list[float] = []
    while sum(times_s) < TIMED_S:
        began_s = perf_counter()
        predictor.answer(given)
        times_s.append(perf_counter() - began_s)
    return round(1000 * float(np.median(times_s)), 2)


def view(found: Sequence[Measured]) -> Table:
    """The forms that run, as a table of at most 80 columns."""
    table = plain("form", gap=2)
    for name in ("file MB", "scores", "embedding", *(f"ms for {batch}" for batch in BATCHES), "windows/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        if one.reason is None:
            fastest = max(1000 * batch / ms for batch, ms in one.ms.items())
            style = "" if one.fits else "red"
            table.add_row(
                one.form,
                f"{one.file_bytes / 1e6:.1f}",
                f"{one.score_difference:.0e}",
                f"{one.embedding_difference:.0e}",
                *(f"{ms:.1f}" for ms in one.ms.values()),
                f"{fastest:.0f}",
                style=style,
            )
    return table


def notes(found: Sequence[Measured]) -> Iterator[str]:
    """Notes to the table: what the differences are, which are too large, what does not run and why."""
    first = next(one.form for one in found if one.reason is None)
    yield f"scores, embedding: largest difference from {first}, with sensors missing too; windows/s: the best of all"
    for one in found:
        if one.reason is not None:
            yield f"{one.form} does not run here: {one.reason}"
        elif not one.fits:
            yield f"{one.form} differs by more than {one.tolerance:g}: do not serve it"
