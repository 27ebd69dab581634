"""What the parts of a worker ask of one another. Pure protocols: whoever implements one need not know the others."""

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
    """Whose window it is: a partition group, which dies when its partition is taken away."""

    @property
    def alive(self) -> bool:
        """Whether completions may still change anything."""

    @property
    def fingerprint(self) -> str:
        """Of the window settings."""

    @property
    def trim_below_us(self) -> int:
        """Log time of the committed cut."""

    def window_done(self, window: Window) -> None:
        """The window is published."""

    def first_death(self, position: Position) -> bool:
        """True once for each record: a broken payload in several windows is dead-lettered once."""

    def suspicion(self, window: Window) -> int | None:
        """How often the window was run alone since a process died with it; None: it is not suspected."""

    def lost_until_us(self, window: Window) -> int:
        """Not 0: the window may lack records, as do its session's windows that begin before this time."""


class Sink(Protocol):
    """Where closed windows go: the pipeline of a role that infers, the outbox of one that aligns."""

    inflight_bytes: int

    @property
    def inflight_windows(self) -> int:
        """Windows that came and are not yet done."""

    def submit(self, owner: Owner, window: Window, closed_us: int | None = None) -> None:
        """Take a closed window; counts against ``inflight_bytes`` until it is done.

        Args:
            owner: Learns that it is done.
            closed_us: When another process closed it; None: now, here.
        """

    def close(self) -> None:
        """No more windows."""

    async def run(self) -> None:
        """Work until closed and empty."""

    async def withdraw(self, owners: Collection[Owner] | None = None) -> None:
        """Take back the in-flight marks of unfinished windows: of these owners, None: of all."""


class Group(Protocol[Item]):
    """Partition p of every topic that a worker reads, and all the state that its records build up.

    It lives from the assignment of its partition to the revocation and is then dropped whole.

    Attributes:
        alive: False once the partition was taken away: completions that come later must change nothing.
        next_offset: For each row the offset after the newest record that was received.
        cut_us: Log time below which nothing would be replayed if what was released by now were committed.
        trim_below_us: The same of what is committed.
    """

    partition: int
    alive: bool
    next_offset: list[int]
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
        """Received, and waiting for the merge."""

    @property
    def clock_us(self) -> int:
        """Log time up to which the merge has released everything; 0: nothing is known yet."""

    @property
    def oldest_us(self) -> int | None:
        """Log time of the oldest record that is not done; None: all are."""

    @property
    def next_closing_us(self) -> int | None:
        """Log time at which a window closes if no record comes before; None: none is open."""

    def receive(self, record: Record) -> None:
        """Take a record as the consumer delivers it; one that was received before is ignored."""

    def held(self, row: int) -> int:
        """Bytes that wait in the FIFO of a topic."""

    def full(self, row: int) -> bool:
        """Whether this FIFO is at its limit."""

    def bound(self, row: int, log_time_us: int) -> None:
        """Nothing below this log time will come from a topic any more."""

    async def advance(self, store: Store, limit: int) -> tuple[Sequence[Item | Late | Rejected], bool]:
        """Release at most ``limit`` records; returns what leaves, in order, and whether there may be more at once."""

    def submit(self, item: Item, sink: Sink) -> None:
        """Hand a window that left the group to the sink."""

    def relieve(self) -> Sequence[Item | Late | Rejected]:
        """Close the window that has been open longest, which frees memory; returns what leaves."""

    def record_done(self, position: Position) -> None:
        """A record that left by itself, late or rejected, is where it belongs."""

    def releasable(self) -> dict[int, int]:
        """Offsets to commit, by row, as far as they grew since the last call."""


class Host(Protocol):
    """What a role asks of its worker."""

    settings: Settings
    metrics: Metrics
    tracer: Tracer | None

    @property
    def redis(self) -> Service:
        """Whether Redis answers, as the role's clients report it."""

    @property
    def kafka(self) -> Service:
        """Whether Kafka answers, likewise."""

    async def send(self, topic: str, letter: Letter, *, whole: bool = False) -> None:
        """Send a record to Kafka and wait until the broker has it."""

    async def dead_letter_member(self, owner: Owner, event: Event, error: BadRecord) -> None:
        """Send a member of a window to the dead-letter topic, once."""

    def progressed(self) -> None:
        """Windows are done."""


class Role(Protocol):
    """What a worker runs."""

    @property
    def store(self) -> Store:
        """What its groups ask about sessions."""

    @property
    def sink(self) -> Sink:
        """Where its windows go."""

    def new_group(self, partition: int, name: str, committed: bool) -> Group[Any]:
        """A group for a partition that was assigned."""

    def background(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """Work that runs beside the sink for as long as the worker does, by name."""

    async def close(self) -> None:
        """Leave what only this role has opened."""
