"""The process of ``streamer capture``: its sources, its signals, its endpoints, and how it ends."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import msgspec
from kafka.errors import KafkaError

from streamer.clients import kafka as kafka_clients
from streamer.errors import Stop, UsageError
from streamer.events import IMAGE, MAX_SESSION_BYTES, Sensor
from streamer.feeds.capture import address
from streamer.feeds.capture.address import Source
from streamer.feeds.capture.camera import Camera, Taker
from streamer.feeds.capture.clock import Ascending
from streamer.feeds.capture.metrics import CaptureMetrics
from streamer.feeds.capture.outbox import SLOW_S, Outbox
from streamer.feeds.capture.pictures import Pictures, Slots
from streamer.feeds.capture.sound import End, Sounds
from streamer.feeds.producer import Outgoing, Producer
from streamer.feeds.replay.part import header
from streamer.observe import logs
from streamer.observe.endpoints import Endpoints
from streamer.settings import Settings

log = logging.getLogger(__name__)

NEVER_MS = 2**31 - 1  # the client tries until the process ends
RECONNECT_MS = 1000  # at most between two attempts to reach a broker


def run(
    settings: Settings,
    texts: Sequence[str],
    session: str,
    pairs: Sequence[str] = (),
    rate_hz: float | None = None,
    say: Callable[[str], object] = lambda line: None,
) -> None:
    """Capture until SIGTERM or SIGINT.

    Args:
        texts: The sources, as :mod:`streamer.feeds.capture.address` reads them.
        pairs: ``SOURCE=SENSOR``.
        rate_hz: Most pictures a second of each sensor; ``None``: all.
        say: Called once with a line for people.

    Raises:
        UsageError: A source or option is wrong, Kafka does not answer, or the port is taken.
        Stop: Kafka refuses us. Else the process ends here, with exit code 1 after a crash.
    """
    logs.begin(settings)
    if not 0 < len(session.encode(errors="replace")) <= MAX_SESSION_BYTES:
        raise UsageError(f"a session's name has 1 to {MAX_SESSION_BYTES} bytes of UTF-8")
    sources = [address.parse(number, text) for number, text in enumerate(texts, 1)]
    sensors = address.sensors(sources, texts, pairs, settings.sensor_set)
    crashed = asyncio.run(_main(settings, sources, sensors, session, rate_hz, say))
    logging.shutdown()
    os._exit(1 if crashed else 0)  # a source that does not answer keeps its thread in FFmpeg


async def _main(
    settings: Settings,
    sources: Sequence[Source],
    sensors: Sequence[Mapping[int, Sensor]],
    session: str,
    rate_hz: float | None,
    say: Callable[[str], object],
) -> bool:
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(_check_topics, settings, {row for mine in sensors for row in mine})
    named = [sensor.name for mine in sensors for sensor in mine.values()]
    metrics = CaptureMetrics(sources=[source.name for source in sources], sensors=named)
    ended: asyncio.Future[None] = loop.create_future()

    def end(error: BaseException | None = None) -> None:
        if not ended.done():
            ended.set_result(None) if error is None else ended.set_exception(error)

    def end_soon(error: BaseException) -> None:
        loop.call_soon_threadsafe(end, error)

    stop = threading.Event()
    async with AsyncExitStack() as stack:
        endless = {"max_block_ms": NEVER_MS, "delivery_timeout_ms": NEVER_MS, "linger_ms": 0}
        producer = await asyncio.to_thread(
            partial(Producer, settings, reconnect_backoff_max_ms=RECONNECT_MS, **endless)
        )
        outbox = Outbox(
            producer,
            metrics,
            settings.capture_buffer_bytes,
            lambda error: end_soon(_refusal(settings, error)),
        )
        stack.push_async_callback(asyncio.to_thread, outbox.close, settings.stop_after_ms / 1000)
        feed = Feed(session, outbox, rate_hz)
        cameras = [
            Camera(
                source,
                mine,
                feed.taker,
                metrics,
                most_off_us=settings.capture_clock_ms * 1000,
                silence_s=settings.capture_silence_ms / 1000,
            )
            for source, mine in zip(sources, sensors, strict=True)
        ]
        endpoints = Endpoints(
            metrics.registry,
            not_ready=lambda: _not_ready(outbox),
            degraded=lambda: [camera.away for camera in cameras if camera.away is not None],
            before_scrape=lambda: metrics.unsent_bytes.set(outbox.unsent_bytes),
        )
        await endpoints.start(settings.host, settings.capture_port, "STREAMER_CAPTURE_PORT")
        stack.push_async_callback(endpoints.stop)
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, end)
        say(
            f"capturing {len(sources)} source{'s' * (len(sources) > 1)} as session {session}; "
            f"metrics on http://{settings.host}:{endpoints.port}/metrics"
        )
        for camera in cameras:
            threading.Thread(
                target=_guarded, args=(camera, stop, end_soon), name=camera.source.name, daemon=True
            ).start()
        try:
            await ended
        except Stop:
            raise
        except Exception as error:
            log.error("crashed: %r", error, exc_info=error)
            return True
        finally:
            stop.set()
    log.info("stopped")
    return False


def _check_topics(settings: Settings, kinds: Iterable[int]) -> None:
    """Refuse to start if a topic is missing, for which the client would wait. A device's right to write is enough."""
    with kafka_clients.admin(settings, kafka_clients.TIMEOUT_MS) as client:
        there = client.list_topics()
    for row in kinds:
        if settings.source_topics[row] not in there:
            raise kafka_clients.no_topic(settings, settings.source_topics[row])


def _guarded(camera: Camera, stop: threading.Event, failed: Callable[[BaseException], None]) -> None:
    try:
        camera.run(stop)
    except BaseException as error:  # noqa: BLE001 - the process ends with it
        failed(error)


def _refusal(settings: Settings, error: KafkaError) -> Stop:
    return Stop(str(kafka_clients.refusal(settings, error)))


def _not_ready(outbox: Outbox) -> list[str]:
    waited_s = outbox.waited_s()
    return [f"Kafka has not acknowledged a record for {waited_s:.0f} s"] if waited_s > SLOW_S else []


class Feed:
    """Turns what cameras send into the records of one session. What a sensor goes on with is kept between connections.

    Args:
        rate_hz: Most pictures a second of each sensor; ``None``: all.
    """

    def __init__(self, session: str, outbox: Outbox, rate_hz: float | None) -> None:
        self._session = session
        self._outbox = outbox
        self._rate_hz = rate_hz
        self._going_on: dict[str, tuple[Slots, Ascending, End]] = {}

    def taker(self, stream: Any, sensor: Sensor) -> Taker:
        """What takes the packets of a stream of a new connection."""
        fresh = (Slots(self._rate_hz), Ascending(), End())
        slots, ascending, end = self._going_on.setdefault(sensor.name, fresh)
        emit, damaged = partial(self._emit, sensor), partial(self._outbox.damaged, sensor.name)
        if sensor.row == IMAGE:
            return Pictures(stream, slots, ascending, emit, damaged)
        return Sounds(stream, f"the sound of {sensor.name}", end, emit, damaged)

    def _emit(self, sensor: Sensor, outgoing: Outgoing) -> None:
        named = msgspec.structs.replace(outgoing, session=self._session, sensor=header(sensor))
        self._outbox.put(named, sensor.name)
