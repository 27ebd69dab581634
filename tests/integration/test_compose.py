"""The containers of docker-compose.yml, built and run: simulated drives come out as results, through a killed worker.

Needs a Docker engine with Compose v2 and the base images; where the image is not built yet this takes minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from streamer.local.process import free_port
from streamer.results import connected, results, sessions
from streamer.settings import Settings

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
PROJECT = "streamer-test"
BASES = ("python:3.11-slim", "apache/kafka:4.3.1", "redis:7.4-bookworm", "prom/prometheus:v3.5.0")
UP_S = 300
S_US = 1_000_000
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")


def docker(*arguments: str, env: dict[str, str] | None = None, within_s: float = 60) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=within_s,
    )
    assert done.returncode == 0, f"docker {' '.join(arguments)}:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def image() -> None:
    """``streamer:compose`` of the code as it is; only the layers that changed are built."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker on PATH")
    for needed in (("version",), ("compose", "version"), *(("image", "inspect", name) for name in BASES)):
        if subprocess.run(["docker", *needed], capture_output=True).returncode:
            pytest.skip(f"`docker {' '.join(needed)}` fails here")
    buildx = subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0
    docker("build", "--network", "host", "--tag", "streamer:compose", ".",
           env={"DOCKER_BUILDKIT": str(int(buildx))}, within_s=1500)  # fmt: skip


class Compose:
    """One project of containers on ports of its own."""

    def __init__(self) -> None:
        self.ports = {name: free_port() for name in ("KAFKA", "REDIS", "DASHBOARD", "PROMETHEUS")}
        self._env = {f"{name}_PORT": str(port) for name, port in self.ports.items()}
        self.settings = Settings.load(redis=f"redis://127.0.0.1:{self.ports['REDIS']}/0")

    def __call__(self, *arguments: str) -> str:
        return docker("compose", "--project-name", PROJECT, *arguments, env=self._env, within_s=UP_S)

    def ends_us(self) -> dict[str, list[int]]:
        """Session -> ends of its windows in Redis, as they were published."""
        with connected(self.settings) as (client, keys):
            return {name: [r.end_us for r in results(client, keys, name)] for name in sessions(client, keys)}


@pytest.fixture
def compose(image: None) -> Iterator[Compose]:
    compose = Compose()
    compose("--profile", "*", "down", "--volumes")
    yield compose
    compose("--profile", "*", "down", "--volumes")


def wait_for(what: str, check: Callable[[], Any], within_s: float = 120) -> Any:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(1)
    raise AssertionError(f"not within {within_s:.0f} s: {what}")


def windows(compose: Compose) -> int:
    return sum(map(len, compose.ends_us().values()))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("profile", "workers"), [("demo", ["worker"]), ("split", ["align", "infer"])])
def test_the_stack_comes_up_shows_what_it_does_and_loses_nothing_with_a_killed_worker(
    compose: Compose, profile: str, workers: list[str]
) -> None:
    compose("--profile", profile, "up", "--detach", "--wait")
    compose("up", "--detach", "prometheus")
    wait_for("windows in Redis", lambda: windows(compose) >= 20)

    wait_for("targets up in Prometheus", lambda: up_targets(compose) == len(workers))
    look_at_the_page(compose)

    for worker in workers:
        before = windows(compose)
        started = compose("ps", "--format", "{{.Name}}", worker).strip()
        # As the kernel would: by `docker kill` Docker would take it for stopped on purpose.
        subprocess.run(["docker", "exec", started, "python3", "-c", KILL], capture_output=True, timeout=60)
        wait_for(f"{worker} is restarted", lambda name=started: restarts(name) == 1)
        wait_for(f"windows after {worker} was killed", lambda n=before: windows(compose) >= n + 40)
    compose("stop", "simulator")

    for session, ends in compose.ends_us().items():
        assert len(ends) > 20, session
        assert {after - own for own, after in pairwise(ends)} == {S_US}, f"{session}: a window is lost or doubled"

    compose("--profile", "*", "down")  # and its data stay
    kept = "up", "--detach", "--wait", "kafka", "redis"
    compose(*kept)
    assert windows(compose) >= before + 40
    compose("--profile", profile, "run", "--rm", "topics")  # finds them as they were, or fails


# every process of the container but the first, which would be the init that restarts nothing
KILL = "import os, signal; os.kill(-1, signal.SIGKILL)"


def restarts(container: str) -> int:
    return int(docker("inspect", "--format", "{{.RestartCount}}", container))


def up_targets(compose: Compose) -> int:
    url = f"http://127.0.0.1:{compose.ports['PROMETHEUS']}/api/v1/targets"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            targets = json.load(answer)["data"]["activeTargets"]
    except OSError:
        return 0  # Prometheus is still starting
    return sum(target["health"] == "up" for target in targets)


def look_at_the_page(compose: Compose) -> None:
    executable = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if executable is None:
        return
    token = re.search(r"/\?token=(\S+)", compose("logs", "dashboard"))
    assert token is not None
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{compose.ports['DASHBOARD']}/?token={token[1]}")
        sync_api.expect(page.locator("body")).to_contain_text("sim-", timeout=30_000)
        browser.close()
