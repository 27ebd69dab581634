"""The changes of consumer.py, each beside what stock Faust does."""

import asyncio
import inspect
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiokafka
import faust
import pytest
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, OffsetResetStrategy, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment
from aiokafka.errors import CorruptRecordException, NotLeaderForPartitionError, OffsetOutOfRangeError
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import OffsetAndMetadata
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as stock
from faust.types import TP
from yarl import URL

from streamer.broker.consumer import BATCH_RECORDS, Answer, Consumer, Released
from streamer.broker.transport import NoTables, Transport
from streamer.clients import codecs
from streamer.clients.batches import CHECKSUM_TRIES, FAULT, FIRST_OFFSET, LAST_OFFSET, unreadable
from streamer.events import Record
from tests.broker import batch_of, batch_with

LIMIT_BYTES = 1 << 20
FRAMES, AUDIO = TP("frames", 0), TP("audio", 3)


def new_consumer(changed: bool) -> Iterator[stock.Consumer]:
    brokers = [URL("kafka://localhost:1")]
    app = faust.App("test", broker=brokers, store="memory://", datadir=tempfile.gettempdir(), autodiscover=False)
    if changed:
        app.transport = Transport(brokers, app, {"frames": 0, "audio": 1}, LIMIT_BYTES)
    yield app.consumer
    app.consumer._thread.thread_loop.close()


@pytest.fixture
async def changed() -> AsyncIterator[Consumer]:
    for consumer in new_consumer(changed=True):
        yield consumer


@pytest.fixture
async def original() -> AsyncIterator[stock.Consumer]:
    for consumer in new_consumer(changed=False):
        yield consumer


async def test_stock_faust_commits_past_a_record_that_was_never_acknowledged(original: stock.Consumer) -> None:
    original._acked[FRAMES] = [5, 6, 7]  # 0-4 are still being worked on
    assert original._new_offset(FRAMES) == 8


async def test_only_what_was_released_is_committed(changed: Consumer) -> None:
    changed._acked[FRAMES] = [5, 6, 7]
    assert list(changed._filter_tps_with_pending_acks()) == []
    changed.release(FRAMES, Released(3, 0))
    assert changed._filter_committable_offsets(changed._filter_tps_with_pending_acks()) == {FRAMES: 3}


async def test_nothing_is_committed_twice(changed: Consumer) -> None:
    changed.release(FRAMES, Released(3, 0))
    changed._committed_offset[FRAMES] = 3
    assert changed._filter_committable_offsets([FRAMES]) == {}


async def test_faust_s_queue_drain_frees_a_partition_in_stock_faust(original: stock.Consumer) -> None:
    original.app.in_recovery = False
    original._active_partitions = {FRAMES}
    original.on_buffer_full(FRAMES)
    original.on_buffer_drop(FRAMES)  # what Faust's queue calls when it has drained
    assert original._active_partitions == {FRAMES}


async def test_faust_s_queue_drain_does_not_free_a_partition_that_is_held(changed: Consumer) -> None:
    changed.app.in_recovery = False
    changed._active_partitions = {FRAMES}
    changed.hold(FRAMES)
    changed.on_buffer_drop(FRAMES)
    assert changed._active_partitions == set()
    changed.free(FRAMES)
    assert changed._active_partitions == {FRAMES}


async def test_freeing_a_partition_wakes_a_consumer_that_holds_all(changed: Consumer) -> None:
    changed.app.in_recovery = False
    changed._active_partitions = {FRAMES}
    changed.hold(FRAMES)
    waiting = asyncio.create_task(changed._wait_next_records(timeout=1.0))
    await asyncio.sleep(0.01)
    before = asyncio.get_running_loop().time()
    changed.free(FRAMES)
    records, _ = await waiting
    assert records == {}
    assert asyncio.get_running_loop().time() - before < 0.2  # stock: the rest of a second


async def test_a_delivery_that_does_not_block_takes_no_task(changed: Consumer) -> None:
    delivered = []

    async def deliver() -> None:
        delivered.append(len(asyncio.all_tasks()))

    before = len(asyncio.all_tasks())
    await changed.wait_first(deliver(), asyncio.Event().wait())
    assert delivered == [before]


async def test_a_delivery_that_blocks_is_finished_and_keeps_its_place(changed: Consumer) -> None:
    gate, steps = asyncio.Event(), []

    async def deliver() -> None:
        steps.append("in")
        await gate.wait()
        await asyncio.sleep(0)
        steps.append("out")

    asyncio.get_running_loop().call_later(0.01, gate.set)
    await changed.wait_first(deliver(), asyncio.Event().wait())
    assert steps == ["in", "out"]


async def test_a_blocked_delivery_is_abandoned_when_the_flow_is_suspended(changed: Consumer) -> None:
    suspended, steps = asyncio.Event(), []

    async def deliver() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            steps.append("abandoned")
            raise

    asyncio.get_running_loop().call_later(0.01, suspended.set)
    await changed.wait_first(deliver(), suspended.wait())
    await asyncio.sleep(0.01)
    assert steps == ["abandoned"]


@pytest.mark.parametrize("blocks", [True, False])
async def test_an_error_in_a_delivery_is_raised(changed: Consumer, blocks: bool) -> None:
    async def deliver() -> None:
        if blocks:
            await asyncio.sleep(0)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await changed.wait_first(deliver(), asyncio.Event().wait())


@pytest.mark.parametrize(
    ("answer", "returned", "delivered", "idle"),
    [
        (None, 0, 0, None),  # nothing was asked yet
        (Answer(100, 0, 0, 0), 0, 0, 100),  # an empty partition
        (Answer(100, 7, 7, 7), 0, 0, 100),  # started at the end, from a commit
        (Answer(100, 5, 9, 9), 0, 5, None),  # the answer itself brought records
        (Answer(100, 5, 9, 9), 9, 5, None),  # they are on their way to us
        (Answer(100, 5, 9, 9), 9, 9, 100),  # all of them have arrived
        (Answer(100, 5, 9, 9), 12, 12, 100),  # and more since: still true at the time of the request
        (Answer(100, 12, 12, 12), 12, 9, None),  # position ran ahead of delivery
        (Answer(100, 5, 9, 5), 5, 5, None),  # a transaction is open: its records were stamped before
        (Answer(100, 9, 9, 9), 5, 5, 100),  # it was aborted
        (Answer(100, 5, 9, 9), 8, 8, None),  # it was committed: after its records comes a marker
        (Answer(100, 9, 9, 9), 8, 8, 100),  # and nothing after that
    ],
)
async def test_a_partition_is_idle_only_when_nothing_can_be_on_its_way(
    changed: Consumer,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer | None,
    returned: int,
    delivered: int,
    idle: int | None,
) -> None:
    monkeypatch.setattr(changed.thread, "answer", lambda tp: answer)
    if returned:
        changed.returned[FRAMES] = returned
    assert changed.idle_since_us(FRAMES, delivered) == idle


@pytest.mark.parametrize(
    ("answer", "released", "committed", "lag"),
    [
        (None, None, 3, 0),  # nothing is known yet
        (Answer(100, 8, 9, 9), None, None, 9),
        (Answer(100, 8, 9, 9), None, 4, 5),
        (Answer(100, 8, 9, 9), 7, 4, 2),  # released, and not committed yet
        (Answer(100, 8, 9, 9), 12, 4, 0),  # done since the answer
        (Answer(100, 8, 9, 8), 7, 4, 1),  # what a transaction has open cannot be read
        (Answer(100, 9, 9, 9), 8, 4, 0),  # after the last record that was returned there is but a marker
    ],
)
async def test_the_lag_is_what_is_not_done_of_what_the_broker_has(
    changed: Consumer,
    monkeypatch: pytest.MonkeyPatch,
    answer: Answer | None,
    released: int | None,
    committed: int | None,
    lag: int,
) -> None:
    monkeypatch.setattr(changed.thread, "answer", lambda tp: answer)
    monkeypatch.setattr(changed, "committed", lambda tp: committed)
    changed.returned[FRAMES] = 8
    if released is not None:
        changed.release(FRAMES, Released(released, 0))
    assert changed.lag(FRAMES) == lag


async def test_a_partition_of_which_nothing_was_returned_lags_behind_only_from_where_it_is_read(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed, "committed", lambda tp: None)
    monkeypatch.setattr(
        changed.thread, "answer", lambda tp: Answer(100, 5, 9, 9)
    )  # older ones were deleted, or aborted
    assert changed.lag(FRAMES) == 4


@pytest.mark.parametrize(
    ("answer", "returned", "committed"),
    [
        (None, 7, 7),
        (Answer(100, 7, 7, 7), 7, 7),
        (Answer(100, 9, 9, 9), 7, 9),  # what follows the last record brings none
        (Answer(100, 9, 12, 9), 7, 9),  # up to an open transaction
        (Answer(100, 9, 9, 9), 8, 7),  # a record that was returned is not done yet
        (Answer(100, 5, 9, 9), 7, 7),  # an older answer
    ],
)
async def test_what_brings_no_record_after_the_last_one_is_committed_with_it(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch, answer: Answer | None, returned: int, committed: int
) -> None:
    monkeypatch.setattr(changed.thread, "answer", lambda tp: answer)
    changed.returned[FRAMES] = returned
    changed.release(FRAMES, Released(7, 3_000))
    assert changed.offset_to_commit(FRAMES) == committed
    assert changed.note(FRAMES, committed) == "log_time_us=3000"


@pytest.mark.parametrize(
    ("answer", "committed", "offset"),
    [
        (Answer(100, 5, 5, 5), None, 5),  # all that it had was aborted
        (Answer(100, 5, 5, 5), 3, 5),
        (Answer(100, 0, 0, 0), None, None),  # it is empty: there is nothing to commit
    ],
)
async def test_where_no_record_came_at_all_its_gap_is_committed(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch, answer: Answer, committed: int | None, offset: int | None
) -> None:
    monkeypatch.setattr(changed.thread, "answer", lambda tp: answer)
    monkeypatch.setattr(changed, "committed", lambda tp: committed)
    changed.noted(FRAMES, "log_time_us=3000")
    changed.release_gap(FRAMES)
    assert list(changed.to_commit()) == [FRAMES]
    assert changed.offset_to_commit(FRAMES) == offset
    assert changed.note(FRAMES, offset or 0) == "log_time_us=3000"
    changed.release(FRAMES, Released(7, 4000))
    changed.release_gap(FRAMES)
    assert changed.offset_to_commit(FRAMES) == 7


async def test_open_transactions_are_named_with_the_offset_at_which_they_hold(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = {FRAMES: Answer(100, 5, 9, 5), AUDIO: Answer(100, 5, 9, 9)}
    monkeypatch.setattr(changed, "assignment", lambda: {FRAMES, AUDIO, TP("text", 0)})
    monkeypatch.setattr(changed.thread, "answer", answers.get)
    assert changed.open_transactions() == {FRAMES: 5}


def consumer_records(count: int) -> list[aiokafka.ConsumerRecord]:
    return [
        aiokafka.ConsumerRecord("frames", 0, offset, 1_000, 1, b"car", b"jpeg", None, 3, 4, ())
        for offset in range(count)
    ]


def records_of(tp: TP, count: int) -> list[Record]:
    return [Record(0, tp.partition, offset, 1_000_000, b"car", b"jpeg", ()) for offset in range(count)]


async def test_stock_faust_makes_a_message_of_each_record(
    original: stock.Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(original, "_wait_next_records", poll_of({FRAMES: consumer_records(3)}))
    monkeypatch.setattr(original, "highwater", lambda tp: 3)
    original.flow_active = True
    assert [message.offset async for _, message in original.getmany(1.0)] == [0, 1, 2]


def poll_of(fetched: Mapping[TP, Sequence[object]]) -> Callable[[float], Awaitable[object]]:
    async def poll(_: float) -> object:
        return fetched, set(fetched)

    return poll


async def test_the_records_of_a_poll_travel_together(changed: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = {FRAMES: records_of(FRAMES, 2), AUDIO: records_of(AUDIO, 3)}
    monkeypatch.setattr(changed, "next_records", poll_of(fetched))
    changed.flow_active = True
    [(tp, batch)] = [found async for found in changed.getmany(1.0)]
    assert (tp, batch.tp, batch.offset, batch.timestamp) == (FRAMES, FRAMES, 1, 1.0)
    assert batch.parts == list(fetched.items())


async def test_a_batch_has_a_bound(changed: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = {FRAMES: records_of(FRAMES, BATCH_RECORDS + 3), AUDIO: records_of(AUDIO, BATCH_RECORDS)}
    monkeypatch.setattr(changed, "next_records", poll_of(fetched))
    changed.flow_active = True
    batches = [batch async for _, batch in changed.getmany(1.0)]
    assert [sum(len(part) for _, part in batch.parts) for batch in batches] == [BATCH_RECORDS, BATCH_RECORDS, 3]
    for tp, records in fetched.items():
        assert [one for batch in batches for own, part in batch.parts if own == tp for one in part] == records


async def test_records_of_a_partition_that_is_no_longer_ours_are_left_out(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def poll(_: float) -> object:
        return {FRAMES: records_of(FRAMES, 2), AUDIO: records_of(AUDIO, 3)}, {AUDIO}

    monkeypatch.setattr(changed, "next_records", poll)
    changed.flow_active = True
    assert [batch.parts async for _, batch in changed.getmany(1.0)] == [[(AUDIO, records_of(AUDIO, 3))]]


async def test_a_poll_is_dropped_where_a_rebalance_begins_in_it(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changed, "next_records", poll_of({FRAMES: records_of(FRAMES, 2 * BATCH_RECORDS)}))
    changed.flow_active = True
    seen = []
    async for _, batch in changed.getmany(1.0):
        seen.append(batch.offset)
        changed.flow_active = False
    assert seen == [BATCH_RECORDS - 1]


async def test_the_client_makes_our_records(changed: Consumer) -> None:
    assert "self._consumer_record(tp, record)" in inspect.getsource(PartitionRecords._unpack_records)
    found = PartitionRecords(AUDIO, MemoryRecords(batch_of(b"jpeg")), [], 0, None, None, True, 0)
    found._consumer_record = changed.thread.record
    headers: Any = (("ce_type", b"frame"), ("empty", None))
    assert list(found) == [
        Record(1, 3, 0, 1_234_000, b"car", b"jpeg", headers),
        Record(1, 3, 1, 1_235_000, None, b"", ()),
    ]


async def fetched_with(changed: Consumer, connection: object, part: tuple[object, ...]) -> tuple[bool, Fetcher]:
    """What the client makes of a fetch whose answer is of one partition; and whether it woke anybody."""
    request = FetchRequest(100, 1, 1 << 20, 0, [("frames", [(0, 0, 1 << 20)])], rack_id="")
    frames = aiokafka.TopicPartition("frames", 0)
    assignment = Assignment([frames])
    assignment.state_value(frames).seek(0)

    async def connect(node_id: int) -> object:
        return connection

    async def send(node_id: int, request: object) -> object:
        return SimpleNamespace(API_VERSION=11, topics=[("frames", [part])])

    fetcher = Fetcher.__new__(Fetcher)
    vars(fetcher).update(
        _client=SimpleNamespace(
            send=partial(changed.thread.send, SimpleNamespace(_get_conn=connect), send),
            force_metadata_update=lambda: None,
        ),
        _records={},
        _client_rack="",
        _check_crcs=True,
        _key_deserializer=None,
        _value_deserializer=None,
        _isolation_level=0,
        _prefetch_backoff=0.1,
        _retry_backoff=0.0,
        _preferred_read_replica={},
        _default_reset_strategy=OffsetResetStrategy.EARLIEST,
    )
    return await changed.thread.fetch(fetcher, fetcher._proc_fetch_request, assignment, 1, request), fetcher


LOST = SimpleNamespace(_writer=None)  # a connection that the client still has, but the broker has left


async def read_with(changed: Consumer, batch: bytes) -> list[Any]:
    _, fetcher = await fetched_with(changed, LOST, (0, 0, 2, 2, 0, [], -1, batch))
    return list(fetcher._records[aiokafka.TopicPartition("frames", 0)]._partition_records)


async def test_batches_are_checked_here_and_not_by_the_client_again(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "self._check_crcs and not next_batch.validate_crc()" in inspect.getsource(PartitionRecords._unpack_records)
    batch = batch_of(b"jpeg")
    assert [record.value for record in await read_with(changed, batch)] == [b"jpeg", b""]
    broken = batch[:-1] + b"\xff"
    with pytest.raises(CorruptRecordException):
        list(PartitionRecords(FRAMES, MemoryRecords(broken), [], 0, None, None, True, 0))
    assert [await read_with(changed, broken) for _ in range(CHECKSUM_TRIES - 1)] == [[], []]
    (stand_in,) = await read_with(changed, broken)
    assert stand_in == Record(
        0,
        0,
        0,
        0,
        None,
        broken,
        ((FAULT, b"its checksum is wrong"), (FIRST_OFFSET, b"0"), (LAST_OFFSET, b"0")),
    )


async def test_a_batch_of_many_records_comes_in_portions_and_is_unpacked_once(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpacked: list[int] = []
    stock = codecs.unpack

    def counting(codec: int, packed: memoryview, limit_bytes: int) -> bytes:
        unpacked.append(codec)
        return stock(codec, packed, limit_bytes)

    monkeypatch.setattr(codecs, "unpack", counting)
    batch = batch_with([b""] * 5, codec=4)
    _, fetcher = await fetched_with(changed, LOST, (0, 0, 5, 5, 0, [], -1, batch))
    result = fetcher._records[aiokafka.TopicPartition("frames", 0)]
    portions = []
    while result.has_more():
        portions.append([record.offset for record in result.getall(2)])
    assert portions == [[0, 1], [2, 3], [4]]
    assert unpacked == [4]


async def test_a_batch_that_the_client_would_unpack_to_any_size_is_one_record(changed: Consumer) -> None:
    batch = batch_with([bytes(LIMIT_BYTES)], codec=1)
    (whole,) = PartitionRecords(FRAMES, MemoryRecords(batch), [], 0, None, None, True, 0)
    assert len(whole.value) == LIMIT_BYTES > 100 * len(batch)
    (stand_in,) = await read_with(changed, batch)
    assert unreadable(stand_in.headers) == f"gzip: it unpacks to more than {LIMIT_BYTES} bytes"
    assert (stand_in.offset, stand_in.value) == (0, batch)


async def test_a_partition_with_an_error_may_have_no_records_at_all(changed: Consumer) -> None:
    woke, fetcher = await fetched_with(changed, LOST, (0, NotLeaderForPartitionError.errno, -1, -1, -1, None, -1, None))
    assert not woke
    assert not fetcher._records


async def test_what_kafka_has_deleted_before_it_was_read_is_reported(
    changed: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    woke, fetcher = await fetched_with(changed, LOST, (0, OffsetOutOfRangeError.errno, -1, -1, -1, None, -1, None))
    assert not woke
    assert not fetcher._records
    assert "frames 0: Kafka has deleted records from offset 0 on before they were read" in caplog.messages


async def test_a_broker_that_cannot_be_reached_is_tried_again_later(
    changed: Consumer, caplog: pytest.LogCaptureFixture
) -> None:
    woke, fetcher = await fetched_with(changed, None, (0, 0, 2, 2, 0, [], -1, batch_of(b"jpeg")))
    assert not woke
    assert not fetcher._records
    assert "no connection to broker 1" in caplog.text


async def test_a_batch_leaves_no_gap_behind(changed: Consumer) -> None:
    await changed._add_gap(FRAMES, 1, BATCH_RECORDS)
    assert not changed._gap[FRAMES]


NO_OFFSETS = SimpleNamespace(commit_offsets=None, _do_fetch_commit_offsets=None)


async def started_with(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch, *, coordinator: object = NO_OFFSETS, cluster: object = None
) -> SimpleNamespace:
    """Start the thread with a client that has this coordinator and this cluster; returns its fetcher."""
    cluster = cluster or SimpleNamespace(leader_for_partition=None)
    fetcher = SimpleNamespace(
        _fetch_max_bytes=50 << 20,
        _isolation_level=0,
        _proc_fetch_request=None,
        _get_actions_per_node=None,
        _client=SimpleNamespace(send=None, cluster=cluster, force_metadata_update=lambda: None),
    )

    async def start(thread: stock.AIOKafkaConsumerThread) -> None:
        thread._consumer = SimpleNamespace(_fetcher=fetcher, _coordinator=coordinator)

    monkeypatch.setattr(stock.AIOKafkaConsumerThread, "on_start", start)
    await changed.thread.on_start()
    return fetcher


async def test_records_are_read_as_committed(changed: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Faust asks for it only where the app itself writes in transactions.
    assert "if self.consumer.in_transaction:" in inspect.getsource(stock.AIOKafkaConsumerThread._create_worker_consumer)
    assert "self._isolation_level," in inspect.getsource(Fetcher._get_actions_per_node)
    fetcher = await started_with(changed, monkeypatch)
    assert fetcher._isolation_level == READ_COMMITTED


async def test_a_broker_is_asked_for_4_mib_at_once(changed: Consumer, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the client has what Faust has no setting for: 50 MiB.
    assert inspect.signature(Fetcher).parameters["fetch_max_bytes"].default == 50 << 20
    assert "self._fetch_max_bytes," in inspect.getsource(Fetcher._get_actions_per_node)
    fetcher = await started_with(changed, monkeypatch)
    assert fetcher._fetch_max_bytes == 4 << 20


@pytest.mark.parametrize(("manager", "sleeps_s"), [(TableManager, [1.0]), (NoTables, [])])
async def test_an_app_without_tables_joins_its_group_at_once(
    manager: type[TableManager], sleeps_s: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    app = faust.App("test", store="memory://", datadir=tempfile.gettempdir(), autodiscover=False, TableManager=manager)
    begun: list[str] = []
    slept_s: list[float] = []

    async def begin() -> None:
        begun.append("registered" if app.tables._tables_registered.is_set() else "too early")

    async def sleep(seconds: float) -> None:
        slept_s.append(seconds)

    monkeypatch.setattr(app.tables.recovery, "start", begin)
    monkeypatch.setattr(app.tables, "sleep", sleep)
    monkeypatch.setattr(app.consumer, "assignment", set)
    await app.tables.on_start()
    assert slept_s == sleeps_s
    assert begun == ["registered"]  # the subscription waits for that; recovery ends with the first assignment
    app.consumer._thread.thread_loop.close()


async def test_the_log_time_of_what_is_done_is_committed_beside_the_offset_and_read_back(changed: Consumer) -> None:
    committed: dict[TP, OffsetAndMetadata] = {}

    async def commit(assignment: None, offsets: dict[TP, OffsetAndMetadata]) -> None:
        committed.update(offsets)

    async def fetch(partitions: list[TP]) -> dict[TP, OffsetAndMetadata]:
        return {tp: committed[tp] for tp in partitions}

    changed.release(FRAMES, Released(3, 1_700_000_000_000_123))
    assert changed.offset_to_commit(FRAMES) == 3
    changed.release(FRAMES, Released(4, 1_700_000_000_000_456))  # done after the commit was planned
    await changed.thread.commit_with_notes(commit, None, {FRAMES: OffsetAndMetadata(3, "")})
    assert committed == {FRAMES: OffsetAndMetadata(3, "log_time_us=1700000000000123")}
    await changed.thread.read_notes(fetch, [FRAMES])
    assert changed.log_times_us == {FRAMES: 1_700_000_000_000_123}
    await changed.on_partitions_revoked({FRAMES})
    assert changed.log_times_us == {}


@pytest.mark.parametrize("by_the_client_itself", [False, True])
async def test_the_log_time_is_read_back_on_both_ways_to_a_first_offset(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch, by_the_client_itself: bool
) -> None:
    """Faust seeks to committed offsets; where that takes too long, the client looks them up when it fetches."""
    frames = aiokafka.TopicPartition(*FRAMES)

    async def fetch(partitions: object) -> dict[aiokafka.TopicPartition, OffsetAndMetadata]:
        return {frames: OffsetAndMetadata(3, "log_time_us=1234")}

    async def known() -> None:
        pass

    coordinator = GroupCoordinator.__new__(GroupCoordinator)
    vars(coordinator).update(_do_fetch_commit_offsets=fetch, ensure_coordinator_known=known)
    await started_with(changed, monkeypatch, coordinator=coordinator)
    if by_the_client_itself:
        assignment = Assignment([frames])
        position = assignment.state_value(frames).fetch_committed()
        assert await coordinator._maybe_refresh_commit_offsets(assignment)
        assert (await position).offset == 3
    else:
        assert (await coordinator.fetch_committed_offsets([frames]))[frames].offset == 3
    assert changed.log_times_us == {FRAMES: 1234}


async def test_the_client_asks_the_leader_that_was_heard_of_last(
    changed: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A broker that stands still does not say that others lead; the replicas do."""
    assert "leader_for_partition(tp)" in inspect.getsource(Fetcher._get_actions_per_node)
    frames, theirs, ours = aiokafka.TopicPartition(*FRAMES), {FRAMES: 3}, {FRAMES: 3}
    cluster = SimpleNamespace(leader_for_partition=theirs.get, broker_metadata={1: "a", 2: "b", 3: "c"}.get)
    fetcher = await started_with(changed, monkeypatch, cluster=cluster)
    updates: list[int] = []
    fetcher._client.force_metadata_update = lambda: updates.append(1)

    assert cluster.leader_for_partition(frames) == 3  # no replicas yet
    changed.replicas = SimpleNamespace(node=ours.get)  # type: ignore[assignment]
    assert cluster.leader_for_partition(frames) == 3
    ours[FRAMES] = 1
    assert [cluster.leader_for_partition(frames) for _ in range(3)] == [1, 1, 1]
    assert updates == [1]
    theirs[FRAMES] = 1
    assert cluster.leader_for_partition(frames) == 1
    theirs[FRAMES] = 2  # heard from a broker that does not lead any more, before the replicas were asked
    assert cluster.leader_for_partition(frames) == 2
    ours[FRAMES] = 2
    assert cluster.leader_for_partition(frames) == 2
    ours[FRAMES] = 9  # the client has no address of it
    assert cluster.leader_for_partition(frames) == 2
