"""What a replay would send, a JSON object a record: for ``streamer replay --dry-run``."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from streamer.align.decode import Decoder
from streamer.events import EventType, Record, Telemetry, Transcript
from streamer.feeds.producer import headers
from streamer.feeds.replay.part import S_US
from streamer.feeds.replay.session import Recording
from streamer.settings import Settings

START_US = 1_000_000 * S_US  # any time since the epoch: event times must not be negative


class Line(msgspec.Struct, omit_defaults=True):
    """One record, without its payload.

    Attributes:
        time_s: Start of the event in seconds from the start of the session.
        end_s: Its end; that of a picture is its start.
        due_s: When it would be sent.
        sensor: Or ``end``, for the record that ends the session.
        size_bytes: Of the payload.
        words: Each with start and end in seconds from the start of the session.
        channels: Name of a telemetry channel -> its unit.
    """

    time_s: float
    end_s: float
    due_s: float
    sensor: str
    type: str = ""
    size_bytes: int = 0
    text: str = ""
    words: list[tuple[str, float, float]] = []
    channels: dict[str, str] = {}


def lines(settings: Settings, recording: Recording) -> Iterator[bytes]:
    """A JSON object for each record, in the order in which they would be sent.

    Raises:
        BadRecord: A worker would refuse the record.
        UsageError: A file turns out to be broken or empty.
    """
    decoder = Decoder(settings, partitions=1)
    for outgoing in recording.outgoing("session", START_US):
        event = decoder.decode(
            Record(outgoing.row, 0, 0, outgoing.due_us, b"session", outgoing.payload, tuple(headers(outgoing)))
        )
        line = Line(_s(event.start_us), _s(event.end_us), _s(outgoing.due_us), "end")
        if event.type is EventType.DATA:
            line.sensor = settings.sensor_set.names[event.sensor]
            line.type = outgoing.content_type
            line.size_bytes = len(outgoing.payload)
        if isinstance(event.body, Transcript):
            line.text = event.body.text
            line.words = [
                (word.text, _s(outgoing.time_us, word.start), _s(outgoing.time_us, word.end))
                for word in event.body.words
            ]
        elif isinstance(event.body, Telemetry):
            line.channels = {name: channel.unit for name, channel in event.body.channels.items()}
        yield msgspec.json.encode(line)


def _s(time_us: int, seconds: float = 0.0) -> float:
    return round((time_us - START_US) / S_US + seconds, 6)
