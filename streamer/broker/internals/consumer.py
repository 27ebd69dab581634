"""Internals of Faust's consumer and of aiokafka's fetches, from the plan to the records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.structs import OffsetAndMetadata
from faust.tables import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from streamer.clients.batches import Batches, Budget, Reading

# Faust: what the consumer is asked, and when


class OpenConsumer(driver.Consumer):  # type: ignore[misc]
    """Faust's consumer with its inner steps as methods to be overridden, and their parts as methods to call.

    Attributes:
        thread: The consumer's thread, made by :meth:`new_thread`.
    """

    thread: OpenThread

    def new_thread(self) -> OpenThread:
        """Make the thread that fetches."""
        raise NotImplementedError

    def _new_consumer_thread(self) -> OpenThread:
        self.thread = self.new_thread()
        return self.thread

    def to_commit(self) -> Iterable[TP]:
        """Partitions with something to commit."""
        raise NotImplementedError

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        return iter([tp for tp in self.to_commit() if topics is None or tp in topics or tp.topic in topics])

    def offset_to_commit(self, tp: TP) -> int | None:
        """The offset that the next commit carries for a partition."""
        raise NotImplementedError

    def _new_offset(self, tp: TP) -> int | None:
        return self.offset_to_commit(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Ignore gaps: Faust takes a batch for a gap between acknowledgements, which are not used here."""

    def committed(self, tp: TP) -> int | None:
        """The committed offset of an assigned partition; ``None`` if there is none, or it is 0."""
        offset: int | None = self._committed_offset.get(tp)
        return offset

    async def next_records(self, timeout_s: float) -> tuple[Any, set[TP]]:
        """Wait for records.

        Returns:
            Records by partition, and the partitions that were asked.
        """
        raise NotImplementedError

    async def _wait_next_records(self, timeout: float) -> tuple[Any, set[TP]]:  # noqa: ASYNC109 - Faust's signature
        return await self.next_records(timeout)

    def active(self) -> set[TP]:
        """Assigned partitions that are not held."""
        partitions: set[TP] = self._get_active_partitions()
        return partitions

    def full(self) -> set[TP]:
        """Partitions that are held: what their last poll brought must still be delivered."""
        partitions: set[TP] = self._buffered_partitions
        return partitions

    async def poll(self, active: set[TP], timeout_s: float) -> Any:
        """Records by partition that the client has, or that come in this time."""
        return await self._getmany(active_partitions=active, timeout=timeout_s)


async def start_tables(tables: TableManager) -> None:
    """Do what Faust's manager of tables does at its start, without the second that it waits for declarations."""
    await tables._update_channels()
    await tables.recovery.start()


# aiokafka: fetches, from the plan to the records


class OpenThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's thread that fetches, with the steps of its client as methods to be overridden.

    Attributes:
        fetch_max_bytes: Of an answer; Faust has no setting for it.
    """

    fetch_max_bytes: int

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.chosen: dict[TopicPartition, tuple[int | None, int, int | None]] = {}  # the client's leader, ours, which

    async def on_start(self) -> None:
        """Start the client, then take its steps over; it has no public way to do so."""
        await super().on_start()
        fetcher = self._consumer._fetcher
        fetcher._fetch_max_bytes = self.fetch_max_bytes
        fetcher._isolation_level = READ_COMMITTED  # Faust asks for it only where it writes in transactions itself
        fetcher._get_actions_per_node = partial(self.plan, fetcher._get_actions_per_node)
        fetcher._proc_fetch_request = partial(self.fetch, fetcher, fetcher._proc_fetch_request)
        client = fetcher._client
        client.send = partial(self.send, client, client.send)
        client.cluster.leader_for_partition = partial(self.leader_now, client, client.cluster.leader_for_partition)
        coordinator = self._consumer._coordinator
        coordinator.commit_offsets = partial(self.commit_with_notes, coordinator.commit_offsets)
        # Both ways by which a partition gets its first offset read through this: Faust's, and the client's own.
        coordinator._do_fetch_commit_offsets = partial(self.read_notes, coordinator._do_fetch_commit_offsets)

    def note(self, tp: TopicPartition, offset: int) -> str:
        """Metadata to commit with an offset; Faust commits none."""
        raise NotImplementedError

    def noted(self, tp: TopicPartition, metadata: str) -> None:
        """See the metadata of a committed offset."""
        raise NotImplementedError

    async def commit_with_notes(
        self, commit: Callable[..., Any], assignment: Any, offsets: Mapping[TopicPartition, OffsetAndMetadata]
    ) -> None:
        """Commit with metadata."""
        await commit(
            assignment, {tp: OffsetAndMetadata(at.offset, self.note(tp, at.offset)) for tp, at in offsets.items()}
        )

    async def read_notes(
        self, fetch: Callable[..., Any], partitions: Iterable[TopicPartition]
    ) -> dict[TopicPartition, OffsetAndMetadata]:
        """Read offsets, and show their metadata."""
        found: dict[TopicPartition, OffsetAndMetadata] = await fetch(partitions)
        for tp, at in found.items():
            self.noted(tp, at.metadata or "")
        return found

    def leader(self, tp: TP) -> int | None:
        """Node that leads a partition, as we know it; ``None`` if we do not."""
        raise NotImplementedError

    def leader_now(
        self, client: AIOKafkaClient, known: Callable[[TopicPartition], int | None], tp: TopicPartition
    ) -> Any:
        """Whom the client asks about a partition: the leader that it knows, or ours if that is the newer one.

        It looks for another one only when the broker that it asks says that it does not lead, and not even then where
        it looks for a first offset. A broker that stands still says nothing until the request's time limit, 90 s.
        """
        theirs, ours = known(tp), self.leader(TP(*tp))
        if ours is None or client.cluster.broker_metadata(ours) is None:
            return theirs
        theirs_before, ours_before, chosen = self.chosen.get(tp, (theirs, ours, theirs))
        if theirs != theirs_before:
            chosen = theirs
        elif ours != ours_before:
            chosen = ours
            client.force_metadata_update()
        self.chosen[tp] = theirs, ours, chosen
        return chosen

    def plan(self, plan: Callable[[Any], Any], assignment: Any) -> Any:
        """Choose what to send now, from what the client's own ``plan`` would send."""
        raise NotImplementedError

    async def fetch(self, fetcher: Any, fetch: Callable[..., Any], assignment: Any, node_id: int, request: Any) -> bool:
        """Fetch with the client's own ``fetch``, which sends a request and applies its answer."""
        raise NotImplementedError

    async def send(self, client: Any, send: Callable[..., Any], node_id: int, request: Any, **options: Any) -> Any:
        """Send a request with the client's own ``send``."""
        raise NotImplementedError

    def returned(self, records: dict[TopicPartition, list[Any]]) -> None:
        """See what the client returns from a poll."""
        raise NotImplementedError

    async def _fetch_records(self, consumer: Any, active_partitions: Any, **kwargs: Any) -> Any:
        records = await super()._fetch_records(consumer, active_partitions, **kwargs)
        self.returned(records)
        return records

    def answer(self, tp: TP) -> Any:
        """What :meth:`Fetch.answered` noted last about a partition of the current assignment, or ``None``."""
        subscription = self._consumer._subscription.subscription if self._consumer is not None else None
        assignment = subscription.assignment if subscription is not None else None
        if assignment is None:
            return None
        return getattr(assignment.state_value(tp), "streamer_answer", None)  # any tuple finds it


class Fetch:
    """The partitions of a fetch, from its leaving until the client has applied its answer.

    The client stamps each partition whose answer it applies; nothing else shows that it did. After a leader has moved,
    two fetches may be under way for a partition: stamps count from the answer's arrival, since the client applies it at
    once.

    Args:
        assignment: The client's, when the fetch leaves.
        request: The fetch.

    Attributes:
        records: Of each partition in the answer; one with an error may have none. Empty before it arrives.
    """

    def __init__(self, assignment: Any, request: FetchRequest) -> None:
        self.records: dict[TopicPartition, bytes] = {}
        self._earlier: list[Any] = []
        self._asked: list[tuple[TopicPartition, int, Any]] = []
        for topic, partitions in request.topics:
            for partition, offset, _ in partitions:
                tp = TopicPartition(topic, partition)
                if (state := assignment.state_value(tp)) is not None:
                    self._asked.append((tp, offset, state))

    def arrived(self, response: Any) -> None:
        """Take the answer, just before the client applies it."""
        self.records = {
            TopicPartition(topic, partition): records or b""
            for topic, partitions in response.topics
            for partition, *_, records in partitions
        }
        for _, _, state in self._asked:
            self._earlier.append(state.timestamp)
            state.timestamp = None

    def answered(self, note: Callable[[int, int, int], Any]) -> list[TopicPartition]:
        """The partitions whose answer was applied; none if no answer came.

        Args:
            note: Makes of fetch offset, high watermark and last stable offset what :meth:`OpenThread.answer` returns.
                It is kept on the assignment's own state, so that a stale answer cannot leak into the next assignment.
        """
        applied = []
        for (tp, offset, state), earlier in zip(self._asked, self._earlier, strict=False):
            if state.timestamp is None:
                state.timestamp = earlier
                continue
            state.streamer_answer = note(offset, state.highwater, state.lso)
            applied.append(tp)
        return applied

    @property
    def deleted(self) -> list[tuple[TopicPartition, int]]:
        """After the fetch: partitions whose log no longer has the offset that was asked for, and that offset."""
        return [(tp, offset) for tp, offset, state in self._asked if state.awaiting_reset]


@contextmanager
def under_way(fetches: dict[int, Fetch], assignment: Any, request: FetchRequest) -> Iterator[Fetch]:
    """A fetch, which ``fetches`` has by the identity of its request until the block ends."""
    fetch = fetches[id(request)] = Fetch(assignment, request)
    try:
        yield fetch
    finally:
        del fetches[id(request)]


def read_batches(
    fetcher: Fetcher,
    tp: TopicPartition,
    batches: Callable[[int], Batches],
    make: Callable[[Any, Any], Any] | None = None,
) -> None:
    """Let the client iterate our batches of an applied answer, which check their checksums themselves.

    Without records there is nothing to do; nor with an error, which the next poll raises.

    Args:
        batches: Makes them of the offset of the first record that is wanted.
        make: Builds the records, instead of the client's own class.
    """
    result = fetcher._records.get(tp)
    if type(result) is FetchResult:
        parts = result._partition_records
        parts._records = batches(parts.next_fetch_offset)
        parts._check_crcs = False
        if make is not None:
            parts._consumer_record = make


def batches_of(records: bytes, tp: TopicPartition, reading: Reading, budget: Budget, from_offset: int) -> Batches:
    """Our batches, for this client."""
    return Batches(records, tuple(tp), from_offset, DefaultRecordBatch, reading, budget)


def read_all_batches(consumer: AIOKafkaConsumer, reading: Reading) -> None:
    """Let a client that is not Faust's iterate our batches."""
    fetcher = consumer._fetcher
    client = fetcher._client
    fetches: dict[int, Fetch] = {}

    async def send(stock: Callable[..., Any], node_id: int, request: Any, **options: Any) -> Any:
        response = await stock(node_id, request, **options)
        if is_fetch(request):  # what the client applies before anything else runs
            fetches[id(request)].arrived(response)
        return response

    async def fetch(stock: Callable[..., Any], assignment: Any, node_id: int, request: Any) -> bool:
        with under_way(fetches, assignment, request) as asked:
            needs_wakeup: bool = await stock(assignment, node_id, request)
        budget = reading.budget()
        for tp in asked.answered(lambda offset, highwater, stable: None):
            if records := asked.records[tp]:
                read_batches(fetcher, tp, partial(batches_of, records, tp, reading, budget))
        return needs_wakeup

    client.send = partial(send, client.send)
    fetcher._proc_fetch_request = partial(fetch, fetcher._proc_fetch_request)


def is_fetch(request: Any) -> bool:
    """Whether a request, as built by the client or as sent, is a fetch."""
    return request is not None and bool(request.API_KEY == FetchRequest.API_KEY)


def wait_at_broker(request: FetchRequest, wait_ms: int) -> None:
    """Set how long one fetch waits at the broker; Faust hard-codes one wait for all."""
    request._max_wait_ms = wait_ms
