"""A broker's side: record batches, and a server whose answers the test decides."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from struct import pack, unpack

from aiokafka.protocol.admin import ApiVersionResponse_v0
from aiokafka.protocol.fetch import FetchResponse_v4
from aiokafka.protocol.metadata import MetadataResponse_v0
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from crc32c import crc32c

SPOKEN = [(FetchResponse_v4.API_KEY, 4, 4), (MetadataResponse_v0.API_KEY, 0, 0)]


def batch_of(payload: bytes) -> bytes:
    """Two records: one with key, payload and headers; one with none of them."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 16)
    builder.append(0, 1_234, b"car", payload, [("ce_type", b"frame"), ("empty", None)])
    builder.append(1, 1_235, None, None, [])
    return bytes(builder.build())


def batch_with(
    payloads: Sequence[bytes], codec: int = 0, base_offset: int = 0, is_transactional: bool = False
) -> bytes:
    """A record for each payload, with the key ``car`` and a header, written by aiokafka; times from 1,000 ms on."""
    builder = DefaultRecordBatchBuilder(2, codec, is_transactional, 7 if is_transactional else -1, 0, 0, 64 << 20)
    for number, payload in enumerate(payloads):
        builder.append(number, 1_000 + number, b"car", payload, [("ce_type", b"frame")])
    return bytes(pack(">q", base_offset) + builder.build()[8:])


def as_stored(batch: bytes, at: int = 0, piece: bytes = b"") -> bytes:
    """A batch with other bytes at a place, and the checksum and length that a broker would have for it."""
    changed = batch[:at] + piece + batch[at + len(piece) :]
    changed = changed[:8] + pack(">i", len(changed) - 12) + changed[12:]
    return changed[:17] + pack(">I", crc32c(changed[21:])) + changed[21:]


def fetched(records: bytes) -> bytes:
    """An answer to a fetch of one partition, as sent after the correlation id."""
    answer: bytes = FetchResponse_v4(throttle_time_ms=0, topics=[("frames", [(0, 0, 100, 100, [], records)])]).encode()
    return answer


class Server:
    """Answers requests for its versions; all other answers are sent by the test.

    Attributes:
        port: Where it listens on this machine.
        asked: Correlation ids of the requests received, in order.
    """

    def __init__(self) -> None:
        self.port = 0
        self.asked: asyncio.Queue[int] = asyncio.Queue()
        self._writer: asyncio.StreamWriter | None = None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self._writer = writer
        while not reader.at_eof():
            try:
                (size,) = unpack(">i", await reader.readexactly(4))
                api_key, _, correlation_id = unpack(">hhi", (await reader.readexactly(size))[:8])
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            if api_key == ApiVersionResponse_v0.API_KEY:
                self.say(correlation_id, ApiVersionResponse_v0(error_code=0, api_versions=SPOKEN).encode())
            else:
                self.asked.put_nowait(correlation_id)
        writer.close()

    def say(self, correlation_id: int, answer: bytes, upto: int | None = None) -> None:
        """Send an answer, or only its first ``upto`` bytes."""
        self.write((pack(">ii", 4 + len(answer), correlation_id) + answer)[:upto])

    def write(self, piece: bytes) -> None:
        """Send bytes."""
        assert self._writer is not None
        self._writer.write(piece)

    def hang_up(self) -> None:
        """Close the connection."""
        assert self._writer is not None
        self._writer.close()


@asynccontextmanager
async def server() -> AsyncIterator[Server]:
    """A server that listens."""
    made = Server()
    async with await asyncio.start_server(made.serve, "127.0.0.1", 0) as listening:
        made.port = listening.sockets[0].getsockname()[1]
        yield made
        made.hang_up()
