"""Search over what a worker published: the commands, and the page in a real browser, on a real Kafka and Redis."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import soundfile
from PIL import Image

from streamer import dashboard
from streamer.feeds import simulate
from streamer.local.worker import environment
from streamer.settings import Settings
from tests.harness import ROOT, results, running_worker, wait_for

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")

pytestmark = pytest.mark.integration

SECONDS, SESSIONS = 20, 2
SEED = 38  # an ambulance behind and a pedestrian ahead for eight seconds, and nothing for some
Command = Callable[..., subprocess.CompletedProcess[bytes]]


def is_complete(settings: Settings, number: int) -> bool:
    return len(found(settings, number)) == SECONDS


@pytest.fixture
def published(topics: Settings, tmp_path: Path) -> tuple[Settings, list[simulate.Truth]]:
    """Two simulated drives, judged by the model that ships, with what was really going on."""
    settings = topics.model_copy(update={"model": ROOT / "models/driving", "index": tmp_path / "index"})
    truth = tmp_path / "truth.ndjson"
    with running_worker(settings, tmp_path / "worker.log"):
        simulate.run(settings, sessions=SESSIONS, seconds=SECONDS, speed=4.0, seed=SEED, name="s", truth=truth)
        for number in range(SESSIONS):
            wait_for(partial(is_complete, settings, number), 60.0)
    return settings, simulate.read_truth(truth)


def found(settings: Settings, number: int) -> list[dict[str, Any]]:
    return results(settings.redis, settings, f"sim-s-{number}")


@pytest.fixture
def streamer(published: tuple[Settings, list[simulate.Truth]], tmp_path: Path) -> Command:
    def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run(
            [sys.executable, "-m", "streamer", *map(str, arguments)],
            cwd=tmp_path,
            env=os.environ | environment(published[0]),
            capture_output=True,
            timeout=120,
        )
        assert done.returncode == code, done.stderr.decode()
        return done

    return run


def hits(done: subprocess.CompletedProcess[bytes]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_was_published_is_found_and_what_was_forgotten_is_not(
    published: tuple[Settings, list[simulate.Truth]], streamer: Command, tmp_path: Path
) -> None:
    _, truth = published

    def share(which: list[dict[str, Any]], right: Callable[[simulate.Truth], bool]) -> float:
        return sum(right(true_of(truth, one)) for one in which) / len(which)

    refused = streamer("search", "siren", code=1)
    assert b"there is no index in" in refused.stderr
    assert b"run `streamer index`" in refused.stderr
    first = streamer("index")
    assert f"{SESSIONS * SECONDS} windows added".encode() in first.stderr
    assert b"0 windows added" in streamer("index").stderr

    # words: both facts that they speak of
    spoken = hits(streamer("search", "ambulance behind you pedestrian in lane", "--json", "--limit", "5"))
    assert len(spoken) == 5
    assert share(spoken, lambda true: true.siren and true.obstacle) >= 0.8
    assert spoken == sorted(spoken, key=lambda one: -one["similarity"])

    # a picture, which comes with --thumbnails, and the sound of a third drive
    folder = tmp_path / "frames"
    table = streamer("search", "nothing on channel lane is free", "--thumbnails", folder, "--limit", "3")
    assert b"sim-s-" in table.stdout
    frames = sorted(folder.iterdir())
    assert [Image.open(io.BytesIO(path.read_bytes())).format for path in frames] == ["JPEG"] * 3
    alike = hits(streamer("search", "--image", frames[0], "--json", "--limit", "5"))
    assert len(alike) == 5
    assert len({one["similarity"] for one in alike}) > 1
    siren = tmp_path / "siren.wav"
    soundfile.write(siren, siren_heard(), 16_000)
    assert share(hits(streamer("search", "--audio", siren, "--json", "--limit", "5")), lambda t: t.siren) >= 0.8

    # one session, and none of it once it is forgotten
    alone = hits(streamer("search", "lane is free", "--json", "--session", "sim-s-1", "--limit", "100"))
    assert {one["session"] for one in alone} == {"sim-s-1"}
    assert len(alone) == SECONDS
    streamer("forget", "sim-s-1")
    left = hits(streamer("search", "lane is free", "--json", "--limit", "100"))
    assert {one["session"] for one in left} == {"sim-s-0"}
    assert b"is indexed; run `streamer index" in streamer("search", "x", "--session", "sim-s-1", code=1).stderr


def true_of(truth: list[simulate.Truth], one: dict[str, Any]) -> simulate.Truth:
    return next(t for t in truth if t.session == one["session"] and t.start_us <= one["start_us"] < t.end_us)


def siren_heard() -> Any:
    """A second of the sound of another drive, with a siren."""
    drive = next(
        simulate.Drive(seed, "other", 1_750_000_000_000_000, 10)
        for seed in range(10**6, 10**6 + 100)
        if simulate.Drive(seed, "other", 1_750_000_000_000_000, 10).truth()[0].siren
    )
    chunks = [one.payload for one in drive.outgoing() if one.row == 1][:10]
    pcm, rate_hz = soundfile.read(
        io.BytesIO(b"".join(chunks)), channels=1, samplerate=16_000, format="RAW", subtype="PCM_16", endian="BIG"
    )
    return pcm[:rate_hz]


def test_the_page_shows_what_is_found_and_a_click_leads_to_the_window(
    published: tuple[Settings, list[simulate.Truth]],
    streamer: Command,
    page: Any,
    tmp_path: Path,
) -> None:
    settings = published[0].model_copy(update={"dashboard_port": 0})
    expect = sync_api.expect
    with dashboard.running(settings) as url:
        page.goto(url)
        page.locator("#sessions a").first.wait_for()
        expect(page.locator("#search")).to_be_hidden()  # there is no index
    streamer("index")
    with dashboard.running(settings) as url:
        page.goto(url)
        query = page.get_by_role("searchbox", name="Find windows")
        query.fill("ambulance behind you pedestrian in lane")
        query.press("Enter")
        links = page.locator("#hits a")
        expect(links).to_have_count(12, timeout=60_000)  # the first search loads the model
        expect(page.locator("#found-state")).to_contain_text("Most like “ambulance")
        links.first.locator("img").evaluate("image => image.decode()")  # the frame has come, whole
        links.first.focus()
        page.keyboard.press("Enter")
        expect(links.first).to_have_attribute("aria-current", "true")
        expect(page.locator("#when")).to_contain_text("window that ended")
        at_us = int(page.evaluate("location.hash").rsplit("=", 1)[1])
        session = page.locator("#name").text_content()
        want = next(one for one in found(settings, int(session[-1])) if int(one["end_us"]) == at_us)
        label = json.loads(want["outputs"])["action"]["label"]
        expect(page.locator("#heads .label")).to_have_text(label)
        page.get_by_role("link", name="Back to live").click()
        expect(page.locator("#when")).to_contain_text("last result")

        picture = io.BytesIO()
        Image.new("RGB", (160, 90), "grey").save(picture, "PNG")
        picked = {"name": "grey.png", "mimeType": "image/png", "buffer": picture.getvalue()}
        page.locator("#query-file").set_input_files(picked)
        expect(page.locator("#found-state")).to_contain_text("Most like grey.png")
        page.locator("#query-file").set_input_files(picked | {"buffer": b"no picture"})
        expect(page.locator("#found-state")).to_contain_text("the file is no picture that can be read")
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#found")).to_be_hidden()
        if folder := os.environ.get("STREAMER_TEST_PICTURES"):
            _pictures(page, url, Path(folder))


def _pictures(page: Any, url: str, folder: Path) -> None:
    """What the search looks like, for a person to judge."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, width, height in (("wide", 1280, 800), ("narrow", 390, 844)):
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            page.set_viewport_size({"width": width, "height": height})
            page.goto(url)
            page.get_by_role("searchbox", name="Find windows").fill("ambulance behind you")
            page.get_by_role("searchbox", name="Find windows").press("Enter")
            page.locator("#hits a").nth(1).click()
            page.locator("#words li").first.wait_for()
            page.wait_for_timeout(1000)
            page.screenshot(path=folder / f"{name}-{theme}.png")
