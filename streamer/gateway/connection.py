"""Connections of aiohttp's server, with a short way for bodies that come whole with their heads.

aiohttp parses each request, and holds to its limits. What it then makes of one (a request, a response, a task for it
and one to wait for the next) costs 45 µs, as much as all that the gateway does with a record. A POST of an event that
has come whole, on a connection that waits for it, is therefore handled where it is parsed, and its answer is written as
bytes. All else goes aiohttp's way: bodies that come in parts, WebSockets, requests behind another that is not answered,
connections that do not go on, clients that do not read their answers.

The names of aiohttp that this uses are not public, so they are listed: with an aiohttp that has others all requests go
aiohttp's way, and a test fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from aiohttp import hdrs
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11, RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from streamer.gateway.problems import Answer, Problem

log = logging.getLogger(__name__)

INTERNALS = (
    "_buffer_paused",
    "_close",
    "_force_close",
    "_handler_waiter",
    "_keepalive",
    "_keepalive_handle",
    "_messages",
    "_next_keepalive_close_time",
    "_parser",
    "_paused",
    "_process_keepalive",
    "_request_in_progress",
    "_waiter",
)
HAS_SHORT_WAY = all(hasattr(RequestHandler, name) for name in INTERNALS)
CRASHED = Problem(500, "the gateway failed on this request").answer()
REASONS = {status.value: status.phrase for status in HTTPStatus}
LAST = "Connection: close\r\n"

Answering = Callable[[Answer], None]
Take = Callable[[RawRequestMessage, bytes, Answering], None]


class Connection(RequestHandler):
    """A connection.

    Args:
        wants: Whether the body of a POST to this path, as the request has it, is for ``take``.
        take: Called with a request, its body, and what to call once with the answer.
    """

    __slots__ = ("_is_taken", "_take", "_wants")

    def __init__(self, wants: Callable[[str], bool], take: Take, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._wants = wants
        self._take = take
        self._is_taken = False  # a request that is not answered yet

    def data_received(self, data: bytes) -> None:
        """As in aiohttp, but its loop is not woken by a request that is taken here, nor before the answer to one."""
        waiter = self._waiter
        if waiter is None:  # the loop is at a request
            super().data_received(data)
            return
        self._waiter = None
        super().data_received(data)
        self._waiter = waiter
        self._go_on()

    def _go_on(self) -> None:
        """Take the next request, or let aiohttp's loop do so."""
        waiter = self._waiter
        if self._is_taken or not self._messages or waiter is None or waiter.done():
            return
        message, payload = self._messages[0]
        if (
            not isinstance(message, RawRequestMessage)  # an error of the parser
            or len(self._messages) > 1
            or self._paused
            or self._buffer_paused
            or not payload.is_eof()
            or not self._is_for_us(message)
        ):
            waiter.set_result(None)
            return
        self._messages.popleft()
        assert self._parser is not None
        self._parser.message_consumed()
        self._is_taken = self._request_in_progress = True
        self._keepalive = False  # no end for want of requests while there is one
        try:
            self._take(message, payload.read_nowait(), self._answer)
        except Exception:
            log.exception("a request failed")
            self._answer(CRASHED)

    def _is_for_us(self, message: RawRequestMessage) -> bool:
        return (
            message.method == hdrs.METH_POST
            and message.version == HttpVersion11
            and not message.should_close
            and not message.upgrade
            and hdrs.EXPECT not in message.headers
            and hdrs.CONTENT_ENCODING not in message.headers
            and self._wants(message.path.partition("?")[0])
        )

    def _answer(self, answer: Answer) -> None:
        if not self._is_taken:
            return  # a crash after the answer
        self._is_taken = self._request_in_progress = False
        if self._handler_waiter is not None and not self._handler_waiter.done():
            self._handler_waiter.set_result(None)
        if self.transport is None:
            return  # it has gone
        is_last = self._close or self._force_close
        self.transport.write(_head(answer, is_last=is_last) + answer.body)
        if is_last:
            self.transport.close()
            return
        self._keepalive = True
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        self._go_on()


def _head(answer: Answer, *, is_last: bool) -> bytes:
    return (
        f"HTTP/1.1 {answer.status} {REASONS[answer.status]}\r\n{_fields(*answer.headers.items())}"
        f"Content-Length: {len(answer.body)}\r\nDate: {rfc822_formatted_time()}\r\nServer: {SERVER_SOFTWARE}\r\n"
        f"{LAST if is_last else ''}\r\n"
    ).encode("latin-1")


@lru_cache(maxsize=64)
def _fields(*fields: tuple[str, str]) -> str:
    return "".join([f"{name}: {text}\r\n" for name, text in fields])
