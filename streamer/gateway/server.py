"""The gateway's web server: who may send, and what each address takes.

    POST /v1/events                   CloudEvents: binary, structured or a batch, as the content type says
    POST /v1/sessions/SESSION/SENSOR  a body as it is: the content type is its media type, ?time=… its time
    GET  /v1/stream                   a WebSocket of events, each answered by its id: stream.py
    GET  /v1/device                   the sessions of the token, the sensors that are declared, and the limits
    GET  /v1/clock                    the gateway's clock, which needs no token
    GET  /send                        a page that sends a phone's camera, microphone and motion

A success means that Kafka has the records. Errors are problem details (RFC 9457), ``application/problem+json`` with a
``detail`` of one line: 400 malformed, 401 no token or an unknown one, 403 another session, 404 no such sensor, 408 a
body that does not come, 413 too large, 415 a media type that nobody reads, 422 what a worker would refuse, with its
``reason``; 429 the token's quota and 503 Kafka or room, both with Retry-After.

The token is in ``Authorization: Bearer``; a browser's WebSocket has it as a subprotocol, ``bearer.TOKEN``. No cookie
and no CORS permission is ever given, so that no other site can send through a visitor.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache, partial
from time import time_ns
from typing import Any
from urllib.parse import unquote

import msgspec
from aiohttp import web
from aiohttp.http import RawRequestMessage

from streamer.errors import UsageError
from streamer.events import KIND_NAMES
from streamer.gateway import cloudevents
from streamer.gateway.cloudevents import Given
from streamer.gateway.connection import HAS_SHORT_WAY, Answering, Connection
from streamer.gateway.intake import Intake
from streamer.gateway.metrics import GatewayMetrics
from streamer.gateway.outgoing import Sent
from streamer.gateway.problems import Answer, Problem
from streamer.gateway.quotas import BUSY_RETRY_S, Room
from streamer.gateway.records import Records, trace_of
from streamer.gateway.stream import BEARER, Streams
from streamer.gateway.tokens import UNKNOWN, Token, Tokens
from streamer.observe.pages import page_file
from streamer.settings import Settings

PAGE = {
    "/send": ("send.html", "text/html"),
    "/send.js": ("send.js", "text/javascript"),
    "/send.css": ("send.css", "text/css"),
    "/microphone.js": ("microphone.js", "text/javascript"),
}
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src "
    "'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(self), geolocation=(self), accelerometer=(self), "
    "gyroscope=(self), screen-wake-lock=(self)",
}
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store"}
SCHEME = "bearer "
BACKLOG = 512  # connections that wait to be accepted
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: %d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    % BUSY_RETRY_S
)
OK_HEADERS = {"Content-Type": "application/json", **HEADERS}
EVENTS = "/v1/events"
KEPT_PATHS = 1024  # paths that were taken apart
QUERY = ("time", "durationus", "id", "sequence")  # attributes that the address of a plain body may have
NO_QUERY: Mapping[str, str] = {}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Gateway:
    """The server on one port.

    Args:
        records: For plain bodies; ``intake`` takes what comes in.
        room: What bodies take while they are read.
    """

    def __init__(
        self,
        settings: Settings,
        tokens: Tokens,
        records: Records,
        intake: Intake,
        room: Room,
        metrics: GatewayMetrics,
    ) -> None:
        self._settings = settings
        self._tokens = tokens
        self._records = records
        self._intake = intake
        self._room = room
        self._metrics = metrics
        self._body_s = settings.gateway_body_ms / 1000
        self._streams = Streams(settings, tokens, intake, room, metrics)
        self._runner: web.AppRunner | None = None
        self._server: asyncio.Server | None = None
        self.port = 0

    @property
    def scheme(self) -> str:
        """``https``, or ``http`` without a certificate."""
        return "https" if self._settings.gateway_cert_file is not None else "http"

    async def start(self) -> None:
        """Listen; with port 0 on a free one, which ``port`` then names.

        Raises:
            UsageError: The address is taken, or the certificate cannot be used.
        """
        app = web.Application(middlewares=[self._guard])
        app.on_shutdown.append(self._streams.close)
        app.add_routes(
            [
                web.post(EVENTS, self._post),
                web.post("/v1/sessions/{session}/{sensor}", self._post),
                web.get("/v1/stream", self._stream),
                web.get("/v1/device", self._device),
                web.get("/v1/clock", self._clock),
                *(web.get(path, self._page) for path in PAGE),
            ]
        )
        # A body that unpacks to more than it says would pass the limits, so that none is unpacked.
        self._options: dict[str, Any] = {
            "access_log": None,
            "auto_decompress": False,
            "keepalive_timeout": self._body_s,
        }
        self._runner = web.AppRunner(app, shutdown_timeout=self._settings.stop_after_ms / 1000, **self._options)
        await self._runner.setup()
        host, port = self._settings.gateway_host, self._settings.gateway_port
        context = tls_context(self._settings)
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(self._connection, host, port, ssl=context, backlog=BACKLOG)
        except OSError as error:
            await self.stop()
            raise UsageError(
                f"cannot listen on {host}:{port} ({error.strerror}); set STREAMER_GATEWAY_PORT to a free port, or 0 "
                "for any"
            ) from None
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Take no more connections, and finish what has come."""
        if self._server is not None:
            self._server.close()
        if self._runner is not None:
            await self._runner.cleanup()

    def observe(self) -> None:
        """Bring gauges up to date."""
        self._metrics.connections.set(len(self._connections()))
        self._metrics.inflight_bytes.set(self._room.used_bytes)

    def _connections(self) -> list[Any]:
        server = None if self._runner is None else self._runner.server
        return [] if server is None else server.connections

    def _connection(self) -> asyncio.BaseProtocol:
        """The protocol of a new connection."""
        assert self._runner is not None
        server = self._runner.server
        if server is None or len(server.connections) >= self._settings.gateway_connections:
            return _Full()
        if not HAS_SHORT_WAY:
            return server()
        return Connection(wanted, self._post_at_once, server, loop=asyncio.get_running_loop(), **self._options)

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
            return response
        except Problem as problem:
            return self._refused(problem).response()
        except web.HTTPException as error:
            answer = self._refused(Problem(error.status, error.reason)).response()
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
            return answer

    def _token(self, headers: Mapping[str, str]) -> Token:
        given = headers.get("Authorization", "")
        if not given and (offered := headers.get("Sec-WebSocket-Protocol")) is not None:
            protocols = (one.strip() for one in offered.split(","))
            given = next((f"{SCHEME}{one[len(BEARER) :]}" for one in protocols if one.startswith(BEARER)), "")
        secret = given[len(SCHEME) :].strip() if given[: len(SCHEME)].lower() == SCHEME else ""
        if not secret:
            raise Problem(401, "a token is needed: Authorization: Bearer TOKEN")
        token = self._tokens.find(secret)
        if token is None:
            raise Problem(401, UNKNOWN)
        return token

    # what comes in

    async def _post(self, request: web.Request) -> web.Response:
        """A request that goes aiohttp's way: see connection.py."""
        token = self._admitted(request.headers)
        over: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

        def answered(answer: Answer) -> None:
            if not over.done():  # cancelled at the end of a stop
                over.set_result(answer)

        path = request.rel_url.raw_path
        # no name here holds the body while Kafka is waited for
        self._take(path, request.query, request.headers, await self._body(request), token, answered)
        return (await over).response()

    def _post_at_once(self, message: RawRequestMessage, body: bytes, answering: Answering) -> None:
        """A request that has come whole."""
        try:
            token = self._admitted(message.headers)
            if len(body) > self._settings.gateway_body_bytes:
                raise _too_large(self._settings.gateway_body_bytes)
            self._room.take(len(body))
            path, has_query, _ = message.path.partition("?")
            self._take(path, message.url.query if has_query else NO_QUERY, message.headers, body, token, answering)
        except Problem as problem:
            answering(self._refused(problem))

    def _take(
        self,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        token: Token,
        answering: Answering,
    ) -> None:
        """Send the events of a body, and give back the room that was taken for it.

        Args:
            answering: Called once, with what became of them.

        Raises:
            Problem: None is sent.
        """
        nbytes = len(body)
        try:
            is_batch, given = self._events(path, query, headers, body)
        finally:
            self._room.give(nbytes)
        parent = headers.get("traceparent")
        trace = () if parent is None else trace_of(parent, headers.get("tracestate"))
        self._intake.send(given, nbytes, token, trace, partial(self._over, is_batch, answering))

    def _events(
        self, path: str, query: Mapping[str, str], headers: Mapping[str, str], body: bytes
    ) -> tuple[bool, list[Given]]:
        """Whether a body is a batch, and its events."""
        if path != EVENTS:
            target = target_of(path)
            assert target is not None
            attributes = cloudevents.attributes_of(headers)
            for name, text in query.items():
                if name not in QUERY:
                    raise Problem(400, f"the address may have {', '.join(QUERY)}, not {name[:80]!r}")
                attributes[name] = text
            return False, [self._records.raw(*target, cloudevents.checked(attributes), body)]
        media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type == cloudevents.BATCH:
            return True, cloudevents.batch(body, self._settings.gateway_batch_records)
        if media_type == cloudevents.STRUCTURED:
            return False, [cloudevents.structured(body)]
        return False, [Given(cloudevents.attributes_of(headers), body)]

    def _over(self, is_batch: bool, answering: Answering, sent: Sent) -> None:
        try:
            stored = self._intake.stored(sent)
        except Problem as problem:
            answering(self._refused(problem))
        else:
            answering(Answer(200, OK_HEADERS, msgspec.json.encode(stored if is_batch else stored[0])))

    def _admitted(self, headers: Mapping[str, str]) -> Token:
        """The request's token, if more may come from it."""
        token = self._token(headers)
        self._intake.check(token)
        return token

    def _refused(self, problem: Problem) -> Answer:
        self._intake.note(problem)
        return problem.answer()

    async def _body(self, request: web.Request) -> bytes:
        """The body; it has taken as much room as it has bytes, which the caller gives back."""
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Problem(415, "a body must not be compressed: leave out Content-Encoding")
        limit = self._settings.gateway_body_bytes
        taken = request.content_length or 0
        if taken > limit:
            raise _too_large(limit)
        self._room.take(taken)
        if taken and request.content.is_eof():  # small bodies come with their heads, and need no timer
            return request.content.read_nowait()
        chunks, size = [], 0
        try:
            async with asyncio.timeout(self._body_s):
                while chunk := await request.content.readany():
                    size += len(chunk)
                    if size > limit:
                        raise _too_large(limit)
                    if size > taken:  # its length was not said
                        self._room.take(size - taken)
                        taken = size
                    chunks.append(chunk)
        except BaseException as error:
            self._room.give(taken)
            if isinstance(error, TimeoutError):
                raise Problem(408, f"the body did not come within {self._body_s:g} s") from None
            if isinstance(error, web.RequestPayloadError | ConnectionError):
                raise Problem(400, "the body broke off") from None
            raise
        return b"".join(chunks)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.serve(request, self._token(request.headers))

    # what a device asks

    async def _device(self, request: web.Request) -> web.Response:
        token, settings = self._token(request.headers), self._settings
        sensors = settings.sensor_set
        return _json(
            {
                "sessions": token.sessions,
                "sensors": [{"name": one.name, "kind": KIND_NAMES[one.row]} for one in sensors.all],
                "limits": {
                    "bytes_a_second": settings.gateway_bytes_a_second,
                    "records_a_second": settings.gateway_records_a_second,
                    "body_bytes": settings.gateway_body_bytes,
                    "message_bytes": settings.gateway_message_bytes,
                    "batch_records": settings.gateway_batch_records,
                },
            }
        )

    async def _page(self, request: web.Request) -> web.Response:
        name, content_type = PAGE[request.path]
        body = page_file("streamer.gateway", name)
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=HEADERS | PAGE_HEADERS)

    async def _clock(self, request: web.Request) -> web.Response:
        return _json({"time_us": time_ns() // 1000})


class _Full(asyncio.Protocol):
    """A connection beyond the most: told so, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(FULL)
        transport.close()


@lru_cache(maxsize=KEPT_PATHS)
def target_of(path: str) -> tuple[str, str] | None:
    """Session and sensor of a plain body's path, as the request has it; ``None`` if it is no such path."""
    match path.split("/"):
        case ["", "v1", "sessions", session, sensor] if session and sensor:
            return unquote(session), unquote(sensor)
    return None


def wanted(path: str) -> bool:
    """Whether a POST to a path has events."""
    return path == EVENTS or target_of(path) is not None


def _too_large(limit: int) -> Problem:
    return Problem(413, f"a body has at most {limit} bytes (STREAMER_GATEWAY_BODY_BYTES)")


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """How the gateway proves itself; ``None``: without TLS.

    Raises:
        UsageError: It would be without TLS beyond this machine, or a file cannot be used.
    """
    cert, key = settings.gateway_cert_file, settings.gateway_key_file
    if cert is None or key is None:
        if not settings.gateway_plain and settings.gateway_host not in ("127.0.0.1", "::1", "localhost"):
            raise UsageError(
                f"STREAMER_GATEWAY_HOST {settings.gateway_host} is beyond this machine, and tokens must not be read on "
                "the way: set STREAMER_GATEWAY_CERT_FILE and STREAMER_GATEWAY_KEY_FILE, or, behind a proxy with TLS, "
                "STREAMER_GATEWAY_PLAIN=true"
            )
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(cert, key, password=lambda: "")  # else OpenSSL asks at the terminal
    except ssl.SSLError as error:
        raise UsageError(
            f"STREAMER_GATEWAY_CERT_FILE {cert} and STREAMER_GATEWAY_KEY_FILE {key} are no certificate with its key in "
            f"PEM form, without a password ({error.reason or error})"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot read {cert} or {key}: {error.strerror}") from None
    return context


def _json(what: object) -> web.Response:
    return Answer(200, OK_HEADERS, msgspec.json.encode(what)).response()
