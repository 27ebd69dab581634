"""What settings read of the environment that is not a setting's value: secrets in files, variables of Kubernetes."""

from __future__ import annotations

import re
from pathlib import Path

from streamer.errors import UsageError

MAX_SECRET_BYTES = 64 << 10
SERVICE_LINK = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")


def secret(variable: str, path: Path) -> str:
    """The content of a file that a variable names, without the line end that editors add.

    Raises:
        UsageError: The file cannot be read, is empty, not text, or too large for a password.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        if len(content) > MAX_SECRET_BYTES:
            raise UsageError(f"{variable}: {path} holds more than {MAX_SECRET_BYTES} bytes, which is no password")
        text = content.decode().rstrip("\r\n")
    except OSError as error:
        raise UsageError(f"{variable}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{variable}: {path} is not UTF-8 text") from None
    if not text:
        raise UsageError(f"{variable}: {path} is empty")
    return text


def is_service_link(name: str, value: str) -> bool:
    """Whether Kubernetes set the variable: it does in every pod beside a service called ``streamer…``."""
    return SERVICE_LINK.fullmatch(name) is not None or (name.endswith("_PORT") and "://" in value)
