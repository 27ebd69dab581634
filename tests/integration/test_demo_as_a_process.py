"""The demo and the commands around it, as processes, on a real Kafka and a real Redis."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from streamer.local.worker import environment
from streamer.settings import Settings
from tests.harness import wait_for
from tests.monitor import monitoring

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """With the model that is shipped: what it says matters here."""
    return settings.model_copy(update={"model": ROOT / "models" / "driving"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty working directory with the models."""
    (tmp_path / "models").symlink_to(ROOT / "models")
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "streamer", *arguments]


def streamer(
    settings: Settings, folder: Path, *arguments: str, within_s: float = 120
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        cwd=folder,
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )


def documents(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def demo(settings: Settings, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A demo that has just been started."""
    process = subprocess.Popen(
        command("demo", "--headless", "--seconds", "60", "--sessions", "1"),
        cwd=folder,
        env=os.environ | environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    process.terminate()  # a kill would leave its worker behind
    process.communicate(timeout=30)


def worker_pid(demo: subprocess.Popen[str]) -> int:
    """The demo's worker, once records flow."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if line.startswith("driving"):
            (child,) = psutil.Process(demo.pid).children()
            return int(child.pid)
    raise AssertionError(demo.communicate())


def test_the_demo_loses_nothing_knows_what_it_sees_and_its_results_can_be_read(
    settings: Settings, folder: Path
) -> None:
    done = streamer(settings, folder, "demo", "--headless", "--seconds", "8", "--sessions", "2", "--json", "out.json")
    assert done.returncode == 0, done
    outcome = json.loads((folder / "out.json").read_text())
    assert outcome["windows"] >= 16
    assert (outcome["lost_windows"], outcome["dead_letters"], outcome["failed_windows"]) == (0, 0, 0)
    assert outcome["accuracy"] >= 0.8  # of 16 windows; the model's card has the measured quality
    assert outcome["present"]["image"] == outcome["present"]["audio"] == 1.0
    assert set(outcome["closed_by"]) <= {"complete", "deadline", "end"}
    assert "0 of 16 lost" in done.stdout

    unknown = streamer(settings, folder, "results", "--session", "nobody")
    (line,) = unknown.stderr.splitlines()
    session = line.rsplit(" ", 1)[1]
    printed = streamer(settings, folder, "results", "--session", session, "--json", "--limit", "3")
    shown = documents(printed.stdout)
    assert [one["session"] for one in shown] == [session] * 3
    assert [one["end_us"] for one in shown] == sorted(one["end_us"] for one in shown)

    assert streamer(settings, folder, "deadletters").stderr == "no dead letters\n"
    assert streamer(settings, folder, "forget", session).returncode == 0
    assert streamer(settings, folder, "results", "--session", session).returncode == 1


def test_a_demo_fires_no_alert(demo: subprocess.Popen[str], tmp_path: Path) -> None:
    (tmp_path / "prometheus").mkdir()
    with monitoring(tmp_path / "prometheus") as monitor:
        monitor.watch(int(psutil.Process(worker_pid(demo)).environ()["STREAMER_PORT"]))
        wait_for(lambda: monitor.scraped() == 1, 30)
        time.sleep(20)
        assert monitor.query("streamer_results_total")
        assert monitor.fired() == set()


def test_an_interrupted_demo_stops_what_it_started_and_says_nothing(demo: subprocess.Popen[str]) -> None:
    pid = worker_pid(demo)
    demo.send_signal(signal.SIGINT)
    _, err = demo.communicate(timeout=30)
    assert (demo.returncode, err) == (130, "")
    assert not psutil.pid_exists(pid)


def test_when_the_worker_dies_the_demo_says_so_with_the_end_of_its_log(demo: subprocess.Popen[str]) -> None:
    os.kill(worker_pid(demo), signal.SIGKILL)
    _, err = demo.communicate(timeout=30)
    assert demo.returncode == 1
    assert err.startswith("streamer: the worker ended with code -9; the end of .streamer/worker.log:\n")
    assert "ready: role all" in err


def test_watch_writes_each_result_at_once_and_ends_cleanly_when_its_reader_leaves(
    demo: subprocess.Popen[str], settings: Settings, folder: Path
) -> None:
    watching = subprocess.Popen(
        command("watch", "--json"),
        cwd=folder,
        env=os.environ | environment(settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    pid = worker_pid(demo)
    with watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        first = json.loads(watching.stdout.readline())
        assert first["closed_by"] in ("complete", "deadline")
        watching.stdout.close()  # as `head -1` does
        assert watching.wait(20) == 0
        assert watching.stderr.read() == b""
    demo.terminate()  # a plain kill stops its worker too
    demo.communicate(timeout=30)
    assert demo.returncode == 128 + signal.SIGTERM
    assert not psutil.pid_exists(pid)


def test_a_film_is_seen_heard_described_spoken_of_and_found(settings: Settings, folder: Path, data: Path) -> None:
    fetched = os.environ.get("STREAMER_TEST_SENSES")
    if fetched is None or shutil.which("espeak-ng") is None:
        pytest.skip("needs espeak-ng, and the fetched senses' folder in STREAMER_TEST_SENSES")
    changed = {
        "senses_dir": Path(fetched),
        "senses": {"synthesis": "espeak-ng"},
        "dashboard_port": 0,
        "sensors": {"text": {"max_delay_ms": 40_000}},  # words are late on a busy machine
    }
    patient = Settings.load(**settings.model_dump(exclude_unset=True) | changed)
    film = str(data / "grid" / "bbaf2n.mpg")
    ran = streamer(patient, folder, "demo", "--film", film, "--headless", "--json", "film.json", within_s=400)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    found = json.loads((folder / "film.json").read_text())
    assert found["objects"]["person"] == found["windows"] == 3  # the last one is partly filled
    assert found["sounds"]["speech"] >= 1
    assert found["late_events"] == 0
    assert "two now" in " ".join(found["phrases"]).lower()  # bin blue at F two now
    assert len(found["descriptions"]) == found["windows"]
    assert "In view: person." in found["said"]
    assert found["query"] == "person and speech"
    assert found["hits"][0]["similarity"] > 0.5
