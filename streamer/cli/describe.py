"""What windows show, in words: ``describe``, ``ask``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.options import TIME, AsJson, Sessions, console, emit, load_settings, say

if TYPE_CHECKING:
    from streamer.store.descriptions import Description


def describe(
    session: Sessions = None,
    since: Annotated[
        datetime | None,
        typer.Option(**TIME, help="In sessions without descriptions, leave out windows that end earlier."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when all results in Redis are described.")] = False,
    json: AsJson = False,
) -> None:
    """Describe each window in a sentence or two of plain English.

    From the outputs of the model and the words that were said; with STREAMER_DESCRIBE_URL by a language model behind an
    OpenAI-compatible address, which gets frames, words and telemetry. Follows the results of all sessions until Ctrl-C,
    and goes on where it was when it is started again. `streamer results --descriptions`, the page and the search show
    them; --json prints each as it is made.
    """
    from streamer.describe import process

    def show(description: Description) -> None:
        if json:
            emit(description.to_json())

    since_us = 0 if since is None else max(0, int(since.timestamp() * 1e6))
    only = tuple(dict.fromkeys(session or ()))
    process.run(load_settings(), only=only, since_us=since_us, once=once, on_description=show, say=say)


def ask(
    session: Annotated[str, typer.Argument(help="The session's name.")],
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    since: Annotated[
        datetime | None,
        typer.Option(**TIME, help="Only windows that end at or after this time, e.g. 2026-05-01T12:00:00Z."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(**TIME, help="Only windows that end at or before this time.")
    ] = None,
    json: AsJson = False,
) -> None:
    """Ask what happened in a stretch of a session's time.

    The answer names the windows that it rests on. Without a language model (STREAMER_DESCRIBE_URL) it is an extraction:
    the windows whose descriptions have the words of the question, and it says so.
    """
    from streamer.describe import question as questions

    since_us = 0 if since is None else max(0, int(since.timestamp() * 1e6))
    until_us = None if until is None else int(until.timestamp() * 1e6)
    reply = questions.ask(load_settings(), session, question, since_us, until_us)
    if json:
        emit(reply.to_json())
        return
    from streamer.terminal import tables

    typer.echo(tables.printable(reply.answer))
    if reply.windows:
        console(stderr=False).print(tables.descriptions(reply.windows))
    if reply.note:
        say(f"note: {tables.printable(reply.note)}")
