"""Every example, run as its first lines say: a model of one's own is trained and served, and devices send to it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from streamer.broker import topics as topic_admin
from streamer.local.worker import environment
from streamer.settings import Settings
from tests.harness import own_settings, results, running_worker, wait_for

pytestmark = pytest.mark.integration

EXAMPLES = Path(__file__).parents[2] / "examples"
UNREACHABLE = ("ENOTFOUND", "EAI_AGAIN", "ETIMEDOUT", "ECONNREFUSED", "ECONNRESET", "ENETUNREACH", "ERR_SOCKET_TIMEOUT")
WITHIN_S = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the examples, and pictures that a camera could take."""
    copy = tmp_path_factory.mktemp("examples")
    shutil.copytree(EXAMPLES, copy, dirs_exist_ok=True)
    for name, colour in (("red.jpg", (220, 30, 20)), ("green.jpg", (20, 200, 60))):
        Image.new("RGB", (64, 48), colour).save(copy / name)
    return copy


@pytest.fixture(scope="module")
def model(folder: Path) -> Path:
    """The commands of the README, as far as the worker."""
    commands = [line.split() for line in (EXAMPLES / "README.md").read_text("utf-8").splitlines()]
    commands = [words for words in commands if words[:2] == ["python", "make_data.py"] or words[:1] == ["streamer"]]
    assert [words[1] for words in commands] == ["make_data.py", "train", "evaluate"]
    for program, *arguments in commands:
        run(folder / "own_model", sys.executable, *(["-m", "streamer"] if program == "streamer" else []), *arguments)
    return folder / "own_model" / "lights"


@pytest.fixture(scope="module")
def served(kafka: str, redis_url: str, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings of a worker that serves this model."""
    settings = own_settings(kafka, redis_url, model, max_delay_ms=3000)
    topic_admin.create(settings)
    with running_worker(settings, tmp_path_factory.mktemp("worker") / "worker.log"):
        yield settings


def variables(settings: Settings | None = None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STREAMER_")}
    return kept | (environment(settings) if settings else {})


def run(folder: Path, *command: str, settings: Settings | None = None) -> str:
    done = subprocess.run(
        command, cwd=folder, env=variables(settings), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def lights(settings: Settings, session: str) -> list[str]:
    found = results(settings.redis, settings, session)
    return [json.loads(fields["outputs"])["light"]["label"] for fields in found if b"image" in fields["present"]]


def has_seen(settings: Settings, session: str, wanted: list[str]) -> bool:
    return lights(settings, session) == wanted


def test_a_device_sends_and_what_the_model_said_is_read(folder: Path, served: Settings) -> None:
    run(folder, sys.executable, "send_from_device.py", "räume/7", "red.jpg", settings=served)
    # A session of 3 s begins within a window: 3 or 4 windows have frames.
    wait_for(lambda: len(lights(served, "r%C3%A4ume%2F7")) >= 3, WITHIN_S)
    printed = run(folder, sys.executable, "read_results.py", "räume/7", settings=served).splitlines()
    assert sum(" image" in line and '"light": {"label": "red"' in line for line in printed) >= 3
    assert all(line.endswith("} 8 numbers") for line in printed)


class Webhook(BaseHTTPRequestHandler):
    """Keeps what it is sent."""

    got: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []
    handler = type("Handler", (Webhook,), {"got": got})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", got
        server.shutdown()
        thread.join()


def test_a_webhook_is_called_for_the_label_and_for_no_other(
    folder: Path, served: Settings, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    address, got = webhook
    command = [sys.executable, "react.py", "light=green", address]
    with subprocess.Popen(command, cwd=folder, env=variables(served), stdout=subprocess.PIPE, text=True) as listener:
        try:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "listening\n"
            for session, picture in (("stops", "red.jpg"), ("goes", "green.jpg")):
                run(folder, sys.executable, "send_from_device.py", session, picture, settings=served)
            wait_for(lambda: len(got) >= 3, WITHIN_S)
            wait_for(lambda: len(lights(served, "stops")) >= 3, WITHIN_S)
        finally:
            listener.kill()
    assert {(one["session"], one["light"]) for one in got} == {("goes", "green")}


def test_a_device_in_another_language_sends_what_a_worker_takes(folder: Path, served: Settings) -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not on PATH")
    place = folder / "send_from_node"
    install = ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--prefer-offline"]
    done = subprocess.run(install, cwd=place, capture_output=True, text=True, timeout=120, check=False)
    if any(reason in done.stderr for reason in UNREACHABLE):
        pytest.skip(f"npm's registry cannot be reached: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stderr
    sessions = [f"räume/{number}" for number in range(6)]  # of which each partition gets some, if murmur2 is right
    for session in sessions:
        run(place, "node", "send.js", session, str(folder / "red.jpg"), settings=served)
    for number in range(len(sessions)):
        wait_for(partial(has_seen, served, f"r%C3%A4ume%2F{number}", ["red"]), WITHIN_S)
