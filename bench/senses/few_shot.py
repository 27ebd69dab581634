"""Labels learned from ten windows each on frozen senses, and measured on all others."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from PIL import Image
from rich.console import Console

from bench.digits import read_images, read_labels
from bench.senses import Table
from streamer.settings import Settings
from streamer.training import few_shot

SHOTS = 10
WRITTEN = 300  # pictures of MNIST
Line = dict[str, Any]


def measure(settings: Settings, data: Path) -> Table:
    """Tasks on real recordings, from those that the senses know about to those that they do not."""
    tasks = (
        ("who speaks, of 2 (Free Spoken Digit Dataset)", "sounds", _speakers),
        ("which digit is said, of 10 (the same)", "sounds", _spoken),
        ("which digit is written, of 10 (MNIST)", "pictures", _written),
    )
    rows = []
    for name, sense, lines_of in tasks:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            lines = list(lines_of(data, folder))
            labels = sorted({str(line["label"]) for line in lines})
            (folder / "model.toml").write_text(_model(labels, sense))
            (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            report = few_shot.learn(folder, folder, settings, Console(stderr=True))
        (score,) = report.scores
        right, frequent = few_shot.shown(score.right, score.windows), f"{score.most_frequent:.0%}"
        rows.append((name, sense, right, frequent, f"{len(lines)}, {report.cpu_seconds:.0f} s"))
    about = (
        "Ten windows of each label to learn from, all others to test on; of the spoken digits there are ten each, of "
        "which those of one take in five are held out in turn. In brackets the 95 % interval."
    )
    return Table(about, ("what", "sense", "right", "most frequent label", "windows in all, CPU time"), rows)


def _model(labels: list[str], sense: str) -> str:
    return (
        'name = "few"\nversion = "1"\nwindow_ms = 1000\n[senses.learned.what]\n'
        f"labels = {json.dumps(labels)}\nsenses = [{json.dumps(sense)}]\n"
    )


def _speakers(data: Path, folder: Path) -> Iterator[Line]:
    return _split({"audio": name, "label": speaker} for name, (_, speaker, _) in _sounds(data, folder))


def _spoken(data: Path, folder: Path) -> Iterator[Line]:
    """Only ten of each digit, so that those of a take are held out in turn."""
    return ({"audio": name, "label": digit, "group": take} for name, (digit, _, take) in _sounds(data, folder))


def _written(data: Path, folder: Path) -> Iterator[Line]:
    def lines() -> Iterator[Line]:
        images, labels = read_images(data / "mnist")[:WRITTEN], read_labels(data / "mnist")[:WRITTEN]
        for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
            Image.fromarray(pixels).save(folder / f"{number}.png")
            yield {"image": f"{number}.png", "label": str(label)}

    return _split(lines())


def _split(lines: Iterable[Line]) -> Iterator[Line]:
    """The first ten of each label to learn from, the others to test on."""
    seen: Counter[str] = Counter()
    for line in lines:
        seen[line["label"]] += 1
        yield {**line, "split": "train" if seen[line["label"]] <= SHOTS else "test"}


def _sounds(data: Path, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each recording's file, with silence up to a second, and the parts of its name: digit, speaker, take."""
    for path in sorted((data / "fsdd").glob("*.wav")):
        samples, rate_hz = soundfile.read(path, dtype="int16")
        soundfile.write(folder / path.name, np.pad(samples, (0, max(0, rate_hz - len(samples)))), rate_hz)
        yield path.name, path.stem.split("_")
