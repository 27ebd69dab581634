"""What each kind of source gives ``streamer capture``, read by FFmpeg from real sockets; no Kafka is needed."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from streamer.errors import UsageError
from streamer.events import AUDIO, IMAGE, TimeSource
from streamer.feeds.capture import address
from streamer.feeds.capture.camera import Camera
from streamer.feeds.capture.metrics import CaptureMetrics
from streamer.feeds.capture.process import Feed
from streamer.feeds.producer import Outgoing
from streamer.local.process import free_port
from streamer.settings import Settings
from tests import cameras
from tests.harness import ROOT, wait_for

pytestmark = pytest.mark.integration

WITHIN_S = 20.0
PUSH_S = 1.6  # FFmpeg looks for streams in the first second of RTMP


class Box:
    """Takes what an outbox would."""

    def __init__(self) -> None:
        self.taken: list[tuple[Outgoing, float]] = []

    def put(self, outgoing: Outgoing, _: str) -> None:
        self.taken.append((outgoing, time.time()))

    def damaged(self, sensor: str) -> None:
        raise AssertionError(f"{sensor} is damaged")

    def of(self, row: int, told_by: TimeSource | None = None) -> list[Outgoing]:
        return [one for one, _ in self.taken if one.row == row and told_by in (None, one.time_source)]

    def off_ms(self, told_by: TimeSource) -> list[float]:
        return [(one.time_us - cameras.read_us(one.payload)) / 1000 for one in self.of(IMAGE, told_by)]


@contextmanager
def capturing(text: str, rate_hz: float | None = None, most_off_us: int = 2_000_000) -> Iterator[Box]:
    source = address.parse(1, text)
    (sensors,) = address.sensors([source], [text], [], Settings().sensor_set)
    box, stop, failed = Box(), threading.Event(), list[BaseException]()
    camera = Camera(
        source,
        sensors,
        Feed("car", box, rate_hz).taker,  # type: ignore[arg-type]
        CaptureMetrics(CollectorRegistry()),
        most_off_us,
        silence_s=2.0,
    )

    def run() -> None:
        try:
            camera.run(stop)
        except BaseException as error:  # noqa: BLE001 - the test shall see it
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield box
    finally:
        stop.set()
    assert failed == []


def ascends(box: Box) -> bool:
    times = [one.time_us for one in box.of(IMAGE)]
    return times == sorted(set(times))


@pytest.mark.parametrize("transport", ["", "udp+"], ids=["TCP", "UDP"])
def test_before_the_first_report_time_is_that_of_arrival_and_does_not_go_back_when_it_comes(transport: str) -> None:
    with (
        cameras.Rtsp(sound=True, report_after_s=0.6, delay_s=0.15) as camera,
        capturing(transport + camera.url) as box,
    ):
        wait_for(lambda: len(box.of(IMAGE, TimeSource.RTCP)) >= 10, WITHIN_S)
        wait_for(lambda: len(box.of(AUDIO, TimeSource.RTCP)) >= 3, WITHIN_S)
    before, after = box.off_ms(TimeSource.ARRIVAL), box.off_ms(TimeSource.RTCP)
    assert len(before) >= 5
    assert min(before) >= 0, "never before it was taken"
    assert max(map(abs, after)) <= 20
    assert ascends(box)
    ends = [(one.time_us, one.due_us) for one in box.of(AUDIO)]
    assert all(later[0] >= earlier[1] for earlier, later in pairwise(ends)), "sound never overlaps"


def test_a_camera_whose_clock_was_never_set_is_dated_by_arrival() -> None:
    with cameras.Rtsp(off_s=-1e6) as camera, capturing(camera.url) as box:
        wait_for(lambda: len(box.of(IMAGE)) >= 10, WITHIN_S)
    assert box.of(IMAGE, TimeSource.RTCP) == []
    assert min(box.off_ms(TimeSource.ARRIVAL)) >= 0
    assert ascends(box)


@pytest.mark.parametrize(
    ("listen", "form", "to", "told_by"),
    [
        ("listen+rtsp://127.0.0.1:{}/cab", "rtsp", "rtsp://127.0.0.1:{}/cab", TimeSource.RTCP),
        ("listen+rtmp://127.0.0.1:{}/live/cab", "flv", "rtmp://127.0.0.1:{}/live/cab", TimeSource.ARRIVAL),
        ("udp://127.0.0.1:{}", "mpegts", "udp://127.0.0.1:{}?pkt_size=1316", TimeSource.ARRIVAL),
    ],
    ids=["RTSP", "RTMP", "MPEG-TS"],
)
def test_a_sender_that_comes_is_taken_and_one_after_it_too(
    listen: str, form: str, to: str, told_by: TimeSource
) -> None:
    port = free_port()
    with capturing(listen.format(port)) as box:
        wrong_ms = 0.0
        for _ in range(2):
            before = len(box.of(IMAGE))
            wrong_ms = max(wrong_ms, push(form, to.format(port)))
            wait_for(lambda before=before: len(box.of(IMAGE, told_by)) >= before + 15, WITHIN_S)  # type: ignore[misc]
            if form != "rtsp":  # nothing tells that a sender of datagrams has gone; RTMP is as RTSP
                break
    assert ascends(box)
    off_ms = sorted(box.off_ms(told_by))
    if told_by is TimeSource.RTCP:
        assert max(map(abs, off_ms)) <= wrong_ms
    else:
        assert off_ms[len(off_ms) // 2] >= 0


def push(form: str, to: str) -> float:
    """Send pictures by PyAV; returns by how many ms its reports may be wrong.

    It is a process, since PyAV's muxers keep the interpreter while they connect.
    """
    deadline = time.monotonic() + WITHIN_S
    command = [sys.executable, "-m", "tests.pushing", form, to, str(PUSH_S)]
    while (done := subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)).returncode:
        assert time.monotonic() < deadline, done.stderr
        time.sleep(0.2)  # it does not listen yet
    return float(done.stdout)


def test_an_hls_stream_is_read_from_its_newest_segment() -> None:
    with hls() as url, capturing(url) as box:
        wait_for(lambda: len(box.of(IMAGE)) >= 30, WITHIN_S)
    assert ascends(box)
    off_ms = box.off_ms(TimeSource.ARRIVAL)
    assert min(off_ms) >= 0
    assert max(off_ms) < 2500, "a segment is there half a second after it began, or later"
    spread = max(off_ms) - min(off_ms)
    assert spread < 1000


@contextmanager
def hls(seconds: float = 0.5, hz: int = 20) -> Iterator[str]:
    """A live stream of segments that are served once they are complete."""
    begun_s = time.time()
    made: dict[int, bytes] = {}

    def complete() -> int:
        return int((time.time() - begun_s) / seconds)

    async def playlist(_: web.Request) -> web.Response:
        newest = complete() - 1
        first = max(0, newest - 3)
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1"]
        lines += [f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        for number in range(first, newest + 1):
            lines += [f"#EXTINF:{seconds},", f"{number}.ts"]
        return web.Response(text="\n".join(lines) + "\n", content_type="application/vnd.apple.mpegurl")

    async def piece(request: web.Request) -> web.Response:
        number = int(request.match_info["number"])
        if number not in made:
            made[number] = cameras.segment(round(begun_s * 1e6), seconds, hz, round(number * seconds * hz))
        return web.Response(body=made[number], content_type="video/mp2t")

    async def page(_: web.Request) -> web.Response:
        return web.Response(text="<html>no camera</html>", content_type="text/html")

    loop = asyncio.new_event_loop()
    app = web.Application()
    app.add_routes([web.get("/live.m3u8", playlist), web.get("/page", page), web.get("/{number}.ts", piece)])
    runner = web.AppRunner(app, access_log=None)
    loop.run_until_complete(runner.setup())
    site = web.TCPSite(runner, "127.0.0.1", 0)
    loop.run_until_complete(site.start())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    time.sleep(2 * seconds)
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/live.m3u8"
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_microphone_is_read_by_alsa_and_dated_by_its_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ALSA's own device that plays a file to whoever records; it does not wait as a microphone does."""
    heard_S2 = np.random.default_rng(1).integers(-20_000, 20_000, (48_000, 2)).astype("<i2")
    (tmp_path / "heard.raw").write_bytes(heard_S2.tobytes())
    (tmp_path / "asound.conf").write_text(
        f'pcm.cabin {{ type file, slave {{ pcm {{ type null }} }}, file "/dev/null", infile "{tmp_path}/heard.raw" }}'
    )
    monkeypatch.setenv("ALSA_CONFIG_PATH", str(tmp_path / "asound.conf"))
    began_us = time.time_ns() // 1000
    with capturing("alsa:cabin") as box:
        wait_for(lambda: len(box.of(AUDIO)) >= 3, WITHIN_S)
    chunk, *_ = chunks = box.of(AUDIO)
    assert {one.time_source for one in chunks} == {TimeSource.DEVICE}
    assert chunk.content_type == "audio/L16;rate=48000;channels=2"
    samples_S2 = np.frombuffer(chunk.payload, ">i2").reshape(-1, 2)
    assert len(samples_S2) > 0
    assert np.array_equal(samples_S2, heard_S2[: len(samples_S2)])
    assert began_us <= chunk.time_us <= time.time_ns() // 1000


# what cannot become right by waiting is an error, and only at the start


def refused(text: str) -> str:
    source = address.parse(1, text)
    (sensors,) = address.sensors([source], [text], [], Settings().sensor_set)
    camera = Camera(
        source,
        sensors,
        Feed("car", Box(), None).taker,  # type: ignore[arg-type]
        CaptureMetrics(CollectorRegistry()),
        2_000_000,
        silence_s=2.0,
    )
    with pytest.raises(UsageError) as error:
        camera.run(threading.Event())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_refused_password_is_one_line_without_the_password() -> None:
    with cameras.Rtsp(answer="401 Unauthorized") as camera:
        text = refused(camera.url.replace("rtsp://", "rtsp://me:secret@"))
    assert "cannot be captured" in text
    assert "check address, user and password" in text
    assert "secret" not in text


def test_a_page_of_the_web_is_no_camera() -> None:
    with hls() as url:
        assert "cannot be captured" in refused(url.replace("live.m3u8", "page"))


def test_a_protocol_that_ffmpeg_lacks_is_named() -> None:
    import av

    try:
        av.open("srt://127.0.0.1:1?timeout=1", timeout=1)
    except av.error.ProtocolNotFoundError:
        text = refused("srt://127.0.0.1:9000")
        assert "does not speak srt; have it sent by RTSP or RTMP" in text
    except av.error.FFmpegError:
        pytest.skip("this FFmpeg speaks SRT")
