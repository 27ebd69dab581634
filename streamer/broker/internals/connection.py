"""Internals of aiokafka's connections: another one, and who reads the bytes of one."""

from __future__ import annotations

import asyncio
import io
import time
from collections.abc import Mapping
from typing import Any, TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason, create_conn
from aiokafka.errors import CorrelationIdError, NodeNotReadyError

Connection = AIOKafkaConnection


async def connect(address: tuple[str, int], timeout_s: float, options: Mapping[str, Any]) -> AIOKafkaConnection:
    """A connection to one broker, beside those of a client.

    Args:
        options: As of ``clients.kafka_options``, without the addresses.

    Raises:
        KafkaError, OSError, TimeoutError: There is none.
    """
    host, port = address
    return await create_conn(host, port, request_timeout_ms=round(timeout_s * 1000), **options)


async def connection_to(client: AIOKafkaClient, node_id: int) -> AIOKafkaConnection:
    """The connection that the client sends on.

    Raises:
        NodeNotReadyError: There is none, as the client itself raises after a second try.
    """
    connection = await client._get_conn(node_id)
    if connection is None:
        raise NodeNotReadyError(f"no connection to broker {node_id}")
    return connection


class BytesReader(asyncio.BufferedProtocol):
    """What can take the place of a connection's reader and of the protocol under it."""

    def __init__(self, connection: AIOKafkaConnection) -> None:
        raise NotImplementedError

    def at_eof(self) -> bool:
        """Whether the connection may forget this reader, as it does when it is lost."""
        return False


Reader = TypeVar("Reader", bound=BytesReader)


def read_by(connection: AIOKafkaConnection, kind: type[Reader]) -> Reader | None:
    """Replace the reader of a connection, and the protocol under it.

    Args:
        kind: Of what is both; it is made of the connection.

    Returns:
        The reader; ``None`` if the connection awaits an answer, is lost or about to be, or has such a reader.
    """
    if connection._writer is None or connection._requests or isinstance(connection._reader, kind):
        return None
    transport = connection._writer.transport
    if transport.is_closing():
        return None
    reader = kind(connection)
    transport.pause_reading()  # uvloop looks at its protocol when it begins to read
    transport.set_protocol(reader)
    connection._read_task.cancel()
    connection._reader = reader
    transport.resume_reading()
    return reader


def protocol_of(connection: AIOKafkaConnection) -> asyncio.Protocol:
    """The client's protocol of a connection, which controls the flow of what it writes."""
    protocol: asyncio.Protocol = connection._protocol
    return protocol


def awaited(connection: AIOKafkaConnection) -> Any:
    """The sent form of the request whose answer comes next."""
    return connection._requests[0][1]


def take_answer(connection: AIOKafkaConnection, answer: bytes) -> None:
    """Let the client decode the next answer, from a copy."""
    connection._handle_frame(answer)


def take_answer_in_place(connection: AIOKafkaConnection, answer: io.BytesIO, size: int) -> None:
    """As :func:`take_answer`, without a copy: the client has no way to decode what is not ``bytes``.

    Args:
        answer: At its beginning; memory that may be longer than the answer.
        size: Of the answer.

    Raises:
        CorrelationIdError: The answer belongs to another request.
        ValueError: The answer claims to be longer than ``size``.
    """
    correlation_id, request, waiting = connection._requests[0]
    answered_id = request.parse_response_header(answer).correlation_id
    if answered_id != correlation_id:
        raise CorrelationIdError(f"the broker answers request {answered_id}, not {correlation_id}")
    if not waiting.done():
        response = request.RESPONSE_TYPE.decode(answer)
        if answer.tell() > size:  # the bytes behind it are of an earlier answer
            raise ValueError(f"an answer of {size} bytes claims to be longer")
        waiting.set_result(response)
    connection._last_action = time.monotonic()
    connection._requests.popleft()


def broken(connection: AIOKafkaConnection, error: Exception | None) -> None:
    """Report a lost connection to the client, as its own reader and protocol do."""
    connection._protocol.connection_lost(error)
    connection.close(reason=CloseReason.CONNECTION_BROKEN, exc=error or EOFError("the broker hung up"))
