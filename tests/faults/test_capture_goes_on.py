"""``streamer capture`` while cameras hang up and the broker is away: times stay right, and each loss is counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from streamer.events import IMAGE, moment_us
from streamer.local.stack import Stack
from streamer.settings import MIB
from tests import cameras
from tests.faults.conftest import NewSettings
from tests.harness import READY_WITHIN_S, WorkerProcess, read_topic, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.faults]

MOST_OFF_US = 20_000
PICTURE_BYTES = 60_000  # of the camera that fills the buffer
OUTAGE_S = 6.0
WITHIN_S = 60.0


def test_reconnects_and_a_broker_that_is_away_leave_each_time_right_and_each_loss_counted(
    new_settings: NewSettings, healthy: Stack, tmp_path: Path, full: bool, say: Callable[[object], None]
) -> None:
    reconnects = 100 if full else 3
    settings = new_settings(capture_buffer_bytes=MIB, sensors={"large": {"kind": "image"}})
    with cameras.Rtsp(delay_s=0.05) as camera, cameras.Mjpeg(hz=20, comment_bytes=PICTURE_BYTES) as large:
        arguments = [camera.url, large.url, "--session", "door", "--as", "1=image", "--as", "2=large"]
        with WorkerProcess(settings, tmp_path / "capture.log", command="capture", arguments=arguments) as process:

            def count(what: str, **labels: str) -> float:
                return process.metric(f"streamer_capture_{what}_total", **labels)

            def more(what: str, number: float, **labels: str) -> None:
                before = count(what, **labels)
                wait_for(lambda: count(what, **labels) >= before + number, WITHIN_S, process.text)

            process.wait_ready(READY_WITHIN_S)
            for number in range(reconnects):
                if number == reconnects // 2:
                    healthy.kafka.stop()
                    more("dropped", 10, sensor="large", reason="buffer")
                    time.sleep(OUTAGE_S)
                    assert process.metric("streamer_capture_unsent_bytes") <= MIB
                    healthy.start_kafka()
                    wait_for(process.ready, WITHIN_S, process.text)
                more("sent", 5, sensor="image")
                camera.hang_up()
            more("sent", 5, sensor="image")
            assert camera.played == reconnects + 1
            camera.close()
            large.close()
            wait_for(lambda: process.metric("streamer_capture_unsent_bytes") == 0, WITHIN_S, process.text)
            told = {name: [count(what, sensor=name) for what in ("captured", "sent", "dropped")] for name in SENSORS}
            process.stop()
    found = records(settings)
    for name, (captured, sent, dropped) in told.items():
        assert captured == sent + dropped
        assert sent == len(found[name]), "what the client sent again is there once by its id"
        times = [time_us for time_us, _ in found[name]]
        assert times == sorted(set(times))
    assert told["large"][2] > 0
    off_us = [abs(time_us - cameras.read_us(jpeg)) for time_us, jpeg in found["image"]]
    assert max(off_us) <= MOST_OFF_US
    say(
        f"{reconnects} reconnects, the broker away for {OUTAGE_S:.0f} s and more: {told['image'][1]:.0f} pictures, "
        f"at most {max(off_us) / 1000:.1f} ms off; {told['large'][2]:.0f} of {told['large'][0]:.0f} large ones dropped"
    )


SENSORS = ("image", "large")


def records(settings: Any) -> dict[str, list[tuple[int, bytes]]]:
    """Time and payload of each picture in the log, by sensor; each event once."""
    found: dict[str, dict[str, tuple[int, bytes]]] = {name: {} for name in SENSORS}
    for one in read_topic(settings, settings.source_topics[IMAGE]):
        headers = {name: value.decode() for name, value in one.headers}
        event = (moment_us(headers["ce_time"]), one.value)
        found[headers.get("ce_sensor", "image")].setdefault(headers["ce_id"], event)
    return {name: list(events.values()) for name, events in found.items()}
