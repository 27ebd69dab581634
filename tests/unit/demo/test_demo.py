from __future__ import annotations

import time

import pytest

from streamer.demo import run
from streamer.feeds import simulate
from streamer.local import worker
from streamer.settings import Settings
from streamer.training.simulated import FIRST_HELD_OUT_SEED


def test_drives_begin_on_a_window_border_shortly_after_now_under_new_names() -> None:
    settings = Settings.load(window_ms=2000, hop_ms=500)
    first, second = run.plan(settings, run.Options(sessions=2)), run.plan(settings, run.Options(sessions=2))
    assert len({drive.session for drive in (*first, *second)}) == 4
    ahead_us = first[0].start_us - time.time_ns() // 1000
    assert first[0].start_us % 500_000 == 0
    assert 0 < ahead_us <= run.LEAD_S * 1e6 + 500_000


def test_the_model_was_not_trained_on_the_drives_of_the_demo() -> None:
    drives = run.plan(Settings.load(), run.Options(seed=0))
    assert min(drive.seed for drive in drives) >= FIRST_HELD_OUT_SEED


def test_the_windows_of_a_drive_are_those_that_lie_whole_inside_it_with_their_truth() -> None:
    drive = simulate.Drive(1, "car", 1_750_000_000_000_000, 6)
    windows = list(run.windows(drive, Settings.load(window_ms=2000, hop_ms=1000)))
    assert [(w.start_us - drive.start_us) // 1_000_000 for w in windows] == [0, 1, 2, 3, 4]
    assert windows[-1].end_us == drive.end_us
    assert [w.label for w in windows] == [simulate.label_of(drive.truth(), w.start_us, w.end_us) for w in windows]


def test_given_settings_reach_a_child_process_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    given = Settings.load(
        kafka="a:1,b:2", hop_ms=500, dataref_prefixes=("s3://x/",), sensors={"text": {"max_delay_ms": 9}}
    )
    environment = worker.environment(given)
    assert environment["STREAMER_KAFKA"] == "a:1,b:2"
    assert "STREAMER_GROUP" not in environment
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Settings.load() == given
