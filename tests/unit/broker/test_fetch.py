"""How records are fetched: when a fetch leaves, how its answer is read."""

import asyncio
import inspect
import random
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import CorrelationIdError, KafkaConnectionError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.metadata import MetadataRequest, MetadataResponse_v0

from streamer.broker.fetch import SMALL_BYTES, AnswerReader, FetchPace
from tests.broker import Server, fetched, server

SLACK_US = 20_000
T_US = 1_000_000_000


def paced(closing_us: int | None = None) -> FetchPace:
    pace = FetchPace()
    pace.slack_us = SLACK_US
    pace.looked(T_US + 1_000_000, closing_us)
    return pace


def test_a_fetch_ends_when_its_successor_can_prove_the_siblings_of_a_new_record_empty() -> None:
    pace = paced()
    pace.answered(1, sent_us=T_US - 5_000, records=True, now_us=T_US)
    assert pace.wait_ms(1, T_US + 2_000) == 18
    pace.answered(1, sent_us=T_US + 2_000, records=False, now_us=T_US + 20_000)
    assert pace.wait_ms(1, T_US + 20_500) == 1  # left in time: the broker need not wait at all
    pace.answered(1, sent_us=T_US + 20_500, records=False, now_us=T_US + 22_000)
    assert pace.wait_ms(1, T_US + 22_000) == 100


def test_newer_records_do_not_put_off_what_older_ones_wait_for() -> None:
    pace = paced()
    pace.answered(1, sent_us=T_US - 5_000, records=True, now_us=T_US)
    pace.answered(1, sent_us=T_US, records=True, now_us=T_US + 12_000)
    assert pace.wait_ms(1, T_US + 13_000) == 7


def test_a_deadline_is_waited_for_no_longer_than_it_takes() -> None:
    assert paced(closing_us=T_US).wait_ms(1, T_US + 15_000) == 5
    assert paced(closing_us=T_US).wait_ms(1, T_US - 900_000) == 100
    assert paced().wait_ms(1, T_US) == 100


def test_a_closing_that_does_not_come_although_its_time_is_proven_is_not_asked_for_again_and_again() -> None:
    pace = paced(closing_us=T_US)
    pace.answered(1, sent_us=T_US + SLACK_US, records=False, now_us=T_US + SLACK_US)
    assert pace.wait_ms(1, T_US + 30_000) == 100


def test_a_fetch_is_back_soon_while_alignment_has_not_looked_at_what_came() -> None:
    pace = paced()
    pace.looked(T_US - 1_000, None)
    assert pace.wait_ms(1, T_US) == 100
    pace.answered(1, sent_us=T_US - 5_000, records=True, now_us=T_US)
    pace.answered(1, sent_us=T_US + 20_000, records=False, now_us=T_US + 21_000)  # what came may be merged now
    assert pace.wait_ms(1, T_US + 21_000) == 20
    pace.looked(T_US + 21_000, T_US + 500_000)
    assert pace.wait_ms(1, T_US + 22_000) == 100
    pace.answered(1, sent_us=T_US + 22_000, records=False, now_us=T_US + 122_000)  # nothing follows from that
    assert pace.wait_ms(1, T_US + 122_000) == 100


def test_a_broker_is_asked_every_10_ms_at_most() -> None:
    pace = paced()
    assert pace.hold_us(1, T_US) == 0
    pace.left(1, T_US)
    assert pace.hold_us(1, T_US + 1_000) == 9_000
    assert pace.hold_us(2, T_US + 1_000) == 0  # each broker by itself
    assert pace.hold_us(1, T_US + 10_000) == 0


def test_a_fetch_leaves_when_it_can_prove_what_records_wait_for_and_not_just_before() -> None:
    pace = paced()
    pace.answered(1, sent_us=T_US - 5_000, records=True, now_us=T_US)
    assert pace.hold_us(1, T_US + 2_000) == 0  # it waits at the broker and is back in time
    assert pace.hold_us(1, T_US + 12_000) == 8_000
    assert pace.hold_us(1, T_US + 21_000) == 0


def test_fetches_do_not_hold_back_where_records_wait_for_nothing() -> None:
    pace = paced()
    pace.slack_us = 0
    pace.left(1, T_US)
    assert pace.hold_us(1, T_US) == 0


def test_every_broker_has_to_prove_its_own_partitions_empty() -> None:
    pace = paced()
    pace.answered(1, sent_us=T_US, records=True, now_us=T_US)
    pace.answered(1, sent_us=T_US + SLACK_US, records=False, now_us=T_US + SLACK_US)
    assert pace.wait_ms(1, T_US + 25_000) == 100
    assert pace.wait_ms(2, T_US + 25_000) == 1


FETCH = FetchRequest(100, 1, 1 << 20, 0, [("frames", [(0, 0, 1 << 20)])], rack_id="")
ANSWER_S = 5.0
LARGE_BYTES = 4 * SMALL_BYTES


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def on_loop(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    run: Callable[[Coroutine[Any, Any, None]], None] = request.param
    return run


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Server, AIOKafkaConnection]]:
    """A connection that is not yet taken over, and its broker."""
    async with server() as broker:
        connection = AIOKafkaConnection("127.0.0.1", broker.port, request_timeout_ms=1000 * ANSWER_S)
        await connection.connect()
        try:
            yield broker, connection
        finally:
            await connection.close()


def records_in(answer: Any) -> bytes:
    [(_, [(*_, records)])] = answer.topics
    assert isinstance(records, bytes)
    return records


def test_answers_of_any_size_are_what_the_broker_sent(
    on_loop: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def fetch() -> None:
        async with connected() as (broker, connection):
            assert AnswerReader.take_over(connection) is not None
            found = []
            # Growing, shrinking, and to the byte on both sides of what the client reads from a copy.
            sizes = (0, 10, LARGE_BYTES, SMALL_BYTES - 51, SMALL_BYTES - 50, 3 * LARGE_BYTES, SMALL_BYTES, LARGE_BYTES)
            sent = [random.Random(size).randbytes(size) for size in sizes]
            for records in sent:
                waiting = asyncio.ensure_future(connection.send(FETCH))
                broker.say(await broker.asked.get(), fetched(records))
                found.append(records_in(await waiting))
            assert found == sent  # at the end, so that none lies in memory that was used again

    on_loop(fetch())


def test_an_answer_may_come_in_pieces_and_together_with_the_next(
    on_loop: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def fetch() -> None:
        async with connected() as (broker, connection):
            AnswerReader.take_over(connection)
            waiting = [asyncio.ensure_future(connection.send(FETCH)) for _ in range(2)]
            ids = [await broker.asked.get() for _ in waiting]
            sent = [random.Random(number).randbytes(LARGE_BYTES) for number in ids]
            stream = b"".join(
                (4 + len(answer)).to_bytes(4, "big") + number.to_bytes(4, "big") + answer
                for number, answer in zip(ids, map(fetched, sent), strict=True)
            )
            for piece in (stream[:2], stream[2:9], stream[9 : LARGE_BYTES // 2], stream[LARGE_BYTES // 2 :]):
                broker.write(piece)
                await asyncio.sleep(0.01)
            assert [records_in(answer) for answer in await asyncio.gather(*waiting)] == sent

    on_loop(fetch())


async def test_other_answers_are_the_clients_own() -> None:
    async with connected() as (broker, connection):
        AnswerReader.take_over(connection)
        waiting = asyncio.ensure_future(connection.send(MetadataRequest(["frames"])))
        nodes = [(number, "broker-" + "x" * 100, 9092) for number in range(LARGE_BYTES // 100)]
        broker.say(await broker.asked.get(), MetadataResponse_v0(brokers=nodes, topics=[]).encode())
        answer: Any = await waiting
        assert answer.brokers == nodes


async def test_a_connection_that_waits_for_an_answer_is_not_taken_over_nor_is_one_twice() -> None:
    async with connected() as (broker, connection):
        waiting = asyncio.ensure_future(connection.send(FETCH))
        number = await broker.asked.get()
        assert AnswerReader.take_over(connection) is None
        broker.say(number, fetched(b"frame"))
        assert records_in(await waiting) == b"frame"
        assert AnswerReader.take_over(connection) is not None
        assert AnswerReader.take_over(connection) is None


def test_a_connection_that_is_being_lost_is_left_alone(on_loop: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def lose() -> None:
        async with connected() as (_, connection):
            connection._writer.transport.abort()
            assert AnswerReader.take_over(connection) is None
            await connection.close()
            assert AnswerReader.take_over(connection) is None

    on_loop(lose())


def test_who_waits_is_told_when_the_broker_hangs_up_in_an_answer(
    on_loop: Callable[[Coroutine[Any, Any, None]], None],
) -> None:
    async def fetch() -> None:
        async with connected() as (broker, connection):
            AnswerReader.take_over(connection)
            assert connection.connected()
            waiting = asyncio.ensure_future(connection.send(FETCH))
            broker.say(await broker.asked.get(), fetched(b"x" * LARGE_BYTES), upto=LARGE_BYTES // 2)
            broker.hang_up()
            with pytest.raises(KafkaConnectionError, match="closed") as raised:
                await waiting
            assert isinstance(raised.value.__cause__, EOFError)
            assert not connection.connected()

    on_loop(fetch())


async def test_an_answer_to_another_request_ends_the_connection() -> None:
    async with connected() as (broker, connection):
        AnswerReader.take_over(connection)
        waiting = asyncio.ensure_future(connection.send(FETCH))
        broker.say(1 + await broker.asked.get(), fetched(b"x" * LARGE_BYTES))
        with pytest.raises(KafkaConnectionError) as raised:
            await waiting
        assert isinstance(raised.value.__cause__, CorrelationIdError)
        assert not connection.connected()


@pytest.mark.parametrize("size", [-1, 0, 3])
def test_an_answer_of_an_impossible_size_ends_the_connection(
    on_loop: Callable[[Coroutine[Any, Any, None]], None], size: int
) -> None:
    async def fetch() -> None:
        async with connected() as (broker, connection):
            AnswerReader.take_over(connection)
            waiting = asyncio.ensure_future(connection.send(FETCH))
            await broker.asked.get()
            broker.write(size.to_bytes(4, "big", signed=True))
            with pytest.raises(KafkaConnectionError):
                await waiting
            assert not connection.connected()

    on_loop(fetch())


async def test_an_answer_that_says_it_is_longer_than_it_is_gets_none_of_the_one_before() -> None:
    async with connected() as (broker, connection):
        AnswerReader.take_over(connection)
        first = asyncio.ensure_future(connection.send(FETCH))
        broker.say(await broker.asked.get(), fetched(b"x" * 2 * LARGE_BYTES))
        await first
        waiting = asyncio.ensure_future(connection.send(FETCH))
        answer, length = fetched(b"y" * LARGE_BYTES), LARGE_BYTES.to_bytes(4, "big")
        assert answer.count(length) == 1
        broker.say(await broker.asked.get(), answer.replace(length, (LARGE_BYTES + 1000).to_bytes(4, "big")))
        with pytest.raises(KafkaConnectionError) as raised:
            await waiting
        assert isinstance(raised.value.__cause__, ValueError)


async def test_an_answer_that_nobody_waits_for_any_more_is_passed_over() -> None:
    async with connected() as (broker, connection):
        AnswerReader.take_over(connection)
        late = asyncio.ensure_future(connection.send(FETCH))
        number = await broker.asked.get()
        late.cancel()
        waiting = asyncio.ensure_future(connection.send(FETCH))
        broker.say(number, fetched(b"late" * LARGE_BYTES))
        broker.say(await broker.asked.get(), fetched(b"frame"))
        assert records_in(await waiting) == b"frame"


def test_the_client_reads_as_we_know_it() -> None:
    """What take_over replaces, and what it leaves to the client's own code."""
    reading, handling = (
        inspect.getsource(part) for part in (AIOKafkaConnection._read, AIOKafkaConnection._handle_frame)
    )
    assert "reader.readexactly(4)" in reading
    assert 'struct.unpack(">i", resp)' in reading
    assert "self._handle_frame(resp)" in reading
    for step in ("self._requests[0]", "parse_response_header", "RESPONSE_TYPE", "_last_action", "_requests.popleft()"):
        assert step in handling
