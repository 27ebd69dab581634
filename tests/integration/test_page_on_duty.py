"""The page as people on duty use it: 60 sessions in a real Redis, of which a few matter."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis.asyncio

from streamer import dashboard
from streamer.events import Position
from streamer.observe.health import Service
from streamer.result import Result
from streamer.settings import Settings
from streamer.store.publish import Publication, Publisher
from streamer.store.results import Keys, connected
from tests.conftest import PAGE_TIMEOUT_MS

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")

pytestmark = pytest.mark.integration

expect = sync_api.expect
expect.set_options(timeout=PAGE_TIMEOUT_MS)

S_US = 1_000_000
SESSIONS = [f"car-{number}" for number in range(1, 61)]
SEVERITIES = {"hold": "normal", "creep": "notice", "brake": "warning", "stop": "alarm"}
DECIDED: dict[str, dict[str, Any]] = {  # of the others: hold
    "car-57": {"label": "stop"},
    "car-9": {"label": "stop", "unsure": True},
    "car-33": {"label": "brake"},
    "car-40": {"label": "brake"},
    "car-21": {"label": "creep"},
}
BY_SEVERITY = ["car-57", "car-9", "car-33", "car-40", "car-30", "car-21", "car-50", "car-1"]
LIT = """(canvas, share) => {  // is there anything above the floor of a lane, so far from its left edge?
  const [x, high] = [Math.round(canvas.width * share), Math.max(1, Math.floor(canvas.height * 0.4))];
  const { data } = canvas.getContext("2d").getImageData(x, 0, Math.ceil(canvas.width / 60), high);
  return data.some((value) => value > 0);
}"""


def result(session: str, end_us: int, label: str = "hold", *, unsure: bool = False, **changed: Any) -> Result:
    scores = dict.fromkeys(SEVERITIES, 0.03) | {label: 0.9}
    said = {"label": label, "score": 0.9, "scores": scores, "severity": SEVERITIES[label]}
    values: dict[str, Any] = {
        "session": session,
        "start_us": end_us - S_US,
        "end_us": end_us,
        "closed_by": "complete",
        "present": ("telemetry",),
        "coverage": {"telemetry": 1.0},
        "members": {},
        "outputs": {"action": said | ({"unsure": True} if unsure else {})},
        "embedding": b"",
        "model": "driving",
        "version": "1",
        "status": "ok",
        "latencies_us": {"total": 20_000},
    }
    return Result(**values | changed)


def publish(settings: Settings, results: Sequence[Result]) -> None:
    """As a worker does."""

    async def go() -> None:
        client = redis.asyncio.Redis.from_url(settings.redis)
        publisher = Publisher(client, Keys(settings.key_prefix), Service("Redis", int), maxlen=1000)
        final = [one for one in results if one.final]
        places = [Position(one.end_us, 0, number) for number, one in enumerate(final)]
        await publisher.publish(
            [Publication(one, at, (0, 0, 0, 0), "rules", 0) for one, at in zip(final, places, strict=True)]
        )
        await publisher.show([one for one in results if not one.final])
        await client.aclose()

    with ThreadPoolExecutor(1) as thread:  # Playwright's loop runs in this one
        thread.submit(asyncio.run, go()).result()


def a_minute(now_us: int) -> list[Result]:
    """Of every session; the first one stopped 50 s ago."""
    found = [result("car-1", now_us - s * S_US, "stop" if s == 50 else "hold") for s in range(59, 0, -1)]
    for name in SESSIONS:
        status = {"car-30": "failed", "car-50": "empty"}.get(name)
        if status is None:
            found.append(result(name, now_us, **DECIDED.get(name, {})))
        else:
            found.append(result(name, now_us, outputs={}, status=status))
    return found


def test_what_matters_is_on_top_and_stays_and_the_keyboard_finds_the_rest(topics: Settings, page: Any) -> None:
    settings = topics.model_copy(update={"dashboard_port": 0})
    now_us = int(time.time()) * S_US
    publish(topics, a_minute(now_us))
    with connected(topics) as (client, keys):  # the last sign of life of a worker
        client.xadd(keys.workers("all"), {"role": "all"}, id="1750000000000-0")
    names = page.locator("#sessions .name")

    def first(count: int) -> list[str]:
        return [str(name) for name in names.all_text_contents()[:count]]

    def chip(session: str) -> Any:
        return page.locator(f'#sessions li:has(.name[title="{session}"]) .severity')

    with dashboard.running(settings) as url:
        page.goto(f"{url}#session=car-1")
        expect(names).to_have_count(60)
        assert first(8) == BY_SEVERITY
        expect(page.locator("#totals")).to_contain_text("60 sessions")
        expect(page.locator("#totals")).to_contain_text("2 alarms, 2 warnings")
        expect(page.locator("#workers")).to_contain_text("No worker answers since Jun 15, 2025 ")
        assert [chip(name).text_content() for name in BY_SEVERITY[:3]] == ["alarm", "alarm?", "warning"]
        looks = [chip(name).evaluate("node => getComputedStyle(node).borderStyle") for name in BY_SEVERITY[:2]]
        assert looks == ["solid", "dashed"]
        expect(page.locator("#when")).to_contain_text("newest event")

        # what was before the page was opened is in the lanes
        lane = page.locator(".lane", has=page.locator('.label[title="stop"]')).locator("canvas")
        expect(lane).to_have_count(1)
        assert lane.evaluate(LIT, 9.5 / 60)
        assert not lane.evaluate(LIT, 30 / 60)

        # an early alarm counts at once, and does not look like a sure one; what is over keeps its place for a while
        publish(topics, [result("car-44", now_us + S_US, "stop", final=False)])
        expect(chip("car-44")).to_have_text("alarm?")
        assert first(3) == ["car-57", "car-9", "car-44"]
        publish(topics, [result("car-44", now_us + S_US, "stop"), result("car-57", now_us + S_US)])
        expect(chip("car-44")).to_have_text("alarm")
        expect(chip("car-57")).to_be_hidden()
        assert first(3) == ["car-44", "car-57", "car-9"]
        expect(page.locator("#sessions li", has_text="was alarm").locator(".name")).to_have_text(["car-57"])

        # by keyboard: the filter, and from there into the list
        page.keyboard.press("f")
        page.keyboard.type("brake")
        expect(names).to_have_text(["car-33", "car-40"])
        expect(page.locator("#filter-state")).to_have_text("2 of 60 shown")
        page.keyboard.press("Tab")
        page.keyboard.press("Tab")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.locator("#name")).to_have_text("car-40")
        page.locator("#filter-text").fill("")
        page.locator("#filter-severity").select_option("warning")
        expect(names).to_have_count(5)
        page.locator("#filter-severity").select_option("")
        page.locator("#filter-severity").blur()
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.type") == "search"


def test_times_are_those_of_the_browser_or_utc_as_somebody_chooses(topics: Settings, browser: Any) -> None:
    settings = topics.model_copy(update={"dashboard_port": 0})
    end_us = int(time.time()) * S_US
    publish(topics, [result("car-1", end_us)])
    shown = [time.strftime("%H:%M:%S", time.gmtime(end_us / S_US - 1 + 3600 * ahead)) for ahead in (9, 0)]
    with dashboard.running(settings) as url:
        page = browser.new_page(timezone_id="Asia/Tokyo")
        page.goto(url)
        expect(page.locator("#fact-window")).to_contain_text(shown[0])
        expect(page.locator("#zone")).to_have_text("Times: Asia/Tokyo, UTC+9")
        page.locator("#zone").click()
        expect(page.locator("#zone")).to_have_text("Times: UTC")
        expect(page.locator("#fact-window")).to_contain_text(shown[1])
        page.close()
