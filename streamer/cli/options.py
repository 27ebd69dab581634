"""What the commands share: types of options, the settings, and where output goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from streamer.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from streamer.settings import Settings

AsJson = Annotated[bool, typer.Option("--json", help="One JSON document a line, for scripts.")]
Sessions = Annotated[list[str] | None, typer.Option("--session", help="This session alone; can be repeated.")]

TIME = {"parser": datetime.fromisoformat, "metavar": "TIME"}


def load_settings() -> Settings:
    """The settings in effect."""
    from streamer.settings import Settings

    return Settings.load()


@contextmanager
def fresh(path: Path, force: bool) -> Iterator[BinaryIO]:
    """A new file, which gets its name when it is complete; an existing file is replaced only with ``force``."""
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


def console(stderr: bool = True) -> Console:
    """A rich console; tables go to stdout, progress to stderr."""
    from rich.console import Console

    return Console(stderr=stderr)


def say(line: str) -> None:
    """A message for a person."""
    typer.echo(line, err=True)


def emit(line: bytes) -> None:
    """Write a line of data and flush it. If the reader has gone, as in ``| head``, the command ends in silence."""
    try:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # what is still buffered must not be written at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
