"""The worker as far as alignment, one of the readers of ``bench.transport``: transport, decode, merge, align, ledger.

Its sink counts every window as published at once, and its store knows no session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from bench.programs.clock import Clock
from streamer.broker import topics
from streamer.events import Stored, Window
from streamer.settings import Settings
from streamer.worker import process, role_align, worker
from streamer.worker.ports import Owner

POLL_S = 0.02


class Forgetting:
    """A store without any session."""

    async def load(self, session: str, group: str) -> Stored:
        return Stored(None)

    async def open_group(self, group: str) -> int | None:
        return 0

    async def note_group(self, group: str, lost_until_us: int) -> None:
        pass


class Void:
    """A sink in which every window is published at once."""

    inflight_bytes = 0
    inflight_windows = 0
    ahead = False

    def submit(self, owner: Owner, window: Window, closed_us: int | None = None) -> None:
        owner.window_done(window)

    def submit_early(self, owner: Owner, window: Window) -> None:
        pass

    def close(self) -> None:
        pass

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def withdraw(self, owners: Collection[Owner] | None = None) -> None:
        pass


class AlignOnly(role_align.FromSources):
    """A role that ends at closed windows."""

    store = Forgetting()
    sink = Void()


class Worker(worker.Worker):
    """A worker that stops the clock when it has aligned ``count`` records."""

    def __init__(self, settings: Settings, partitions: int, count: int) -> None:
        super().__init__(settings, lambda host: AlignOnly(host, partitions))
        self._clock = Clock()
        self._count = count

    async def watch(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            groups = list(self.groups.values())
            received = sum(sum(group.next_offset) for group in groups)
            if received >= self._count and not any(g.buffered_bytes for g in groups):
                self._clock.end()


async def read(settings: Settings, count: int) -> None:
    """Read as a worker does, until ``count`` records are aligned."""
    reader = Worker(settings, topics.check_for_worker(settings), count)
    process.share_one_heap()  # as a worker does before it runs
    process.spare_the_collector()
    watching = asyncio.create_task(reader.watch())
    await reader.run()
    await watching
