"""Results as a worker publishes them, for tests of those who read."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import redis

from streamer.result import Result
from streamer.settings import Settings
from streamer.store.results import Keys

S_US = 1_000_000
START_US = 1_750_000_000 * S_US


def result(session: str, number: int, label: str = "proceed", **fields: Any) -> Result:
    """The result of a session's window of this number, of one second each."""
    end_us = START_US + (number + 1) * S_US
    given: dict[str, Any] = {
        "session": session,
        "start_us": end_us - S_US,
        "end_us": end_us,
        "closed_by": "complete",
        "present": ("image",),
        "coverage": {"image": 1.0, "audio": 0.0},
        "members": {"frames": ((number, number),)},
        "outputs": {"action": {"label": label, "score": 0.9, "scores": {label: 0.9}}},
        "embedding": b"\x00\x3c\x00\xc0",  # 1, -2
        "model": "driving",
        "version": "1",
        "status": "ok",
        "latencies_us": {"total": 9},
    }
    return Result(**{**given, **fields})


def publish(settings: Settings, results: Iterable[Result], maxlen: int | None = None) -> None:
    """Add results to their streams; a stream is trimmed to ``maxlen``."""
    keys = Keys(settings.key_prefix)
    with redis.Redis.from_url(settings.redis) as client, client.pipeline(transaction=False) as pipe:
        for one in results:
            fields: dict[Any, Any] = dict(one.to_fields())
            pipe.xadd(keys.results(one.session), fields, id=f"{one.end_us}-0", maxlen=maxlen, approximate=False)
            pipe.hset(keys.latest(one.session), mapping=fields)
            pipe.zadd(keys.sessions, {one.session: one.end_us})
            pipe.publish(keys.channel, one.to_json())
        pipe.execute()


class Publisher(threading.Thread):
    """Publishes a result of each session, again and again until it is stopped.

    Args:
        make: Session and number of the turn -> its result.
        every_s: Between two turns.

    Attributes:
        published: All of them.
    """

    def __init__(
        self, settings: Settings, sessions: Sequence[str], make: Callable[[str, int], Result], every_s: float
    ) -> None:
        super().__init__(name="publisher")
        self._settings = settings
        self._sessions = sessions
        self._make = make
        self._every_s = every_s
        self._stopped = threading.Event()
        self.published: list[Result] = []

    def run(self) -> None:
        number = 0
        while not self._stopped.wait(self._every_s):
            batch = [self._make(session, number) for session in self._sessions]
            publish(self._settings, batch)
            self.published += batch
            number += 1

    def stop(self) -> None:
        """Publish no more."""
        self._stopped.set()
        self.join()
