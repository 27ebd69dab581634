"""The page that makes a phone a device, in a real browser with its fake camera and microphone, on a real Kafka."""

from __future__ import annotations

import io
import json
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from streamer import dashboard
from streamer.align.decode import Decoder
from streamer.events import AUDIO, IMAGE, TELEMETRY, TEXT, Event, EventType, Record
from streamer.local.program import Program
from streamer.local.worker import environment
from streamer.settings import Settings
from tests.conftest import CHROMIUMS, PAGE_TIMEOUT_MS
from tests.gateways import GatewayProcess
from tests.harness import READY_WITHIN_S, ROOT, read_topic, running_worker

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")

pytestmark = pytest.mark.integration

expect = sync_api.expect
FAKE = ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
PLACE = {"latitude": 48.137, "longitude": 11.575, "accuracy": 12.0}
S_US = 1_000_000

# A recogniser that hears the same whenever it is started: Chromium's asks a server of its maker.
RECOGNISER = """
window.webkitSpeechRecognition = class extends EventTarget {
  start() {
    const said = Object.assign([{ transcript: " turn left ", confidence: 0.9 }], { isFinal: true });
    setTimeout(() => this.dispatchEvent(new Event("speechstart")), 50);
    setTimeout(() => this.dispatchEvent(Object.assign(new Event("result"), { resultIndex: 0, results: [said] })), 550);
  }
  stop() {}
};
delete window.SpeechRecognition;
"""
SHAKE = """() => new Promise((done) => {
  let count = 0;
  const timer = setInterval(() => {
    dispatchEvent(new DeviceMotionEvent("devicemotion", {
      accelerationIncludingGravity: { x: 0.5, y: 0, z: 9.8 },
      rotationRate: { alpha: 1, beta: 2, gamma: 3 },
      interval: 20,
    }));
    count += 1;
    if (count === 60) { clearInterval(timer); done(); }
  }, 20);
})"""


@pytest.fixture
def phone() -> Iterator[Any]:
    """A page as wide as a phone; an error of a script or a violation of the content policy fails the test."""
    executable = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if executable is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=FAKE)
        context = browser.new_context(
            viewport={"width": 390, "height": 844},
            geolocation=PLACE,
            permissions=["geolocation", "accelerometer", "gyroscope"],
        )
        page = context.new_page()
        page.set_default_timeout(PAGE_TIMEOUT_MS)
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text) if "Content Sec" in message.text else None)
        yield page
        browser.close()
        assert complaints == []


def events(settings: Settings, row: int) -> list[Event]:
    """What a topic has, as a worker reads it, in order of time."""
    decoder = Decoder(settings, settings.partitions)
    found = []
    for one in read_topic(settings, settings.source_topics[row]):
        kept = Record(row, one.partition, one.offset, one.timestamp * 1000, one.key, one.value, tuple(one.headers))
        found.append(decoder.decode(kept))
    return sorted((event for event in found if event.type is EventType.DATA), key=lambda event: event.start_us)


def count(page: Any, name: str) -> int:
    text = page.locator("#sources li", has_text=name).locator("p").text_content()
    return int(text.split()[0]) if text.split()[1:2] == ["in"] else 0


def until(page: Any, name: str, least: int) -> None:
    """Wait for the page to say that Kafka has as many events of a source."""
    deadline = time.monotonic() + PAGE_TIMEOUT_MS / 1000
    while count(page, name) < least:
        assert time.monotonic() < deadline, page.locator("#sources").inner_text()
        page.wait_for_timeout(50)


def test_from_a_click_to_records_of_all_kinds(topics: Settings, tmp_path: Path, phone: Any) -> None:
    with GatewayProcess(topics, tmp_path, "phone") as gateway:
        gateway.wait_ready(READY_WITHIN_S)
        phone.add_init_script(RECOGNISER)
        phone.goto(f"{gateway.url}/send#{gateway.token}")
        expect(phone.locator("#connection")).to_have_text("Ready")
        assert gateway.token not in phone.url
        for name in ("Motion", "Position", "Words"):
            phone.get_by_label(name, exact=True).check()
        began_us = time.time_ns() // 1000
        phone.get_by_role("button", name="Start sending").click()
        expect(phone.locator("#connection")).to_have_text("Connected")
        for name, least in {"Camera": 10, "Microphone": 20, "Position": 1, "Words": 1}.items():
            until(phone, name, least)
        phone.evaluate(SHAKE)
        until(phone, "Motion", 2)
        assert "the gateway (±" in phone.locator("#clock").text_content()
        phone.get_by_role("button", name="Stop").click()
        expect(phone.locator("#connection")).to_have_text("Stopped: all is in Kafka")
        ended_us = time.time_ns() // 1000
        gateway.stop()
    frames, sound, words, blocks = (events(topics, row) for row in (IMAGE, AUDIO, TEXT, TELEMETRY))
    every = [*frames, *sound, *words, *blocks]
    assert {event.session for event in every} == {"phone"}
    fresh = [
        event for event in every if b"latitude" not in event.record.value
    ]  # the fake place is as old as its browser
    assert [(one.row, one.start_us - began_us) for one in fresh if not began_us - S_US < one.start_us < ended_us] == []
    assert {dict(event.record.headers)["ce_timesource"] for event in every} == {b"device"}
    assert Image.open(io.BytesIO(frames[-1].record.value)).size == (640, 480)
    assert [event.params["rate"] for event in sound] == ["16000"] * len(sound)
    gaps = [later.start_us - earlier.end_us for earlier, later in pairwise(sound)]
    assert (
        sum(abs(gap) <= 5_000 for gap in gaps) >= len(gaps) - 4
    )  # one after the other, but for the clock's first chunks
    samples = np.concatenate([np.frombuffer(event.record.value, ">i2") for event in sound])
    assert np.abs(samples.astype(int)).max() > 1000  # the fake microphone beeps
    assert [json.loads(event.record.value)["text"] for event in words] == ["turn left"]
    assert words[0].end_us - words[0].start_us == pytest.approx(500_000, abs=250_000)
    channels = [json.loads(event.record.value)["channels"] for event in blocks]
    assert {"accel_z", "gyro_x"} <= set().union(*channels)
    (place,) = [found for found in channels if "latitude" in found]
    assert (place["latitude"]["values"], place["longitude"]["values"]) == ([48.137], [11.575])
    ends = [one for one in read_topic(topics, topics.source_topics[TELEMETRY]) if not one.value]
    assert [dict(one.headers)["ce_type"] for one in ends] == [b"streamer.end.v1"]


def test_what_was_not_acknowledged_is_sent_again_after_a_break(topics: Settings, tmp_path: Path, phone: Any) -> None:
    with GatewayProcess(topics, tmp_path, "phone") as gateway:
        gateway.wait_ready(READY_WITHIN_S)
        phone.goto(f"{gateway.url}/send#{gateway.token}")
        phone.get_by_label("Camera", exact=True).uncheck()
        phone.get_by_role("button", name="Start sending").click()
        expect(phone.locator("#connection")).to_have_text("Connected")
        gateway.kill()
        expect(phone.locator("#connection")).to_contain_text("Connection lost")
        gateway.restart()
        expect(phone.locator("#connection")).to_have_text("Connected")
        phone.get_by_role("button", name="Stop").click()
        expect(phone.locator("#connection")).to_have_text("Stopped: all is in Kafka")
        gateway.stop()
    numbers = {int(event.identity[1].rpartition("/")[2]) for event in events(topics, AUDIO) if event.identity}
    assert numbers == set(range(len(numbers)))  # none is missing


def test_a_link_with_a_wrong_token_is_told_so(topics: Settings, tmp_path: Path, phone: Any) -> None:
    with GatewayProcess(topics, tmp_path, "phone") as gateway:
        gateway.wait_ready(READY_WITHIN_S)
        phone.goto(f"{gateway.url}/send#nonsense")
        expect(phone.locator("#problem")).to_contain_text("not valid")
        assert phone.locator("#form").is_hidden()


SEEN_AND_HEARD = """
[rules.seen_and_heard]
when = "['image', 'audio'].all(sensor, sensor in window.present)"
of = [2, 3]
severity = "alarm"
say = "The phone is seen and heard: {action}."
"""


def test_a_click_on_the_phone_becomes_an_alarm_on_the_live_page(topics: Settings, tmp_path: Path, phone: Any) -> None:
    (tmp_path / "rules.toml").write_text(SEEN_AND_HEARD, "utf-8")
    more = {"rules": tmp_path / "rules.toml", "rules_port": 0, "dashboard_port": 0}
    settings = Settings.load(**topics.model_dump(exclude_unset=True) | more)
    command = [sys.executable, "-m", "streamer", "rules", "run"]
    live = phone.context.browser.new_page(viewport={"width": 1280, "height": 800})
    with (
        GatewayProcess(topics, tmp_path, "phone") as gateway,
        Program(command, tmp_path / "rules.log", environment(settings), ROOT, "streamer rules") as rules,
        running_worker(topics, tmp_path / "worker.log"),
        dashboard.running(settings) as url,
    ):
        gateway.wait_ready(READY_WITHIN_S)
        rules.wait_for(lambda: "1 rule;" in rules.text(), READY_WITHIN_S, "apply the rules")
        live.goto(url)
        expect(live.locator("#alarms-state")).to_have_text("none open")
        phone.goto(f"{gateway.url}/send#{gateway.token}")
        phone.get_by_role("button", name="Start sending").click()
        alarm = live.locator("#alarms-open tr")
        expect(alarm).to_have_count(1, timeout=PAGE_TIMEOUT_MS)
        expect(alarm.locator(".alarm-session")).to_have_text("phone")
        expect(alarm.locator(".alarm-text")).to_contain_text("The phone is seen and heard: ")
        live.locator("#cameras img[src]").wait_for()
        phone.get_by_role("button", name="Stop").click()
        expect(phone.locator("#connection")).to_have_text("Stopped: all is in Kafka")
        live.close()
        gateway.stop()
