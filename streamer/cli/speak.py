"""Decisions said aloud: ``speak``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.options import TIME, Sessions, load_settings, say

if TYPE_CHECKING:
    from streamer.speak.sentences import Utterance


def speak(
    session: Sessions = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            **TIME,
            help="Where nothing was said yet, begin with windows that end at or after this time; else with new ones.",
        ),
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(file_okay=False, help="Also write each sentence to this folder, as a WAV file.")
    ] = None,
) -> None:
    """Say decisions and alarms aloud, when they change.

    The [speak] table of the model's model.toml has the sentences and their severities. Each is a record of the topic
    streamer.speech, WAV of 24 kHz, which the live page plays. Runs until Ctrl-C, and goes on where it was when it is
    started again.
    """
    from streamer.events import rfc3339
    from streamer.speak import process

    def show(utterance: Utterance) -> None:
        when = rfc3339(utterance.end_us, "seconds")
        say(f"{when} {utterance.session} {utterance.severity.name.lower()}: {utterance.text}")

    since_us = None if since is None else max(0, int(since.timestamp() * 1e6))
    only = tuple(dict.fromkeys(session or ()))
    process.run(load_settings(), only=only, since_us=since_us, folder=folder, on_utterance=show, say=say)
