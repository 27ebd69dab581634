"""Recording, verifying and sending again, against a live worker on a real Kafka and a real Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from streamer.broker import topics as topic_admin
from streamer.errors import UsageError
from streamer.events import KIND_NAMES
from streamer.feeds import simulate
from streamer.golden import again, record, recording, verify
from streamer.local.worker import environment
from streamer.result import Result
from streamer.settings import Settings
from streamer.store import results
from tests.harness import S_US, end, own_settings, read_topic, running_worker, second, send, wait_for

pytestmark = pytest.mark.integration

SECONDS, SESSIONS = 16, 3


def new_settings(kafka: str, redis_url: str, model_folder: Path) -> Settings:
    settings = own_settings(kafka, redis_url, model_folder, max_delay_ms=1500)
    topic_admin.create(settings)
    return settings


def other(settings: Settings, **changes: Any) -> Settings:
    return Settings.load(**{**settings.model_dump(exclude_unset=True), **changes})


def live_results(settings: Settings) -> dict[str, list[Result]]:
    with results.connected(settings) as (client, keys):
        return {name: list(results.results(client, keys, name)) for name in results.sessions(client, keys)}


def settled(settings: Settings, sessions: int, windows: int, within_s: float = 40.0) -> None:
    """Every session has all its windows."""
    wait_for(
        lambda: [len(found) for found in live_results(settings).values()] == [windows] * sessions,
        within_s,
        lambda: str({name: len(found) for name, found in live_results(settings).items()}),
    )


def verified(settings: Settings, path: Path, **options: Any) -> verify.Report:
    with results.connected(settings) as (client, keys):
        reference = verify.RedisReference(client, keys)
        return verify.run(settings, path, reference, **{"tolerance": 1e-3, **options})


def explained(report: verify.Report) -> str:
    return "\n".join(str(line) for line in [report.summary, *report.differences[:20]])


def streamer(settings: Settings, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "streamer", *arguments],
        cwd=folder,
        env=os.environ | environment(settings),
        capture_output=True,
        text=True,
        timeout=120,
    )


class Recorder:
    """``streamer.golden.record`` in a thread, until it is stopped."""

    def __init__(self, settings: Settings, path: Path, stretch: record.Stretch = record.Stretch()) -> None:  # noqa: B008
        self.stop = threading.Event()
        self.outcome = record.Outcome()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(settings, path, stretch))

    def _run(self, settings: Settings, path: Path, stretch: record.Stretch) -> None:
        self.outcome = record.record(
            settings, path, stretch, stop=self.stop, on_progress=lambda outcome: self._looked.set()
        )

    def __enter__(self) -> Recorder:
        self._thread.start()
        assert self._looked.wait(20)
        return self

    def __exit__(self, *error: object) -> None:
        self.stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive()


class Live(NamedTuple):
    settings: Settings
    whole: Path  # recorded from before the first record
    joined: Path  # recorded from the middle on
    sent: int


@pytest.fixture(scope="module")
def live(kafka: str, redis_url: str, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Live:
    """Drives with everything that can go wrong, sent at their own pace to a worker, and recorded meanwhile."""
    folder = tmp_path_factory.mktemp("golden")
    settings = new_settings(kafka, redis_url, model_folder)
    options = simulate.Options(jitter_ms=150, drop=0.02, late=0.02, late_ms=4000, dies=("audio", 9.0))
    whole, joined = folder / "whole.mcap", folder / "joined.mcap"
    sent: list[int] = []

    def feed() -> None:
        sent.append(
            simulate.run(
                settings, sessions=SESSIONS, seconds=SECONDS, speed=1.0, seed=3, name="g", truth=None, options=options
            )
        )

    feeding = threading.Thread(target=feed)
    with running_worker(settings, folder / "worker.log") as worker:
        with Recorder(settings, whole):
            feeding.start()
            time.sleep(SECONDS / 4)
            with Recorder(settings, joined):
                feeding.join()
                settled(settings, SESSIONS, SECONDS)
        worker.stop()
    return Live(settings, whole, joined, sent[0])


def test_a_recording_has_every_record_as_it_lies_in_the_topics(live: Live) -> None:
    found = list(recording.read(live.whole))
    assert len(found) == live.sent
    rows = {topic: row for row, topic in enumerate(live.settings.source_topics)}
    for topic, row in rows.items():
        there = {
            (m.partition, m.offset, m.timestamp * 1000, m.key, m.value, tuple(m.headers))
            for m in read_topic(live.settings, topic)
        }
        assert {
            (r.partition, r.offset, r.log_time_us, r.key, r.value, r.headers) for r in found if r.row == row
        } == there
    about = recording.describe(live.whole)
    assert about.start_us == (0, 0, 0)  # nothing came before
    assert about.end_us is not None
    assert about.kinds == KIND_NAMES


def test_a_recording_gives_the_live_windows_and_results_again(live: Live) -> None:
    report = verified(live.settings, live.whole)
    assert report.differences == [], explained(report)
    summary = report.summary
    assert summary.compared == summary.same == sum(map(len, live_results(live.settings).values()))
    assert summary.compared >= SESSIONS * SECONDS
    assert (summary.unsure, summary.open, summary.refused) == (0, 0, {})
    assert summary.late > 0
    closed_by = Counter(r.closed_by for found in live_results(live.settings).values() for r in found)
    assert closed_by["complete"] > 0
    assert closed_by["deadline"] > 0


def test_scores_are_equal_to_the_last_digit_or_two(live: Live) -> None:
    report = verified(live.settings, live.whole, tolerance=1.5e-4)  # they have four
    assert report.differences == [], explained(report)


def test_of_sessions_under_way_only_what_the_recording_decides_is_compared(live: Live) -> None:
    about = recording.describe(live.joined)
    assert any(about.start_us)
    report = verified(live.settings, live.joined)
    assert report.differences == [], explained(report)
    assert report.summary.unsure > 0
    assert report.summary.compared >= SESSIONS * (SECONDS * 3 // 4 - 8)


def test_what_is_in_the_topics_already_is_recorded_up_to_now(live: Live, tmp_path: Path) -> None:
    outcome = record.record(live.settings, tmp_path / "all.mcap", record.Stretch(since_us=0))
    assert outcome.records == live.sent
    assert list(recording.read(tmp_path / "all.mcap")) == list(recording.read(live.whole))
    report = verified(live.settings, tmp_path / "all.mcap")
    assert report.differences == [], explained(report)
    assert report.summary.open == 0


def test_a_stretch_by_log_time_and_session_has_these_records_alone(live: Live, tmp_path: Path) -> None:
    everything = list(recording.read(live.whole))
    since_us = everything[len(everything) // 3].log_time_us
    stretch = record.Stretch(since_us, seconds=4.0, sessions=("sim-g-1",))
    record.record(live.settings, tmp_path / "some.mcap", stretch)
    wanted = [r for r in everything if r.key == b"sim-g-1" and since_us <= r.log_time_us < since_us + 4 * S_US]
    assert list(recording.read(tmp_path / "some.mcap")) == wanted
    assert recording.describe(tmp_path / "some.mcap").end_us == since_us + 4 * S_US
    with_room = record.Stretch(since_us, seconds=9.0, sessions=("sim-g-1",))
    record.record(live.settings, tmp_path / "more.mcap", with_room)
    report = verified(live.settings, tmp_path / "more.mcap")
    assert report.differences == [], explained(report)
    assert report.summary.open > 0
    assert report.summary.compared > 0


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({"window_ms": 2000}, {"missing", "extra"}),
        ({"sensors": {name: {"max_delay_ms": 0, "idle_after_ms": 0} for name in KIND_NAMES}}, {"closed_by"}),
    ],
)
def test_another_setting_shows_as_differences(live: Live, changes: dict[str, Any], kinds: set[str]) -> None:
    report = verified(other(live.settings, **changes), live.whole)
    assert kinds <= report.summary.kinds.keys(), explained(report)


def test_results_as_they_are_printed_serve_as_a_reference(live: Live, tmp_path: Path) -> None:
    lines = [r.to_json() for found in live_results(live.settings).values() for r in found]
    (tmp_path / "live.ndjson").write_bytes(b"\n".join(lines) + b"\n")
    reference = verify.FileReference(tmp_path / "live.ndjson")
    report = verify.run(live.settings, live.whole, reference, tolerance=1e-3)
    assert report.differences == [], explained(report)
    assert report.summary.compared == len(lines)


def test_the_commands_make_a_reference_and_hold_a_change_against_it(live: Live, tmp_path: Path) -> None:
    path = str(live.whole)
    made = streamer(live.settings, tmp_path, "verify", path, "--against", "redis", "--save", "golden.ndjson")
    assert made.returncode == 0, made.stdout + made.stderr
    same = streamer(live.settings, tmp_path, "verify", path, "--against", "golden.ndjson", "--json")
    assert same.returncode == 0, same.stdout
    (line,) = same.stdout.splitlines()
    summary = json.loads(line)["summary"]
    assert summary["compared"] == summary["same"] == len((tmp_path / "golden.ndjson").read_text().splitlines())
    assert summary["compared"] >= SESSIONS * SECONDS
    changed = streamer(other(live.settings, window_ms=500), tmp_path, "verify", path, "--against", "golden.ndjson")
    assert changed.returncode == 1
    assert "missing" in changed.stdout
    assert "Traceback" not in changed.stderr


def test_the_record_command_ends_with_a_whole_file_when_it_is_told_to(live: Live, tmp_path: Path) -> None:
    children = {
        number: subprocess.Popen(
            [sys.executable, "-m", "streamer", "record", f"{number.name}.mcap"],
            cwd=tmp_path,
            env=os.environ | environment(live.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    for number, child in children.items():
        path = tmp_path / f"{number.name}.mcap"
        wait_for(path.exists, 40.0)
        child.send_signal(number)
        out, err = child.communicate(timeout=40)
        assert (child.returncode, out) == (0, ""), err
        assert "recorded 0 records" in err
        assert recording.describe(path).end_us is not None
        assert list(recording.read(path)) == []
    refused = streamer(live.settings, tmp_path, "record", "SIGINT.mcap", "--seconds", "1")
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == "streamer: SIGINT.mcap is there already; --force replaces it"


def test_a_worker_that_is_killed_gives_what_the_recording_gives(
    kafka: str, redis_url: str, model_folder: Path, tmp_path: Path
) -> None:
    settings = new_settings(kafka, redis_url, model_folder)
    options = simulate.Options(jitter_ms=80, late=0.03, late_ms=3000, dies=("telemetry", 6.0))
    feeding = threading.Thread(
        target=simulate.run,
        args=(settings,),
        kwargs={"sessions": 3, "seconds": 14, "speed": 1.0, "seed": 5, "name": "k", "options": options},
    )
    with running_worker(settings, tmp_path / "worker.log") as worker, Recorder(settings, tmp_path / "r.mcap"):
        feeding.start()
        for pause_s in (4.0, 2.5):
            time.sleep(pause_s)
            worker.kill()
            worker.restart()
        feeding.join()
        settled(settings, 3, 14)
        worker.stop()
    report = verified(settings, tmp_path / "r.mcap")
    assert report.differences == [], explained(report)
    assert report.summary.compared >= 3 * 14


def test_a_feed_as_fast_as_it_goes_gives_the_same_windows(
    kafka: str, redis_url: str, model_folder: Path, tmp_path: Path
) -> None:
    settings = new_settings(kafka, redis_url, model_folder)
    options = simulate.Options(jitter_ms=300, late=0.05, dies=("audio", 20.0))
    with running_worker(settings, tmp_path / "worker.log") as worker, Recorder(settings, tmp_path / "r.mcap"):
        simulate.run(settings, sessions=4, seconds=40, speed=0.0, seed=7, name="f", options=options)
        settled(settings, 4, 40)
        worker.stop()
    report = verified(settings, tmp_path / "r.mcap")
    assert report.differences == [], explained(report)
    assert report.summary.compared >= 4 * 38


def test_what_is_sent_again_gives_the_same_windows_at_another_time(
    kafka: str, redis_url: str, model_folder: Path, tmp_path: Path
) -> None:
    settings, copy = (new_settings(kafka, redis_url, model_folder) for _ in range(2))
    start_us = int(time.time()) * S_US - 30 * S_US
    for i in range(5):
        send(settings, [r for car in ("car-a", "car-b") for r in second(settings, car, start_us + i * S_US)])
        time.sleep(0.5)
    send(settings, [end(settings, car, start_us + 5 * S_US) for car in ("car-a", "car-b")])
    time.sleep(2.0)  # of log time, in which the last windows close
    path = tmp_path / "r.mcap"
    record.record(settings, path, record.Stretch(since_us=0))
    with running_worker(copy, tmp_path / "worker.log") as worker:
        assert again.send_again(copy, path) == 5 * 2 * 6 + 2
        settled(copy, 2, 5)
        worker.stop()
    before, after = (read_all(s) for s in (settings, copy))
    assert [r[:4] for r in after] == [r[:4] for r in before]  # topic, partition, key, value in the order of offsets
    shifts = {
        recorded_time(a) - recorded_time(b) for a, b in zip(after, before, strict=True) if recorded_time(b) is not None
    }
    (shift_us,) = shifts
    assert shift_us % settings.hop_us == 0
    gaps = [sorted(r[5] for r in records) for records in (before, after)]
    assert abs((gaps[0][-1] - gaps[0][0]) - (gaps[1][-1] - gaps[1][0])) < 0.3 * S_US
    offline = verify.run(settings, path, None, tolerance=1e-3)
    live = live_results(copy)
    assert sum(map(len, live.values())) == offline.summary.windows == 10
    for found in live.values():
        assert [r.end_us - shift_us for r in found] == [start_us + (i + 1) * S_US for i in range(5)]
        assert {r.present for r in found} == {KIND_NAMES}


def read_all(settings: Settings) -> list[tuple[Any, ...]]:
    """Row, partition, key, value, headers, log time in µs of everything, in the order of offsets."""
    return [
        (row, m.partition, m.key, m.value, dict(m.headers), m.timestamp * 1000)
        for row, topic in enumerate(settings.source_topics)
        for m in sorted(read_topic(settings, topic), key=lambda m: (m.partition, m.offset))
    ]


def recorded_time(found: tuple[Any, ...]) -> int:
    from datetime import datetime

    return round(datetime.fromisoformat(found[4]["ce_time"].decode()).timestamp() * 1e6)


def test_topics_with_other_partitions_are_refused(kafka: str, redis_url: str, model_folder: Path, live: Live) -> None:
    settings = other(live.settings, topic_prefix=f"g{uuid.uuid4().hex[:8]}", partitions=2)
    topic_admin.create(settings)
    with pytest.raises(UsageError, match="was recorded with 3 partitions a topic"):
        again.send_again(settings, live.whole)
