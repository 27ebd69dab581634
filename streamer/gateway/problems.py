"""What is wrong with a request, as its answer says it: problem details for HTTP APIs (RFC 9457)."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from streamer.errors import BadRecord, Reason, StreamerError

CONTENT_TYPE = "application/problem+json"
# What a refused record is in HTTP; all other reasons are content that cannot be processed.
_STATUS = {Reason.TOO_LARGE: 413, Reason.BAD_CONTENT_TYPE: 415}


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

    def response(self) -> web.Response:
        """The answer of HTTP."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = 'Bearer realm="streamer"'
        return web.Response(
            status=self.status, body=msgspec.json.encode(self.document()), content_type=CONTENT_TYPE, headers=headers
        )


def refused(error: BadRecord) -> Problem:
    """The problem of a record that a worker would send to the dead letters."""
    return Problem(_STATUS.get(error.reason, 422), error.detail, reason=str(error.reason))
