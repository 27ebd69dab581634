"""What was in a window: of each sensor its newest frame, sound, transcripts or telemetry, read from Kafka by offset.

A result lists its records by topic, with those of all sensors of a kind together; a record's header names its sensor.
It is decoded with the sensors that its window had, so that what was published before they changed stays readable.

Each of a few threads has a consumer without a group: a read seeks in one partition and takes the records of the window.
A small cache keeps what was read, and concurrent requests for one window share one read. The worker's own code checks
the payloads, so records that a worker would refuse are left out. A frame is returned as it was sent, WebP upright.
"""

from __future__ import annotations

import asyncio
import base64
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache, partial
from itertools import pairwise
from time import monotonic
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np
from kafka import TopicPartition
from kafka.errors import KafkaError, OffsetOutOfRangeError
from numpy.typing import NDArray

from streamer.align.decode import Decoder, home_partition
from streamer.clients import kafka as kafka_clients
from streamer.errors import BadRecord, StreamerError, Unavailable, UsageError
from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT, Event, Record, Sensors, Telemetry
from streamer.model import payloads, pictures
from streamer.model.sounds import sample_index
from streamer.result import Result
from streamer.result import ranges as ranges_of
from streamer.settings import Settings

THREADS = 2
TIMEOUT_S = 5.0  # of one read
FETCH_WAIT_MS = 100  # the records exist already: a broker that has none to send should answer soon
FETCH_BYTES = 64 << 10  # a larger record still comes whole; unpacking unwanted records costs time
CACHE_BYTES = 16 << 20
MAX_WAITING = 64  # reads that run or wait for a thread

BANDS = 48  # of the spectrogram, evenly spaced in log frequency
LOWEST_HZ, HIGHEST_HZ = 60.0, 8000.0
COLUMNS_HZ = 25.0
MAX_COLUMNS = 600  # of one window
QUIETEST_DB, LOUDEST_DB = -80.0, 0.0  # of full scale, a band's mean power: what 0 and 255 stand for

Ranges = Sequence[tuple[int, int]]
S = TypeVar("S")
T = TypeVar("T")


class Gone(StreamerError):
    """What was asked for does not exist: it never did, or Kafka has deleted it."""


class Frame(msgspec.Struct, frozen=True):
    """An encoded image for browsers; its media type is one of the three that frames may have."""

    media_type: str
    content: bytes


Frames = dict[str, Frame | str]  # sensor -> its newest frame, or why there is none
NO_FRAME = "no frame in this window"


class Sound(msgspec.Struct, frozen=True):
    """The spectrogram of a sensor in a window.

    Attributes:
        levels: base64 of uint8 [columns, bands], lowest band first; 0 is silence or no data.
        peak_dbfs: Largest sample, decibels of full scale; ``None`` if there is digital silence.
    """

    columns: int
    bands: int
    levels: str
    peak_dbfs: float | None


class Speech(msgspec.Struct, frozen=True):
    """A transcript segment and the sensor that it is of."""

    sensor: str
    start_us: int
    end_us: int
    text: str


class Signal(msgspec.Struct, frozen=True):
    """The samples of a telemetry channel in a window, in order of time."""

    unit: str
    times_us: list[int]
    values: list[float]


class Content(msgspec.Struct, frozen=True):
    """What was in a window, except frames.

    Attributes:
        audio: Sensor -> its sound; only those that can be heard.
        transcripts: Of all sensors, in order of time.
        telemetry: Sensor -> channel -> its samples.
        gone: The sensors that were there and can no longer be read.
    """

    start_us: int
    end_us: int
    audio: dict[str, Sound]
    transcripts: list[Speech]
    telemetry: dict[str, dict[str, Signal]]
    gone: list[str]


class Source(Protocol):
    """Where records are read from; :class:`Log` reads Kafka."""

    partitions: int

    def read(self, row: int, partition: int, ranges: Ranges) -> list[Record]: ...
    def close(self) -> None: ...


class Log:
    """Reads records by offset, with one consumer for each thread.

    Raises:
        UsageError: No Kafka answers, or a source topic does not exist.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topics = settings.source_topics
        self._local = threading.local()
        self._consumers: list[Any] = []
        consumer = self._connect()
        counts = {topic: len(consumer.partitions_for_topic(topic) or ()) for topic in self._topics}
        consumer.close()
        for topic, count in counts.items():
            if not count:
                raise kafka_clients.no_topic(settings, topic)
        self.partitions = min(counts.values())

    def read(self, row: int, partition: int, ranges: Ranges) -> list[Record]:
        """The records of a kind at these offsets, as far as Kafka has them.

        Raises:
            Gone: Kafka has deleted the first of them.
            Unavailable: Kafka does not answer in time.
        """
        topic = TopicPartition(self._topics[row], partition)
        deadline_s = monotonic() + TIMEOUT_S
        found: list[Record] = []
        consumer = self._consumer()
        try:
            consumer.seek(topic, ranges[0][0])
            consumer.resume(topic)
            while consumer.position(topic) <= ranges[-1][1]:
                if monotonic() > deadline_s:
                    raise Unavailable(f"Kafka at {self._settings.kafka} does not answer")
                for message in consumer.poll(timeout_ms=500).get(topic, ()):
                    if any(first <= message.offset <= last for first, last in ranges):
                        found.append(_record(row, message))
        except OffsetOutOfRangeError:
            raise Gone("not in Kafka any more") from None
        except KafkaError as error:
            raise Unavailable(f"Kafka at {self._settings.kafka}: {error}") from None
        finally:
            consumer.pause(topic)  # else it would continue to fetch
            consumer.seek(topic, 0)  # else a refused position would fail every later read too
        return found

    def close(self) -> None:
        """Close all consumers; no read may be running."""
        for consumer in self._consumers:
            consumer.close()

    def _consumer(self) -> Any:
        if not hasattr(self._local, "consumer"):
            try:
                consumer = self._connect()
            except UsageError as error:
                raise Unavailable(str(error)) from None
            # Assigned once: after every change of the assignment kafka-python waits 0.1 s for metadata.
            places = [TopicPartition(topic, number) for topic in self._topics for number in range(self.partitions)]
            consumer.assign(places)
            consumer.pause(*places)
            for place in places:
                consumer.seek(place, 0)
            self._local.consumer = consumer
            self._consumers.append(consumer)
        return self._local.consumer

    def _connect(self) -> Any:
        return kafka_clients.consumer(
            self._settings,
            auto_offset_reset="none",
            fetch_max_wait_ms=FETCH_WAIT_MS,
            max_partition_fetch_bytes=FETCH_BYTES,
        )


class Records:
    """The records of windows as events; for any thread.

    Args:
        settings: The limits of payloads.
        source: Where they are read from; closed by its owner.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self._settings = settings
        self._topics = settings.source_topics
        self._source = source
        self._of: Callable[[tuple[str, ...]], tuple[Sensors, Decoder]] = lru_cache(self._as_it_was)

    def sensors(self, result: Result) -> Sensors:
        """The sensors of a window, as far as the settings know them; also those that have been disabled since."""
        return self._of(tuple(result.coverage))[0]

    def ranges(self, result: Result, row: int) -> Ranges:
        """Where a window's records of a kind are, as offsets in the session's partition."""
        return result.members.get(self._topics[row], ())

    def events(self, result: Result, row: int, ranges: Ranges) -> list[Event]:
        """The events of a window's session at these offsets, of all its sensors of a kind.

        A topic that was created again may hold other records there, which are left out.

        Raises:
            Gone: Kafka has deleted the first of them.
            Unavailable: Kafka does not answer in time.
        """
        partition = home_partition(result.session.encode(), self._source.partitions)
        records = self._source.read(row, partition, ranges)
        decoder = self._of(tuple(result.coverage))[1]
        return [event for event in readable(records, decoder.decode) if event.session == result.session]

    def by_sensor(self, result: Result, row: int, ranges: Ranges) -> dict[str, list[Event]]:
        """The same by the sensor's name; raises as :meth:`events`."""
        found: dict[str, list[Event]] = {}
        names = self.sensors(result).names
        for event in self.events(result, row, ranges):
            found.setdefault(names[event.sensor], []).append(event)
        return found

    def newest_frames(self, result: Result) -> dict[str, Event | None]:
        """The newest frame of each camera that the window has; ``None`` where Kafka has it no more.

        Reads from the newest record backwards until each was seen.

        Raises:
            Gone: Kafka has deleted those that it would have to read.
            Unavailable: Kafka does not answer in time.
        """
        sensors = self.sensors(result)
        names = [sensors.names[number] for number in sensors.of_kind(IMAGE)]
        offsets = [offset for first, last in self.ranges(result, IMAGE) for offset in range(first, last + 1)]
        if not offsets:
            return {}
        there = [name for name in names if name in result.present]
        wanted = there or names  # a window that failed may not say whose frames it had
        found: dict[str, Event] = {}
        count = 2 * len(names) - 1  # of sensors that take turns, all are among so many
        while offsets and not found.keys() >= set(wanted):
            newest, offsets = offsets[-count:], offsets[:-count]
            for name, events in self.by_sensor(result, IMAGE, ranges_of(newest)).items():
                found.setdefault(name, max(events, key=lambda event: event.record.offset))
            if not there:
                break
            count *= 2
        return {name: found.get(name) for name in wanted}

    def _as_it_was(self, names: tuple[str, ...]) -> tuple[Sensors, Decoder]:
        """The sensors that a window had, and what decodes its records as the worker did.

        Of a kind of which it names none, the settings' own are taken.
        """
        declared = self._settings.sensors
        there = {name: declared[name].model_copy(update={"enabled": True}) for name in names if name in declared}
        kinds = {one.kind for one in there.values()}
        there |= {name: one for name, one in declared.items() if one.kind not in kinds}
        settings = self._settings.model_copy(update={"sensors": there})
        return settings.sensor_set, Decoder(settings, self._source.partitions)


class Windows:
    """Frames and contents of windows, cached; for one event loop.

    Args:
        settings: The limits of payloads.
        source: Read in threads; closed by :meth:`close`.
    """

    def __init__(self, settings: Settings, source: Source) -> None:
        self._settings = settings
        self._source = source
        self._records = Records(settings, source)
        self._threads = ThreadPoolExecutor(THREADS, "payloads")
        self._cache: OrderedDict[tuple[str, str], Frames | bytes] = OrderedDict()
        self._cached_bytes = 0
        self._reads: dict[tuple[str, str], asyncio.Future[Frames | bytes]] = {}

    async def frame(self, result: Result, sensor: str | None = None) -> Frame:
        """The newest frame of a sensor in a window; those of all its sensors are read at once.

        Args:
            sensor: ``None``: the first that the window has.

        Raises:
            Gone: The window has no such frame, or Kafka has deleted it.
            Unavailable: Kafka does not answer in time, or too many requests wait.
        """
        found = await self._once("frames", result, self._read_frames)
        assert isinstance(found, dict)
        frame = found.get(sensor, NO_FRAME) if sensor is not None else _first(found)
        if isinstance(frame, str):
            raise Gone(frame)
        return frame

    async def content(self, result: Result) -> bytes:
        """The :class:`Content` of a window as JSON.

        Raises:
            Unavailable: Kafka does not answer in time, or too many requests wait.
        """
        found = await self._once("content", result, self._read_content)
        assert isinstance(found, bytes)
        return found

    async def close(self) -> None:
        """Wait for the reads that are running and close the source."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
        await asyncio.to_thread(self._source.close)

    async def _once(self, what: str, result: Result, read: Callable[[Result], Frames | bytes]) -> Frames | bytes:
        key = (what, result.id)
        if key in self._cache:
            self._cache.move_to_end(key)
            return self._cache[key]
        if key not in self._reads:
            if len(self._reads) >= MAX_WAITING:
                raise Unavailable("too many windows are asked for at once")
            future = asyncio.get_running_loop().run_in_executor(self._threads, read, result)
            self._reads[key] = future
            future.add_done_callback(lambda done: self._keep(key, done))
        # one caller that goes away must not cancel the read of the others
        return await asyncio.shield(self._reads[key])

    def _keep(self, key: tuple[str, str], done: asyncio.Future[Frames | bytes]) -> None:
        del self._reads[key]
        if done.cancelled() or done.exception() is not None:
            return
        self._cache[key] = done.result()
        self._cached_bytes += _size(done.result())
        while self._cached_bytes > CACHE_BYTES:
            _, dropped = self._cache.popitem(last=False)
            self._cached_bytes -= _size(dropped)

    def _read_frames(self, result: Result) -> Frames:
        return {name: self._shown(event) for name, event in self._records.newest_frames(result).items()}

    def _shown(self, event: Event | None) -> Frame | str:
        if event is None:
            return "the frame is not in Kafka any more"
        try:
            content = payloads.payload(event)
            limit = self._settings.max_image_pixels
            return Frame(event.media_type, pictures.for_browser(content, event.media_type, limit))
        except BadRecord as error:
            return error.detail

    def _read_content(self, result: Result) -> bytes:
        found: dict[int, dict[str, list[Event]]] = {}
        gone: list[str] = []
        for row in (AUDIO, TEXT, TELEMETRY):
            ranges = self._records.ranges(result, row)
            try:
                found[row] = self._records.by_sensor(result, row, ranges) if ranges else {}
            except Gone:
                found[row] = {}
            if ranges:
                gone += self._gone(result, row, found[row])
        start_us, end_us = result.start_us, result.end_us
        heard = {name: sound(chunks, start_us, end_us) for name, chunks in found[AUDIO].items()}
        said = [one for name, events in found[TEXT].items() for one in readable(events, partial(_speech, name))]
        return msgspec.json.encode(
            Content(
                start_us=start_us,
                end_us=end_us,
                audio={name: one for name, one in heard.items() if one is not None},
                transcripts=sorted(said, key=lambda one: one.start_us),
                telemetry={name: signals(blocks, start_us, end_us) for name, blocks in found[TELEMETRY].items()},
                gone=gone,
            )
        )

    def _gone(self, result: Result, row: int, found: Collection[str]) -> list[str]:
        """The sensors of a kind that were there and are not found; a window that failed may not say which it had."""
        sensors = self._records.sensors(result)
        there = result.present or (() if found else sensors.names)
        names = [sensors.names[number] for number in sensors.of_kind(row)]
        return [name for name in names if name in there and name not in found]


def _first(frames: Frames) -> Frame | str:
    return min(frames.values(), key=lambda frame: isinstance(frame, str), default=NO_FRAME)


def sound(chunks: Sequence[Event], start_us: int, end_us: int) -> Sound | None:
    """Spectrogram of the audio chunks of a window; ``None`` if they have no sample in it.

    Hann windows of 1/16 s or the distance of columns, whichever is longer; a band's level is its mean power.
    """
    found = readable(chunks, lambda chunk: payloads.audio(chunk, start_us, end_us))
    parts = [part for part in found if part.samples_S.size]
    if not parts:
        return None
    rate_hz = parts[0].rate_hz
    samples_S = np.zeros(sample_index(end_us - start_us, rate_hz), np.float32)
    for part in parts:
        if part.rate_hz == rate_hz:
            fitting_S = part.samples_S[: max(0, len(samples_S) - part.first)]
            samples_S[part.first : part.first + len(fitting_S)] = fitting_S
    peak = float(np.abs(samples_S).max(initial=0.0))
    columns = max(1, min(MAX_COLUMNS, round((end_us - start_us) / 1e6 * COLUMNS_HZ)))
    levels = _levels(samples_S, rate_hz, columns)
    return Sound(
        columns,
        BANDS,
        base64.b64encode(levels.tobytes()).decode(),
        None if peak == 0 else round(20 * float(np.log10(peak)), 1),
    )


def _levels(samples_S: NDArray[np.float32], rate_hz: int, columns: int) -> NDArray[np.uint8]:
    """uint8 [columns, BANDS]."""
    length = max(rate_hz // 16, len(samples_S) // columns)
    # centred on its column; at the window's border half of a frame is missing
    padded_S = np.pad(samples_S, length // 2 + 1)
    starts = np.linspace(0, len(samples_S), columns, endpoint=False).astype(int) + len(samples_S) // (2 * columns)
    frames_CL = padded_S[starts[:, None] + np.arange(length)] * np.hanning(length).astype(np.float32)
    power_CF = np.abs(np.fft.rfft(frames_CL, axis=1)) ** 2 / (length / 4) ** 2
    edges_hz = np.geomspace(LOWEST_HZ, min(HIGHEST_HZ, rate_hz / 2), BANDS + 1)
    bins = np.minimum((edges_hz * length / rate_hz).astype(int), power_CF.shape[1] - 1)
    bands_CB = np.stack([power_CF[:, low : max(high, low + 1)].mean(axis=1) for low, high in pairwise(bins)], axis=1)
    decibels_CB = 10 * np.log10(bands_CB + 1e-12)
    share_CB = (decibels_CB - QUIETEST_DB) / (LOUDEST_DB - QUIETEST_DB)
    return (np.clip(share_CB, 0, 1) * 255).astype(np.uint8)


def signals(blocks: Sequence[Event], start_us: int, end_us: int) -> dict[str, Signal]:
    """The samples in ``[start_us, end_us)`` of every channel."""
    points: dict[str, list[tuple[int, float]]] = {}
    units: dict[str, str] = {}
    for body, offsets_us in readable(blocks, lambda block: _sampled(block, start_us)):
        times_us = [start_us + round(offset_us) for offset_us in offsets_us.tolist()]
        for name, channel in body.channels.items():
            units[name] = channel.unit
            points.setdefault(name, []).extend(
                (t, value) for t, value in zip(times_us, channel.values, strict=False) if start_us <= t < end_us
            )
    found = {}
    for name, pairs in points.items():
        pairs.sort()
        found[name] = Signal(units[name], [t for t, _ in pairs], [value for _, value in pairs])
    return found


def _sampled(event: Event, since_us: int) -> tuple[Telemetry, NDArray[np.float64]]:
    body = payloads.telemetry(event)
    return body, payloads.sample_times_us(event, body, since_us)


def _speech(sensor: str, event: Event) -> Speech:
    return Speech(sensor, event.start_us, event.end_us, payloads.transcript(event).text)


def readable(items: Sequence[S], read: Callable[[S], T]) -> list[T]:
    """The items that can be read; a worker reports the others."""
    found = []
    for item in items:
        with suppress(BadRecord):
            found.append(read(item))
    return found


def _record(row: int, message: Any) -> Record:
    return Record(
        row,
        message.partition,
        message.offset,
        message.timestamp * 1000,
        message.key,
        message.value or b"",
        tuple(message.headers),
    )


def _size(kept: Frames | bytes) -> int:
    if isinstance(kept, bytes):
        return len(kept)
    return sum(len(frame.content) for frame in kept.values() if isinstance(frame, Frame))
