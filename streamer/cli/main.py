"""The command line: what can be asked for, and nothing of how it is done.

Modules that load slowly (PyTorch, PyAV, Faust, Kafka, Redis) are imported by the commands that need them, so that
``streamer --help`` is quick. Data goes to stdout, everything said to a person about it to stderr.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO, Literal, NoReturn

import typer

from streamer import __version__
from streamer.errors import StreamerError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from streamer.local import Service
    from streamer.settings import Settings

EPILOG = "Settings come from STREAMER_… variables and streamer.toml: see `streamer settings`."

# Plain help: rich's panels take half a second to load and say the same.
app = typer.Typer(
    name="streamer",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog=EPILOG,
)
topics_app = typer.Typer(rich_markup_mode=None, help="Make the Kafka topics.")

ModelDir = Annotated[Path, typer.Argument(metavar="MODEL_DIR", help="A folder with a model.toml: models/driving.")]
DRIVES_CACHE = Path("runs/drives")
CacheDir = Annotated[Path, typer.Option(help="Where cut drives are kept between runs.")]
DataPath = Annotated[
    Path | None, typer.Option("--data", help="A data set: a manifest, a folder a label, MNIST, …: docs/models.md.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows of --data out and name them.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line, for scripts.")]


def main() -> None:
    """Run the command line; what goes wrong is one line on stderr and a non-zero exit code."""
    try:
        code = app(prog_name="streamer", standalone_mode=False)
    except StreamerError as error:
        print(f"streamer: {error}", file=sys.stderr)  # noqa: T201 - the command's own voice
        sys.exit(1)
    except typer.TyperException as error:  # a command line that cannot be parsed
        _explain(error)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)


def _explain(error: typer.TyperException) -> NoReturn:
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "streamer"
    print(f"streamer: {error.format_message().rstrip('.')}; try `{path} --help`", file=sys.stderr)  # noqa: T201
    sys.exit(2)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamer {__version__}")
        raise typer.Exit


@app.callback()
def _streamer(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Streaming multimodal event processor: Kafka in, fused PyTorch inference, Redis out.

    First steps: `streamer demo` shows everything at once. Or step by step: `streamer up`, `streamer topics create`,
    `streamer worker`, and in other terminals `streamer simulate` and `streamer watch`.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


# the servers


@app.command()
def up(
    docker: Annotated[
        bool, typer.Option("--docker", help="As containers of docker-compose.yml instead of embedded servers.")
    ] = False,
) -> None:
    """Start Kafka and Redis on this machine.

    What runs already is left alone. By default the real servers run embedded, without Docker or Java: on free ports,
    with data and logs in .streamer/. A server whose address is given by STREAMER_KAFKA or STREAMER_REDIS is used as it
    is. Every other command finds the addresses by itself.
    """
    with _extra("local", "running servers on this machine"):
        from streamer import local

    _show_services(local.up(_settings(), docker=docker, progress=_say))


@app.command()
def down() -> None:
    """Stop what `streamer up` started. Its data stay in .streamer/."""
    with _extra("local", "running servers on this machine"):
        from streamer import local

    stopped = local.down(_say)
    _say(f"stopped {' and '.join(stopped)}" if stopped else "nothing was running")


@app.command()
def status() -> None:
    """Show where Kafka and Redis are. Exit code 1 if one of them does not answer."""
    with _extra("local", "running servers on this machine"):
        from streamer import local

    services = local.status(_settings())
    _show_services(services)
    if not all(service.answers for service in services):
        raise typer.Exit(1)


@app.command()
def doctor(json: AsJson = False) -> None:
    """Check everything that a worker needs.

    Addresses, TLS and passwords, topics, rights, lag, what Redis promises to keep, the model, the device,
    clocks, port and disk; and say how to mend what is wrong. Changes nothing. Exit code 1 if a worker could not run.
    """
    import msgspec

    from streamer.operate import doctor

    findings = []
    console = _console(stderr=False)
    for finding in doctor.examine(_settings()):
        findings.append(finding)
        if json:
            _emit(msgspec.json.encode(finding))
        else:
            console.print(doctor.line(finding))
    if any(finding.status is doctor.Status.FAIL for finding in findings):
        raise typer.Exit(1)


@topics_app.command("create")
def topics_create() -> None:
    """Make the topics that are missing. Those that exist are checked and left alone."""
    from streamer.broker import topics

    for topic in topics.create(_settings()):
        state = "created" if topic.created else "exists"
        typer.echo(f"{topic.name:<32} {topic.partitions:>4} partitions  {topic.timestamp_type}  {state}")


app.add_typer(topics_app, name="topics")


# feeds


@app.command()
def simulate(
    sessions: Annotated[int, typer.Option(min=1, help="Cars that drive at the same time.")] = 4,
    seconds: Annotated[int, typer.Option(min=1, help="Length of each drive, s.")] = 60,
    speed: Annotated[float, typer.Option(min=0, help="1: real time; 0: as fast as possible.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the drives; the same seed gives the same bytes.")] = 0,
    truth: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write what was really going on, a JSON object a line.")
    ] = None,
    jitter_ms: Annotated[float, typer.Option(min=0, help="Send each record up to so much later.")] = 0.0,
    drop: Annotated[float, typer.Option(min=0, max=1, help="Share of records that are never sent.")] = 0.0,
    late: Annotated[float, typer.Option(min=0, max=1, help="Share of records that are sent --late-ms later.")] = 0.0,
    late_ms: Annotated[float, typer.Option(min=0, help="How late these are.")] = 5000.0,
    dies: Annotated[
        str | None, typer.Option(metavar="MODALITY:SECOND", help="Nothing of it from then on, e.g. audio:20.")
    ] = None,
) -> None:
    """Send simulated drives to Kafka, with faults on demand.

    Camera frames, sound, transcripts (late, as speech recognition is) and telemetry of cars. Each run has sessions with
    new names.
    """
    import secrets

    from streamer.feeds import simulate
    from streamer.terminal.board import Sending

    options = simulate.Options(
        jitter_ms=jitter_ms, drop=drop, late=late, late_ms=late_ms, dies=None if dies is None else _death(dies)
    )
    name = secrets.token_hex(2)
    with Sending(_console(), seconds * 1_000_000) as bar:
        count = simulate.run(
            _settings(),
            sessions=sessions,
            seconds=seconds,
            speed=speed,
            seed=seed,
            name=name,
            truth=truth,
            options=options,
            on_sent=bar.sent,
        )
    _say(f"sent {count} records of the sessions sim-{name}-0 to sim-{name}-{sessions - 1}")


@app.command()
def replay(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Recordings: the parts of one session, laid over another.")
    ],
    speed: Annotated[
        float, typer.Option(min=0, help="1: as recorded, 2: twice as fast; 0: as fast as possible.")
    ] = 1.0,
    session: Annotated[str | None, typer.Option(help="The session's name; default: a new one each run.")] = None,
    stream: Annotated[
        list[int] | None,
        typer.Option(metavar="N", help="Send track (MCAP: channel) N in place of the default one of its kind. Repeat."),
    ] = None,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="At the times of the recording, not as if it began now.")
    ] = False,
) -> None:
    """Send recordings to Kafka.

    Films and sound (what FFmpeg reads) with subtitles in them or beside them (.srt, .vtt), word timings beside sound
    (.json) and GoPro telemetry; telemetry tables (.csv); MCAP files. All PATHs together are one session and begin
    together, e.g. a film and the log of the car; logs that tell the same clock keep their distance. A recording of
    `streamer record` is sent as it was: its sessions, partitions, order and gaps.
    """
    with _extra("feeds", "replaying"):
        from streamer.feeds import replay
        from streamer.golden import recording
    from streamer.terminal.board import Sending

    settings = _settings()
    if any(recording.is_recording(path) for path in paths):
        if len(paths) > 1 or session is not None or stream:
            raise UsageError("a recording of `streamer record` is sent alone and as it was: no --session, no --stream")
        _send_again(settings, paths[0], speed, keep_times)
        return
    recorded = replay.open_all(paths, stream or ())
    name = session if session is not None else replay.new_session()
    with Sending(_console(), recorded.length_us) as bar:
        count = replay.run(settings, recorded, speed=speed, session=name, keep_times=keep_times, on_sent=bar.sent)
    for note in recorded.notes:
        _say(note)
    _say(f"sent {count} records of the session {name}")


def _send_again(settings: Settings, path: Path, speed: float, keep_times: bool) -> None:
    from streamer.golden import recording
    from streamer.golden.again import send_again
    from streamer.terminal.board import Sending

    first_us, last_us = recording.span_us(path) or (0, 0)
    with Sending(_console(), last_us - first_us) as bar:
        count = send_again(settings, path, speed, keep_times=keep_times, on_sent=bar.sent_again)
    _say(f"sent {count} records of {path} again")


# golden replay

TIME = {"parser": datetime.fromisoformat, "metavar": "TIME"}


@app.command()
def record(
    out: Annotated[Path, typer.Argument(metavar="OUT.mcap", help="The file to write.", dir_okay=False)],
    seconds: Annotated[float | None, typer.Option(min=0.001, help="Length of the stretch, s of log time.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(**TIME, help="Begin at this log time, e.g. 2026-05-01T12:00:00Z, not now."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that the topics have now.")] = False,
    session: Annotated[list[str] | None, typer.Option(help="This session alone; may be given several times.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> None:
    """Record a stretch of the source topics to a file.

    From now until Ctrl-C, or --seconds. With --since or --all what is in the topics already, up to now. `streamer
    verify` takes the file; it is MCAP, which other tools can open too.
    """
    import signal
    from threading import Event

    from streamer.golden import record
    from streamer.terminal.board import Recording

    if everything and (since is not None or seconds is not None):
        raise UsageError("--all records everything that there is: give it without --since and --seconds")
    since_us = 0 if everything else None if since is None else int(since.timestamp() * 1e6)
    stretch = record.Stretch(since_us, seconds, tuple(dict.fromkeys(session or ())))
    settings, stop = _settings(), Event()
    with Recording(_console()) as bar:

        def ask(number: int, frame: object) -> None:
            if stop.is_set():
                sys.exit(128 + number)  # asked twice: do not even wait for Kafka
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask)
        done = record.record(settings, out, stretch, force=force, stop=stop, on_progress=bar.recorded)
    _say(f"recorded {done.records} records, {done.nbytes / 1e6:.1f} MB of payload, to {out}")


@app.command()
def verify(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="A file of `streamer record`.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RESULTS",
            help="A file of results, or redis: the live ones. From --save, `results` or `watch --json`.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the results to this file, to verify against later.")
    ] = None,
    tolerance: Annotated[float, typer.Option(min=0, help="By how much scores and embeddings may differ.")] = 1e-3,
    show: Annotated[int, typer.Option(min=0, help="Differences in the table.")] = 20,
    json: AsJson = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --save if it is there.")] = False,
) -> None:
    """Run a recording through alignment and the model, and compare.

    Needs no Kafka. Says what differs in windows, members, coverage and scores; exit code 1 if anything does. `streamer
    verify day.mcap --save golden.ndjson` makes a reference; later, with another model or setting, `streamer verify
    day.mcap --against golden.ndjson` shows what has changed.
    """
    from contextlib import ExitStack

    from streamer.golden import verify
    from streamer.store import results
    from streamer.terminal import verification
    from streamer.terminal.board import Verifying

    if against is None and save is None:
        raise UsageError("give --against RESULTS to compare with, or --save FILE to make a reference")
    settings = _settings()
    with ExitStack() as stack:
        reference: verify.Reference | None = None
        if against == "redis":
            reference = verify.RedisReference(*stack.enter_context(results.connected(settings)))
        elif against is not None:
            reference = verify.FileReference(Path(against))
        out = None if save is None else stack.enter_context(_fresh(save, force))
        bar = stack.enter_context(Verifying(_console()))
        report = verify.run(settings, recording, reference, tolerance=tolerance, save=out, on_progress=bar.done)
    if json:
        for line in verify.as_json(report):
            _emit(line)
    else:
        _console(stderr=False).print(verification.view(report, show))
    if report.differences:
        raise typer.Exit(1)


# the worker and its model


class Role(StrEnum):
    """What a worker does."""

    ALL = "all"
    ALIGN = "align"
    INFER = "infer"


@app.command()
def worker(
    role: Annotated[
        Role | None, typer.Option(help="all: everything; align: up to closed windows; infer: from there on.")
    ] = None,
) -> None:
    """Read Kafka, align, infer, publish to Redis.

    Runs until Ctrl-C or SIGTERM. Start as many as there is work for: they share the partitions. /metrics, /healthz and
    /readyz are on STREAMER_PORT.

    With roles, workers with a GPU scale apart from the others: some --role align, some --role infer, and the windows
    topic between them. Results are the same.
    """
    import gc

    gc.disable()  # it takes a tenth of the seconds of the imports; the worker turns it on again
    from streamer.settings import Settings
    from streamer.worker import process

    process.run(Settings.load(role=None if role is None else str(role)))


@app.command()
def train(
    model_dir: ModelDir,
    data: DataPath = None,
    skip_bad: SkipBad = False,
    drives: Annotated[int, typer.Option(help="Without --data: simulated drives to learn from.")] = 120,
    seconds: Annotated[int, typer.Option(help="Length of each drive, s.")] = 60,
    epochs: Annotated[
        int | None, typer.Option(help="Most passes over the data; it stops early when nothing improves.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Chooses drives, parts of data, and fresh weights.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows in one forward pass.")] = None,
    accumulate: Annotated[int | None, typer.Option(help="Forward passes to one step.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="The highest of the one-cycle schedule.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32, bfloat16, or auto: bfloat16 on CUDA, else float32.")
    ] = None,
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="torch.compile first: pays on long runs.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that load data; 0: none beside this one.")] = None,
    shots: Annotated[int | None, typer.Option(help="Few-shot: learn from so many examples of each label.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    run_dir: Annotated[
        Path | None, typer.Option(help="For TensorBoard's logs and the checkpoint; default: runs/NAME of the folder.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was interrupted.")] = False,
    cache: CacheDir = DRIVES_CACHE,
) -> None:
    """Train a model, on data of yours or on simulated drives.

    Writes weights.safetensors, tokenizer.json and learning_curves.png into the model's folder. What the options leave
    open stands in its train.toml, else has a default: docs/training.md. Several processes or GPUs: torchrun
    --nproc-per-node 2 -m streamer train MODEL_DIR.
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
        _console(),
        run_dir=run_dir if run_dir is not None else Path("runs") / model_dir.resolve().name,
        resume=resume,
        device=device,
        skip_bad=skip_bad,
    )
    _say(
        f"trained on {report.windows} windows in {report.seconds:.0f} s ({report.cpu_seconds:.0f} s of CPU); "
        f"now run `streamer evaluate {model_dir}{'' if data is None else f' --data {data}'}`"
    )


@app.command()
def evaluate(
    model_dir: ModelDir,
    data: DataPath = None,
    skip_bad: SkipBad = False,
    drives: Annotated[int, typer.Option(help="Without --data: held-out drives to measure on.")] = 20,
    seconds: Annotated[int, typer.Option(help="Length of each drive, s.")] = 120,
    seed: Annotated[
        int, typer.Option(help="Chooses the drives, none of which is ever trained on; with --data: as in training.")
    ] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    card: Annotated[
        bool, typer.Option("--card", help="Write the tables into the model's README.md, pictures beside it.")
    ] = False,
    cache: CacheDir = DRIVES_CACHE,
) -> None:
    """Measure a model on held-out data: quality, common space, speed.

    Each output with everything, with each modality alone, and with each one missing; how well the modalities find one
    another in the common space; latency and windows a second by batch size.
    """
    from streamer.model.predictor import Predictor

    with _extra("train", "evaluating"):
        from streamer.training import card as tables
        from streamer.training import evaluate
    from streamer.training.train import Source

    predictor = Predictor.load(model_dir, device, form=_settings().model_form)
    if data is not None:
        held_out = evaluate.from_data(predictor.spec, data, seed, _console(), skip_bad=skip_bad)
    else:
        held_out = evaluate.simulated(predictor.spec, Source(cache, drives, seconds), seed, _console())
    evaluation = evaluate.evaluate(model_dir, predictor, held_out, _console())
    tables.show(evaluation, _console())
    if json_file is not None:
        evaluate.write_json(evaluation, json_file)
    if card:
        tables.write_card(evaluation, model_dir)
        evaluate.draw_confusions(evaluation, model_dir)


@app.command()
def export(
    model_dir: ModelDir,
    form: Annotated[Literal["export", "int8", "onnx"], typer.Option(help="What to make.")],
) -> None:
    """Write a model in another form, beside its weights.

    export: a torch.export archive; int8: 8-bit weights, for the CPU; onnx: for ONNX Runtime. STREAMER_MODEL_FORM serves
    it. After the next training export again: a form that was made of other weights is refused.
    """
    from streamer.model import forms

    with _console().status(f"making the form {form}"):
        path = forms.write(model_dir, form)
    _say(f"wrote {path}, {path.stat().st_size / 1e6:.1f} MB; STREAMER_MODEL_FORM={form} serves it")


@app.command(name="forms")
def forms_(
    model_dir: ModelDir,
    windows: Annotated[int, typer.Option(min=1, help="Simulated windows to compare on.")] = 32,
    json: AsJson = False,
) -> None:
    """Compare the forms of a model: answers, speed, size.

    Each on the same simulated windows, with all modalities and with some missing. Exit code 1 if a form differs from
    the plain one by more than its tolerance.
    """
    import msgspec

    with _extra("train", "comparing forms"):
        from streamer.training import forms

    with _console().status("cutting windows") as status:
        found = forms.compare(
            model_dir, _settings().device, windows, on_form=lambda form: status.update(f"measuring {form}")
        )
    if json:
        for measured in found:
            _emit(msgspec.json.encode(measured))
    else:
        _console(stderr=False).print(forms.view(found))
        for note in forms.notes(found):
            typer.echo(note)
    if not all(measured.fits for measured in found):
        raise typer.Exit(1)


# planning


@app.command()
def size(
    feeds: Annotated[int, typer.Option(help="Devices that send at the same time.")],
    fps: Annotated[float, typer.Option(help="Frames a second of a feed; 0: it has none.")],
    frame_kb: Annotated[float, typer.Option(help="Size of a frame as it is sent, KB of 1,000 bytes.")],
    window_ms: Annotated[
        int | None, typer.Option(help="Length of a window, ms; default: the model's, without --model the setting.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder: how many frames of a window are decoded; without: 2.")
    ] = None,
    cpu_ms: Annotated[
        float | None, typer.Option(help="CPU time of your model a window, ms; default: as measured for models/driving.")
    ] = None,
    gpu_ms: Annotated[float | None, typer.Option(help="Time that a window keeps the GPU busy, ms.")] = None,
    json: AsJson = False,
) -> None:
    """Work out how many partitions, workers, cores and bytes a number of feeds needs.

    Arithmetic on what `make bench-growth` measured, with a line on what each number rests on; nothing is started.
    Besides frames, a feed is taken to send what `streamer simulate` sends. Says where it goes beyond what was measured.
    """
    import msgspec

    from streamer.operate import costs, sizing

    settings = _settings()
    own_ms, decoded = (settings.window_ms, 2) if model is None else sizing.of_model(model)
    demand = sizing.Demand(feeds, fps, frame_kb, own_ms if window_ms is None else window_ms, decoded, cpu_ms, gpu_ms)
    measured = costs.load()
    found = sizing.size(demand, measured, settings)
    if json:
        _emit(msgspec.json.encode(found))
        return
    _console(stderr=False).print(sizing.view(found, measured))


# seeing what comes out


@app.command()
def watch(
    session: Annotated[str | None, typer.Option(help="This session alone.")] = None,
    json: AsJson = False,
) -> None:
    """Show results as they come, a row a session.

    Columns: the window's start, the model's decision and its score, what share of the window image, audio, text and
    telemetry cover (– absent), why the window closed, and the milliseconds from Kafka to Redis.
    """
    from streamer.store import results
    from streamer.terminal import board

    only = [session] if session is not None else []
    with results.connected(_settings()) as (client, keys):
        fresh = results.follow(client, keys, only)
        if json:
            for result in fresh:
                if result is not None:
                    _emit(result.to_json())
        else:
            board.show(fresh, _console())


@app.command()
def dashboard() -> None:
    """Serve the live page: frames, sound, words and decisions.

    For a browser, at http://localhost:8080/ by default (STREAMER_DASHBOARD_PORT). Nobody beyond this machine can see it
    unless STREAMER_DASHBOARD_HOST says so, and then with a token: STREAMER_DASHBOARD_TOKEN's, else one that is printed.
    Runs until Ctrl-C.
    """
    from streamer import dashboard

    dashboard.run(_settings(), typer.echo)


@app.command(name="results")
def results_(
    session: Annotated[str, typer.Option(help="Whose results.")],
    json: AsJson = False,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=datetime.fromisoformat, metavar="TIME", help="Only what ends at or after, e.g. 2026-05-01T12:00:00Z."
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The newest so many.")] = None,
) -> None:
    """Print the results of a session, oldest first."""
    from streamer.store import results
    from streamer.terminal import board

    since_us = 0 if since is None else int(since.timestamp() * 1e6)
    with results.connected(_settings()) as (client, keys):
        found = deque(results.results(client, keys, session, since_us), maxlen=limit)
        if not found and session not in (known := results.sessions(client, keys)):
            raise UsageError(f"no session {session!r} in Redis; there are: {', '.join(known[:10]) or 'none'}")
    if json:
        for result in found:
            _emit(result.to_json())
    else:
        _console(stderr=False).print(board.listing(found))


@app.command()
def index(
    session: Annotated[list[str] | None, typer.Option(help="This session alone; may be given several times.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(**TIME, help="Leave out what ends earlier, e.g. 2026-05-01T12:00:00Z, and is not indexed yet."),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with new windows as they come, until Ctrl-C.")
    ] = False,
) -> None:
    """Index published windows, for `streamer search`.

    Only what is new since the last time, and what Redis no longer has leaves the index. It is kept in the folder
    STREAMER_INDEX, or in Redis itself where that has vector sets (Redis 8).
    """
    import signal

    from streamer import retrieval
    from streamer.retrieval import mirror
    from streamer.store import results
    from streamer.terminal.board import Indexing

    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    settings, only = _settings(), tuple(dict.fromkeys(session or ()))
    since_us = 0 if since is None else max(0, int(since.timestamp() * 1e6))
    with (
        results.connected(settings) as (client, keys),
        retrieval.opened(settings, client, keys, writable=True) as opened,
        opened.writing(),
    ):
        if missing := [name for name in only if not client.exists(keys.results(name))]:
            raise UsageError(f"no session {missing[0]!r} in Redis; `streamer watch` shows which there are")
        with Indexing(_console()) as bar:
            done = mirror.update(client, keys, opened, only=only, since_us=since_us, on_progress=bar.updated)
            opened.refresh(bar.built)
        sizes = opened.sizes()
        _say(
            f"{done.added} windows added, {done.dropped} dropped; {sum(sizes.values())} in the index of {opened.where}"
        )
        if follow:
            for change in mirror.follow(client, keys, opened, only=only, since_us=since_us):
                if change.added or change.dropped:
                    _say(f"{change.added} windows added, {change.dropped} dropped")


@app.command()
def search(
    query: Annotated[str | None, typer.Argument(metavar="[QUERY]", help="Words, as somebody there would say.")] = None,
    image: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Look for what this picture shows: JPEG, PNG or WebP.")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Look for what this sounds like: WAV, FLAC, Ogg or MP3.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="The likest so many.")] = 10,
    session: Annotated[str | None, typer.Option(help="In this session alone.")] = None,
    thumbnails: Annotated[
        Path | None, typer.Option(file_okay=False, help="Write the windows' newest frames to this folder.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Find windows that are like words, a picture or a sound.

    Among those that `streamer index` has indexed and the model of STREAMER_MODEL has seen, the likest first.
    """
    import msgspec

    from streamer import retrieval
    from streamer.model.predictor import Predictor
    from streamer.retrieval import query as queries
    from streamer.retrieval import search as searching
    from streamer.store import results
    from streamer.terminal import board

    if sum(given is not None for given in (query, image, audio)) != 1:
        raise UsageError('give one of QUERY, --image FILE and --audio FILE: streamer search "siren behind us"')
    settings = _settings()
    with results.connected(settings) as (client, keys), retrieval.opened(settings, client, keys) as opened:
        predictor = Predictor.load(settings.model, settings.device, settings)
        if query is not None:
            vector = queries.text(predictor, query)
        elif image is not None:
            vector = queries.image(predictor, _content(image), str(image))
        else:
            assert audio is not None
            vector = queries.audio(predictor, _content(audio), str(audio))
        found = searching.search(
            client,
            keys,
            opened,
            vector,
            model=predictor.name,
            version=predictor.version,
            limit=limit,
            session=session,
        )
    files: list[Path | None] = [None] * len(found)
    if thumbnails is not None:
        from streamer.retrieval.thumbnails import save

        files = save(settings, [result for result, _ in found], thumbnails)
    hits = [
        searching.hit(result, similarity, settings, file)
        for (result, similarity), file in zip(found, files, strict=True)
    ]
    if json:
        for hit in hits:
            _emit(msgspec.json.encode(hit))
    elif hits:
        _console(stderr=False).print(board.hits(hits))
    else:
        _say("none of the windows that are indexed is in Redis any more; run `streamer index`")


@app.command()
def deadletters(
    json: AsJson = False,
    requeue: Annotated[
        bool, typer.Option("--requeue", help="Send them back to their topics, once the cause is mended.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Only those with this reason, e.g. bad_payload.")] = None,
) -> None:
    """List the records that could not be processed.

    Each with its reason. --requeue sends each letter once: a second call sends only what has come since. With --reason
    the others stay and can be sent by a later call.
    """
    import msgspec

    from streamer.broker import deadletters
    from streamer.terminal import board

    settings = _settings()
    if requeue:
        _say(f"sent {deadletters.requeue(settings, reason)} records back to their topics")
    elif json:
        for letter in deadletters.read(settings, reason):
            _emit(msgspec.json.encode(letter))
    else:
        table = board.letters(deadletters.read(settings, reason))
        if table.row_count:
            _console(stderr=False).print(table)
        else:
            _say("no dead letters")


@app.command()
def forget(session: Annotated[str, typer.Argument(help="The session's name.")]) -> None:
    """Delete what Redis and the search index hold of a session.

    Kafka's records stay until their retention ends.
    """
    from streamer import retrieval
    from streamer.store import results

    settings = _settings()
    with results.connected(settings) as (client, keys):
        count = results.forget(client, keys, session)
        retrieval.forget(settings, client, keys, session)
    _say(f"forgot {session}: {count} results")


@app.command()
def settings(
    markdown: Annotated[bool, typer.Option("--markdown", help="The reference of all settings, as Markdown.")] = False,
) -> None:
    """Print the settings in effect, as TOML. Passwords are masked."""
    from streamer.operate import reference

    typer.echo(reference.markdown() if markdown else reference.toml(_settings()), nl=False)


@app.command()
def demo(
    sessions: Annotated[int, typer.Option(min=1, help="Cars that drive at the same time.")] = 4,
    seconds: Annotated[int, typer.Option(min=2, help="Length of the drives, s.")] = 45,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the drives.")] = 1,
    headless: Annotated[bool, typer.Option("--headless", help="Lines of progress in place of the live table.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Write the summary to this file too.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave Kafka and Redis running afterwards.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Serve the live page meanwhile.")] = False,
) -> None:
    """See the whole system at work, from cars to results.

    Uses the Kafka and Redis that run, or starts embedded ones. Ends with a summary; exit code 1 if a window was lost, a
    record was refused or the model failed.
    """
    import signal

    with _extra("local", "the demo"):
        from streamer.demo import run, summary

    # a plain kill too must stop everything that was started
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    console = _console(stderr=False)
    options = run.Options(sessions=sessions, seconds=seconds, seed=seed, headless=headless, keep=keep, page=page)
    outcome = run.run(_settings(), options, console)
    console.print(summary.view(outcome))
    if json_file is not None:
        json_file.write_bytes(summary.as_json(outcome))
    if not outcome.clean:
        raise typer.Exit(1)


# helpers


@contextmanager
def _extra(name: str, doing: str) -> Iterator[None]:
    """For imports that need an optional dependency group: where it is not installed, one line says so."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UsageError(f"{doing} needs {error.name}: pip install 'streamer-multimodal[{name}]'") from None


def _settings() -> Settings:
    from streamer.settings import Settings

    return Settings.load()


def _death(text: str) -> tuple[int, float]:
    """``audio:20`` -> the modality's number and the second."""
    from streamer.events import MODALITY_NAMES

    name, _, second = text.partition(":")
    try:
        return MODALITY_NAMES.index(name), float(second)
    except ValueError:
        raise UsageError(f"--dies takes {'|'.join(MODALITY_NAMES)}:SECOND, not {text!r}") from None


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None


@contextmanager
def _fresh(path: Path, force: bool) -> Iterator[BinaryIO]:
    """A new file, which is there once it is whole; one that is there already is replaced only by ``force``."""
    if path.exists() and not force:
        raise UsageError(f"{path} is there already; --force replaces it")
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)


def _console(stderr: bool = True) -> Console:
    from rich.console import Console

    return Console(stderr=stderr)


def _say(line: str) -> None:
    typer.echo(line, err=True)


def _show_services(services: Iterable[Service]) -> None:
    for service in services:
        answers = "answers" if service.answers else "does not answer"
        typer.echo(f"{service.name:<6} {service.address:<32} {answers:<16} {service.runs_as}")


def _emit(line: bytes) -> None:
    """A line of data, at once. A reader that has gone, as in ``| head``, has what it wanted."""
    try:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # what is still buffered must not be written at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None


if __name__ == "__main__":
    main()
