"""A WebSocket of events: each message is one event, each answer says by the event's id what became of it.

Text is an event in structured mode (subprotocol ``cloudevents.json``); bytes are one as ``cloudevents.framed`` has it.
Answers are JSON: ``{"message": 0, "status": 200, "id": …, "topic": …, "partition": …, "offset": …}`` once Kafka has the
event, else the details of the problem. ``message`` counts the messages of the connection. Answers come in the order in
which Kafka acknowledges. While many events wait, no more are read.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Any

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from streamer.gateway import cloudevents
from streamer.gateway.intake import Intake, Trace
from streamer.gateway.metrics import GatewayMetrics
from streamer.gateway.outgoing import Sent
from streamer.gateway.problems import Problem
from streamer.gateway.quotas import Room
from streamer.gateway.records import trace_of
from streamer.gateway.tokens import UNKNOWN, Token, Tokens
from streamer.settings import Settings

PROTOCOL = "cloudevents.json"  # WebSocket binding 1.0.2, section 1.2
BEARER = "bearer."  # a browser has no other place for the token of a WebSocket
HEARTBEAT_S = 20.0  # a peer that does not answer a ping within half of this has gone
MAX_WAITING = 64  # events of a connection that Kafka does not have yet


class Streams:
    """All open WebSockets."""

    def __init__(self, settings: Settings, tokens: Tokens, intake: Intake, room: Room, metrics: GatewayMetrics) -> None:
        self._tokens = tokens
        self._max_bytes = settings.gateway_message_bytes
        self._intake = intake
        self._room = room
        self._metrics = metrics
        self._closing = asyncio.Event()

    async def close(self, app: web.Application | None = None) -> None:
        """Read no more; what was read is answered first."""
        self._closing.set()

    async def serve(self, request: web.Request, token: Token) -> web.StreamResponse:
        """A connection, until either side closes it."""
        socket = web.WebSocketResponse(
            protocols=(PROTOCOL,), max_msg_size=self._max_bytes, heartbeat=HEARTBEAT_S, compress=False
        )
        if not socket.can_prepare(request).ok:
            raise Problem(400, "this address is for a WebSocket")
        await socket.prepare(request)
        trace = trace_of(request.headers.get("traceparent"), request.headers.get("tracestate"))
        one = _Stream(socket, token, self._tokens, trace, self._intake, self._room)
        reading = asyncio.create_task(one.read())
        answering = asyncio.create_task(one.answer())
        closing = asyncio.create_task(self._closing.wait())
        self._metrics.streams.inc()
        try:
            await asyncio.wait({reading, closing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, closing):
                task.cancel()
            await asyncio.gather(reading, closing, return_exceptions=True)
            finishing = asyncio.create_task(one.finish())
            await asyncio.wait({finishing, answering}, return_when=asyncio.FIRST_COMPLETED)
            for task in (finishing, answering):
                task.cancel()
            await asyncio.gather(finishing, answering, return_exceptions=True)
            self._metrics.streams.dec()
        if self._closing.is_set():
            await socket.close(code=WSCloseCode.GOING_AWAY, message=b"the gateway stops: connect again")
        for task in (reading, answering):
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        return socket


class _Stored(msgspec.Struct):
    """The answer to an event that Kafka has."""

    message: int
    status: int
    id: str
    topic: str
    partition: int
    offset: int


class _Stream:
    def __init__(
        self,
        socket: web.WebSocketResponse,
        token: Token,
        tokens: Tokens,
        trace: Trace,
        intake: Intake,
        room: Room,
    ) -> None:
        self._socket = socket
        self._token = token
        self._tokens = tokens
        self._trace = trace
        self._intake = intake
        self._room = room
        self._free = asyncio.Semaphore(MAX_WAITING)
        self._waiting = 0  # messages that were taken and are not answered
        self._idle = asyncio.Event()
        self._over: asyncio.Queue[tuple[int, Sent]] = asyncio.Queue()

    async def read(self) -> None:
        """Take messages until the connection ends."""
        number = 0
        async for message in self._socket:
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await self._free.acquire()
                try:
                    self._take(number, message.data)
                except Problem as problem:
                    self._free.release()
                    await self._refuse(number, problem)
                number += 1

    async def finish(self) -> None:
        """Answer all that was taken."""
        while self._waiting:
            self._idle.clear()
            await self._idle.wait()

    async def answer(self) -> None:
        """Answer events as their outcomes come, until cancelled."""
        while True:
            number, sent = await self._over.get()
            await self._answer(number, sent)
            self._waiting -= 1
            self._idle.set()

    def _take(self, number: int, data: str | bytes) -> None:
        if not self._tokens.holds(self._token):
            raise Problem(401, UNKNOWN)
        self._intake.check(self._token)
        nbytes = len(data)
        self._room.take(nbytes)
        try:
            given = cloudevents.structured(data) if isinstance(data, str) else cloudevents.framed(data)
        finally:
            self._room.give(nbytes)
        self._intake.send([given], nbytes, self._token, self._trace, partial(self._ended, number))
        self._waiting += 1

    def _ended(self, number: int, sent: Sent) -> None:
        self._over.put_nowait((number, sent))

    async def _answer(self, number: int, sent: Sent) -> None:
        try:
            (stored,) = self._intake.stored(sent)
        except Problem as problem:
            problem.members["id"] = sent.records[0].id
            await self._refuse(number, problem)
        else:
            await self._say(_Stored(number, 200, stored.id, stored.topic, stored.partition, stored.offset))
        finally:
            self._free.release()

    async def _refuse(self, number: int, problem: Problem) -> None:
        self._intake.note(problem)
        await self._say({"message": number, **problem.document()})

    async def _say(self, answer: _Stored | dict[str, Any]) -> None:
        with suppress(ConnectionError):  # it has gone, and sends again what it does not know to be in Kafka
            await self._socket.send_str(msgspec.json.encode(answer).decode())
