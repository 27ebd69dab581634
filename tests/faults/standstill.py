"""How long a run brought no results: sampled from Redis while a scenario goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from streamer.settings import Settings

EVERY_S = 0.1
ALL = ""


class Standstill(threading.Thread):
    """Watches the number of results of each session, from its first one on.

    Attributes:
        longest_s: The longest time without a new result, by session; of all sessions together under ``ALL``.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(name="standstill", daemon=True)
        self.longest_s: dict[str, float] = {}
        self._settings = settings
        self._over = threading.Event()
        self._seen: dict[str, tuple[int, float]] = {}  # results, and since when there were no more

    def run(self) -> None:
        with redis.Redis.from_url(self._settings.redis) as client:
            while not self._over.wait(EVERY_S):
                keys = list(client.scan_iter(f"{self._settings.key_prefix}:{{*}}:results", count=1000))
                counts = {key.decode(): int(client.xlen(key)) for key in keys}
                now_s = time.monotonic()
                for name, count in {**counts, ALL: sum(counts.values())}.items():
                    self._note(name, count, now_s)

    def _note(self, name: str, count: int, now_s: float) -> None:
        before, since_s = self._seen.get(name, (0, now_s))
        if before:
            self.longest_s[name] = max(self.longest_s.get(name, 0.0), now_s - since_s)
        if count != before:
            self._seen[name] = count, now_s

    def end(self) -> None:
        """Watch no longer."""
        self._over.set()
        self.join()

    def __str__(self) -> str:
        session_s = max((s for name, s in self.longest_s.items() if name != ALL), default=0.0)
        return f"without results for {self.longest_s.get(ALL, 0.0):.1f} s, a session for {session_s:.1f} s"


@contextmanager
def watched(settings: Settings) -> Iterator[Standstill]:
    """A watch that ends with the block, if it was not ended in it."""
    watch = Standstill(settings)
    watch.start()
    try:
        yield watch
    finally:
        watch.end()
