"""Pictures are chosen before they are decoded where that can be, JPEG is passed on as it is, damage is counted."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from typing import Any

import av
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from streamer.events import TimeSource
from streamer.feeds.capture.clock import Ascending, Stamp
from streamer.feeds.capture.pictures import Pictures, Slots
from streamer.feeds.producer import Outgoing
from streamer.feeds.replay.media.container import us
from tests import cameras

NOW_US = 1_767_225_600_000_000
HZ, COUNT = 25, 50
TABLES = b"\xff\xc4"


def film(codec: str, options: dict[str, str], form: str = "mpegts", pix_fmt: str = "yuv420p") -> bytes:
    """Two seconds of pictures that show their times."""
    out = BytesIO()
    with av.open(out, "w", format=form) as container:
        stream: Any = container.add_stream(codec, rate=HZ, options=options)
        stream.width, stream.height, stream.pix_fmt = cameras.WIDTH, cameras.HEIGHT, pix_fmt
        for number in range(COUNT):
            shown = cameras.shown(NOW_US + number * 1_000_000 // HZ)
            picture = av.VideoFrame.from_ndarray(shown, "rgb24").reformat(format=pix_fmt)
            picture.pts, picture.time_base = number, Fraction(1, HZ)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return out.getvalue()


class Seen:
    def __init__(self) -> None:
        self.sent: list[Outgoing] = []
        self.damaged = 0

    def count_damage(self) -> None:
        self.damaged += 1


def captured(
    content: bytes, rate_hz: float | None = None, form: str = "mpegts", spoil: Any = lambda packet: packet
) -> Seen:
    """What becomes of a film whose first picture was taken at ``NOW_US``."""
    seen = Seen()
    with av.open(BytesIO(content), format=form) as container:
        stream = container.streams.video[0]
        pictures = Pictures(stream, Slots(rate_hz), Ascending(), seen.sent.append, seen.count_damage)
        first_us = us(stream.start_time or 0, stream.time_base)
        for packet in packets(container):
            stamp = Stamp(NOW_US + us(packet.pts, packet.time_base) - first_us, TimeSource.RTCP)
            pictures.take(spoil(packet), stamp)
        pictures.end()
    return seen


def packets(container: Any) -> Iterator[Any]:
    return (packet for packet in container.demux(video=0) if packet.size)


def assert_times_are_shown(sent: list[Outgoing]) -> None:
    assert sent
    for outgoing in sent:
        assert abs(outgoing.time_us - cameras.read_us(outgoing.payload)) < 1500
        assert outgoing.time_source is TimeSource.RTCP


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx264", {"tune": "zerolatency"}),
        ("libx264", {"bf": "3"}),
        ("libx265", {"x265-params": "bframes=3:log-level=none"}),
        ("mpeg4", {}),
    ],
    ids=["P", "B", "HEVC", "MPEG-4"],
)
def test_each_picture_has_the_time_at_which_it_was_taken_whatever_the_order_of_decoding(
    codec: str, options: dict[str, str]
) -> None:
    content = film(codec, options)
    seen = captured(content)
    assert_times_are_shown(seen.sent)
    assert len(seen.sent) >= COUNT - 4, "the decoder keeps what may still be shown later"
    assert seen.damaged == 0


@pytest.mark.parametrize(("options", "most_decoded"), [({"tune": "zerolatency"}, COUNT), ({"bf": "3"}, 0.7 * COUNT)])
def test_a_rate_chooses_evenly_and_what_nothing_refers_to_is_not_decoded(
    options: dict[str, str], most_decoded: float
) -> None:
    content = film("libx264", options)
    decoded: list[Any] = []
    seen = captured(content, rate_hz=10)
    assert_times_are_shown(seen.sent)
    slots = [outgoing.time_us * 10 // 1_000_000 for outgoing in seen.sent]
    assert len(set(slots)) == len(slots)
    assert len(slots) >= 18

    class Counting:
        """A packet that counts the pictures that come out of the decoder."""

        opaque: Any = None

        def __init__(self, packet: Any) -> None:
            self._packet = packet

        def decode(self) -> list[Any]:
            self._packet.opaque = self.opaque
            found: list[Any] = self._packet.decode()
            decoded.extend(found)
            return found

    captured(content, rate_hz=10, spoil=Counting)
    assert len(decoded) <= most_decoded


def test_pictures_of_a_jpeg_camera_are_passed_on_as_they_are() -> None:
    content = film("mjpeg", {"huffman": "default"}, form="avi", pix_fmt="yuvj420p")
    with av.open(BytesIO(content)) as container:
        sent = [bytes(packet) for packet in packets(container)]
    seen = captured(content, form="avi")
    assert [outgoing.payload for outgoing in seen.sent] == sent
    assert_times_are_shown(seen.sent)
    assert len(captured(content, rate_hz=10, form="avi").sent) in (20, 21)


def test_a_webcams_jpeg_gets_the_tables_that_it_leaves_out() -> None:
    content = film("mjpeg", {"huffman": "default"}, form="avi", pix_fmt="yuvj420p")

    def without_tables(packet: Any) -> Any:
        raw = bytes(packet)
        while (at := raw.find(TABLES)) >= 0:
            raw = raw[:at] + raw[at + 2 + int.from_bytes(raw[at + 2 : at + 4], "big") :]
        found = av.Packet(raw)
        found.pts, found.dts, found.time_base, found.stream = packet.pts, packet.dts, packet.time_base, packet.stream
        return found

    seen = captured(content, form="avi", spoil=without_tables)
    assert all(TABLES in outgoing.payload for outgoing in seen.sent)
    assert_times_are_shown(seen.sent)


def test_a_broken_jpeg_is_counted_and_not_sent() -> None:
    content = film("mjpeg", {"huffman": "default"}, form="avi", pix_fmt="yuvj420p")
    broken = iter([True] + [False] * COUNT)

    def spoilt(packet: Any) -> Any:
        if not next(broken):
            return packet
        found = av.Packet(b"no picture")
        found.pts, found.time_base, found.stream = packet.pts, packet.time_base, packet.stream
        return found

    seen = captured(content, form="avi", spoil=spoilt)
    assert (seen.damaged, len(seen.sent)) == (1, COUNT - 1)


def test_a_picture_that_cannot_be_decoded_is_counted_and_the_others_are_sent() -> None:
    content = film("libx264", {"tune": "zerolatency", "g": "10"})
    number = [0]

    def broken(packet: Any) -> Any:
        number[0] += 1
        if number[0] != 21:  # a key frame, so that no other suffers
            return packet
        found = av.Packet(b"\0\0\0\1\x65" + b"\xff" * 40)
        found.pts, found.dts, found.time_base, found.stream = packet.pts, packet.dts, packet.time_base, packet.stream
        return found

    seen = captured(content, spoil=broken)
    assert 1 <= seen.damaged <= 10, "until the next key frame"
    assert len(seen.sent) + seen.damaged == COUNT


@given(st.lists(st.integers(0, 5_000_000), max_size=200), st.floats(0.5, 60))
def test_there_is_at_most_one_picture_in_each_slot(times_us: list[int], rate_hz: float) -> None:
    slots = Slots(rate_hz)
    kept = [time_us for time_us in times_us if slots.keeps(time_us)]
    numbers = [int(time_us * rate_hz / 1_000_000) for time_us in kept]
    assert len(set(numbers)) == len(numbers)


def test_without_a_rate_all_are_kept() -> None:
    slots = Slots(None)
    assert all(slots.keeps(0) for _ in range(3))


def test_what_a_picture_shows_can_be_read() -> None:
    assert cameras.read_us(simplejpeg.encode_jpeg(cameras.shown(NOW_US + 123_000))) == NOW_US + 123_000
