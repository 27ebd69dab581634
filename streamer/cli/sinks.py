"""Results on their way out: ``sink``."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer

from streamer.cli.options import Sessions, load_settings, say


def _start(text: str) -> int | None:
    """A point to begin at, microseconds; ``None`` for now."""
    if text == "now":
        return None
    if text == "beginning":
        return 0
    try:
        return max(0, int(datetime.fromisoformat(text).timestamp() * 1e6))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is neither now, beginning nor a time such as 2026-05-01T12:00:00Z"
        ) from None


def sink(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="kafka, webhook, parquet, or one of an extension.")],
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="TIME",
            help="Where to begin in sessions that are new to the sink: now, beginning, or a time.",
        ),
    ] = "now",
    session: Sessions = None,
    name: Annotated[
        str | None, typer.Option(help="Name of its cursors, for several sinks of a kind; the kind if not given.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End when all results in Redis are there.")] = False,
) -> None:
    """Take results out: to a Kafka topic, a webhook, Parquet files.

    Follows the results of all sessions until Ctrl-C, and goes on where it was when it is started again. `kafka` writes
    each once to the topic streamer.results, `webhook` posts each at least once and signed to STREAMER_WEBHOOK_URL,
    `parquet` writes each once to files in STREAMER_PARQUET_DIR. One process for each.
    """
    from streamer.sinks import process

    only = tuple(dict.fromkeys(session or ()))
    process.run(load_settings(), kind, name=name, only=only, since_us=_start(start), once=once, say=say)
