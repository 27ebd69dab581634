"""What is wrong with a request, as its answer says it: problem details for HTTP APIs (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from streamer.errors import BadRecord, Reason, StreamerError

CONTENT_TYPE = "application/problem+json"
# What a refused record is in HTTP; all other reasons are content that cannot be processed.
_STATUS = {Reason.TOO_LARGE: 413, Reason.BAD_CONTENT_TYPE: 415}


class Answer(NamedTuple):
    """An answer of HTTP."""

    status: int
    headers: dict[str, str]
    body: bytes

    def response(self) -> web.Response:
        """As aiohttp sends it."""
        return web.Response(status=self.status, headers=self.headers, body=self.body)


class Problem(StreamerError):
    """A request, or an event of it, that is not carried out.

    Args:
        status: Of HTTP.
        detail: One line for a person.
        retry_after_s: When to try again, if that may help.
        members: More members of the answer, such as ``reason`` (of :class:`Reason`) or ``index`` in a batch.
    """

    def __init__(self, status: int, detail: str, retry_after_s: int | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s
        self.members = members

    def document(self) -> dict[str, Any]:
        """The members of the answer."""
        found = {"title": HTTPStatus(self.status).phrase, "status": self.status, "detail": self.detail, **self.members}
        return found if self.retry_after_s is None else found | {"retry_after_s": self.retry_after_s}

    def answer(self) -> Answer:
        """The answer of HTTP."""
        headers = {"Content-Type": CONTENT_TYPE}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="streamer"'
        return Answer(self.status, headers, msgspec.json.encode(self.document()))


def refused(error: BadRecord) -> Problem:
    """The problem of a record that a worker would send to the dead letters."""
    return Problem(_STATUS.get(error.reason, 422), error.detail, reason=str(error.reason))
