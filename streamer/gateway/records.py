"""Events that were sent become records of the source topics, or a :class:`Problem` that says what is wrong.

They are held to all that a worker would refuse, by its own decoder: what is acknowledged here is no dead letter there,
unless its picture or sound cannot be opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from random import getrandbits
from time import time_ns
from urllib.parse import quote

import msgspec

from streamer.align.decode import Decoder, home_partition
from streamer.errors import BadRecord, Reason
from streamer.events import (
    END_TYPE,
    KINDS,
    TELEMETRY,
    EventType,
    Record,
    TimeSource,
    rfc3339,
)
from streamer.gateway.cloudevents import JSON, MAX_ATTRIBUTES_BYTES, Given
from streamer.gateway.problems import Problem, refused
from streamer.gateway.tokens import Token
from streamer.observe import tracing
from streamer.settings import Settings

NO_SENSOR = "none"  # label of what cannot be told a sensor's
SESSION, CONTENT_TYPE = "partitionkey", "datacontenttype"
MAX_TIME_SOURCE = 40  # characters
TRACE_STATE = "tracestate"
REQUIRED = ("id", "source", "type", "specversion")

_ROWS = {kind.ce_type: row for row, kind in enumerate(KINDS)} | {END_TYPE: TELEMETRY}
_WORD = re.compile(rf"[a-z0-9]{{1,{MAX_TIME_SOURCE}}}")


class Named(msgspec.Struct, frozen=True):
    """What an answer and the metrics say of a record.

    Attributes:
        sensor: Its name, for metrics.
    """

    id: str
    topic: str
    sensor: str
    payload_bytes: int


class Ready(msgspec.Struct, frozen=True):
    """A record that can be sent."""

    named: Named
    partition: int
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Records:
    """Makes records of events.

    Args:
        settings: Which sensors there are, and all limits.
        partitions: Of every source topic.
        now_us: The gateway's clock, microseconds since the epoch.
    """

    def __init__(
        self, settings: Settings, partitions: int, now_us: Callable[[], int] = lambda: time_ns() // 1000
    ) -> None:
        self._now_us = now_us
        self._topics = settings.source_topics
        self._sensors = settings.sensor_set
        self._decoder = Decoder(settings, partitions=1)  # where a record goes is chosen here
        # of events without a time, which then begin at the record's and may end as long after it as they last
        longest = max(settings.max_ahead_ms, settings.max_event_ms)
        self._arrivals = Decoder(settings.model_copy(update={"max_ahead_ms": longest}), partitions=1)
        self._max_bytes = settings.max_message_bytes
        self._offsets_us = [round(settings.sensors[name].offset_ms * 1000) for name in self._sensors.names]
        self._home: Callable[[bytes], int] = lru_cache(maxsize=65_536)(lambda key: home_partition(key, partitions))

    def raw(self, session: str, sensor: str, attributes: dict[str, str], payload: bytes) -> Given:
        """The event of a body without a CloudEvent around it; attributes that are given count.

        Raises:
            Problem: No such sensor is declared.
        """
        number = self._sensors.numbers.get(sensor)
        if number is None:
            known = ", ".join(self._sensors.names)
            raise Problem(
                404,
                f"sensor {sensor[:80]!r} is not declared; there are {known}",
                reason=str(Reason.UNKNOWN_SENSOR),
                sensors=self._sensors.names,
            )
        made = {
            "specversion": "1.0",
            "id": f"{getrandbits(128):032x}",  # unlike any other; nobody need fail to guess it
            "source": _source(session, sensor),
            "type": KINDS[self._sensors.rows[number]].ce_type,
            **attributes,
            "sensor": sensor,
            SESSION: session,
        }
        return Given(made, payload)

    def ready(self, given: Given, token: Token, trace: tuple[tuple[str, bytes], ...] = ()) -> Ready:
        """The record of an event.

        Args:
            token: Whose it is: the event must be of one of its sessions.
            trace: Headers of the trace that the request belongs to; those among the event's attributes come first.

        Raises:
            Problem: A worker would refuse it, it is of another session, or not all is there that makes a CloudEvent.
        """
        attributes = dict(given.attributes)
        key = self._session(attributes.pop(SESSION, None), token).encode()
        if not all(map(attributes.get, REQUIRED)):
            missing = next(name for name in REQUIRED if not attributes.get(name))
            raise Problem(400, f"attribute {missing!r} is missing or empty", reason=str(Reason.BAD_HEADER))
        ce_type = attributes["type"]
        row = _ROWS.get(ce_type)
        if row is None:
            known = ", ".join(_ROWS)
            raise Problem(422, f"type {ce_type[:80]!r} is none of {known}", reason=str(Reason.UNKNOWN_TYPE))
        now_us = self._now_us()
        is_timed = "time" in attributes
        attributes.setdefault("timesource", TimeSource.DEVICE if is_timed else TimeSource.ARRIVAL)
        if not _WORD.fullmatch(attributes["timesource"]):
            raise Problem(400, "timesource is no word of small letters", reason=str(Reason.BAD_HEADER))
        own_trace = trace_of(attributes.pop(tracing.HEADER, None), attributes.pop(TRACE_STATE, None))
        media_type = attributes.pop(CONTENT_TYPE, JSON if ce_type == END_TYPE else None)
        headers = [(f"ce_{name}", text.encode()) for name, text in attributes.items()]
        if media_type is not None:
            headers.append(("content-type", media_type.encode("utf-8", "replace")))
        record = Record(row, 0, 0, now_us, key, given.payload, tuple(headers))
        try:
            event = (self._decoder if is_timed else self._arrivals).decode(record)
        except BadRecord as error:
            problem = refused(error)
            if error.reason is Reason.UNKNOWN_SENSOR:
                problem.members["sensors"] = self._sensors.names
            problem.members["sensor"] = self._decoder.label(record)
            raise problem from None
        is_data = event.type is EventType.DATA
        sensor = self._sensors.names[event.sensor] if is_data else NO_SENSOR
        if not is_timed:  # it ends as it arrives; what its sensor's clock is off by is added by the workers
            lasts_us = event.end_us - now_us - self._offsets_us[event.sensor] if is_data else 0
            headers.append(("ce_time", rfc3339(now_us - lasts_us).encode()))
        headers += own_trace or trace
        # rarely near: only then it is counted
        if (
            event.nbytes + MAX_ATTRIBUTES_BYTES > self._max_bytes
            and (size := _size(key, given.payload, headers)) > self._max_bytes
        ):
            raise Problem(
                413, f"the record has {size} bytes, the limit is {self._max_bytes}", reason=str(Reason.TOO_LARGE)
            )
        named = Named(attributes["id"], self._topics[row], sensor, len(given.payload))
        return Ready(named, self._home(key), key, given.payload, headers)

    def _session(self, wanted: str | None, token: Token) -> str:
        if not wanted:
            if len(token.sessions) > 1:
                raise Problem(400, "attribute 'partitionkey' is missing: it names the session", sessions=token.sessions)
            return token.sessions[0]
        if wanted not in token.sessions:
            raise Problem(403, f"this token is not for session {wanted[:128]!r}", sessions=token.sessions)
        return wanted


def _size(key: bytes, payload: bytes, headers: list[tuple[str, bytes]]) -> int:
    """Bytes of a record: at most ``Event.nbytes``, and the headers of its trace."""
    return len(payload) + len(key) + sum(len(name) + len(value) for name, value in headers)


def trace_of(traceparent: str | None, tracestate: str | None) -> tuple[tuple[str, bytes], ...]:
    """Headers of a record for the trace context of a request; none if it is malformed, as W3C asks."""
    if traceparent is None:
        return ()
    parent = traceparent.encode("utf-8", "replace")
    if not tracing.TRACEPARENT.fullmatch(parent):
        return ()
    state = (tracestate or "").encode("utf-8", "replace")
    return ((tracing.HEADER, parent), (TRACE_STATE, state)) if state else ((tracing.HEADER, parent),)


@lru_cache(maxsize=4096)
def _source(session: str, sensor: str) -> str:
    return f"/sessions/{quote(session, safe='')}/{sensor}"
