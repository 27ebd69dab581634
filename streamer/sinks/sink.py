"""What a sink is. Derive from :class:`Sink`, and name the class as an entry point of the group ``streamer.sinks``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import redis.asyncio

from streamer.result import Result
from streamer.settings import Settings
from streamer.sinks.metrics import Metrics
from streamer.store.readers import Cursor, Cursors, Later, Page, Places
from streamer.store.results import Keys


class Given(NamedTuple):
    """What a sink is made with.

    Attributes:
        name: Of this sink: its cursors have it, so that there can be several of a kind.
        client: Of Redis; not closed by the sink.
        cursors: In Redis.
    """

    settings: Settings
    name: str
    client: redis.asyncio.Redis
    keys: Keys
    cursors: Cursors
    metrics: Metrics


class Sink(ABC):
    """Takes the results of all sessions, each session's in their order, to one place.

    Attributes:
        service: What it needs, for people: ``Kafka``.
        at_once: Sessions whose results it takes at the same time.
        places: The cursors; a sink that can hold them where the results are has its own, and each result once.
    """

    service = "receiver"
    at_once = 64  # more share a command

    def __init__(self, given: Given) -> None:
        self.given = given
        self.places: Places = given.cursors

    async def open(self) -> None:  # noqa: B027 - most need none
        """Connect; called once, before all else.

        Raises:
            Stop: It cannot work as it is set up.
        """

    async def close(self) -> None:  # noqa: B027
        """Finish what can be finished in seconds; the next process does the rest."""

    def degraded(self) -> list[str]:
        """What does not work at the moment, for /readyz."""
        return []

    @abstractmethod
    async def take(self, page: Page) -> int | Later | None:
        """Deliver a page and move the cursor behind it; as :class:`streamer.store.readers.Reader` has it.

        Raises:
            Unavailable: Not now; what the cursor has not passed comes again.
            Stop: Never, until somebody changes something.
        """


class AtLeastOnce(Sink):
    """The simplest sink, by :meth:`deliver` alone: the cursor moves when it returns."""

    async def take(self, page: Page) -> int | Later | None:
        await self.deliver(page.session, page.results)
        after = Cursor(page.results[-1].end_us)
        if not await self.places.move(page.session, page.cursor, after):
            return None
        self.given.metrics.sent.inc(len(page.results))
        return after.end_us

    @abstractmethod
    async def deliver(self, session: str, results: Sequence[Result]) -> None:
        """Deliver the next results of a session; they come again if the process ends before it has returned.

        Raises:
            Unavailable: Not now.
            Stop: Never, until somebody changes something.
        """
