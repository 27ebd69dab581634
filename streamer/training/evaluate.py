"""Weights -> measured quality: on windows not used in training, with the code that serves."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import permutations
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from rich.console import Console

from streamer.errors import UsageError
from streamer.events import TEXT
from streamer.model.predictor import Network, Prediction, Predictor
from streamer.model.sample import Sample, only
from streamer.model.spec import WEIGHTS_FILE, ModelSpec, Output
from streamer.terminal.progress import track
from streamer.training import scores
from streamer.training.batches import Dataset
from streamer.training.calibrate import sets_of
from streamer.training.common_space import BATCH, WINDOW, vectors_of
from streamer.training.dataset import Example, Label
from streamer.training.recordings import samples_of
from streamer.training.scores import Classes, Quality, Recall
from streamer.training.simulated import FIRST_HELD_OUT_SEED, examples
from streamer.training.train import Source, opened

GALLERY = 1000  # most windows to search among
SPEED_BATCHES = (1, 8, 32)
REPEATS, WARM_UPS = 50, 3


class Row(msgspec.Struct, frozen=True):
    """Quality of an output with some of the sensors."""

    given: str
    quality: Quality


class Head(msgspec.Struct, frozen=True):
    """Measurements of one output; ``rows``: all sensors first, then each alone, then each missing."""

    name: str
    kind: str
    labels: tuple[str, ...]
    unit: str
    rows: tuple[Row, ...]


class Speed(msgspec.Struct, frozen=True):
    """From samples to predictions, without cutting and decoding, over REPEATS calls."""

    batch: int
    median_ms: float
    p99_ms: float
    windows_per_s: float


class Sure(msgspec.Struct, frozen=True):
    """How often the model is sure of an output of classes, and how often it is right then.

    Attributes:
        share: Of the windows.
        right: Share of those; ``None`` if there is none.
    """

    output: str
    given: str
    share: float
    right: float | None


class Other(msgspec.Struct, frozen=True):
    """What the model says of a recording that it was not made for.

    Attributes:
        windows: With anything that the model reads.
        strange: Sensor -> share of the windows with it in which it is strange to the model.
        sure: Output -> share of the windows in which the model is sure of it.
        scores: Output of classes -> share of the windows whose best label has a score that would be enough, were
            nothing strange.
    """

    name: str
    windows: int
    strange: dict[str, float]
    sure: dict[str, float]
    scores: dict[str, float]


class Evaluation(msgspec.Struct, frozen=True):
    """What was measured, and on what.

    Attributes:
        present: Share of the windows that have each sensor.
        sure: Of each output of classes, all sensors first; empty without a calibration.
        strange: Sensor -> share of the windows with it in which it is strange to the model.
        others: Recordings that the model was not made for.
        recalls: Of every ordered pair of sensors in the common embedding space, and of each to whole windows; empty
            if the model has no such vectors.
    """

    model: str
    version: str
    data: str
    windows: int
    present: dict[str, float]
    heads: tuple[Head, ...]
    sure: tuple[Sure, ...]
    strange: dict[str, float]
    others: tuple[Other, ...]
    recalls: tuple[Recall, ...]
    device: str
    speeds: tuple[Speed, ...]


class HeldOut(msgspec.Struct, frozen=True):
    """Windows not used in training, and their description."""

    windows: Dataset
    told: str


def simulated(spec: ModelSpec, source: Source, seed: int, console: Console) -> HeldOut:
    """Held-out drives; the first of their seeds is ``FIRST_HELD_OUT_SEED + 1000 × seed``.

    Raises:
        UsageError: There are no windows to measure on.
    """
    if source.drives < 1 or source.seconds < 2 or seed < 0:
        raise UsageError("--drives must be above 0, --seconds above 1 and --seed not negative")
    first = FIRST_HELD_OUT_SEED + 1000 * seed
    windows = examples(range(first, first + source.drives), source.seconds, spec, source.cache, console)
    last = first + source.drives - 1
    return HeldOut(windows, f"{source.drives} simulated drives (seeds {first}–{last}, {source.seconds} s each)")


def from_data(spec: ModelSpec, path: Path, seed: int, console: Console, *, skip_bad: bool) -> HeldOut:
    """The test part of a data set.

    Args:
        seed: The training's seed, which draws the parts that the data do not define.
    """
    return HeldOut(opened(path, spec, seed, console, skip_bad=skip_bad)[2], f"the test part of {path.name}")


def evaluate(
    folder: Path, predictor: Network, held_out: HeldOut, console: Console, others: Sequence[Path] = ()
) -> Evaluation:
    """Measure a model: each output, what it is sure of, the common embedding space, the speed.

    Args:
        others: Recordings that it was not made for.

    Raises:
        ModelError: The folder cannot be loaded.
        UsageError: There are no windows to measure on.
    """
    windows = held_out.windows
    if not len(windows):
        raise UsageError(f"{held_out.told} has no windows to measure on")
    spec = predictor.spec
    names = list(spec.inputs.all)
    shown = sets_of(names)
    seen = look(predictor, windows, shown, console)
    heads = []
    for name, output in spec.outputs.items():
        if any(name in row for row in seen.labels):
            heads.append(_head(name, output, seen))
        else:
            console.log(f"no window has a label for the output {name!r}: it is not measured")
    gallery = [windows[n] for n in np.linspace(0, len(windows) - 1, min(GALLERY, len(windows))).astype(int).tolist()]
    return Evaluation(
        model=predictor.name,
        version=predictor.version,
        data=held_out.told,
        windows=len(windows),
        present=_shares(seen.present),
        heads=tuple(heads),
        sure=tuple(_sure(heads, seen)) if any(seen.novelties) or spec.unsure_below else (),
        strange=_strange(seen.novelties),
        others=tuple(_other(predictor, path, console) for path in others),
        recalls=tuple(recalls(folder, predictor, gallery, console)),
        device=str(predictor.device),
        speeds=tuple(speed(predictor, [example.sample for example in gallery], console)),
    )


class Seen(NamedTuple):
    """Result of one pass over the windows.

    Attributes:
        said: Name of a set of sensors -> for each window, output -> decision.
        labels: Of each window.
        present: Of each window, which sensors it has and which not.
        novelties: Of each window with all sensors.
    """

    said: dict[str, list[dict[str, Any]]]
    labels: list[dict[str, Label]]
    present: list[dict[str, bool]]
    novelties: list[dict[str, float]]


def look(predictor: Predictor, windows: Dataset, shown: Mapping[str, Sequence[str]], console: Console) -> Seen:
    """Predict windows with different sets of sensors; each window is read once.

    Args:
        shown: Name of a set -> its sensors.
    """
    seen = Seen({given: [] for given in shown}, [], [], [])
    for start in track(range(0, len(windows), BATCH), "measuring the outputs", console):
        batch = [windows[n] for n in range(start, min(start + BATCH, len(windows)))]
        seen.labels.extend(example.labels for example in batch)
        seen.present.extend(dict(zip(s.sensors.names, s.present, strict=True)) for s in (e.sample for e in batch))
        for given, names in shown.items():
            predictions = predictor.predict([only(example.sample, names) for example in batch])
            seen.said[given] += [prediction.outputs for prediction in predictions]
            if len(names) == len(predictor.spec.inputs.all):
                seen.novelties.extend(prediction.novelty for prediction in predictions)
    return seen


def _sure(heads: Sequence[Head], seen: Seen) -> Iterator[Sure]:
    for head in (head for head in heads if head.kind == "classes"):
        labelled = [n for n, row in enumerate(seen.labels) if head.name in row]
        for given, said in seen.said.items():
            sure = [n for n in labelled if not said[n][head.name].get("unsure")]
            right = [said[n][head.name]["label"] == seen.labels[n][head.name] for n in sure]
            share = round(len(sure) / len(labelled), 4)
            yield Sure(head.name, given, share, round(float(np.mean(right)), 4) if right else None)


def _strange(novelties: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for novelty in novelties for name in novelty)
    return {
        name: round(float(np.mean([novelty[name] > 1 for novelty in novelties if name in novelty])), 4)
        for name in names
    }


def _other(predictor: Network, path: Path, console: Console) -> Other:
    samples = samples_of(path, predictor.spec)
    if not samples:
        raise UsageError(f"{path} has nothing that {predictor.name} reads")
    said: list[Prediction] = []
    for start in track(range(0, len(samples), BATCH), f"a recording, {path.name}", console):
        said += predictor.predict(samples[start : start + BATCH])
    least = predictor.spec.unsure_below
    return Other(
        path.name,
        len(samples),
        _strange([one.novelty for one in said]),
        {name: _share(not one.outputs[name].get("unsure") for one in said) for name in predictor.spec.outputs},
        {
            name: _share(one.outputs[name]["score"] >= least.get(name, 0.0) for one in said)
            for name, output in predictor.spec.outputs.items()
            if output.kind == "classes"
        },
    )


def _share(of: Iterable[bool]) -> float:
    return round(float(np.mean([*of])), 4)


def _shares(present: Sequence[dict[str, bool]]) -> dict[str, float]:
    names = dict.fromkeys(name for here in present for name in here)
    return {name: round(float(np.mean([here.get(name, False) for here in present])), 4) for name in names}


def _head(name: str, output: Output, seen: Seen) -> Head:
    labelled = [n for n, row in enumerate(seen.labels) if name in row]
    true = [seen.labels[n][name] for n in labelled]
    rows = [Row(given, quality(output, true, [said[n][name] for n in labelled])) for given, said in seen.said.items()]
    return Head(name, output.kind, output.labels, output.unit, tuple(rows))


def quality(output: Output, true: Sequence[Label], said: Sequence[dict[str, Any]]) -> Quality:
    """Measure decisions, as they are published, against labels."""
    if output.kind == "number":
        return scores.of_number(np.array(true, np.float64), np.array([decision["value"] for decision in said]))
    scores_NL = np.array([[decision["scores"][label] for label in output.labels] for decision in said])
    if output.kind == "tags":
        true_NL = np.array([[label in tags for label in output.labels] for tags in true])  # type: ignore[operator]
        return scores.of_tags(true_NL, scores_NL, output.labels)
    return scores.of_classes(np.array([output.labels.index(label) for label in true]), scores_NL)


def recalls(folder: Path, predictor: Network, gallery: Sequence[Example], console: Console) -> Iterator[Recall]:
    """How well each sensor finds the others in the common embedding space; empty for models without weights.

    Args:
        predictor: In any form; only eager has all vectors, so that is loaded if the form is another.
        gallery: The windows to search with and among.
    """
    if not (folder / WEIGHTS_FILE).is_file():
        return  # a foreign ONNX model has no vectors of single sensors
    plain = Network.load(folder, str(predictor.device)) if "+" in predictor.version else predictor
    vectors = vectors_of(plain, gallery, "measuring the common space", console)
    labels = [tuple(sorted(e.labels.items())) for e in gallery] if any(e.labels for e in gallery) else None
    spaces = [name for name in vectors if name != WINDOW]
    for query, found in [*permutations(spaces, 2), *((name, WINDOW) for name in spaces)]:
        (query_ND, here_N), (found_ND, there_N) = vectors[query], vectors[found]
        both = np.flatnonzero(here_N & there_N)
        if len(both) > 1:
            content = [_content(gallery[n].sample, found, n) for n in both.tolist()]
            kinds = [labels[n] for n in both.tolist()] if labels is not None else None
            measured = scores.recall(query_ND[both], found_ND[both], content, kinds)
            yield Recall(query, found, len(both), *measured)


def _content(sample: Sample, sensor: str, number: int) -> object:
    """The content by which candidates are equal: their words; measurements are never equal."""
    number_of_sensor = sample.sensors.numbers.get(sensor)
    if number_of_sensor is None or sample.sensors.rows[number_of_sensor] != TEXT:
        return number
    return tuple(phrase.text for phrase in sample.of(sensor).text)


def speed(predictor: Predictor, samples: Sequence[Sample], console: Console) -> Iterator[Speed]:
    """Time of one call by batch size."""
    for size in track(SPEED_BATCHES, "measuring the speed", console):
        batch = [samples[n % len(samples)] for n in range(size)]
        times_ms = []
        for _ in range(WARM_UPS + REPEATS):
            started_ns = time.perf_counter_ns()
            predictor.predict(batch)
            times_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
        median, p99 = np.percentile(times_ms[WARM_UPS:], (50, 99)).tolist()
        yield Speed(size, round(median, 2), round(p99, 2), round(1000 * size / median, 1))


def write_json(evaluation: Evaluation, path: Path) -> None:
    """Write all measurements, for scripts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(msgspec.to_builtins(evaluation), indent=2) + "\n", "utf-8")


def draw_confusions(evaluation: Evaluation, folder: Path) -> list[Path]:
    """A picture of the confusion matrix of each output of kind classes, with all sensors."""
    from streamer.training import plots

    paths = []
    for head in evaluation.heads:
        whole = head.rows[0].quality
        if isinstance(whole, Classes):
            paths.append(folder / confusion_file(head.name))
            plots.confusion(paths[-1], np.array(whole.confusion), head.labels, f"{evaluation.model}: {head.name}")
    return paths


def confusion_file(output: str) -> str:
    """Name of the picture of an output's confusion matrix."""
    return f"confusion-{output}.png"
