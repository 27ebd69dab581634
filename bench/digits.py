"""Does fusion help on real data? Handwritten and spoken digits, each made too poor to suffice alone.

Images are MNIST's (idx files), sounds the Free Spoken Digit Dataset's ({digit}_{speaker}_{take}.wav, 8 kHz). A pair is
an image and a sound of the same digit. No image and no take is in two parts: images are divided by their number in the
file, sounds by take. An image loses a quarter of its area to a blot and gets noise; a sound gets noise that is 2.2
times as loud as itself.

One model is trained on pairs and measured with both, and with each modality alone; two more are trained on one modality
only, as what a user of that sensor alone would have. Prints a Markdown table, or JSON with --json.

    python bench/digits.py --mnist DIR --fsdd DIR
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import soundfile
from numpy.typing import NDArray
from rich.console import Console

from streamer.model import repository
from streamer.model.predictor import Predictor
from streamer.model.sample import Sample, only
from streamer.model.spec import read_spec
from streamer.training import evaluate
from streamer.training.data import idx
from streamer.training.dataset import Example
from streamer.training.fit import fit
from streamer.training.recipe import Augment, Recipe
from streamer.training.scores import Classes

DIGITS = [str(digit) for digit in range(10)]
RATE_HZ, WINDOW_S = 8000, 1.0
SIDE = 28  # pixels
BLOT = (14, 14)  # pixels down and across that are blotted out, at a random place
IMAGE_NOISE = 90.0  # deviation, of 255
SOUND_NOISE = 2.2  # of the deviation of the sound where it is heard
# part -> (first and last image of the file, takes, pairs of each image)
PARTS = {"training": (0, 750, "567", 6), "validation": (750, 800, "8", 4), "test": (800, 1000, "9", 5)}
MODEL = """
name = "digits"
version = "1"
window_ms = 1000
[outputs.digit]
labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]
[architecture]
size = "small"
"""
INPUTS = {
    "image": f"[inputs.image]\nframes = 1\nheight = {SIDE}\nwidth = {SIDE}\n[architecture.image]\npatch = 2\n",
    "audio": f"[inputs.audio]\nrate_hz = {RATE_HZ}\n",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", type=Path, required=True, help="folder with …-images-idx3-ubyte and …-labels…")
    parser.add_argument("--fsdd", type=Path, required=True, help="folder with {digit}_{speaker}_{take}.wav")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="JSON in place of the table")
    options = parser.parse_args()
    figures = measure(options.mnist, options.fsdd, options.epochs, options.seed, Console(stderr=True))
    print(json.dumps(figures, indent=2) if options.json else table(figures))


def measure(mnist: Path, fsdd: Path, epochs: int, seed: int, console: Console) -> dict[str, Any]:
    started_s, cpu_s = time.monotonic(), time.process_time()
    images, labels, sounds = read_images(mnist), read_labels(mnist), read_sounds(fsdd)
    parts = {name: pairs(images, labels, sounds, name, seed) for name in PARTS}
    rows: dict[str, Any] = {}
    both = trained(["image", "audio"], parts, epochs, seed, console)
    shown = {"both": ["image", "audio"], "image alone": ["image"], "audio alone": ["audio"]}
    rows |= quality(both, parts["test"], shown, console)
    for name in INPUTS:
        single = trained([name], parts, epochs, seed, console)
        rows |= quality(single, parts["test"], {f"{name} alone, trained on it alone": [name]}, console)
    return {
        "pairs": {name: len(part) for name, part in parts.items()},
        "images": {name: last - first for name, (first, last, _, _) in PARTS.items()},
        "takes": {name: takes for name, (_, _, takes, _) in PARTS.items()},
        "rows": rows,
        "seconds": round(time.monotonic() - started_s),
        "cpu_seconds": round(time.process_time() - cpu_s),
    }


def read_images(folder: Path) -> NDArray[np.uint8]:
    return idx.read(one(folder, "*images-idx3-ubyte*"), 3)


def read_labels(folder: Path) -> NDArray[np.uint8]:
    return idx.read(one(folder, "*labels-idx1-ubyte*"), 1)


def one(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        sys.exit(f"{folder} must have one file like {pattern}, it has {len(found)}")
    return found[0]


def read_sounds(folder: Path) -> dict[tuple[str, str], list[NDArray[np.float32]]]:
    """(digit, take) -> the sounds of all speakers."""
    sounds: dict[tuple[str, str], list[NDArray[np.float32]]] = {}
    for path in sorted(folder.glob("*_*_*.wav")):
        digit, _, take = path.stem.split("_")
        sound, rate_hz = soundfile.read(path, dtype="float32")
        if rate_hz != RATE_HZ:
            sys.exit(f"{path} has {rate_hz} samples a second, not {RATE_HZ}")
        sounds.setdefault((digit, take), []).append(sound)
    return sounds


def pairs(
    images: NDArray[np.uint8],
    labels: NDArray[np.uint8],
    sounds: dict[tuple[str, str], list[NDArray[np.float32]]],
    part: str,
    seed: int,
) -> list[Example]:
    """Each image of a part with several sounds of its digit, each distorted separately."""
    first, last, takes, times = PARTS[part]
    random = np.random.default_rng((seed, first))
    examples = []
    for number in range(first, min(last, len(images))):
        digit = str(labels[number])
        candidates = [sound for take in takes for sound in sounds.get((digit, take), [])]
        for _ in range(times):
            sound = candidates[int(random.integers(len(candidates)))]
            sample = Sample(
                present=(True, True, False, False),
                coverage=(1.0, 1.0, 0.0, 0.0),
                image_FHW3=poor_image(images[number], random)[None],
                image_mask_F=np.ones(1, np.bool_),
                audio_S=poor_sound(sound, random),
                audio_mask_S=np.ones(int(RATE_HZ * WINDOW_S), np.bool_),
            )
            examples.append(Example(sample, {"digit": digit}))
    return examples


def poor_image(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """[SIDE, SIDE, 3]."""
    pixels = image.astype(np.float32)
    top, left = (int(random.integers(0, SIDE - size + 1)) for size in BLOT)
    pixels[top : top + BLOT[0], left : left + BLOT[1]] = 128.0
    pixels += random.normal(0, IMAGE_NOISE, pixels.shape)
    return np.repeat(pixels.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def poor_sound(sound: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """[RATE_HZ × WINDOW_S]: the sound somewhere in the window, under noise."""
    length = int(RATE_HZ * WINDOW_S)
    heard = sound[:length] / max(1e-6, float(sound.std()))
    window = random.normal(0, SOUND_NOISE, length)
    begin = int(random.integers(0, length - len(heard) + 1))
    window[begin : begin + len(heard)] += heard
    return (window / 10).clip(-1, 1).astype(np.float32)


def trained(
    modalities: list[str], parts: dict[str, list[Example]], epochs: int, seed: int, console: Console
) -> Predictor:
    folder = Path(tempfile.mkdtemp(prefix="digits-"))
    (folder / "model.toml").write_text(MODEL + "".join(INPUTS[name] for name in modalities))
    spec = read_spec(folder)
    training, validation = (
        [msgspec.structs.replace(e, sample=only(e.sample, modalities)) for e in parts[name]]
        for name in ("training", "validation")
    )
    # sixty recordings to learn from: noise alone does not keep the network from learning them by heart
    varied = Augment(audio_time_mask=0.2, audio_band_mask=0.2)
    recipe = Recipe(epochs=epochs, seed=seed, patience=epochs, augment=varied)
    console.log(f"training on {' and '.join(modalities)}")
    fitted = fit(folder, spec, training, validation, recipe, console)
    repository.write(folder, fitted.module, fitted.tokenizer, {})
    return Predictor.load(folder)


def quality(
    predictor: Predictor, test: list[Example], shown: dict[str, list[str]], console: Console
) -> dict[str, dict[str, float]]:
    """What was given -> figures."""
    output, rows = predictor.spec.outputs["digit"], {}
    seen = evaluate.look(predictor, test, shown, console)
    for given, said in seen.said.items():
        true = [labels["digit"] for labels in seen.labels]
        found = evaluate.quality(output, true, [outputs["digit"] for outputs in said])
        assert isinstance(found, Classes)
        rows[given] = {"accuracy": found.accuracy, "macro_f1": found.macro_f1, "ece": found.ece}
    return rows


def table(figures: dict[str, Any]) -> str:
    lines = ["| given | accuracy | macro-F1 | ECE |", "|---|---|---|---|"]
    for given, row in figures["rows"].items():
        lines.append(f"| {given} | {row['accuracy']:.3f} | {row['macro_f1']:.3f} | {row['ece']:.3f} |")
    counts = ", ".join(f"{count} {name}" for name, count in figures["pairs"].items())
    return "\n".join(lines) + f"\n\nPairs: {counts}. {figures['seconds']} s, {figures['cpu_seconds']} s of CPU."


if __name__ == "__main__":
    main()
