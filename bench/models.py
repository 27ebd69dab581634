"""How near a worker comes to the bare model as the model grows: ``bench.pipeline`` with larger encoders of the camera.

    python -m bench.models

What a window costs beside decoding and the model is the same whatever the model is, so the ratio tends to 1. The models
are ``models/driving`` and copies of it with another encoder, whose weights are untrained: they cost what trained ones
do. It is a worker's CPU alone, with one thread for the model, as in ``bench.pipeline``.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from bench import pipeline, rig
from bench.rig import Bare, Curve, Figure, Plot, Report, Rig, Run, Spread
from streamer.model import repository
from streamer.model.spec import SPEC_FILE, read_spec

DRIVING = rig.ROOT / "models" / "driving"
ENCODERS = ("timm:resnet10t", "timm:resnet18", "timm:resnet50")
SECONDS, QUICK_SECONDS = 10, 2
SMALL_FACTOR = 5  # times as many windows for models/driving as it is, which would be done within a second


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the rounds and report."""
    options = rig.parse(rig.parser(__doc__, rounds=4), arguments)
    measured: dict[str, tuple[list[Bare], list[Run]]] = {}
    with Rig(options.device) as bench:
        for encoder in (None, *(ENCODERS[:1] if options.quick else ENCODERS)):
            model = DRIVING if encoder is None else larger(bench.folder, encoder)
            seconds = (QUICK_SECONDS if options.quick else SECONDS) * (SMALL_FACTOR if encoder is None else 1)
            load = bench.preload(pipeline.SESSIONS, seconds, model=model)
            measured[encoder or "as it is"] = pipeline.measure(bench, load, rig.rounds(options))
    note = (
        f"{load.windows:,} windows of {load.payload_bytes / load.windows / 1e6:.2g} MB a round and model; "
        f"{SMALL_FACTOR} times as many for models/driving as it is."
    )
    rig.finish(Report("models", figures(measured), [note], [plot(measured)]), options)


def larger(where: Path, encoder: str) -> Path:
    """A copy of the driving model, untrained, with another encoder of its frames."""
    folder = where / encoder.replace(":", "-")
    shutil.copytree(DRIVING, folder)
    path = folder / SPEC_FILE
    path.write_text(path.read_text().replace("[architecture]\n", f'[architecture]\nimage = "{encoder}"\n'))
    spec, tokenizer = read_spec(folder), repository.read_tokenizer(folder)
    module = repository.new_module(spec, folder, tokenizer, pretrained=False)
    repository.write(folder, module, tokenizer, {})
    return folder


def figures(measured: dict[str, tuple[list[Bare], list[Run]]]) -> list[Figure]:
    """The ratios of all models, then what they are of."""
    found = []
    for name, (bare, worker) in measured.items():
        speed = [[run.windows_per_s for run in runs] for runs in (worker, bare)]
        found += [
            Figure(f"worker ÷ bare, {name}, windows a second", rig.ratios(*speed), better="higher", aim=pipeline.SPEED),
            Figure(f"worker ÷ bare, {name}, CPU s a window", rig.ratios(*costs(bare, worker)), aim=pipeline.COST),
        ]
    for name, (bare, worker) in measured.items():
        for who, values in zip(("worker", "bare"), costs(bare, worker), strict=True):
            found.append(Figure(f"{who}, {name}, CPU a window", Spread.of(values), "ms"))
    return found


def costs(bare: Sequence[Run], worker: Sequence[Run]) -> list[list[float]]:
    """CPU ms a window of the worker's runs and of the bare ones."""
    return [[run.cpu_ms_per_window for run in runs] for runs in (worker, bare)]


def plot(measured: dict[str, tuple[list[Bare], list[Run]]]) -> Plot:
    """The ratio over the cost of the bare model."""
    points = []
    for bare, worker in measured.values():
        whole, own = costs(bare, worker)
        points.append((Spread.of(own).median, rig.ratios(whole, own).median))
    return Plot("models", "bare, CPU of a window, ms", "worker ÷ bare, CPU", [Curve("worker ÷ bare", sorted(points))])


if __name__ == "__main__":
    rig.run(main)
