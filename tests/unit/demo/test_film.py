"""A film's demo: what it asks for before it begins, and how it sums up what was found."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from streamer.demo import film, viewing
from streamer.demo.listening import check
from streamer.demo.summary import Expected
from streamer.errors import UsageError
from streamer.result import Result
from streamer.retrieval.search import Hit
from streamer.settings import Settings

S_US = 1_000_000
START_US = 1_750_000_000 * S_US


def result(second: int, objects: tuple[str, ...] = (), sounds: tuple[str, ...] = (), **changed: Any) -> Result:
    outputs = {
        name: {"labels": list(found), "scores": {}} for name, found in (("objects", objects), ("sounds", sounds))
    }
    start_us = START_US + second * S_US
    values: dict[str, Any] = {
        "session": "film-1",
        "start_us": start_us,
        "end_us": start_us + S_US,
        "closed_by": "deadline",
        "present": ("image",),
        "coverage": {},
        "members": {},
        "outputs": outputs,
        "embedding": b"",
        "model": "everyday",
        "version": "1-abc",
        "status": "ok",
        "latencies_us": {"total": 2 * S_US},
    }
    return Result(**values | changed)


def summed(results: list[Result], late_events: int = 0) -> viewing.Viewing:
    query = viewing.query(results)
    hits = [Hit("film-1", START_US + 2 * S_US, START_US + 3 * S_US, "", 0.91, "a car", None, None)]
    return viewing.view_of(
        results,
        [Expected("film-1", START_US + i * S_US, START_US + (i + 1) * S_US, None) for i in range(4)],
        session="film-1",
        records=100,
        seconds=9.0,
        dead_letters=0,
        late_events=late_events,
        phrases=["Hello there."],
        descriptions=["A car."] * 3,
        said=["In view: car."],
        query=query,
        hits=hits,
    )


def test_without_the_networks_one_line_says_which_are_missing_and_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("streamer.senses.files.state", lambda row, folder: "missing")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UsageError) as refused:
        check(Settings(senses_dir=tmp_path), film.ROLES, "a film's demo")
    line = str(refused.value)
    fetched = ("moonshine", "silero", "ssd-mobilenet", "yamnet", "minilm", "hibari")
    assert f"`streamer senses {' '.join(f'--fetch {name}' for name in fetched)}`" in line
    assert "MB" in line
    assert "\n" not in line
    check(Settings(senses_dir=tmp_path, senses=dict.fromkeys(film.ROLES, "own")), film.ROLES, "a film's demo")


def test_windows_wait_for_the_words_of_the_longest_utterance_unless_they_wait_longer_already() -> None:
    settings = film.everyday(Settings(), listens=True)
    assert settings.model.name == "everyday"
    longest_ms = settings.transcribe_longest_ms + settings.transcribe_silence_ms
    assert settings.sensors["text"].max_delay_ms > longest_ms
    patient = film.everyday(Settings(sensors={"text": {"max_delay_ms": 60_000}}), listens=True)
    assert patient.sensors["text"].max_delay_ms == 60_000
    assert film.everyday(Settings(), listens=False).sensors == Settings().sensors


def test_a_film_is_summed_up_by_what_was_seen_and_heard_in_how_many_windows() -> None:
    found = summed([result(0, ("car", "person"), ("engine",)), result(1, ("car",)), result(2, (), ("engine",))])
    assert found.objects == {"car": 2, "person": 1}
    assert found.sounds == {"engine": 2}
    assert found.query == "car and engine"
    assert (found.windows, found.expected_windows, found.lost_windows) == (3, 4, 1)
    assert not found.clean
    assert [(hit.second, hit.similarity) for hit in found.hits] == [(2.0, 0.91)]


def test_the_summary_for_people_fits_a_terminal_and_says_why_words_were_late() -> None:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(viewing.view(summed([result(i, ("car",)) for i in range(4)], late_events=2)))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    assert "0 of 4 lost" in flat
    assert "car in 4" in flat
    assert "second 2 (0.91)" in flat
    assert "STREAMER_SENSORS__TEXT__MAX_DELAY_MS" in flat


def test_a_film_in_which_nothing_was_found_is_summed_up_too() -> None:
    nothing = viewing.view_of(
        [], [], session="f", records=0, seconds=1.0, dead_letters=0, late_events=0, phrases=[], descriptions=[],
        said=[], query=viewing.query([]), hits=[],
    )  # fmt: skip
    assert not nothing.clean
    assert viewing.as_json(nothing).startswith(b"{")
    Console(width=80, quiet=True).print(viewing.view(nothing))
