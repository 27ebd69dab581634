"""How records are fetched: when a broker is asked, and how its answers are read.

aiokafka fetches at once and waits as long as one setting says, and copies an answer twice into fresh memory before it
parses it. ``consumer`` replaces that with:

1. :class:`FetchPace`: when a fetch leaves, and how long it may wait at the broker.
2. :class:`AnswerReader`: reads a connection into memory that is reused.
"""

from __future__ import annotations

import io
from collections import deque
from typing import Any, Self

from streamer.broker import internals

FETCH_WAIT_MS = 100  # at the broker, for records
FETCH_WAIT_UNSEEN_MS = 20  # while alignment has not looked at what came
FETCH_WAIT_LEAST_MS = 1
FETCH_EVERY_US = 10_000  # shortest time between two fetches, see FetchPace
SIZE_BYTES = 4  # before each answer, big-endian
CORRELATION_BYTES = 4  # at the beginning of every answer
SMALL_BYTES = 64 << 10  # smaller answers are copied for the client: reading them in place would gain little


class FetchPace:
    """How long a fetch may wait at the broker for records.

    The merge releases a record once a fetch that left ``slack`` after the record's log time shows every other topic
    empty; a window that waits for its deadline closes in the same way. So two kinds of moment matter: ``slack`` after a
    record came, and ``slack`` after the next closing. A fetch must return before the next such moment, so that another
    can leave then. A moment already covered by an answered fetch needs no further one, so a silent feed is asked
    seldom. A record that alignment has not yet seen may bring the next closing nearer: until then a fetch returns soon.

    A fetch costs as much as some 20 small records, and many feeds send records one by one. Records wait anyway, so a
    broker is asked at most once in ``FETCH_EVERY_US``, or in half of ``slack`` if that is less; and no fetch leaves so
    shortly before a moment that matters that the next one would leave late.

    Attributes:
        slack_us: The merge's slack.
    """

    def __init__(self) -> None:
        self.slack_us = 0
        self._closing_us: int | None = None
        self._looked_us = 0
        self._news_us = 0  # when the newest answer came that may open or close a window
        self._records_us: deque[int] = deque(maxlen=64)  # when records came; more at once need no pace
        self._left_us: dict[int, int] = {}  # when the newest fetch left, by broker
        self._sent_us: dict[int, int] = {}  # when the newest answered fetch left, by broker

    def looked(self, since_us: int, closing_us: int | None) -> None:
        """Note that alignment has processed all that had come by ``since_us``.

        Args:
            closing_us: Earliest log time at which the next window closes; ``None`` if no window is open.
        """
        self._closing_us = closing_us  # written by the worker's loop, read by the consumer's thread
        self._looked_us = since_us

    def left(self, node: int, now_us: int) -> None:
        """Note that a fetch leaves now."""
        self._left_us[node] = now_us

    def answered(self, node: int, sent_us: int, records: bool, now_us: int) -> None:
        """Note the answer to the fetch that left at ``sent_us``, with records or without."""
        wanted_us = self._wanted_us(node)
        if records or (wanted_us is not None and wanted_us <= sent_us):
            self._news_us = now_us
        self._sent_us[node] = sent_us
        if records:
            self._records_us.append(now_us)

    def hold_us(self, node: int, now_us: int) -> int:
        """How long the next fetch should wait before it leaves; 0 if it may leave now."""
        every_us = min(FETCH_EVERY_US, self.slack_us // 2)
        until_us = self._left_us.get(node, 0) + every_us
        wanted_us = self._wanted_us(node)
        if wanted_us is not None and wanted_us <= now_us + every_us:
            until_us = max(until_us, wanted_us)
        return max(0, until_us - now_us)

    def wait_ms(self, node: int, now_us: int) -> int:
        """Longest wait at the broker of a fetch that leaves now."""
        longest_ms = FETCH_WAIT_MS if self._looked_us >= self._news_us else FETCH_WAIT_UNSEEN_MS
        wanted_us = self._wanted_us(node)
        if wanted_us is None:
            return longest_ms
        return max(FETCH_WAIT_LEAST_MS, min(longest_ms, -((now_us - wanted_us) // 1000)))

    def _wanted_us(self, node: int) -> int | None:
        """The first moment that matters and that no answer has covered; ``None`` if there is none."""
        closing_us = self._closing_us
        proven_us = self._sent_us.get(node, 0)
        instants = self._records_us if closing_us is None else (closing_us, *self._records_us)
        return min((at + self.slack_us for at in instants if at + self.slack_us > proven_us), default=None)


class AnswerReader(internals.BytesReader):
    """Reads the answers of a connection into memory that is reused.

    The client's reader, asyncio's, gathers an answer in a growing buffer and copies it out: twice its size in fresh
    memory, which the kernel has to clear. Here the socket fills the memory of the answer before.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._protocol = internals.protocol_of(connection)
        self._size = bytearray(SIZE_BYTES)
        self._answer = io.BytesIO()
        self._in_answer = False
        self._expect(memoryview(self._size))

    @classmethod
    def take_over(cls, connection: Any) -> Self | None:
        """Read a connection from now on; ``None`` where :func:`internals.read_by` cannot replace its reader."""
        return internals.read_by(connection, cls)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the next bytes go: the rest of a size, or of an answer."""
        return self._room[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        """Take bytes that have come."""
        self._filled += nbytes
        if self._filled < len(self._room):
            return
        if self._in_answer:
            self._take()
            self._in_answer = False
            self._expect(memoryview(self._size))
        else:
            size = int.from_bytes(self._size, "big", signed=True)
            if size < CORRELATION_BYTES:
                raise ValueError(f"an answer of {size} bytes is too short to name its request")
            self._in_answer = True
            self._expect(self._memory(size))

    def eof_received(self) -> None:
        """Return ``None`` when the broker hangs up, so that the transport closes itself."""

    def connection_lost(self, error: Exception | None) -> None:
        """Report it to the client, as its own reader would."""
        internals.broken(self._connection, error)

    def pause_writing(self) -> None:
        """Stop writing, as the transport asks."""
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Write again."""
        self._protocol.resume_writing()

    def _expect(self, room: memoryview) -> None:
        self._room, self._filled = room, 0

    def _memory(self, size: int) -> memoryview:
        """The first ``size`` bytes of the memory for answers, which at least doubles when it grows."""
        has = self._answer.getbuffer().nbytes
        if size > has:
            self._answer.seek(max(size, 2 * has) - 1)
            self._answer.write(b"\0")
        return self._answer.getbuffer()[:size]

    def _take(self) -> None:
        """Pass an answer to its waiting caller. A large answer to a fetch is decoded in place, others from a copy."""
        if self._filled < SMALL_BYTES or not internals.is_fetch(internals.awaited(self._connection)):
            internals.take_answer(self._connection, bytes(self._room))
        else:
            self._answer.seek(0)
            internals.take_answer_in_place(self._connection, self._answer, self._filled)
