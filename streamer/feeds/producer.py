"""Sending sensor data to Kafka: for devices, and for the feeds of this package.

A camera with a microphone needs no more than this::

    from streamer import Producer, Settings

    with Producer(Settings.load()) as producer:
        producer.frame("cab-7", jpeg_bytes)
        producer.audio("cab-7", pcm_bytes, rate_hz=16_000)
        producer.end("cab-7")

Any other Kafka client can send too: the records are CloudEvents 1.0 in binary mode, see ``schemas/README.md``.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from time import time_ns
from types import TracebackType
from typing import Any
from urllib.parse import quote

import msgspec
from kafka.errors import KafkaError, KafkaTimeoutError, MessageSizeTooLargeError

from streamer.align.decode import EARLIEST_US, LATEST_US, Decoder
from streamer.clients import kafka as kafka_clients
from streamer.errors import BadRecord, UsageError
from streamer.events import (
    AUDIO,
    END_TYPE,
    IMAGE,
    KIND_NAMES,
    KINDS,
    MAX_SESSION_BYTES,
    TELEMETRY,
    TEXT,
    Channel,
    Record,
    Telemetry,
    TimeSource,
    Transcript,
    Word,
    rfc3339,
)
from streamer.observe import tracing
from streamer.sensors import WORDING, is_name
from streamer.settings import Settings

JSON = "application/json"


class Outgoing(msgspec.Struct, frozen=True):
    """One record to be sent, by a simulator, a replay or a device.

    Attributes:
        row: Number of its kind (``events.IMAGE`` …).
        time_us: Start of the event; becomes ``ce_time``.
        due_us: When it should be sent, on the clock of ``time_us``: a transcript is due after its end.
        duration_us: Becomes ``ce_durationus``; needed for compressed audio.
        sequence: Becomes ``ce_sequence``, per session and sensor.
        ce_type: ``END_TYPE`` for an end record; ``None`` for the kind's type.
        sensor: Becomes ``ce_sensor``; ``None`` for the sensor that is called like the kind, or the only one of it.
        time_source: Becomes ``ce_timesource``; ``None`` where nobody need know.
    """

    row: int
    session: str
    time_us: int
    payload: bytes
    content_type: str
    due_us: int
    duration_us: int | None = None
    sequence: int | None = None
    ce_type: str | None = None
    sensor: str | None = None
    time_source: TimeSource | None = None


def headers(outgoing: Outgoing) -> list[tuple[str, bytes]]:
    """CloudEvents 1.0 headers of the Kafka protocol binding, binary mode.

    An id is derived from the sequence number where there is one, so that a feed sent twice has the same ids. The
    session is percent-encoded in id and source: a source is a URI reference, and neither may hold control characters.
    """
    kind = KINDS[outgoing.row]
    session = quote(outgoing.session, safe="")
    ce_type = outgoing.ce_type or kind.ce_type
    unique = uuid.uuid4().hex if outgoing.sequence is None else f"{ce_type}/{outgoing.sequence}"
    found = {
        "ce_specversion": "1.0",
        "ce_id": f"{session}/{unique}",
        "ce_source": f"/sessions/{session}/{outgoing.sensor or kind.name}",
        "ce_type": ce_type,
        "ce_time": rfc3339(outgoing.time_us),
        "content-type": outgoing.content_type,
    }
    if outgoing.sensor is not None:
        found["ce_sensor"] = outgoing.sensor
    if outgoing.time_source is not None:
        found["ce_timesource"] = outgoing.time_source
    if outgoing.duration_us is not None:
        found["ce_durationus"] = str(outgoing.duration_us)
    if outgoing.sequence is not None:
        found["ce_sequence"] = str(outgoing.sequence)
    return [(name, value.encode()) for name, value in found.items()]


def _json(body: Transcript | Telemetry) -> bytes:
    try:
        return msgspec.json.encode(body)
    except UnicodeEncodeError as error:  # half of a surrogate pair
        raise UsageError(f"not text: {error}") from None


def end_record(session: str, time_us: int, due_us: int) -> Outgoing:
    """The record that ends a session, for the telemetry topic; any source topic would do."""
    return Outgoing(TELEMETRY, session, time_us, b"", JSON, due_us, ce_type=END_TYPE)


class Producer:
    """Sends records of any number of sessions; use it as a context manager, or call :meth:`close`.

    Records are sent in the background. The next :meth:`flush` or :meth:`close` raises an error if Kafka refused any.

    Args:
        settings: Where Kafka is, the topics' prefix, the largest message.
        overrides: Options of ``kafka.KafkaProducer``: compression, …

    Raises:
        UsageError: No Kafka answers.
    """

    def __init__(self, settings: Settings, **overrides: Any) -> None:
        self._topics = settings.source_topics
        self._max_bytes = settings.max_message_bytes
        self._kafka = settings.kafka
        self._decoder = Decoder(settings, partitions=1, any_sensor=True)
        self._errors: list[Exception] = []
        self._sent = 0
        options = {
            "acks": "all",
            "linger_ms": 5,
            # 2.4x the throughput of the default 16 KiB with 50 KB frames; the topics' limit holds for whole batches
            "batch_size": min(256 << 10, settings.max_message_bytes),
            "max_request_size": settings.max_message_bytes,
        }
        self._producer = kafka_clients.producer(settings, **{**options, **overrides})
        self._tracer = tracing.tracer(settings, "streamer-producer")

    def send(self, outgoing: Outgoing) -> None:
        """Send a record as it is.

        Raises:
            UsageError: A worker with these settings would dead-letter the record; or Kafka has no such topic, or has
                not answered for a minute.
        """
        self.begin(outgoing).add_errback(self._errors.append)
        self._sent += 1

    def begin(self, outgoing: Outgoing) -> Any:
        """As :meth:`send`, but returns the client's future, whose outcome :meth:`flush` does not report."""
        try:
            key = outgoing.session.encode()
        except UnicodeEncodeError:  # half of a surrogate pair
            raise UsageError(f"a session's name must be text, which {outgoing.session!r} is not") from None
        if not 0 < len(key) <= MAX_SESSION_BYTES:
            raise UsageError(f"a session's name has 1 to {MAX_SESSION_BYTES} bytes of UTF-8, not {len(key)}")
        if not outgoing.payload and outgoing.ce_type is None:
            raise UsageError(f"the {KIND_NAMES[outgoing.row]} payload of session {outgoing.session!r} is empty")
        if len(outgoing.payload) > self._max_bytes:
            raise UsageError(
                f"a {KIND_NAMES[outgoing.row]} payload has {len(outgoing.payload)} bytes, the limit is "
                f"{self._max_bytes} (STREAMER_MAX_MESSAGE_BYTES)"
            )
        if outgoing.sensor is not None and not is_name(outgoing.sensor):
            raise UsageError(f"a sensor's name has {WORDING}, which {outgoing.sensor!r} has not")
        if not EARLIEST_US <= outgoing.time_us <= LATEST_US:
            raise UsageError(f"time {outgoing.time_us} µs since the epoch is not between 1970 and 2200")
        wanted = headers(outgoing)
        try:
            # only the broker knows the append time; with the latest one the record cannot be ahead of it
            self._decoder.decode(Record(outgoing.row, 0, 0, LATEST_US, key, outgoing.payload, tuple(wanted)))
        except BadRecord as error:
            what = f"{KIND_NAMES[outgoing.row]} record of session {outgoing.session!r}"
            raise UsageError(f"the {what} would be refused: {error.detail}") from None
        topic = self._topics[outgoing.row]
        span = None if self._tracer is None else self._tracer.sending(topic, outgoing.session)
        if span is not None:
            wanted.append((tracing.HEADER, tracing.traceparent(span)))
        try:
            future = self._producer.send(topic, key=key, value=outgoing.payload, headers=wanted)
        except KafkaTimeoutError as error:
            raise UsageError(
                f"Kafka at {self._kafka} takes no record for {topic} ({error}); "
                f"if there is no such topic, run `streamer topics create`"
            ) from None
        except MessageSizeTooLargeError:  # Kafka would refuse its batch, and other records with it
            raise UsageError(
                f"a {KIND_NAMES[outgoing.row]} payload has {len(outgoing.payload)} bytes; with its headers that is "
                f"more than {self._max_bytes} (STREAMER_MAX_MESSAGE_BYTES)"
            ) from None
        except KafkaError as error:
            raise UsageError(f"Kafka at {self._kafka} takes no record for {topic}: {error}") from None
        if span is not None:
            future.add_both(lambda _: span.end())
        return future

    def frame(
        self,
        session: str,
        image: bytes,
        time_us: int | None = None,
        content_type: str = "image/jpeg",
        sensor: str | None = None,
    ) -> None:
        """Send an encoded image, taken at ``time_us`` (microseconds since the epoch; ``None``: now).

        Args:
            sensor: Its name, as the worker's settings declare it; ``None``: ``image``, or the only one of this kind. So
                for the other kinds.
        """
        self._send_now(IMAGE, session, image, content_type, time_us, sensor)

    def audio(
        self,
        session: str,
        samples: bytes,
        rate_hz: int,
        channels: int = 1,
        time_us: int | None = None,
        sensor: str | None = None,
    ) -> None:
        """Send a chunk of raw audio.

        Args:
            samples: 16-bit signed **big-endian** samples, channels interleaved (RFC 2586).
            time_us: When its first sample was taken; ``None`` if the chunk ends now.
        """
        if rate_hz < 1 or channels < 1:
            raise UsageError(f"audio has a rate and channels, not {rate_hz} Hz and {channels}")
        if time_us is None:
            time_us = time_ns() // 1000 - len(samples) // (2 * channels) * 1_000_000 // rate_hz
        self._send_now(AUDIO, session, samples, f"audio/L16;rate={rate_hz};channels={channels}", time_us, sensor)

    def transcript(
        self,
        session: str,
        text: str,
        time_us: int,
        duration_us: int,
        words: Sequence[tuple[str, float, float]] = (),
        sensor: str | None = None,
    ) -> None:
        """Send what was said.

        Args:
            time_us: When it began.
            words: Each with its start and end in seconds relative to ``time_us``.
        """
        body = Transcript(text, end=duration_us / 1e6, words=tuple(Word(*word) for word in words))
        self._send_now(TEXT, session, _json(body), JSON, time_us, sensor)

    def telemetry(
        self,
        session: str,
        channels: dict[str, Sequence[float]],
        rate_hz: float,
        time_us: int | None = None,
        sensor: str | None = None,
    ) -> None:
        """Send a block of samples, ``rate_hz`` a second, the first taken at ``time_us`` (``None``: it ends now)."""
        body = Telemetry({name: Channel(tuple(values)) for name, values in channels.items()}, rate_hz=rate_hz)
        if not rate_hz > 0:
            raise UsageError(f"telemetry has a rate above 0, not {rate_hz} Hz")
        if time_us is None:
            count = max((len(values) for values in channels.values()), default=0)
            time_us = time_ns() // 1000 - round(count / rate_hz * 1e6)
        self._send_now(TELEMETRY, session, _json(body), JSON, time_us, sensor)

    def end(self, session: str) -> None:
        """End a session once everything sent before is in Kafka, so that its last windows close without waiting."""
        self.flush()
        now_us = time_ns() // 1000
        self.send(end_record(session, now_us, now_us))

    def _send_now(
        self, row: int, session: str, payload: bytes, content_type: str, time_us: int | None, sensor: str | None
    ) -> None:
        now_us = time_ns() // 1000
        at_us = now_us if time_us is None else time_us
        self.send(Outgoing(row, session, at_us, payload, content_type, now_us, sensor=sensor))

    def flush(self) -> None:
        """Wait until Kafka has everything.

        Raises:
            UsageError: Kafka refused some records; the message has the first reason. Later records may fail too, since
                the client keeps them from overtaking those that failed: continue with a new producer.
        """
        try:
            self._producer.flush()
        except KafkaError as error:
            raise UsageError(f"Kafka at {self._kafka} did not take the records in time: {error}") from None
        if self._errors:
            count, first = len(self._errors), self._errors[0]
            self._errors.clear()
            raise UsageError(f"Kafka at {self._kafka} did not take {count} records of {self._sent}: {first!r}")

    def close(self) -> None:
        """Flush, then close the connections."""
        try:
            self.flush()
        finally:
            self._close()

    def __enter__(self) -> Producer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:  # a failing flush must not hide the error that led here
            self._close(timeout=1)

    def _close(self, **options: float) -> None:
        self._producer.close(**options)
        if self._tracer is not None:
            self._tracer.close()
