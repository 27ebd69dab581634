"""What counts as an answer of Kafka or Redis."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from streamer.local import probe
from streamer.local.process import free_port
from streamer.settings import Settings


@contextmanager
def server(answer: Callable[[bytes], bytes]) -> Iterator[str]:
    """An address where one connection is answered once."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(answer(connection.recv(100)))

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def versions(request: bytes, error: int = 0) -> bytes:
    """ApiVersions of a broker that knows no request at all."""
    body = struct.pack(">ihi", struct.unpack(">ihhi", request[:12])[3], error, 0)
    return struct.pack(">i", len(body)) + body


@pytest.mark.parametrize(
    ("answer", "answers"),
    [
        (versions, True),
        (lambda request: versions(request, error=35), False),
        (lambda request: b"-ERR unknown command\r\n", False),
        (lambda request: b"", False),
    ],
)
def test_a_broker_answers_if_it_says_which_requests_it_knows(answer: Callable[[bytes], bytes], answers: bool) -> None:
    with server(answer) as address:
        assert probe.kafka_answers(Settings(kafka=f"127.0.0.1:{free_port()}, {address}")) is answers


@pytest.mark.parametrize(
    ("answer", "answers"),
    [
        (b"+PONG\r\n", True),
        (b"-LOADING Redis is loading the dataset in memory\r\n", False),
        (b"-NOAUTH Authentication required.\r\n", False),
        (b"", False),
    ],
)
def test_redis_answers_if_it_carries_out_a_ping(answer: bytes, answers: bool) -> None:
    with server(lambda request: answer if request == b"PING\r\n" else b"") as address:
        assert probe.redis_answers(Settings(redis=f"redis://{address}/0")) is answers


@pytest.mark.parametrize("url", ["redis://127.0.0.1:{port}", "redis://me:secret@127.0.0.1:{port}", "redis://h:port"])
def test_where_nothing_listens_nothing_answers(url: str) -> None:
    settings = Settings(kafka=f"127.0.0.1:{free_port()}", redis=url.format(port=free_port()))
    assert not probe.kafka_answers(settings)
    assert not probe.redis_answers(settings)
