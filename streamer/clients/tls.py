"""TLS as both clients need it, and finding out by hand whether a server speaks it."""

from __future__ import annotations

import socket
import ssl

from streamer.errors import UsageError

PROBE_S = 3.0


def context(variable: str, ca_file: object) -> ssl.SSLContext:
    """A context that checks chain and host name.

    Args:
        variable: Names the setting of the authority's file, for messages.

    Raises:
        UsageError: The authority's file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except ssl.SSLError:
        raise UsageError(f"{variable}: {ca_file} holds no certificate in PEM form") from None
    except OSError as error:
        raise UsageError(f"{variable}: cannot read {ca_file}: {error.strerror}") from None


def speaks_tls(host: str, port: int) -> bool:
    """Whether the server speaks TLS, with any certificate."""
    return handshake(host, port, _trusting()) is None


def handshake(host: str, port: int, context: ssl.SSLContext) -> Exception | None:
    """The error of a TLS handshake; ``None`` if it succeeds."""
    try:
        with (
            socket.create_connection((host, port), PROBE_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return None
    except (OSError, ValueError) as error:
        return error


def _trusting() -> ssl.SSLContext:
    """Accepts any certificate: only to find out whether a server speaks TLS; no data is sent through it."""
    trusting = ssl.create_default_context()
    trusting.check_hostname = False
    trusting.verify_mode = ssl.CERT_NONE
    return trusting
