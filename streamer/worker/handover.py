"""The windows topic: a window on its way from role align to role infer, as a Kafka record.

    key       the session; the partition is that of the source records
    headers   a CloudEvent in binary mode, ``ce_type`` streamer.window.v1, ``ce_id`` the window's id
    value     a MessagePack map (https://github.com/msgpack/msgpack/blob/master/spec.md), see :class:`WindowRecord`;
              ``schemas/window.json`` describes it

Fields may be added under the same type: readers ignore unknown ones. A changed meaning makes it ``streamer.window.v2``.

Payloads that the model does not open stay behind: surplus frames, or all sound for a model without audio. Such a member
is sent as a reference: offset and times, no payload. If the others are too large for one record, *all* payloads stay
behind. Role infer fetches what it needs from the source topics (``refetch``): a claim check whose store is the log
itself. So a broken frame is replaced by its neighbour as in role all, and a model that asks for more than role align
knew still gets it.

A record whose window is closed by ``open`` is an early run: role infer runs it if the window's own record has not come,
and nothing depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streamer.clients.batches import unreadable
from streamer.errors import BadRecord, Reason
from streamer.events import (
    DEFAULT_SENSORS,
    KIND_NAMES,
    WINDOW_TYPE,
    ClosedBy,
    Event,
    EventType,
    Position,
    Record,
    Sensor,
    Sensors,
    Window,
)

CONTENT_TYPE = b"application/msgpack"
MARGIN_BYTES = 60 << 10  # beyond the largest payload; the topic takes it, with key and headers

Headers = tuple[tuple[str, bytes], ...]


class Member(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record of the window; its sensor and partition follow from its place.

    Attributes:
        headers, value: Of the source record; ``None`` if left behind.
    """

    offset: int
    log_time_us: int
    start_us: int
    end_us: int
    media_type: str = ""
    params: dict[str, str] = {}
    dataref: str | None = None
    sequence: int | None = None
    headers: tuple[tuple[str, bytes | None], ...] | None = None
    value: bytes | None = None


class WindowRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """What role infer must know of a window.

    Attributes:
        start_us, end_us, closed_by, closed_at, heard_us: See :class:`streamer.events.Window`.
        closed_us: When it closed, by role align's clock; for the latencies.
        due_us: See :class:`streamer.events.Window`.
        fingerprint, trim_below_us, lost_until_us: See :class:`streamer.store.publish.Publication`.
        sensors: Sensor -> its kind, in the order of ``heard_us``; empty for the default ones.
        members: Sensor -> its records in the order of the window.
    """

    start_us: int
    end_us: int
    closed_by: ClosedBy
    closed_at: Position
    closed_us: int
    heard_us: tuple[int, ...]
    fingerprint: str
    trim_below_us: int = 0
    lost_until_us: int = 0
    due_us: int = 0
    sensors: dict[str, str] = {}
    members: dict[str, tuple[Member, ...]] = {}


def headers(window: Window) -> Headers:
    """The headers of a window's record."""
    return (
        ("ce_specversion", b"1.0"),
        ("ce_id", window.id.encode()),
        ("ce_source", b"/streamer/align"),
        ("ce_type", WINDOW_TYPE.encode()),
        ("content-type", CONTENT_TYPE),
    )


def encode(
    window: Window,
    travels: Sequence[Sequence[bool]],
    *,
    closed_us: int,
    fingerprint: str,
    trim_below_us: int,
    lost_until_us: int,
) -> bytes:
    """The value of a window's record.

    Args:
        travels: For each sensor and member whether its payload is sent along.
    """
    sensors = window.sensors
    record = WindowRecord(
        start_us=window.start_us,
        end_us=window.end_us,
        closed_by=window.closed_by,
        closed_at=window.closed_at,
        closed_us=closed_us,
        heard_us=window.heard_us,
        fingerprint=fingerprint,
        trim_below_us=trim_below_us,
        lost_until_us=lost_until_us,
        due_us=window.due_us,
        sensors={} if sensors == DEFAULT_SENSORS else {sensor.name: KIND_NAMES[sensor.row] for sensor in sensors.all},
        members={
            name: tuple(map(_member, events, flags))
            for name, events, flags in zip(sensors.names, window.events, travels, strict=True)
            if events
        },
    )
    return msgspec.msgpack.encode(record)


def _member(event: Event, travels: bool) -> Member:
    record = event.record
    travels = travels and not event.left_behind
    return Member(
        offset=record.offset,
        log_time_us=record.log_time_us,
        start_us=event.start_us,
        end_us=event.end_us,
        media_type=event.media_type,
        params=event.params,
        dataref=event.dataref,
        sequence=event.sequence,
        headers=record.headers if travels else None,
        value=record.value if travels else None,
    )


_decoder = msgspec.msgpack.Decoder(WindowRecord)


def decode(record: Record) -> tuple[Window, WindowRecord]:
    """The window of a record of the windows topic, and what came with it.

    JSON payloads are parsed later, in the threads that open payloads.

    Raises:
        BadRecord: It is not a window's record.
    """
    if (fault := unreadable(record.headers)) is not None:
        raise BadRecord(Reason.UNREADABLE_BATCH, fault)
    if not record.key:
        raise BadRecord(Reason.NO_KEY, "a window's record has its session as key")
    kind = dict(record.headers).get("ce_type")
    if kind != WINDOW_TYPE.encode():
        raise BadRecord(Reason.UNKNOWN_TYPE, f"ce_type {kind!r} is not {WINDOW_TYPE}")
    try:
        session = record.key.decode()
        found = _decoder.decode(record.value)
    except UnicodeDecodeError:
        raise BadRecord(Reason.BAD_KEY, "the key is not UTF-8") from None
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise BadRecord(Reason.BAD_PAYLOAD, f"no window: {error}") from None
    sensors = _sensors(found.sensors)
    if unknown := found.members.keys() - set(sensors.names):
        raise BadRecord(Reason.BAD_PAYLOAD, f"members of unknown sensors {sorted(unknown)}")
    if len(found.heard_us) != len(sensors.all):
        raise BadRecord(Reason.BAD_PAYLOAD, "heard_us needs an entry for each sensor")
    events = tuple(
        tuple(_event(member, sensor.row, number, session, record) for member in found.members.get(sensor.name, ()))
        for number, sensor in enumerate(sensors.all)
    )
    window = Window(
        session=session,
        partition=record.partition,
        start_us=found.start_us,
        end_us=found.end_us,
        closed_by=found.closed_by,
        closed_at=found.closed_at,
        events=events,
        heard_us=found.heard_us,
        sensors=sensors,
        due_us=found.due_us,
    )
    return window, msgspec.structs.replace(found, members={})


def _sensors(kinds: dict[str, str]) -> Sensors:
    if not kinds:
        return DEFAULT_SENSORS
    if unknown := set(kinds.values()) - set(KIND_NAMES):
        raise BadRecord(Reason.BAD_PAYLOAD, f"sensors of unknown kinds {sorted(unknown)}")
    return Sensors.of(Sensor(name, KIND_NAMES.index(kind)) for name, kind in kinds.items())


def _event(member: Member, row: int, sensor: int, session: str, carrier: Record) -> Event:
    source = Record(
        row=row,
        partition=carrier.partition,
        offset=member.offset,
        log_time_us=member.log_time_us,
        key=carrier.key,
        value=member.value or b"",
        headers=member.headers or (),  # type: ignore[arg-type]  # Kafka's headers may lack a value, see Record.nbytes
    )
    return Event(
        record=source,
        session=session,
        type=EventType.DATA,
        start_us=member.start_us,
        end_us=member.end_us,
        media_type=member.media_type,
        params=member.params,
        dataref=member.dataref,
        sequence=member.sequence,
        left_behind=member.value is None,
        sensor=sensor,
    )
