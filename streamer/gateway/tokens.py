"""Who may send: a file of hashed tokens, each bound to names of sessions.

A token is ``ID_SECRET``. The file has the SHA-256 of the secret, which is 256 random bits: a slow hash would protect no
better. Its form is TOML, so that a line can be deleted by hand, which revokes a token::

    [[token]]
    id = "k7f3q2m9"
    sessions = ["cab-7"]
    sha256 = "…"
    made = 2026-11-30T12:00:00Z
"""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import os
import secrets
import tempfile
import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import msgspec

from streamer.errors import UsageError, one_line
from streamer.events import MAX_SESSION_BYTES

log = logging.getLogger(__name__)

ID_CHARACTERS = "23456789abcdefghjkmnpqrstuvwxyz"  # none that a person takes for another
ID_LENGTH = 8
SECRET_BYTES = 32
MAX_FILE_BYTES = 4 << 20
HEAD = "# Who may send to `streamer gateway`: it reads this file again when it changes. Delete an entry to revoke it.\n"

# Never which of the two, nor whether the id is known: that would help who guesses.
UNKNOWN = "this token is unknown or was revoked; `streamer gateway token` makes one"

Sha256 = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An entry of the file: names of the sessions that it opens, and the hash of its secret."""

    id: str
    sessions: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    sha256: Sha256
    made: datetime | None = None


class _File(msgspec.Struct, forbid_unknown_fields=True):
    token: list[Token] = []


def make(path: Path, sessions: tuple[str, ...]) -> str:
    """Add a token to the file, and return it: it is nowhere else.

    Raises:
        UsageError: A session's name is too long or empty, or the file cannot be read or written.
    """
    for session in sessions:
        if not 0 < len(session.encode("utf-8", "surrogatepass")) <= MAX_SESSION_BYTES or not session.isprintable():
            raise UsageError(f"a session's name has 1 to {MAX_SESSION_BYTES} bytes of text, which {session!r} has not")
    text = path.read_text("utf-8") if path.is_file() else HEAD
    known = _parse(text, path)
    number = next(found for found in iter(_id, None) if found not in known)
    secret = secrets.token_urlsafe(SECRET_BYTES)
    entry = (
        f"\n[[token]]\nid = {json.dumps(number)}\nsessions = {json.dumps(sessions, ensure_ascii=False)}\n"
        f'sha256 = "{_hash(secret)}"\nmade = {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n'
    )
    _replace(path, text + entry)
    return f"{number}_{secret}"


class Tokens:
    """The tokens of the file as they are now.

    Raises:
        UsageError: The file is missing or cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}
        self._found: dict[str, Token] = {}  # by what was given, once it was right: no hash for each request
        self.fault = ""  # why the file cannot be read now; the tokens that were read before still hold
        if not path.is_file():
            raise UsageError(f"no tokens at {path}: make one by `streamer gateway token --session NAME`")
        self.refresh()
        if self.fault:
            raise UsageError(self.fault)

    def __len__(self) -> int:
        return len(self._tokens)

    def refresh(self) -> None:
        """Read the file if it has changed. One that cannot be read changes nothing: ``fault`` says why."""
        try:
            status = self._path.stat()
            seen = status.st_mtime_ns, status.st_size, status.st_ino
            if seen == self._seen:
                return
            self._tokens = _parse(self._path.read_text("utf-8"), self._path)
            self._found = {}
            self._seen, self.fault = seen, ""
            log.info("%d tokens in %s", len(self._tokens), self._path)
        except (OSError, UnicodeDecodeError) as error:
            self._report(f"cannot read {self._path}: {one_line(error)}")
        except UsageError as error:
            self._report(str(error))

    def find(self, given: str) -> Token | None:
        """Whose token it is; ``None``: nobody's. Secrets are compared in constant time."""
        found = self._found.get(given)
        if found is not None:
            return found
        number, _, secret = given.partition("_")
        token = self._tokens.get(number)
        right = hmac.compare_digest(_hash(secret), token.sha256 if token is not None else "0" * 64)
        if token is None or not right:
            return None
        self._found[given] = token
        return token

    def holds(self, token: Token) -> bool:
        """Whether a token that was found is in the file still."""
        return self._tokens.get(token.id) == token

    def _report(self, fault: str) -> None:
        if fault != self.fault:
            log.error("%s; the tokens that were read before still hold", fault)
        self.fault = fault


def _id() -> str:
    return "".join(secrets.choice(ID_CHARACTERS) for _ in range(ID_LENGTH))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _parse(text: str, path: Path) -> dict[str, Token]:
    if len(text) > MAX_FILE_BYTES:
        raise UsageError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB")
    try:
        found = msgspec.convert(tomllib.loads(text), _File).token
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise UsageError(f"{path}: {one_line(error)}") from None
    tokens = {token.id: token for token in found}
    if len(tokens) < len(found):
        raise UsageError(f"{path}: two tokens have one id")
    return tokens


def _replace(path: Path, text: str) -> None:
    """Write a file that only its owner can read, at once: a reader never sees half of it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)  # with mode 0600
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink()
            raise
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None
