"""Real recordings, replayed by the command line to a worker on a real Kafka and a real Redis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from streamer.events import TOPIC_DEADLETTER
from streamer.settings import Settings
from tests.harness import S_US, WorkerProcess, read_topic, replay, results, running_worker, wait_for
from tests.recordings import film, wav

pytestmark = pytest.mark.integration


@pytest.fixture
def worker(topics: Settings, tmp_path: Path) -> Iterator[WorkerProcess]:
    with running_worker(topics, tmp_path / "worker.log") as running:
        yield running


def windows(settings: Settings, session: str, path: Path, count: int, speed: float = 0) -> list[dict[str, Any]]:
    """Replay a file; its results, one for each second that it lasts."""
    done = replay(settings, path, "--speed", speed, "--session", session)
    assert done.returncode == 0, done.stderr
    assert f"records of the session {session}" in done.stderr
    wait_for(lambda: len(results(settings.redis, settings, session)) >= count, 60.0)
    found = results(settings.redis, settings, session)
    assert len(found) == count
    starts = [int(r["start_us"]) for r in found]
    assert [start - starts[0] for start in starts] == [i * S_US for i in range(len(starts))]
    assert {r["status"] for r in found} == {b"ok"}
    return found


def present(found: list[dict[str, Any]]) -> list[set[bytes]]:
    return [set(r["present"].split(b",")) for r in found]


def test_a_gopro_film_is_aligned_with_its_sound_and_telemetry(
    topics: Settings, worker: WorkerProcess, data: Path
) -> None:
    found = windows(topics, "gopro", data / "gopro" / "max-heromode.mp4", math.ceil(10.543))
    assert all({b"image", b"audio", b"telemetry"} <= there for there in present(found)[:-1])
    assert worker.metric("streamer_events_total", outcome="late") == 0
    assert not read_topic(topics, topics.topic(TOPIC_DEADLETTER))


def test_text_is_present_where_a_film_has_subtitles(topics: Settings, worker: WorkerProcess, data: Path) -> None:
    found = windows(topics, "nasa", data / "nasa" / "nasa_13013.mp4", math.ceil(13.056))
    # somebody speaks from 0.21 s to the end; the last frame is from before the last window
    assert present(found) == [{b"image", b"audio", b"text"}] * 13 + [{b"audio", b"text"}]
    assert worker.metric("streamer_events_total", outcome="late") == 0
    assert not read_topic(topics, topics.topic(TOPIC_DEADLETTER))


def test_a_silent_sound_track_is_present(topics: Settings, worker: WorkerProcess, data: Path) -> None:
    found = windows(topics, "driving", data / "driving" / "solidWhiteRight.mp4", math.ceil(8.84))
    assert all(there == {b"image", b"audio"} for there in present(found))
    assert not read_topic(topics, topics.topic(TOPIC_DEADLETTER))


def test_at_its_own_pace_a_recording_begins_now_and_long_subtitles_are_in_time(
    topics: Settings, worker: WorkerProcess, tmp_path: Path
) -> None:
    path = film(tmp_path / "film.mp4", seconds=5, cues=[(0.0, 5.0, "one two three four five six seven eight nine ten")])
    found = windows(topics, "live", path, 5, speed=1)
    assert all({b"image", b"audio", b"text"} <= there for there in present(found)[:5])
    assert worker.metric("streamer_events_total", outcome="late") == 0


def test_times_are_kept_where_a_recording_tells_them(topics: Settings, worker: WorkerProcess, tmp_path: Path) -> None:
    table = tmp_path / "car.csv"
    table.write_text("timestamp,speed\n" + "".join(f"{1_700_000_000 + i / 10},{i}\n" for i in range(30)))
    done = replay(topics, table, "--speed", 0, "--session", "kept", "--keep-times")
    assert done.returncode == 0, done.stderr
    wait_for(lambda: len(results(topics.redis, topics, "kept")) == 3, 30.0)
    assert [int(r["start_us"]) for r in results(topics.redis, topics, "kept")] == [
        (1_700_000_000 + i) * S_US for i in range(3)
    ]
    wav(tmp_path / "talk.wav")
    done = replay(topics, tmp_path / "talk.wav", "--keep-times")
    assert done.returncode == 1
    assert "does not say when it was recorded: leave out --keep-times" in done.stderr.splitlines()[-1]
