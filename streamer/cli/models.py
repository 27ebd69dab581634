"""A model is made and measured: ``train``, ``learn``, ``calibrate``, ``evaluate``, ``export``, ``forms``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from streamer.cli.options import AsJson, console, emit, load_settings, say
from streamer.errors import extra

ModelDir = Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="A folder with a model.toml: models/driving.")]
DRIVES_CACHE = Path("runs/drives")
CacheDir = Annotated[Path, typer.Option(help="Where simulated drives are kept between runs, cut into windows.")]
DataPath = Annotated[
    Path | None,
    typer.Option("--data", help="A data set: a manifest, a folder for each label, MNIST, …: see docs/models.md."),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out bad rows of --data and name them.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]


def train(
    model_dir: ModelDir,
    data: DataPath = None,
    skip_bad: SkipBad = False,
    drives: Annotated[int, typer.Option(help="Without --data: simulated drives to learn from.")] = 120,
    seconds: Annotated[int, typer.Option(help="Length of each drive, s.")] = 60,
    epochs: Annotated[
        int | None, typer.Option(help="Most passes over the data; training ends early when nothing improves.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Chooses drives, the split of the data, and the first weights.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Windows in one forward pass.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Forward passes for one step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest rate of the one-cycle schedule.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16, or auto: bfloat16 on CUDA, else float32.")
    ] = None,
    compile_: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="torch.compile the model first: pays off on long runs."),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that load data; 0: this one alone.")] = None,
    shots: Annotated[int | None, typer.Option(help="Few-shot: learn from this many examples of each label.")] = None,
    device: Device = "auto",
    run_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of TensorBoard's logs and the checkpoint; default: runs/ and the model folder's name."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run.")] = False,
    cache: CacheDir = DRIVES_CACHE,
) -> None:
    """Train a model, on your data or on simulated drives.

    Writes weights.safetensors, tokenizer.json and learning_curves.png into the model's folder. An option that is not
    given is taken from the folder's train.toml, else has a default: docs/training.md. With several processes or GPUs:
    torchrun --nproc-per-node 2 -m streamer train MODEL_DIR.
    """
    from streamer.training.recipe import read_recipe
    from streamer.training.train import Source, train

    recipe = read_recipe(
        model_dir,
        epochs=epochs,
        seed=seed,
        batch=batch,
        accumulate=accumulate,
        learning_rate=learning_rate,
        precision=precision,
        compile=compile_,
        workers=workers,
        shots=shots,
    )
    report = train(
        model_dir,
        recipe,
        data if data is not None else Source(cache, drives, seconds),
        console(),
        run_dir=run_dir if run_dir is not None else Path("runs") / model_dir.resolve().name,
        resume=resume,
        device=device,
        skip_bad=skip_bad,
    )
    say(
        f"trained on {report.windows} windows in {report.seconds:.0f} s ({report.cpu_seconds:.0f} s of CPU); "
        f"now run `streamer evaluate {model_dir}{'' if data is None else f' --data {data}'}`"
    )


def learn(
    model_dir: ModelDir,
    data: Annotated[
        Path, typer.Option("--data", help="A data set: a manifest, a folder for each label, …: see docs/models.md.")
    ],
    skip_bad: SkipBad = False,
) -> None:
    """Learn your labels from ten windows each, on frozen senses.

    For a model.toml with [senses.learned.NAME]: a linear head on features of pictures, sound and words. Writes
    learned.safetensors, and into README.md how often it is right on windows that it did not learn from.
    """
    with extra("train", "learning"):
        from streamer.training import few_shot

    report = few_shot.learn(model_dir, data, load_settings(), console(), skip_bad=skip_bad)
    for score in report.scores:
        say(f"{score.output}: {few_shot.shown(score.right, score.windows)} right, by {score.how}")
    say(f"learned from {report.windows} windows in {report.seconds:.0f} s; STREAMER_MODEL={model_dir} serves it")


def calibrate(
    model_dir: ModelDir,
    data: DataPath = None,
    skip_bad: SkipBad = False,
    drives: Annotated[int, typer.Option(help="Without --data: as in training.")] = 120,
    seconds: Annotated[int, typer.Option(help="Length of each drive, s: as in training.")] = 60,
    seed: Annotated[int, typer.Option(help="As in training.")] = 0,
    device: Device = "auto",
    cache: CacheDir = DRIVES_CACHE,
) -> None:
    """Measure what a model's weights know of their limits.

    How sure the outputs may be, and what each sensor has shown in training: calibration.safetensors. `streamer train`
    does this at its end; this command is for weights that were trained without.
    """
    with extra("train", "calibrating"):
        from streamer.training.train import Source, recalibrate

        path = recalibrate(
            model_dir,
            data if data is not None else Source(cache, drives, seconds),
            seed,
            console(),
            device=device,
            skip_bad=skip_bad,
        )
    say(f"wrote {path}; `streamer evaluate {model_dir}` says how often the model is sure, and right then")


def evaluate(
    model_dir: ModelDir,
    data: DataPath = None,
    skip_bad: SkipBad = False,
    drives: Annotated[int, typer.Option(help="Without --data: held-out drives to measure on.")] = 20,
    seconds: Annotated[int, typer.Option(help="Length of each drive, s.")] = 120,
    seed: Annotated[
        int, typer.Option(help="Chooses the drives, which are never trained on; with --data: as in training.")
    ] = 0,
    device: Device = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Write the tables into the model's README.md, and pictures beside it.")
    ] = False,
    other: Annotated[
        list[Path] | None,
        typer.Option(help="Also say what it makes of this recording, which it was not made for; can be repeated."),
    ] = None,
    cache: CacheDir = DRIVES_CACHE,
) -> None:
    """Measure a model on held-out data: quality and speed.

    Each output with all sensors, with each one alone, and with each one missing; what the model is sure of; how well
    the sensors find one another in the common space; latency and windows a second by batch size.
    """
    from streamer.model.predictor import Network

    with extra("train", "evaluating"):
        from streamer.training import card as tables
        from streamer.training import evaluate
    from streamer.training.train import Source

    predictor = Network.load(model_dir, device, form=load_settings().model_form)
    if data is not None:
        held_out = evaluate.from_data(predictor.spec, data, seed, console(), skip_bad=skip_bad)
    else:
        held_out = evaluate.simulated(predictor.spec, Source(cache, drives, seconds), seed, console())
    evaluation = evaluate.evaluate(model_dir, predictor, held_out, console(), other or ())
    tables.show(evaluation, console())
    if json_file is not None:
        evaluate.write_json(evaluation, json_file)
    if card:
        tables.write_card(evaluation, model_dir)
        evaluate.draw_confusions(evaluation, model_dir)


def export(
    model_dir: ModelDir,
    form: Annotated[Literal["export", "int8", "onnx"], typer.Option(help="What to make.")],
) -> None:
    """Write a model in another form, beside its weights.

    export: a torch.export archive; int8: 8-bit weights, for the CPU; onnx: for ONNX Runtime. STREAMER_MODEL_FORM
    chooses the form that is served. Export again after each training: a form of other weights is refused.
    """
    from streamer.model import forms
    from streamer.terminal.progress import status

    with status(f"making the form {form}", console()):
        path = forms.write(model_dir, form)
    say(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB; STREAMER_MODEL_FORM={form} serves it")


def forms(
    model_dir: ModelDir,
    windows: Annotated[int, typer.Option(min=1, help="Simulated windows to compare on.")] = 32,
    json: AsJson = False,
) -> None:
    """Compare the forms of a model: answers, speed, size.

    Each runs on the same simulated windows, with all sensors and with some missing. Exit code 1 if a form differs
    from the plain one by more than its tolerance.
    """
    import msgspec

    with extra("train", "comparing forms"):
        from streamer.training import forms
    from streamer.terminal.progress import status

    with status("cutting windows", console()) as say_instead:
        found = forms.compare(
            model_dir, load_settings().device, windows, on_form=lambda form: say_instead(f"measuring {form}")
        )
    if json:
        for measured in found:
            emit(msgspec.json.encode(measured))
    else:
        console(stderr=False).print(forms.view(found))
        for note in forms.notes(found):
            typer.echo(note)
    if not all(measured.fits for measured in found):
        raise typer.Exit(1)
