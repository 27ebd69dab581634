"""Servers and workers on this machine: ``up``, ``down``, ``status``, ``topics``, ``worker``, ``demo``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.commands import COMMANDS
from streamer.cli.options import console, load_settings, say
from streamer.errors import UsageError, extra

if TYPE_CHECKING:
    from streamer.local.stack import Service

topics = typer.Typer(rich_markup_mode=None, help=COMMANDS["topics"].summary)


class Role(StrEnum):
    """What a worker does."""

    ALL = "all"
    ALIGN = "align"
    INFER = "infer"


def up(
    docker: Annotated[
        bool, typer.Option("--docker", help="Use containers of docker-compose.yml in place of embedded servers.")
    ] = False,
) -> None:
    """Start Kafka and Redis on this machine.

    Servers that run already are left alone. By default the real servers run embedded, without Docker or Java: on free
    ports, with data and logs in .streamer/. If STREAMER_KAFKA or STREAMER_REDIS gives a server's address, that server
    is used as it is. All other commands find the addresses by themselves. Exit code 1 if a server does not answer.
    """
    with extra("local", "running servers on this machine"):
        from streamer.local import stack

    _show_services(stack.up(load_settings(), docker=docker, progress=say))


def down() -> None:
    """Stop what `streamer up` started.

    The data stay in .streamer/.
    """
    with extra("local", "running servers on this machine"):
        from streamer.local import stack

    stopped = stack.down(say)
    say(f"stopped {' and '.join(stopped)}" if stopped else "nothing was running")


def status() -> None:
    """Show where Kafka and Redis are.

    Exit code 1 if one of them does not answer.
    """
    with extra("local", "running servers on this machine"):
        from streamer.local import stack

    _show_services(stack.status(load_settings()))


@topics.command("create")
def topics_create() -> None:
    """Make the topics that are missing; check those that exist."""
    from streamer.broker import topics

    for topic in topics.create(load_settings()):
        state = "created" if topic.created else "exists"
        typer.echo(f"{topic.name:<32} {topic.partitions:>4} partitions  {topic.timestamp_type}  {state}")


def worker(
    role: Annotated[
        Role | None, typer.Option(help="all: everything; align: up to closed windows; infer: from closed windows on.")
    ] = None,
) -> None:
    """Read Kafka, align, infer, publish to Redis.

    Runs until Ctrl-C or SIGTERM. Several workers share the partitions. /metrics, /healthz and /readyz are on
    STREAMER_PORT.

    With roles, workers with a GPU scale separately from the others: some run --role align, some --role infer, with the
    windows topic between them. The results are the same.
    """
    import gc

    gc.disable()  # collections take a tenth of the time of the imports; the worker enables them again
    from streamer.settings import Settings
    from streamer.worker import process

    process.run(Settings.load(role=None if role is None else str(role)))


def transcribe() -> None:
    """Read sound from Kafka, write what is said to Kafka.

    A worker between the topics of sound and of transcripts: voice activity cuts each microphone's sound into
    utterances, a recogniser hears their words, and these become events of the time at which they were spoken. Runs
    until Ctrl-C or SIGTERM. Several share the partitions. /metrics, /healthz and /readyz are on STREAMER_PORT.
    """
    with extra("senses", "transcribing"):
        from streamer.transcribe import process

    process.run(load_settings())


def demo(
    film: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="In place of cars: a film of yours, seen, heard, described and spoken of."),
    ] = None,
    listen: Annotated[
        bool, typer.Option("--listen", help="The cars speak, and `streamer transcribe` hears them. One car by default.")
    ] = False,
    sessions: Annotated[
        int | None, typer.Option(min=1, help="Cars that drive at the same time.", show_default="4")
    ] = None,
    seconds: Annotated[int, typer.Option(min=2, help="Length of the drives, s.")] = 45,
    seed: Annotated[int, typer.Option(min=0, help="Chooses the drives.")] = 1,
    headless: Annotated[
        bool, typer.Option("--headless", help="Print lines of progress in place of the live table.")
    ] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", dir_okay=False, help="Also write the summary to this file.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave Kafka and Redis running afterwards.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Serve the live page during the demo.")] = False,
) -> None:
    """See the whole system at work, from cars to results.

    Uses the running Kafka and Redis, or starts embedded ones. Ends with a summary; exit code 1 if a window was lost, a
    record was refused or the model failed.

    With --film the senses of models/everyday look at a film of yours: what they see and hear, what is said in it, a
    description of each window, what is said aloud and a search are on the page, which stays until Ctrl-C. One line
    says how to get the networks that are missing.
    """
    import signal

    with extra("local", "the demo"):
        from streamer.demo import run, summary

    # a plain kill too must stop everything that was started
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    out = console(stderr=False)
    if film is not None:
        if listen:
            raise UsageError("--listen is for cars; a film is listened to anyway")
        _show_film(film, headless, keep, json_file)
        return
    cars = sessions if sessions is not None else 1 if listen else run.Options().sessions  # hearing takes a core a car
    options = run.Options(cars, seconds, seed, headless=headless, keep=keep, page=page, listen=listen)
    outcome = run.run(load_settings(), options, out)
    out.print(summary.view(outcome))
    if json_file is not None:
        json_file.write_bytes(summary.as_json(outcome))
    if not outcome.clean:
        raise typer.Exit(1)


def _show_film(path: Path, headless: bool, keep: bool, json_file: Path | None) -> None:
    with extra("feeds", "a film's demo"):
        from streamer.demo import film, viewing

    out = console(stderr=False)

    def show(found: viewing.Viewing) -> None:
        out.print(viewing.view(found))
        if json_file is not None:
            json_file.write_bytes(viewing.as_json(found))

    outcome = film.run(load_settings(), film.Options(path, headless=headless, keep=keep), out, show)
    if not outcome.clean:
        raise typer.Exit(1)


def _show_services(services: Sequence[Service]) -> None:
    """Exit code 1 if one of them does not answer."""
    for service in services:
        answers = "answers" if service.answers else "does not answer"
        typer.echo(f"{service.name:<6} {service.address:<32} {answers:<16} {service.runs_as}")
    if not all(service.answers for service in services):
        raise typer.Exit(1)
