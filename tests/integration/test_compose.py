"""The containers of docker-compose.yml, built and run: simulated drives come out as results, through a killed worker.

Needs a Docker engine with Compose v2 and the base images; where the image is not built yet this takes minutes.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from streamer.local.process import free_port
from streamer.settings import Settings
from streamer.store.results import connected, results, sessions
from tests.conftest import PAGE_TIMEOUT_MS
from tests.harness import S_US, wait_for

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
IMAGE = "streamer:compose"
PROJECT = "streamer-test"
BASES = ("python:3.11-slim", "apache/kafka:4.3.1", "redis:7.4-bookworm", "prom/prometheus:v3.5.0")
WORKERS = {"demo": ["worker"], "split": ["align", "infer"]}
UP_S, WITHIN_S = 300, 120
COMPILERS = ("cc", "gcc", "g++", "clang", "ld", "make", "uv")

# every process of the container but the first, which would be the init that restarts nothing
KILL = "import os, signal; os.kill(-1, signal.SIGKILL)"


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
def image() -> str:
    """The image of the code as it is; only the layers that changed are built."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker on PATH")
    for needed in (("version",), ("compose", "version"), *(("image", "inspect", name) for name in BASES)):
        if subprocess.run(["docker", *needed], capture_output=True).returncode:
            pytest.skip(f"`docker {' '.join(needed)}` fails here")
    buildx = subprocess.run(["docker", "buildx", "version"], capture_output=True).returncode == 0
    docker("build", "--network", "host", "--tag", IMAGE, ".",
           env={"DOCKER_BUILDKIT": str(int(buildx))}, within_s=1500)  # fmt: skip
    return IMAGE


class Compose:
    """The containers of one profile and Prometheus, as a project on ports of its own."""

    def __init__(self, profile: str) -> None:
        self.profile = profile
        self.workers = WORKERS[profile]
        self.ports = {name: free_port() for name in ("KAFKA", "REDIS", "DASHBOARD", "PROMETHEUS")}
        self._env = {f"{name}_PORT": str(port) for name, port in self.ports.items()}
        self._settings = Settings.load(
            kafka=f"127.0.0.1:{self.ports['KAFKA']}", redis=f"redis://127.0.0.1:{self.ports['REDIS']}/0"
        )

    def __call__(self, *arguments: str) -> str:
        return docker("compose", "--project-name", PROJECT, *arguments, env=self._env, within_s=UP_S)

    def ends_us(self) -> dict[str, list[int]]:
        """Session -> ends of its windows in Redis, as they were published."""
        with connected(self._settings) as (client, keys):
            return {name: [r.end_us for r in results(client, keys, name)] for name in sessions(client, keys)}

    def windows(self) -> int:
        with connected(self._settings) as (client, keys):
            return sum(client.xlen(keys.results(name)) for name in sessions(client, keys))

    def end_offsets(self) -> dict[TopicPartition, int]:
        """Where the log of each partition of the source topics ends."""
        consumer = KafkaConsumer(bootstrap_servers=self._settings.kafka)
        try:
            partitions = [
                TopicPartition(topic, partition)
                for topic in self._settings.source_topics
                for partition in consumer.partitions_for_topic(topic) or ()
            ]
            return dict(consumer.end_offsets(partitions))
        finally:
            consumer.close()

    def containers(self) -> dict[str, dict[str, Any]]:
        """Service -> what Compose says of its container, finished ones included."""
        lines = self("ps", "--all", "--format", "json").splitlines()
        return {one["Service"]: one for one in map(json.loads, lines)}

    def scraped(self) -> set[str]:
        """Addresses of the workers that Prometheus has just scraped."""
        url = f"http://127.0.0.1:{self.ports['PROMETHEUS']}/api/v1/targets"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                targets = json.load(answer)["data"]["activeTargets"]
        except OSError:
            return set()  # Prometheus is still starting
        return {target["labels"]["instance"] for target in targets if target["health"] == "up"}


@pytest.fixture(scope="module", params=WORKERS)
def compose(image: str, request: pytest.FixtureRequest) -> Iterator[Compose]:
    compose = Compose(request.param)
    compose("--profile", "*", "down", "--volumes")
    try:
        compose("--profile", compose.profile, "up", "--detach", "--wait")
        compose("up", "--detach", "prometheus")
        yield compose
    finally:
        compose("--profile", "*", "down", "--volumes")


# the image


def test_the_image_is_not_root_writes_to_tmp_alone_and_has_no_compiler(image: str) -> None:
    def run(script: str) -> str:
        return docker("run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--entrypoint", "sh",
                      image, "-c", script).strip()  # fmt: skip

    assert run("id -u") == "10001"
    assert run(f"command -v {' '.join(COMPILERS)} || true") == ""
    assert run("touch /tmp/x && ! touch /app/x 2>/dev/null && echo so") == "so"
    # As root, so that no folder is closed: nothing that uv keeps for the next time, nor what the wheel was built from.
    left = docker("run", "--rm", "--user", "0", "--entrypoint", "find", image,
                  "/", "-xdev", "(", "-path", "/src", "-o", "-name", ".cache", ")")  # fmt: skip
    assert left == ""


@pytest.mark.parametrize(
    "command", ["status", "demo", "forms models/driving", "replay drive.mp4", "train models/driving"]
)
def test_what_the_image_has_not_installed_is_one_line(image: str, command: str) -> None:
    done = subprocess.run(
        ["docker", "run", "--rm", image, *command.split()], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert re.search(r"^streamer: .* needs? .*streamer\[\w+\]", line)


# The stack of each profile. The last of these tests takes it down.


def test_all_containers_are_healthy(compose: Compose) -> None:
    containers = compose.containers()
    served = {"kafka", "redis", "simulator", "dashboard", *compose.workers}
    assert containers.keys() == {*served, "topics", "prometheus"}
    assert {name: containers[name]["Health"] for name in served} == dict.fromkeys(served, "healthy")
    assert (containers["topics"]["State"], containers["topics"]["ExitCode"]) == ("exited", 0)


def test_every_worker_is_scraped_by_prometheus(compose: Compose) -> None:
    wait_for(lambda: len(compose.scraped()) == len(compose.workers), WITHIN_S)


def test_the_page_shows_windows(compose: Compose, page: Any) -> None:
    from playwright.sync_api import expect

    token = re.search(r"/\?token=(\S+)", compose("logs", "dashboard"))
    assert token is not None
    page.goto(f"http://127.0.0.1:{compose.ports['DASHBOARD']}/?token={token[1]}")
    page.locator("#sessions .name", has_text="sim-").first.wait_for()
    page.locator("#cameras img[src]").wait_for()
    assert page.locator("#connection").text_content() == "Live"
    window = page.locator("#fact-window").text_content()
    expect(page.locator("#fact-window")).not_to_have_text(window, timeout=PAGE_TIMEOUT_MS)  # and others come


def has_restarted(container: str, before: int) -> bool:
    return restarts(container) == before + 1


def has_windows(compose: Compose, count: int) -> bool:
    return compose.windows() >= count


def test_killed_workers_come_back_and_no_window_is_lost_or_doubled(compose: Compose) -> None:
    wait_for(lambda: compose.windows() >= 20, WITHIN_S)
    for worker in compose.workers:
        container = compose.containers()[worker]["Name"]
        before, starts = compose.windows(), restarts(container)
        # As the kernel would: by `docker kill` Docker would take it for stopped on purpose.
        subprocess.run(["docker", "exec", container, "python3", "-c", KILL], capture_output=True, timeout=60)
        wait_for(partial(has_restarted, container, starts), WITHIN_S)
        wait_for(partial(has_windows, compose, before + 40), WITHIN_S)
    compose("stop", "simulator")

    for session, ends in compose.ends_us().items():
        assert len(ends) > 20, session
        assert {after - own for own, after in pairwise(ends)} == {S_US}, f"{session}: a window is lost or doubled"


def restarts(container: str) -> int:
    return int(docker("inspect", "--format", "{{.RestartCount}}", container))


def test_data_survive_down_and_up(compose: Compose) -> None:
    wait_for(lambda: compose.windows() >= 20, WITHIN_S)
    compose("stop", "simulator", *compose.workers)
    ends_us, offsets = compose.ends_us(), compose.end_offsets()

    compose("--profile", "*", "down")
    compose("--profile", compose.profile, "up", "--detach", "--wait", "kafka", "redis")

    assert compose.ends_us() == ends_us
    assert compose.end_offsets() == offsets
    assert sum(offsets.values()) > 0
