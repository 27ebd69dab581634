"""The command line as Typer runs it: a command's module is imported when that command is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Annotated, Any

import typer
import typer.core
import typer.main

from streamer import __version__
from streamer.cli.commands import COMMANDS, help_text


class _Commands(Mapping[str, Any]):
    """The table of commands, each made by Typer from its function when it is looked up."""

    def __getitem__(self, name: str) -> Any:
        found = getattr(import_module(f"streamer.cli.{COMMANDS[name].module}"), name)
        if isinstance(found, typer.Typer):
            return typer.main.get_group(found)
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name)(found)
        return typer.main.get_command(app)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(typer.core.TyperGroup):
    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = _Commands()  # type: ignore[assignment]  # Typer's type allows changes, which it does not make

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help of ``commands.py``, which needs none of the modules."""
        formatter.write(help_text())


# Plain help: rich's panels take half a second to load and say the same.
app = typer.Typer(
    name="streamer",
    cls=_Group,
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"streamer {__version__}")
        raise typer.Exit


@app.callback()
def _streamer(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
