"""What windows show, in words: ``describe``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.options import TIME, AsJson, Sessions, emit, load_settings, say

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

    From the outputs of the model and the words that were said. Follows the results of all sessions until Ctrl-C, and
    goes on where it was when it is started again. `streamer results --descriptions`, the page and the search show them;
    --json prints each as it is made.
    """
    from streamer.describe import process

    def show(description: Description) -> None:
        if json:
            emit(description.to_json())

    since_us = 0 if since is None else max(0, int(since.timestamp() * 1e6))
    only = tuple(dict.fromkeys(session or ()))
    process.run(load_settings(), only=only, since_us=since_us, once=once, on_description=show, say=say)
