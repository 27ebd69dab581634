"""What pretrained weights are worth where examples are few: handwritten digits, the same recipe with and without them.

    python -m bench.backbones --mnist DIR                # ten examples a digit
    python -m bench.backbones --mnist DIR --shots 30

Images are MNIST's (idx files); none is both in training and in the test. EfficientNet-Lite0's weights are those of the
sense ``backbone`` (`streamer senses`), which learnt from photographs, and digits are far from these. Milliseconds and
seconds are CPU time of one thread where OMP_NUM_THREADS=1. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from bench import rig
from bench.digits import DIGITS, read_images, read_labels
from streamer.model import repository
from streamer.model.predictor import Predictor
from streamer.model.sample import Sample
from streamer.model.spec import read_spec
from streamer.training.dataset import Example
from streamer.training.fit import fit
from streamer.training.recipe import Recipe

SIDE = 96  # pixels that a digit of 28 is enlarged to
TEST, VALIDATION = slice(600, 1000), slice(550, 600)  # numbers of images in the file; training takes the first ones
EPOCHS, BATCH, SPEED_BATCH, SPEED_CALLS = 12, 16, 16, 8
LITE0 = 'encoder = "timm:tf_efficientnet_lite0"'
ENCODERS = {
    "`cnn`": 'encoder = "cnn"',
    "EfficientNet-Lite0, random": LITE0,
    "EfficientNet-Lite0, pretrained, trained on": f'{LITE0}, pretrained = "backbone"',
    "EfficientNet-Lite0, pretrained, frozen": f'{LITE0}, pretrained = "backbone", frozen = true',
}
MODEL = """
name = "digits"
version = "1"
window_ms = 1000
[inputs.image]
frames = 1
height = {side}
width = {side}
[outputs.digit]
labels = {labels}
[architecture]
size = "small"
image = {{ {encoder} }}
"""


class Row(NamedTuple):
    """One encoder: its accuracy, CPU seconds of training, ms of a picture as served."""

    name: str
    accuracy: float
    train_cpu_s: float
    ms: float


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True, help="folder with …-images-idx3-ubyte and …-labels…")
    parser.add_argument("--shots", type=int, default=10, help="training examples of each digit (10)")
    options = parser.parse_args(arguments)
    examples = read(options.mnist)
    rows = [measured(name, encoder, examples, options.shots) for name, encoder in ENCODERS.items()]
    print("| encoder | accuracy | training, CPU s | served, ms a picture |\n|---|---|---|---|")
    for name, accuracy, train_cpu_s, ms in rows:
        print(f"| {name} | {accuracy:.3f} | {train_cpu_s:.0f} | {ms:.1f} |")
    print(f"\n{options.shots} examples a digit, {len(examples[TEST])} to measure on.")


def read(folder: Path) -> list[Example]:
    """Every digit of the file, enlarged."""
    found = []
    for pixels, label in zip(read_images(folder), read_labels(folder), strict=True):
        image_HW3 = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BILINEAR).convert("RGB"))
        sample = Sample(
            present=(True, False, False, False),
            coverage=(1.0, 0.0, 0.0, 0.0),
            image_FHW3=image_HW3[None],
            image_mask_F=np.ones(1, np.bool_),
        )
        found.append(Example(sample, {"digit": str(label)}))
    return found


def measured(name: str, encoder: str, examples: list[Example], shots: int) -> Row:
    """Train with the same recipe, whatever the encoder is, and measure."""
    rig.console.log(name)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "model.toml").write_text(MODEL.format(side=SIDE, labels=DIGITS, encoder=encoder).replace("'", '"'))
        recipe = Recipe(epochs=EPOCHS, batch=BATCH, learning_rate=1e-3, patience=EPOCHS, contrast=0.0)
        began_s = time.process_time()
        training = few(examples[: VALIDATION.start], shots)
        fitted = fit(folder, read_spec(folder), training, examples[VALIDATION], recipe, rig.console)
        train_cpu_s = time.process_time() - began_s
        repository.write(folder, fitted.module, fitted.tokenizer, {})
        predictor = Predictor.load(folder, "cpu")  # the folder has all weights: the sense is not read again
    test = examples[TEST]
    said = [
        prediction.outputs["digit"]["label"]
        for first in range(0, len(test), SPEED_BATCH)
        for prediction in predictor.predict([example.sample for example in test[first : first + SPEED_BATCH]])
    ]
    accuracy = float(np.mean([label == example.labels["digit"] for label, example in zip(said, test, strict=True)]))
    batch = [example.sample for example in test[:SPEED_BATCH]]
    took_s = []
    for _ in range(SPEED_CALLS):
        began_s = time.process_time()
        predictor.predict(batch)
        took_s.append(time.process_time() - began_s)
    return Row(name, accuracy, train_cpu_s, float(np.median(took_s)) * 1000 / SPEED_BATCH)


def few(examples: Sequence[Example], shots: int) -> list[Example]:
    """The first examples of each digit."""
    return [example for digit in DIGITS for example in [e for e in examples if e.labels["digit"] == digit][:shots]]


if __name__ == "__main__":
    rig.run(main)
