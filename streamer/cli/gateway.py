"""Records by HTTP and WebSocket: ``gateway``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from streamer.cli.options import load_settings, say
from streamer.errors import UsageError, extra

gateway = typer.Typer(add_completion=False, rich_markup_mode=None, invoke_without_command=True)


@gateway.callback()
def _gateway(context: typer.Context) -> None:
    """Take records by HTTP and WebSocket, from devices with a token.

    CloudEvents and plain bodies become records of the source topics; an answer of success means that Kafka has them.
    Listens on STREAMER_GATEWAY_HOST and STREAMER_GATEWAY_PORT until Ctrl-C or SIGTERM; beyond this machine by TLS, with
    STREAMER_GATEWAY_CERT_FILE and STREAMER_GATEWAY_KEY_FILE.
    """
    if context.invoked_subcommand is not None:
        return
    from streamer.gateway import process

    process.run(load_settings(), typer.echo)


@gateway.command("token")
def gateway_token(
    session: Annotated[list[str], typer.Option(help="A session that its owner may send; can be repeated.")],
    link: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Address of the gateway as a phone reaches it, https://HOST:8443: print a link to its page instead of "
            "the token, and its QR code.",
        ),
    ] = None,
) -> None:
    """Make a token for a device, and print it: it is nowhere else.

    Its hash goes to the file of STREAMER_GATEWAY_TOKENS, which a running gateway reads again. Delete its entry there to
    revoke it.
    """
    from streamer.gateway import tokens

    if link is not None:
        if not link.startswith(("https://", "http://")):
            raise UsageError(f"--link {link!r} is no address: https://HOST:8443 is wanted")
        with extra("gateway", "a QR code"):
            import segno
    settings = load_settings()
    made = tokens.make(settings.gateway_tokens, tuple(dict.fromkeys(session)))
    say(f"added to {settings.gateway_tokens}; whoever has this token may send as {', '.join(session)}:")
    if link is None:
        typer.echo(made)
        return
    address = f"{link.rstrip('/')}/send#{made}"  # a fragment, which browsers send to no server
    segno.make_qr(address, error="l").terminal(sys.stderr, compact=True, border=2)
    typer.echo(address)
