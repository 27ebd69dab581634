"""How fast models/everyday judges windows on one core, and whether its detector gains from batches.

    python -m bench.everyday [--record]

A real film of a car park, enlarged to 1280 × 720, cut into windows of one second as replay sends it: frames as JPEG,
one looked at in each window, with sound. Everything runs in one thread and in turns; CPU seconds count, since a machine
is shared. The detector runs beside OpenCV on the same file of weights, one picture at a time and eight. Senses that a
``model.toml`` does not name are left out one after another.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench import rig
from bench.rig import Figure, Report, Spread
from bench.senses.films import enlarged
from streamer.align.decode import Decoder
from streamer.errors import Stop, extra
from streamer.events import KINDS, ClosedBy, EventType, Position, Record, Window
from streamer.feeds import replay
from streamer.feeds.producer import headers
from streamer.model.predictor import Predictor
from streamer.senses import files
from streamer.senses.objects import Detector
from streamer.settings import Settings

FILM = "gopro/max-heromode.mp4"
SIZE = 1280, 720
START_US, WINDOW_US = 1_700_000_000_000_000, 1_000_000
BATCH = 8
WINDOWS_PER_S, GAIN = 4.0, 1.5  # the aims
MODEL = rig.ROOT / "models" / "everyday"
TABLES = ("objects", "sounds", "sentences")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    made = rig.parser(__doc__)
    made.add_argument("--data", type=Path, default=rig.ROOT.parent / "shared" / "data", help="recordings of the tests")
    options = rig.parse(made, arguments)
    if not (options.data / FILM).is_file():
        raise Stop(f"{options.data / FILM} is not there: --data names the folder with the recordings of the tests")
    settings = Settings.load(model=MODEL, device="cpu")
    with tempfile.TemporaryDirectory() as folder, rig.console.status("making the film"):
        film = enlarged(options.data / FILM, Path(folder) / "film.mp4", SIZE)
        windows = [*cut(film, settings)]
        models = {name: Predictor.load(without(Path(folder), *left), settings=settings) for name, left in LEFT.items()}
    found = measure(options, windows, models, settings)
    notes = [f"{len(windows)} windows; batches of {BATCH} unless one by one."]
    rig.finish(Report("everyday", figures(found), notes), options)


LEFT = {"all senses": (), "without objects": ("objects",), "words alone": TABLES}  # name -> tables that are left out


def measure(
    options: argparse.Namespace, windows: Sequence[Window], models: dict[str, Predictor], settings: Settings
) -> dict[str, list[float]]:
    """CPU seconds a window, or a picture, by what ran, in each round."""
    samples = {name: [model.decode(window)[0] for window in windows] for name, model in models.items()}
    pictures = [frame for sample in samples["all senses"] for frame in sample.frames][:BATCH]
    detector, peer = Detector(settings), opencv(settings)
    whole = models["all senses"]
    runs: dict[str, tuple[int, Callable[[], object]]] = {
        "OpenCV, one by one": (len(pictures), lambda: [peer([picture]) for picture in pictures]),
        "OpenCV, batch": (len(pictures), lambda: peer(pictures)),
        "detector, one by one": (len(pictures), lambda: [detector.detect([picture]) for picture in pictures]),
        "detector, batch": (len(pictures), lambda: detector.detect(pictures)),
        "decoding": (len(windows), lambda: [whole.decode(window) for window in windows]),
        **{name: (len(windows), judging(model, samples[name])) for name, model in models.items()},
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(1 + options.rounds):
        for name, (count, run) in runs.items():
            began_s = time.process_time()
            run()
            if number:  # the first round warms up
                found[name].append((time.process_time() - began_s) / count)
    return found


def judging(model: Predictor, samples: Sequence[Any]) -> Callable[[], object]:
    """Judge samples in batches."""
    return lambda: [model.predict(samples[start : start + BATCH]) for start in range(0, len(samples), BATCH)]


def figures(found: dict[str, list[float]]) -> list[Figure]:
    def ms(name: str) -> Figure:
        thing = "a picture" if "OpenCV" in name or "detector" in name else "a window"
        return Figure(f"{name}, CPU {thing}", Spread.of([1000 * value for value in found[name]]), "ms")

    def ratio(one: str, other: str) -> Spread:
        return Spread.of([b / a for a, b in zip(found[one], found[other], strict=True)])

    speed = [1 / (decode + judge) for decode, judge in zip(found["decoding"], found["all senses"], strict=True)]
    return [
        Figure("windows a core and second, 720p", Spread.of(speed), "windows/s", "higher", WINDOWS_PER_S),
        Figure(
            "batch ÷ OpenCV one by one, pictures/s", ratio("detector, batch", "OpenCV, one by one"), "", "higher", GAIN
        ),
        Figure("batch ÷ one by one, pictures/s", ratio("detector, batch", "detector, one by one"), "", "higher", GAIN),
        Figure("OpenCV, batch ÷ one by one, pictures/s", ratio("OpenCV, batch", "OpenCV, one by one"), "", "higher"),
        *(ms(name) for name in found),
    ]


def opencv(settings: Settings) -> Callable[[Sequence[NDArray[np.uint8]]], object]:
    """OpenCV with the same file, in one thread."""
    with extra("senses", "comparing with OpenCV"):
        import cv2
    located = files.find("objects", settings).files
    cv2.setNumThreads(1)
    network = cv2.dnn.readNetFromTensorflow(str(located["graph"]), str(located["text_graph"]))

    def detect(pictures: Sequence[NDArray[np.uint8]]) -> object:
        network.setInput(cv2.dnn.blobFromImages(list(pictures), size=(300, 300)))
        return network.forward()

    return detect


def without(folder: Path, *tables: str) -> Path:
    """A copy of the model whose ``model.toml`` does not name some senses."""
    copy = folder / "-".join(("everyday", *tables))
    copy.mkdir()
    text, left_out = "", False
    for line in (MODEL / "model.toml").read_text("utf-8").splitlines():
        if line.startswith("["):
            left_out = line.strip("[]").split("]")[0].split(".")[1] in tables
        text += "" if left_out else f"{line}\n"
    (copy / "model.toml").write_text(text, "utf-8")
    return copy


def cut(film: Path, settings: Settings) -> Iterator[Window]:
    """Windows of a second of a film, of the records that a replay would send."""
    decoder, session = Decoder(settings, partitions=1), b"film"
    recording = replay.open_all([film], replay.Options())
    events = [
        decoder.decode(Record(sent.row, 0, number, sent.due_us, session, sent.payload, tuple(headers(sent))))
        for number, sent in enumerate(recording.outgoing("film", START_US))
    ]
    events = [event for event in events if event.type is EventType.DATA]
    for start_us in range(START_US, max(event.end_us for event in events), WINDOW_US):
        end_us = start_us + WINDOW_US
        inside = [
            event for event in events if event.start_us < end_us and max(event.end_us, event.start_us + 1) > start_us
        ]
        rows = tuple(tuple(event for event in inside if event.row == row) for row in range(len(KINDS)))
        yield Window("film", 0, start_us, end_us, ClosedBy.COMPLETE, Position(0, 0, 0), rows, ())


if __name__ == "__main__":
    rig.run(main)
