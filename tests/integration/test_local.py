"""`up`, `down` and `status` with real servers: nothing is started twice, and nothing is left running."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from streamer.broker import topics
from streamer.errors import UsageError
from streamer.local import kafka as local_kafka
from streamer.local import stack
from streamer.local.process import free_port
from streamer.local.stack import Service, Stack, status
from streamer.settings import ENDPOINTS_FILE, Settings

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
MAX_MESSAGE_BYTES = 1 << 20


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory, and usual ports that are free; whatever a failed test leaves running there is stopped."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(stack, "USUAL_PORTS", {"kafka": free_port(), "redis": free_port()})
    yield tmp_path
    stack.down()


def running_in(folder: Path) -> list[str]:
    """Names of the processes that work on files of a folder."""
    found = []
    for process in psutil.process_iter(["name", "cwd"]):
        if (process.info["cwd"] or "").startswith(str(folder)) and process.info["name"] in ("java", "redis-server"):
            found.append(process.info["name"])
    return sorted(found)


def by_name(services: list[Service]) -> dict[str, Service]:
    return {service.name: service for service in services}


def test_up_gives_servers_that_every_command_finds_and_down_leaves_nothing_running(here: Path) -> None:
    said: list[str] = []
    services = by_name(stack.up(Settings.load(), progress=said.append))

    assert all(service.answers and service.runs_as.startswith("embedded") for service in services.values())
    settings = Settings.load()  # as the next command does
    assert (settings.kafka, settings.redis) == (services["kafka"].address, services["redis"].address)
    assert len(topics.create(settings)) == 7
    with redis.Redis.from_url(settings.redis) as client:
        client.set("kept", "yes")
    assert running_in(here) == ["java", "redis-server"]
    assert "starting Kafka" in said

    again: list[str] = []
    assert by_name(stack.up(settings, progress=again.append)) == services
    assert again == []

    assert sorted(stack.down()) == ["kafka", "redis"]
    assert running_in(here) == []
    assert not ENDPOINTS_FILE.exists()
    assert {service.runs_as for service in stack.status(Settings.load())} == {"not started"}
    assert stack.down() == []

    stack.up(Settings.load())
    settings = Settings.load()
    assert topics.check(settings) == settings.partitions  # data stay
    with redis.Redis.from_url(settings.redis) as client:
        assert client.get("kept") == b"yes"


def test_an_address_that_is_given_is_left_to_its_owner(here: Path, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_KAFKA", kafka)
    said: list[str] = []

    services = by_name(stack.up(Settings.load(), progress=said.append))

    assert "kafka is given by the settings: nothing to start" in said
    assert services["kafka"] == Service("kafka", kafka, "given by the settings", True)
    assert services["redis"].runs_as.startswith("embedded")
    assert running_in(here) == ["redis-server"]
    assert list(json.loads(ENDPOINTS_FILE.read_bytes())) == ["redis"]


def test_an_address_in_a_settings_file_counts_as_given(here: Path) -> None:
    (here / "streamer.toml").write_text('kafka = "127.0.0.1:1"\nredis = "redis://127.0.0.1:1/0"\n')

    services = stack.up(Settings.load())

    assert [(service.runs_as, service.answers) for service in services] == [("given by the settings", False)] * 2
    assert running_in(here) == []


def test_a_broker_that_cannot_start_says_why_and_leaves_nothing_running(here: Path) -> None:
    data = here / ".streamer" / "kafka-data"
    data.mkdir(parents=True)
    (data / "meta.properties").write_text("version=1\ncluster.id=other\nnode.id=7\n")

    with pytest.raises(
        UsageError, match=r"kafka ended with exit code 1; its log \S+kafka\.log ends: .*node id 7"
    ) as why:
        stack.up(Settings.load())

    assert "\n" not in str(why.value)
    assert running_in(here) == []
    assert not ENDPOINTS_FILE.exists()


def test_brokers_whose_classes_cannot_be_written_down_start_without_and_that_is_tried_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "streamer" / f"kafka-{local_kafka.VERSION}").mkdir(parents=True)  # without a single jar
    said: list[str] = []
    jars = local_kafka.jars(said.append)
    assert said[1].startswith("that failed, Kafka will start more slowly: kafka ended with exit code 1; its log ")
    assert local_kafka.jars(said.append) == jars
    assert len(said) == 2
    assert not any("AOTCache" in word for word in local_kafka.command(tmp_path, 1, 2, 1 << 20, jars))


def test_brokers_start_with_the_classes_that_a_first_one_wrote_down(tmp_path: Path) -> None:
    command = local_kafka.command(tmp_path, 1, 2, 1 << 20, local_kafka.jars(print))
    [classes] = [word.removeprefix("-XX:AOTCache=") for word in command if word.startswith("-XX:AOTCache=")]
    assert Path(classes).stat().st_size > 1 << 20


def test_a_failed_start_does_not_stop_what_ran_before(here: Path, kafka: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_KAFKA", kafka)
    stack.up(Settings.load())
    monkeypatch.delenv("STREAMER_KAFKA")
    (here / ".streamer" / "kafka-data").write_text("not a folder")

    with pytest.raises(UsageError, match=r"kafka-data: File exists$"):
        stack.up(Settings.load())

    assert running_in(here) == ["redis-server"]


def test_a_port_that_somebody_else_took_meanwhile_is_replaced(
    here: Path, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_KAFKA", kafka)
    stack.up(Settings.load())
    before = Settings.load().redis
    stack.down()
    with socket.create_server(("127.0.0.1", int(before.rsplit(":", 1)[1].split("/")[0]))):
        services = by_name(stack.up(Settings.load()))

    assert services["redis"].answers
    assert services["redis"].address != before


def test_up_takes_usual_ports_where_they_are_free(here: Path) -> None:
    said: list[str] = []
    services = by_name(stack.up(Settings.load(), progress=said.append))

    usual = stack.USUAL_PORTS
    assert services["kafka"].address == f"127.0.0.1:{usual['kafka']}"
    assert services["redis"].address == f"redis://127.0.0.1:{usual['redis']}/0"
    assert not any("export" in line for line in said)


def test_where_a_usual_port_is_taken_up_prints_what_to_export_until_it_is_free(
    here: Path, kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMER_KAFKA", kafka)
    usual, said = stack.USUAL_PORTS["redis"], list[str]()
    with socket.create_server(("127.0.0.1", usual)):
        address = by_name(stack.up(Settings.load(), progress=said.append))["redis"].address
        again: list[str] = []
        stack.up(Settings.load(), progress=again.append)

    assert f":{usual}/" not in address
    assert said[-2:] == [
        "not on the usual port: redis; other folders and programs find these servers with",
        f"export STREAMER_REDIS={address}",
    ]
    pasted = subprocess.run(["sh", "-c", f"{said[-1]}; echo $STREAMER_REDIS"], capture_output=True, text=True)
    assert pasted.stdout == f"{address}\n"
    assert again[-2:] == said[-2:]
    assert "starting Redis" not in again

    stack.down()
    assert f":{usual}/" in by_name(stack.up(Settings.load()))["redis"].address


def test_a_process_that_was_given_the_same_pid_is_not_taken_for_ours(here: Path) -> None:
    (here / ".streamer").mkdir()
    (here / ".streamer" / "redis.pid").write_text(json.dumps({"pid": psutil.Process().pid, "created": 1.0}))

    assert stack.down() == []  # and this test still runs


def test_a_stack_keeps_port_and_data_when_one_server_is_killed_and_started_again(tmp_path: Path) -> None:
    with Stack(tmp_path, MAX_MESSAGE_BYTES) as stack:
        addresses = stack.addresses
        settings = Settings.load(**addresses, partitions=1, max_message_bytes=MAX_MESSAGE_BYTES)
        topics.create(settings)
        with redis.Redis.from_url(stack.redis_url) as client:
            client.set("kept", "yes")

        stack.redis.kill()
        stack.kafka.kill()
        assert not any(service.answers for service in status(settings))
        stack.start_redis()
        stack.start_kafka()

        assert stack.addresses == addresses
        assert topics.check(settings) == 1
        with redis.Redis.from_url(stack.redis_url) as client:
            assert client.get("kept") == b"yes"

        stack.kafka.pause()
        assert not topics.answers(settings, timeout_ms=500)
        stack.kafka.resume()
        assert topics.answers(settings, timeout_ms=5_000)
        stack.redis.pause()  # a paused server is stopped like any other
    assert stack.kafka.process is None
    assert stack.redis.process is None


@pytest.fixture
def compose_project(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The project's compose file with an unused name and free ports; skips where no engine could run it."""
    images = ["apache/kafka:4.3.1", "redis:7.4-bookworm"]
    for needs in (["compose", "version"], ["image", "inspect", *images]):
        if shutil.which("docker") is None or subprocess.run(["docker", *needs], capture_output=True).returncode:
            pytest.skip(f"`docker {' '.join(needs)}` fails here")
    shutil.copy(ROOT / "docker-compose.yml", here)
    monkeypatch.setenv("COMPOSE_PROJECT_NAME", f"streamer-test-{free_port()}")
    monkeypatch.setenv("KAFKA_PORT", str(free_port()))
    monkeypatch.setenv("REDIS_PORT", str(free_port()))
    yield
    subprocess.run(["docker", "compose", "down", "--volumes"], check=True, capture_output=True)


@pytest.mark.usefixtures("compose_project")
def test_docker_gives_the_same_servers_in_containers_that_down_removes(here: Path) -> None:
    services = stack.up(Settings.load(), docker=True)

    assert [(service.runs_as, service.answers) for service in services] == [("docker", True)] * 2
    settings = Settings.load()
    assert settings.kafka == f"127.0.0.1:{os.environ['KAFKA_PORT']}"
    assert len(topics.create(settings)) == 7
    with redis.Redis.from_url(settings.redis) as client:
        client.set("kept", "yes")
        assert client.config_get("append*")["appendfsync"] == "everysec"
    assert stack.up(settings, docker=True) == services
    with pytest.raises(UsageError, match=r"containers .* are running; stop them with `streamer down` first"):
        stack.up(settings)

    assert stack.down() == ["kafka", "redis"]
    assert {service.runs_as for service in stack.status(Settings.load())} == {"not started"}

    stack.up(Settings.load(), docker=True)
    settings = Settings.load()
    assert topics.check(settings) == settings.partitions  # data stay
    with redis.Redis.from_url(settings.redis) as client:
        assert client.get("kept") == b"yes"


@pytest.mark.usefixtures("compose_project")
def test_containers_that_cannot_start_say_why_and_leave_nothing_running(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("REDIS_PORT", str(taken.getsockname()[1]))
        said = r"the containers did not become healthy: .*(port|address already in use)"
        with pytest.raises(UsageError, match=said) as why:
            stack.up(Settings.load(), docker=True)
    assert "\n" not in str(why.value)
    left = subprocess.run(["docker", "compose", "ps", "--all", "--quiet"], check=True, capture_output=True)
    assert left.stdout == b""
    assert not ENDPOINTS_FILE.exists()


def test_docker_is_refused_in_one_line_where_there_is_none(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "docker-compose.yml").touch()
    monkeypatch.setenv("PATH", str(here))
    with pytest.raises(UsageError, match=r"^there is no `docker` on PATH; install Docker, or leave out --docker$"):
        stack.up(Settings.load(), docker=True)


def test_an_engine_that_does_not_answer_is_one_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "docker-compose.yml").touch()
    command = here / "docker"
    command.write_text(
        '#!/bin/sh\n[ "$1" = compose ] && exit 0\necho "Cannot connect to the Docker daemon" >&2\nexit 1\n'
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{here}:/usr/bin:/bin")
    with pytest.raises(UsageError, match=r"^no Docker engine answers; .* leave out --docker: Cannot connect") as no:
        stack.up(Settings.load(), docker=True)
    assert "\n" not in str(no.value)
    assert {service.runs_as for service in stack.status(Settings.load())} == {"not started"}


def test_free_ports_lie_below_those_of_outgoing_connections() -> None:
    assert all(20_000 <= free_port() < 32_000 for _ in range(50))
