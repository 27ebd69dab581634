"""What an operator asks: ``doctor``, ``size``, ``deadletters``, ``settings``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamer.cli.options import AsJson, console, emit, load_settings, say
from streamer.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from streamer.settings import Settings


def doctor(json: AsJson = False) -> None:
    """Check everything that a worker needs.

    Addresses, TLS and passwords, topics and their replicas, rights, lag, what Redis promises to keep, the model, the
    device, clocks, port and disk; with a remedy for each problem. Changes nothing. Exit code 1 if a worker could not
    run.
    """
    import msgspec

    from streamer.operate import doctor
    from streamer.operate.findings import Status
    from streamer.terminal import findings

    statuses = set()
    out = console(stderr=False)
    for finding in doctor.examine(load_settings()):
        statuses.add(finding.status)
        if json:
            emit(msgspec.json.encode(finding))
        else:
            out.print(findings.line(finding))
    if Status.FAIL in statuses:
        raise typer.Exit(1)


def size(
    feeds: Annotated[int, typer.Option(help="Devices that send at the same time.")],
    fps: Annotated[float | None, typer.Option(help="Frames a second of a feed; 0: no frames.")] = None,
    frame_kb: Annotated[float | None, typer.Option(help="Size of a frame as it is sent, KB of 1,000 bytes.")] = None,
    sensor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KIND:HZ:KB[:COUNT]",
            help="In place of --fps and --frame-kb, for all that a feed sends: image:10:60:6 is six cameras with 10 "
            "frames a second of 60 KB.",
        ),
    ] = None,
    window_ms: Annotated[
        int | None, typer.Option(help="Length of a window, ms; default: the model's, without --model the setting.")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A model folder, for the frames of a window that are decoded; default: 2.")
    ] = None,
    cpu_ms: Annotated[
        float | None,
        typer.Option(help="CPU time of your model for a window, ms; default: as measured for models/driving."),
    ] = None,
    gpu_ms: Annotated[float | None, typer.Option(help="GPU time of a window, ms.")] = None,
    json: AsJson = False,
) -> None:
    """Compute partitions, workers, cores and bytes for many feeds.

    Arithmetic on what `make bench-growth` measured, with the basis of each number; nothing is started. Besides frames,
    a feed is assumed to send what `streamer simulate` sends, unless --sensor gives each of its sensors. Warns where the
    numbers go beyond what was measured.
    """
    import msgspec

    from streamer.operate import costs, sizing
    from streamer.terminal import sizing as views

    settings = load_settings()
    own_ms, decoded = (
        (settings.window_ms, 2) if model is None else sizing.of_model(model, cost_given=cpu_ms is not None)
    )
    length_ms = own_ms if window_ms is None else window_ms
    costs_of_model: dict[str, Any] = {"decoded": decoded, "model_cpu_ms": cpu_ms, "model_gpu_ms": gpu_ms}
    if sensor:
        if fps is not None or frame_kb is not None:
            raise UsageError("--sensor gives all that a feed sends: leave out --fps and --frame-kb")
        demand = sizing.Demand.of(feeds, [*map(sizing.Sending.parse, sensor)], length_ms, **costs_of_model)
    elif fps is None or frame_kb is None:
        raise UsageError("give --fps and --frame-kb, or --sensor KIND:HZ:KB for each sensor of a feed")
    else:
        demand = sizing.Demand(feeds, fps, frame_kb, length_ms, **costs_of_model)
    measured = costs.load()
    found = sizing.size(demand, measured, settings)
    if json:
        emit(msgspec.json.encode(found))
        return
    console(stderr=False).print(views.view(found, measured))


def deadletters(
    json: AsJson = False,
    requeue: Annotated[
        bool, typer.Option("--requeue", help="Send them back to their topics, after the cause is fixed.")
    ] = False,
    reason: Annotated[str | None, typer.Option(help="Only records with this reason, e.g. bad_payload.")] = None,
    sink: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Instead the results that this webhook's receiver refused."),
    ] = None,
) -> None:
    """List the records that could not be processed.

    Each with its reason. --requeue sends each record once: a second call sends only what has come since. With --reason
    the others stay, and a later call can send them.

    With --sink results that the receiver of a webhook refused for good, by the sink's name (webhook, if it was given
    none). --requeue posts them again, under the ids that they had: what is refused again stays.
    """
    import msgspec

    from streamer.broker import deadletters
    from streamer.terminal import tables

    settings = load_settings()
    if sink is not None:
        _refused(settings, sink, json=json, requeue=requeue, reason=reason)
    elif requeue:
        say(f"records sent back to their topics: {deadletters.requeue(settings, reason)}")
    elif json:
        for letter in deadletters.read(settings, reason):
            emit(msgspec.json.encode(letter))
    else:
        _show(tables.letters(deadletters.read(settings, reason)))


def _refused(settings: Settings, sink: str, *, json: bool, requeue: bool, reason: str | None) -> None:
    import msgspec

    from streamer.sinks import letters
    from streamer.terminal import tables

    if requeue:
        again = letters.requeue(settings, sink, reason)
        say(f"{again.sent} results were taken, {again.refused} refused again")
    elif json:
        for letter in letters.read(settings, sink, reason):
            emit(msgspec.json.encode(letter))
    else:
        _show(tables.refused(letters.read(settings, sink, reason)))


def _show(letters: Table) -> None:
    if letters.row_count:
        console(stderr=False).print(letters)
    else:
        say("no dead letters")


def settings(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the reference of all settings, as Markdown.")
    ] = False,
) -> None:
    """Print the settings in effect, as TOML.

    Passwords are masked.
    """
    from streamer.operate import reference

    typer.echo(reference.markdown() if markdown else reference.toml(load_settings()), nl=False)
