"""Real films through a worker with ``models/everyday``, and found again by what is in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from streamer.local.worker import environment
from streamer.model.predictor import Predictor
from streamer.retrieval.search import Hit, Query, find
from streamer.settings import Settings
from tests import ready
from tests.harness import ROOT, results, running_worker, wait_for

pytestmark = pytest.mark.integration

FILMS = {  # session -> film, its windows
    "car-park": ("gopro/max-heromode.mp4", 11),
    "speaker": ("grid/bbaf2n.mpg", 3),
    "telescope": ("nasa/nasa_13013.mp4", 14),
}


@pytest.fixture
def settings(topics: Settings, senses_dir: Path, tmp_path: Path) -> Settings:
    there = ready.settings(senses_dir, "objects", "sounds", "sentences")
    own = {"model": ROOT / "models/everyday", "index": tmp_path / "index"}
    return topics.model_copy(update={**own, "senses_dir": there.senses_dir.resolve()})


def begin(settings: Settings, *arguments: object) -> subprocess.Popen[str]:
    """``streamer`` as its users run it."""
    command = [sys.executable, "-m", "streamer", *map(str, arguments)]
    env = os.environ | environment(settings)
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(running: subprocess.Popen[str]) -> str:
    said, errors = running.communicate(timeout=120)
    assert running.returncode == 0, errors
    return said


def outputs(settings: Settings, session: str) -> list[dict[str, Any]]:
    return [json.loads(result["outputs"]) for result in results(settings.redis, settings, session)]


def test_films_are_told_in_words_and_found_by_them(settings: Settings, data: Path, tmp_path: Path) -> None:
    with running_worker(settings, tmp_path / "worker.log"):
        replays = [
            begin(settings, "replay", data / film, "--speed", 0, "--session", session)
            for session, (film, _) in FILMS.items()
        ]
        for running in replays:
            end(running)
        for session, (_, count) in FILMS.items():
            wait_for(partial(lambda session, count: len(outputs(settings, session)) == count, session, count), 60.0)

    # what eyes and ears find in them
    parked = outputs(settings, "car-park")
    assert sum("car" in one.get("objects", {}).get("labels", []) for one in parked) >= 8
    assert max(one["objects"]["counts"].get("car", 0) for one in parked if "objects" in one) >= 3
    speaking = outputs(settings, "speaker")
    assert [one["people"]["value"] for one in speaking] == [1.0] * 3
    assert any("speech" in one["sounds"]["labels"] for one in speaking)
    telescope = outputs(settings, "telescope")
    assert sum("speech" in one.get("sounds", {}).get("labels", []) for one in telescope) >= 10
    assert "sounds" not in telescope[-1]  # its last 56 ms are too little to judge
    assert any("Webb" in one["words"]["text"] for one in telescope)

    end(begin(settings, "index"))
    table = end(begin(settings, "search", "cars in a car park", "--limit", "3"))
    assert table.count("car-park") == 3
    loaded = Predictor.load(settings.model, settings=settings)

    def found(kind: str, content: str | bytes, limit: int = 3) -> list[Hit]:
        return find(settings, Query(kind, content, limit, None), lambda: loaded)

    assert {hit.session for hit in found("text", "one person, speech")} == {"speaker"}
    assert {hit.session for hit in found("text", "the narrator tells of a space telescope")} == {"telescope"}
    clip = data.joinpath("librivox")
    sound = sorted(clip.glob("*.wav"))[0].read_bytes()
    assert {hit.session for hit in found("audio", sound)} <= {"speaker", "telescope"}  # where somebody speaks
