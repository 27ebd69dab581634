"""What the parts of a worker ask of one another: protocols only."""

from __future__ import annotations

from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from streamer.align.group import Rejected, Store
from streamer.align.windows import Late
from streamer.broker.deadletters import Letter
from streamer.errors import BadRecord
from streamer.events import Event, Position, Record, Window
from streamer.observe.health import Service
from streamer.observe.metrics import Metrics
from streamer.observe.tracing import Tracer
from streamer.settings import Settings

Item = TypeVar("Item")


class Owner(Protocol):
    """Owns windows in flight: a partition group, or one of role infer's arrivals."""

    @property
    def alive(self) -> bool:
        """Whether completions may still have an effect: not after the revocation."""

    @property
    def fingerprint(self) -> str:
        """Hash of the window settings."""

    @property
    def trim_below_us(self) -> int:
        """Log time from which a restart would replay, as of the last commit."""

    def window_done(self, window: Window) -> None:
        """The window is published."""

    def first_death(self, position: Position) -> bool:
        """True once for each record: a broken payload in several windows is dead-lettered once."""

    def suspicion(self, window: Window) -> int | None:
        """How often the window was run alone since a process died running it; ``None`` if it is no suspect."""

    def lost_until_us(self, window: Window) -> int:
        """If not 0, the session's windows that begin before this time may lack records."""


class Sink(Protocol):
    """Where closed windows go: the pipeline of a role that infers, the outbox of one that aligns."""

    inflight_bytes: int

    @property
    def inflight_windows(self) -> int:
        """Windows that were submitted and are not done."""

    @property
    def ahead(self) -> bool:
        """Whether it has all that it can use soon: more windows would only take memory."""

    def submit(self, owner: Owner, window: Window, closed_us: int | None = None) -> None:
        """Take a closed window; counts against ``inflight_bytes`` until it is done.

        Args:
            owner: Is told when the window is done.
            closed_us: When another process closed it; ``None`` if this one did, now.
        """

    def submit_early(self, owner: Owner, window: Window) -> None:
        """Take an open window as it stands: it gives way to closed ones, and may be dropped."""

    def close(self) -> None:
        """No more windows."""

    async def run(self) -> None:
        """Work until closed and empty."""

    async def withdraw(self, owners: Collection[Owner] | None = None) -> None:
        """Take back the in-flight marks of unfinished windows: of these owners, or of all."""


class Group(Protocol[Item]):
    """Partition p of every topic that a worker reads, and the state of its records.

    It lives from the assignment of its partition to the revocation and is then dropped whole.

    Attributes:
        alive: ``False`` once the partition was revoked: later completions must have no effect.
        next_offset: For each row the offset after the newest record that was received.
        live_from_us: Log time from which windows are run early.
        cut_us: Log time from which a restart would replay, if all that is released now were committed.
        trim_below_us: Log time from which it would replay as of the last commit.
    """

    partition: int
    alive: bool
    next_offset: list[int]
    live_from_us: int
    cut_us: int
    trim_below_us: int

    @property
    def owners(self) -> Sequence[Owner]:
        """Owners of its windows."""

    @property
    def sessions(self) -> int:
        """Sessions with open state."""

    @property
    def open_bytes(self) -> int:
        """Held by open windows."""

    @property
    def buffered_bytes(self) -> int:
        """Bytes received and waiting in the merge."""

    @property
    def clock_us(self) -> int:
        """Log time up to which the merge has released everything; 0 before the first record or bound."""

    @property
    def oldest_us(self) -> int | None:
        """Log time of the oldest record that is not done; ``None`` if all are."""

    @property
    def next_closing_us(self) -> int | None:
        """Log time before which time alone neither closes a window nor runs one early; ``None`` if none is open."""

    def resume(self, row: int, log_time_us: int) -> None:
        """Set the log time of the newest record that is committed, before the first record comes."""

    def receive(self, record: Record) -> None:
        """Take a record as the consumer delivers it; one that was received before is ignored."""

    def held(self, row: int) -> int:
        """Bytes in a topic's FIFO."""

    def full(self, row: int) -> bool:
        """Whether a topic's FIFO is at its limit."""

    def bound(self, row: int, log_time_us: int) -> None:
        """No record below this log time will come from the topic any more."""

    async def advance(self, store: Store, limit: int) -> tuple[Sequence[Item | Late | Rejected], bool]:
        """Release at most ``limit`` records; returns what leaves, in order, and whether there may be more at once."""

    def submit(self, item: Item, sink: Sink) -> None:
        """Hand a window that left the group to the sink."""

    def relieve(self) -> Sequence[Item | Late | Rejected]:
        """Close the window that has been open longest, which frees memory; returns what leaves."""

    def record_done(self, position: Position) -> None:
        """The broker has acknowledged the letter of a late or rejected record."""

    def releasable(self) -> dict[int, Position]:
        """The newest record that may be committed, by row, where it is another than at the last call."""


class Host(Protocol):
    """What a role asks of its worker."""

    settings: Settings
    metrics: Metrics
    tracer: Tracer | None

    @property
    def redis(self) -> Service:
        """Whether Redis answers; the role's clients report it."""

    @property
    def kafka(self) -> Service:
        """Whether Kafka answers, likewise."""

    async def send(self, topic: str, letter: Letter, *, whole: bool = False) -> None:
        """Send a record to Kafka and wait for the acknowledgement; ``whole``: never leave its value out."""

    async def dead_letter_member(self, owner: Owner, event: Event, error: BadRecord) -> None:
        """Send a member of a window to the dead-letter topic, once."""

    def progressed(self) -> None:
        """Windows are done."""


class Role(Protocol):
    """What a worker runs."""

    @property
    def store(self) -> Store:
        """Where its groups look sessions up."""

    @property
    def sink(self) -> Sink:
        """Where its windows go."""

    def new_group(self, partition: int, name: str, committed: bool) -> Group[Any]:
        """A group for a partition that was assigned."""

    def background(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Work that runs beside the sink for as long as the worker does, by name."""

    async def close(self) -> None:
        """Close what this role has opened."""
