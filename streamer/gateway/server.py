"""The gateway's web server: who may send, and what each address takes.

    POST /v1/events                   CloudEvents: binary, structured or a batch, as the content type says
    POST /v1/sessions/SESSION/SENSOR  a body as it is: the content type is its media type, ?time=… its time
    GET  /v1/stream                   a WebSocket of events, each answered by its id: stream.py
    GET  /v1/device                   the sessions of the token, the sensors that are declared, and the limits
    GET  /v1/clock                    the gateway's clock, which needs no token
    GET  /send                        a page that sends a phone's camera, microphone and motion

A success means that Kafka has the records. Errors are problem details (RFC 9457), ``application/problem+json`` with a
``detail`` of one line: 400 malformed, 401 no token, 403 another session, 404 no such sensor, 408 a body that does not
come, 413 too large, 415 a media type that nobody reads, 422 what a worker would refuse, with its ``reason``; 429 the
token's quota and 503 Kafka or room, both with Retry-After.

The token is in ``Authorization: Bearer``; a browser's WebSocket has it as a subprotocol, ``bearer.TOKEN``. No cookie
and no CORS permission is ever given, so that no other site can send through a visitor.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from importlib.resources import files
from time import time_ns
from typing import Any

import msgspec
from aiohttp import web

from streamer.errors import UsageError
from streamer.events import KIND_NAMES
from streamer.gateway import cloudevents
from streamer.gateway.cloudevents import Given
from streamer.gateway.intake import Intake
from streamer.gateway.metrics import GatewayMetrics
from streamer.gateway.problems import Problem
from streamer.gateway.quotas import BUSY_RETRY_S, Room
from streamer.gateway.records import Records, trace_of
from streamer.gateway.stream import BEARER, Streams
from streamer.gateway.tokens import Token, Tokens
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
QUERY = ("time", "durationus", "id", "sequence")  # attributes that the address of a plain body may have

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
                web.post("/v1/events", self._events),
                web.post("/v1/sessions/{session}/{sensor}", self._body_alone),
                web.get("/v1/stream", self._stream),
                web.get("/v1/device", self._device),
                web.get("/v1/clock", self._clock),
                *(web.get(path, self._page) for path in PAGE),
            ]
        )
        # A body that unpacks to more than it says would pass the limits, so that none is unpacked.
        self._runner = web.AppRunner(
            app,
            access_log=None,
            auto_decompress=False,
            keepalive_timeout=self._body_s,
            shutdown_timeout=self._settings.stop_after_ms / 1000,
        )
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
        return server()

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
            return response
        except Problem as problem:
            self._intake.note(problem)
            return problem.response()
        except web.HTTPException as error:
            unknown = Problem(error.status, error.reason)
            self._intake.note(unknown)
            answer = unknown.response()
            if "Allow" in error.headers:
                answer.headers["Allow"] = error.headers["Allow"]
            return answer

    def _token(self, request: web.Request) -> Token:
        given = request.headers.get("Authorization", "")
        if not given and (offered := request.headers.get("Sec-WebSocket-Protocol")) is not None:
            protocols = (one.strip() for one in offered.split(","))
            given = next((f"{SCHEME}{one[len(BEARER) :]}" for one in protocols if one.startswith(BEARER)), "")
        token = self._tokens.find(given[len(SCHEME) :]) if given[: len(SCHEME)].lower() == SCHEME else None
        if token is None:
            raise Problem(401, "a token is needed: Authorization: Bearer TOKEN")
        return token

    # what comes in

    async def _events(self, request: web.Request) -> web.Response:
        token = self._admitted(request)
        media_type = request.content_type
        body, nbytes = await self._body(request)
        try:
            if media_type == cloudevents.STRUCTURED:
                given = [cloudevents.structured(body)]
            elif media_type == cloudevents.BATCH:
                given = cloudevents.batch(body, self._settings.gateway_batch_records)
            else:
                given = [Given(cloudevents.attributes_of(request.headers), body)]
        finally:
            self._room.give(nbytes)
        answers = await self._sent(request, given, nbytes, token)
        return _json(answers if media_type == cloudevents.BATCH else answers[0])

    async def _body_alone(self, request: web.Request) -> web.Response:
        token = self._admitted(request)
        attributes = cloudevents.attributes_of(request.headers)
        for name, text in request.query.items():
            if name not in QUERY:
                raise Problem(400, f"the address may have {', '.join(QUERY)}, not {name[:80]!r}")
            attributes[name] = text
        cloudevents.checked(attributes)
        session, sensor = request.match_info["session"], request.match_info["sensor"]
        body, nbytes = await self._body(request)
        try:
            given = self._records.raw(session, sensor, attributes, body)
        finally:
            self._room.give(nbytes)
        answers = await self._sent(request, [given], nbytes, token)
        return _json(answers[0])

    def _admitted(self, request: web.Request) -> Token:
        """The request's token, if more may come from it."""
        token = self._token(request)
        self._intake.check(token)
        return token

    async def _sent(self, request: web.Request, given: list[Given], nbytes: int, token: Token) -> list[dict[str, Any]]:
        trace = trace_of(request.headers.get("traceparent"), request.headers.get("tracestate"))
        return await self._intake.acknowledged(await self._intake.send(given, nbytes, token, trace))

    async def _body(self, request: web.Request) -> tuple[bytes, int]:
        """The body, and the bytes of room that it has taken, which the caller gives back."""
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Problem(415, "a body must not be compressed: leave out Content-Encoding")
        limit = self._settings.gateway_body_bytes
        taken = request.content_length or 0
        if taken > limit:
            raise _too_large(limit)
        self._room.take(taken)
        if taken and request.content.is_eof():  # small bodies come with their heads, and need no timer
            return request.content.read_nowait(), taken
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
        return b"".join(chunks), taken

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        return await self._streams.serve(request, self._token(request))

    # what a device asks

    async def _device(self, request: web.Request) -> web.Response:
        token, settings = self._token(request), self._settings
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
        body = (files("streamer.gateway") / name).read_bytes()
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=HEADERS | PAGE_HEADERS)

    async def _clock(self, request: web.Request) -> web.Response:
        return _json({"time_us": time_ns() // 1000})


class _Full(asyncio.Protocol):
    """A connection beyond the most: told so, and closed."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(FULL)
        transport.close()


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
    return web.Response(body=msgspec.json.encode(what), content_type="application/json", headers=HEADERS)
