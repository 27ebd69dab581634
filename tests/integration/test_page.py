"""The live page in a real browser, on a real Kafka and a real Redis with a worker between them."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from streamer import dashboard
from streamer.events import Drift
from streamer.local.worker import environment
from streamer.model import repository
from streamer.model.nets.model import FusedModel
from streamer.model.spec import read_spec
from streamer.settings import Settings
from streamer.store.results import connected
from tests.conftest import PAGE_TIMEOUT_MS
from tests.harness import S_US, Outgoing, end, jpeg, record, results, running_worker, second, send, wait_for

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")

pytestmark = pytest.mark.integration

SECONDS = 4
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
expect = sync_api.expect
expect.set_options(timeout=PAGE_TIMEOUT_MS)


def drive(settings: Settings, session: str, start_us: int, text: str = "") -> None:
    for i in range(SECONDS):
        records = second(settings, session, start_us + i * S_US)
        if text:
            body = f'{{"text": {_json(text)}, "start": 0.0, "end": 1.0}}'.encode()
            records = [r._replace(value=body) if r.topic.endswith("transcripts") else r for r in records]
        send(settings, records)


def _json(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def aligned_now(seconds: int) -> int:
    return int(time.time()) * S_US - seconds * S_US


def test_what_is_sent_is_seen_and_nothing_of_it_is_taken_for_html(topics: Settings, tmp_path: Path, page: Any) -> None:
    settings = topics.model_copy(update={"dashboard_port": 0})
    session = "räume/7 <b>"
    start_us = aligned_now(2 * SECONDS + 1)
    with running_worker(topics, tmp_path / "worker.log"), dashboard.running(settings) as url:
        page.goto(url)
        page.get_by_text("No sessions yet").wait_for()
        assert page.locator("#connection").text_content() == "Live"

        drive(topics, session, start_us, HOSTILE)
        page.locator("#sessions .name").wait_for()
        assert page.locator("#sessions .name").all_text_contents() == [session]
        assert page.locator("#name").text_content() == session
        page.locator("#cameras img[src]").wait_for()
        assert page.locator("#cameras img").evaluate("image => image.naturalWidth") == 64

        words = page.locator("#words li span").first
        words.wait_for()
        assert words.text_content() == HOSTILE
        assert page.locator("#words script, #words img, #sessions b").count() == 0
        assert page.title() == f"{session} · streamer"

        page.locator(".lane .label", has_text="speed").wait_for()
        said = page.locator("#heads .label").text_content()
        assert said.removesuffix("?") in page.locator(".lane .label").all_text_contents()
        assert said.endswith("?")  # fresh weights are sure of nothing
        expect(page.locator("#strange")).to_be_hidden()
        assert page.locator(".lane .value", has_text="10.0 m/s").count() == 1
        assert page.locator(".lane .value", has_text="dBFS").count() == 1

        # new results arrive by themselves
        before = page.locator("#fact-window").text_content()
        drive(topics, session, start_us + SECONDS * S_US, "all is well")
        expect(page.locator("#fact-window")).not_to_have_text(before)
        page.locator("#words li span", has_text="all is well").first.wait_for()

        # another session, chosen by keyboard
        drive(topics, "car-2", aligned_now(SECONDS + 1), "a second car")
        other = page.locator("#sessions a", has_text="car-2")
        other.wait_for()
        expect(page.locator("#drifts")).to_be_hidden()
        with connected(topics) as (client, keys):  # as its worker would report
            drifts = msgspec.json.encode([Drift("imu", 200.4, 30.0, 700.0)])
            client.xadd(keys.drifts, {"session": "car-2", "drifts": drifts})
            wait_for(lambda: client.xlen(keys.workers("all")) == 1, 10.0)  # the worker gives signs of life
        expect(page.locator("#workers")).to_be_hidden()
        other.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#name")).to_have_text("car-2")
        expect(page.locator("#drifts")).to_have_text(
            "The clock of imu is slow by 200 ppm: in 12 min windows lose members."
        )
        page.locator("#words li span", has_text="a second car").first.wait_for()
        page.locator("#cameras img[src]").wait_for()

        # a letter that cannot be processed
        bad = record(topics, 0, session, aligned_now(0), b"raw", "image/x-raw")
        send(topics, [bad])
        page.locator("#reasons li", has_text="bad_content_type").wait_for()
        assert page.locator("#dead-count").text_content() == "1"

        send(topics, [end(topics, "car-2", aligned_now(0))])


SHADE = """image => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const shade = (x, y) => context.getImageData(x, y, 1, 1).data[0];
  return [canvas.width, canvas.height, shade(8, 6), shade(56, 6), shade(8, 90), shade(56, 90)];
}"""


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_frame_of_a_turned_camera_is_shown_upright_and_not_turned_twice(
    kind: str, topics: Settings, tmp_path: Path, page: Any
) -> None:
    scene = np.zeros((96, 64, 3), np.uint8)
    scene[:, 32:] = 120
    scene[:16, :20] = 255  # a white bar top left
    note = Image.Exif()
    note[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(scene).transpose(Image.Transpose.ROTATE_90).save(file, kind, exif=note, quality=95)
    start_us = aligned_now(SECONDS + 1)
    records = [
        record(topics, 0, "phone", start_us + i * S_US, file.getvalue(), f"image/{kind.lower()}")
        for i in range(SECONDS)
    ]
    settings = topics.model_copy(update={"dashboard_port": 0})
    with running_worker(topics, tmp_path / "worker.log"), dashboard.running(settings) as url:
        send(topics, [*records, end(topics, "phone", aligned_now(0))])
        page.goto(url)
        page.locator("#cameras img[src]").wait_for()
        image = page.locator("#cameras img")
        image.evaluate("image => image.decode()")
        *size, bar, right, left_below, right_below = image.evaluate(SHADE)
        assert size == [64, 96]
        assert bar > 235
        assert left_below < 20
        assert right == pytest.approx(120, abs=15)
        assert right_below == pytest.approx(120, abs=15)
        assert page.locator("#dead-count").text_content() == "0"


def test_a_page_without_its_server_says_so_and_comes_back(topics: Settings, page: Any) -> None:
    settings = topics.model_copy(update={"dashboard_port": 0})
    with dashboard.running(settings) as url:
        page.goto(url)
        page.get_by_text("No sessions yet").wait_for()
    page.get_by_text("Connection lost").wait_for()
    again = settings.model_copy(update={"dashboard_port": int(url.rstrip("/").rsplit(":", 1)[1])})
    with dashboard.running(again):
        expect(page.locator("#connection")).to_have_text("Live")


def test_frames_that_kafka_has_deleted_leave_a_placeholder(topics: Settings, tmp_path: Path, page: Any) -> None:
    from kafka import KafkaAdminClient, TopicPartition

    settings = topics.model_copy(update={"dashboard_port": 0})
    with running_worker(topics, tmp_path / "worker.log"):
        drive(topics, "car-1", aligned_now(SECONDS + 1))
        send(topics, [end(topics, "car-1", aligned_now(0))])
        wait_for(lambda: len(results(topics.redis, topics, "car-1")) >= SECONDS, 30.0)
    admin = KafkaAdminClient(bootstrap_servers=topics.kafka)
    admin.delete_records(
        {TopicPartition(topic, number): -1 for topic in topics.source_topics for number in range(topics.partitions)}
    )
    admin.close()
    with dashboard.running(settings) as url:
        page.goto(url)
        page.get_by_text("Kafka no longer has this frame").wait_for()
        assert page.locator("#words li").count() == 0
        said = page.locator("#heads .label").text_content()
        assert said.removesuffix("?") in page.locator(".lane .label").all_text_contents()


def test_the_command_says_where_the_page_is_and_ends_quietly(topics: Settings, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "streamer", "dashboard"],
        cwd=tmp_path,
        env=os.environ | environment(topics) | {"STREAMER_DASHBOARD_PORT": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        url = child.stdout.readline().removeprefix("live page: ").strip()
        with urllib.request.urlopen(f"{url}api/sessions", timeout=10) as answer:
            assert answer.status == 200
        with pytest.raises(urllib.error.HTTPError) as missing:
            urllib.request.urlopen(f"{url}api/frame?session=x&end_us=1", timeout=10)
        missing.value.close()
        assert missing.value.code == 404
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
        assert (child.returncode, out, err) == (130, "", "")
    finally:
        child.kill()
        child.wait()


CAMERAS = ("camera_front", "camera_left", "camera_rear", "camera_right")
EIGHT = {
    **{name: {"kind": "image"} for name in CAMERAS},
    "cabin_mic": {"kind": "audio"},
    "roof_mic": {"kind": "audio"},
    "imu": {"kind": "telemetry"},
    **{name: {"enabled": False} for name in ("image", "audio", "text")},
}


def of_sensors(settings: Settings, session: str, start_us: int, cameras: Sequence[str]) -> list[Outgoing]:
    """A second of named sensors and of the telemetry that is called like its kind."""
    image, _, audio, _, _, telemetry = second(settings, session, start_us)

    def sent(like: Outgoing, sensor: str, value: bytes) -> Outgoing:
        id_ = ("ce_id", f"{sensor}-{start_us}".encode())
        return like._replace(
            value=value, headers=[h for h in like.headers if h[0] != "ce_id"] + [id_, ("ce_sensor", sensor.encode())]
        )

    pictures = [sent(image, name, jpeg(number, 64 + 16 * number)) for number, name in enumerate(cameras)]
    heard = [sent(audio, name, audio.value) for name in ("cabin_mic", "roof_mic")]
    return [*pictures, *heard, sent(telemetry, "imu", telemetry.value.replace(b"speed", b"yaw_rate")), telemetry]


def test_each_of_four_cameras_has_a_picture_and_each_of_eight_sensors_a_lane(
    topics: Settings, tmp_path: Path, page: Any
) -> None:
    given = topics.model_dump(exclude_unset=True) | {"sensors": EIGHT, "model": telemetry_model(tmp_path / "model")}
    settings = Settings.model_validate(given | {"dashboard_port": 0})
    start_us = aligned_now(2 * SECONDS + 1)
    with running_worker(settings, tmp_path / "worker.log"), dashboard.running(settings) as url:
        for i in range(SECONDS):
            send(settings, of_sensors(settings, "car", start_us + i * S_US, CAMERAS))
        page.goto(url)
        expect(page.locator("#cameras img[src]")).to_have_count(4)
        assert page.locator("#cameras .camera-name").all_text_contents() == list(CAMERAS)
        widths = page.locator("#cameras img").evaluate_all("all => all.map((image) => image.naturalWidth)")
        assert widths == [64, 80, 96, 112]  # each has its own
        lanes = page.locator(".lane .label")
        expect(lanes.filter(has_text="has ")).to_have_count(8)
        expect(lanes.filter(has_text="imu yaw_rate")).to_have_count(1)
        expect(lanes.filter(has_text="telemetry speed")).to_have_count(1)
        assert [name for name in lanes.all_text_contents() if name.endswith("_mic") and "has" not in name] == [
            "cabin_mic",
            "roof_mic",
        ]
        # one is enlarged by the keyboard, another takes its place
        front, rear = (page.get_by_label(f"Enlarge {name}") for name in ("camera_front", "camera_rear"))
        small = front.bounding_box()["width"]
        front.focus()
        page.keyboard.press("Enter")
        assert front.bounding_box()["width"] > 1.5 * small
        rear.click()
        assert [one.get_attribute("aria-pressed") for one in (front, rear)] == ["false", "true"]
        # one falls silent
        for i in range(SECONDS, 2 * SECONDS):
            send(settings, of_sensors(settings, "car", start_us + i * S_US, CAMERAS[:3]))
        expect(page.locator('#cameras [data-sensor="camera_right"]')).to_contain_text("absent for")
        expect(page.locator(".lane", has_text="has camera_right").locator(".value")).to_have_text("absent")


def telemetry_model(folder: Path) -> Path:
    """A model that reads nothing but speed."""
    folder.mkdir()
    (folder / "model.toml").write_text(TELEMETRY)
    repository.write(folder, repository.new_module(read_spec(folder), folder, None), None, {})
    return folder


TELEMETRY = """
name = "speed"
version = "1"
window_ms = 1000
[inputs.telemetry]
channels = ["speed"]
rate_hz = 10
[outputs.action]
labels = ["go", "stop"]
[architecture]
size = "tiny"
"""


THREE_HEADS = """
name = "heads"
version = "1"
window_ms = 1000
[inputs.telemetry]
channels = ["speed"]
rate_hz = 20
[outputs.distance]
kind = "number"
unit = "m"
[outputs.sounds]
kind = "tags"
labels = ["horn", "siren"]
[outputs.action]
labels = ["go", "stop"]
[architecture]
size = "tiny"
"""


def test_numbers_and_tags_are_shown_as_what_they_are(topics: Settings, tmp_path: Path, page: Any) -> None:
    model = tmp_path / "heads"
    model.mkdir()
    (model / "model.toml").write_text(THREE_HEADS)
    module = repository.new_module(read_spec(model), model, None)
    assert isinstance(module, FusedModel)
    module.standardise_targets("distance", [20.0, 21.0])
    head: Any = module.heads["sounds"]
    head.bias.data = torch.tensor([9.0, -9.0])
    repository.write(model, module, None, {})
    settings = topics.model_copy(update={"dashboard_port": 0, "model": model})
    with running_worker(settings, tmp_path / "worker.log"), dashboard.running(settings) as url:
        page.goto(url)
        drive(settings, "car", aligned_now(2 * SECONDS + 1))
        page.locator("#heads .head").nth(2).wait_for()
        assert page.locator("#heads .what").all_text_contents() == ["distance", "sounds", "action"]
        distance, sounds, action = page.locator("#heads .label").all_text_contents()
        assert distance.endswith(" m")
        assert 10 < float(distance.removesuffix(" m")) < 30
        assert sounds == "horn"
        assert action in {"go", "stop"}
        assert page.locator("#heads .score:visible").count() == 1  # only a class has one
        lanes = page.locator(".lane .label").all_text_contents()
        assert [lane for lane in lanes if lane.startswith(("distance", "sounds"))] == [
            "distance (m)",
            "sounds: horn",
            "sounds: siren",
        ]
        assert page.locator(".lane", has_text="distance (m)").locator(".value").text_content() == distance
        assert page.locator("#sessions a", has_text="car").inner_text().count(" m") == 1
