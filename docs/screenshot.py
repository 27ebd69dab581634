"""Takes the pictures of the live page: the whole system runs for a minute, then a browser looks at it.

    python docs/screenshot.py                       docs/screenshot.png
    python docs/screenshot.py --all FOLDER          wide and narrow, light and dark, and the page without sessions

Needs the ``dev`` and ``local`` extras and a Chromium: one on PATH, or ``playwright install chromium``.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from kafka import KafkaProducer
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from streamer import dashboard
from streamer.broker import topics
from streamer.demo.run import Feed
from streamer.events import IMAGE
from streamer.feeds import Outgoing, simulate
from streamer.feeds.producer import headers
from streamer.local.stack import Stack
from streamer.local.worker import WorkerProcess
from streamer.settings import Settings

HERE = Path(__file__).parent
LENGTH_S, SHOWN_AFTER_S = 120, 58
SEED = 2011
CARS = ("cab-12", "cab-7", "shuttle-3", "truck-41")
WIDE, NARROW = (1280, 800), (390, 844)


def main() -> None:
    """Take what the command line asks for."""
    parser = argparse.ArgumentParser(description="Pictures of the live page.")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="every kind of picture, into this folder")
    folder = parser.parse_args().all
    with system() as (settings, url), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            take(browser, url, folder / "empty.png", WIDE, "light")
        with drives(settings):
            time.sleep(SHOWN_AFTER_S)
            if folder is None:
                take(browser, url, HERE / "screenshot.png", WIDE, "light")
            else:
                for theme in ("light", "dark"):
                    take(browser, url, folder / f"wide-{theme}.png", WIDE, theme)
                    take(browser, url, folder / f"narrow-{theme}.png", NARROW, theme, whole=True)
        browser.close()


@contextmanager
def system() -> Iterator[tuple[Settings, str]]:
    """Kafka, Redis, a worker and the page; gives the page's address."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = stack.enter_context(Stack(folder, 8 << 20))
        settings = Settings.load(
            kafka=servers.kafka_address, redis=servers.redis_url, dashboard_port=0, model=HERE.parent / "models/driving"
        )
        topics.create(settings)
        stack.enter_context(WorkerProcess(settings, folder / "worker.log")).wait_ready()
        yield settings, stack.enter_context(dashboard.running(settings))


@contextmanager
def drives(settings: Settings) -> Iterator[None]:
    """Cars on the road, and one whose camera sends what is no picture."""
    start_us = (time.time_ns() // 1_000_000_000 + 1) * 1_000_000
    fleet = [simulate.Drive(SEED * 1000 + number, name, start_us, LENGTH_S) for number, name in enumerate(CARS)]
    with Feed(settings, simulate.outgoing(fleet), start_us, "the simulated drives"):
        now_us = time.time_ns() // 1000
        refused = Outgoing(IMAGE, "shuttle-3", now_us, b"raw", "image/x-raw", now_us)
        # with a plain client: our own Producer does not send what a worker would refuse
        client = KafkaProducer(bootstrap_servers=settings.kafka)
        for _ in range(3):
            client.send(settings.source_topics[IMAGE], b"raw", b"shuttle-3", headers(refused))
        client.close()
        yield


def take(browser: Browser, url: str, path: Path, size: tuple[int, int], theme: str, whole: bool = False) -> None:
    """One picture, in the fewest colours that look the same: a PNG of them is a third of the size."""
    page = browser.new_page(
        viewport={"width": size[0], "height": size[1]}, color_scheme=theme, device_scale_factor=1 if size == WIDE else 2
    )
    page.goto(url)
    page.wait_for_timeout(6_000)
    page.screenshot(path=path, full_page=whole)
    page.close()
    with Image.open(path) as image:
        image.convert("RGB").quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main()
