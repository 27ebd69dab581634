"""``streamer capture`` on a real Kafka: cameras that show the time at which each picture was taken."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import pytest

from streamer.align.decode import Decoder
from streamer.events import AUDIO, IMAGE, Event, Record
from streamer.local.process import free_port
from streamer.settings import Settings
from tests import cameras
from tests.harness import READY_WITHIN_S, WorkerProcess, read_topic, wait_for

pytestmark = pytest.mark.integration

RECONNECTS = 3
MOST_OFF_MS = 20.0
SESSION = "räume/7"


def event_of(settings: Settings, row: int, record: Any) -> Event:
    return Decoder(settings, settings.partitions).decode(
        Record(
            row,
            record.partition,
            record.offset,
            record.timestamp * 1000,
            record.key,
            record.value,
            tuple(record.headers),
        )
    )


def count(process: WorkerProcess, what: str, **labels: str) -> float:
    return process.metric(f"streamer_capture_{what}_total", **labels)


def test_cameras_and_a_microphone_become_one_session_through_reconnects(topics: Settings, tmp_path: Path) -> None:
    settings = Settings.load(**topics.model_dump(exclude_unset=True) | {"sensors": {"camera_rear": {"kind": "image"}}})
    port = free_port()
    address = f"rtsp://me:secret@127.0.0.1:{port}/clock"
    with cameras.Mjpeg() as rear:
        arguments = [address, rear.url, "--session", SESSION, "--rate", "10", "--as", "2=camera_rear"]
        with WorkerProcess(settings, tmp_path / "capture.log", command="capture", arguments=arguments) as process:
            process.wait_ready(READY_WITHIN_S)
            wait_for(lambda: count(process, "sent", sensor="camera_rear") >= 3, 10.0, process.text)
            assert "is away: connection refused" in process.text()
            assert process.metric("streamer_capture_connected") == 1
            with cameras.Rtsp(sound=True, delay_s=0.1, port=port) as front:
                for number in range(RECONNECTS + 1):
                    sent = count(process, "sent", sensor="image")
                    wait_for(lambda sent=sent: count(process, "sent", sensor="image") >= sent + 5, 10.0, process.text)  # type: ignore[misc]
                    assert process.metric("streamer_capture_time_source", sensor="image", clock="rtcp") == 1
                    assert process.metric("streamer_capture_connected") == 2
                    assert count(process, "connections", source=f"rtsp://me:***@127.0.0.1:{port}/clock") == number + 1
                    front.hang_up()
            assert process.metric("streamer_capture_time_source", sensor="camera_rear", clock="arrival") == 1
            rear.close()
            wait_for(lambda: process.metric("streamer_capture_connected") == 0, 10.0, process.text)
            wait_for(lambda: process.metric("streamer_capture_unsent_bytes") == 0, 10.0, process.text)
            told = {
                name: [count(process, what, sensor=name) for what in ("captured", "sent", "dropped")]
                for name in ("image", "audio", "camera_rear")
            }
            process.stop()
            text = process.text()
    assert text.count("is away") == RECONNECTS + 3  # before it was there, at each end, and both at the last
    assert "secret" not in text
    frames = [event_of(settings, IMAGE, one) for one in read_topic(settings, settings.source_topics[IMAGE])]
    sounds = [event_of(settings, AUDIO, one) for one in read_topic(settings, settings.source_topics[AUDIO])]
    assert {event.session for event in (*frames, *sounds)} == {SESSION}
    for name, events in (
        ("image", [event for event in frames if settings.sensor_set.names[event.sensor] == "image"]),
        ("camera_rear", [event for event in frames if settings.sensor_set.names[event.sensor] == "camera_rear"]),
        ("audio", sounds),
    ):
        captured, sent, dropped = told[name]
        assert captured == sent + dropped
        assert sent == len(events) > 0
        assert dropped == 0
        times = [event.start_us for event in events]
        assert times == sorted(set(times)), "no time is twice, and none goes back"
        assert {header(event, "ce_timesource") for event in events} == {"arrival" if name == "camera_rear" else "rtcp"}
        off_ms = [
            cameras.off_ms(event.record.value, event.start_us)
            if name == "audio"
            else (event.start_us - cameras.read_us(event.record.value)) / 1000
            for event in events
        ]
        assert min(off_ms) >= -MOST_OFF_MS
        # a busy machine is late to take what has arrived; the camera's own clock does not mind
        assert (median(off_ms) if name == "camera_rear" else max(off_ms)) <= MOST_OFF_MS, name
        if name != "audio":
            slots = [time_us // 100_000 for time_us in times]
            assert len(slots) == len(set(slots)), "at most ten a second"
        if name == "camera_rear":
            assert {event.record.value for event in events} <= rear.sent, "its pictures are passed on as they are"


def header(event: Event, name: str) -> str:
    return dict(event.record.headers)[name].decode()
