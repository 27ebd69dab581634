"""A feed of several cars in real time that misbehaves by a seed, cheap enough for a test machine.

Each car has a small camera, a microphone, speech and telemetry, and whatever else of cameras and microphones the
settings declare. Like ``streamer.feeds.simulate`` it jitters, drops, comes late and loses a sensor midway, and its
devices' clocks may be wrong; unlike it, nothing is rendered.
"""

from __future__ import annotations

import heapq
import json
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from kafka import KafkaProducer
from kafka.errors import KafkaError

from streamer.events import AUDIO, IMAGE, KIND_NAMES, TELEMETRY, TEXT
from streamer.settings import Settings
from tests import harness
from tests.harness import S_US, Outgoing

RATE_HZ = 8_000
CHUNK_US, BLOCK_US = 400_000, 500_000
Ideal = tuple[int, int, int, bytes, str]  # event time, due, row, payload, content type
PHRASES = ("continue straight", "stop at the line", "siren behind us", "children on the right", "all clear")


def right(row: int, elapsed_us: int) -> int:
    """A device clock without a fault."""
    return 0


@dataclass(frozen=True)
class Car:
    """One session of the feed.

    Attributes:
        jitter_ms: Each record is sent up to so much later.
        drop, late: Shares of records that are never sent, and that are sent ``late_ms`` later.
        dies: (sensor, second): nothing of it from then on.
        lags: (sensor, milliseconds): it is sent so much later, all of it.
        clock_us: (row, microseconds since the start) -> what the device's clock is ahead by.
        frame_hz, frame_bytes: Of the camera; a frame is padded to this size.
    """

    name: str
    seed: int
    jitter_ms: float = 120.0
    drop: float = 0.02
    late: float = 0.01
    late_ms: float = 4000.0
    dies: tuple[str, float] | None = None
    lags: tuple[str, float] | None = None
    clock_us: Callable[[int, int], int] = right
    frame_hz: int = 4
    frame_bytes: int = 0

    def records(self, settings: Settings, start_us: int) -> Iterator[tuple[int, str, Outgoing]]:
        """Without end: (due, name for ties, record), in the order in which they are due."""
        rng = random.Random(self.seed)
        waiting: list[tuple[int, int, Outgoing]] = []
        for number, (sensor, (at_us, due_us, row, payload, content_type)) in enumerate(self._ideal(settings, rng)):
            while waiting and waiting[0][0] <= due_us:
                due, _, outgoing = heapq.heappop(waiting)
                yield start_us + due, self.name, outgoing
            dropped, late, jitter = rng.random(), rng.random(), rng.random()
            if dropped < self.drop or (
                self.dies is not None and sensor == self.dies[0] and at_us >= self.dies[1] * S_US
            ):
                continue
            due_us += round((jitter * self.jitter_ms + (self.late_ms if late < self.late else 0)) * 1000)
            if self.lags is not None and sensor == self.lags[0]:
                due_us += round(self.lags[1] * 1000)
            stamp_us = start_us + at_us + self.clock_us(row, at_us)
            named = None if sensor == KIND_NAMES[row] else sensor
            outgoing = harness.record(settings, row, self.name, stamp_us, payload, content_type, named)
            heapq.heappush(waiting, (due_us, number, outgoing))

    def _ideal(self, settings: Settings, rng: random.Random) -> Iterator[tuple[str, Ideal]]:
        """What each sensor gives, ascending by due."""
        made = self._frames, self._audio, self._speech, self._telemetry
        feeds = [zip(repeat(sensor.name), made[sensor.row](rng)) for sensor in settings.sensor_set.all]
        return heapq.merge(*feeds, key=lambda item: item[1][1])

    def _frames(self, rng: random.Random) -> Iterator[Ideal]:
        pictures = [harness.jpeg(self.seed * 100 + k) for k in range(8)]
        number = 0
        while True:
            at_us = number * S_US // self.frame_hz
            picture = pictures[number % len(pictures)]  # what follows a JPEG's end marker is ignored by decoders
            padded = picture + rng.randbytes(max(0, self.frame_bytes - len(picture)))
            yield at_us, at_us + 10_000, IMAGE, padded, "image/jpeg"
            number += 1

    def _audio(self, rng: random.Random) -> Iterator[Ideal]:
        samples = RATE_HZ * CHUNK_US // S_US
        chunks = [
            (np.sin(np.arange(samples) / rng.uniform(2, 20)) * rng.uniform(500, 20_000)).astype(">i2").tobytes()
            for _ in range(8)
        ]
        number = 0
        while True:
            at_us = number * CHUNK_US
            yield at_us, at_us + CHUNK_US, AUDIO, chunks[number % len(chunks)], f"audio/L16;rate={RATE_HZ};channels=1"
            number += 1

    def _speech(self, rng: random.Random) -> Iterator[Ideal]:
        at_us = 0
        while True:
            at_us += rng.randrange(300, 2500) * 1000
            length_s = rng.randrange(3, 15) / 10
            body = json.dumps({"text": rng.choice(PHRASES), "start": 0.0, "end": length_s}).encode()
            # Due after the same time for all, so that they come in order: recognisers are slow, not shuffled.
            yield at_us, at_us + 1_700_000, TEXT, body, "application/json"

    def _telemetry(self, rng: random.Random) -> Iterator[Ideal]:
        number = 0
        while True:
            at_us = number * BLOCK_US
            speeds = [round(15 + 10 * math.sin(number / 7) + rng.random(), 2) for _ in range(10)]
            body = json.dumps({"channels": {"speed": {"unit": "m/s", "values": speeds}}, "rate_hz": 20.0}).encode()
            yield at_us, at_us + BLOCK_US, TELEMETRY, body, "application/json"
            number += 1


class Feed(threading.Thread):
    """Sends cars in real time until it is finished; a broker that is away for a while delays it only.

    Args:
        connections: Producers that send in turns. One that waits for acknowledgements soon sends nothing more; of many
            a broker has many records that it has not yet acknowledged.
        acks: As producers have it. With ``1`` a record may be lost that was acknowledged.
    """

    def __init__(self, settings: Settings, cars: list[Car], connections: int = 1, acks: str | int = "all") -> None:
        super().__init__(name="feed", daemon=True)
        self.settings = settings
        self.cars = cars
        self.connections = connections
        self.acks = acks
        self.start_us = int(time.time()) * S_US
        self.sent = 0
        self.resent = 0
        self._stop_now = threading.Event()
        self._abandoned = False
        self._error: BaseException | None = None

    def run(self) -> None:
        try:
            producers = [new_producer(self.settings, acks=self.acks) for _ in range(self.connections)]
            try:
                self._send_all(producers)
            finally:
                for producer in producers:
                    producer.close(timeout=5)
        except BaseException as error:  # noqa: BLE001 - raised again where the thread is joined
            self._error = error

    def _send_all(self, producers: Sequence[KafkaProducer]) -> None:
        pending: list[tuple[Any, Outgoing]] = []
        for due_us, _, outgoing in heapq.merge(*(car.records(self.settings, self.start_us) for car in self.cars)):
            if self._stop_now.wait(max(0.0, due_us / 1e6 - time.time())):
                break
            if self._abandoned:
                return
            pending.append((send(producers[self.sent % len(producers)], outgoing), outgoing))
            self.sent += 1
            if len(pending) > 2000:
                pending = [(f, r) for f, r in pending if f is None or not (f.is_done and f.succeeded())]
        self._settle(producers[0], pending)
        now_us = time.time_ns() // 1000
        self._settle(producers[0], [(None, harness.end(self.settings, car.name, now_us)) for car in self.cars])

    def _settle(self, producer: KafkaProducer, pending: list[tuple[Any, Outgoing]]) -> None:
        """Until the broker has every record; one whose sending is in doubt is sent again."""
        while not self._abandoned:
            left = []
            for future, outgoing in pending:
                try:
                    if future is None:
                        raise KafkaError("never sent")
                    future.get(timeout=60)
                except KafkaError:
                    left.append(outgoing)
                    self.resent += future is not None
            if not left:
                return
            pending = [(send(producer, outgoing), outgoing) for outgoing in left]

    def abandon(self) -> None:
        """Stop as soon as possible, with whatever is in the log; nothing after :meth:`finish`."""
        self._abandoned = True
        self._stop_now.set()
        self.join(timeout=90)

    def finish(self) -> None:
        """End every session and wait until the broker has everything."""
        self._stop_now.set()
        self.join(timeout=180)
        assert not self.is_alive(), "the feed does not end: does the broker answer?"
        if self._error is not None:
            raise self._error


@contextmanager
def feeding(settings: Settings, cars: list[Car], connections: int = 1, acks: str | int = "all") -> Iterator[Feed]:
    """A feed that runs until the block finishes it, or fails."""
    feed = Feed(settings, cars, connections, acks)
    feed.start()
    try:
        yield feed
    finally:
        feed.abandon()


def new_producer(settings: Settings, max_request_size: int = 0, acks: str | int = "all") -> KafkaProducer:
    return KafkaProducer(
        bootstrap_servers=settings.kafka,
        acks=acks,
        linger_ms=5,
        max_request_size=max(max_request_size, settings.max_message_bytes + (1 << 20)),
        # An idempotent producer may give up for good when a broker was killed; sent twice is well-formed as well.
        enable_idempotence=False,
        reconnect_backoff_max_ms=1000,
        request_timeout_ms=10_000,
        bootstrap_timeout_ms=60_000,
    )


def send(producer: KafkaProducer, outgoing: Outgoing, partition: int | None = None) -> Any:
    """The future of a sending; None if the client did not even take it (it knows no broker)."""
    try:
        return producer.send(
            outgoing.topic, key=outgoing.key, value=outgoing.value, headers=outgoing.headers, partition=partition
        )
    except KafkaError:
        return None
