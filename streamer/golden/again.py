"""Sends a recording to Kafka again: the same records, in the same partitions, with the same gaps between them.

The broker gives new log times. The event times (``ce_time``) move along, so that events are as late or as early as they
were: all by the same whole number of hops, so that window borders cut the events where they did. At speed 1 or slower
the recording begins at the next border of a hop; faster, it is placed in the past, to end before now, since events that
run ahead of the log are refused (as ``pace`` does for other feeds).

Sessions keep their names: the key decides the partition, and the results of one window must not be found under two
names. With new times they continue after what was published before. With ``keep_times``, or when a recording is sent
twice at high speed so that the stretches overlap, all windows are published already and the events are late: run
``streamer forget SESSION`` first, or use another STREAMER_TOPIC_PREFIX and STREAMER_KEY_PREFIX.

The windows are the same as long as no gap decides otherwise: at speed 1 log times are kept to some milliseconds, so two
records of different topics may change their order; faster, a window waits (in log time) for records that were sent
later, and fewer are late.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from time import sleep, time_ns

from kafka.errors import KafkaError

from streamer.align.decode import time_us
from streamer.broker import topics
from streamer.clients import kafka as kafka_clients
from streamer.errors import BadRecord, UsageError
from streamer.events import END_TYPE, rfc3339
from streamer.feeds import pace
from streamer.golden import recording
from streamer.golden.recording import Recorded
from streamer.settings import Settings

CE_TIME, CE_TYPE = "ce_time", "ce_type"
ESTIMATE_BYTES = 64 << 10  # the client may count a record as larger by this than the broker did

Headers = list[tuple[str, bytes]]


def send_again(
    settings: Settings,
    path: Path,
    speed: float = 1.0,
    *,
    keep_times: bool = False,
    on_sent: Callable[[Recorded], None] | None = None,
) -> int:
    """Send a recording; returns the number of records sent, all of which Kafka has acknowledged.

    A header without a value, and a record with neither key nor value, get an empty value: the client cannot send them
    otherwise. The worker refuses both kinds of record for the same reason as before.

    Args:
        settings: For the source topics.
        speed: 1 for the gaps that the log had, 2 for twice as fast, 0 for as fast as possible.
        keep_times: Leave ``ce_time`` as it is.
        on_sent: Called with each record, in its recorded form.

    Raises:
        UsageError: The file is no recording, no Kafka answers, the topics have another number of partitions, or Kafka
            did not take a record.
    """
    about = recording.describe(path)
    partitions = topics.check(settings)
    if partitions != about.partitions:
        raise UsageError(
            f"{path} was recorded with {about.partitions} partitions a topic, {settings.source_topics[0]} has "
            f"{partitions}; set STREAMER_PARTITIONS={about.partitions} with another STREAMER_TOPIC_PREFIX and run "
            "`streamer topics create`"
        )
    span_us = recording.span_us(path)
    if span_us is None:
        return 0
    shift_us = _shift_us(span_us, speed, settings.hop_us)
    with_times_us = 0 if keep_times else shift_us
    sender = _Sender(settings)
    try:
        if speed > 0:
            _sleep_until_us(span_us[0] + shift_us if speed <= 1 else 0)
        return _send(sender, path, speed, with_times_us, on_sent)
    finally:
        sender.close()


def _send(sender: _Sender, path: Path, speed: float, shift_us: int, on_sent: Callable[[Recorded], None] | None) -> int:
    count = 0
    for record in pace.paced(recording.read(path), _log_time_us, speed=speed, flush=sender.flush):
        sender.send(record, shift_us)
        count += 1
        if on_sent is not None:
            on_sent(record)
    sender.flush()
    return count


def _log_time_us(record: Recorded) -> int:
    return record.log_time_us


def _shift_us(span_us: tuple[int, int], speed: float, hop_us: int) -> int:
    """The whole hops by which the recording moves in time."""
    first_us, last_us = span_us
    now_us = time_ns() // 1000
    if 0 < speed <= 1:
        return -(-(now_us - first_us) // hop_us) * hop_us
    return (now_us - last_us) // hop_us * hop_us


def _sleep_until_us(moment_us: int) -> None:
    wait_us = moment_us - time_ns() // 1000
    if wait_us > 0:
        sleep(wait_us / 1e6)


class _Sender:
    """A producer that raises our errors."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._errors: list[Exception] = []
        # no lingering: records of different topics should reach the log in the order in which they are sent
        self._producer = kafka_clients.producer(
            settings, acks="all", linger_ms=0, max_request_size=settings.max_message_bytes + ESTIMATE_BYTES
        )

    def send(self, record: Recorded, shift_us: int) -> None:
        headers = [(name, value if value is not None else b"") for name, value in record.headers]
        ends = (CE_TYPE, END_TYPE.encode()) in headers
        if ends:
            self.flush()  # an end record must come after everything that it ends
        try:
            future = self._producer.send(
                self._settings.source_topics[record.row],
                key=record.key,
                value=b"" if record.key is None and record.value is None else record.value,
                headers=shifted(headers, shift_us),
                partition=record.partition,
            )
        except KafkaError as error:
            raise UsageError(f"Kafka at {self._settings.kafka} did not take a record: {error}") from None
        future.add_errback(self._errors.append)
        if ends:
            self.flush()  # and before the first record of a later session of this name

    def flush(self) -> None:
        try:
            self._producer.flush()
        except KafkaError as error:
            raise UsageError(f"Kafka at {self._settings.kafka} did not take the records in time: {error}") from None
        if self._errors:
            raise UsageError(
                f"Kafka at {self._settings.kafka} did not take {len(self._errors)} records: {self._errors[0]!r}"
            )

    def close(self) -> None:
        self._producer.close(timeout=5)


def shifted(headers: Headers, shift_us: int) -> Headers:
    """The headers with ``ce_time`` later by ``shift_us``; it stays if it is no time, or would leave the calendar."""
    return [(name, _shifted(value, shift_us) if name == CE_TIME else value) for name, value in headers]


def _shifted(value: bytes, shift_us: int) -> bytes:
    try:
        return rfc3339(time_us(value.decode()) + shift_us).encode() if shift_us else value
    except (BadRecord, UnicodeDecodeError, OverflowError):
        return value
