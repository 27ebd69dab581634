"""Stage 1: a Kafka record's bytes and headers become an event, or a reason why they cannot.

CloudEvents 1.0, Kafka protocol binding, binary mode: metadata are headers, the value is the untouched payload. What of
it must be read to know its time, its kind reads (``streamer.kinds``).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache

from kafka.partitioner.default import murmur2

from streamer.align import advice
from streamer.clients.batches import FAULT
from streamer.errors import BadRecord, Reason
from streamer.events import (
    DATA,
    END,
    END_TYPE,
    EPOCH,
    KIND_NAMES,
    KINDS,
    MAX_SESSION_BYTES,
    TICK,
    TICK_TYPE,
    Event,
    EventType,
    Record,
)
from streamer.settings import Settings

DAY_S = 86_400
MAX_CONTENT_TYPE = 200  # characters; parsed ones are kept
EARLIEST_US = 0  # 1970
LATEST_US = 7_258_118_400_000_000  # 2200: later stamps are mistakes, and sums with them stay far from int64's end
# Section 5.6. Hours and minutes are bounded here: datetime takes an offset of 99 minutes, and newer ones an hour 24.
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d"
RFC_3339 = re.compile(rf"\d{{4}}-\d\d-\d\d[T ]{_TIME}:[0-5]\d(?:\.\d+)?(?:Z|[+-]{_TIME})", re.ASCII)
REQUIRED = ("ce_specversion", "ce_id", "ce_source")  # and ce_type
SEGMENT_END = re.compile(r"[/?#;]")


class Decoder:
    """Decodes the records of all source topics.

    Args:
        settings: Limits on size, length and clock.
        partitions: Of every source topic; a record must be where the Java client's partitioner puts its key.
        any_sensor: Take records of sensors that are not declared too: for producers, whose settings need not name them.
            The events' ``sensor`` then has no meaning.
    """

    def __init__(self, settings: Settings, partitions: int, *, any_sensor: bool = False) -> None:
        self._any_sensor = any_sensor
        self._max_bytes = settings.max_message_bytes
        self._max_event_us = settings.max_event_ms * 1000
        self._max_ahead_us = settings.max_ahead_ms * 1000
        self._dataref_prefixes = settings.dataref_prefixes
        self._sensors = settings.sensor_set
        # By kind: what the header says, None if there is none -> number.
        self._numbers: list[dict[str | None, int]] = [
            {self._sensors.names[number]: number for number in self._sensors.of_kind(row)} for row in range(len(KINDS))
        ]
        for row, numbers in enumerate(self._numbers):
            if (unnamed := self._sensors.unnamed(row)) is not None:
                numbers[None] = unnamed
        self._offsets_us = [round(settings.sensors[name].offset_ms * 1000) for name in self._sensors.names]
        # Every record carries its session's key, and murmur2 is pure Python.
        self._place: Callable[[bytes], tuple[str, int]] = lru_cache(maxsize=65_536)(
            lambda key: (key.decode(), home_partition(key, partitions))
        )

    def decode(self, record: Record) -> Event:
        """The event of a record.

        Raises:
            BadRecord: It can never be processed; the only error that any bytes can cause.
        """
        headers = _headers(record)
        if FAULT in headers:
            raise BadRecord(Reason.UNREADABLE_BATCH, headers[FAULT])
        event_type = self._type(record, headers)
        session = "" if event_type is TICK and record.key is None else self._session(record)
        if event_type is not DATA:
            return Event(record, session, event_type, record.log_time_us, record.log_time_us)
        if len(record.value) > self._max_bytes:
            raise BadRecord(Reason.TOO_LARGE, f"{len(record.value)} bytes, the limit is {self._max_bytes}")
        sensor = self._numbers[record.row].get(headers.get("ce_sensor"))
        if sensor is None:
            if not self._any_sensor or headers.get("ce_sensor") in self._sensors.numbers:
                raise BadRecord(Reason.UNKNOWN_SENSOR, self._unknown_sensor(record.row, headers.get("ce_sensor")))
            sensor = 0
        media_type, params = self._content_type(record.row, headers)
        dataref = self._dataref(record, headers)
        start_us = time_us(headers["ce_time"]) if "ce_time" in headers else record.log_time_us
        duration_us = _whole(headers, "ce_durationus")
        if words := advice.serialized(record.value):
            raise BadRecord(Reason.BAD_PAYLOAD, words)
        payload = record.value if dataref is None else None
        body, shift_us, duration_us = KINDS[record.row].read(payload, media_type, params, duration_us)
        if duration_us is None:
            raise BadRecord(Reason.BAD_HEADER, f"ce_durationus is needed for {media_type}")
        start_us += shift_us + self._offsets_us[sensor]
        end_us = start_us + duration_us
        self._check_time(record, start_us, end_us)
        return Event(
            record,
            session,
            event_type,
            start_us,
            end_us,
            media_type,
            params,
            body,
            dataref,
            _whole(headers, "ce_sequence"),
            (headers["ce_source"], headers["ce_id"]),
            sensor=sensor,
        )

    def label(self, record: Record) -> str:
        """Whose a record is that was refused: the name of its sensor, or where it names none, of its kind."""
        given = next((value for name, value in record.headers if name == "ce_sensor"), None)
        named = None if given is None else given.decode(errors="replace")
        number = self._numbers[record.row].get(named)
        return KIND_NAMES[record.row] if number is None else self._sensors.names[number]

    def _unknown_sensor(self, row: int, given: str | None) -> str:
        kind = KIND_NAMES[row]
        known = ", ".join(self._sensors.names[number] for number in self._sensors.of_kind(row))
        if given is None:
            if not known:
                return f'no sensor of kind {kind} is declared: add [sensors.NAME] with kind = "{kind}" to the settings'
            return f"ce_sensor is missing, and there are several sensors of kind {kind}: {known}"
        number = self._sensors.numbers.get(given)
        if number is not None:
            return (
                f"ce_sensor {given!r} is of kind {KIND_NAMES[self._sensors.rows[number]]}, and this topic is of {kind}"
            )
        return (
            f"ce_sensor {given[:80]!r} is not declared; of kind {kind} are {known or 'none'}: add [sensors.NAME] to "
            f"the settings{advice.quoted(given)}"
        )

    def _session(self, record: Record) -> str:
        key = record.key
        if not key:
            raise BadRecord(Reason.NO_KEY, "the record key is the session's name and must not be empty")
        if len(key) > MAX_SESSION_BYTES:
            raise BadRecord(Reason.BAD_KEY, f"the key has {len(key)} bytes, the limit is {MAX_SESSION_BYTES}")
        try:
            session, home = self._place(key)
        except UnicodeDecodeError:
            raise BadRecord(Reason.BAD_KEY, "the key is not UTF-8") from None
        if home != record.partition:
            raise BadRecord(
                Reason.WRONG_PARTITION,
                f"the key belongs to partition {home}, the record is in {record.partition}: set the producer's "
                f"partitioner to murmur2 (docs/clients.md)",
            )
        return session

    def _type(self, record: Record, headers: dict[str, str]) -> EventType:
        ce_type = headers.get("ce_type")
        if ce_type is None:
            raise BadRecord(Reason.UNKNOWN_TYPE, advice.missing("ce_type", headers))
        if not (headers.get("ce_specversion") and headers.get("ce_id") and headers.get("ce_source")):
            missing = next(name for name in REQUIRED if not headers.get(name))
            raise BadRecord(Reason.BAD_HEADER, advice.missing(missing, headers))
        version = headers["ce_specversion"]
        if version != "1.0":
            raise BadRecord(Reason.BAD_HEADER, f"ce_specversion {version[:80]!r} is not 1.0{advice.quoted(version)}")
        if ce_type == KINDS[record.row].ce_type:
            return DATA
        if ce_type == END_TYPE:
            return END
        if ce_type == TICK_TYPE:
            return TICK
        raise BadRecord(
            Reason.UNKNOWN_TYPE, f"ce_type {ce_type[:80]!r} does not belong on this topic{advice.quoted(ce_type)}"
        )

    def _content_type(self, row: int, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
        given = headers.get("content-type")
        if given is None:
            raise BadRecord(Reason.BAD_CONTENT_TYPE, advice.missing("content-type", headers))
        if len(given) > MAX_CONTENT_TYPE:
            raise BadRecord(Reason.BAD_CONTENT_TYPE, f"content-type of {len(given)} characters")
        media_type, params = _parse_content_type(given)
        if media_type not in KINDS[row].content_types:
            known = ", ".join(KINDS[row].content_types)
            raise BadRecord(
                Reason.BAD_CONTENT_TYPE, f"content-type {given[:80]!r} is none of {known}{advice.quoted(given)}"
            )
        return media_type, params

    def _dataref(self, record: Record, headers: dict[str, str]) -> str | None:
        url = headers.get("ce_dataref")
        if url is None:
            if not record.value:
                raise BadRecord(Reason.BAD_PAYLOAD, "the payload is empty")
            return None
        if record.value:
            raise BadRecord(Reason.BAD_HEADER, "a record with ce_dataref must have an empty value")
        if not _is_plain(url) or not any(_is_under(prefix, url) for prefix in self._dataref_prefixes):
            raise BadRecord(Reason.DATAREF_REFUSED, f"ce_dataref {url[:200]!r} is under no allowed prefix")
        return url

    def _check_time(self, record: Record, start_us: int, end_us: int) -> None:
        if not EARLIEST_US <= start_us <= end_us <= LATEST_US:
            raise BadRecord(Reason.BAD_HEADER, f"the event's time [{start_us}, {end_us}) µs is out of range")
        if end_us - start_us > self._max_event_us:
            raise BadRecord(
                Reason.TOO_LONG, f"the event lasts {end_us - start_us} µs, the limit is {self._max_event_us}"
            )
        if end_us - record.log_time_us > self._max_ahead_us:
            raise BadRecord(
                Reason.CLOCK_AHEAD,
                f"the event ends {end_us - record.log_time_us} µs after its log time, the limit is "
                f"{self._max_ahead_us}: check the device's clock",
            )


def home_partition(key: bytes, partitions: int) -> int:
    """Where the default partitioner of Java's and kafka-python's clients puts a key."""
    home: int = (murmur2(key) & 0x7FFFFFFF) % partitions
    return home


def _headers(record: Record) -> dict[str, str]:
    try:
        headers = {name: value.decode() for name, value in record.headers}
    except (UnicodeDecodeError, AttributeError):
        return _own_headers(record)
    return headers if len(headers) == len(record.headers) else _own_headers(record)


def _own_headers(record: Record) -> dict[str, str]:
    """The headers that concern us, when some header is broken: it may be a foreign one."""
    headers: dict[str, str] = {}
    for name, value in record.headers:
        if not name.startswith("ce_") and name != "content-type":
            continue
        if name in headers:
            raise BadRecord(Reason.BAD_HEADER, f"header {name[:80]!r} comes twice")
        if value is None:  # a Kafka header may have no value at all
            raise BadRecord(Reason.BAD_HEADER, f"header {name[:80]!r} is null: leave out what is not set")
        try:
            headers[name] = value.decode()
        except UnicodeDecodeError:
            raise BadRecord(Reason.BAD_HEADER, f"header {name[:80]!r} is not UTF-8 text") from None
    return headers


def _is_plain(url: str) -> bool:
    """Whether no other reader of URLs could understand it as a way out of its prefix.

    fsspec chains protocols at ``::``; HTTP clients resolve ``..``, which ends at a query, a fragment or a parameter as
    well as at a slash, decode ``%2e`` and drop tabs and line ends.
    """
    printable = url.isascii() and url.isprintable() and " " not in url
    return printable and "::" not in url and ".." not in SEGMENT_END.split(url) and not {"%", "\\"} & set(url)


def _is_under(prefix: str, url: str) -> bool:
    """Whole path segments: ``s3://clips`` allows ``s3://clips/a``, but not ``s3://clips-of-others/a``."""
    return prefix != "" and url.startswith(prefix if prefix.endswith("/") else prefix + "/")


def _whole(headers: dict[str, str], name: str) -> int | None:
    text = headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise BadRecord(Reason.BAD_HEADER, f"{name} {text[:80]!r} is not a whole number{advice.quoted(text)}")
    return int(text)


def time_us(text: str) -> int:
    """RFC 3339 to microseconds since the epoch; finer digits are cut off.

    Raises:
        BadRecord: There is no such time, or it is a leap second (:60).
    """
    upper = text.upper()  # "t" and "z" are allowed
    if RFC_3339.fullmatch(upper):
        try:
            since = datetime.fromisoformat(upper) - EPOCH
            return (since.days * DAY_S + since.seconds) * 1_000_000 + since.microseconds  # twice as fast as to divide
        except (ValueError, OverflowError):
            pass  # the 30th of February
    raise BadRecord(
        Reason.BAD_HEADER, f"ce_time {text[:80]!r} is not an RFC 3339 time with an offset{advice.quoted(text)}"
    )


@lru_cache(maxsize=1024)
def _parse_content_type(text: str) -> tuple[str, dict[str, str]]:
    media_type, *rest = text.split(";")
    params: dict[str, str] = {}
    for part in rest:
        name, _, value = part.partition("=")
        params[name.strip().lower()] = value.strip().strip('"')
    return media_type.strip().lower(), params
