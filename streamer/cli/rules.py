"""Alarms by rules: ``rules``."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamer.cli.commands import COMMANDS
from streamer.cli.options import AsJson, Sessions, console, emit, load_settings, say
from streamer.errors import UsageError

if TYPE_CHECKING:
    from streamer.rules.alarm import Alarm

rules = typer.Typer(rich_markup_mode=None, help=COMMANDS["rules"].summary)


def _line(alarm: Alarm) -> str:
    from streamer.events import rfc3339
    from streamer.terminal.tables import printable

    return printable(f"{rfc3339(alarm.end_us, 'seconds')} {alarm.session} {alarm.severity} {alarm.rule}: {alarm.text}")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' * (count != 1)}"


@rules.command("run")
def rules_run(
    session: Sessions = None,
    everything: Annotated[
        bool, typer.Option("--all", help="In sessions that are new to the rules, begin with the oldest result.")
    ] = False,
) -> None:
    """Apply the rules of STREAMER_RULES to all results, until Ctrl-C.

    Alarms stay open until somebody acknowledges them. Begins with what is published from now on, and goes on where it
    was when it is started again.
    """
    from streamer.rules import process

    only = tuple(dict.fromkeys(session or ()))
    since_us = 0 if everything else None
    process.run(load_settings(), only=only, since_us=since_us, on_alarm=lambda alarm: say(_line(alarm)), say=say)


@rules.command("test")
def rules_test(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="Of `streamer record`, or of `verify --save`.")],
    json: AsJson = False,
) -> None:
    """Print the alarms that a recording or results would raise; nothing is done."""
    import msgspec

    from streamer.rules import table
    from streamer.rules.actions import ACTIONS

    settings = load_settings()
    found = table.read(settings.rules, list(ACTIONS))
    try:
        path.open("rb").close()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None

    from streamer.rules import trial  # loads what models need, for seconds
    from streamer.terminal.bars import Verifying

    with Verifying(console()) as bar:
        tried = trial.run(settings, found, path, bar.done)
    for alarm in tried.alarms:
        if json:
            emit(msgspec.json.encode({"id": alarm.id, **msgspec.structs.asdict(alarm)}))
        else:
            typer.echo(_line(alarm))
    for name, (count, why) in tried.unknown.items():
        of = _counted(tried.windows, "window")
        say(f"{name}: neither true nor false in {count} of {of}, the last time because of: {why}")
    if tried.windows:
        have = ", ".join(tried.outputs) or "no output"
        for name, rule in found.items():
            for missing in tried.unsaid(rule):
                say(f"{name}: {{{missing}}} in `say` has no value; the results have: {have}")
    say(f"{_counted(len(tried.alarms), 'alarm')} in {_counted(tried.windows, 'window')}")


@rules.command("alarms")
def rules_alarms(session: Sessions = None, json: AsJson = False) -> None:
    """List the alarms that nobody has acknowledged, the newest first."""
    import msgspec

    from streamer.rules import alarms
    from streamer.store import results

    with results.connected(load_settings()) as (client, keys):
        found = alarms.opened(client, keys, dict.fromkeys(session) if session else None)
    for one in found:
        if json:
            emit(msgspec.json.encode(one.fields()))
        else:
            typer.echo(_line(one.alarm) + (f" ({one.count} times)" if one.count > 1 else ""))
    if not found and not json:
        say("no open alarms")


@rules.command("ack")
def rules_ack(
    session: Annotated[str, typer.Argument(help="The session's name.")],
    rule: Annotated[str, typer.Argument(help="The rule's name.")],
    by: Annotated[str | None, typer.Option(help="Who acknowledges it; you, if not given.")] = None,
    note: Annotated[str, typer.Option(help="What is to be said with it.")] = "",
) -> None:
    """Acknowledge the open alarm of a rule, under a name."""
    from streamer.rules import alarms
    from streamer.store import results

    who, settings = by or getpass.getuser(), load_settings()
    with results.connected(settings) as (client, keys):
        if not alarms.acknowledge(client, keys, session, rule, who, note, maxlen=settings.results_maxlen):
            raise UsageError(f"{session} has no open alarm {rule!r}; `streamer rules alarms` lists them")
    say(f"{rule} of {session} is acknowledged by {who}")


@rules.command("log")
def rules_log(session: Annotated[str, typer.Argument(help="The session's name.")], json: AsJson = False) -> None:
    """Print what happened to a session's alarms: raised, done, acknowledged by whom."""
    import msgspec

    from streamer.events import rfc3339
    from streamer.rules import alarms
    from streamer.store import results
    from streamer.terminal.tables import printable

    with results.connected(load_settings()) as (client, keys):
        entries = list(alarms.history(client, keys, session))
    for entry in entries:
        if json:
            emit(msgspec.json.encode(entry))
            continue
        by = f" by {entry.by}" if entry.by else ""
        note = f": {entry.note}" if entry.note else ""
        typer.echo(printable(f"{rfc3339(entry.at_ms * 1000, 'seconds')} {entry.rule} {entry.what}{by}{note}"))
    if not entries and not json:
        say("nothing yet")
