"""Golden replay: ``record`` and ``verify``."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from streamer.cli.options import TIME, AsJson, Sessions, console, emit, fresh, load_settings, say
from streamer.errors import UsageError


def record(
    out: Annotated[Path, typer.Argument(metavar="OUT.mcap", help="The file to write.", dir_okay=False)],
    seconds: Annotated[float | None, typer.Option(min=0.001, help="Length of the stretch, s of log time.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(**TIME, help="Begin at this log time, e.g. 2026-05-01T12:00:00Z; default: now."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Everything that the topics hold now.")] = False,
    session: Sessions = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Record a stretch of the source topics to a file.

    From now until Ctrl-C, or for --seconds. With --since or --all, what the topics hold already, up to now. The file is
    for `streamer verify`; its format is MCAP, which other tools can open too.
    """
    import signal
    from threading import Event

    from streamer.events import rfc3339
    from streamer.golden import record
    from streamer.terminal.bars import Recording

    if everything and (since is not None or seconds is not None):
        raise UsageError("--all records everything: give it without --since and --seconds")
    since_us = 0 if everything else None if since is None else int(since.timestamp() * 1e6)
    stretch = record.Stretch(since_us, seconds, tuple(dict.fromkeys(session or ())))
    settings, stop = load_settings(), Event()
    with Recording(console()) as bar:

        def ask(number: int, frame: object) -> None:
            if stop.is_set():
                sys.exit(128 + number)  # the second time: do not even wait for Kafka
            stop.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ask)
        done = record.record(settings, out, stretch, force=force, stop=stop, on_progress=bar.recorded)
    say(f"recorded {done.records} records, {done.nbytes / 1e6:.1f} MB of payload, to {out}")
    if done.undecided_us:
        say(f"a transaction was open at the end: the recording is complete up to {rfc3339(done.undecided_us)}")


def verify(
    recording: Annotated[Path, typer.Argument(metavar="RECORDING", help="A file of `streamer record`.")],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="RESULTS",
            help="redis: the live results; or a file of --save, `results --json` or `watch --json`.",
        ),
    ] = None,
    save: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write the results to this file, to verify against later.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="Largest difference of scores and embeddings that counts as equal.")
    ] = 1e-3,
    show: Annotated[int, typer.Option(min=0, help="Most differences in the table.")] = 20,
    json: AsJson = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file of --save if it exists.")] = False,
) -> None:
    """Run a recording through alignment and the model, and compare.

    Needs no Kafka. Shows what differs in windows, members, coverage and scores; exit code 1 if anything differs.
    `streamer verify day.mcap --save golden.ndjson` makes a reference; later, with another model or setting, `streamer
    verify day.mcap --against golden.ndjson` shows what has changed.
    """
    from contextlib import ExitStack

    from streamer.golden import verify
    from streamer.store import results
    from streamer.terminal import verification
    from streamer.terminal.bars import Verifying

    if against is None and save is None:
        raise UsageError("give --against RESULTS to compare with, or --save FILE to make a reference")
    settings = load_settings()
    with ExitStack() as stack:
        reference: verify.Reference | None = None
        if against == "redis":
            reference = verify.RedisReference(*stack.enter_context(results.connected(settings)))
        elif against is not None:
            reference = verify.FileReference(Path(against))
        out = None if save is None else stack.enter_context(fresh(save, force))
        bar = stack.enter_context(Verifying(console()))
        report = verify.run(settings, recording, reference, tolerance=tolerance, save=out, on_progress=bar.done)
    if json:
        for line in verify.as_json(report):
            emit(line)
    else:
        console(stderr=False).print(verification.view(report, show))
    if report.differences:
        raise typer.Exit(1)
