"""The command ``streamer``: runs a command line, and prints what goes wrong as one line.

Modules that load slowly are imported by what needs them: Typer by any command, PyTorch, PyAV, Faust, Kafka, Redis and
rich by single ones. Data goes to stdout, messages for people to stderr.
"""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING, NoReturn

from streamer.cli.commands import help_text
from streamer.errors import StreamerError

if TYPE_CHECKING:
    import typer

# Objects made between two garbage collections; with the default these take a tenth of the imports' time.
IMPORT_THRESHOLD = 20_000


def main() -> None:
    """Run the command line; an error is one line on stderr and a non-zero exit code."""
    if sys.argv[1:] in ([], ["--help"]):  # at once, without Typer
        print(help_text(), end="")  # noqa: T201
        sys.exit(0)
    gc.set_threshold(IMPORT_THRESHOLD)
    # The search for plugins reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    import typer

    from streamer.cli.app import app

    try:
        code = app(prog_name="streamer", standalone_mode=False)
    except StreamerError as error:
        print(f"streamer: {error}", file=sys.stderr)  # noqa: T201
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
