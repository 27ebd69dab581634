"""What the peers' programs share, so that none is at a disadvantage: the job, and the parts of it that no engine does.

The job, as a user of any of these engines would put it: four topics, keyed by session; tumbling windows of a second by
event time and session; every record belongs to each window that its span ``[start, end)`` touches; a window may be
closed once the session's event time has passed its end by ``GRACE_MS``; each closed window goes through the model and
into Redis.

Decoding of headers, cutting, the model and the fields of a result are streamer's own. An engine's part is reading,
windows, state, and being there again after a crash.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import redis

from streamer.align.decode import Decoder
from streamer.events import ClosedBy, Event, EventType, Position, Record, Window
from streamer.model.predictor import Predictor, result_of
from streamer.result import Result
from streamer.settings import Settings
from streamer.store.results import Keys

WINDOW_MS = 1000
GRACE_MS = 3000  # a transcript begins 3.2 s before it is there and reaches 1 s into its window at least
CHECKPOINT_S = 1.0  # how often every engine that has checkpoints takes one
SESSION_TIMEOUT_S = 6.0  # of the consumer group; streamer's own
STATE_VARIABLE = "PEERS_STATE"

WINDOW_US = WINDOW_MS * 1000
GRACE_US = GRACE_MS * 1000


class Closed(NamedTuple):
    """A window that an engine has closed: ``[end - 1 s, end)`` of a session, with its records in any order."""

    session: str
    end_us: int
    records: Sequence[Record]


def state_folder() -> Path:
    """Where an engine keeps its recovery store; it outlives the process.

    Raises:
        KeyError: ``PEERS_STATE`` is not set.
    """
    return Path(os.environ[STATE_VARIABLE])


def placed(event: Event) -> list[int]:
    """For each window that the event touches, a time inside both, µs: where an engine that knows points only puts it.

    The first is the event's own start, the others are starts of windows.
    """
    first = event.start_us // WINDOW_US * WINDOW_US
    return [event.start_us, *range(first + WINDOW_US, event.end_us, WINDOW_US)]


def window_end_us(at_us: int) -> int:
    """End of the window that contains a time."""
    return at_us // WINDOW_US * WINDOW_US + WINDOW_US


class Job:
    """The parts of the job that are the same in every engine.

    Attributes:
        settings: Where Kafka, Redis and the model are; the names of topics, keys and group.
    """

    def __init__(self) -> None:
        self.settings = Settings.load()
        self._rows = {topic: row for row, topic in enumerate(self.settings.source_topics)}
        self._decoder = Decoder(self.settings, self.settings.partitions)
        self._predictor = Predictor.load(self.settings.model, device=self.settings.device, settings=self.settings)
        self._predictor.warm_up()
        self._redis = redis.Redis.from_url(self.settings.redis)
        self._keys = Keys(self.settings.key_prefix)
        print("ready", flush=True)  # what follows is the engine's own doing

    def record(
        self,
        topic: str,
        partition: int,
        offset: int,
        log_time_ms: int,
        key: bytes,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] | None,
    ) -> Record:
        """A record as its engine read it."""
        log_time_us = log_time_ms * 1000
        return Record(self._rows[topic], partition, offset, log_time_us, key, value or b"", tuple(headers or ()))

    def event(self, record: Record) -> Event | None:
        """Decode headers; None for a record that is no data: the peers know no end of a session.

        Raises:
            BadRecord: The feed has no such records.
        """
        event = self._decoder.decode(record)
        return event if event.type is EventType.DATA else None

    def finish(self, windows: Sequence[Closed]) -> None:
        """Predict closed windows in batches as large as streamer's and write them to Redis; returns when it has them.

        Each batch is one MULTI: a hash a window, an entry in the session's stream, and how far the session came.
        """
        size = self.settings.max_batch
        for begin in range(0, len(windows), size):
            self._write(self._predict([self._window(closed) for closed in windows[begin : begin + size]]))

    def published_end_us(self) -> dict[str, int]:
        """Session -> end of its newest window in Redis, for programs that keep no state."""
        stored = self._redis.zrange(self._keys.sessions, 0, -1, withscores=True)
        return {name.decode(): int(end_us) for name, end_us in stored}

    def _window(self, closed: Closed) -> Window:
        events: list[list[Event]] = [[] for _ in self.settings.source_topics]
        for record in closed.records:
            events[record.row].append(self._decoder.decode(record))
        return Window(
            session=closed.session,
            partition=closed.records[0].partition,
            start_us=closed.end_us - WINDOW_US,
            end_us=closed.end_us,
            closed_by=ClosedBy.DEADLINE,
            closed_at=Position(0, 0, 0),
            events=tuple(tuple(sorted(row, key=lambda event: event.start_us)) for row in events),
            heard_us=(),
        )

    def _predict(self, windows: Sequence[Window]) -> list[Result]:
        samples = [self._predictor.decode(window)[0] for window in windows]
        return [
            result_of(
                window,
                sample,
                prediction,
                topics=self.settings.source_topics,
                model=self._predictor.name,
                version=self._predictor.version,
            )
            for window, sample, prediction in zip(windows, samples, self._predictor.predict(samples), strict=True)
        ]

    def _write(self, results: Sequence[Result]) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            for result in results:
                fields = result.to_fields()
                pipe.hset(f"{self.settings.key_prefix}:window:{result.id}", mapping=fields)
                pipe.xadd(self._keys.results(result.session), fields, maxlen=self.settings.results_maxlen)
                pipe.zadd(self._keys.sessions, {result.session: result.end_us}, gt=True)
            pipe.execute()
