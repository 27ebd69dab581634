"""Fixtures: a real Kafka and a real Redis, and settings that keep tests apart.

By testcontainers where a Docker engine answers and has (or can pull) the images, else the embedded servers;
``STREAMER_TEST_BACKEND=docker|embedded`` forces one.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import docker
import pytest
from docker.errors import DockerException, ImageNotFound

from streamer.broker import topics as topic_admin
from streamer.local import probe
from streamer.local.process import free_port
from streamer.local.stack import Stack
from streamer.settings import Settings
from tests import wheel
from tests.harness import own_settings

ROOT = Path(__file__).parents[1]
KAFKA_IMAGE, REDIS_IMAGE = "apache/kafka:4.3.1", "redis:7.4-bookworm"
BACKENDS = ("docker", "embedded")
MAX_MESSAGE_BYTES = 8 << 20
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
PAGE_TIMEOUT_MS = 20_000


def pytest_configure() -> None:
    """Undo that a shell's background jobs ignore Ctrl-C, which the programs that tests interrupt would inherit."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_report_collectionfinish(items: list[pytest.Item]) -> str:
    """Report which servers the tests will use; unit tests alone start none, and do not look for a Docker engine."""
    needed = any({"kafka", "redis_url"} & set(getattr(item, "fixturenames", ())) for item in items)
    return f"Kafka and Redis: {backend()}" if needed else ""


@cache
def backend() -> str:
    chosen = os.environ.get("STREAMER_TEST_BACKEND")
    if chosen is not None and chosen not in BACKENDS:
        raise pytest.UsageError(f"STREAMER_TEST_BACKEND={chosen}: must be one of {', '.join(BACKENDS)}")
    return chosen or ("docker" if _engine_has_images() else "embedded")


def _engine_has_images() -> bool:
    try:
        client = docker.from_env()
    except DockerException:
        return False
    try:
        for image in (KAFKA_IMAGE, REDIS_IMAGE):
            try:
                client.images.get(image)
            except ImageNotFound:
                client.images.pull(image)
    except (DockerException, OSError):  # OSError: a registry does not answer
        return False
    finally:
        client.close()
    return True


@pytest.fixture(scope="session", autouse=True)
def _no_settings_from_outside() -> Iterator[None]:
    """Remove the user's ``STREAMER_*`` variables."""
    outside = {k: os.environ.pop(k) for k in list(os.environ) if k.startswith("STREAMER_") and "_TEST_" not in k}
    yield
    os.environ.update(outside)


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel of this checkout, as its users have it."""
    prefix = tmp_path_factory.mktemp("environment")
    wheel.install(tmp_path_factory.mktemp("dist"), prefix)
    return prefix


@pytest.fixture(scope="session")
def _servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    start = _containers if backend() == "docker" else _embedded
    with start(tmp_path_factory.mktemp("stack")) as addresses:
        yield addresses


@contextmanager
def _embedded(directory: Path) -> Iterator[tuple[str, str]]:
    with Stack(directory, MAX_MESSAGE_BYTES) as stack:
        yield stack.kafka_address, stack.redis_url


@contextmanager
def _containers(directory: Path) -> Iterator[tuple[str, str]]:
    # Ryuk, a further image, cleans up after a killed test run; the with-blocks clean up after all others.
    os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    from testcontainers.core.container import DockerContainer

    port = free_port()
    kafka = DockerContainer(KAFKA_IMAGE).with_bind_ports(port, port)
    for name, value in _kraft(port).items():
        kafka = kafka.with_env(name, value)
    redis = DockerContainer(REDIS_IMAGE).with_exposed_ports(6379)
    with kafka, redis:
        redis_address = f"{redis.get_container_host_ip()}:{redis.get_exposed_port(6379)}"
        kafka_address = f"localhost:{port}"
        settings = Settings.load(kafka=kafka_address, redis=f"redis://{redis_address}/0")
        # Docker's proxy accepts connections long before the servers do: wait for answers, not for open ports.
        _wait_until(lambda: topic_admin.answers(settings, timeout_ms=500), "Kafka")
        _wait_until(lambda: probe.pings(settings.redis), "Redis")
        yield settings.kafka, settings.redis


def _kraft(port: int) -> dict[str, str]:
    """A complete KRaft configuration: the image drops its defaults once one ``KAFKA_*`` is set."""
    return {
        "CLUSTER_ID": "4L6g3nShT-eMCtK--X86sw",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_NODE_ID": "1",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:29093",
        "KAFKA_LISTENERS": f"PLAINTEXT://0.0.0.0:{port},CONTROLLER://localhost:29093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://localhost:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_LOG_MESSAGE_TIMESTAMP_TYPE": "LogAppendTime",
        "KAFKA_MESSAGE_MAX_BYTES": str(MAX_MESSAGE_BYTES + topic_admin.DEADLETTER_MARGIN_BYTES),
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
    }


def _wait_until(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    deadline = monotonic() + within_s
    while not condition():
        assert monotonic() < deadline, f"the container of {what} does not answer after {within_s} s"
        sleep(0.1)


@pytest.fixture(scope="session")
def kafka(_servers: tuple[str, str]) -> str:
    """Bootstrap servers of a real broker."""
    return _servers[0]


@pytest.fixture(scope="session")
def redis_url(_servers: tuple[str, str]) -> str:
    """URL of a real Redis."""
    return _servers[1]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Stack]:
    """A Redis for one test alone, which may stop or configure it."""
    stack = Stack(tmp_path, 1 << 20)
    stack.start_redis()
    yield stack
    stack.stop()


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model's network with fresh weights: tests of the data path need no right predictions."""
    import torch

    from streamer.model import repository
    from streamer.model.spec import read_spec

    folder = tmp_path_factory.mktemp("models") / "driving"
    # without the calibration, which belongs to the shipped weights
    shutil.copytree(ROOT / "models" / "driving", folder, ignore=shutil.ignore_patterns("calibration.*"))
    torch.manual_seed(0)
    spec, tokenizer = read_spec(folder), repository.read_tokenizer(folder)
    repository.write(folder, repository.new_module(spec, folder, tokenizer), tokenizer, {})
    return folder


@pytest.fixture
def settings(kafka: str, redis_url: str, model_folder: Path) -> Settings:
    """Settings with unique names, so that no test meets another's topics, keys or group."""
    # On a busy test machine the append times of records of one moment may differ by most of a second.
    return own_settings(kafka, redis_url, model_folder, max_delay_ms=3000)


@pytest.fixture
def topics(settings: Settings) -> Settings:
    """The settings, with their topics made."""
    topic_admin.create(settings)
    return settings


@pytest.fixture
def browser() -> Iterator[Any]:
    """A headless Chromium; skips if there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra: dev)")
    executable = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if executable is None:
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        # as root Chromium only runs without a sandbox
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page of the browser; an error of a script or a violation of the content policy fails the test."""
    page = browser.new_page()
    page.set_default_timeout(PAGE_TIMEOUT_MS)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text) if "Content Security" in message.text else None)
    yield page
    page.close()
    assert complaints == []


@pytest.fixture
def data() -> Path:
    """Real recordings; skips where they are absent."""
    folder = Path(os.environ.get("STREAMER_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}: set STREAMER_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def senses_dir() -> Path:
    """Where networks lie that the extra does not install; tests of those that are absent skip."""
    return Path(os.environ.get("STREAMER_TEST_SENSES", ROOT / ".streamer" / "senses"))
